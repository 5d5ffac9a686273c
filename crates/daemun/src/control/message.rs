//! What can be asked of a running server, and what it answers. Each message is one line of JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Bytes of a command: names of applications, nothing longer.
pub const MAX_COMMAND: usize = 64 * 1024;

/// Bytes of an answer: the Python stacks of some hundred threads.
pub const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// What an operator wants.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// How the server is.
    Status,
    /// What its projects have told of their settings.
    Projects,
    /// Configuration and applications anew; only the code of these, where some are named.
    Reload {
        /// Names of applications.
        #[serde(default)]
        apps: Vec<String>,
    },
    /// The Python stacks of what runs.
    Stacks {
        /// Of this application alone.
        #[serde(default)]
        app: Option<String>,
    },
    /// Without an upstream: `/readyz` turns 503 and clients are asked to close. With one: nothing new goes to its server.
    Drain {
        /// The upstream.
        #[serde(default)]
        upstream: Option<String>,
        /// One of its servers.
        #[serde(default)]
        server: Option<String>,
    },
    /// The end, as TERM.
    Stop,
    /// The program on disk takes over, in this very process.
    Upgrade,
}

/// What the server says to a command: any number of [`Answer::Say`], then one of the others.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// A line for whoever waits.
    Say {
        /// The line.
        text: String,
    },
    /// It is done.
    Done {
        /// What was done.
        text: String,
    },
    /// It is not; what was so before is so still.
    Refused {
        /// Why, in one or more lines.
        reason: String,
    },
    /// The answer to [`Command::Status`].
    Status(Box<Status>),
    /// The answer to [`Command::Projects`].
    Projects {
        /// By the application's name; those that are served now.
        projects: BTreeMap<String, Project>,
    },
}

/// What a project's own Python has told of its settings.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Project {
    /// When its import began, in seconds since 1970.
    pub read_at: f64,
    /// What it told then, in its own words.
    pub settings: serde_json::Value,
}

/// How a server is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Status {
    /// Version of the running program.
    pub version: String,
    /// The supervisor's process id.
    pub pid: u32,
    /// Seconds since it began to serve, through upgrades.
    pub uptime: f64,
    /// `starting`, `serving`, `draining` (clients are asked to close) or `stopping`.
    pub phase: String,
    /// What is served.
    pub target: String,
    /// Configuration files, main file first.
    pub files: Vec<String>,
    /// URLs that are listened on.
    pub listeners: Vec<String>,
    /// Of the health listener.
    pub health: Vec<String>,
    /// Of the monitor listener.
    pub monitor: Vec<String>,
    /// The web server's process.
    pub front: FrontStatus,
    /// Applications by name.
    pub apps: BTreeMap<String, AppStatus>,
    /// Servers of upstreams by the upstream's name; empty while the web server is being started.
    #[serde(default)]
    pub upstreams: BTreeMap<String, Vec<ServerStatus>>,
    /// What the web server has counted; missing while it is being started.
    pub traffic: Option<Traffic>,
    /// Workers that ended without having been told to, the last one last.
    #[serde(default)]
    pub deaths: Vec<Death>,
    /// What https listeners show.
    #[serde(default)]
    pub certificates: Vec<CertificateStatus>,
    /// How the last reload went.
    pub last_reload: Option<ReloadStatus>,
    /// What is not as it should be, in sentences. Empty: all is well.
    pub degraded: Vec<String>,
}

/// The web server's process.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct FrontStatus {
    /// Its process id; 0 while it is being started.
    pub pid: i32,
    /// Seconds since it was started.
    pub age: f64,
    /// How often it had to be started again.
    pub restarts: u64,
}

/// A certificate, or one that there should be.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct CertificateStatus {
    /// Names that it is for; none: all that no other is for.
    pub hosts: Vec<String>,
    /// `files`, `authority` or `self-made`.
    pub source: String,
    /// `shown`, `missing`, or `asked for`.
    pub state: String,
    /// Who vouches for it.
    pub issuer: String,
    /// Until when it is valid, in seconds since 1970.
    pub until: Option<i64>,
    /// Why an authority has given none, or no newer one.
    pub reason: Option<String>,
    /// When the authority is asked next, in seconds since 1970.
    pub next_try: Option<i64>,
}

/// An application.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct AppStatus {
    /// `serving`, `starting`, `waiting` for a first request, or `failed`.
    pub state: String,
    /// The generation of its code.
    pub generation: u64,
    /// Worker processes that there should be.
    pub processes: u32,
    /// Workers that are to be there at least.
    #[serde(default)]
    pub least: u32,
    /// Threads in each.
    pub threads: u16,
    /// Worker processes that there are.
    pub workers: Vec<WorkerStatus>,
    /// Requests that wait for a worker.
    pub queued: u64,
    /// Threads that are answering.
    pub busy: u64,
    /// Threads that wait for work.
    pub idle: u64,
    /// Requests that were sent to a second worker.
    pub replays: u64,
    /// Workers that were replaced, by cause.
    pub restarts: BTreeMap<String, u64>,
}

/// A worker process.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct WorkerStatus {
    /// Its number.
    pub serial: u32,
    /// Its process id.
    pub pid: i32,
    /// The generation of the code that it runs.
    pub generation: u64,
    /// Seconds since it was forked.
    pub age: f64,
    /// Whether the web server can send it requests.
    pub connected: bool,
    /// Whether it was told to end.
    pub leaving: bool,
    /// Resident memory in bytes.
    pub memory: Option<u64>,
}

/// A server of an upstream.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ServerStatus {
    /// As it was written.
    pub url: String,
    /// `up`, `down` (it says so when it is asked), `ejected` (requests have failed), `probing` (one finds out), `drained` or
    /// `unresolved` (a name that stands for no server).
    pub state: String,
    /// Seconds since it was last heard of, by an answer or by none when there should have been one; missing for never.
    pub age: Option<f64>,
    /// Requests that it has now.
    pub active: usize,
    /// Connections that are kept to it.
    pub kept: usize,
    /// Requests that it got.
    pub requests: u64,
    /// Those of them that failed.
    pub failures: u64,
}

/// What was counted since the web server's process was started.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Traffic {
    /// Requests that were answered.
    pub requests: u64,
    /// The same by the first digit of their status: `2xx`.
    pub statuses: BTreeMap<String, u64>,
    /// Connections that are open.
    pub connections: u64,
    /// Connections that were accepted.
    pub accepted: u64,
    /// Bytes that clients sent.
    pub received_bytes: u64,
    /// Bytes of bodies that clients took.
    pub sent_bytes: u64,
    /// Seconds that all requests took together.
    pub seconds: f64,
    /// Lines of logs that were lost.
    pub lost_lines: u64,
}

/// A worker that ended without having been told to.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Death {
    /// When, in seconds since 1970.
    pub at: f64,
    /// Its application.
    pub app: String,
    /// Its number.
    pub serial: u32,
    /// Its process id.
    pub pid: i32,
    /// How: `was killed by signal 9 (SIGKILL)`.
    pub how: String,
    /// The whole certificate, which names URLs; empty for those who may not see them.
    pub text: String,
}

/// How a reload went.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ReloadStatus {
    /// When, in seconds since 1970.
    pub at: f64,
    /// Whether the new code serves.
    pub succeeded: bool,
    /// What it came to, in one or more lines.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_a_line_that_a_person_could_type() {
        let line = serde_json::to_string(&Command::Reload { apps: vec!["shop".into()] }).unwrap();
        assert_eq!(line, r#"{"command":"reload","apps":["shop"]}"#);
        let drain: Command = serde_json::from_str(r#"{"command":"drain"}"#).unwrap();
        assert_eq!(drain, Command::Drain { upstream: None, server: None });
        assert!(serde_json::from_str::<Command>(r#"{"command":"halt"}"#).is_err());
    }

    #[test]
    fn a_status_goes_through_its_line() {
        let status = Status { pid: 7, degraded: vec!["x".into()], ..Status::default() };
        let line = serde_json::to_string(&Answer::Status(Box::new(status.clone()))).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Answer>(&line).unwrap(), Answer::Status(Box::new(status)));
    }
}
