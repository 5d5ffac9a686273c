//! Starting a program as cheaply as the kernel allows: a child that shares our memory until it has become the program.
//!
//! `clone` with `CLONE_VM` and `CLONE_VFORK` copies nothing and suspends us until the child has executed the program or
//! ended; the child runs on a stack of its own and makes system calls only.

use std::cell::Cell;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags};

use super::Identity;

/// Bytes of the child's stack: it calls nothing that needs more than a few hundred.
const STACK: usize = 64 * 1024;

/// A limit of a process: which, and how much.
pub type Limit = (LimitKind, u64);

/// Which limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LimitKind {
    /// Seconds of processor time.
    Cpu,
    /// Bytes of address space.
    Memory,
    /// Open files.
    Files,
    /// Processes of the user.
    Processes,
    /// Bytes of a file that is written.
    FileSize,
}

/// A program to start.
#[derive(Debug)]
pub struct Program<'a> {
    /// What is executed.
    pub path: &'a CStr,
    /// Its arguments, the name first.
    pub arguments: &'a [&'a CStr],
    /// Its environment, each `NAME=value`.
    pub environment: &'a [&'a CStr],
    /// Its working folder.
    pub directory: &'a CStr,
    /// Standard input, output and error. It gets no other descriptor.
    pub standard: [BorrowedFd<'a>; 3],
    /// Who it becomes; `None`: as we are.
    pub identity: Option<&'a Identity>,
    /// Its limits.
    pub limits: &'a [Limit],
    /// A Landlock ruleset that it is held to.
    pub sandbox: Option<BorrowedFd<'a>>,
}

/// Which step of a start failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Making the process.
    Process,
    /// Its descriptors.
    Descriptors,
    /// Its limits.
    Limits,
    /// Its user and groups.
    User,
    /// Its sandbox.
    Sandbox,
    /// Its working folder.
    Directory,
    /// Executing the program.
    Execute,
}

impl Step {
    /// All of them, as they are numbered between processes.
    pub const ALL: [Self; 7] =
        [Self::Process, Self::Descriptors, Self::Limits, Self::User, Self::Sandbox, Self::Directory, Self::Execute];
}

/// A start that failed.
#[derive(Debug)]
pub struct StartError {
    /// Where.
    pub step: Step,
    /// Why.
    pub error: io::Error,
}

/// Starts programs from one thread.
#[derive(Debug)]
pub struct Starter {
    stack: NonNull<u8>,
    inherited: Inherited,
    /// Arguments and environment as the kernel takes them; kept for its room alone.
    pointers: Vec<*const libc::c_char>,
}

/// What children take over from us, learned once, so that each child changes only what has to be changed.
#[derive(Clone, Copy, Debug)]
struct Inherited {
    /// PIPE is ignored, as a language's runtime has it.
    ignores_pipe: bool,
    /// CHLD is blocked, so that [`ends_of_children`] can be read.
    blocks_child: bool,
    /// We may gain no privileges, and so they may not.
    no_new_privileges: bool,
}

impl Starter {
    /// A starter with a stack for its children. Signals and privileges of this process stay as they are from now on.
    pub fn new() -> io::Result<Self> {
        // SAFETY: a new private mapping at an address that the kernel chooses.
        let stack = unsafe {
            let flags = MapFlags::PRIVATE | MapFlags::STACK;
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), STACK, ProtFlags::READ | ProtFlags::WRITE, flags)
        }?;
        let stack = NonNull::new(stack.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { stack, inherited: Inherited::learn(), pointers: Vec::new() })
    }

    /// Starts `program` as the leader of a process group of its own; its process id. It is ours to reap.
    pub fn start(&mut self, program: &Program<'_>) -> Result<i32, StartError> {
        self.pointers.clear();
        let end = || std::iter::once(std::ptr::null());
        self.pointers.extend(program.arguments.iter().map(|text| text.as_ptr()).chain(end()));
        let environment = self.pointers.len();
        self.pointers.extend(program.environment.iter().map(|text| text.as_ptr()).chain(end()));
        let (arguments, environment) = (&raw const self.pointers[0], &raw const self.pointers[environment]);
        let child = Child { program, arguments, environment, inherited: self.inherited, failed: Cell::new(None) };
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: the stack is ours alone, grows down from its end, and is used by one child at a time, since we are
        // suspended until it has left it. `child` outlives that. The child touches no memory but its stack and `failed`.
        let pid = unsafe {
            let top = self.stack.as_ptr().add(STACK).cast();
            libc::clone(run_child, top, flags, (&raw const child).cast_mut().cast())
        };
        if pid < 0 {
            return Err(StartError { step: Step::Process, error: io::Error::last_os_error() });
        }
        match child.failed.get() {
            None => Ok(pid),
            Some((step, number)) => {
                // SAFETY: asks for no result. It has exited already: nothing waits here.
                unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
                Err(StartError { step, error: io::Error::from_raw_os_error(number) })
            }
        }
    }
}

impl Inherited {
    fn learn() -> Self {
        // SAFETY: both ask only, and write to places of their own that are plain data; the third takes numbers.
        unsafe {
            let mut pipe: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGPIPE, std::ptr::null(), &raw mut pipe);
            let mut blocked: libc::sigset_t = std::mem::zeroed();
            libc::sigprocmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut blocked);
            Self {
                ignores_pipe: pipe.sa_sigaction == libc::SIG_IGN,
                blocks_child: libc::sigismember(&raw const blocked, libc::SIGCHLD) == 1,
                no_new_privileges: libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1,
            }
        }
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length; no child is on it, since `start` has returned.
        let _ = unsafe { rustix::mm::munmap(self.stack.as_ptr().cast(), STACK) };
    }
}

/// What the child reads, and where it says why it failed.
struct Child<'a> {
    program: &'a Program<'a>,
    arguments: *const *const libc::c_char,
    environment: *const *const libc::c_char,
    inherited: Inherited,
    failed: Cell<Option<(Step, i32)>>,
}

extern "C" fn run_child(child: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `start` passes a `Child` that lives until this process has become the program or ended.
    let child = unsafe { &*child.cast::<Child<'_>>() };
    let step = become_program(child);
    let number = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    child.failed.set(Some((step, number)));
    // SAFETY: ends this process without running anything of its parent's.
    unsafe { libc::_exit(127) }
}

/// Returns only when a step failed: which one; `errno` says why. System calls on memory that is there already; those
/// for users go to the kernel directly, because the C library's would signal the threads of our parent.
fn become_program(child: &Child<'_>) -> Step {
    let &Child { program, arguments, environment, inherited, .. } = child;
    // SAFETY: as above: no call allocates, takes a lock or touches memory that is not handed to it.
    unsafe {
        // A group, so that all of it can be ended. Not a session: the launcher's has no terminal either, and the kernel
        // makes a scheduling group for each session (`sched_autogroup`), which costs as much as all else here.
        libc::setpgid(0, 0);
        if inherited.ignores_pipe {
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        }
        if inherited.blocks_child {
            let mut child = std::mem::zeroed();
            libc::sigemptyset(&raw mut child);
            libc::sigaddset(&raw mut child, libc::SIGCHLD);
            libc::sigprocmask(libc::SIG_UNBLOCK, &raw const child, std::ptr::null_mut());
        }
        for (number, descriptor) in (0..).zip(program.standard) {
            if libc::dup2(descriptor.as_raw_fd(), number) < 0 {
                return Step::Descriptors;
            }
        }
        for &(kind, most) in program.limits {
            let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
            if libc::setrlimit(kind.resource(), &raw const limit) != 0 {
                return Step::Limits;
            }
        }
        if let Some(identity) = program.identity {
            let (user, group) = (identity.user, identity.group);
            if libc::syscall(libc::SYS_setgroups, identity.groups.len(), identity.groups.as_ptr()) != 0
                || libc::syscall(libc::SYS_setresgid, group, group, group) != 0
                || libc::syscall(libc::SYS_setresuid, user, user, user) != 0
            {
                return Step::User;
            }
        }
        if !inherited.no_new_privileges {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        }
        // After the change of user, which clears it: nothing runs on that nobody would end.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::chdir(program.directory.as_ptr()) != 0 {
            return Step::Directory;
        }
        if let Some(sandbox) = program.sandbox
            && libc::syscall(libc::SYS_landlock_restrict_self, sandbox.as_raw_fd(), 0) != 0
        {
            return Step::Sandbox;
        }
        libc::execve(program.path.as_ptr(), arguments, environment);
    }
    Step::Execute
}

impl LimitKind {
    fn resource(self) -> libc::__rlimit_resource_t {
        match self {
            Self::Cpu => libc::RLIMIT_CPU,
            Self::Memory => libc::RLIMIT_AS,
            Self::Files => libc::RLIMIT_NOFILE,
            Self::Processes => libc::RLIMIT_NPROC,
            Self::FileSize => libc::RLIMIT_FSIZE,
        }
    }
}

/// Blocks CHLD and gives a descriptor that can be read when children have ended, one signal for any number of them.
pub fn ends_of_children() -> io::Result<OwnedFd> {
    // SAFETY: sets made on the stack; the descriptor is a new one that nobody else owns.
    unsafe {
        let mut child = std::mem::zeroed();
        libc::sigemptyset(&raw mut child);
        libc::sigaddset(&raw mut child, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const child, std::ptr::null_mut());
        let descriptor = libc::signalfd(-1, &raw const child, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if descriptor < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(descriptor)) }
    }
}

/// From now on no program that this process becomes or starts gets more than descriptors 0 to 2, whatever whoever
/// started us has left open. Kernels before 5.11 refuse, and what we open ourselves closes anyway.
pub fn keep_descriptors() {
    // SAFETY: closes nothing here; takes numbers alone.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Sends a signal to a process group; false where nobody is in it any more.
pub fn signal_group(group: i32, signal: Option<rustix::process::Signal>) -> bool {
    let number = signal.map_or(0, rustix::process::Signal::as_raw);
    // SAFETY: touches no memory. Never 0 or 1, which would mean ourselves or everybody.
    group > 1 && unsafe { libc::kill(-group, number) } == 0
}

/// Undoes what whoever started us has ignored or blocked, so that programs begin as from a shell: `nohup` ignores HUP,
/// and a language's runtime PIPE. Of PIPE we do not die, since each write says so; what handles it ends with `execve`.
pub fn default_signals() {
    // The kernel's `struct sigaction`, all zero on every architecture: SIG_DFL, no flags, an empty mask. Asked directly,
    // because the C library hides two signals of its own (32 and 33), and those too are inherited ignored.
    let default = [0_u64; 8];
    for number in 1..=64 {
        if number != libc::SIGPIPE {
            // SAFETY: sets a disposition of this process that has no handler yet; the structure is longer than any
            // kernel reads. KILL and STOP refuse.
            unsafe { libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), std::ptr::null_mut::<u8>(), 8) };
        }
    }
    // SAFETY: a handler that does nothing; an empty set made on the stack.
    unsafe {
        libc::signal(libc::SIGPIPE, nothing as extern "C" fn(libc::c_int) as libc::sighandler_t);
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

extern "C" fn nothing(_: libc::c_int) {}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;

    /// The process id, what it wrote, and its exit code or the signal that killed it, less than 0.
    fn start(script: &str, change: impl FnOnce(&mut Program<'_>)) -> Result<(i32, String, i32), StartError> {
        keep_descriptors();
        let (mut reader, writer) = io::pipe().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let script = CString::new(script).unwrap();
        let mut program = Program {
            path: c"/bin/sh",
            arguments: &[c"sh", c"-c", &script],
            environment: &[c"A=b"],
            directory: c"/",
            standard: [null.as_fd(), writer.as_fd(), null.as_fd()],
            identity: None,
            limits: &[(LimitKind::Files, 50)],
            sandbox: None,
        };
        change(&mut program);
        let pid = Starter::new().unwrap().start(&program)?;
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let mut status = 0;
        // SAFETY: `status` is a valid place for the result.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) };
        Ok((pid, text, code))
    }

    #[test]
    fn a_program_gets_three_descriptors_its_limits_and_a_group_of_its_own() {
        let script =
            "ls /proc/self/fd | tr '\\n' ' '; ulimit -n; pwd; echo $A; ps -o sid=,pgid= $$ 2>/dev/null; exit 7";
        let (_, text, code) = start(script, |_| {}).unwrap();
        // ls reads its folder through 3.
        assert!(text.starts_with("0 1 2 3 50\n/\nb\n"), "{text}");
        assert_eq!(code, 7);
        let (pid, text, _) =
            start("cut -d' ' -f5 /proc/$$/stat; grep -E 'SigIgn|NoNewPrivs' /proc/$$/status", |_| {}).unwrap();
        assert_eq!(text.lines().next().unwrap(), pid.to_string(), "leader of a group");
        assert!(text.contains("NoNewPrivs:\t1"), "{text}");
        // A language's runtime ignores PIPE, and whoever started us may ignore others, which are the launcher's affair.
        let ignored = |text: &str| {
            let digits = text.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
            u64::from_str_radix(digits, 16).unwrap()
        };
        let ours = ignored(&std::fs::read_to_string("/proc/self/status").unwrap());
        let pipe = 1 << (libc::SIGPIPE - 1);
        assert_eq!((ours & pipe, ignored(&text)), (pipe, ours & !pipe), "{text}");
    }

    #[test]
    fn a_start_that_fails_says_where_and_why_and_leaves_no_zombie() {
        let missing = start("", |program| program.path = c"/nowhere/to/be/found").unwrap_err();
        assert_eq!((missing.step, missing.error.raw_os_error()), (Step::Execute, Some(libc::ENOENT)));
        let folder = start("", |program| program.directory = c"/nowhere").unwrap_err();
        assert_eq!((folder.step, folder.error.raw_os_error()), (Step::Directory, Some(libc::ENOENT)));
        let bit = start("", |program| program.path = c"/etc/passwd").unwrap_err();
        assert_eq!((bit.step, bit.error.raw_os_error()), (Step::Execute, Some(libc::EACCES)));
    }

    #[test]
    fn a_death_by_signal_is_told_and_a_group_without_members_too() {
        let (pid, _, code) = start("kill -9 $$", |_| {}).unwrap();
        assert_eq!(code, -9);
        assert!(!signal_group(pid, None), "nobody is left");
    }
}
