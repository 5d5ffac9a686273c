//! Where the control socket of a server lies.
//!
//! The name is derived from what is served: the configuration file, else the target's folder. So a command that is given
//! in the same folder needs no option. The folder is one that only its owner can write: whoever could put a socket there
//! could pass for the server.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What decides about the folder.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Who asks, as the kernel knows it.
    pub user: u32,
    /// `RUNTIME_DIRECTORY` of a systemd unit.
    pub service_folder: Option<&'a str>,
    /// `XDG_RUNTIME_DIR`.
    pub session_folder: Option<&'a str>,
}

/// The folder that system services use; commands look here whoever gives them.
const SYSTEM: &str = "/run/daemun";

/// Where there is nothing else. Not `TMPDIR`: a shell may have another one than the service.
const TEMPORARY: &str = "/tmp";

/// The socket of the server that serves `key`, where a server of these surroundings puts it: the folder is made.
pub fn of_server(key: &Path, surroundings: Surroundings<'_>) -> io::Result<PathBuf> {
    let mut result = Err(io::ErrorKind::NotFound.into());
    for folder in folders(surroundings, surroundings.user) {
        result = ensure(&folder, surroundings.user);
        if result.is_ok() {
            return Ok(folder.join(name(key)));
        }
    }
    result.map(|()| PathBuf::new())
}

/// Where the server of `key` may have put its socket, the likeliest first. `owner` is whose files are served: root may
/// command everybody's server.
pub fn candidates(key: &Path, surroundings: Surroundings<'_>, owner: Option<u32>) -> Vec<PathBuf> {
    let mut found = folders(surroundings, surroundings.user);
    found.push(SYSTEM.into());
    found.extend(service_folders());
    for user in [Some(surroundings.user), owner.filter(|_| surroundings.user == 0)].into_iter().flatten() {
        found.push(format!("/run/user/{user}/daemun").into());
        found.push(temporary(user));
    }
    let mut unique: Vec<PathBuf> = Vec::new();
    for folder in found {
        let path = folder.join(name(key));
        if !unique.contains(&path) {
            unique.push(path);
        }
    }
    unique
}

/// Folders that systemd has made for units of ours (`RuntimeDirectory=daemun-…`). Only root can make one.
fn service_folders() -> Vec<PathBuf> {
    let entries = fs::read_dir("/run").into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with("daemun-")));
    // Those of our own servers hold workers' sockets, and are not looked into.
    let services = ours.filter(|entry| !entry.path().join("daemun_worker.py").exists());
    let mut found: Vec<PathBuf> = services.map(|entry| entry.path()).collect();
    found.sort();
    found
}

fn folders(surroundings: Surroundings<'_>, user: u32) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    // systemd may name several, with colons between them.
    if let Some(folder) = surroundings.service_folder.and_then(|text| text.split(':').next()).filter(|f| !f.is_empty())
    {
        folders.push(folder.into());
    }
    if user == 0 {
        folders.push(SYSTEM.into());
    } else if let Some(folder) = surroundings.session_folder {
        folders.push(Path::new(folder).join("daemun"));
    }
    folders.push(temporary(user));
    folders
}

fn temporary(user: u32) -> PathBuf {
    Path::new(TEMPORARY).join(format!("daemun-control-{user}"))
}

/// A folder that exists, is no link, belongs to us and that nobody else can write.
fn ensure(folder: &Path, user: u32) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(folder)?;
    let safe = found.is_dir() && found.uid() == user && found.permissions().mode() & 0o022 == 0;
    if safe { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// 64 bits of FNV-1a over the path with its links resolved: stable over versions, short enough for a socket's address.
fn name(key: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let real = fs::canonicalize(key).unwrap_or_else(|_| key.to_path_buf());
    let hash = real
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}.control")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(user: u32) -> Surroundings<'static> {
        Surroundings { user, service_folder: None, session_folder: Some("/run/user/7") }
    }

    #[test]
    fn a_command_looks_where_the_server_puts_its_socket() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        for user in [0, 7] {
            let server = folders(surroundings(user), user);
            let looked = candidates(&link, surroundings(user), None);
            for place in server {
                assert!(looked.contains(&place.join(name(folder.path()))), "{}", place.display());
            }
        }
    }

    #[test]
    fn root_finds_the_server_of_the_files_owner() {
        let looked = candidates(Path::new("/srv/shop"), surroundings(0), Some(1000));
        assert!(looked.iter().any(|path| path.starts_with("/run/user/1000/daemun")));
        assert!(looked.iter().any(|path| path.starts_with("/tmp/daemun-control-1000")));
        let others = candidates(Path::new("/srv/shop"), surroundings(7), Some(1000));
        assert!(!others.iter().any(|path| path.starts_with("/run/user/1000")));
    }

    #[test]
    fn a_folder_that_others_can_write_is_not_used() {
        let parent = tempfile::tempdir().unwrap();
        let user = rustix::process::geteuid().as_raw();
        let folder = parent.path().join("a");
        ensure(&folder, user).unwrap();
        ensure(&folder, user).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(ensure(&folder, user).is_err());
        let link = parent.path().join("b");
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(ensure(&link, user).is_err());
    }
}
