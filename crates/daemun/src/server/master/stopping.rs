//! TERM, INT and the end; logs that were rotated.

use std::os::fd::AsFd;

use super::events::Event;
use super::logs::Logs;
use super::{Master, Phase};
use crate::server::plan::ToFront;
use crate::telemetry::Sink;

impl Master {
    /// TERM, or INT (`at_once`): without the delay, and the second one ends everything. True when that is the end.
    pub(super) async fn stop(&mut self, at_once: bool) -> bool {
        if !self.serving && self.old.is_none() {
            return true;
        }
        let server = &self.configuration.server;
        let (delay, grace) = (server.drain_delay, server.grace);
        match self.phase {
            Phase::Running => {
                self.notify.stopping();
                self.errors.info(format_args!("stopping: what is in flight has {} s", grace.as_secs_f32()));
                // Counted from the signal, whatever the delay.
                self.later(grace, Event::GraceOver);
                if at_once || delay.is_zero() {
                    return self.drain().await;
                }
                self.phase = Phase::AskingForClose;
                self.tell_front(ToFront::AskForClose).await;
                self.later(delay, Event::Drain);
                false
            }
            Phase::AskingForClose if at_once => self.drain().await,
            Phase::AskingForClose => false,
            Phase::Draining => at_once,
        }
    }

    /// Accepting ends. The front leaves when nothing is in flight, and tells its workers to; then we follow. True when
    /// that is the end, because no front is there.
    pub(super) async fn drain(&mut self) -> bool {
        if self.phase == Phase::Draining {
            return false;
        }
        self.phase = Phase::Draining;
        // Its workers would connect to a front that is leaving.
        self.forget_change();
        self.tell_front(ToFront::Drain).await;
        self.drain_old().await;
        if !self.serving {
            // A front that serves nothing yet has nothing to finish.
            let _ = crate::sys::signal(self.front.pid, rustix::process::Signal::KILL);
        }
        for app in self.apps.values_mut() {
            if let Some(zygote) = &mut app.zygote {
                zygote.stop().await;
            }
            // A fork that is under way: its worker, if it comes, is ended with the rest.
            app.workers.retain(|_, worker| worker.pid != 0);
        }
        let grace = self.configuration.server.grace;
        let workers = self.apps.values().flat_map(|app| app.workers.values());
        for worker in workers.filter(|worker| !worker.connected) {
            self.later(worker.patience(grace), Event::Overdue(worker.pid));
        }
        self.front.pid == 0 && self.old.is_none()
    }

    /// Whether no child is left that a stop waits for.
    pub(super) fn is_empty(&self) -> bool {
        self.old.is_none() && self.front.pid == 0 && self.apps.values().all(|app| app.workers.is_empty())
    }

    /// USR1: log files are opened anew under their names.
    pub(super) async fn reopen_logs(&mut self) {
        let settings = &self.configuration.server.telemetry;
        let logs = match Logs::open(settings) {
            Ok(logs) => logs,
            Err(error) => return self.errors.error(format_args!("logs are not reopened: {error}")),
        };
        self.logs = logs;
        let access = matches!(settings.access.sink, Sink::File(_));
        let error = matches!(settings.error.sink, Sink::File(_));
        let mut descriptors = Vec::new();
        if access {
            descriptors.push(self.logs.access());
        }
        if error {
            descriptors.push(self.logs.error());
            if let Ok(own) = self.logs.error().as_fd().try_clone_to_owned() {
                self.errors.reopen(own);
            }
        }
        let _ = self.front.channel.send(&ToFront::Reopen(access, error), &descriptors).await;
        self.errors.info(format_args!("logs reopened"));
    }
}
