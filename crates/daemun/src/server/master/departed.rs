//! Workers that have ended unasked: replaced at once, and certified once the front has said what they were serving.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::death::Certificate;
use super::events::Event;
use super::{Master, Phase, Worker};
use crate::sys::Ended;

/// How long the next worker waits for the front to say what one was serving whose end the kernel has told of: the two come
/// over different ways.
const WORDS: Duration = Duration::from_millis(50);

/// How much longer its certificate waits. On a machine that is that busy nothing is gained by one that does not know.
const LATE_WORDS: Duration = Duration::from_secs(2);

/// A worker that has ended and of which the front has not said yet what it was serving.
pub(super) struct Departed {
    pub(super) worker: Worker,
    ended: Ended,
    at: Instant,
    /// Whether the kernel ended it because memory had run out, as far as could be told at once: others may follow.
    by_oom: bool,
    /// What was done about it, once that was decided.
    sequel: Option<Sequel>,
}

/// What follows the end of a worker.
enum Sequel {
    /// Nothing that is to be told here.
    Silence,
    /// It was about to end.
    WasLeaving,
    /// The one that it was to replace stays.
    OtherServesOn,
    /// Another is forked after this pause, the n-th failure in a row where there is one.
    Replaced(Duration, u32),
    /// The server stops.
    Stop,
}

impl Master {
    pub(super) fn worker_ended(&mut self, name: &str, serial: u32, ended: Ended) {
        let Some(app) = self.apps.get_mut(name) else { return };
        let Some(worker) = app.workers.remove(&serial) else { return };
        if app.generation == u64::MAX {
            return self.forget_removed();
        }
        if worker.leaving || self.phase == Phase::Draining {
            return;
        }
        let knows_all = worker.last_words.is_some();
        // Only a SIGKILL that was not ours can be the kernel's.
        let by_oom = ended.signal == Some(Signal::KILL.as_raw()) && self.oom_kills.more();
        let departed = Departed { worker, ended, at: Instant::now(), by_oom, sequel: None };
        if knows_all {
            return self.mourn(name, serial, departed);
        }
        // One that has not connected may have, without the front having come to say so.
        app.departed.insert(serial, departed);
        self.later(WORDS, Event::WordsDeadline(name.to_owned(), serial));
    }

    /// The front has had its time to say what a worker that has ended was serving: first that which its successor waits
    /// for, then that of its certificate.
    pub(super) fn words_deadline(&mut self, name: &str, serial: u32) {
        let Some(app) = self.apps.get_mut(name) else { return };
        let Some(mut departed) = app.departed.remove(&serial) else { return };
        if departed.sequel.is_some() || !departed.worker.connected {
            return self.mourn(name, serial, departed);
        }
        departed.sequel = Some(self.succeed(name, &departed));
        if let Some(app) = self.apps.get_mut(name) {
            app.departed.insert(serial, departed);
            self.later(LATE_WORDS, Event::WordsDeadline(name.to_owned(), serial));
        }
    }

    /// The front has said what a worker that has ended was serving.
    pub(super) fn told_of_end(&mut self, name: &str, serial: u32) {
        if let Some(departed) = self.apps.get_mut(name).and_then(|app| app.departed.remove(&serial)) {
            self.mourn(name, serial, departed);
        }
    }

    /// Writes the certificates for which nobody will say anything any more: the server is at its end, and replaces nobody.
    pub(super) fn mourn_all(&mut self) {
        self.phase = Phase::Draining;
        let departed = |(name, app): (&String, &mut super::App)| {
            let all = std::mem::take(&mut app.departed);
            all.into_iter().map(|(serial, departed)| (name.clone(), serial, departed)).collect::<Vec<_>>()
        };
        let all: Vec<_> = self.apps.iter_mut().flat_map(departed).collect();
        for (name, serial, departed) in all {
            self.mourn(&name, serial, departed);
        }
    }

    /// Has a worker replaced that nobody had told to end.
    fn succeed(&mut self, name: &str, departed: &Departed) -> Sequel {
        let Some(app) = self.apps.get_mut(name) else { return Sequel::Silence };
        if app.generation == u64::MAX {
            self.forget_removed();
            return Sequel::Silence;
        }
        let worker = &departed.worker;
        let change = self.change.as_ref().is_some_and(|change| change.is_generation(name, worker.generation));
        if change && let Some(why) = departed.ended.code.and_then(unfit) {
            let why = format!("{name}: a worker {why}; the log of the server says more");
            self.later(Duration::ZERO, Event::Unfit(worker.generation, why));
            return Sequel::Silence;
        }
        if worker.generation != app.generation && !change {
            return Sequel::WasLeaving;
        }
        if self.phase == Phase::Draining {
            return Sequel::Stop;
        }
        self.desk.restarted(name, if departed.ended.signal.is_some() { "killed" } else { "exited" });
        if let Some(old) = worker.replaces.and_then(|old| app.workers.get_mut(&old)) {
            // The one that it was to replace serves on, and is looked at again.
            old.is_due = false;
            return Sequel::OtherServesOn;
        }
        let pause = app.backoff.pause_after(worker.started, Instant::now());
        let failures = app.backoff.failures();
        self.later(pause, Event::Fork(name.to_owned(), worker.generation));
        Sequel::Replaced(pause, failures)
    }

    /// Writes the certificate of a worker, and has it replaced where that was not done yet.
    fn mourn(&mut self, name: &str, serial: u32, mut departed: Departed) {
        let sequel = departed.sequel.take().unwrap_or_else(|| self.succeed(name, &departed));
        let Departed { worker, ended, at, by_oom, .. } = departed;
        let Some(app) = self.apps.get(name) else { return };
        let age = at.saturating_duration_since(worker.started);
        let python = &*app.python;
        let text = Certificate { name, serial, ended, worker: &worker, age, python, by_oom }.to_string();
        match sequel {
            Sequel::Silence => return,
            Sequel::WasLeaving => return self.errors.warning(format_args!("{text}; it was about to end")),
            Sequel::OtherServesOn => {
                self.errors.error(format_args!("{text}; the worker that it was to replace serves on"));
            }
            Sequel::Replaced(Duration::ZERO, _) => self.errors.error(format_args!("{text}; it is replaced")),
            Sequel::Replaced(pause, failures) => {
                self.errors.error(format_args!("{text}; {failures} in a row: the next one waits {pause:?}"));
            }
            Sequel::Stop => self.errors.error(format_args!("{text}; the server stops")),
        }
        self.desk.died(name, serial, ended, &text);
    }
}

/// What is wrong with a worker that has left with this code by itself: those of the shim.
fn unfit(code: i32) -> Option<&'static str> {
    match code {
        71 => Some("could not import the application"),
        72 => Some("did not answer `ready` well"),
        _ => None,
    }
}
