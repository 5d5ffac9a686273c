//! What an application is and how its workers run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[app.NAME]`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AppSettings {
    /// Its name in the file; `app` for the one that was found.
    pub name: String,
    /// The callables and where they are mounted.
    pub mounts: Vec<Mount>,
    /// WSGI middleware around each callable, outermost first, as `module:factory`.
    pub middleware: Vec<String>,
    /// Whether a person is at work on it: errors are shown in the browser, debuggers have the terminal.
    pub development: Option<Development>,
    /// Working folder and first place of `sys.path`.
    pub directory: PathBuf,
    /// What each of its routes strips off the path (`strip_prefix`); empty where they differ, or do not.
    pub script_name: String,
    /// The interpreter.
    pub python: PathBuf,
    /// Why this interpreter, for the start-up lines.
    pub python_reason: String,
    /// Whether it is a Django project whose static and media routes are asked for after the import.
    pub django: bool,
    /// Whether `collectstatic` runs before the start.
    pub collect: bool,
    /// Worker processes, where they are started on demand the most there may be.
    pub processes: u32,
    /// The fewest there are; the same number where nothing is started on demand.
    pub min_processes: u32,
    /// After this long without a request a process above the fewest ends.
    pub idle: Duration,
    /// Threads in each.
    pub threads: u16,
    /// Environment variables on top of what is inherited.
    pub env: BTreeMap<String, String>,
    /// What is inherited from the server's environment; `DAEMUN_*` never is.
    pub inherit_env: InheritEnv,
    /// From hand-over to a worker to the first byte of the answer; then 504.
    pub timeout: Duration,
    /// How long a running answer may bring nothing while its client would take more; `None`: for ever.
    pub stream_idle: Option<Duration>,
    /// Requests that may wait for a worker; beyond it 503.
    pub queue_max: usize,
    /// How long a request may wait for a worker; then 503.
    pub queue_timeout: Duration,
    /// Requests after which a worker is replaced; `None`: never.
    pub max_requests: Option<u64>,
    /// Bytes of memory of its own at which a worker is replaced; `None`: never.
    pub memory_limit: Option<u64>,
    /// Age at which a worker is replaced; `None`: never.
    pub lifetime: Option<Duration>,
    /// Whether the application is imported once and workers are forked from it.
    pub preload: Preload,
    /// A path that must be answered well before a worker takes requests, and before new code takes over.
    pub ready: Option<String>,
    /// A file of Python functions that are called at turns of a worker's life.
    pub hooks: Option<PathBuf>,
    /// Whether workers may load the accelerator.
    pub accelerator: bool,
    /// Who the workers run as; only root can choose.
    pub user: Option<String>,
    /// Their group; default the user's.
    pub group: Option<String>,
    /// URL prefixes and the folders that they stand for in `X-Accel-Redirect`; the same folders for `X-Sendfile`.
    pub sendfile: Vec<(String, PathBuf)>,
}

/// What the development server does for an application.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Development {
    /// Whether its pages load themselves anew after a change.
    pub refresh: bool,
}

/// One callable of an application.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Mount {
    /// The path below which it answers, without a trailing slash; empty for `/`. It becomes `SCRIPT_NAME`.
    pub path: String,
    /// `module:callable` or `module:factory()`.
    pub callable: String,
}

/// `preload`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Preload {
    /// `"auto"`: once, unless the import left threads or open sockets behind, which a fork would break.
    Auto,
    /// `true`: once, whatever it left behind.
    Always,
    /// `false`: in each worker.
    Never,
}

/// `inherit_env`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum InheritEnv {
    /// `true`: everything.
    All,
    /// `false`: nothing.
    Nothing,
    /// These names.
    Names(Vec<String>),
}
