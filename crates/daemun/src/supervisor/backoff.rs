//! How long to wait before something that keeps failing is started again.

use std::time::{Duration, Instant};

/// The first pause after a second quick failure.
const FIRST: Duration = Duration::from_millis(100);

/// The longest pause: how late a mended application is noticed.
const LONGEST: Duration = Duration::from_secs(5);

/// What lived for this long did not fail quickly.
const LONG_ENOUGH: Duration = Duration::from_secs(2);

/// Pauses that double with every quick failure and end with the first long life.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Something that was started at `started` has ended at `now`: how long to wait. A first failure waits for nothing.
    pub fn pause_after(&mut self, started: Instant, now: Instant) -> Duration {
        if now.saturating_duration_since(started) >= LONG_ENOUGH {
            self.failures = 0;
            return Duration::ZERO;
        }
        self.failures = self.failures.saturating_add(1);
        match self.failures {
            1 => Duration::ZERO,
            failures => FIRST.saturating_mul(1 << (failures - 2).min(10)).min(LONGEST),
        }
    }

    /// Quick failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_end_with_a_long_life() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..9).map(|_| backoff.pause_after(start, start).as_millis()).collect();
        assert_eq!(pauses, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.pause_after(start, start + LONG_ENOUGH), Duration::ZERO);
        assert_eq!(backoff.pause_after(start, start), Duration::ZERO);
    }
}
