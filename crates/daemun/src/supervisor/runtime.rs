//! The folder of a running server: its workers' sockets and the program that they run.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::process::Account;

/// A folder of our own that is removed with the value. Others may enter it, to reach what is theirs, but not list it.
#[derive(Debug)]
pub struct RuntimeFolder {
    path: PathBuf,
    /// The process that made it, and that alone removes it.
    owner: u32,
}

impl RuntimeFolder {
    /// Makes the folder below `/run` for root, else below `XDG_RUNTIME_DIR`, else in the temporary folder.
    pub fn new() -> io::Result<Self> {
        let owner = std::process::id();
        let mut candidates = vec![std::env::temp_dir()];
        if let Some(folder) = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()) {
            candidates.insert(0, folder.into());
        }
        if rustix::process::geteuid().is_root() {
            candidates.insert(0, PathBuf::from("/run"));
        }
        let mut result = Err(io::ErrorKind::NotFound.into());
        for folder in candidates {
            result = Self::make(&folder.join(format!("daemun-{owner}")), owner);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn make(path: &Path, owner: u32) -> io::Result<Self> {
        match DirBuilder::new().mode(0o711).create(path) {
            // Left behind by a killed server that had our process id: nobody else could have made it in a folder
            // where only the owner may remove, unless it is not ours; then the next candidate is tried.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_dir_all(path)?;
                DirBuilder::new().mode(0o711).create(path)?;
            }
            result => result?,
        }
        // The umask may have taken the bits for others away.
        fs::set_permissions(path, fs::Permissions::from_mode(0o711))?;
        Ok(Self { path: path.to_owned(), owner })
    }

    /// Writes a program that anybody may read; its path.
    pub fn write_program(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o444).open(&path)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(fs::Permissions::from_mode(0o444))?;
        Ok(path)
    }

    /// The socket that workers of an application connect to, for their user alone; its path and the listening socket.
    pub fn worker_socket(&self, app: &str, account: Option<&Account>) -> io::Result<(PathBuf, OwnedFd)> {
        let path = self.path.join(format!("{app}.sock"));
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        if let Some(account) = account {
            std::os::unix::fs::chown(&path, Some(account.identity.user), Some(account.identity.group))?;
        }
        Ok((path, listener.into()))
    }
}

impl Drop for RuntimeFolder {
    fn drop(&mut self) {
        if self.owner == std::process::id() {
            // What cannot be removed is a few kilobytes in a folder that is emptied at boot.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
