//! The launcher: there where there are CGI routes, started again when it ends, and put in touch with the front.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::change::Stage;
use super::death::How;
use super::events::Event;
use super::{Master, Phase};
use crate::cgi::CgiSettings;
use crate::config::{Configuration, HandlerSettings};
use crate::launcher::{LAUNCHER_ROLE, Profile, ToLauncher};
use crate::process::account::AccountError;
use crate::process::{self, Channel};
use crate::server::plan::ToFront;
use crate::supervisor::{Backoff, identity};
use crate::sys::{self, ChildSetup, Ended};

/// How long a launcher may take to end what it had started and itself.
const END: Duration = Duration::from_secs(1);

/// How often it is looked whether it has.
const END_LOOK: Duration = Duration::from_millis(5);

/// When what failed for want of something is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What is known of the launcher.
#[derive(Default)]
pub(super) struct Launching {
    /// 0 where none runs.
    pid: i32,
    started: Option<Instant>,
    channel: Option<Channel<ToLauncher, ()>>,
    backoff: Backoff,
    /// All profiles that any configuration had: a front may still serve an earlier one.
    profiles: Vec<Profile>,
    /// Whether the front that is there has a socket to the launcher that is there.
    connected: bool,
}

impl Launching {
    fn number(&mut self, profile: &Profile) -> u32 {
        let known = self.profiles.iter().position(|other| other == profile);
        known.unwrap_or_else(|| {
            self.profiles.push(profile.clone());
            self.profiles.len() - 1
        }) as u32
    }

    /// There is another front.
    pub(super) fn front_is_new(&mut self) {
        self.connected = false;
    }
}

/// Settles as whom the programs of a CGI route run, by default as the server's `user` and `group`, and whose scripts
/// are run. What is to be warned of comes back.
pub(crate) fn appoint(
    settings: &mut CgiSettings,
    user: Option<&str>,
    group: Option<&str>,
) -> Result<Option<String>, AccountError> {
    let user = settings.user.as_deref().or(user);
    let group = settings.group.as_deref().or(group);
    let chosen = identity::of_application(user, group, &settings.root)?;
    if identity::is_root() {
        let folder = std::fs::metadata(&settings.root).map_or(0, |folder| folder.uid());
        let own = chosen.account.as_ref().map_or(0, |account| account.identity.user);
        settings.owners = BTreeSet::from([0, folder, own]).into_iter().collect();
    }
    let identity = chosen.account.map(|account| account.identity);
    settings.profile.identity = identity.map(|who| (who.user, who.group, who.groups));
    Ok(chosen.warning)
}

impl Master {
    /// Says for each CGI route as whom its programs run, and starts a launcher where there is none yet.
    pub(super) async fn prepare_programs(&mut self, configuration: &mut Configuration) -> Result<(), String> {
        let (user, group) = (configuration.server.user.clone(), configuration.server.group.clone());
        for route in &mut configuration.routes {
            let HandlerSettings::Cgi(settings) = &mut route.handler else { continue };
            let origin = &route.rule.origin;
            let warning = appoint(settings, user.as_deref(), group.as_deref());
            let warning = warning.map_err(|error| format!("{origin}: {error}"))?;
            if let Some(warning) = warning.filter(|_| !self.serving) {
                configuration.warnings.push(format!("{origin}: {warning}"));
            }
            settings.profile_number = self.launching.number(&settings.profile);
        }
        if self.launching.profiles.is_empty() {
            return Ok(());
        }
        if self.launching.pid == 0 && self.launching.channel.is_none() {
            self.start_launcher().await.map_err(|error| format!("cannot start the launcher: {error}"))
        } else {
            self.tell_launcher(ToLauncher::Profiles(self.launching.profiles.clone())).await;
            Ok(())
        }
    }

    async fn start_launcher(&mut self) -> std::io::Result<()> {
        let (channel, theirs) = Channel::pair()?;
        let mut command = Command::new(&self.program);
        command.arg(LAUNCHER_ROLE);
        // Programs get nothing of the environment, and so it needs none.
        command.env_clear();
        let setup = ChildSetup {
            descriptors: vec![theirs],
            // It becomes each route's user in the children; nobody else may be asked to.
            identity: None,
            open_files: self.open_files,
            no_new_privileges: true,
            // It begins a session.
            own_group: false,
        };
        self.launching.pid = process::spawn(command, setup)?;
        self.launching.started = Some(Instant::now());
        self.launching.channel = Some(channel);
        self.launching.connected = false;
        self.tell_launcher(ToLauncher::Profiles(self.launching.profiles.clone())).await;
        Ok(())
    }

    /// A launcher that is gone hears everything anew when it is back.
    async fn tell_launcher(&self, word: ToLauncher) {
        if let Some(channel) = &self.launching.channel {
            let _ = channel.send(&word, &[]).await;
        }
    }

    /// The code of programs may be another: interpreters that were warmed up are to read it anew.
    pub(super) async fn renew_launcher(&self) {
        self.tell_launcher(ToLauncher::Renew).await;
    }

    /// Gives front and launcher the two ends of a socket. The front must have been told of a plan before.
    pub(super) async fn connect_launcher(&mut self) {
        let Some(launcher) = self.launching.channel.as_ref().filter(|_| !self.launching.connected) else { return };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (fronts, launchers) = match pair {
            Ok(pair) => pair,
            Err(error) => {
                self.errors.error(format_args!("no socket for front and launcher: {error}; it is tried again"));
                return self.later(RETRY, Event::RestartLauncher);
            }
        };
        let told = launcher.send(&ToLauncher::Front, &[launchers.as_fd()]).await;
        let told = told.is_ok() && self.front.channel.send(&ToFront::Launcher, &[fronts.as_fd()]).await.is_ok();
        self.launching.connected = told;
        if !told {
            // Whichever is gone is started again, and then they are connected anew; or it was for want of memory.
            self.later(RETRY, Event::RestartLauncher);
        }
    }

    /// Whether this was the launcher; then it is started again.
    pub(super) fn launcher_ended(&mut self, ended: Ended) -> bool {
        if ended.pid != self.launching.pid {
            return false;
        }
        self.launching.pid = 0;
        self.launching.channel = None;
        if self.phase != Phase::Draining {
            let started = self.launching.started.unwrap_or_else(Instant::now);
            let pause = self.launching.backoff.pause_after(started, Instant::now());
            let how = How(ended);
            self.errors.error(format_args!(
                "launcher (pid {}) {how}; CGI programs that ran are lost, and it is started again",
                ended.pid
            ));
            self.later(pause, Event::RestartLauncher);
        }
        true
    }

    /// The pause after a launcher's end is over, or it is to be connected once more.
    pub(super) async fn restart_launcher(&mut self) {
        if self.phase == Phase::Draining {
            return;
        }
        if self.launching.channel.is_none()
            && let Err(error) = self.start_launcher().await
        {
            self.errors.error(format_args!("cannot start the launcher: {error}"));
            return self.later(RETRY, Event::RestartLauncher);
        }
        // At the start the front is told of a plan later, and then of its launcher.
        if self.serving || self.change.as_ref().is_some_and(|change| change.stage != Stage::Importing) {
            self.connect_launcher().await;
        }
    }

    /// The launcher ends what it has started and itself, since nobody is there to tell it anything.
    pub(super) fn end_launcher(&mut self) {
        self.launching.channel = None;
        let end = Instant::now() + END;
        while self.launching.pid != 0 && Instant::now() < end {
            match sys::reap() {
                Some(ended) if ended.pid == self.launching.pid => self.launching.pid = 0,
                Some(_) => {}
                None => std::thread::sleep(END_LOOK),
            }
        }
        if self.launching.pid != 0 {
            let _ = sys::signal(self.launching.pid, rustix::process::Signal::KILL);
        }
    }
}
