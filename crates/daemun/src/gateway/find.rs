//! From a path to the script that it leads to.
//!
//! Everything is opened below the root's descriptor and never leaves it (`openat2` with `RESOLVE_BENEATH`), whatever
//! links lie there. The first component that is a file is the script; what follows it is its `PATH_INFO`.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::sys::is_far;

/// The scripts below a root.
#[derive(Debug)]
pub struct Scripts {
    folder: OwnedFd,
    path: PathBuf,
    owners: Vec<u32>,
    is_far: bool,
}

/// A script that may be run as far as its place and owner go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// Its absolute path.
    pub path: PathBuf,
    /// Bytes of the path below the root that lead to it.
    pub length: usize,
    /// Whether anybody may execute it.
    pub is_executable: bool,
    /// Which file it is.
    pub identity: Identity,
    /// Whether to look at it again may be to ask another machine.
    pub is_far: bool,
}

/// Which file something is: the same only where nothing was written, renamed or put in its place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Identity {
    device: u64,
    number: u64,
    changed: (i64, u64),
}

impl From<&rustix::fs::Stat> for Identity {
    fn from(found: &rustix::fs::Stat) -> Self {
        Self { device: found.st_dev, number: found.st_ino, changed: (found.st_ctime, found.st_ctime_nsec) }
    }
}

/// Why a path leads to no script that may be run.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// Nothing of this name, or a folder.
    #[error("there is no script of this name")]
    Absent,
    /// The disk has to be asked: to be tried again where that may block.
    #[error("the disk has to be asked")]
    Cold,
    /// A link leads out of the root.
    #[error("{path} is a link that leads out of {root}; put the script itself there, or name its own folder as `root`")]
    Outside {
        /// Its name below the root.
        path: String,
        /// The root.
        root: String,
    },
    /// A name that is hidden or cannot be a script's.
    #[error("{0} begins with a dot: it is not run")]
    Hidden(String),
    /// It is neither a file nor a folder.
    #[error("{0} is not a regular file")]
    NotAFile(String),
    /// Anybody may write to it.
    #[error("{0} can be written by everybody, and is not run; run chmod o-w {0}")]
    WorldWritable(String),
    /// It belongs to somebody else.
    #[error(
        "{path} belongs to user {owner}, who is neither root, nor the route's user, nor the owner of the folder; run chown"
    )]
    Owner {
        /// Its path.
        path: String,
        /// Its owner.
        owner: u32,
    },
    /// Opening it failed.
    #[error("{path}: {error}")]
    Io {
        /// Its path.
        path: String,
        /// Why.
        error: io::Error,
    },
}

impl Scripts {
    /// The scripts in `folder`, which is `path`. Where `owners` is not empty, only scripts of these users are run.
    pub fn new(folder: OwnedFd, path: PathBuf, owners: Vec<u32>) -> Self {
        let is_far = is_far(&folder);
        Self { folder, path, owners, is_far }
    }

    /// The script that `rest`, the part of a canonical path below the route's prefix, leads to. Unless it `may_block`,
    /// a lookup that is not in the kernel's memory is [`FindError::Cold`].
    pub fn find(&self, rest: &[u8], may_block: bool) -> Result<Found, FindError> {
        let whole = trim_end(rest);
        if whole.is_empty() {
            return Err(FindError::Absent);
        }
        let otherwise = match self.look_at(whole, may_block) {
            Err(FindError::Io { error, .. }) if error.raw_os_error() == Some(libc::ENOTDIR) => FindError::Absent,
            // The kernel's memory alone does not tell that a file stands in the way.
            Err(FindError::Cold) => FindError::Cold,
            other => return other,
        };
        // The first file on the way is the script, whatever comes after it.
        let mut end = 0;
        while let Some(slash) = whole[end..].iter().position(|&byte| byte == b'/') {
            let part = &whole[..end + slash];
            match self.look_at(part, may_block) {
                Err(FindError::Absent) if self.is_folder(part) => end += slash + 1,
                other => return other,
            }
        }
        Err(otherwise)
    }

    /// Opens a script that was found for reading. The front may not enter what lies above the root, and so opens it from
    /// there.
    pub fn open_found(&self, script: &Path) -> io::Result<File> {
        let name = script.strip_prefix(&self.path).map_err(io::Error::other)?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat2(self.folder.as_fd(), name, flags, Mode::empty(), resolve)?;
        Ok(file.into())
    }

    /// Whether the very file that was found by this name below the root still has it. One look, and nothing is opened: a
    /// link that was put in its place leads to another file, or to the same.
    pub fn is_still(&self, name: &CStr, identity: Identity) -> bool {
        let found = rustix::fs::statat(self.folder.as_fd(), name, AtFlags::empty());
        found.is_ok_and(|found| Identity::from(&found) == identity)
    }

    fn look_at(&self, name: &[u8], may_block: bool) -> Result<Found, FindError> {
        let path = self.path.join(OsStr::from_bytes(name));
        if name.split(|&byte| byte == b'/').any(|part| part.starts_with(b".")) {
            return Err(FindError::Hidden(path.display().to_string()));
        }
        let file = self.open(name, may_block).map_err(|error| match error {
            Errno::NOENT => FindError::Absent,
            Errno::AGAIN if !may_block => FindError::Cold,
            Errno::XDEV => {
                FindError::Outside { path: path.display().to_string(), root: self.path.display().to_string() }
            }
            error => FindError::Io { path: path.display().to_string(), error: error.into() },
        })?;
        let found = rustix::fs::fstat(&file);
        let found = found.map_err(|error| FindError::Io { path: path.display().to_string(), error: error.into() })?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(FindError::Absent),
            _ => return Err(FindError::NotAFile(path.display().to_string())),
        }
        if !self.owners.is_empty() {
            if found.st_mode & 0o002 != 0 {
                return Err(FindError::WorldWritable(path.display().to_string()));
            }
            if !self.owners.contains(&found.st_uid) {
                return Err(FindError::Owner { path: path.display().to_string(), owner: found.st_uid });
            }
        }
        let (length, is_executable) = (name.len(), found.st_mode & 0o111 != 0);
        // What is found without waiting is on the root's own file system.
        let is_far = may_block && is_far(&file);
        Ok(Found { path, length, is_executable, identity: Identity::from(&found), is_far })
    }

    fn is_folder(&self, name: &[u8]) -> bool {
        let opened = self.open(name, true).ok().and_then(|file| rustix::fs::fstat(file).ok());
        opened.is_some_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory)
    }

    fn open(&self, name: &[u8], may_block: bool) -> Result<OwnedFd, Errno> {
        let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        if !may_block {
            if self.is_far {
                return Err(Errno::AGAIN);
            }
            resolve |= ResolveFlags::CACHED | ResolveFlags::NO_XDEV;
        }
        let opened =
            rustix::fs::openat2(self.folder.as_fd(), name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve);
        match opened {
            // A mount or a link that leads out: who may wait tells them apart.
            Err(Errno::XDEV) if !may_block => Err(Errno::AGAIN),
            opened => opened,
        }
    }
}

fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b'/'] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn scripts(folder: &std::path::Path, owners: Vec<u32>) -> Scripts {
        Scripts::new(fs::File::open(folder).unwrap().into(), folder.to_owned(), owners)
    }

    fn write(path: &std::path::Path, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_first_file_on_the_way_is_the_script_and_the_rest_is_its_path_info() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("env.cgi"), 0o755);
        write(&folder.path().join("sub/deep/run"), 0o644);
        let scripts = scripts(folder.path(), Vec::new());
        for (rest, script, executable) in [
            ("env.cgi", "env.cgi", true),
            ("env.cgi/", "env.cgi", true),
            ("env.cgi/a/b/c", "env.cgi", true),
            ("env.cgi/sub/deep/run", "env.cgi", true),
            ("sub/deep/run", "sub/deep/run", false),
            ("sub/deep/run/x%2Fy", "sub/deep/run", false),
        ] {
            let found = scripts.find(rest.as_bytes(), true).unwrap();
            assert_eq!((found.length, found.is_executable), (script.len(), executable), "{rest}");
            assert_eq!(found.path, folder.path().join(script));
            assert!(scripts.find(rest.as_bytes(), false).is_ok(), "{rest} is in the kernel's memory by now");
        }
        for rest in ["", "/", "sub", "sub/", "sub/deep/", "nothing", "sub/nothing/x"] {
            assert!(matches!(scripts.find(rest.as_bytes(), true), Err(FindError::Absent)), "{rest}");
        }
    }

    #[test]
    fn nothing_outside_the_root_is_found_and_nothing_hidden() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("cgi");
        write(&root.join("real"), 0o755);
        write(&folder.path().join("secret"), 0o755);
        write(&root.join(".hidden"), 0o755);
        write(&root.join(".git/hooks/x"), 0o755);
        symlink("../secret", root.join("relative")).unwrap();
        symlink(folder.path().join("secret"), root.join("absolute")).unwrap();
        symlink("real", root.join("inside")).unwrap();
        let scripts = scripts(&root, Vec::new());
        assert!(scripts.find(b"inside", true).is_ok());
        for rest in ["relative", "absolute", "relative/x"] {
            assert!(matches!(scripts.find(rest.as_bytes(), true), Err(FindError::Outside { .. })), "{rest}");
        }
        for rest in [".hidden", ".git/hooks/x", "../secret", "./real"] {
            assert!(matches!(scripts.find(rest.as_bytes(), true), Err(FindError::Hidden(_))), "{rest}");
        }
    }

    #[test]
    fn what_is_mounted_below_the_root_is_looked_for_where_that_may_block() {
        let scripts = scripts(Path::new("/"), Vec::new());
        assert!(scripts.find(b"proc/version", true).is_ok());
        assert!(matches!(scripts.find(b"proc/version", false), Err(FindError::Cold)));
    }

    #[test]
    fn where_owners_count_neither_a_strangers_script_nor_one_that_all_may_write_is_run() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("open"), 0o757);
        write(&folder.path().join("good"), 0o755);
        let own = rustix::process::geteuid().as_raw();
        let strict = scripts(folder.path(), vec![own]);
        assert!(strict.find(b"good", true).is_ok());
        assert!(matches!(strict.find(b"open", true), Err(FindError::WorldWritable(_))));
        assert!(matches!(scripts(folder.path(), vec![own + 1]).find(b"good", true), Err(FindError::Owner { .. })));
        assert!(scripts(folder.path(), Vec::new()).find(b"open", true).is_ok());
    }
}
