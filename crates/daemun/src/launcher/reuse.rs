//! A warm interpreter: imports modules once, then forks for each request and runs the script as `__main__`.
//!
//! It runs as its route's user from its first instruction, and serves that route alone.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use bytes::Buf;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::spawn_local;

use super::client::packet;
use super::message::FromLauncher;
use super::process::{Child, Front, Ready, Shop};
use crate::sys::{self, LimitKind, Program, StartError, Step};

/// What the interpreter runs: one file of plain Python.
const PROGRAM: &str = include_str!("reuse.py");

/// What it says: a program was forked.
const FORKED: u8 = 1;

/// What it says: a program has ended.
const ENDED: u8 = 2;

/// Whom a program runs for, and its process id once it is known.
type Run = (Rc<Front>, Option<i32>);

/// A running interpreter.
pub(super) struct Interpreter {
    socket: AsyncFd<OwnedFd>,
    alive: Cell<bool>,
    /// Programs that it was asked for and that have not ended, with their process ids once they are known.
    runs: RefCell<HashMap<u64, Run>>,
}

impl Interpreter {
    /// Starts one for this profile.
    pub(super) fn start(shop: &Rc<Shop>, ready: &Rc<Ready>) -> Result<Rc<Self>, StartError> {
        let process = |error: io::Error| StartError { step: Step::Process, error };
        let reuse = ready.profile.reuse.as_ref().ok_or_else(|| process(io::ErrorKind::InvalidInput.into()))?;
        let flags = SocketFlags::CLOEXEC;
        let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (ours, theirs) = pair.map_err(|error| process(error.into()))?;
        let socket = sys::watched(ours, Interest::READABLE).map_err(process)?;
        let text = |text: &[u8]| CString::new(text).map_err(|error| process(error.into()));
        let python = text(reuse.python.as_os_str().as_bytes())?;
        let cpu = ready.limits.iter().find(|(kind, _)| *kind == LimitKind::Cpu).map_or(0, |&(_, most)| most);
        let mut arguments =
            vec![python.clone(), text(b"-c")?, text(PROGRAM.as_bytes())?, text(cpu.to_string().as_bytes())?];
        for module in &reuse.warm {
            arguments.push(text(module.as_bytes())?);
        }
        let mut environment = Vec::new();
        for (name, value) in &reuse.env {
            environment.push(text(format!("{name}={value}").as_bytes())?);
        }
        let arguments: Vec<&CStr> = arguments.iter().map(CString::as_c_str).collect();
        let environment: Vec<&CStr> = environment.iter().map(CString::as_c_str).collect();
        // Processor time counts for each request and not for the one that forks.
        let limits: Vec<_> = ready.limits.iter().filter(|(kind, _)| *kind != LimitKind::Cpu).copied().collect();
        let log = io::stderr();
        let standard = [theirs.as_fd(), log.as_fd(), log.as_fd()];
        let program = Program {
            path: &python,
            arguments: &arguments,
            environment: &environment,
            directory: c"/",
            standard,
            identity: ready.identity.as_ref(),
            limits: &limits,
            sandbox: ready.sandbox.as_ref().map(AsFd::as_fd),
        };
        let pid = shop.starter.borrow_mut().start(&program)?;
        shop.children.borrow_mut().insert(pid, Child::Interpreter);
        let interpreter = Rc::new(Self { socket, alive: Cell::new(true), runs: RefCell::default() });
        spawn_local(listen(Rc::clone(&interpreter)));
        Ok(interpreter)
    }

    /// Whether it can be asked.
    pub(super) fn is_alive(&self) -> bool {
        self.alive.get()
    }

    /// Asks it for nothing more: it ends when its programs have.
    pub(super) fn retire(&self) {
        self.alive.set(false);
        let _ = rustix::net::shutdown(self.socket.get_ref(), rustix::net::Shutdown::Write);
    }

    /// Asks for a program: the front's own packet, as it came.
    pub(super) async fn hand(
        self: &Rc<Self>,
        front: &Rc<Front>,
        id: u64,
        packet: &[u8],
        standard: &[OwnedFd; 3],
    ) -> Result<(), StartError> {
        self.runs.borrow_mut().insert(id, (Rc::clone(front), None));
        let standard: Vec<BorrowedFd<'_>> = standard.iter().map(AsFd::as_fd).collect();
        packet::send(&self.socket, packet, &standard).await.map_err(|error| {
            self.runs.borrow_mut().remove(&id);
            StartError { step: Step::Process, error }
        })
    }
}

/// Takes its word until it is gone.
async fn listen(interpreter: Rc<Interpreter>) {
    let mut buffer = [0; 64];
    while let Ok((length, _)) = packet::receive(&interpreter.socket, &mut buffer).await {
        if length == 0 {
            break;
        }
        interpreter.told(&buffer[..length]);
    }
    interpreter.alive.set(false);
    let runs = std::mem::take(&mut *interpreter.runs.borrow_mut());
    for (id, (front, pid)) in runs {
        lost(&front, id, pid);
    }
}

/// A program whose interpreter is gone: nobody would hear of its end.
fn lost(front: &Rc<Front>, id: u64, pid: Option<i32>) {
    match pid {
        Some(group) => {
            sys::signal_group(group, Some(Signal::KILL));
            front.ended(id, None, Some(libc::SIGKILL));
        }
        None => front.say(FromLauncher::Failed { id, step: Step::Execute, number: libc::ECONNRESET }),
    }
}

impl Interpreter {
    fn told(&self, mut word: &[u8]) {
        let (Ok(kind), Ok(id), Ok(number)) = (word.try_get_u8(), word.try_get_u64_le(), word.try_get_i32_le()) else {
            return;
        };
        match kind {
            FORKED => {
                if let Some((front, pid)) = self.runs.borrow_mut().get_mut(&id) {
                    *pid = Some(number);
                    front.add(id, number);
                }
            }
            ENDED => {
                let run = self.runs.borrow_mut().remove(&id);
                if let Some((front, _)) = run {
                    let (code, signal) = if number >= 0 { (Some(number), None) } else { (None, Some(-number)) };
                    front.ended(id, code, signal);
                }
            }
            _ => {}
        }
    }
}
