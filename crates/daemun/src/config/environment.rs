//! What surrounds the program: variables, the current folder, its own binary and the cores it may use. Tests make
//! their own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The surroundings that a configuration is found in.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Environment {
    /// Environment variables; those that are not UTF-8 are left out.
    pub variables: BTreeMap<String, String>,
    /// The current folder.
    pub directory: PathBuf,
    /// Daemun's own binary.
    pub executable: Option<PathBuf>,
    /// Cores that the cgroup and the affinity mask grant.
    pub cores: usize,
}

impl Environment {
    /// Those of this process.
    pub fn current() -> std::io::Result<Self> {
        let variables = std::env::vars_os();
        // Sockets that were passed to another process, perhaps to our parent, are none of ours.
        let passed = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
        Ok(Self {
            variables: variables
                .filter_map(|(name, value)| name.into_string().ok().zip(value.into_string().ok()))
                .filter(|(name, _)| passed || name != "LISTEN_FDS")
                .collect(),
            directory: std::env::current_dir()?,
            executable: std::env::current_exe().ok(),
            // On Linux it heeds the quota of cgroups (both versions) and the affinity mask.
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        })
    }

    /// A variable; an empty one counts as unset, as shells and platforms use it.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A path as a person in the current folder would write it.
    pub fn shown(&self, path: &Path) -> String {
        let short = path.strip_prefix(&self.directory).ok().filter(|short| short.components().next().is_some());
        short.unwrap_or(path).display().to_string()
    }

    /// A path made absolute, without `.` segments; `..` stays, for what stands before it may be a link.
    pub fn absolute(&self, path: impl AsRef<Path>) -> PathBuf {
        join(&self.directory, path)
    }
}

/// `path` as seen from `folder`, without `.` segments.
pub(super) fn join(folder: &Path, path: impl AsRef<Path>) -> PathBuf {
    folder.join(path).components().collect()
}
