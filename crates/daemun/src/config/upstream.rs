//! `[upstream.NAME]`: servers that others maintain, and how they are asked.

mod care;

use super::cgi;
use super::configuration::HandlerSettings;
use super::fault::{Place, Report};
use super::route;
use super::section::{Entry, Keys, Section, list};
use super::suggest::did_you_mean;
use crate::proxy::ScriptSettings;
use crate::resolver::NameServer;
use crate::upstream::{
    Address, Balance, ClientTls, HostField, ResponseBuffering, Scheme, ServerSettings, SpawnSettings, Sticky,
    UpstreamSettings, check_tls, is_token,
};

pub(super) const KEYS: Keys = Keys {
    known: &[
        "servers",
        "balance",
        "sticky",
        "health",
        "failures",
        "eject",
        "panic_threshold",
        "retries",
        "slow_start",
        "max_connections",
        "queue",
        "connect_timeout",
        "read_timeout",
        "send_timeout",
        "tunnel_timeout",
        "keep_alive",
        "host",
        "rewrite_location",
        "rewrite_cookies",
        "response_buffering",
        "slow",
        "hedge",
        "resolver",
        "tls",
        "spawn",
    ],
    later: &[],
};
const ROUTE: Keys = Keys { known: &["name", "root", "server_root", "split", "index", "missing", "params"], later: &[] };
const SPAWN: Keys = Keys { known: &["command", "processes", "env", "directory", "user", "group"], later: &[] };
const SERVER: Keys = Keys { known: &["url", "weight", "backup", "max_connections"], later: &[] };
const STICKY: Keys = Keys { known: &["cookie", "key"], later: &[] };
const QUEUE: Keys = Keys { known: &["max", "timeout"], later: &[] };
const BUFFERING: Keys = Keys { known: &["memory", "disk"], later: &[] };
const KEEP_ALIVE: Keys = Keys { known: &["max", "timeout"], later: &[] };
const TLS: Keys = Keys { known: &["ca_file", "server_name", "cert", "key", "verify"], later: &[] };

/// Most requests or connections that make sense on one machine.
const MOST: u64 = 1_000_000;

/// Processes of a program that is started, where nothing is said: what a small machine runs well.
const PROCESSES: u32 = 4;

/// Most of them.
const MOST_PROCESSES: u64 = 1000;

/// Bytes of a key that cookies are signed with: fewer could be guessed.
const SHORTEST_KEY: usize = 16;

/// An upstream with the place that its faults are told at.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) settings: UpstreamSettings,
    pub(super) place: Place,
}

/// Reads `[upstream.NAME]`. After a fault it stands for what was meant, so that those who name it are not at fault too.
pub(super) fn read(name: &str, section: &Section<'_>, entry: &Entry<'_>) -> Draft {
    let spawn = section.entry("spawn").and_then(|entry| spawn(&entry));
    let servers = match &spawn {
        Some(spawn) => {
            if let Some(entry) = section.entry("servers") {
                entry.fault("what `spawn` starts is the only server: `servers` and `spawn` exclude each other");
            }
            vec![spawned(spawn)]
        }
        None if section.entry("spawn").is_some() => Vec::new(),
        None => servers(section, entry).unwrap_or_default(),
    };
    let mut settings = UpstreamSettings::new(name, servers);
    settings.spawn = spawn;
    if let Some(balance) = section.entry("balance").and_then(|entry| entry.parse("a way to balance", Balance::parse)) {
        settings.balance = balance;
    }
    settings.sticky = section.entry("sticky").and_then(|entry| sticky(&entry));
    settings.health = section.entry("health").and_then(|entry| care::health(&entry));
    care::circuit(section, &mut settings);
    limits(section, &mut settings);
    if let Some(entry) = section.entry("host") {
        settings.host = entry.parse("`client`, `server` or a host", field_value).map_or(HostField::Client, host);
    }
    let is_set = |key: &str| section.entry(key).and_then(|entry| entry.boolean()).unwrap_or(false);
    settings.rewrite_location = is_set("rewrite_location");
    settings.rewrite_cookies = is_set("rewrite_cookies");
    if let Some(entry) = section.entry("response_buffering") {
        settings.response_buffering = buffering(&entry);
    }
    settings.resolver = section.entry("resolver").and_then(|entry| resolver(&entry, &settings)).unwrap_or_default();
    if let Some(entry) = section.entry("tls") {
        settings.tls = tls(&entry).unwrap_or_default();
    }
    Draft { settings, place: section.place() }
}

/// The upstream of `--proxy URL=SERVER[,SERVER…]`, and the path that it is below.
pub(super) fn mounted(text: &str) -> Result<(String, UpstreamSettings), String> {
    let wrong = || format!("expected URL=SERVER such as \"/api=http://127.0.0.1:9000\", found {text:?}");
    let (url, servers) = text.split_once('=').ok_or_else(wrong)?;
    let bare = url.strip_suffix('*').unwrap_or(url).trim_end_matches('/');
    let path = format!("{bare}/*");
    if !url.starts_with('/') || bare.contains('*') || path.parse::<crate::router::PathPattern>().is_err() {
        return Err(wrong());
    }
    let servers: Result<Vec<_>, _> = servers.split(',').map(ServerSettings::parse).collect();
    Ok((path, UpstreamSettings::new(format!("--proxy {url}"), servers?)))
}

/// Tells every reference to an upstream that is not there, and every upstream that nothing leads to.
pub(super) fn check(routes: &[route::Draft], upstreams: &[Draft], report: &Report) {
    let names: Vec<&str> = upstreams.iter().map(|upstream| upstream.settings.name.as_str()).collect();
    let mut used = Vec::new();
    for route in routes {
        let name = match &route.settings.handler {
            HandlerSettings::Upstream(name) => name,
            HandlerSettings::Scripts(settings) => &settings.upstream,
            _ => continue,
        };
        used.push(name.as_str());
        if let Some(upstream) = upstreams.iter().find(|upstream| upstream.settings.name == *name) {
            let speaks_http = upstream.settings.servers.iter().any(|server| server.scheme.is_http());
            if speaks_http && matches!(route.settings.handler, HandlerSettings::Scripts(_)) {
                let message = format!(
                    "`upstream`: `root` and `params` are for servers behind FastCGI, SCGI or uwsgi, and `{name}` has one \
                     that speaks HTTP"
                );
                report.fault(route.place.clone(), message);
            }
            continue;
        }
        let near = did_you_mean(name, &names);
        let known: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        let more = match (near.is_empty(), known.is_empty()) {
            (false, _) => near,
            (true, true) => format!("; write [upstream.{name}]"),
            (true, false) => format!("; there is {}", list(&known)),
        };
        report.fault(route.place.clone(), format!("`upstream`: there is no upstream `{name}`{more}"));
    }
    for upstream in upstreams {
        let name = upstream.settings.name.as_str();
        if !used.contains(&name) {
            report.warn(format!("{}: no route leads to [upstream.{name}]", upstream.place));
        }
        if upstream.settings.tls.unverified {
            report.warn(format!(
                "{}: [upstream.{name}] verifies no certificate (`verify = false`): whoever is on the way can read and \
                 change everything",
                upstream.place
            ));
        }
    }
}

/// Reads `upstream` of a route: a name, or a table with what its servers are to run.
pub(super) fn route(entry: &Entry<'_>) -> Option<HandlerSettings> {
    if !entry.is_table() {
        return entry.name().map(HandlerSettings::Upstream);
    }
    let what = "a name, or a table such as { name = \"php\", root = \"/srv/www\" }";
    let section = entry.section("`upstream`", what, ROUTE)?;
    let Some(name) = section.entry("name") else {
        entry.fault("a `name` is missing: that of an [upstream.NAME]");
        return None;
    };
    let root = match section.entry("root") {
        Some(root) => Some(folder(&root)?),
        None => None,
    };
    let params =
        section.entry("params").and_then(|entry| entry.map("`params`", "a table such as { APP_ENV = \"prod\" }"));
    let mut settings = ScriptSettings {
        upstream: name.name()?,
        split: ScriptSettings::SPLIT.to_owned(),
        index: vec![ScriptSettings::INDEX.to_owned()],
        server_root: section.entry("server_root").and_then(|entry| entry.path()),
        params: params.iter().flatten().filter_map(variable).collect(),
        ..ScriptSettings::default()
    };
    for key in ["server_root", "split", "index", "missing"] {
        if let Some(entry) = section.entry(key).filter(|_| root.is_none()) {
            entry.fault("it is for scripts below a `root`, which is missing");
        }
    }
    settings.root = root;
    if let Some(split) = section.entry("split").and_then(|entry| entry.parse("an ending such as \".php\"", ending)) {
        settings.split = split;
    }
    if let Some(index) = section.entry("index") {
        settings.index = if index.is_list() { index.texts()? } else { vec![index.name()?] };
        if settings.index.iter().any(|name| name.is_empty() || name.contains('/')) {
            index.fault("expected names of files such as \"index.php\"");
        }
    }
    let script = |text: &str| {
        let is_path = text.starts_with('/') && text.len() > 1 && !text.ends_with('/');
        if is_path {
            Ok(text.to_owned())
        } else {
            Err(format!("expected a path such as \"/index.php\", found {text:?}"))
        }
    };
    settings.missing = section.entry("missing").and_then(|entry| entry.parse("a path such as \"/index.php\"", script));
    Some(HandlerSettings::Scripts(Box::new(settings)))
}

fn ending(text: &str) -> Result<String, String> {
    // Endings that differ in what letters of other alphabets fold to would lead to other scripts than those meant.
    let is_ending = text.len() > 1 && text.starts_with('.') && text.is_ascii() && !text.contains('/');
    if is_ending { Ok(text.to_owned()) } else { Err(format!("expected an ending such as \".php\", found {text:?}")) }
}

fn folder(entry: &Entry<'_>) -> Option<std::path::PathBuf> {
    let path = entry.path()?;
    if !path.is_dir() {
        entry.fault(format!("there is no folder {}", path.display()));
        return None;
    }
    Some(path.canonicalize().unwrap_or(path))
}

/// A name and its value.
fn variable(entry: &Entry<'_>) -> Option<(String, String)> {
    if entry.key().is_empty() || entry.key().contains(['=', '\0']) {
        entry.fault("this cannot be the name of a variable");
        return None;
    }
    Some((entry.key().to_owned(), entry.text()?))
}

/// Reads `spawn`: a command, or a table with more.
fn spawn(entry: &Entry<'_>) -> Option<SpawnSettings> {
    let directory = entry.source.document.folder.clone();
    let mut settings = SpawnSettings { processes: PROCESSES, directory, ..SpawnSettings::default() };
    if !entry.is_table() {
        settings.command = cgi::command(entry)?;
        return Some(settings);
    }
    let section = entry.section("`spawn`", "a table such as { command = [\"php-cgi\"], processes = 4 }", SPAWN)?;
    let Some(command) = section.entry("command") else {
        entry.fault("a `command` is missing, such as [\"php-cgi\"]");
        return None;
    };
    settings.command = cgi::command(&command)?;
    if let Some(processes) = section.entry("processes").and_then(|entry| entry.whole(1, MOST_PROCESSES)) {
        settings.processes = processes as u32;
    }
    if let Some(directory) = section.entry("directory") {
        settings.directory = folder(&directory)?;
    }
    let env = section.entry("env").and_then(|entry| entry.map("`env`", "a table such as { LANG = \"C.UTF-8\" }"));
    settings.env = env.iter().flatten().filter_map(variable).collect();
    settings.user = section.entry("user").and_then(|entry| entry.name());
    settings.group = section.entry("group").and_then(|entry| entry.name());
    Some(settings)
}

/// The server that a program is. The supervisor fills its place in.
fn spawned(spawn: &SpawnSettings) -> ServerSettings {
    let program = spawn.command.first().map_or("", String::as_str);
    let name = program.rsplit('/').next().unwrap_or(program);
    ServerSettings {
        url: format!("spawn:{name}"),
        scheme: Scheme::Fastcgi,
        address: Address::Unix(std::path::PathBuf::new()),
        follows: None,
        weight: 1,
        backup: false,
        // More would wait behind a process that is busy, where nobody counts them.
        max_connections: Some(spawn.processes as usize),
    }
}

fn servers(section: &Section<'_>, entry: &Entry<'_>) -> Option<Vec<ServerSettings>> {
    let what = "a list of servers such as [\"http://10.0.0.5:8080\"]";
    let Some(list) = section.entry("servers") else {
        entry.fault("`servers` is missing: a list such as [\"http://10.0.0.5:8080\"]");
        return None;
    };
    let most = section.entry("max_connections").and_then(|entry| entry.whole(1, MOST)).map(|most| most as usize);
    let items = list.items(what)?;
    let mut servers: Vec<ServerSettings> = Vec::new();
    for item in &items {
        let Some(mut server) = server(item) else { continue };
        server.max_connections = server.max_connections.or(most);
        if servers.iter().any(|other| other.url == server.url) {
            item.fault(format!("{} stands here twice; `weight` gives a server more", server.url));
        }
        servers.push(server);
    }
    if items.is_empty() {
        list.expected(what);
        return None;
    }
    (!servers.is_empty()).then_some(servers)
}

fn server(entry: &Entry<'_>) -> Option<ServerSettings> {
    let what = "a server such as \"http://10.0.0.5:8080\"";
    if !entry.is_table() {
        return entry.parse(what, ServerSettings::parse);
    }
    let section =
        entry.section("a server", "a table such as { url = \"http://10.0.0.5:8080\", weight = 2 }", SERVER)?;
    let Some(url) = section.entry("url") else {
        entry.fault("a `url` is missing, such as \"http://10.0.0.5:8080\"");
        return None;
    };
    let mut server = url.parse(what, ServerSettings::parse)?;
    if let Some(weight) = section.entry("weight").and_then(|entry| entry.whole(1, 1000)) {
        server.weight = weight as u32;
    }
    server.backup = section.entry("backup").and_then(|entry| entry.boolean()).unwrap_or(false);
    let most = section.entry("max_connections").and_then(|entry| entry.whole(1, MOST));
    server.max_connections = most.map(|most| most as usize);
    Some(server)
}

fn sticky(entry: &Entry<'_>) -> Option<Sticky> {
    let section = entry.section("`sticky`", "a table such as { cookie = \"route\" }", STICKY)?;
    let Some(cookie) = section.entry("cookie") else {
        entry.fault("a `cookie` is missing: its name");
        return None;
    };
    let cookie = cookie.parse("the name of a cookie", |name| {
        if is_token(name) { Ok(name.to_owned()) } else { Err(format!("{name:?} cannot be the name of a cookie")) }
    })?;
    let key = section.entry("key").and_then(|entry| {
        entry.parse("a key", |key| {
            if key.len() < SHORTEST_KEY {
                return Err(format!("a key has at least {SHORTEST_KEY} bytes"));
            }
            Ok(key.to_owned())
        })
    });
    Some(Sticky { cookie, key })
}

/// Reads `response_buffering`: whether, or how far.
fn buffering(entry: &Entry<'_>) -> Option<ResponseBuffering> {
    let mut buffering = ResponseBuffering::default();
    if !entry.is_table() {
        return entry.boolean().filter(|&is_on| is_on).map(|_| buffering);
    }
    let section =
        entry.section("`response_buffering`", "a table such as { memory = \"1MiB\", disk = \"1GiB\" }", BUFFERING)?;
    if let Some(memory) = section.entry("memory").and_then(|entry| entry.size()) {
        buffering.memory = memory as usize;
    }
    if let Some(disk) = section.entry("disk").and_then(|entry| entry.size()) {
        buffering.disk = disk;
    }
    Some(buffering)
}

fn limits(section: &Section<'_>, settings: &mut UpstreamSettings) {
    for (key, time) in [
        ("connect_timeout", &mut settings.connect_timeout),
        ("read_timeout", &mut settings.read_timeout),
        ("send_timeout", &mut settings.send_timeout),
        ("tunnel_timeout", &mut settings.tunnel_timeout),
    ] {
        if let Some(said) = section.entry(key).and_then(|entry| entry.positive_duration()) {
            *time = said;
        }
    }
    let of =
        |key: &str, keys| section.entry(key)?.section(&format!("`{key}`"), "a table with `max` and `timeout`", keys);
    let most = |section: &Section<'_>| section.entry("max")?.whole(0, MOST).map(|most| most as usize);
    let time = |section: &Section<'_>| section.entry("timeout")?.positive_duration();
    if let Some(queue) = of("queue", QUEUE) {
        settings.queue_max = most(&queue).unwrap_or(settings.queue_max);
        settings.queue_timeout = time(&queue).unwrap_or(settings.queue_timeout);
    }
    if let Some(kept) = of("keep_alive", KEEP_ALIVE) {
        settings.keep_alive = most(&kept).unwrap_or(settings.keep_alive);
        settings.keep_alive_timeout = time(&kept).unwrap_or(settings.keep_alive_timeout);
    }
}

fn host(text: String) -> HostField {
    match text.as_str() {
        "client" => HostField::Client,
        "server" => HostField::Server,
        _ => HostField::Fixed(text),
    }
}

/// Reads `resolver`: a name server or several.
fn resolver(entry: &Entry<'_>, settings: &UpstreamSettings) -> Option<Vec<NameServer>> {
    let what = "a name server such as \"127.0.0.1:5353\", or a list of them";
    let servers: Vec<NameServer> = if entry.is_list() {
        entry.items(what)?.iter().filter_map(|entry| entry.parse(what, str::parse)).collect()
    } else {
        vec![entry.parse(what, str::parse)?]
    };
    if servers.is_empty() {
        entry.expected(what);
    }
    if settings.servers.iter().all(|server| server.follows.is_none()) {
        entry.fault("no server of this upstream is followed by its name, as in \"dns+http://app.internal:8080\"");
    }
    Some(servers)
}

/// Files are read here: the front opens no paths.
pub(super) fn tls(entry: &Entry<'_>) -> Option<ClientTls> {
    let section = entry.section("`tls`", "a table such as { ca_file = \"internal-ca.pem\" }", TLS)?;
    let file = |key: &str| {
        let entry = section.entry(key)?;
        let path = entry.path()?;
        let read = std::fs::read_to_string(&path);
        read.map_err(|error| entry.fault(format!("cannot read {}: {error}", path.display()))).ok()
    };
    let (authorities, cert, key) = (file("ca_file"), file("cert"), file("key"));
    let certificate = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        // One file may hold both.
        (Some(cert), None) if section.entry("key").is_none() => Some((cert.clone(), cert)),
        (None, Some(_)) if section.entry("cert").is_none() => {
            entry.fault("a `key` needs a `cert`");
            None
        }
        _ => None,
    };
    let tls = ClientTls {
        authorities,
        server_name: section.entry("server_name").and_then(|entry| entry.parse("a name", field_value)),
        certificate,
        unverified: !section.entry("verify").and_then(|entry| entry.boolean()).unwrap_or(true),
    };
    check_tls(&tls).map_err(|message| entry.fault(message)).ok()?;
    Some(tls)
}

fn field_value(text: &str) -> Result<String, String> {
    let is_host = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    if is_host { Ok(text.to_owned()) } else { Err(format!("expected a host, found {text:?}")) }
}
