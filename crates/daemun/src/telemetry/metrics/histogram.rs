//! Times, in buckets.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::shard::{bump, read};

/// Upper bounds of the buckets in seconds; the last bucket has none. From a file in memory to a report that takes as
/// long as the usual timeout.
pub const BOUNDS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The same in nanoseconds, so that counting needs no floating point.
const NANOS: [u64; 15] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];

/// Counters of one thread.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

/// The sum over all threads.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Distribution {
    /// How many fell into each bucket, not those below it.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// All together.
    pub seconds: f64,
}

impl Histogram {
    pub(super) fn observe(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let bucket = NANOS.iter().take_while(|&&bound| nanos > bound).count();
        bump(&self.buckets[bucket], 1);
        bump(&self.nanos, nanos);
    }

    pub(super) fn add_to(&self, sum: &mut Distribution) {
        for (bucket, total) in self.buckets.iter().zip(&mut sum.buckets) {
            *total += read(bucket);
        }
        sum.seconds += read(&self.nanos) as f64 / 1e9;
    }
}

impl Distribution {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_bucket_that_it_does_not_exceed() {
        for (bound, nanos) in BOUNDS.iter().zip(NANOS) {
            assert_eq!((bound * 1e9).round() as u64, nanos);
        }
        let histogram = Histogram::default();
        for time in [0, 500_000, 500_001, 30_000_000_000, 30_000_000_001] {
            histogram.observe(Duration::from_nanos(time));
        }
        let mut sum = Distribution::default();
        histogram.add_to(&mut sum);
        assert_eq!((sum.buckets[0], sum.buckets[1], sum.buckets[14], sum.buckets[15]), (2, 1, 1, 1));
        assert_eq!(sum.count(), 5);
        assert!((sum.seconds - 60.001_000_002).abs() < 1e-6);
    }
}
