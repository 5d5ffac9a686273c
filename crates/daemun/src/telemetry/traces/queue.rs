//! Spans on their way to whoever sends them.
//!
//! Event loops append and never wait; a thread of its own takes them. What finds no room is counted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Bytes that wait to be sent; beyond it spans are dropped. 8 MiB hold some 20,000 requests: what a collector misses while
/// it is started anew.
const MAX_WAITING: usize = 8 * 1024 * 1024;

/// Spans that make a batch worth sending at once: the batch of OpenTelemetry's own exporters.
pub const BATCH: usize = 512;

/// The spans of one request, as fields of the message that holds them.
#[derive(Debug)]
pub struct Spans {
    /// How many.
    pub count: u32,
    /// Their bytes.
    pub bytes: Vec<u8>,
}

/// Spans that wait.
#[derive(Debug, Default)]
pub struct SpanQueue {
    state: Mutex<State>,
    /// There is something to do.
    woken: Notify,
    /// Whoever takes them has ended.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Spans>,
    spans: usize,
    bytes: usize,
    is_closing: bool,
    has_ended: bool,
}

static SENT: AtomicU64 = AtomicU64::new(0);
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Spans that a collector took, and those that nobody took.
pub fn counters() -> (u64, u64) {
    (SENT.load(Ordering::Relaxed), DROPPED.load(Ordering::Relaxed))
}

/// A collector took so many.
pub fn count_sent(spans: u64) {
    SENT.fetch_add(spans, Ordering::Relaxed);
}

/// So many were given up.
pub fn count_dropped(spans: u64) {
    DROPPED.fetch_add(spans, Ordering::Relaxed);
}

impl SpanQueue {
    /// Appends the spans of a request, where there is room.
    pub fn push(&self, spans: Spans) {
        let mut state = self.lock();
        if state.bytes + spans.bytes.len() > MAX_WAITING || state.is_closing {
            drop(state);
            return count_dropped(spans.count.into());
        }
        let before = state.spans;
        state.bytes += spans.bytes.len();
        state.spans += spans.count as usize;
        let is_worth_it = before == 0 || (before < BATCH && state.spans >= BATCH);
        state.waiting.push_back(spans);
        drop(state);
        if is_worth_it {
            self.woken.notify_one();
        }
    }

    /// Takes what makes a batch, or what there is.
    pub fn take(&self) -> Vec<Spans> {
        let mut state = self.lock();
        let mut taken = Vec::new();
        let mut spans = 0;
        while spans < BATCH
            && let Some(next) = state.waiting.pop_front()
        {
            spans += next.count as usize;
            state.bytes -= next.bytes.len();
            state.spans -= next.count as usize;
            taken.push(next);
        }
        taken
    }

    /// Spans that wait.
    pub fn len(&self) -> usize {
        self.lock().spans
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until it was filled or closed since the last time.
    pub async fn woken(&self) {
        self.woken.notified().await;
    }

    /// Takes no more; whoever takes from it is to send what there is and to end.
    pub fn close(&self) {
        self.lock().is_closing = true;
        self.woken.notify_one();
    }

    /// Whether it takes no more.
    pub fn is_closing(&self) -> bool {
        self.lock().is_closing
    }

    /// Whoever takes from it has ended.
    pub fn end(&self) {
        self.lock().has_ended = true;
        self.ended.notify_all();
    }

    /// Waits for that, at most this long.
    pub fn wait_for_end(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let mut state = self.lock();
        while !state.has_ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Plain data: usable even if a thread panicked while it held the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(count: u32, length: usize) -> Spans {
        Spans { count, bytes: vec![0; length] }
    }

    #[test]
    fn a_batch_is_taken_at_a_time_and_nothing_is_split() {
        let queue = SpanQueue::default();
        (0..200).for_each(|_| queue.push(spans(3, 10)));
        let counts = || queue.take().iter().map(|spans| spans.count).sum::<u32>();
        assert_eq!((counts(), counts(), counts()), (513, 87, 0));
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted() {
        let queue = SpanQueue::default();
        let (_, before) = counters();
        (0..8).for_each(|_| queue.push(spans(2, MAX_WAITING / 8)));
        queue.push(spans(3, 1));
        assert_eq!(queue.len(), 16);
        // Other tests may count too.
        assert!(counters().1 >= before + 3);
        queue.take();
        queue.push(spans(3, 1));
        assert_eq!(queue.len(), 3);
        queue.close();
        queue.push(spans(3, 1));
        assert_eq!(queue.len(), 3);
        assert!(!queue.wait_for_end(Duration::ZERO));
        queue.end();
        assert!(queue.wait_for_end(Duration::ZERO));
    }
}
