//! A process that has all it needs shuts itself in: no file, no network, no other process, bounded memory and time.

use std::io;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a process that only computes and talks over what it has open may still ask of the kernel.
const ALLOWED: [i64; 42] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_ppoll,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_setitimer,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    libc::SYS_prctl,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_shutdown,
];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: Option<u32> = None;

/// Shuts this process in, with at most this much address space. What it opens from now on fails with `EPERM`.
pub fn confine(memory: u64) -> io::Result<()> {
    let limits = [(Resource::As, memory), (Resource::Core, 0), (Resource::Nproc, 0)];
    for (resource, most) in limits {
        let own = getrlimit(resource).maximum.map_or(most, |own| own.min(most));
        setrlimit(resource, Rlimit { current: Some(own), maximum: Some(own) })?;
    }
    rustix::thread::set_no_new_privs(true)?;
    ARCHITECTURE.map_or(Ok(()), filter)
}

/// Lets the kernel refuse every call but those that are allowed.
fn filter(architecture: u32) -> io::Result<()> {
    const ERROR: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let unless =
        |k: u32, jf: u8| libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt: 0, jf, k };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let give = libc::BPF_RET | libc::BPF_K;
    let over_one = libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JA) as u16, jt: 0, jf: 0, k: 1 };
    // `seccomp_data`: the call's number at 0, the architecture at 4. Another architecture's numbers mean other calls.
    let mut program = vec![
        statement(load, 4),
        unless(architecture, 1),
        over_one,
        statement(give, libc::SECCOMP_RET_KILL_PROCESS),
        statement(load, 0),
    ];
    for number in ALLOWED {
        program.push(unless(number as u32, 1));
        program.push(statement(give, libc::SECCOMP_RET_ALLOW));
    }
    program.push(statement(give, ERROR));
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program is whole and copied by the kernel; a wrong one is refused.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::c_ulong::from(libc::SECCOMP_MODE_FILTER), &raw const program, 0, 0)
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ends this process by `SIGALRM` when this much time has passed, whatever it is doing; zero takes that back.
pub fn end_after(time: Duration) {
    // SAFETY: plain numbers, for which zeros are valid, on the stack.
    unsafe {
        let mut timer: libc::itimerval = std::mem::zeroed();
        timer.it_value.tv_sec = time.as_secs() as libc::time_t;
        timer.it_value.tv_usec = libc::suseconds_t::from(time.subsec_micros());
        libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut());
    }
}
