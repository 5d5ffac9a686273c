//! The folder of a running server: its workers' sockets and the program that they run.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;

use crate::process::Account;

/// A folder of our own that is removed with the value. Others may enter it, to reach what is theirs, but not list it.
#[derive(Debug)]
pub struct RuntimeFolder {
    path: PathBuf,
    /// The process that made it, and that alone removes it.
    owner: u32,
    /// Locked as long as we live, whatever ends us: a folder whose lock is free was left behind.
    _lock: OwnedFd,
}

/// The file in each folder that its server holds locked.
const LOCK: &str = "lock";

/// Names to try. More than one is taken only where containers with process ids of their own share a folder.
const NAMES: u32 = 100;

impl RuntimeFolder {
    /// Makes the folder below `/run` for root, else below `XDG_RUNTIME_DIR`, else in the temporary folder. What killed
    /// servers have left there is removed.
    pub fn new() -> io::Result<Self> {
        let mut candidates = vec![std::env::temp_dir()];
        if let Some(folder) = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()) {
            candidates.insert(0, folder.into());
        }
        if rustix::process::geteuid().is_root() {
            candidates.insert(0, PathBuf::from("/run"));
        }
        let mut result = Err(io::ErrorKind::NotFound.into());
        for parent in candidates {
            remove_abandoned(&parent);
            result = Self::below(&parent);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// The first free name below `parent`.
    fn below(parent: &Path) -> io::Result<Self> {
        let owner = std::process::id();
        let mut result = Err(io::ErrorKind::AlreadyExists.into());
        for number in 0..NAMES {
            let name = if number == 0 { format!("daemun-{owner}") } else { format!("daemun-{owner}-{number}") };
            result = Self::make(parent.join(name), owner);
            if !result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
                break;
            }
        }
        result
    }

    fn make(path: PathBuf, owner: u32) -> io::Result<Self> {
        DirBuilder::new().mode(0o711).create(&path)?;
        // The umask may have taken the bits for others away.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o711))?;
        let lock = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path.join(LOCK))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { path, owner, _lock: lock.into() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a program that anybody may read; its path.
    pub fn write_program(&self, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o444).open(&path)?;
        file.write_all(bytes)?;
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
        Self::give(&path, account)?;
        Ok((path, listener.into()))
    }

    /// Gives a worker socket to its user: to ourselves where the workers run as we do.
    pub fn give(path: &Path, account: Option<&Account>) -> io::Result<()> {
        let (user, group) = match account {
            Some(account) => (account.identity.user, account.identity.group),
            None => (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        };
        std::os::unix::fs::chown(path, Some(user), Some(group))
    }
}

/// Removes folders of ours whose server is gone without having done so itself. A server that was just made may not
/// have its lock yet; its folder is left alone for a minute.
fn remove_abandoned(parent: &Path) {
    let own = rustix::process::geteuid().as_raw();
    let young = |found: &fs::Metadata| found.modified().ok().and_then(|made| made.elapsed().ok()) < Some(YOUNG);
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(is_one_of_ours);
        let found = entry.metadata().ok().filter(|found| ours && found.is_dir() && found.uid() == own && !young(found));
        let Some(_) = found else { continue };
        let lock = OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(entry.path().join(LOCK));
        if lock.is_ok_and(|lock| rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()) {
            // Best effort: another that starts now may do the same.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether a folder is named as [`RuntimeFolder::below`] does.
fn is_one_of_ours(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.strip_prefix("daemun-").is_some_and(|rest| rest.splitn(2, '-').all(number))
}

/// How old a folder must be before it can be abandoned.
const YOUNG: Duration = Duration::from_secs(60);

impl Drop for RuntimeFolder {
    fn drop(&mut self) {
        if self.owner == std::process::id() {
            // What cannot be removed is a few kilobytes in a folder that is emptied at boot.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_server_left_is_removed_and_a_living_ones_folder_stays() {
        let parent = tempfile::tempdir().unwrap();
        let living = RuntimeFolder::below(parent.path()).unwrap();
        let second = RuntimeFolder::below(parent.path()).unwrap();
        assert_ne!(living.path, second.path);
        let old = parent.path().join("daemun-1-2");
        let others = parent.path().join("daemun-1-backup");
        for folder in [&old, &others] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join(LOCK), "").unwrap();
        }
        for folder in [&old, &others, &living.path] {
            let long_ago = std::time::SystemTime::now() - 2 * YOUNG;
            fs::File::open(folder).unwrap().set_modified(long_ago).unwrap();
        }
        remove_abandoned(parent.path());
        assert!(!old.exists() && others.exists() && living.path.exists());
    }
}
