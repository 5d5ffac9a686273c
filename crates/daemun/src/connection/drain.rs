//! Going down: one value that every connection is passed.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

/// How far the end has come.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    /// Not at all.
    Serving,
    /// Answers ask for close, so that clients move elsewhere; idle connections stay (`drain_delay`).
    AskingForClose,
    /// Idle connections are closed, busy ones after their answer.
    Draining,
}

/// The phase, and who is to be woken when it changes.
///
/// Not a `tokio::sync::watch`: each idle connection would take its lock twice a request. Here a connection registers
/// its waker once in its life.
#[derive(Default)]
pub struct Drain {
    phase: AtomicU8,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Drain {
    /// The phase of now.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Serving,
            1 => Phase::AskingForClose,
            _ => Phase::Draining,
        }
    }

    /// Goes on to `phase`; never back. Wakes every idle connection.
    pub fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        for waker in self.lock().wakers.iter().flatten() {
            waker.wake_by_ref();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place among those who are woken.
#[derive(Default)]
pub(super) struct Place(Option<(usize, Waker)>);

impl Place {
    /// Has the task woken when the phase changes. Look at the phase after it, not before.
    pub(super) fn register(&mut self, drain: &Drain, context: &Context<'_>) {
        if self.0.as_ref().is_some_and(|(_, waker)| waker.will_wake(context.waker())) {
            return;
        }
        let waker = context.waker().clone();
        let mut waiting = drain.lock();
        let at = self.0.as_ref().map(|(at, _)| *at).or_else(|| waiting.free.pop());
        let at = at.unwrap_or_else(|| {
            waiting.wakers.push(None);
            waiting.wakers.len() - 1
        });
        waiting.wakers[at] = Some(waker.clone());
        self.0 = Some((at, waker));
    }

    /// Gives the place up.
    pub(super) fn leave(&mut self, drain: &Drain) {
        if let Some((at, _)) = self.0.take() {
            let mut waiting = drain.lock();
            waiting.wakers[at] = None;
            waiting.free.push(at);
        }
    }
}
