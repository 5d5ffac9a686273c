//! What options and `DAEMUN_*` variables ask for, on top of what is written or found.

use std::path::PathBuf;
use std::time::Duration;

use super::acme;
use super::app::{self, read_env_file};
use super::cgi;
use super::configuration::{HandlerSettings, ServerSettings};
use super::environment::{Environment, join};
use super::fault::{Place, Report};
use super::interpreter::Named;
use super::route;
use super::static_route::folder;
use super::{server, tls, units, upstream, variables};
use crate::listener::{ListenerSettings, Role};
use crate::telemetry::Sink;
use crate::tls::{AcmeSettings, ClientCertificates, Source, TlsSettings, is_name};

/// The value of an option, and what gave it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wish {
    /// The value as it was given.
    pub value: String,
    /// For instance `--timeout` or `DAEMUN_TIMEOUT`.
    pub origin: String,
}

/// Everything that was asked for; what was not is empty.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Wishes {
    /// What to serve.
    pub targets: Vec<String>,
    /// A configuration file instead of a target.
    pub config: Option<Wish>,
    /// Addresses that replace those of the file.
    pub listen: Vec<Wish>,
    /// Processes of every application.
    pub processes: Option<Wish>,
    /// Threads in each.
    pub threads: Option<Wish>,
    /// The interpreter.
    pub python: Option<Wish>,
    /// Working folder and first place of `sys.path`.
    pub directory: Option<Wish>,
    /// `K=V` for every application.
    pub env: Vec<Wish>,
    /// Files of `K=V`.
    pub env_files: Vec<Wish>,
    /// `URL=DIR`, added to the routes of the file.
    pub statics: Vec<Wish>,
    /// `URL=DIR` of scripts, added to the routes of the file.
    pub scripts: Vec<Wish>,
    /// `URL=SERVER[,SERVER…]`, added to the routes of the file.
    pub proxies: Vec<Wish>,
    /// From hand-over to the first byte of an answer.
    pub timeout: Option<Wish>,
    /// Requests after which a worker is replaced.
    pub max_requests: Option<Wish>,
    /// Default user of applications.
    pub user: Option<Wish>,
    /// Default group of applications.
    pub group: Option<Wish>,
    /// Path, `-` or `off`.
    pub access_log: Option<Wish>,
    /// `text` or `json`.
    pub log_format: Option<Wish>,
    /// The least important line of the error log.
    pub log_level: Option<Wish>,
    /// File with a certificate, for all names that no table of the file is for.
    pub tls_cert: Option<Wish>,
    /// File with its key.
    pub tls_key: Option<Wish>,
    /// Names that an authority is asked for certificates for, one for each.
    pub domains: Vec<Wish>,
    /// Where the authority may write to.
    pub acme_email: Option<Wish>,
    /// `staging`, or the address of the authority's directory.
    pub acme_directory: Option<Wish>,
    /// Whether every listener is https, with a certificate that is made here where there is no other (`dev --https`).
    pub https: bool,
    /// File for the supervisor's process id.
    pub pid_file: Option<Wish>,
    /// Where the monitor listens.
    pub monitor: Vec<Wish>,
    /// Where health is answered.
    pub health: Vec<Wish>,
    /// The control socket.
    pub control: Option<Wish>,
    /// Whether workers may load the accelerator.
    pub accelerator: Option<bool>,
    /// Whether static files are collected before the start.
    pub collect: bool,
}

// === impl Wish ===

impl Wish {
    /// A value and what gave it.
    pub fn new(value: impl Into<String>, origin: impl Into<String>) -> Self {
        Self { value: value.into(), origin: origin.into() }
    }

    pub(super) fn place(&self) -> Place {
        Place::named(&self.origin)
    }

    fn read<T>(&self, report: &Report, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        read(&self.value).map_err(|message| report.fault(self.place(), message)).ok()
    }

    fn path(&self, environment: &Environment, report: &Report) -> Option<PathBuf> {
        if self.value.is_empty() {
            report.fault(self.place(), "expected a path");
            return None;
        }
        Some(environment.absolute(&self.value))
    }
}

// === impl Wishes ===

impl Wishes {
    /// `--directory` as a path.
    pub(super) fn directory(&self, environment: &Environment) -> Option<PathBuf> {
        self.directory.as_ref().map(|wish| environment.absolute(&wish.value))
    }

    /// Changes what the file or the defaults say.
    pub(super) fn apply_to_server(&self, settings: &mut ServerSettings, environment: &Environment, report: &Report) {
        if !self.listen.is_empty() {
            settings.listeners.clear();
        }
        for wish in &self.listen {
            let address = wish.read(report, |text| units::listener(text, &environment.directory));
            let Some((address, tls)) = address else { continue };
            if settings.listeners.iter().any(|other| other.address == address) && !server::is_any_port(&address) {
                report.fault(wish.place(), format!("`{address}` was given twice"));
            }
            settings.listeners.push(ListenerSettings { tls, ..ListenerSettings::at(address) });
        }
        for (wishes, role, place) in
            [(&self.monitor, Role::Monitor, &mut settings.monitor), (&self.health, Role::Health, &mut settings.health)]
        {
            if !wishes.is_empty() {
                place.clear();
            }
            for wish in wishes {
                let address = wish.read(report, |text| units::address(text, &environment.directory));
                place.extend(address.map(|address| ListenerSettings { role, ..ListenerSettings::at(address) }));
            }
        }
        if let Some(path) = self.control.as_ref().and_then(|wish| wish.path(environment, report)) {
            settings.control = Some(path);
        }
        if let Some(wish) = &self.user {
            settings.user = Some(wish.value.clone());
        }
        if let Some(wish) = &self.group {
            settings.group = Some(wish.value.clone());
        }
        if let Some(path) = self.pid_file.as_ref().and_then(|wish| wish.path(environment, report)) {
            settings.pid_file = Some(path);
        }
        if let Some(wish) = &self.access_log {
            settings.telemetry.access.sink = match wish.value.as_str() {
                "-" => Sink::Standard,
                "off" => Sink::Off,
                path => Sink::File(join(&environment.directory, path)),
            };
        }
        if let Some(format) = self.log_format.as_ref().and_then(|wish| wish.read(report, server::format)) {
            settings.telemetry.access.format = format;
        }
        if let Some(level) = self.log_level.as_ref().and_then(|wish| wish.read(report, server::level)) {
            settings.telemetry.error.level = level;
        }
    }

    /// Changes what the file or the defaults say about an application.
    pub(super) fn apply_to_app(&self, draft: &mut app::Draft, environment: &Environment, report: &Report) {
        if let Some(processes) = self.processes.as_ref().and_then(|wish| wish.read(report, app::processes)) {
            draft.processes = processes;
            draft.min_processes = None;
        } else if let (None, Some(number)) = (draft.processes, environment.variable("WEB_CONCURRENCY")) {
            let wish = Wish::new(number, "WEB_CONCURRENCY");
            draft.processes = wish.read(report, app::processes).flatten();
        }
        let whole = |wish: &Wish, most| wish.read(report, |text| units::whole(text, 1, most));
        if let Some(threads) = self.threads.as_ref().and_then(|wish| whole(wish, app::MOST_THREADS)) {
            draft.settings.threads = threads as u16;
        }
        if let Some(requests) = self.max_requests.as_ref().and_then(|wish| whole(wish, i64::MAX as u64)) {
            draft.settings.max_requests = Some(requests);
        }
        if let Some(timeout) = self.timeout.as_ref().and_then(|wish| wish.read(report, seconds_or_duration)) {
            draft.settings.timeout = timeout;
        }
        if let Some(wish) = &self.python {
            let (text, folder) = (wish.value.clone(), environment.directory.clone());
            draft.python = Some(Named { text, folder, place: wish.place(), reason: wish.origin.clone() });
        }
        if let Some(wish) = &self.directory {
            draft.directory = wish.path(environment, report).map(|path| (path, wish.place()));
        }
        for wish in &self.env_files {
            if let Some(path) = wish.path(environment, report) {
                read_env_file(&path, &wish.place(), environment, report, &mut draft.settings.env);
            }
        }
        for wish in &self.env {
            // The shell has taken the quotes off already.
            let variable = wish.read(report, |text| match text.split_once('=') {
                Some((name, value)) => {
                    variables::assignment(&format!("{name}=")).map(|(name, _)| (name, value.to_owned()))
                }
                None => Err(format!("expected KEY=VALUE, found {text:?}")),
            });
            draft.settings.env.extend(variable);
        }
        if let Some(accelerator) = self.accelerator {
            draft.settings.accelerator = accelerator;
        }
        draft.settings.collect |= self.collect;
    }

    /// The certificate of `--tls-cert` and `--tls-key`.
    pub(super) fn certificate(&self, environment: &Environment, report: &Report) -> Option<tls::Draft> {
        let Some(wish) = &self.tls_cert else {
            if let Some(wish) = &self.tls_key {
                report.fault(wish.place(), "a key needs a certificate: give --tls-cert too");
            }
            return None;
        };
        let cert = wish.path(environment, report)?;
        let key = self.tls_key.as_ref().and_then(|wish| wish.path(environment, report));
        let settings = TlsSettings {
            hosts: Vec::new(),
            key: key.unwrap_or_else(|| cert.clone()),
            cert,
            ocsp: None,
            client_ca: None,
            client_certificates: ClientCertificates::Off,
            source: Source::Files,
            origin: wish.origin.clone(),
        };
        Some(tls::Draft { settings, place: wish.place() })
    }

    /// The certificates of `--domain`: each name has its own, so that one that does not lead here yet holds up no other.
    pub(super) fn domains(&self, report: &Report) -> Vec<tls::Draft> {
        let read = |wish: &Wish| {
            let name = wish.value.trim_end_matches('.').to_ascii_lowercase();
            if !is_name(&name) {
                let message = format!("expected a name such as \"example.com\", found {:?}", wish.value);
                report.fault(wish.place(), message);
                return None;
            }
            Some(tls::Draft::wished(vec![name], Source::Authority(AcmeSettings::new()), wish.place()))
        };
        self.domains.iter().filter_map(read).collect()
    }

    /// What `--acme-email` and `--acme-directory` say, for every certificate that an authority is asked for.
    pub(super) fn apply_to_acme(&self, drafts: &mut [tls::Draft], report: &Report) {
        let email = self.acme_email.as_ref().and_then(|wish| wish.read(report, acme::email));
        let directory = self.acme_directory.as_ref().and_then(|wish| wish.read(report, acme::directory));
        let mut asked = drafts.iter_mut().filter_map(tls::Draft::acme).peekable();
        if asked.peek().is_none() {
            for wish in [&self.acme_email, &self.acme_directory].into_iter().flatten() {
                report.fault(wish.place(), "no authority is asked for a certificate: give --domain too");
            }
        }
        for acme in asked {
            acme.email = email.clone().or(acme.email.take());
            if let Some(directory) = &directory {
                acme.directory.clone_from(directory);
            }
        }
    }

    /// The upstreams of `--proxy`, each with its route.
    pub(super) fn upstreams(&self, report: &Report) -> Vec<(upstream::Draft, route::Draft)> {
        let read = |wish: &Wish| {
            let (path, settings) = wish.read(report, upstream::mounted)?;
            let handler = HandlerSettings::Upstream(settings.name.clone());
            let route = route::Draft::found(&path, handler, &wish.origin);
            Some((upstream::Draft { settings, place: wish.place() }, route))
        };
        self.proxies.iter().filter_map(read).collect()
    }

    /// The routes of `--static` and `--cgi`.
    pub(super) fn routes(&self, environment: &Environment, report: &Report) -> Vec<route::Draft> {
        let read = |wish: &Wish, is_cgi: bool| {
            let (path, root) = wish.read(report, |text| mounted(text, is_cgi, environment))?;
            let handler = if is_cgi {
                let root = root.canonicalize().unwrap_or(root);
                HandlerSettings::Cgi(Box::new(cgi::folder_of_scripts(&root)))
            } else {
                HandlerSettings::Static(folder(&root))
            };
            Some(route::Draft::found(&path, handler, &wish.origin))
        };
        let statics = self.statics.iter().map(|wish| (wish, false));
        let scripts = self.scripts.iter().map(|wish| (wish, true));
        statics.chain(scripts).filter_map(|(wish, is_cgi)| read(wish, is_cgi)).collect()
    }
}

/// `URL=DIR`: the path that the files are below, and their folder.
fn mounted(text: &str, is_cgi: bool, environment: &Environment) -> Result<(String, PathBuf), String> {
    let example = if is_cgi { "/cgi-bin=cgi-bin" } else { "/static=staticfiles" };
    let wrong = || format!("expected URL=DIR such as \"{example}\", found {text:?}");
    let (url, folder) = text.split_once('=').filter(|(_, folder)| !folder.is_empty()).ok_or_else(wrong)?;
    let bare = url.strip_suffix('*').unwrap_or(url).trim_end_matches('/');
    let path = format!("{bare}/*");
    path.parse::<crate::router::PathPattern>()
        .ok()
        .filter(|_| url.starts_with('/') && !bare.contains('*'))
        .ok_or_else(wrong)?;
    let root = environment.absolute(folder);
    if root.is_dir() { Ok((path, root)) } else { Err(format!("there is no folder {}", root.display())) }
}

/// `30s`; or `30`, as everywhere else on a command line.
fn seconds_or_duration(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return units::positive_duration(&format!("{text}s"));
    }
    units::positive_duration(text)
}
