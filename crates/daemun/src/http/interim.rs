//! Interim responses (1xx), which go ahead of the final one (RFC 9110, section 15.2): early hints (RFC 8297) and what a
//! gateway passes on. Also the handler's wish to be left when its client leaves.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Fields, Status};

/// Interim responses that wait to be written; more are dropped. A handler that says more than this before its connection
/// has had its turn helps nobody.
const MOST_WAITING: usize = 8;

/// Bytes of all interim responses to one request, with what each costs beyond its fields; more are dropped. A client that
/// takes none of them has them all kept for it: without this a worker or upstream could fill our memory with hints.
const MOST_BYTES: usize = 64 * 1024;

/// Bytes that one costs beyond its fields: its status line, or its frame and a place in a queue.
const OVERHEAD: usize = 64;

/// A handler's way of sending interim responses ahead of its answer.
///
/// To be used from within the handler's own future: the connection looks after each time it has polled that. Where the
/// client cannot take any (HTTP/1.0) they go nowhere.
#[derive(Clone, Debug, Default)]
pub struct Interim(Option<Arc<Waiting>>);

/// The connection's side.
#[derive(Debug, Default)]
pub struct InterimQueue(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    any: AtomicBool,
    follows: AtomicBool,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    responses: Vec<(Status, Fields)>,
    /// Of all that were sent for this request.
    bytes: usize,
}

impl Waiting {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Interim {
    /// For a client that cannot take any.
    pub fn none() -> Self {
        Self(None)
    }

    /// Whether the client can take them.
    pub fn is_wanted(&self) -> bool {
        self.0.is_some()
    }

    /// From now on the request is over when its client has closed the connection, even if only for sending. To be said by
    /// a handler whose work goes on at somebody's cost, such as a program of its own. A client that closes its sending
    /// half together with its request is answered all the same: `printf … | nc` does so.
    pub fn follow_client(&self) {
        if let Some(waiting) = &self.0 {
            waiting.follows.store(true, Ordering::Release);
        }
    }

    /// Sends one. Anything but a 1xx is dropped, and so are 100, which is the connection's own, and 101, after which the
    /// connection would speak another protocol.
    pub fn send(&self, status: Status, fields: Fields) {
        let Some(waiting) = self.0.as_ref().filter(|_| (102..200).contains(&status.code())) else { return };
        let cost = fields.iter().fold(OVERHEAD, |cost, field| cost + field.name().len() + field.value().len());
        let mut told = waiting.told();
        if told.responses.len() < MOST_WAITING && told.bytes + cost <= MOST_BYTES {
            told.bytes += cost;
            told.responses.push((status, fields));
            waiting.any.store(true, Ordering::Release);
        }
    }
}

impl InterimQueue {
    /// The sender for the next request. What an earlier one sends from now on goes nowhere.
    pub fn open(&mut self) -> Interim {
        // One that nobody else holds is as good as new; the lock is not taken.
        match Arc::get_mut(&mut self.0) {
            Some(waiting) => *waiting = Waiting::default(),
            None => self.0 = Arc::default(),
        }
        Interim(Some(Arc::clone(&self.0)))
    }

    /// Whether the handler wishes to be left when its client leaves.
    pub fn follows_client(&self) -> bool {
        self.0.follows.load(Ordering::Acquire)
    }

    /// Whether any waits: one load.
    pub fn has_any(&self) -> bool {
        self.0.any.load(Ordering::Acquire)
    }

    /// What waits, in order.
    pub fn take(&self) -> Vec<(Status, Fields)> {
        let mut told = self.0.told();
        self.0.any.store(false, Ordering::Release);
        std::mem::take(&mut told.responses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_comes_out_in_order_and_only_if_it_is_interim() {
        let mut queue = InterimQueue::default();
        let interim = queue.open();
        for code in [103, 200, 100, 101, 102] {
            interim.send(Status::from_code(code).unwrap(), Fields::new());
        }
        let taken: Vec<u16> = queue.take().iter().map(|(status, _)| status.code()).collect();
        assert_eq!((taken, queue.has_any()), (vec![103, 102], false));
    }

    #[test]
    fn a_sender_of_an_earlier_request_reaches_nobody() {
        let mut queue = InterimQueue::default();
        let kept = queue.open();
        let now = queue.open();
        kept.send(Status::from_code(103).unwrap(), Fields::new());
        assert!(!queue.has_any());
        now.send(Status::from_code(103).unwrap(), Fields::new());
        assert!(queue.has_any());
        Interim::none().send(Status::OK, Fields::new());
    }

    #[test]
    fn a_handler_cannot_fill_memory_with_hints() {
        let mut queue = InterimQueue::default();
        let interim = queue.open();
        (0..100).for_each(|_| interim.send(Status::EARLY_HINTS, Fields::new()));
        assert_eq!(queue.take().len(), MOST_WAITING);
    }

    #[test]
    fn hints_that_nobody_takes_are_bounded_for_each_request() {
        let mut queue = InterimQueue::default();
        for _ in 0..2 {
            let interim = queue.open();
            let mut bytes = 0;
            for _ in 0..100 {
                interim.send(Status::EARLY_HINTS, Fields::new().with("Link", vec![b'x'; 1000]));
                bytes += queue.take().iter().map(|(_, fields)| fields.get("Link").unwrap().len()).sum::<usize>();
            }
            assert!((60_000..MOST_BYTES).contains(&bytes), "{bytes}");
        }
    }
}
