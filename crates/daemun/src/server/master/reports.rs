//! What the front says about workers, and what follows.

use std::time::Duration;

use super::children::PATIENCE;
use super::events::Event;
use super::{LastWords, Master};
use crate::app::{Parting, WorkerReport};
use crate::server::plan::ToFront;

/// How long a worker may take to end after its last answer: functions that it runs then, and threads of its own.
const LEAVING: Duration = Duration::from_secs(10);

/// How long one may take whose connection was closed out of turn: nearly always it is ending already.
const ENDING: Duration = Duration::from_secs(1);

impl Master {
    /// The connection of a worker has ended.
    fn worker_lost(&mut self, name: &str, serial: u32, words: LastWords, parting: Parting) {
        let Some(app) = self.apps.get_mut(name) else { return };
        if let Some(departed) = app.departed.get_mut(&serial) {
            departed.worker.last_words = Some(words);
            self.told_of_end(name, serial);
        } else if let Some(worker) = app.workers.get_mut(&serial) {
            worker.last_words = Some(words);
            // Its lanes are closed, so it can do nothing more; a process that goes on all the same is ended.
            let pid = worker.pid;
            let patience = match parting {
                Parting::InOrder => LEAVING,
                Parting::Closed => ENDING,
                Parting::Breach(how) => {
                    self.errors.error(format_args!(
                        "{name}: worker {serial} (pid {pid}) broke the protocol and is ended: {how}"
                    ));
                    Duration::ZERO
                }
            };
            self.later(patience, Event::Overdue(pid));
        }
    }

    pub(super) async fn worker_reported(&mut self, name: &str, report: WorkerReport) -> bool {
        let Some(app) = self.apps.get_mut(name) else { return false };
        match report {
            WorkerReport::Connected { serial } => {
                let Some(worker) = app.workers.get_mut(&serial) else { return false };
                worker.connected = true;
                if let Some(old) = worker.replaces.take() {
                    self.retire(name, old).await;
                }
                return self.check_connected().await;
            }
            WorkerReport::Lost { serial, served, serving, parting } => {
                self.worker_lost(name, serial, LastWords { served, serving }, parting);
            }
            WorkerReport::Replayed { serial, request } => self.errors.warning(format_args!(
                "{name}: {request} was being served by worker {serial} when that died; it is sent to another, once"
            )),
            WorkerReport::Busy { waiting, seconds } => self.grow(name, waiting, seconds).await,
            WorkerReport::Idle { serials } => self.shrink(name, &serials).await,
            WorkerReport::Slow { serial, thread, request, seconds } => {
                let Some(worker) = app.workers.get(&serial) else { return false };
                let (stack, errors) = (app.stacks.ask(worker.pid), self.errors.clone());
                let head = format!(
                    "{name}: worker {serial} (pid {}) has been at {request} for {seconds:.1} s, half of its `timeout`",
                    worker.pid
                );
                tokio::spawn(async move {
                    let stack = stack.await.map(|stacks| stacks.of_thread(thread)).unwrap_or_default();
                    if stack.is_empty() {
                        return errors.warning(format_args!("{head}; it did not say where"));
                    }
                    errors.warning(format_args!("{head}; it is here, the innermost call first:"));
                    stack.lines().for_each(|line| errors.warning(format_args!("{line}")));
                });
            }
            WorkerReport::Replace { serial, reason } => {
                self.desk.restarted(name, "recycled");
                self.replace(name, serial, &reason).await;
            }
            WorkerReport::Stuck { serial, request } => {
                let Some(worker) = app.workers.get_mut(&serial) else { return false };
                let (pid, generation) = (worker.pid, worker.generation);
                let first = !std::mem::replace(&mut worker.leaving, true);
                self.errors.error(format_args!(
                    "{name}: worker {serial} (pid {pid}) has not answered {request} in time (`timeout`); it is replaced \
                     once its other requests are done"
                ));
                if first {
                    self.desk.restarted(name, "timeout");
                    self.fork_worker(name, generation, None).await;
                }
            }
            WorkerReport::Drained { serial } => {
                if let Some(worker) = app.workers.get(&serial) {
                    let pid = worker.pid;
                    self.later(PATIENCE, Event::Overdue(pid));
                }
            }
            WorkerReport::Refused { pid, reason } => {
                let pid = pid.map_or_else(|| String::from("unknown"), |pid| pid.to_string());
                self.errors
                    .warning(format_args!("{name}: a process (pid {pid}) was refused on the worker socket: {reason}"));
            }
        }
        false
    }

    /// Sends nothing more to a worker; it ends when it is done.
    pub(super) async fn retire(&mut self, name: &str, serial: u32) {
        let grace = self.configuration.server.grace;
        let Some(app) = self.apps.get_mut(name) else { return };
        let grace = grace + app.settings.timeout;
        let Some(worker) = app.workers.get_mut(&serial) else { return };
        worker.leaving = true;
        let (pid, patience) = (worker.pid, worker.patience(grace));
        self.later(patience, Event::Overdue(pid));
        self.tell_front(ToFront::Retire(name.to_owned(), serial)).await;
    }

    /// Workers of earlier generations were told to end by the front. A reload must not cut a request short, so they get
    /// the time that a request may take, and the grace.
    pub(super) fn retire_before(&mut self, name: &str, generation: u64) {
        let grace = self.configuration.server.grace;
        let Some(app) = self.apps.get_mut(name) else { return };
        let grace = grace + app.settings.timeout;
        let old = app.workers.values_mut().filter(|worker| worker.generation < generation);
        let leaving: Vec<(i32, Duration)> = old
            .map(|worker| {
                worker.leaving = true;
                (worker.pid, worker.patience(grace))
            })
            .collect();
        for (pid, patience) in leaving {
            self.later(patience, Event::Overdue(pid));
        }
    }
}
