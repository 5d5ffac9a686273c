//! An event loop with nothing to do but to wait for a crowded application rests, instead of being woken for each request
//! that can only join the queue.
//!
//! Where many requests wait for workers that are all busy, one that comes is of no use before an answer goes. To be woken
//! for each costs more than to handle it, above all on virtual machines. So, just before an event loop would sleep until
//! anything happens, [`rest`] lets it sleep until a worker has written, to it or to another event loop that has passed the
//! answers on, for at most [`REST`]; what came meanwhile is then taken in one go. Network cards moderate their interrupts for the same reason.
//!
//! It does so only where everything that the event loop has begun waits for such an application: no file, tunnel, upload
//! or handshake is slowed down. Whoever comes with something else is late by that rest once, and for [`ALERT`] after it
//! the event loop does not rest.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::UnixStream;

/// The longest rest: a little more than a worker of a crowded application holds answers back for (`HOLD_CROWDED` in the
/// shim).
const REST: Duration = Duration::from_millis(5);

/// How long an event loop does not rest after it had something else to do.
const ALERT: Duration = Duration::from_millis(20);

/// Lanes up to which an event loop rests: the kernel looks at each.
const MAX_LANES: usize = 64;

/// What one event loop has in hand.
#[derive(Default)]
struct Hands {
    /// What it has begun and not ended.
    busy: Cell<u32>,
    /// How much of that only waits for an application that is crowded.
    waiting: Cell<u32>,
    /// What it has begun since it last slept, less what went to wait.
    other: Cell<i32>,
    alert_until: Cell<Option<Instant>>,
    /// Where the workers of crowded applications will write.
    lanes: RefCell<Vec<Arc<UnixStream>>>,
    /// Rung by other event loops when something is there for this one: answers of workers that write to them.
    bell: RefCell<Option<Arc<OwnedFd>>>,
}

thread_local! {
    static HANDS: Hands = Hands::default();
}

/// Something that this event loop has begun: a request, a handshake. It ends when this is dropped.
#[derive(Debug)]
pub struct Busy(());

/// A request that waits for an application that is crowded, until this is dropped.
#[derive(Debug)]
pub struct Waiting(());

/// A lane on which a worker of a crowded application will write, until this is dropped.
#[derive(Debug)]
pub struct Expected(Arc<UnixStream>);

/// Has rests on this event loop end when other event loops ring.
pub fn listen_for(bell: &Arc<OwnedFd>) {
    HANDS.with(|hands| *hands.bell.borrow_mut() = Some(Arc::clone(bell)));
}

/// Rests, if that harms nobody. To be called when an event loop is about to sleep.
pub fn rest() {
    HANDS.with(|hands| hands.rest(REST));
}

// === impl Hands ===

impl Hands {
    /// Rests until this many lanes have something to read or the bell is rung, which is none after `longest`. `None`: there was
    /// no rest.
    fn rest(&self, longest: Duration) -> Option<usize> {
        if self.waiting.get() == 0 {
            return None;
        }
        let now = Instant::now();
        if self.other.replace(0) != 0 || self.busy.get() != self.waiting.get() {
            self.alert_until.set(Some(now + ALERT));
        }
        let lanes = self.lanes.borrow();
        let bell = self.bell.borrow();
        let is_alert = self.alert_until.get().is_some_and(|until| now < until);
        if is_alert || lanes.len() > MAX_LANES {
            return None;
        }
        let mut watched: Vec<PollFd<'_>> = lanes.iter().map(|lane| PollFd::new(lane, PollFlags::IN)).collect();
        watched.extend(bell.iter().map(|bell| PollFd::new(bell, PollFlags::IN)));
        if watched.is_empty() {
            return None;
        }
        let longest = Timespec { tv_sec: 0, tv_nsec: longest.subsec_nanos().into() };
        // Whatever ends it, the event loop looks for itself.
        Some(poll(&mut watched, Some(&longest)).unwrap_or_default())
    }
}

// === impl Busy ===

impl Busy {
    /// Something begins.
    pub fn begin() -> Self {
        HANDS.with(|hands| {
            hands.busy.set(hands.busy.get().wrapping_add(1));
            hands.other.set(hands.other.get().wrapping_add(1));
        });
        Self(())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // When the process ends, what is left may be dropped after the thread's own.
        let _ = HANDS.try_with(|hands| hands.busy.set(hands.busy.get().wrapping_sub(1)));
    }
}

// === impl Waiting ===

impl Waiting {
    /// What was begun last now waits.
    pub fn begin() -> Self {
        HANDS.with(|hands| {
            hands.waiting.set(hands.waiting.get().wrapping_add(1));
            hands.other.set(hands.other.get().wrapping_sub(1));
        });
        Self(())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = HANDS.try_with(|hands| hands.waiting.set(hands.waiting.get().wrapping_sub(1)));
    }
}

// === impl Expected ===

impl Expected {
    /// A worker will write on this lane.
    pub fn on(lane: &Arc<UnixStream>) -> Self {
        HANDS.with(|hands| hands.lanes.borrow_mut().push(Arc::clone(lane)));
        Self(Arc::clone(lane))
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let _ = HANDS.try_with(|hands| hands.lanes.borrow_mut().retain(|lane| !Arc::ptr_eq(lane, &self.0)));
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    /// How many lanes end a rest, if there is one.
    fn rests() -> Option<usize> {
        HANDS.with(|hands| hands.rest(Duration::from_millis(1)))
    }

    fn lane() -> (Arc<UnixStream>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Arc::new(ours), theirs)
    }

    #[tokio::test]
    async fn an_event_loop_rests_only_where_all_that_it_has_waits_for_a_crowded_application() {
        let (lane, _worker) = lane();
        let _expected = Expected::on(&lane);
        assert_eq!(rests(), None, "nothing waits");
        let (_request, _waits) = (Busy::begin(), Waiting::begin());
        assert_eq!(rests(), Some(0));
        let other = Busy::begin();
        assert_eq!(rests(), None, "a file is being sent");
        drop(other);
        let until = HANDS.with(|hands| hands.alert_until.get());
        assert!(until.is_some(), "and a moment ago still was");
        HANDS.with(|hands| hands.alert_until.set(None));
        assert_eq!(rests(), Some(0));
    }

    #[tokio::test]
    async fn what_came_and_went_since_the_last_sleep_counts_too() {
        let (lane, _worker) = lane();
        let _expected = Expected::on(&lane);
        let (_request, _waits) = (Busy::begin(), Waiting::begin());
        drop(Busy::begin());
        assert_eq!(rests(), None);
    }

    #[tokio::test]
    async fn an_answer_ends_a_rest_and_without_a_lane_there_is_none() {
        let (lane, worker) = lane();
        let (_request, _waits) = (Busy::begin(), Waiting::begin());
        assert_eq!(rests(), None, "no lane");
        let expected = Expected::on(&lane);
        worker.try_write(b"an answer").unwrap();
        assert_eq!(rests(), Some(1), "it is there");
        drop(expected);
        HANDS.with(|hands| assert!(hands.lanes.borrow().is_empty()));
    }

    #[test]
    fn the_bell_of_other_event_loops_ends_a_rest() {
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        listen_for(&bell);
        let (_request, _waits) = (Busy::begin(), Waiting::begin());
        assert_eq!(rests(), Some(0), "an application without a lane here");
        rustix::io::write(&bell, &1_u64.to_ne_bytes()).unwrap();
        assert_eq!(rests(), Some(1));
    }
}
