//! Word from the kernel that something has happened in a folder. What it was is not read: whoever waits looks for himself.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// Kinds of file systems of another machine, of the host of this one, or of a process, by the numbers that `statfs(2)`
/// gives: what others change there is never told, and they answer what is asked when they like.
const FAR: &[(u64, &str)] = &[
    (0x0102_1997, "9p"),
    // virtiofs too, and the volumes of Docker Desktop.
    (0x6573_5546, "FUSE or virtiofs"),
    (0x6969, "NFS"),
    (0xff53_4d42, "SMB"),
    (0xfe53_4d42, "SMB"),
    (0x517b, "SMB"),
    (0x786f_4256, "a shared folder of VirtualBox"),
    (0xbacb_acbc, "a shared folder of VMware"),
    (0x7c7c_6673, "a shared folder of Parallels"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
];

/// The kind of file system below `folder` where it does not tell of every change.
pub fn without_events(folder: &Path) -> Option<&'static str> {
    kind(&rustix::fs::statfs(folder).ok()?)
}

/// Whether what is asked of this file or folder may be asked of another machine or process, or cannot be told. No event
/// loop does that.
pub fn is_far(file: impl AsFd) -> bool {
    rustix::fs::fstatfs(file).map_or(true, |found| kind(&found).is_some())
}

fn kind(found: &rustix::fs::StatFs) -> Option<&'static str> {
    // Some architectures have it signed, and 32 bits wide.
    let number = u64::from(found.f_type as u32);
    FAR.iter().find(|(kind, _)| *kind == number).map(|(_, name)| *name)
}

/// A descriptor on which the kernel tells of folders that are followed.
pub fn folder_events() -> io::Result<OwnedFd> {
    Ok(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?)
}

/// Has the kernel tell of what happens in `folder`.
pub fn follow_folder(events: &OwnedFd, folder: &Path) -> io::Result<()> {
    let what = WatchFlags::ATTRIB
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MODIFY
        | WatchFlags::MOVE
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR;
    inotify::add_watch(events, folder, what)?;
    Ok(())
}

/// Waits at most this long for word; true if there was any.
pub fn take_folder_events(events: &OwnedFd, within: Duration) -> bool {
    let timeout = Timespec { tv_sec: within.as_secs() as _, tv_nsec: within.subsec_nanos().into() };
    let mut polled = [PollFd::from_borrowed_fd(events.as_fd(), PollFlags::IN)];
    if poll(&mut polled, Some(&timeout)).unwrap_or(0) == 0 {
        return false;
    }
    let mut buffer = [0; 16 * 1024];
    while rustix::io::read(events, &mut buffer[..]).is_ok_and(|read| read > 0) {}
    true
}
