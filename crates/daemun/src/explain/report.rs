//! What is told of a request; `docs/manual/explain.schema.json` describes it.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde::Serialize;

use super::question::Prepared;
use crate::config::Configuration;
use crate::control::message::ServerStatus;
use crate::filter::Described;
use crate::http::{Response, Status};
use crate::listener::Role;
use crate::proxy::Aim;
use crate::router::{HostPattern, Rule, Verdict};
use crate::static_files::Trace;
use crate::upstream::{Balance, HashKey, UpstreamSettings};

/// The way of one request.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Explanation {
    /// What was asked.
    pub request: Asked,
    /// Where it comes in.
    pub listener: Option<ListenerTold>,
    /// The host pattern of the route.
    pub site: Option<String>,
    /// The route that answers, or was asked last; the access log calls it by `origin`.
    pub route: Option<RouteTold>,
    /// The key of its handler, as in the access log.
    pub handler: Option<&'static str>,
    /// What the way ended at.
    pub ended_by: EndedBy,
    /// The filters of the route, in their order.
    pub filters: Vec<FilterTold>,
    /// What the handler makes of it.
    pub target: Option<Told>,
    /// The answer, as far as it is known.
    pub answer: Answer,
    /// The other routes, in the order in which they are asked.
    pub others: Vec<Other>,
    /// What cannot be known.
    pub unknown: Vec<String>,
}

/// The request.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Asked {
    /// Its method.
    pub method: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The host, with the port where one was given.
    pub host: String,
    /// Path and query, as they are sent.
    pub target: String,
    /// The canonical path that rules see; `None` where there is none.
    pub path: Option<String>,
    /// The client's address.
    pub client: String,
}

/// The listener.
#[derive(Clone, Debug, Serialize)]
pub struct ListenerTold {
    /// Its address.
    pub address: String,
    /// Whether clients speak TLS there.
    pub tls: bool,
    /// `clients`, `health` or `monitor`.
    pub role: &'static str,
    /// Where it was written.
    pub origin: String,
}

/// A route.
#[derive(Clone, Debug, Serialize)]
pub struct RouteTold {
    /// Where it was written.
    pub origin: String,
    /// Its host pattern; `*` for any.
    pub host: String,
    /// Its path pattern.
    pub path: String,
    /// Its conditions; empty for none.
    pub conditions: String,
}

/// What the way ended at.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndedBy {
    /// The connection: no request, or https first.
    #[default]
    Server,
    /// No route.
    Router,
    /// A filter of the route.
    Filter,
    /// The route's handler.
    Handler,
}

/// A filter.
#[derive(Clone, Debug, Serialize)]
pub struct FilterTold {
    /// Its key.
    pub name: &'static str,
    /// Where it was written.
    pub origin: String,
    /// What it does.
    pub text: String,
    /// Whether it ended the request.
    pub ended: bool,
}

/// What a handler makes of a request.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Told {
    /// A static route.
    File(Trace),
    /// An application.
    Application(ApplicationTold),
    /// An upstream.
    Upstream(UpstreamTold),
    /// A CGI program.
    Program(ProgramTold),
    /// A CGI route without a program for it.
    NoProgram {
        /// Where scripts are looked for.
        root: PathBuf,
    },
    /// A redirect.
    Redirect {
        /// The template.
        to: String,
        /// Its status.
        status: u16,
    },
    /// A fixed answer.
    Respond {
        /// Its status.
        status: u16,
        /// Bytes of its body.
        length: usize,
    },
}

/// An application.
#[derive(Clone, Debug, Serialize)]
pub struct ApplicationTold {
    /// Its name.
    pub name: String,
    /// The callable of the mount; `None` where nothing is mounted there (404).
    pub callable: Option<String>,
    /// `SCRIPT_NAME`.
    pub script_name: String,
    /// `PATH_INFO`.
    pub path_info: String,
    /// The interpreter.
    pub python: PathBuf,
    /// Why that one.
    pub python_reason: String,
    /// Its working folder.
    pub directory: PathBuf,
    /// All that the request adds to `environ`.
    pub environment: Vec<(String, String)>,
}

/// An upstream.
#[derive(Clone, Debug, Serialize)]
pub struct UpstreamTold {
    /// Its name.
    pub name: String,
    /// How a server is chosen.
    pub balance: String,
    /// The cookie by which a client stays with its server.
    pub sticky: Option<String>,
    /// Whether servers are asked how they are.
    pub health: Option<String>,
    /// The servers, with weight or rank.
    pub servers: Vec<String>,
    /// How they were when a running server last heard of them; `None` where none is running.
    pub seen: Option<SeenTold>,
    /// The path that they are asked for.
    pub path: String,
    /// What was taken off it.
    pub script_name: String,
    /// What they are told over FastCGI, SCGI or uwsgi; `None` over HTTP.
    pub gateway: Option<GatewayTold>,
}

/// What a server behind FastCGI, SCGI or uwsgi is told.
#[derive(Clone, Debug, Serialize)]
pub struct GatewayTold {
    /// The script that it is to run; `None` where it answers every path.
    pub script: Option<String>,
    /// `SCRIPT_NAME`.
    pub script_name: String,
    /// `PATH_INFO`.
    pub path_info: String,
    /// All variables.
    pub variables: Vec<(String, String)>,
}

/// What a running server knows of an upstream.
#[derive(Clone, Debug, Serialize)]
pub struct SeenTold {
    /// Its process id.
    pub pid: u32,
    /// Each server, with its state and how long ago it was heard of.
    pub servers: Vec<ServerStatus>,
}

/// A CGI program.
#[derive(Clone, Debug, Serialize)]
pub struct ProgramTold {
    /// The program.
    pub script: String,
    /// `SCRIPT_NAME`.
    pub script_name: String,
    /// `PATH_INFO`.
    pub path_info: String,
    /// The command, its folder, and each variable.
    pub lines: Vec<String>,
}

/// An answer.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Answer {
    /// The status; `None` where only the program knows.
    pub status: Option<u16>,
    /// Its phrase.
    pub reason: Option<&'static str>,
    /// The fields of an answer that no program makes.
    pub headers: Vec<(String, String)>,
    /// Why, in a line.
    pub message: Option<String>,
}

/// A route that does not answer.
#[derive(Clone, Debug, Serialize)]
pub struct Other {
    /// The route.
    #[serde(flatten)]
    pub route: RouteTold,
    /// `matches`, `slash`, `host`, `path`, `method` or `header`.
    pub verdict: &'static str,
    /// Why, in a line.
    pub why: String,
}

// === impls ===

impl Asked {
    pub(super) fn of(prepared: &Prepared) -> Self {
        Self {
            method: prepared.method.clone(),
            scheme: prepared.scheme.as_str(),
            host: prepared.host.clone(),
            target: prepared.target.clone(),
            path: None,
            client: prepared.client.to_string(),
        }
    }
}

impl ListenerTold {
    pub(super) fn of(prepared: &Prepared, configuration: &Configuration) -> Option<Self> {
        let listener = prepared.listener.as_ref()?;
        let role = match listener.role {
            Role::Clients => "clients",
            Role::Health => "health",
            Role::Monitor => "monitor",
        };
        let file = configuration.files.first().map(|file| file.display().to_string());
        let origin =
            file.map_or_else(|| "default, or an option".to_owned(), |file| format!("[server] of {file}, or an option"));
        Some(Self { address: listener.address.to_string(), tls: listener.tls, role, origin })
    }
}

impl RouteTold {
    pub(super) fn of(rule: &Rule) -> Self {
        Self {
            origin: rule.origin.clone(),
            host: rule.host.to_string(),
            path: rule.path.to_string(),
            conditions: rule.conditions.to_string(),
        }
    }
}

impl UpstreamTold {
    pub(super) fn of(settings: &UpstreamSettings) -> Self {
        let balance = match &settings.balance {
            Balance::RoundRobin => "in turn, by weight".to_owned(),
            Balance::LeastConnections => "the one with the fewest requests".to_owned(),
            Balance::RandomTwo => "the better of two that are drawn".to_owned(),
            Balance::Hash(HashKey::Client) => "by the client's address".to_owned(),
            Balance::Hash(HashKey::Header(name)) => format!("by the header {name}"),
            Balance::Hash(HashKey::Cookie(name)) => format!("by the cookie {name}"),
        };
        let servers = settings.servers.iter().map(|server| {
            let rank = if server.backup { ", only when no other is left" } else { "" };
            format!("{} (weight {}{rank})", server.url, server.weight)
        });
        let health = settings.health.as_ref();
        Self {
            name: settings.name.clone(),
            balance,
            sticky: settings.sticky.as_ref().map(|sticky| sticky.cookie.clone()),
            health: health.map(|health| format!("GET {} every {:?}", health.path, health.interval)),
            servers: servers.collect(),
            seen: None,
            path: String::new(),
            script_name: String::new(),
            gateway: None,
        }
    }
}

impl GatewayTold {
    pub(super) fn of(aim: &Aim, variables: &[(Vec<u8>, Vec<u8>)]) -> Self {
        let value = |name: &[u8]| variables.iter().find(|(other, _)| other == name).map(|(_, value)| text(value));
        Self {
            script: match aim {
                Aim::Script(aimed) => Some(text(aimed.filename.as_os_str().as_bytes())),
                Aim::Application => None,
            },
            script_name: value(b"SCRIPT_NAME").unwrap_or_default(),
            path_info: value(b"PATH_INFO").unwrap_or_default(),
            variables: variables.iter().map(|(name, value)| (text(name), text(value))).collect(),
        }
    }
}

impl FilterTold {
    pub(super) fn of(described: Described) -> Self {
        Self { name: described.name, origin: described.origin, text: described.text, ended: false }
    }
}

impl Answer {
    pub(super) fn of(response: &Response) -> Self {
        let headers = response.fields.iter().map(|field| (text(field.name()), text(field.value())));
        Self { headers: headers.collect(), ..Self::of_status(response.status, String::new()) }
    }

    pub(super) fn of_status(status: Status, message: String) -> Self {
        let message = Some(message).filter(|message| !message.is_empty());
        Self { status: Some(status.code()), reason: Some(status.reason()), headers: Vec::new(), message }
    }
}

impl Other {
    pub(super) fn of(rule: &Rule, verdict: Verdict, why: String) -> Self {
        let verdict = match verdict {
            Verdict::Matches => "matches",
            Verdict::Slash => "slash",
            Verdict::Host => "host",
            Verdict::Path => "path",
            Verdict::Method => "method",
            Verdict::Header(_) => "header",
        };
        Self { route: RouteTold::of(rule), verdict, why }
    }
}

/// Marks the filter that ended the request: each has a status of its own.
pub(super) fn name_the_filter(told: &mut Explanation) {
    let name = match told.answer.status {
        Some(401) => "basic_auth",
        Some(403) => "allow, deny",
        Some(413) => "max_body",
        Some(429) => "rate_limit",
        // A preflight; anything else is a rewrite that leads nowhere.
        Some(200..=299) => "headers",
        _ => "rewrite",
    };
    for filter in &mut told.filters {
        filter.ended = filter.name == name;
    }
}

/// Why a route does not answer.
pub(super) fn why_not(rule: &Rule, verdict: Verdict, was_asked: bool, is_over: bool, slash: &str) -> String {
    match verdict {
        Verdict::Matches if was_asked => "matches and was asked, but has nothing for it".to_owned(),
        Verdict::Matches => "matches, but another is more specific".to_owned(),
        Verdict::Slash if is_over => format!("would redirect to {slash}, but another comes first"),
        Verdict::Slash => format!("redirects to {slash}: the path is its own without the slash"),
        Verdict::Host => match &rule.host {
            HostPattern::Any => "is not asked".to_owned(),
            host => format!("is for the host {host}"),
        },
        Verdict::Path => format!("is for {}", rule.path),
        Verdict::Method => format!("is for the methods {}", rule.conditions.methods.join(", ")),
        Verdict::Header(number) => match rule.conditions.headers.get(number) {
            Some(header) => format!("asks for: {header}"),
            None => "asks for another header".to_owned(),
        },
    }
}

/// Bytes as they can be shown.
pub(super) fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}
