//! FastCGI programs that are upstreams (`spawn`): started with a listening socket as their standard input, started again
//! when they end, and ended once nothing leads to them any more.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use rustix::process::Signal;

use super::death::How;
use super::events::Event;
use super::{Master, Phase};
use crate::cgi::PROGRAM_PATH;
use crate::config::Configuration;
use crate::process::{self, Account};
use crate::supervisor::{Backoff, identity};
use crate::sys::{self, ChildSetup, Ended};
use crate::upstream::{Address, SpawnSettings};

/// Programs of one upstream.
struct Spawned {
    upstream: String,
    settings: SpawnSettings,
    account: Option<Account>,
    /// Where the front connects to them.
    path: PathBuf,
    socket: OwnedFd,
    running: Vec<(i32, Instant)>,
    backoff: Backoff,
    /// Whether nothing leads there any more: what they have begun they finish.
    is_leaving: bool,
}

/// What is known of all of them.
#[derive(Default)]
pub(super) struct Spawning {
    all: Vec<Spawned>,
    /// How many there have been: each gets a name of its own.
    made: u32,
}

impl Spawning {
    /// Processes that are there.
    pub(super) fn pids(&self) -> Vec<i32> {
        self.all.iter().flat_map(|spawned| spawned.running.iter().map(|(pid, _)| *pid)).collect()
    }
}

impl Master {
    /// Starts the programs that a configuration names and that are not there yet, and says where they are.
    pub(super) fn prepare_spawned(&mut self, configuration: &mut Configuration) -> Result<(), String> {
        let server = &configuration.server;
        let (user, group) = (server.user.clone(), server.group.clone());
        let mut warnings = Vec::new();
        for upstream in &mut configuration.upstreams {
            let Some(settings) = upstream.spawn.clone() else { continue };
            let name = &upstream.name;
            let wrong = |error: &dyn std::fmt::Display| format!("[upstream.{name}]: {error}");
            let user = settings.user.as_deref().or(user.as_deref());
            let group = settings.group.as_deref().or(group.as_deref());
            let chosen = identity::of_application(user, group, &settings.directory).map_err(|error| wrong(&error))?;
            warnings.extend(chosen.warning.filter(|_| !self.serving).map(|warning| wrong(&warning)));
            let known = self.spawning.all.iter().find(|spawned| {
                !spawned.is_leaving
                    && (&spawned.upstream, &spawned.settings, &spawned.account) == (name, &settings, &chosen.account)
            });
            let path = match known {
                Some(spawned) => spawned.path.clone(),
                None => self.spawn_group(name, &settings, chosen.account).map_err(|error| {
                    let program = settings.command.first().map_or("", String::as_str);
                    wrong(&format_args!("cannot start {program}: {error}"))
                })?,
            };
            for server in &mut upstream.servers {
                server.address = Address::Unix(path.clone());
                server.url = format!("fastcgi://unix:{}", path.display());
            }
        }
        configuration.warnings.extend(warnings);
        Ok(())
    }

    fn spawn_group(
        &mut self,
        upstream: &str,
        settings: &SpawnSettings,
        account: Option<Account>,
    ) -> std::io::Result<PathBuf> {
        self.spawning.made += 1;
        let path = self.runtime.path().join(format!("spawn-{}.sock", self.spawning.made));
        let socket = listen(&path)?;
        let mut spawned = Spawned {
            upstream: upstream.to_owned(),
            settings: settings.clone(),
            account,
            path: path.clone(),
            socket,
            running: Vec::new(),
            backoff: Backoff::default(),
            is_leaving: false,
        };
        for _ in 0..settings.processes {
            match spawned.start() {
                Ok(()) => {}
                Err(error) => {
                    spawned.end(Signal::KILL);
                    return Err(error);
                }
            }
        }
        self.spawning.all.push(spawned);
        Ok(path)
    }

    /// The configuration of now is served: programs that it does not name finish what they have.
    pub(super) fn end_unused_spawned(&mut self) {
        let named = |path: &Path| {
            let mut servers = self.configuration.upstreams.iter().flat_map(|upstream| &upstream.servers);
            servers.any(|server| matches!(&server.address, Address::Unix(other) if other == path))
        };
        let grace = self.configuration.server.grace;
        let mut late = Vec::new();
        for spawned in self.spawning.all.iter_mut().filter(|spawned| !spawned.is_leaving && !named(&spawned.path)) {
            spawned.is_leaving = true;
            // A request in it is finished (FastCGI, section 2.4: as after SIGTERM); nobody comes there any more.
            spawned.end(Signal::TERM);
            let _ = std::fs::remove_file(&spawned.path);
            late.extend(spawned.running.iter().map(|(pid, _)| *pid));
        }
        self.spawning.all.retain(|spawned| !spawned.is_leaving || !spawned.running.is_empty());
        for pid in late {
            self.later(grace, Event::Overdue(pid));
        }
    }

    /// Whether this was such a program; then it is started again.
    pub(super) fn spawned_ended(&mut self, ended: Ended) -> bool {
        let of = |spawned: &&mut Spawned| spawned.running.iter().any(|(pid, _)| *pid == ended.pid);
        let Some(spawned) = self.spawning.all.iter_mut().find(of) else { return false };
        let at = spawned.running.iter().position(|(pid, _)| *pid == ended.pid).unwrap_or_default();
        let (_, started) = spawned.running.swap_remove(at);
        if spawned.is_leaving {
            self.spawning.all.retain(|spawned| !spawned.is_leaving || !spawned.running.is_empty());
            return true;
        }
        if self.phase == Phase::Draining {
            return true;
        }
        let pause = spawned.backoff.pause_after(started, Instant::now());
        let (how, path, name) = (How(ended), spawned.path.clone(), &spawned.upstream);
        let program = spawned.settings.command.first().map_or("", String::as_str);
        self.errors.warning(format_args!("upstream {name}: {program} (pid {}) {how}; it is started again", ended.pid));
        self.later(pause, Event::Respawn(path));
        true
    }

    /// The pause after the end of such a program is over.
    pub(super) fn respawn(&mut self, path: &Path) {
        if self.phase == Phase::Draining {
            return;
        }
        let found = self.spawning.all.iter_mut().find(|spawned| spawned.path == *path && !spawned.is_leaving);
        let Some(spawned) = found.filter(|spawned| spawned.running.len() < spawned.settings.processes as usize) else {
            return;
        };
        if let Err(error) = spawned.start() {
            let now = Instant::now();
            let pause = spawned.backoff.pause_after(now, now).max(std::time::Duration::from_secs(1));
            let (name, path) = (&spawned.upstream, spawned.path.clone());
            self.errors.error(format_args!("upstream {name}: cannot start it again: {error}"));
            self.later(pause, Event::Respawn(path));
        }
    }
}

impl Spawned {
    fn start(&mut self) -> std::io::Result<()> {
        let [program, arguments @ ..] = &self.settings.command[..] else {
            return Err(std::io::ErrorKind::NotFound.into());
        };
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.settings.directory).env_clear().env("PATH", PROGRAM_PATH);
        // Otherwise php-cgi ends after 500 requests, and one that is on its way to it by then is lost.
        command.env("PHP_FCGI_MAX_REQUESTS", "0");
        if let Some(account) = &self.account {
            command.env("HOME", &account.home).env("USER", &account.name).env("LOGNAME", &account.name);
        }
        command.envs(self.settings.env.iter().map(|(name, value)| (name, value)));
        // Standard output may be the access log.
        command.stdout(std::process::Stdio::null());
        let setup = ChildSetup {
            descriptors: Vec::new(),
            identity: self.account.as_ref().map(|account| account.identity.clone()),
            open_files: None,
            no_new_privileges: true,
            own_group: true,
        };
        let pid = process::spawn_listening(command, setup, self.socket.try_clone()?)?;
        self.running.push((pid, Instant::now()));
        Ok(())
    }

    fn end(&self, signal: Signal) {
        for (pid, _) in &self.running {
            sys::signal_group(*pid, Some(signal));
        }
    }
}

/// Listens at `path`, where the front alone may connect.
fn listen(path: &Path) -> std::io::Result<OwnedFd> {
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    if identity::is_root() {
        // The front's own user, who has nothing else.
        let front = process::account::unused_identity();
        std::os::unix::fs::chown(path, Some(front.user), Some(front.group))?;
    }
    Ok(listener.into())
}
