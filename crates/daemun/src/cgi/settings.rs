//! What a CGI route is set to.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::launcher::Profile;

/// `PATH` of programs where the route says no other, and where interpreters are looked for. Not the server's own: what
/// a program finds must not depend on who started the server.
pub const PROGRAM_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// `cgi = { … }`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CgiSettings {
    /// The folder of the scripts; with `program`, its working folder.
    pub root: PathBuf,
    /// One program for the whole path, with its arguments, instead of scripts.
    pub program: Vec<String>,
    /// Which program runs files with this ending, with its arguments.
    pub interpreters: Vec<(String, Vec<String>)>,
    /// Environment beyond what RFC 3875 names.
    pub env: Vec<(String, String)>,
    /// What `DOCUMENT_ROOT` and `PATH_TRANSLATED` begin with. Default the root of the static route for `/*` on the same
    /// host, else `root`.
    pub document_root: Option<PathBuf>,
    /// URL prefixes and the folders that they stand for in `X-Accel-Redirect`; the same folders for `X-Sendfile`.
    pub sendfile: Vec<(String, PathBuf)>,
    /// Whether programs may see `Authorization`. Default no: others of the same user can read an environment.
    pub authorization: bool,
    /// From the start to the end of the head. Default 30 s, as for applications.
    pub timeout: Duration,
    /// Between two pieces of output. Default 60 s: what says nothing for longer has nothing more to say to a browser.
    pub stream_idle: Duration,
    /// From the start to the end. Default 1 h: a large clone over a slow line.
    pub total_timeout: Duration,
    /// Programs at a time. Default 32.
    pub max_processes: u32,
    /// Requests that may wait for a place. Default 1000, as for applications.
    pub queue_max: usize,
    /// How long each of them waits. Default 30 s.
    pub queue_timeout: Duration,
    /// Whether a warm interpreter runs Python scripts (`reuse = "fork"`).
    pub reuse: bool,
    /// User that programs run as, where the server was started as root.
    pub user: Option<String>,
    /// Their group.
    pub group: Option<String>,
    /// Within which limits.
    pub profile: Profile,
    /// The launcher's number for the profile; the supervisor fills it in.
    pub profile_number: u32,
    /// Users that scripts may belong to; empty: any. The supervisor fills it in where it is root.
    pub owners: Vec<u32>,
}

impl Default for CgiSettings {
    fn default() -> Self {
        Self {
            root: PathBuf::new(),
            program: Vec::new(),
            interpreters: Vec::new(),
            env: Vec::new(),
            document_root: None,
            sendfile: Vec::new(),
            authorization: false,
            timeout: Duration::from_secs(30),
            stream_idle: Duration::from_secs(60),
            total_timeout: Duration::from_secs(3600),
            max_processes: 32,
            queue_max: 1000,
            queue_timeout: Duration::from_secs(30),
            reuse: false,
            user: None,
            group: None,
            profile: Profile::default(),
            profile_number: 0,
            owners: Vec::new(),
        }
    }
}

impl CgiSettings {
    /// The folder that scripts are looked for in; `None` where one program answers everything.
    pub fn script_root(&self) -> Option<&Path> {
        self.program.is_empty().then_some(&*self.root)
    }
}

/// Where a program lies: a path as it is, a bare name as [`PROGRAM_PATH`] gives it.
pub fn find_program(name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let runs = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(runs);
    }
    PROGRAM_PATH.split(':').map(|folder| Path::new(folder).join(name)).find(runs)
}
