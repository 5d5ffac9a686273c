//! The one room with `unsafe`: shared memory, and what happens between `fork` and `exec`.
//!
//! Each block is a few lines long and says why it is sound. Everything here is Linux; where another system lacks a
//! call the caller gets an error and takes its portable way.
#![expect(unsafe_code, reason = "the one room for it: mapped memory, and children between fork and exec")]

mod confine;
mod folder_events;
mod frozen;
mod program;
mod reading;
mod xslt;

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use bytes::Bytes;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub use confine::{confine, end_after};
pub use folder_events::{folder_events, follow_folder, is_far, take_folder_events, without_events};
pub use frozen::{Freezer, Frozen};
pub use program::{
    Limit, LimitKind, Program, StartError, Starter, Step, default_signals, ends_of_children, keep_descriptors,
    signal_group,
};
pub use reading::read_more;
pub use xslt::{Loader, Stylesheet, Transformed, Xslt};

/// Memory that another process maps too. Its bytes are read and written one at a time, as atomics, and only ever mean
/// zero or non-zero: whatever the other side writes, nothing here can be led astray.
#[derive(Debug)]
pub struct SharedMemory {
    address: NonNull<u8>,
    length: usize,
    descriptor: Arc<OwnedFd>,
}

// SAFETY: the mapping lives as long as the value, has no thread affinity, and is only touched through atomics or, for
// the arena, through `write` on ranges that the caller owns alone.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Maps `length` fresh bytes of zeros that nobody can resize: a truncated mapping would kill us by SIGBUS.
    ///
    /// With `readers_only`, whoever else maps the descriptor can only read (Linux 5.1 and later).
    pub fn new(name: &str, length: usize, readers_only: bool) -> io::Result<Self> {
        let descriptor = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&descriptor, length as u64)?;
        // SAFETY: a new mapping of a descriptor of that length, at an address that the kernel chooses.
        let address = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &descriptor,
                0,
            )
        }?;
        let address = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let memory = Self { address, length, descriptor: Arc::new(descriptor) };
        let mut seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        if readers_only {
            seals |= SealFlags::FUTURE_WRITE;
        }
        rustix::fs::fcntl_add_seals(&memory.descriptor, seals)?;
        Ok(memory)
    }

    /// Bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Copies `bytes` to `offset`. The caller owns that range: nobody else writes to it at this time.
    ///
    /// # Panics
    /// When the range does not lie within the memory.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset.checked_add(bytes.len()).is_some_and(|end| end <= self.length), "a write within the memory");
        // SAFETY: the range was just checked, the source cannot overlap a mapping that no reference points into.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.address.as_ptr().add(offset), bytes.len()) }
    }

    /// Writes `before`, this part of the memory and `after` into `socket`, as far as it takes them now. The kernel alone
    /// reads the part: whatever else has mapped it may write there meanwhile.
    pub fn send(&self, socket: BorrowedFd<'_>, before: &[u8], part: Range<usize>, after: &[u8]) -> io::Result<usize> {
        if part.start > part.end || part.end > self.length {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let vector = |address: *const u8, length| libc::iovec { iov_base: address.cast_mut().cast(), iov_len: length };
        let address = self.address.as_ptr().wrapping_add(part.start);
        let mut parts =
            [vector(before.as_ptr(), before.len()), vector(address, part.len()), vector(after.as_ptr(), after.len())];
        // SAFETY: a `msghdr` of zeros names nobody and brings nothing along.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        (message.msg_iov, message.msg_iovlen) = (parts.as_mut_ptr(), parts.len() as _);
        // SAFETY: three parts that live until the call is over, and are only read; the middle one was just checked to lie
        // within the mapping, which is sealed against being shortened.
        let sent =
            unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Receives into this part of the memory, and what comes behind it into `beyond`: how many bytes are there now, 0 at
    /// the end. The kernel alone writes; the caller owns that range, as for [`write`](Self::write).
    pub fn receive(&self, socket: BorrowedFd<'_>, part: Range<usize>, beyond: &mut [u8]) -> io::Result<usize> {
        if part.start > part.end || part.end > self.length {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let vector = |address: *mut u8, length| libc::iovec { iov_base: address.cast(), iov_len: length };
        let address = self.address.as_ptr().wrapping_add(part.start);
        let mut parts = [vector(address, part.len()), vector(beyond.as_mut_ptr(), beyond.len())];
        // SAFETY: a `msghdr` of zeros wants to know nobody's name.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        (message.msg_iov, message.msg_iovlen) = (parts.as_mut_ptr(), parts.len() as _);
        // SAFETY: two parts that live until the call is over and that nobody else refers to; the first was just checked to
        // lie within the mapping, which is sealed against being shortened.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// A copy of this part, by the kernel too.
    pub fn read(&self, part: Range<usize>) -> io::Result<Bytes> {
        let mut bytes = Vec::with_capacity(part.len());
        while bytes.len() < part.len() {
            let offset = part.start + bytes.len();
            match rustix::io::pread(&self.descriptor, rustix::buffer::spare_capacity(&mut bytes), offset as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(part.len());
        Ok(bytes.into())
    }

    /// The byte at `index`, which whoever else has mapped it may change at any time; `None` beyond the end.
    pub fn byte(&self, index: usize) -> Option<&AtomicU8> {
        // SAFETY: within the mapping, which lives as long as the reference; bytes have no alignment.
        (index < self.length).then(|| unsafe { AtomicU8::from_ptr(self.address.as_ptr().add(index)) })
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length; no reference outlives `self`. A failure leaves memory behind.
        let _ = unsafe { rustix::mm::munmap(self.address.as_ptr().cast(), self.length) };
    }
}

/// Has the allocator keep what is freed: for a program that ends soon, and takes and gives back much memory until then,
/// of which the kernel would clear each page anew. Another C library than GNU's does as it always does.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    for (what, bytes) in
        [(libc::M_TRIM_THRESHOLD, i32::MAX), (libc::M_MMAP_THRESHOLD, 32 << 20), (libc::M_TOP_PAD, 16 << 20)]
    {
        // SAFETY: sets a number of the allocator's.
        unsafe { libc::mallopt(what, bytes) };
    }
}

/// Nobody of the same user may read our memory, our descriptors (`pidfd_getfd`) or our `/proc` entries.
pub fn forbid_inspection() -> io::Result<()> {
    // SAFETY: changes a flag of this process and touches no memory.
    match unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Orphans below us become our children instead of init's.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: changes a flag of this process and touches no memory.
    match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A child that ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ended {
    /// Its process id.
    pub pid: i32,
    /// Its exit code, where it exited.
    pub code: Option<i32>,
    /// The signal that killed it, where one did.
    pub signal: Option<i32>,
    /// The most memory that it ever held, in bytes.
    pub peak: u64,
}

/// Reaps one child that has ended, whoever's it was; `None` when there is none.
pub fn reap() -> Option<Ended> {
    let mut status = 0;
    // SAFETY: plain numbers, for which zeros are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `status` and `usage` are valid places for the results.
    let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage) };
    (pid > 0).then(|| Ended {
        pid,
        peak: u64::try_from(usage.ru_maxrss).unwrap_or_default().saturating_mul(1024),
        code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
    })
}

/// Takes ownership of a descriptor that this process inherited under a number it was told.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: only borrowed for this one call, which fails on a number that is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC)?;
    // SAFETY: open, as was just seen, and inherited: nothing else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A descriptor of which the event loop tells when there is something to read, or with `interest` something else. Not
/// both where one will do: a socket that is watched for room wakes us up with every packet that the other end takes.
pub fn watched(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` always gives the same number and is open until it is dropped, which `AsyncFd` does last.
    unsafe { AsyncFd::register_with_interest(descriptor, interest) }.map_err(Into::into)
}

/// What a child is started with beyond its arguments.
#[derive(Debug, Default)]
pub struct ChildSetup {
    /// Descriptors that the child finds as 3, 4, … in this order.
    pub descriptors: Vec<OwnedFd>,
    /// User and group to become, where we may choose.
    pub identity: Option<Identity>,
    /// Soft limit of open files to set; the hard limit caps it.
    pub open_files: Option<u64>,
    /// Whether the child may never gain privileges again (`no_new_privs`).
    pub no_new_privileges: bool,
    /// Whether it leads a process group of its own, so that a terminal's Ctrl-C does not reach it.
    pub own_group: bool,
}

/// A user with all that belongs to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// User id.
    pub user: u32,
    /// Primary group id.
    pub group: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

/// Arranges what `setup` says to happen in the child, between `fork` and `exec`.
///
/// # Panics
/// When there are more descriptors than a child can be given.
pub fn prepare(command: &mut Command, setup: ChildSetup) {
    assert!(setup.descriptors.len() <= MAX_DESCRIPTORS, "few descriptors; more go through a channel");
    let ChildSetup { descriptors, identity, open_files, no_new_privileges, own_group } = setup;
    if own_group {
        command.process_group(0);
    }
    let hook = move || {
        place(&descriptors)?;
        if let Some(limit) = open_files {
            limit_open_files(limit);
        }
        if no_new_privileges {
            rustix::thread::set_no_new_privs(true)?;
        }
        identity.as_ref().map_or(Ok(()), become_user)
    };
    // SAFETY: the hook only makes system calls on values made before the fork; it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(hook);
    }
}

/// Number of the system call with which a process has [`barrier_everywhere`] reach it.
pub const MEMBARRIER: i64 = libc::SYS_membarrier;

/// A memory barrier on every processor that runs a process which has asked for it: what such a process stored before it
/// is seen after it, and what it loads after it sees what was stored before. False where the kernel has none.
pub fn barrier_everywhere() -> bool {
    // SAFETY: touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0 }
}

/// Has a child that was prepared end when we do, whatever way that is.
pub fn end_with_us(command: &mut Command) {
    // SAFETY: the hook makes one system call and touches no memory.
    unsafe {
        // After the change of user, which would undo it.
        command.pre_exec(|| Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?));
    }
}

/// Descriptors that a child can be started with.
const MAX_DESCRIPTORS: usize = 16;

/// Puts the descriptors at 3, 4, …: first out of the way of those numbers, then into place, without CLOEXEC.
fn place(descriptors: &[OwnedFd]) -> io::Result<()> {
    const FIRST: RawFd = 3;
    let above = FIRST + descriptors.len() as RawFd;
    let mut moved = [-1; MAX_DESCRIPTORS];
    for (slot, descriptor) in moved.iter_mut().zip(descriptors) {
        *slot = rustix::io::fcntl_dupfd_cloexec(descriptor, above)?.into_raw_fd();
    }
    // What whoever started us left open must not reach a program either. An old kernel refuses: then only what is
    // ours, which is CLOEXEC already, is kept from it.
    // SAFETY: marks descriptors of this child and touches no memory.
    unsafe { libc::syscall(libc::SYS_close_range, FIRST, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    for (number, &source) in (FIRST..above).zip(&moved) {
        // SAFETY: both are numbers of this child; `source` was just made, `number` becomes the program's.
        if unsafe { libc::dup2(source, number) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn limit_open_files(limit: u64) {
    let mut current = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    current.current = Some(current.maximum.map_or(limit, |maximum| maximum.min(limit)));
    // Best effort: without it the child has fewer descriptors, which it will say when it runs out.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, current);
}

fn become_user(identity: &Identity) -> io::Result<()> {
    // SAFETY: plain system calls on memory made before the fork; the order is groups, group, user, since each needs
    // the rights that the next gives away.
    let failed = unsafe {
        libc::setgroups(identity.groups.len(), identity.groups.as_ptr()) != 0
            || libc::setresgid(identity.group, identity.group, identity.group) != 0
            || libc::setresuid(identity.user, identity.user, identity.user) != 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The soft limit of open files of this process.
pub fn open_files() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// Puts another program in the place of this one, with these descriptors left open; signals wait until it takes them
/// ([`take_signals`]), since one that comes before its handlers are there would end it. Returns only on failure.
pub fn replace(mut command: Command, kept: &[RawFd]) -> io::Error {
    let mark = |flags| {
        kept.iter().try_for_each(|&number| {
            // SAFETY: only borrowed for this one call, which fails on a number that is not open.
            rustix::io::fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, flags)
        })
    };
    if let Err(error) = mark(rustix::io::FdFlags::empty()) {
        return error.into();
    }
    // SAFETY: the hook runs in this very process, right before exec, and only makes a system call.
    unsafe {
        command.pre_exec(|| hold_signals(libc::SIG_BLOCK));
    }
    let error = command.exec();
    // Nothing was replaced: as before.
    let _ = take_signals();
    let _ = mark(rustix::io::FdFlags::CLOEXEC);
    error
}

/// Lets the signals come that waited since [`replace`].
pub fn take_signals() -> io::Result<()> {
    hold_signals(libc::SIG_UNBLOCK)
}

fn hold_signals(how: i32) -> io::Result<()> {
    const HELD: [i32; 9] = [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGTERM,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGCHLD,
    ];
    // SAFETY: `set` is a valid place, and is filled before it is read.
    let failed = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in HELD {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut())
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(failed)) }
}

/// Access bits that new files of ours do not get.
pub fn umask() -> u32 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o077)
}

/// Bytes of memory that a process holds; `None` where it is gone or `/proc` does not tell.
pub fn resident_memory(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Ends another process of ours.
pub fn signal(pid: i32, signal: rustix::process::Signal) -> io::Result<()> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::kill_process(pid, signal)?)
}

/// Sends a signal that has a number only, such as a real-time one, to another process of ours.
pub fn signal_number(pid: i32, number: i32) -> io::Result<()> {
    // SAFETY: a plain system call; a number that does not exist is refused.
    match unsafe { libc::kill(pid, number) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The number of a descriptor, for messages.
pub fn number(descriptor: &impl AsRawFd) -> RawFd {
    descriptor.as_raw_fd()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_cannot_be_resized_nor_written_by_a_later_mapping() {
        let memory = SharedMemory::new("test", 4096, true).unwrap();
        memory.write(10, b"abc");
        let at = |index| memory.byte(index).map(|byte| byte.load(std::sync::atomic::Ordering::SeqCst));
        assert_eq!((at(10), at(12), at(13), at(4096)), (Some(b'a'), Some(b'c'), Some(0), None));
        assert!(rustix::fs::ftruncate(&memory, 0).is_err(), "sealed against shrinking");
        assert!(rustix::fs::ftruncate(&memory, 8192).is_err(), "sealed against growing");
        // SAFETY: never dereferenced; the mapping must not come about.
        let writable = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                4096,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &memory,
                0,
            )
        };
        assert!(writable.is_err(), "others can only read");
    }

    #[test]
    fn a_barrier_reaches_everybody_where_the_kernel_says_so() {
        // SAFETY: touches no memory of ours.
        let known = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_QUERY, 0, 0) };
        let has_one = known > 0 && known & i64::from(libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED) != 0;
        assert_eq!(barrier_everywhere(), has_one);
    }

    #[test]
    fn a_child_finds_its_descriptors_in_order_and_nothing_else() {
        use std::io::Read as _;
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "printf hello >&4; ls /proc/self/fd | tr '\\n' ' ' >&4"]);
        let null = std::fs::File::open("/dev/null").unwrap();
        prepare(&mut command, ChildSetup { descriptors: vec![null.into(), writer.into()], ..ChildSetup::default() });
        let mut child = command.spawn().unwrap();
        drop(command);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(child.wait().unwrap().success());
        // 0-2, ours at 3 and 4, and the folder that ls itself reads.
        assert_eq!(text, "hello0 1 2 3 4 5 ");
    }
}
