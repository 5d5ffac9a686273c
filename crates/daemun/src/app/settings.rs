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
    /// Working folder and first place of `sys.path`.
    pub directory: PathBuf,
    /// The interpreter.
    pub python: PathBuf,
    /// Why this interpreter, for the start-up lines.
    pub python_reason: String,
    /// Whether it is a Django project whose static and media routes are asked for after the import.
    pub django: bool,
    /// Whether `collectstatic` runs before the start.
    pub collect: bool,
    /// Worker processes.
    pub processes: u32,
    /// Threads in each.
    pub threads: u16,
    /// Environment variables on top of what is inherited.
    pub env: BTreeMap<String, String>,
    /// What is inherited from the server's environment; `DAEMUN_*` never is.
    pub inherit_env: InheritEnv,
    /// From hand-over to a worker to the first byte of the answer; then 504.
    pub timeout: Duration,
    /// Requests that may wait for a worker; beyond it 503.
    pub queue_max: usize,
    /// How long a request may wait for a worker; then 503.
    pub queue_timeout: Duration,
    /// Requests after which a worker is replaced; `None`: never.
    pub max_requests: Option<u64>,
    /// Whether workers may load the accelerator.
    pub accelerator: bool,
    /// Who the workers run as; only root can choose.
    pub user: Option<String>,
    /// Their group; default the user's.
    pub group: Option<String>,
    /// URL prefixes and the folders that they stand for in `X-Accel-Redirect`; the same folders for `X-Sendfile`.
    pub sendfile: Vec<(String, PathBuf)>,
}

/// One callable of an application.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Mount {
    /// The path below which it answers, without a trailing slash; empty for `/`. It becomes `SCRIPT_NAME`.
    pub path: String,
    /// `module:callable` or `module:factory()`.
    pub callable: String,
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
