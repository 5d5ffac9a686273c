//! How fast an application answers: what decides how many requests may be on their way to one thread.

use std::time::{Duration, Instant};

use daemun_protocol::frame::SLOTS;

/// An application whose slowest recent answer stayed below this may have several requests on their way to one thread.
const FAST: u32 = 1_000;

/// Work, in microseconds, that may wait in front of a thread: enough to outlast one round of the event loop.
const AHEAD: u32 = 2_000;

/// The slowest answer is remembered for at least this long.
const MEMORY: Duration = Duration::from_secs(1);

/// Running figures of one application, in microseconds.
#[derive(Debug)]
pub(super) struct Pace {
    average: f32,
    slowest: u32,
    slowest_before: u32,
    since: Instant,
    known: bool,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { average: 0.0, slowest: 0, slowest_before: 0, since: now, known: false }
    }

    /// One more answer.
    pub(super) fn record(&mut self, microseconds: u32, now: Instant) {
        if now.duration_since(self.since) >= MEMORY {
            self.slowest_before = self.slowest;
            self.slowest = 0;
            self.since = now;
        }
        self.slowest = self.slowest.max(microseconds);
        if self.known {
            self.average += (microseconds as f32 - self.average) / 16.0;
        } else {
            self.average = microseconds as f32;
            self.known = true;
        }
    }

    /// Requests that may be on their way to one thread: 1 unless every recent answer was fast.
    pub(super) fn depth(&self) -> usize {
        if !self.known || self.slowest.max(self.slowest_before) >= FAST {
            return 1;
        }
        ((AHEAD as f32 / self.average.max(1.0)) as usize).clamp(1, SLOTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_application_that_was_fast_throughout_gets_requests_ahead() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(pace.depth(), 1, "nothing is known");
        pace.record(10, start);
        assert_eq!(pace.depth(), SLOTS);
        pace.record(5_000, start);
        assert_eq!(pace.depth(), 1, "one slow answer");
        pace.record(10, start + MEMORY);
        assert_eq!(pace.depth(), 1, "still remembered");
        for step in 0..100 {
            pace.record(500, start + MEMORY * 2 + Duration::from_millis(step));
        }
        let depth = pace.depth();
        assert!((3..=5).contains(&depth), "2 ms of work ahead: {depth}");
    }
}
