//! `[server]`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::configuration::ServerSettings;
use super::environment::Environment;
use super::fault::Report;
use super::section::{Entry, Keys, Section};
use super::units;
use crate::connection::Limits;
use crate::gateway::DEFAULT_SPOOL;
use crate::listener::{Address, ListenerSettings, Protocol, Role};
use crate::telemetry::{Format, Level, Sink, TelemetrySettings, Template};

/// The keys of `[server]`.
pub(super) const KEYS: Keys = Keys {
    known: &[
        "listen",
        "user",
        "group",
        "spool",
        "max_spool",
        "max_cgi_processes",
        "header_timeout",
        "keep_alive",
        "grace",
        "drain_delay",
        "max_body",
        "max_connections",
        "max_connections_per_client",
        "max_head",
        "max_request_line",
        "max_fields",
        "access_log",
        "error_log",
        "traces",
        "event_loops",
        "pid_file",
        "redirect_https",
        "hsts",
        "trusted_proxies",
        "monitor",
        "health",
        "control",
        "state",
    ],
    later: &[],
};

const LISTENER: Keys = Keys { known: &["address", "mode", "group", "proxy_protocol", "protocol"], later: &[] };
const HSTS: Keys = Keys { known: &["max_age", "subdomains", "preload"], later: &[] };
const ACCESS_LOG: Keys = Keys { known: &["path", "format", "mask"], later: &[] };
const ERROR_LOG: Keys = Keys { known: &["path", "level"], later: &[] };

/// What is used where nothing is written; no listeners yet.
pub(super) fn defaults(environment: &Environment) -> ServerSettings {
    ServerSettings {
        listeners: Vec::new(),
        limits: Limits::default(),
        telemetry: TelemetrySettings::default(),
        traces: None,
        event_loops: environment.cores.max(1),
        user: None,
        group: None,
        spool: PathBuf::from(DEFAULT_SPOOL),
        max_spool: 10 << 30,
        max_cgi_processes: 128,
        grace: Duration::from_secs(25),
        // Kubernetes takes a pod out of its services while it already sends it TERM: some seconds of requests still come.
        drain_delay: Duration::from_secs(if environment.variable("KUBERNETES_SERVICE_HOST").is_some() { 5 } else { 0 }),
        pid_file: None,
        trusted_proxies: Vec::new(),
        monitor: Vec::new(),
        health: Vec::new(),
        control: None,
        redirect_https: false,
        hsts: None,
        state: super::acme::state(environment),
    }
}

/// Reads the section into `settings`.
pub(super) fn read(section: &Section<'_>, settings: &mut ServerSettings) {
    if let Some(listeners) = section.entry("listen").and_then(|entry| listeners(&entry)) {
        settings.listeners = listeners;
    }
    for (key, role, place) in
        [("monitor", Role::Monitor, &mut settings.monitor), ("health", Role::Health, &mut settings.health)]
    {
        let found = section.entry(key).and_then(|entry| listeners(&entry));
        set(place, found.map(|found| found.into_iter().map(|one| ListenerSettings { role, ..one }).collect()));
    }
    settings.control = section.entry("control").and_then(|entry| entry.path()).or(settings.control.take());
    settings.state = section.entry("state").and_then(|entry| entry.path()).or(settings.state.take());
    let name = |key| section.entry(key).and_then(|entry| entry.name());
    settings.user = name("user").or(settings.user.take());
    settings.group = name("group").or(settings.group.take());
    let path = |key| section.entry(key).and_then(|entry| entry.path());
    settings.pid_file = path("pid_file").or(settings.pid_file.take());
    set(&mut settings.spool, path("spool"));
    let whole = |key, most| section.entry(key).and_then(|entry| entry.whole(1, most));
    set(&mut settings.event_loops, whole("event_loops", 1024).map(|number| number as usize));
    set(
        &mut settings.max_cgi_processes,
        section.entry("max_cgi_processes").and_then(|entry| entry.whole(1, 10_000)).map(|most| most as u32),
    );
    set(&mut settings.max_spool, section.entry("max_spool").and_then(|entry| entry.size()));
    set(&mut settings.grace, section.entry("grace").and_then(|entry| entry.duration()));
    set(&mut settings.drain_delay, section.entry("drain_delay").and_then(|entry| entry.duration()));
    let limits = &mut settings.limits;
    set(&mut limits.header_timeout, section.entry("header_timeout").and_then(|entry| entry.positive_duration()));
    set(&mut limits.keep_alive, section.entry("keep_alive").and_then(|entry| entry.duration()));
    set(&mut limits.max_body, section.entry("max_body").and_then(|entry| entry.size()));
    set(&mut limits.max_connections, whole("max_connections", 10_000_000).map(|number| number as usize));
    let per_client = whole("max_connections_per_client", 10_000_000).map(|number| number as usize);
    limits.max_connections_per_client = per_client.or(limits.max_connections_per_client);
    set(&mut limits.max_fields, whole("max_fields", 10_000).map(|number| number as usize));
    // A head is kept in memory as a whole, and its parts are 32-bit offsets.
    set(&mut limits.max_head, head_size(section, "max_head"));
    set(&mut limits.max_request_line, head_size(section, "max_request_line"));
    set(&mut settings.trusted_proxies, section.entry("trusted_proxies").and_then(|entry| networks(&entry)));
    set(&mut settings.redirect_https, section.entry("redirect_https").and_then(|entry| entry.boolean()));
    if let Some(entry) = section.entry("hsts") {
        settings.hsts = hsts(&entry);
    }
    if let Some(entry) = section.entry("access_log") {
        access_log(&entry, &mut settings.telemetry);
    }
    if let Some(entry) = section.entry("error_log") {
        error_log(&entry, &mut settings.telemetry);
    }
    settings.traces = section.entry("traces").and_then(|entry| super::traces::read(&entry)).map(Box::new);
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn head_size(section: &Section<'_>, key: &str) -> Option<usize> {
    let entry = section.entry(key)?;
    let size = entry.size()?;
    if !(1024..=1 << 24).contains(&size) {
        entry.expected("a size from \"1KiB\" to \"16MiB\"");
        return None;
    }
    Some(size as usize)
}

/// `true`, or a table: the value of `Strict-Transport-Security` (RFC 6797).
fn hsts(entry: &Entry<'_>) -> Option<String> {
    const WHAT: &str = "`true`, or a table such as { max_age = \"730d\", subdomains = true }";
    /// Two years, as the lists of browsers ask for.
    const USUAL: Duration = Duration::from_secs(730 * 24 * 60 * 60);
    if !entry.is_table() {
        return entry.boolean()?.then(|| format!("max-age={}", USUAL.as_secs()));
    }
    let section = entry.section("`hsts`", WHAT, HSTS)?;
    let max_age = section.entry("max_age").map_or(Some(USUAL), |entry| entry.duration())?;
    let mut value = format!("max-age={}", max_age.as_secs());
    let is_set = |key| section.entry(key).and_then(|entry| entry.boolean()).unwrap_or(false);
    if is_set("subdomains") {
        value.push_str("; includeSubDomains");
    }
    if is_set("preload") {
        value.push_str("; preload");
    }
    Some(value)
}

fn networks(entry: &Entry<'_>) -> Option<Vec<(IpAddr, u8)>> {
    const WHAT: &str = "a list of addresses and networks such as [\"10.0.0.0/8\", \"::1\"]";
    let items = entry.items(WHAT)?;
    Some(items.iter().filter_map(|item| item.parse(WHAT, units::network)).collect())
}

fn listeners(entry: &Entry<'_>) -> Option<Vec<ListenerSettings>> {
    const WHAT: &str = "a list of addresses such as [\"0.0.0.0:80\", \"unix:/run/daemun.sock\"]";
    let items = if entry.is_list() { entry.items(WHAT)? } else { vec![entry.clone()] };
    if items.is_empty() {
        entry.expected(WHAT);
    }
    let mut listeners: Vec<ListenerSettings> = Vec::new();
    for item in items {
        let Some(listener) = listener(&item) else { continue };
        if listeners.iter().any(|other| other.address == listener.address) && !is_any_port(&listener.address) {
            item.fault(format!("`{}` stands here twice", listener.address));
        }
        listeners.push(listener);
    }
    Some(listeners)
}

fn listener(item: &Entry<'_>) -> Option<ListenerSettings> {
    const WHAT: &str = "an address such as \"0.0.0.0:80\", or a table such as { address = \"unix:/run/daemun.sock\" }";
    if !item.is_table() {
        return address(item, WHAT).map(|(address, tls)| ListenerSettings { tls, ..ListenerSettings::at(address) });
    }
    let section = item.section("a listener", WHAT, LISTENER)?;
    let Some(address_entry) = section.entry("address") else {
        item.fault("a listener needs an `address`");
        return None;
    };
    let (address, tls) = address(&address_entry, WHAT)?;
    let mode = section.entry("mode").and_then(|entry| entry.parse("access bits such as \"660\"", mode));
    let group = section.entry("group").and_then(|entry| entry.name());
    if !matches!(address, Address::Unix(_)) {
        for key in ["mode", "group"] {
            if let Some(entry) = section.entry(key) {
                entry.fault("only a listener on a `unix:` address has it");
            }
        }
    }
    let proxy_protocol = section.entry("proxy_protocol").and_then(|entry| entry.boolean()).unwrap_or(false);
    let protocol_entry = section.entry("protocol");
    let said = protocol_entry.as_ref().and_then(|entry| entry.parse("`http`, `fastcgi`, `scgi` or `uwsgi`", protocol));
    let protocol = said.unwrap_or_default();
    if let Some(entry) = protocol_entry.filter(|_| tls && protocol != Protocol::Http) {
        entry.fault("TLS is for listeners that speak HTTP; leave `https://` out");
    }
    Some(ListenerSettings { tls, mode, group, proxy_protocol, protocol, ..ListenerSettings::at(address) })
}

/// Tells listeners for web servers whose word counts for nothing.
pub(super) fn warn_of_strangers(server: &ServerSettings, report: &Report) {
    let strangers = server
        .listeners
        .iter()
        .filter(|listener| listener.protocol != Protocol::Http && matches!(listener.address, Address::Tcp(_)));
    for listener in strangers.filter(|_| server.trusted_proxies.is_empty()) {
        let (protocol, address) = (listener.protocol, &listener.address);
        report.warn(format!(
            "the {protocol} listener on {address} takes nobody's word for who the client is, so that REMOTE_ADDR, HTTPS and \
             SCRIPT_NAME will be those of the web server itself: name it in `trusted_proxies` of [server], or listen on a \
             Unix socket"
        ));
    }
}

fn protocol(text: &str) -> Result<Protocol, String> {
    let all = [Protocol::Http, Protocol::Fastcgi, Protocol::Scgi, Protocol::Uwsgi];
    let found = all.into_iter().find(|protocol| protocol.to_string() == text);
    found.ok_or_else(|| format!("expected `http`, `fastcgi`, `scgi` or `uwsgi`, found {text:?}"))
}

/// A number alone is a port.
fn address(entry: &Entry<'_>, what: &str) -> Option<(Address, bool)> {
    if entry.is_integer() {
        let port = entry.whole(0, 65_535)?;
        return units::listener(&port.to_string(), &entry.source.document.folder).ok();
    }
    entry.parse(what, |text| units::listener(text, &entry.source.document.folder))
}

fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| format!("expected access bits in octal such as \"660\", found {text:?}"))
}

/// With port 0 the kernel chooses, each time another.
pub(super) fn is_any_port(address: &Address) -> bool {
    matches!(address, Address::Tcp(address) if address.port() == 0)
}

fn access_log(entry: &Entry<'_>, telemetry: &mut TelemetrySettings) {
    const WHAT: &str = "a path, \"-\", \"off\", or a table such as { path = \"-\", format = \"json\" }";
    if entry.is_text() {
        set(&mut telemetry.access.sink, sink(entry));
    } else if let Some(section) = entry.section("`access_log`", WHAT, ACCESS_LOG) {
        set(&mut telemetry.access.sink, section.entry("path").and_then(|entry| sink(&entry)));
        let format = section.entry("format").and_then(|entry| entry.parse("`combined`, `json` or a template", format));
        set(&mut telemetry.access.format, format);
        set(&mut telemetry.access.mask, section.entry("mask").and_then(|entry| entry.texts()));
    }
}

fn error_log(entry: &Entry<'_>, telemetry: &mut TelemetrySettings) {
    const WHAT: &str = "a path, \"-\", or a table such as { path = \"-\", level = \"info\" }";
    if entry.is_text() {
        set(&mut telemetry.error.sink, sink(entry));
    } else if let Some(section) = entry.section("`error_log`", WHAT, ERROR_LOG) {
        set(&mut telemetry.error.sink, section.entry("path").and_then(|entry| sink(&entry)));
        let level =
            section.entry("level").and_then(|entry| entry.parse("`error`, `warning`, `info` or `debug`", level));
        set(&mut telemetry.error.level, level);
    }
}

fn sink(entry: &Entry<'_>) -> Option<Sink> {
    match entry.text()?.as_str() {
        "-" => Some(Sink::Standard),
        "off" => Some(Sink::Off),
        _ => entry.path().map(Sink::File),
    }
}

/// `combined` or `json`.
pub(super) fn format(text: &str) -> Result<Format, String> {
    match text {
        "combined" | "text" => Ok(Format::Combined),
        "json" => Ok(Format::Json),
        _ if text.contains('$') => Template::parse(text).map(|_| Format::Template(text.to_owned())),
        _ => {
            let wish = "`combined`, `json` or a template such as \"$remote_addr $request $status\"";
            Err(format!("expected {wish}, found {text:?}"))
        }
    }
}

/// `error`, `warning`, `info` or `debug`.
pub(super) fn level(text: &str) -> Result<Level, String> {
    match text {
        "error" => Ok(Level::Error),
        "warning" | "warn" => Ok(Level::Warning),
        "info" => Ok(Level::Info),
        "debug" => Ok(Level::Debug),
        _ => Err(format!("expected `error`, `warning`, `info` or `debug`, found {text:?}")),
    }
}
