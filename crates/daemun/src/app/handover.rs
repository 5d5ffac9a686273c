//! Who has a request, the front or a worker: the states of a request in flight, and each step between them.
//!
//! 1. The front makes the flags of a slot fresh and sends the request ([`Flags::refresh`]).
//! 2. The worker says that it has begun, just before it calls the application ([`Flags::start`]).
//! 3. The front may ask for it back ([`SlotState::look`]), and gets it where it has not begun: by the worker's word
//!    ([`SlotState::skipped`]), or, where the worker is busy with another, by what a later look finds.
//! 4. Or the worker dies, and [`SlotState::after_death`] says what becomes of it.
//!
//! No request is lost on these ways, and none that may not be repeated is called twice. `model` tries every interleaving
//! of these very functions; the pool's tests try the pool around them.
//!
//! Knows nothing of sockets, queues or clocks.

#[cfg_attr(not(test), expect(dead_code, reason = "the worker's half is called by the accelerator, here by the model"))]
pub(super) mod flags;
#[cfg(test)]
mod model;

use std::sync::atomic::Ordering;
use std::time::Instant;

use flags::{Byte, Flags};

/// Workers that one request may see die.
pub(super) const MOST_DEATHS: u8 = 2;

/// What the front knows of a request in flight. `Moment` is the clock's; the model has none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum SlotState<Moment = Instant> {
    /// Its answer is awaited.
    Held,
    /// Its head has come.
    Answering,
    /// `revoked` was stored at this moment; whether it was in time is not known yet.
    Revoking(Moment),
    /// It was taken back in time; what still comes for it is dropped.
    Moved,
    /// Its client is gone, or was told of a timeout; what still comes for it is dropped.
    Abandoned,
}

/// What the worker's word that it skipped a request means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Skipped {
    /// It is the front's again, and goes to another.
    TakenBack,
    /// Nobody waits for it here any more.
    Settled,
    /// It was not asked for back: the worker is broken.
    Unasked,
}

/// How far a worker that died had come with a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Progress {
    /// The application was not called.
    Waiting,
    /// The application was being called: this may be what killed the worker.
    Running,
    /// The application had returned, since its thread had begun another; the answer was not written yet.
    Finished,
}

/// What becomes of a request whose worker died.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// Nobody waits for it here.
    Settled,
    /// It goes to another as if it had never been sent.
    SentAnew,
    /// It is sent once more, as one that cannot have killed its worker.
    Replayed,
    /// It is sent once more, to a worker that does nothing else: it may have killed this one.
    Suspected,
    /// Its client is told.
    Lost,
}

/// How far a worker had come; `begun_later`: its thread had begun one that was sent after it. A thread takes its
/// requests in their order, and one at a time.
pub(super) fn progress(is_started: bool, begun_later: bool) -> Progress {
    match (is_started, begun_later) {
        (false, _) => Progress::Waiting,
        (true, false) => Progress::Running,
        (true, true) => Progress::Finished,
    }
}

impl<B: Byte> Flags<'_, B> {
    /// Front: before a request is sent to this slot. What carries the request carries these stores.
    pub(super) fn refresh(&self) {
        self.started.store(0, Ordering::Release);
        self.revoked.store(0, Ordering::Release);
    }

    /// Front: whether the application was called.
    pub(super) fn is_started(&self) -> bool {
        self.started.load(Ordering::Acquire) != 0
    }

    /// Front: asks for the request back; a later [`Flags::is_started`] says whether that was in time.
    fn revoke(&self) {
        self.revoked.store(1, Ordering::Release);
        B::fence(Ordering::SeqCst);
    }
}

impl<Moment: Copy> SlotState<Moment> {
    /// Whether what comes from the worker still has somebody who waits for it.
    pub(super) fn is_wanted(self) -> bool {
        !matches!(self, Self::Moved | Self::Abandoned)
    }

    /// A part of the answer has come; false where it is to be dropped.
    pub(super) fn answered(&mut self) -> bool {
        if self.is_wanted() {
            *self = Self::Answering;
        }
        self.is_wanted()
    }

    /// The worker says that it did not call the application, having been asked to.
    pub(super) fn skipped(self) -> Skipped {
        match self {
            Self::Revoking(_) => Skipped::TakenBack,
            Self::Moved | Self::Abandoned => Skipped::Settled,
            Self::Held | Self::Answering => Skipped::Unasked,
        }
    }

    /// One look at a request behind a thread that has fallen silent: asks for it back and, at a later look, takes it.
    /// True when it is the front's again. `is_visible` says whether a barrier on every processor has come after that
    /// moment; that is for workers in plain Python, which have none of their own.
    pub(super) fn look<B: Byte>(
        &mut self,
        flags: &Flags<'_, B>,
        now: Moment,
        is_visible: impl Fn(Moment) -> bool,
    ) -> bool {
        match *self {
            Self::Held if !flags.is_started() => {
                flags.revoke();
                *self = Self::Revoking(now);
                false
            }
            Self::Revoking(since) if is_visible(since) && !flags.is_started() => {
                *self = Self::Moved;
                true
            }
            _ => false,
        }
    }

    /// The worker is gone. `may_repeat`: calling the application twice is the same as once. `deaths`: how many workers
    /// have died at it, were this one counted.
    pub(super) fn after_death(self, progress: Progress, may_repeat: bool, deaths: u8) -> Fate {
        match (self, progress) {
            (Self::Moved | Self::Abandoned, _) => Fate::Settled,
            (Self::Held | Self::Revoking(_), Progress::Waiting) => Fate::SentAnew,
            (Self::Held | Self::Revoking(_), Progress::Finished) if may_repeat => Fate::Replayed,
            (Self::Held | Self::Revoking(_), Progress::Running) if may_repeat && deaths < MOST_DEATHS => {
                Fate::Suspected
            }
            // Something of it was passed on, or it may have been done, or it kills.
            _ => Fate::Lost,
        }
    }
}
