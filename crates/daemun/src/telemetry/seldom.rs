//! Lines that would otherwise come with every refused request: one an interval, with the number of the others.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Says something at most once an interval.
#[derive(Debug)]
pub struct Seldom {
    began: Instant,
    /// Milliseconds since `began` before which nothing is said again.
    quiet_until: AtomicU64,
    /// What was not said.
    missed: AtomicU64,
}

/// Long enough for a log to stay readable in an attack, short enough to see that it goes on.
const INTERVAL: Duration = Duration::from_secs(10);

impl Default for Seldom {
    fn default() -> Self {
        Self { began: Instant::now(), quiet_until: AtomicU64::new(0), missed: AtomicU64::new(0) }
    }
}

impl Seldom {
    /// It has happened. Gives how often since it was last said, this time included, if it is to be said now.
    pub fn happened(&self) -> Option<u64> {
        let now = self.began.elapsed().as_millis() as u64;
        let until = self.quiet_until.load(Ordering::Relaxed);
        let next = now + INTERVAL.as_millis() as u64;
        let turn = now >= until
            && self.quiet_until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if turn {
            return Some(self.missed.swap(0, Ordering::Relaxed) + 1);
        }
        self.missed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_and_the_others_are_counted() {
        let seldom = Seldom::default();
        assert_eq!((seldom.happened(), seldom.happened(), seldom.happened()), (Some(1), None, None));
        seldom.quiet_until.store(0, Ordering::Relaxed);
        assert_eq!(seldom.happened(), Some(3));
    }
}
