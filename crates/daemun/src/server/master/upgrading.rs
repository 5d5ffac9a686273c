//! USR2 and `daemun upgrade`: the program on disk takes over, in this very process.
//!
//! 1. The program on disk is asked whether it understands what this one was started with.
//! 2. It is put in our place (`execve`): same process id, same children. It is told of the listening sockets and of the
//!    front that serves; descriptors that matter stay open.
//! 3. It starts a front, zygotes and workers of its own, as at any start, on the same sockets. Both fronts accept.
//! 4. When its own serve, the front before asks its clients to close, then finishes what it has and ends with its workers.
//!
//! If the new program cannot start what it is to serve, the front before goes on, and another upgrade or reload may mend it.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::events::Event;
use super::{LOG_DEADLINE, Master, Phase, lines};
use crate::control::Reply;
use crate::control::message::ReloadStatus;
use crate::listener::{Address, Handed, Role};
use crate::process::Channel;
use crate::server::plan::{FromFront, ToFront};
use crate::sys;

/// Names the descriptor that the state is in; `check` asks for no more than a look at the configuration.
pub const VARIABLE: &str = "DAEMUN_UPGRADE";

/// The value of [`VARIABLE`] that asks whether a program would start.
pub const CHECK: &str = "check";

/// How long the program on disk may take to say so.
const CHECK_DEADLINE: Duration = Duration::from_secs(15);

/// How long clients of the front before are asked to close until it closes what is idle: one that is about to send its
/// next request gets its answer, and the word that it is the last.
const ASKING: Duration = Duration::from_secs(1);

/// What one program leaves to the next. Unknown members are left out, missing ones have defaults: the next may be older.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Heritage {
    listeners: Vec<HandedOn>,
    front: Option<(i32, i32)>,
    /// Processes of the generation before, by id.
    workers: Vec<i32>,
    /// Descriptors that only have to stay open: as long as they are, those processes know that somebody is there.
    lifelines: Vec<i32>,
    /// Folders that go with the front before.
    folders: Vec<PathBuf>,
    uptime: f64,
    token: String,
    restarts: BTreeMap<String, BTreeMap<String, u64>>,
    version: String,
}

/// A listener as descriptors.
#[derive(Deserialize, Serialize)]
struct HandedOn {
    asked: Address,
    address: Address,
    #[serde(default)]
    role: Option<Role>,
    is_ours: bool,
    sockets: Vec<i32>,
}

/// What served before an upgrade and is still there.
pub(super) struct Old {
    front: i32,
    channel: Option<Channel<ToFront, FromFront>>,
    workers: Vec<i32>,
    lifelines: Vec<OwnedFd>,
    folders: Vec<PathBuf>,
    version: String,
    is_draining: bool,
}

impl Heritage {
    /// What the program before this one has left, if it was one.
    pub(super) fn take() -> Option<Self> {
        let number = std::env::var(VARIABLE).ok()?.parse().ok()?;
        let mut file = std::fs::File::from(sys::inherited(number).ok()?);
        file.rewind().ok()?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

impl Master {
    /// Puts the program on disk in our place. Returns where that is not possible.
    pub(super) fn upgrade(&mut self, reply: Option<&Reply>) {
        let refused = |text: &str| format!("upgrade refused, the program before serves on: {text}");
        let result = match () {
            () if self.phase != Phase::Running => Err("the server is stopping".to_owned()),
            () if self.change.is_some() || self.old.as_ref().is_some_and(|_| self.serving) => {
                Err("a change is under way; try again when it is over".to_owned())
            }
            () => self.check_program(),
        };
        if let Err(error) = result {
            let text = refused(&error);
            self.errors.error_lines(&text);
            if let Some(reply) = reply {
                reply.refuse(text);
            }
            return;
        }
        self.errors.info(format_args!("upgrading: {} takes over", self.program.display()));
        self.errors.close(LOG_DEADLINE);
        self.notify.reloading();
        self.desk.leave();
        let error = self.hand_over();
        // Still here: as before.
        self.tell_ready();
        if let Ok(errors) = self.logs.error_logger(&self.configuration.server.telemetry.error) {
            self.errors = errors;
        }
        let text = refused(&format!("{}: {error}", self.program.display()));
        self.errors.error_lines(&text);
        if let Err(error) = self.open_desk() {
            self.errors.error(format_args!("{error}"));
        }
        if let Some(reply) = reply {
            reply.refuse(text);
        }
    }

    /// Whether the program on disk runs and understands our arguments and files.
    fn check_program(&self) -> Result<(), String> {
        let program = &self.program;
        let mut command = Command::new(program);
        command.args(std::env::args_os().skip(1)).env(VARIABLE, CHECK);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
        let deadline = Instant::now() + CHECK_DEADLINE;
        // Nobody else reaps meanwhile: this is the loop that does.
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                _ => {
                    let _ = child.kill().and_then(|()| child.wait().map(drop));
                    return Err(format!(
                        "{} did not say within {} s whether it would start",
                        program.display(),
                        CHECK_DEADLINE.as_secs()
                    ));
                }
            }
        };
        if status.success() {
            return Ok(());
        }
        let mut text = String::new();
        if let Some(stderr) = child.stderr.take() {
            // What it said is only for the log.
            let _ = stderr.take(64 * 1024).read_to_string(&mut text);
        }
        Err(format!("{} would not start ({status}): {}", program.display(), text.trim_end()))
    }

    /// Leaves everything to the program on disk; returns only with the reason why it could not.
    fn hand_over(&self) -> io::Error {
        let mut kept = Vec::new();
        let mut keep = |descriptor: BorrowedFd<'_>| -> i32 {
            kept.push(descriptor.as_raw_fd());
            descriptor.as_raw_fd()
        };
        let listeners = self.bound.iter().map(|bound| HandedOn {
            asked: bound.settings.address.clone(),
            address: bound.address.clone(),
            role: Some(bound.settings.role),
            is_ours: bound.is_ours,
            sockets: bound.sockets.iter().map(|socket| keep(socket.as_fd())).collect(),
        });
        let listeners: Vec<HandedOn> = listeners.collect();
        let mut heritage = Heritage {
            listeners,
            uptime: self.desk.began.elapsed().as_secs_f64(),
            token: self.desk.token.clone(),
            restarts: self.desk.restarts.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Heritage::default()
        };
        match &self.old {
            // What we were to replace still serves: it is the next one's to replace.
            Some(old) if !self.serving => {
                heritage.listeners = self
                    .handed
                    .iter()
                    .map(|handed| HandedOn {
                        asked: handed.asked.clone(),
                        address: handed.address.clone(),
                        role: handed.role,
                        is_ours: handed.is_ours,
                        sockets: handed.sockets.iter().map(|socket| keep(socket.as_fd())).collect(),
                    })
                    .collect();
                heritage.front = old.channel.as_ref().map(|channel| (old.front, keep(channel.descriptor())));
                heritage.workers.clone_from(&old.workers);
                heritage.lifelines = old.lifelines.iter().map(|lifeline| keep(lifeline.as_fd())).collect();
                heritage.folders.clone_from(&old.folders);
            }
            _ => {
                heritage.front = Some((self.front.pid, keep(self.front.channel.descriptor())));
                let workers = self.apps.values().flat_map(|app| app.workers.values().map(|worker| worker.pid));
                heritage.workers = workers.chain(self.spawning.pids()).collect();
                heritage.lifelines = self.apps.values().map(|app| keep(app.lifeline.kept())).collect();
                heritage.folders = vec![self.runtime.path().to_path_buf()];
            }
        }
        let written = write_down(&heritage);
        let file = match &written {
            Ok(file) => file,
            Err(error) => return io::Error::new(error.kind(), error.to_string()),
        };
        kept.push(file.as_raw_fd());
        let mut command = Command::new(&self.program);
        command.args(std::env::args_os().skip(1)).env(VARIABLE, file.as_raw_fd().to_string());
        sys::replace(command, &kept)
    }

    /// Takes what the program before this one has left.
    pub(super) fn inherit(&mut self, heritage: Heritage) {
        let adopt = |numbers: Vec<i32>| numbers.into_iter().filter_map(|number| sys::inherited(number).ok());
        self.handed = heritage
            .listeners
            .into_iter()
            .map(|handed| Handed {
                asked: handed.asked,
                address: handed.address,
                role: handed.role,
                is_ours: handed.is_ours,
                sockets: adopt(handed.sockets).collect(),
            })
            .collect();
        self.desk.began =
            Instant::now().checked_sub(Duration::from_secs_f64(heritage.uptime.max(0.0))).unwrap_or(self.desk.began);
        self.desk.restarts = heritage.restarts;
        if !heritage.token.is_empty() {
            self.desk.token = heritage.token;
        }
        let front = heritage.front.map_or(0, |(pid, _)| pid);
        let channel = heritage.front.and_then(|(_, number)| sys::inherited(number).ok());
        let channel = channel.and_then(|socket| Channel::<ToFront, FromFront>::from_descriptor(socket).ok());
        if let Some(channel) = &channel {
            let (channel, events) = (channel.sender(), self.events.clone());
            tokio::spawn(async move {
                channel.discard().await;
                // The receiver ends with the server.
                let _ = events.send(Event::OldEnded);
            });
        }
        self.old = Some(Old {
            front,
            channel,
            workers: heritage.workers,
            lifelines: adopt(heritage.lifelines).collect(),
            folders: heritage.folders,
            version: heritage.version,
            is_draining: false,
        });
    }

    /// Our own front serves: the one before asks its clients to close, and ends.
    pub(super) async fn replace_old(&mut self) {
        let Some(old) = &self.old else { return };
        self.errors.info(format_args!("upgraded from version {} to {}", old.version, env!("CARGO_PKG_VERSION")));
        if let Some(channel) = &old.channel {
            // One that is gone has nobody to ask.
            let _ = channel.send(&ToFront::AskForClose, &[]).await;
        }
        self.later(ASKING, Event::DrainOld);
        let timeout = self.configuration.apps.iter().map(|app| app.timeout).max().unwrap_or_default();
        self.later(ASKING + self.configuration.server.grace + timeout, Event::OldOverdue);
    }

    pub(super) async fn drain_old(&mut self) {
        let Some(old) = self.old.as_mut().filter(|old| !old.is_draining) else { return };
        old.is_draining = true;
        if let Some(channel) = &old.channel {
            let _ = channel.send(&ToFront::Drain, &[]).await;
        }
    }

    /// The front before has ended, and its workers with it. True when that was what the end waited for.
    pub(super) fn old_ended(&mut self) -> bool {
        let Some(old) = self.old.take() else { return false };
        for folder in &old.folders {
            // What cannot be removed is a few kilobytes in a folder that is emptied at boot.
            let _ = std::fs::remove_dir_all(folder);
        }
        for pid in &old.workers {
            // Those whose front is gone end by themselves; what does not has lost its lifeline now. A program that was an
            // upstream is told: nobody comes to it any more.
            let _ = sys::signal(*pid, Signal::TERM);
            self.errors.debug(format_args!("worker (pid {pid}) of the version before is let go"));
        }
        drop(old.lifelines);
        if !self.serving {
            self.errors.error(format_args!("the front of the version before has ended, and nothing serves"));
            self.exit = std::process::ExitCode::FAILURE;
            return true;
        }
        self.phase == Phase::Draining && self.is_empty()
    }

    pub(super) fn kill_old(&mut self) {
        for pid in self.old.iter().flat_map(Old::pids) {
            let _ = sys::signal(pid, Signal::KILL);
        }
    }

    /// A child has ended: its id may soon be another's.
    pub(super) fn forget_old(&mut self, pid: i32) {
        let Some(old) = &mut self.old else { return };
        old.workers.retain(|&worker| worker != pid);
        if old.front == pid {
            old.front = 0;
        }
    }

    /// What was to be served cannot be. True when the server must end: where an upgrade failed the front before goes on.
    pub(super) fn start_failed(&mut self, why: &str) -> bool {
        if self.old.is_none() {
            self.exit = lines::fail(why);
            return true;
        }
        let text = format!("the upgrade did not come through, the version before serves on: {why}");
        self.errors.error_lines(&text);
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.desk.last_reload = Some(ReloadStatus { at, succeeded: false, text: text.clone() });
        self.reload_ended(Err(&text));
        false
    }
}

impl Old {
    /// Its processes that are still there.
    pub(super) fn pids(&self) -> impl Iterator<Item = i32> {
        self.workers.iter().copied().chain([self.front]).filter(|&pid| pid > 0)
    }
}

/// The state as a file in memory.
fn write_down(heritage: &Heritage) -> io::Result<std::fs::File> {
    let memory = rustix::fs::memfd_create("daemun-upgrade", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(memory);
    file.write_all(&serde_json::to_vec(heritage)?)?;
    Ok(file)
}
