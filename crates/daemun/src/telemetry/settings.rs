//! Where logs go and how they look.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Both logs.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct TelemetrySettings {
    /// One line for each request.
    pub access: AccessLog,
    /// What an operator should know.
    pub error: ErrorLog,
}

/// `[server] access_log`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct AccessLog {
    /// Where; default standard output.
    pub sink: Sink,
    /// How; default combined.
    pub format: Format,
    /// Parameters of queries whose values are not written down. Default none.
    #[serde(default)]
    pub mask: Vec<String>,
}

/// `[server] error_log`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ErrorLog {
    /// Where; default standard error.
    pub sink: Sink,
    /// The least important line that is still written.
    pub level: Level,
}

impl Default for ErrorLog {
    fn default() -> Self {
        Self { sink: Sink::Standard, level: Level::Info }
    }
}

/// Where lines go.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Sink {
    /// `-`: standard output for the access log, standard error for the error log.
    #[default]
    Standard,
    /// `off`.
    Off,
    /// A file that is appended to, opened by the supervisor.
    File(PathBuf),
}

/// How a line of the access log looks.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Format {
    /// Apache's combined format, then the whole time, the time in queue and the time in the application, in seconds.
    #[default]
    Combined,
    /// One JSON object a line.
    Json,
    /// For a person at a terminal: time of day, request, status, size and duration.
    Readable {
        /// Whether the status shows by its colour too.
        colours: bool,
    },
    /// Text with nginx's names, such as `$remote_addr "$request" $status`.
    Template(String),
}

/// How important a line of the error log is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something will fail, or was refused.
    Warning,
    /// Something happened.
    Info,
    /// Every step.
    Debug,
}
