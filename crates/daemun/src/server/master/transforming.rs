//! Transformers: a few where a route has `xslt`, each with a socket to the front, started again when they end.

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::death::How;
use super::events::Event;
use super::{Master, Phase};
use crate::config::Configuration;
use crate::process;
use crate::server::plan::ToFront;
use crate::supervisor::{Backoff, identity};
use crate::sys::{self, ChildSetup, Ended};
use crate::transformer::{CHECK_ROLE, TRANSFORMER_ROLE};

/// How many there are at least: one that is busy with something large leaves another for the rest.
const LEAST: usize = 2;

/// And at most.
const MOST: usize = 8;

/// Descriptors that one may have open: the four that it begins with, and what libraries need while they load.
const OPEN_FILES: u64 = 32;

/// What is known of the transformers.
#[derive(Default)]
pub(super) struct Transforming {
    /// Process and when it began.
    running: Vec<(i32, Instant)>,
    /// Those that are still there for a front that is not, or whose configuration has gone. They end by themselves.
    leaving: Vec<i32>,
    backoff: Backoff,
    wanted: usize,
}

impl Transforming {
    /// There is another front: the sockets of the one before are closed, and who has them ends.
    pub(super) fn front_is_new(&mut self) {
        self.leaving.extend(self.running.drain(..).map(|(pid, _)| pid));
    }

    /// All that are there.
    pub(super) fn pids(&self) -> Vec<i32> {
        self.running.iter().map(|(pid, _)| *pid).chain(self.leaving.iter().copied()).collect()
    }
}

/// Whether any route needs one.
pub(super) fn is_needed(configuration: &Configuration) -> bool {
    configuration.routes.iter().any(|route| route.filters.xslt.is_some())
}

impl Master {
    /// Finds out, in a process of its own, whether this machine has what transforming needs.
    pub(super) fn check_transformers(&self, configuration: &Configuration) -> Result<(), String> {
        let first = configuration.routes.iter().find_map(|route| route.filters.xslt.as_ref());
        let Some(first) = first.filter(|_| self.transforming.running.is_empty()) else { return Ok(()) };
        let mut command = Command::new(&self.program);
        command.arg(CHECK_ROLE).env_clear().stdin(Stdio::null()).stderr(Stdio::null());
        let output = command.output().map_err(|error| format!("cannot start the transformer: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&output.stdout);
        let why = if why.trim().is_empty() { output.status.to_string() } else { why.trim().to_owned() };
        Err(format!("{}: `xslt` needs libxslt and libexslt (Debian: apt-get install libxslt1.1): {why}", first.origin))
    }

    /// Starts what is missing for the front that is there; ends what nobody needs any more.
    pub(super) async fn connect_transformers(&mut self, is_needed: bool) {
        let cores = std::thread::available_parallelism().map_or(LEAST, std::num::NonZero::get);
        self.transforming.wanted = if is_needed { cores.clamp(LEAST, MOST) } else { 0 };
        if !is_needed {
            for (pid, _) in std::mem::take(&mut self.transforming.running) {
                self.transforming.leaving.push(pid);
                let _ = sys::signal(pid, rustix::process::Signal::TERM);
            }
        }
        while self.transforming.running.len() < self.transforming.wanted {
            if let Err(error) = self.start_transformer().await {
                self.errors.error(format_args!("cannot start a transformer: {error}"));
                return self.later(Duration::from_secs(1), Event::RestartTransformer);
            }
        }
    }

    async fn start_transformer(&mut self) -> std::io::Result<()> {
        let (ours, theirs) = pair()?;
        let mut command = Command::new(&self.program);
        // Standard output may be the access log.
        command.arg(TRANSFORMER_ROLE).env_clear().stdout(Stdio::null());
        // A document is thousands of small pieces of memory, all given back at its end: glibc keeps seven of each size
        // at hand, here as many as a document has. Who has another libc does not read this.
        command.env("GLIBC_TUNABLES", "glibc.malloc.tcache_count=4000");
        let setup = ChildSetup {
            descriptors: vec![theirs],
            identity: identity::is_root().then(process::account::unused_identity),
            open_files: Some(OPEN_FILES),
            no_new_privileges: true,
            own_group: true,
        };
        let pid = process::spawn(command, setup)?;
        self.transforming.running.push((pid, Instant::now()));
        // A front that is gone is told of others when it is back.
        let _ = self.front.channel.send(&ToFront::Transformer, &[ours.as_fd()]).await;
        Ok(())
    }

    /// Whether this was a transformer; then another is started.
    pub(super) fn transformer_ended(&mut self, ended: Ended) -> bool {
        let leaving = self.transforming.leaving.len();
        self.transforming.leaving.retain(|pid| *pid != ended.pid);
        if self.transforming.leaving.len() != leaving {
            return true;
        }
        let Some(at) = self.transforming.running.iter().position(|(pid, _)| *pid == ended.pid) else { return false };
        let (_, started) = self.transforming.running.swap_remove(at);
        if self.phase != Phase::Draining {
            let pause = self.transforming.backoff.pause_after(started, Instant::now());
            let how = How(ended);
            self.errors.warning(format_args!("transformer (pid {}) {how}; it is started again", ended.pid));
            self.later(pause, Event::RestartTransformer);
        }
        true
    }

    /// The pause after a transformer's end is over.
    pub(super) async fn restart_transformer(&mut self) {
        if self.phase != Phase::Draining {
            let is_needed = self.transforming.wanted > 0;
            self.connect_transformers(is_needed).await;
        }
    }
}

fn pair() -> std::io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}
