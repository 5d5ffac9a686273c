//! Zygotes, workers and the front: started again when they end, with the reason in the log.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::change::Stage;
use super::death::How;
use super::events::Event;
use super::{Front, Master, Phase, Worker};
use crate::app::{Admission, ZygoteMessage};
use crate::server::plan::{FromFront, ToFront};
use crate::sys::{self, Ended};

/// How long a worker that is all but stuck may take to end by itself.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Ended children that are remembered although nobody has told of them yet.
const MOST_STRANGERS: usize = 64;

impl Master {
    /// Reaps every child that has ended, orphans of the applications too. True when the server must end.
    pub(super) fn reap(&mut self) -> bool {
        let mut end = false;
        while let Some(ended) = sys::reap() {
            self.forget_old(ended.pid);
            if ended.pid == self.front.pid {
                end |= self.front_ended(ended);
            } else {
                self.child_ended(ended);
            }
        }
        end || (self.phase == Phase::Draining && self.is_empty())
    }

    /// The front is gone: after a drain that is the plan, otherwise it is started again on the same sockets.
    fn front_ended(&mut self, ended: Ended) -> bool {
        self.front.pid = 0;
        if self.phase == Phase::Draining {
            // One that did not leave by itself has nobody left to finish for.
            return ended.code != Some(0);
        }
        let pause = self.front.backoff.pause_after(self.front.started, Instant::now());
        let how = How(ended);
        self.errors.error(format_args!("front (pid {}) {how}; it is started again", ended.pid));
        if self.front.backoff.failures() > 5 && !self.serving {
            self.exit = super::lines::fail("the front keeps failing; the reasons stand above");
            return true;
        }
        self.later(pause, Event::RestartFront);
        if self.serving && self.abandon("the front ended meanwhile") {
            return true;
        }
        false
    }

    /// Starts a front and tells it all that the last one knew. The listeners were never closed, workers come by
    /// themselves.
    pub(super) async fn restart_front(&mut self) {
        if self.phase == Phase::Draining {
            return;
        }
        let backoff = std::mem::take(&mut self.front.backoff);
        match Front::start(&self.program, self.front.epoch + 1, &self.events) {
            Ok(front) => self.front = Front { backoff, ..front },
            Err(error) => {
                self.front.backoff = backoff;
                self.errors.error(format_args!("cannot start the front: {error}"));
                return self.later(Duration::from_secs(1), Event::RestartFront);
            }
        }
        self.launching.front_is_new();
        self.transforming.front_is_new();
        for worker in self.apps.values_mut().flat_map(|app| app.workers.values_mut()) {
            worker.connected = false;
        }
        if let Err(error) = self.prepare_front().await {
            // One that was told nothing serves nothing: it makes room for the next.
            let _ = sys::signal(self.front.pid, Signal::KILL);
            return self.errors.error(format_args!("the new front cannot be told what to serve: {error}"));
        }
        for (name, app) in &self.apps {
            for (&serial, worker) in app.workers.iter().filter(|(_, worker)| !worker.leaving) {
                self.tell_front(ToFront::Expect(name.clone(), worker.admission(serial))).await;
            }
        }
        if self.serving {
            let apps = self.apps.iter().filter(|(_, app)| app.generation != u64::MAX);
            let generations = apps.map(|(name, app)| (name.clone(), app.generation)).collect();
            self.tell_front(ToFront::Switch(generations)).await;
            if self.desk.is_draining {
                self.tell_front(ToFront::AskForClose).await;
            }
            self.show_proofs().await;
        } else if self.change.as_ref().is_some_and(|change| change.stage == Stage::Switching) {
            // At the start: the last one was told to, and never said that it had.
            self.switch().await;
        }
    }

    fn child_ended(&mut self, ended: Ended) {
        let is_another = self.transformer_ended(ended) || self.certifier_ended(ended) || self.spawned_ended(ended);
        if is_another || self.launcher_ended(ended) {
            return;
        }
        let names: Vec<String> = self.apps.keys().cloned().collect();
        for name in names {
            let Some(app) = self.apps.get_mut(&name) else { continue };
            if app.zygote.take_if(|zygote| zygote.pid == ended.pid).is_some() {
                app.zygote_ready = false;
                return self.zygote_ended(&name, ended);
            }
            let serial = app.workers.iter().find(|(_, worker)| worker.pid == ended.pid).map(|(&serial, _)| serial);
            if let Some(serial) = serial {
                return self.worker_ended(&name, serial, ended);
            }
        }
        if let Some(new) = self.change.as_mut().and_then(|change| change.zygote_of(ended.pid)) {
            // It says why by itself; what it was to fork is forked by the next one.
            return drop(new.take());
        }
        // An orphan of an application that fell to us, or a worker of which we have yet to hear.
        self.strangers.push(ended);
        if self.strangers.len() > MOST_STRANGERS {
            self.strangers.remove(0);
        }
    }

    /// Reaps until this child's end is found, and gives it.
    pub(super) fn reap_until(&mut self, pid: i32) -> Option<Ended> {
        while let Some(ended) = sys::reap() {
            if ended.pid == pid {
                return Some(ended);
            }
            if ended.pid == self.front.pid {
                self.front_ended(ended);
            } else if !self.launcher_ended(ended) && !self.transformer_ended(ended) && !self.certifier_ended(ended) {
                self.spawned_ended(ended);
            }
        }
        None
    }

    fn zygote_ended(&mut self, name: &str, ended: Ended) {
        let Some(app) = self.apps.get_mut(name).filter(|app| app.generation != u64::MAX) else { return };
        // Forks that it did not come to; a stop would wait for them too.
        app.workers.retain(|_, worker| worker.pid != 0 || worker.generation != app.generation);
        if self.phase != Phase::Running {
            return;
        }
        let pause = app.zygote_backoff.pause_after(app.zygote_started, Instant::now());
        let how = How(ended);
        self.errors.warning(format_args!(
            "{name}: the zygote (pid {}) {how}; its workers serve on, and it is started again",
            ended.pid
        ));
        self.later(pause, Event::RestartZygote(name.to_owned()));
    }

    /// Imports the application once more, so that workers can be forked again.
    pub(super) async fn restart_zygote(&mut self, name: &str) {
        let Some(app) = self.apps.get(name).filter(|app| app.zygote.is_none() && app.generation != u64::MAX) else {
            return;
        };
        if self.phase != Phase::Running {
            return;
        }
        let (settings, generation, account) = (app.settings.clone(), app.generation, app.account.clone());
        let started = self.start_zygote(&settings, generation, account.as_ref()).await;
        let Some(app) = self.apps.get_mut(name) else { return };
        app.zygote_started = Instant::now();
        match started {
            Ok(zygote) => app.zygote = Some(zygote),
            Err(error) => {
                let pause = app.zygote_backoff.pause_after(app.zygote_started, app.zygote_started);
                self.errors.error(format_args!("{error}"));
                self.later(pause.max(Duration::from_secs(1)), Event::RestartZygote(name.to_owned()));
            }
        }
    }

    /// Asks for a worker of a generation that is current or becoming so.
    pub(super) async fn fork_worker(&mut self, name: &str, generation: u64, replaces: Option<u32>) {
        if self.phase == Phase::Draining {
            // Its zygote has been told to leave and would never answer; a stop would wait for what never came.
            return;
        }
        let serial = self.next_serial;
        let changing = self.change.as_mut().and_then(|change| change.zygote(name, generation));
        let Some(app) = self.apps.get_mut(name) else { return };
        let zygote = match changing {
            Some(zygote) => zygote,
            None if app.generation == generation && app.zygote_ready => match &mut app.zygote {
                Some(zygote) => zygote,
                None => return,
            },
            // The zygote is being started again: it forks what is missing when it is ready.
            None => return,
        };
        self.next_serial += 1;
        app.workers.insert(serial, Worker::new(generation, zygote.threads, replaces));
        if zygote.fork(serial).await.is_err() {
            // It is gone: its end brings a new one, which forks what is missing.
            app.workers.remove(&serial);
        }
    }

    /// Forks as many workers as are missing.
    pub(super) async fn fork_missing(&mut self, name: &str) {
        let Some(app) = self.apps.get(name) else { return };
        let (generation, wanted) = (app.generation, app.wanted as usize);
        let there = app.workers.values().filter(|worker| worker.generation == generation && !worker.leaving).count();
        for _ in there..wanted {
            self.fork_worker(name, generation, None).await;
        }
    }

    /// A zygote said something. True when the server must end.
    pub(super) async fn zygote_said(&mut self, name: &str, generation: u64, message: Option<ZygoteMessage>) -> bool {
        let changing = self.change.as_ref().is_some_and(|change| change.is_generation(name, generation));
        if let Some(ZygoteMessage::Ready(ready)) = &message
            && let Some(why) = &ready.unaccelerated
        {
            self.errors.debug(format_args!("{name}: workers run without the accelerator: {why}"));
        }
        match message {
            Some(ZygoteMessage::Ready(ready)) if changing => return self.import_ended(name, Ok(ready)).await,
            Some(ZygoteMessage::Ready(_)) => {
                if let Some(app) = self.apps.get_mut(name).filter(|app| app.generation == generation) {
                    app.zygote_ready = true;
                    self.fork_missing(name).await;
                }
            }
            Some(ZygoteMessage::Failed { what, hint, traceback, page }) => {
                let hint = hint.map(|hint| format!(": {hint}")).unwrap_or_default();
                let traceback = traceback.filter(|text| !text.is_empty());
                let traceback = traceback.map(|text| format!("\n{}", text.trim_end())).unwrap_or_default();
                let why = format!("{name}: {what}{hint}{traceback}");
                if changing {
                    let change = self.change.as_mut();
                    if let Some(new) = change.and_then(|change| change.apps.get_mut(name)) {
                        new.page = page;
                    }
                    return self.import_ended(name, Err(why)).await;
                }
                self.errors.error_lines(&why);
            }
            Some(ZygoteMessage::Forked { serial, pid }) => self.forked(name, serial, pid).await,
            Some(ZygoteMessage::ForkFailed { serial, error }) => {
                self.errors.error(format_args!("{name}: cannot fork a worker: {error}"));
                if let Some(app) = self.apps.get_mut(name) {
                    app.workers.remove(&serial);
                }
                self.later(Duration::from_secs(1), Event::Fork(name.to_owned(), generation));
            }
            None if changing => {
                let why = format!("{name}: the interpreter ended while it imported the application");
                return self.import_ended(name, Err(why)).await;
            }
            None => {}
        }
        false
    }

    async fn forked(&mut self, name: &str, serial: u32, pid: i32) {
        let reaped = self.strangers.iter().position(|ended| ended.pid == pid);
        let ended = reaped.map(|index| self.strangers.swap_remove(index));
        let Some(app) = self.apps.get_mut(name) else { return };
        let Some(worker) = app.workers.get_mut(&serial) else { return };
        worker.pid = pid;
        if worker.leaving && ended.is_none() {
            // Told to go, or given up with its change, before it was there: nobody waits for it.
            return self.kill_if_alive(pid);
        }
        let admission = worker.admission(serial);
        self.tell_front(ToFront::Expect(name.to_owned(), admission)).await;
        if let Some(ended) = ended {
            self.worker_ended(name, serial, ended);
        }
    }

    /// The front said something. True when the server must end.
    pub(super) async fn front_said(&mut self, message: Option<FromFront>) -> bool {
        match message {
            Some(FromFront::Report(number, report)) => {
                self.report(number, Some(*report));
                false
            }
            Some(FromFront::StatusWanted(number)) => {
                self.later(Duration::ZERO, Event::StatusWanted(number));
                false
            }
            Some(FromFront::StackWanted { number, app, serial, thread }) => {
                self.ask_for_stack(number, &app, serial, thread);
                false
            }
            Some(FromFront::FoldersWanted(number, paths)) => {
                self.tell_folders(number, paths).await;
                false
            }
            Some(FromFront::Shown(errand)) => {
                self.proofs_shown(errand).await;
                false
            }
            Some(FromFront::Drained(number, meant, all)) => {
                self.drained(number, &meant, &all);
                false
            }
            Some(FromFront::Serving) => {
                self.switched().await;
                false
            }
            Some(FromFront::Refused(why)) => self.abandon(&why),
            Some(FromFront::Worker(app, report)) => self.worker_reported(&app, report).await,
            // Its end as a process says more.
            None => false,
        }
    }

    /// A process of ours serves, but nobody here hears it: another takes its place.
    pub(super) fn unheard(&mut self, pid: i32, why: &str) {
        self.errors.error(format_args!("process {pid} is not heard any more, and is ended: {why}"));
        if pid > 0 && pid == self.front.pid {
            let _ = sys::signal(pid, Signal::KILL);
        }
        self.kill_if_alive(pid);
    }

    /// Kills a process of ours that should have ended. One that has been reaped is not touched: its id may be another's.
    pub(super) fn kill_if_alive(&mut self, pid: i32) {
        let ours = |app: &super::App| {
            app.zygote.as_ref().is_some_and(|zygote| zygote.pid == pid)
                || app.workers.values().any(|worker| worker.pid == pid)
        };
        let changing = self.change.iter().flat_map(super::Change::pids).any(|other| other == pid);
        if pid > 0 && (changing || self.apps.values().any(ours)) {
            let _ = sys::signal(pid, Signal::KILL);
        }
    }
}

impl Worker {
    /// A worker that is being forked.
    pub(super) fn new(generation: u64, threads: u16, replaces: Option<u32>) -> Self {
        Self {
            pid: 0,
            generation,
            threads,
            started: Instant::now(),
            connected: false,
            leaving: false,
            is_due: false,
            last_words: None,
            replaces,
        }
    }

    /// The word for the front that it may connect.
    fn admission(&self, serial: u32) -> Admission {
        Admission { pid: self.pid, serial, generation: self.generation, threads: self.threads }
    }

    /// How long it may take to end. One whose threads are not all connected will be refused from now on, and nobody
    /// can tell it to.
    pub(super) fn patience(&self, grace: Duration) -> Duration {
        if self.connected { grace } else { PATIENCE.min(grace) }
    }
}
