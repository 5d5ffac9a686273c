//! As whom and within which limits programs run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sys::{Identity, Limit, LimitKind};

/// What holds for all programs of a route. Told to the launcher by the supervisor alone.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Profile {
    /// User id, group id and supplementary groups; `None`: as the server runs.
    pub identity: Option<(u32, u32, Vec<u32>)>,
    /// Seconds of processor time.
    pub cpu: Option<u64>,
    /// Bytes of address space.
    pub memory: Option<u64>,
    /// Open files.
    pub files: Option<u64>,
    /// Processes of the user.
    pub processes: Option<u64>,
    /// Bytes of a file that is written.
    pub file_size: Option<u64>,
    /// What of the file system is there.
    pub sandbox: Option<Sandbox>,
    /// An interpreter that is warmed up and forks.
    pub reuse: Option<Reuse>,
}

/// A Landlock sandbox: nothing of the file system but this.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Sandbox {
    /// What may be read and executed.
    pub read: Vec<PathBuf>,
    /// What may be written too.
    pub write: Vec<PathBuf>,
}

/// An interpreter that imports modules once and forks for each request.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Reuse {
    /// The interpreter.
    pub python: PathBuf,
    /// Modules that it imports before the first request.
    pub warm: Vec<String>,
    /// Environment that it starts with: the route's own.
    pub env: Vec<(String, String)>,
}

impl Profile {
    /// The user to become.
    pub(super) fn identity(&self) -> Option<Identity> {
        let (user, group, groups) = self.identity.clone()?;
        Some(Identity { user, group, groups })
    }

    /// The limits to set.
    pub(super) fn limits(&self) -> Vec<Limit> {
        let all = [
            (LimitKind::Cpu, self.cpu),
            (LimitKind::Memory, self.memory),
            (LimitKind::Files, self.files),
            (LimitKind::Processes, self.processes),
            (LimitKind::FileSize, self.file_size),
        ];
        all.into_iter().filter_map(|(kind, most)| Some((kind, most?))).collect()
    }
}
