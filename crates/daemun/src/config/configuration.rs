//! The whole configuration as a value: what `gather` comes to and the server is built from.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::app::AppSettings;
use crate::cgi::CgiSettings;
use crate::connection::Limits;
use crate::exporter::ExporterSettings;
use crate::filter::FilterSettings;
use crate::listener::ListenerSettings;
use crate::proxy::ScriptSettings;
use crate::router::{HostPattern, Rule};
use crate::static_files::StaticSettings;
use crate::telemetry::TelemetrySettings;
use crate::tls::TlsSettings;
use crate::upstream::UpstreamSettings;
use crate::watch::WatchSettings;

/// Everything, valid.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Configuration {
    /// `[server]`.
    pub server: ServerSettings,
    /// `[app.*]`, in the order of their names.
    pub apps: Vec<AppSettings>,
    /// `[upstream.*]`, in the order of their names.
    pub upstreams: Vec<UpstreamSettings>,
    /// `[[tls]]`, in the order in which they were written.
    pub tls: Vec<TlsSettings>,
    /// All routes, in the order in which they were written.
    pub routes: Vec<RouteSettings>,
    /// The host that was written for the only site. Its routes answer any host all the same, but visitors use this one.
    pub only_host: Option<HostPattern>,
    /// What a person at work on the applications wants; `None` where they are only served.
    pub development: Option<DevelopmentSettings>,
    /// The configuration files that were read, main file first; empty when everything was found.
    pub files: Vec<PathBuf>,
    /// What this server is known by on this machine: its main configuration file, else the folder of what was found.
    pub key: PathBuf,
    /// The target as it was found, for the start-up lines, for instance `Django project /srv/shop (manage.py)`.
    pub target: String,
    /// Warnings for the start-up lines.
    pub warnings: Vec<String>,
}

/// `daemun dev`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct DevelopmentSettings {
    /// What is loaded anew when it changes; `None` where nothing is.
    pub watch: Option<WatchSettings>,
    /// What shows the developer the inside of the workers; `None` where nothing does.
    pub debugger: Option<Debugging>,
}

/// A debugger that workers join before they import the application.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Debugging {
    /// The one that this was started under, as `python -m daemun` tells it.
    Joined(String),
    /// One of ours, to which an editor attaches on this port.
    Listening(u16),
}

/// `[server]`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ServerSettings {
    /// Where to listen.
    pub listeners: Vec<ListenerSettings>,
    /// What a connection may cost.
    pub limits: Limits,
    /// The logs.
    pub telemetry: TelemetrySettings,
    /// Where spans of requests are sent. Default nowhere.
    #[serde(default)]
    pub traces: Option<Box<ExporterSettings>>,
    /// Event loops of the front; default: one for each core that the cgroup grants.
    pub event_loops: usize,
    /// Default user of applications when started as root.
    pub user: Option<String>,
    /// Default group of applications when started as root.
    pub group: Option<String>,
    /// Folder for bodies too large for memory.
    pub spool: PathBuf,
    /// Bytes that all spooled bodies together may take.
    pub max_spool: u64,
    /// CGI programs at a time over all routes. Default 128: a thousand requests must not become a thousand processes.
    pub max_cgi_processes: u32,
    /// From TERM to the end of what is in flight. Default 25 s.
    pub grace: Duration,
    /// From TERM to the end of accepting. Default 0 s.
    pub drain_delay: Duration,
    /// File for the supervisor's process id.
    pub pid_file: Option<PathBuf>,
    /// Whether plain requests are sent to https.
    pub redirect_https: bool,
    /// The value of `Strict-Transport-Security` for answers over https.
    pub hsts: Option<String>,
    /// Networks, as address and bits, whose word about where a request came from counts (`X-Forwarded-*`). Default
    /// none: anybody could say anything.
    pub trusted_proxies: Vec<(IpAddr, u8)>,
    /// Where health, metrics and the state of everything are answered. Default nowhere.
    pub monitor: Vec<ListenerSettings>,
    /// Where `/healthz`, `/readyz` and `/metrics` are answered and nothing else. Default nowhere.
    pub health: Vec<ListenerSettings>,
    /// The control socket; `None`: derived from [`Configuration::key`].
    pub control: Option<PathBuf>,
    /// Folder for what must be found again: accounts at authorities, certificates. `None` where there is no place for it.
    pub state: Option<PathBuf>,
}

impl ServerSettings {
    /// Every listener, whatever it is for.
    pub fn all_listeners(&self) -> impl Iterator<Item = &ListenerSettings> {
        self.listeners.iter().chain(&self.health).chain(&self.monitor)
    }
}

/// `[[route]]`: conditions, filters and what answers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RouteSettings {
    /// When.
    pub rule: Rule,
    /// What happens on the way.
    #[serde(default)]
    pub filters: FilterSettings,
    /// What.
    pub handler: HandlerSettings,
}

/// What answers a route.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum HandlerSettings {
    /// `static`.
    Static(StaticSettings),
    /// `app`: the name of an application.
    App(String),
    /// `upstream`: the name of an upstream.
    Upstream(String),
    /// `upstream` with a root of scripts, or with variables.
    Scripts(Box<ScriptSettings>),
    /// `cgi`.
    Cgi(Box<CgiSettings>),
    /// `redirect`: `to` may hold `{path}`, `{rest}`, `{query}`, `{host}`, `{port}` and `{scheme}`.
    Redirect {
        /// The template of the location.
        to: String,
        /// 301, 302, 303, 307 or 308.
        status: u16,
    },
    /// `respond`.
    Respond {
        /// The status.
        status: u16,
        /// The body.
        body: String,
        /// Its content type.
        content_type: String,
    },
}

impl HandlerSettings {
    /// Its key in a route, as logs and `explain` call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Static(_) => "static",
            Self::App(_) => "app",
            Self::Upstream(_) | Self::Scripts(_) => "upstream",
            Self::Cgi(_) => "cgi",
            Self::Redirect { .. } => "redirect",
            Self::Respond { .. } => "respond",
        }
    }
}
