//! The launcher's process: one loop over its sockets and the ends of what it started.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::rc::{Rc, Weak};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};

use super::ToLauncher;
use super::client::packet;
use super::message::{
    FromFront, FromLauncher, MAX_PACKET, MAX_WORDS, Received, decode_from_front, encode_from_launcher,
};
use super::profile::Profile;
use super::reuse::Interpreter;
use super::sandbox;
use crate::process::{self, Channel};
use crate::sys::{self, Ended, Identity, Limit, Program, StartError, Starter, Step};

/// From TERM to KILL.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often it is looked whether a process group has ended.
const LOOK: Duration = Duration::from_millis(25);

/// How long what a program left behind in its group may go on when the front does not say that the request is over.
const LEFT_BEHIND: Duration = Duration::from_secs(10);

/// Runs the launcher on the channel that was inherited as `descriptor`.
pub fn run(descriptor: i32) -> ExitCode {
    let result = start(descriptor);
    if let Err(error) = &result {
        process::say(format_args!("launcher: {error}"));
    }
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn start(descriptor: i32) -> io::Result<()> {
    // Before anything else: no process of the same user may look into this one.
    sys::forbid_inspection()?;
    sys::default_signals();
    // Programs stay in it: none of them can reach a terminal that the server was started from.
    rustix::process::setsid()?;
    let channel = sys::inherited(descriptor)?;
    sys::keep_descriptors();
    let ends = sys::ends_of_children()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let mut channel: Channel<(), ToLauncher> = Channel::from_descriptor(channel)?;
        let starter = RefCell::new(Starter::new()?);
        let shop = Rc::new(Shop { starter, profiles: RefCell::default(), children: RefCell::default() });
        spawn_local(reap(Rc::clone(&shop), sys::watched(ends, Interest::READABLE)?));
        let mut fronts: Vec<Rc<Front>> = Vec::new();
        // The end of the channel is the end of the supervisor, and of us.
        while let Ok(Some((message, descriptors))) = channel.receive().await {
            match message {
                ToLauncher::Profiles(profiles) => shop.learn(&profiles),
                ToLauncher::Renew => shop.renew(),
                ToLauncher::Front => {
                    for socket in descriptors {
                        let front = Front::new(socket)?;
                        fronts.retain(|front| Rc::strong_count(front) > 1);
                        fronts.push(Rc::clone(&front));
                        spawn_local(attend(front, Rc::clone(&shop)));
                    }
                }
            }
        }
        for front in fronts {
            front.end_all(Signal::KILL);
        }
        Ok(())
    })
}

/// What all fronts share.
pub(super) struct Shop {
    pub(super) starter: RefCell<Starter>,
    profiles: RefCell<Vec<Rc<Ready>>>,
    /// What was started and is not reaped yet, by process id.
    pub(super) children: RefCell<HashMap<i32, Child>>,
}

/// A process that we have started.
pub(super) enum Child {
    /// A program, for the front that wants it under this number.
    Program(Rc<Front>, u64),
    /// A warm interpreter.
    Interpreter,
}

/// A profile with what can be prepared of it.
pub(super) struct Ready {
    pub(super) profile: Profile,
    pub(super) identity: Option<Identity>,
    pub(super) limits: Vec<Limit>,
    pub(super) sandbox: Option<OwnedFd>,
    /// The sandbox cannot be had here: nothing may run without it.
    broken: bool,
    interpreter: RefCell<Option<Rc<Interpreter>>>,
}

impl Shop {
    /// Profiles are only ever added: a front may still serve what it was told before.
    fn learn(&self, profiles: &[Profile]) {
        let mut known = self.profiles.borrow_mut();
        for profile in profiles.iter().skip(known.len()) {
            let built = profile.sandbox.as_ref().map(sandbox::build).transpose();
            if let Err(error) = &built {
                process::say(format_args!(
                    "launcher: the sandbox of a CGI route cannot be made, and nothing runs there: {error}"
                ));
            }
            known.push(Rc::new(Ready {
                identity: profile.identity(),
                limits: profile.limits(),
                broken: built.is_err(),
                sandbox: built.ok().flatten().flatten(),
                profile: profile.clone(),
                interpreter: RefCell::new(None),
            }));
        }
    }

    /// Lets go of warm interpreters; they end when their last program has.
    fn renew(&self) {
        for ready in &*self.profiles.borrow() {
            if let Some(interpreter) = ready.interpreter.take() {
                interpreter.retire();
            }
        }
    }

    fn profile(&self, number: u32) -> Option<Rc<Ready>> {
        self.profiles.borrow().get(number as usize).cloned()
    }
}

/// The socket of one front and what it has running.
pub(super) struct Front {
    socket: AsyncFd<OwnedFd>,
    runs: RefCell<HashMap<u64, Run>>,
    /// What it is to hear.
    words: RefCell<Vec<u8>>,
    said: Rc<Notify>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.said.notify_one();
    }
}

/// A program that was started.
struct Run {
    /// Its process id and that of its group. Nobody else can have the number while one of the group is there.
    group: i32,
    /// Whether the program itself has ended and only others of its group are left.
    leaderless: bool,
    ending: bool,
}

/// Does what a front says until it is gone; then ends what it had started.
async fn attend(front: Rc<Front>, shop: Rc<Shop>) {
    let mut buffer = vec![0; MAX_PACKET];
    loop {
        let Ok((length, descriptors)) = packet::receive(&front.socket, &mut buffer).await else { break };
        if length == 0 {
            break;
        }
        match decode_from_front(&buffer[..length]) {
            Some(FromFront::Start(start)) => front.start(&shop, &start, &buffer[..length], descriptors).await,
            Some(FromFront::End(id)) => front.end(id),
            Some(FromFront::Release(id)) => {
                if front.runs.borrow().get(&id).is_some_and(|run| run.leaderless) {
                    front.end(id);
                }
            }
            // Nobody but a front has the other end; one that speaks nonsense gets no more.
            None => break,
        }
    }
    // One that is still there is to know that nobody listens.
    let _ = rustix::net::shutdown(front.socket.get_ref(), rustix::net::Shutdown::Both);
    front.end_all(Signal::TERM);
    tokio::time::sleep(PATIENCE).await;
    front.end_all(Signal::KILL);
}

impl Front {
    fn new(socket: OwnedFd) -> io::Result<Rc<Self>> {
        let said = Rc::new(Notify::new());
        let front = Rc::new(Self {
            socket: sys::watched(socket, Interest::READABLE)?,
            runs: RefCell::default(),
            words: RefCell::default(),
            said: Rc::clone(&said),
        });
        spawn_local(tell(Rc::downgrade(&front), said));
        Ok(front)
    }

    async fn start(self: &Rc<Self>, shop: &Rc<Shop>, start: &Received<'_>, packet: &[u8], descriptors: Vec<OwnedFd>) {
        let id = start.id;
        let failed = |step, number| FromLauncher::Failed { id, step, number };
        let Ok([input, output, error]) = <[OwnedFd; 3]>::try_from(descriptors) else {
            return self.say(failed(Step::Descriptors, libc::EMFILE));
        };
        let Some(ready) = shop.profile(start.profile) else {
            return self.say(failed(Step::Process, libc::ENOENT));
        };
        if ready.broken {
            return self.say(failed(Step::Sandbox, libc::ENOSYS));
        }
        if start.reuse {
            return self.start_warm(shop, &ready, (id, packet), [input, output, error]).await;
        }
        let program = Program {
            path: start.program,
            arguments: &start.arguments,
            environment: &start.environment,
            directory: start.directory,
            standard: [input.as_fd(), output.as_fd(), error.as_fd()],
            identity: ready.identity.as_ref(),
            limits: &ready.limits,
            sandbox: ready.sandbox.as_ref().map(AsFd::as_fd),
        };
        let started = shop.starter.borrow_mut().start(&program);
        match started {
            Ok(group) => {
                self.add(id, group);
                shop.children.borrow_mut().insert(group, Child::Program(Rc::clone(self), id));
            }
            Err(StartError { step, error }) => {
                self.say(failed(step, error.raw_os_error().unwrap_or(libc::EIO)));
            }
        }
    }

    /// Hands a start to the profile's warm interpreter, which is started where none is there.
    async fn start_warm(
        self: &Rc<Self>,
        shop: &Rc<Shop>,
        ready: &Rc<Ready>,
        (id, packet): (u64, &[u8]),
        standard: [OwnedFd; 3],
    ) {
        let current = ready.interpreter.borrow().clone().filter(|interpreter| interpreter.is_alive());
        let interpreter = match current {
            Some(interpreter) => Ok(interpreter),
            None => Interpreter::start(shop, ready).inspect(|interpreter| {
                ready.interpreter.replace(Some(Rc::clone(interpreter)));
            }),
        };
        let handed = match interpreter {
            Ok(interpreter) => interpreter.hand(self, id, packet, &standard).await,
            Err(error) => Err(error),
        };
        if let Err(StartError { step, error }) = handed {
            let number = error.raw_os_error().unwrap_or(libc::EIO);
            self.say(FromLauncher::Failed { id, step, number });
        }
    }

    /// A program runs.
    pub(super) fn add(&self, id: u64, group: i32) {
        self.runs.borrow_mut().insert(id, Run { group, leaderless: false, ending: false });
    }

    /// A program has ended.
    pub(super) fn ended(self: &Rc<Self>, id: u64, code: Option<i32>, signal: Option<i32>) {
        let left_others = {
            let mut runs = self.runs.borrow_mut();
            let group = runs.get(&id).map_or(0, |run| run.group);
            let left_others = sys::signal_group(group, None);
            match runs.get_mut(&id) {
                Some(run) if left_others => run.leaderless = true,
                _ => drop(runs.remove(&id)),
            }
            left_others
        };
        if left_others {
            let front = Rc::clone(self);
            spawn_local(async move {
                tokio::time::sleep(LEFT_BEHIND).await;
                front.end(id);
            });
        }
        self.say(FromLauncher::Ended { id, code, signal, left_others });
    }

    /// Ends a process group: TERM, and KILL for whoever is left.
    fn end(self: &Rc<Self>, id: u64) {
        let mut runs = self.runs.borrow_mut();
        let Some(run) = runs.get_mut(&id).filter(|run| !run.ending) else { return };
        run.ending = true;
        let group = run.group;
        sys::signal_group(group, Some(Signal::TERM));
        let front = Rc::clone(self);
        spawn_local(async move {
            let looks = PATIENCE.as_millis() / LOOK.as_millis();
            for _ in 0..looks {
                tokio::time::sleep(LOOK).await;
                if !sys::signal_group(group, None) {
                    break;
                }
            }
            // One whose program is still to be reaped keeps its number: nobody else is hit.
            let mut runs = front.runs.borrow_mut();
            if runs.get(&id).is_some_and(|run| run.group == group) {
                sys::signal_group(group, Some(Signal::KILL));
            }
            if runs.get(&id).is_some_and(|run| run.leaderless) {
                runs.remove(&id);
            }
        });
    }

    fn end_all(&self, signal: Signal) {
        for run in self.runs.borrow().values() {
            sys::signal_group(run.group, Some(signal));
        }
    }

    /// Says something with the next packet.
    pub(super) fn say(&self, word: FromLauncher) {
        encode_from_launcher(&mut self.words.borrow_mut(), word);
        self.said.notify_one();
    }
}

/// Sends a front what it is to hear, all that has happened since it was last told in one packet: each wakes it up.
async fn tell(front: Weak<Front>, said: Rc<Notify>) {
    loop {
        said.notified().await;
        // Whatever else is ready by now comes along.
        tokio::task::yield_now().await;
        let Some(front) = front.upgrade() else { return };
        let words = front.words.take();
        for packet in words.chunks(MAX_WORDS) {
            // A front that is gone hears nothing, and its socket's end says so elsewhere.
            let _ = packet::send(&front.socket, packet, &[]).await;
        }
    }
}

/// Reaps whatever has ended: one signal may stand for any number of ends.
async fn reap(shop: Rc<Shop>, ends: AsyncFd<OwnedFd>) {
    let mut signals = [0; 128];
    while let Ok(mut ready) = ends.readable().await {
        // What it says of one of them is of no use: all are asked for.
        while rustix::io::read(ends.get_ref(), &mut signals).is_ok() {}
        ready.clear_ready();
        while let Some(ended) = sys::reap() {
            let child = shop.children.borrow_mut().remove(&ended.pid);
            match child {
                Some(Child::Program(front, id)) => front.ended(id, ended.code, ended.signal),
                Some(Child::Interpreter) if ended.code != Some(0) => {
                    let Ended { pid, .. } = ended;
                    process::say(format_args!("launcher: a warm interpreter (pid {pid}) ended: {ended:?}"));
                }
                Some(Child::Interpreter) | None => {}
            }
        }
    }
}
