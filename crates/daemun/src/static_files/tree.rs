//! Opening below a root: the kernel resolves the name and never leaves the root (`openat2`, `RESOLVE_BENEATH`), so that
//! there is no path to check and no time between check and use.
//!
//! Symbolic links are followed while they stay below the root; an absolute one leaves it, wherever it points. Where the
//! kernel has no `openat2`, or a container's seccomp profile hides it, the name is walked component by component and
//! no link is followed at all.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fs::{File, Metadata};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::sys::is_far;

/// How often a resolution is repeated that was disturbed by a rename (`EAGAIN`, openat2(2)). Each needs a rename during
/// some microseconds: eight in a row are an attack.
const DISTURBED: usize = 8;

/// What stands below a root under a name.
#[derive(Debug)]
pub(super) enum Below {
    /// A regular file, open, and what `fstat` says of it: there is no time between the two.
    File(File, Metadata),
    /// A folder.
    Folder,
    /// Something that is never sent: a pipe, socket or device, or a link that leads out.
    Other,
    /// Nothing.
    Nothing,
}

/// One root folder.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    opening: Opening,
    is_far: bool,
}

/// Whether a lookup may wait for the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Patience {
    /// It may: it runs on the blocking pool.
    Waits,
    /// It runs on an event loop: only what the kernel has in memory counts, and all else is [`Errno::AGAIN`].
    AtHand,
}

/// How names are resolved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Opening {
    /// By `openat2`.
    Kernel,
    /// Component by component.
    Walk,
}

impl Tree {
    /// The tree below an open folder. Whether the kernel can contain a name, and has to ask another machine, is asked once,
    /// here.
    pub(super) fn new(root: OwnedFd) -> Self {
        let opening = match open_beneath(&root, b".", OFlags::DIRECTORY) {
            // Seccomp profiles older than the call answer EPERM.
            Err(Errno::NOSYS | Errno::PERM) => Opening::Walk,
            _ => Opening::Kernel,
        };
        let is_far = is_far(&root);
        Self { root, opening, is_far }
    }

    /// The same with names walked, for the tests of what a kernel without `openat2` gets.
    #[cfg(test)]
    pub(super) fn walked(root: OwnedFd) -> Self {
        Self { root, opening: Opening::Walk, is_far: false }
    }

    /// What stands under `name`, which is relative, not empty, and has no slash at its end.
    pub(super) fn open(&self, name: &[u8], patience: Patience) -> Result<Below, Errno> {
        let opened = match (self.opening, patience) {
            (Opening::Kernel, Patience::Waits) => open_beneath(&self.root, name, OFlags::empty()),
            (Opening::Kernel, Patience::AtHand) if !self.is_far => open_at_hand(&self.root, name),
            (Opening::Walk, Patience::Waits) => walk(&self.root, name),
            (_, Patience::AtHand) => Err(Errno::AGAIN),
        };
        match opened {
            Ok(file) => {
                let file = File::from(file);
                let metadata = file.metadata().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
                Ok(if metadata.is_file() {
                    Below::File(file, metadata)
                } else if metadata.is_dir() {
                    Below::Folder
                } else {
                    Below::Other
                })
            }
            // No such name; a file where a folder is needed; longer than a name can be.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(Below::Nothing),
            // Out of the root; a loop or, walked, a link; a socket or a device without a driver.
            Err(Errno::XDEV | Errno::LOOP | Errno::NXIO | Errno::NODEV) => Ok(Below::Other),
            Err(error) => Err(error),
        }
    }
}

/// One thing in a folder.
#[derive(Debug)]
pub(super) struct Listed {
    /// Its name; any bytes.
    pub(super) name: Vec<u8>,
    /// The size of a file; `None` for a folder.
    pub(super) size: Option<u64>,
    /// When it was modified.
    pub(super) modified: SystemTime,
}

/// What is in a folder.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) entries: Vec<Listed>,
    /// Whether there is more than these, which are the first by name.
    pub(super) has_more: bool,
}

impl Tree {
    /// The first `most` by name of the files and folders in the folder `name`; `None` where there is no such folder. What
    /// may not be sent is left out: links that lead out of the root, pipes, and what `is_hidden` says.
    pub(super) fn list(
        &self,
        name: &[u8],
        most: usize,
        is_hidden: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Listing>, Errno> {
        let opened = match (self.opening, name) {
            (Opening::Kernel, b"") => open_beneath(&self.root, b".", OFlags::DIRECTORY),
            (Opening::Kernel, name) => open_beneath(&self.root, name, OFlags::DIRECTORY),
            (Opening::Walk, b"") => rustix::fs::openat(&self.root, c".", CALM | OFlags::DIRECTORY, Mode::empty()),
            (Opening::Walk, name) => walk(&self.root, name),
        };
        let folder = match opened {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::XDEV | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error),
        };
        // The last by name goes when there are too many: which ones are told does not depend on the order on the disk.
        let mut first: BinaryHeap<ByName<Vec<u8>>> = BinaryHeap::new();
        let mut has_more = false;
        for entry in rustix::fs::Dir::read_from(&folder)? {
            let entry = entry?;
            let own = entry.file_name().to_bytes();
            if matches!(own, b"." | b"..") || is_hidden(own) {
                continue;
            }
            first.push(ByName(own.to_vec()));
            if first.len() > most {
                first.pop();
                has_more = true;
            }
        }
        let entries = first.into_iter().filter_map(|ByName(own)| self.look(&folder, name, &own)).collect();
        Ok(Some(Listing { entries, has_more }))
    }

    /// A file or folder below this root; `None` for what is neither, or is gone again.
    fn look(&self, folder: &OwnedFd, folder_name: &[u8], own: &[u8]) -> Option<Listed> {
        let stat = rustix::fs::statat(folder, own, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let after = |seconds: i64| {
            let since = Duration::from_secs(seconds.unsigned_abs());
            if seconds < 0 { UNIX_EPOCH - since } else { UNIX_EPOCH + since }
        };
        let (size, modified) = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => (Some(stat.st_size as u64), after(stat.st_mtime)),
            FileType::Directory => (None, after(stat.st_mtime)),
            FileType::Symlink => {
                let separator: &[u8] = if folder_name.is_empty() { b"" } else { b"/" };
                match self.open(&[folder_name, separator, own].concat(), Patience::Waits).ok()? {
                    Below::File(_, metadata) => (Some(metadata.len()), metadata.modified().ok()?),
                    Below::Folder => (None, after(stat.st_mtime)),
                    Below::Other | Below::Nothing => return None,
                }
            }
            _ => return None,
        };
        Some(Listed { name: own.to_vec(), size, modified })
    }
}

/// A name in the order in which people look for it: capitals beside their small letters; of two alike the bytes decide.
#[derive(Eq, PartialEq)]
pub(super) struct ByName<T>(pub(super) T);

impl<T: AsRef<[u8]> + Eq> Ord for ByName<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        let (one, other) = (self.0.as_ref(), other.0.as_ref());
        let folded = one.iter().map(u8::to_ascii_lowercase).cmp(other.iter().map(u8::to_ascii_lowercase));
        folded.then_with(|| one.cmp(other))
    }
}

impl<T: AsRef<[u8]> + Eq> PartialOrd for ByName<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Never waits for the other end of a pipe, never becomes the terminal of the process, never reaches a child.
const CALM: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

#[cfg(target_os = "linux")]
fn open_beneath(root: &OwnedFd, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    use rustix::fs::{ResolveFlags, openat2};
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut result = Err(Errno::AGAIN);
    for _ in 0..DISTURBED {
        result = openat2(root, name, CALM | flags, Mode::empty(), resolve);
        if !matches!(result, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    result
}

/// The same where every component of the name is in the kernel's memory, also what is known not to be there
/// (`RESOLVE_CACHED`, Linux 5.12); an older kernel says `EINVAL`. What is mounted below the root may be far.
#[cfg(target_os = "linux")]
fn open_at_hand(root: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    use rustix::fs::{ResolveFlags, openat2};
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::CACHED | ResolveFlags::NO_XDEV;
    // A mount or a link that leads out: who may wait tells them apart.
    openat2(root, name, CALM, Mode::empty(), resolve).map_err(|error| match error {
        Errno::XDEV => Errno::AGAIN,
        error => error,
    })
}

#[cfg(not(target_os = "linux"))]
fn open_at_hand(_: &OwnedFd, _: &[u8]) -> Result<OwnedFd, Errno> {
    Err(Errno::AGAIN)
}

#[cfg(not(target_os = "linux"))]
fn open_beneath(_: &OwnedFd, _: &[u8], _: OFlags) -> Result<OwnedFd, Errno> {
    Err(Errno::NOSYS)
}

/// One `openat` for each component, none of which may be a link.
fn walk(root: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let mut folder: Option<OwnedFd> = None;
    let mut components = name.split(|&byte| byte == b'/').peekable();
    while let Some(component) = components.next() {
        if matches!(component, b"" | b"." | b"..") {
            return Err(Errno::XDEV);
        }
        let at = folder.as_ref().map_or(root.as_fd(), AsFd::as_fd);
        let is_last = components.peek().is_none();
        let kind = if is_last { OFlags::empty() } else { OFlags::DIRECTORY };
        let next = match rustix::fs::openat(at, component, CALM | OFlags::NOFOLLOW | kind, Mode::empty()) {
            // A link where a folder is needed is there, but not followed.
            Err(Errno::NOTDIR) if is_link(at, component) => return Err(Errno::LOOP),
            other => other?,
        };
        folder = Some(next);
    }
    folder.ok_or(Errno::NOENT)
}

fn is_link(folder: impl AsFd, name: &[u8]) -> bool {
    rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}
