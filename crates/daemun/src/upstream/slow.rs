//! Servers that answer, but much later than the others (`slow`): a disk that dies, a neighbour that takes the processor.
//!
//! Each answer's time to its head is counted. Once there are as many as are looked at together their mean is the server's
//! time, and the next ones are counted anew. A server whose time is so many times the median of the others' gets nothing for
//! `eject`; then a request finds out, as after failures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::group::{Group, Serving};
use super::server::{Server, lock};
use super::settings::SlowSettings;

/// How long the answers of one server took.
#[derive(Default)]
pub(super) struct Times {
    /// Microseconds together, and how many they are.
    sum: AtomicU64,
    count: AtomicU32,
    /// The mean of those that were looked at last, in microseconds; 0 for none.
    mean: AtomicU64,
}

impl Times {
    /// An answer took this long.
    pub(super) fn add(&self, time: Duration) {
        self.sum.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Nothing is known any more.
    pub(super) fn forget(&self) {
        self.take();
        self.mean.store(0, Ordering::Relaxed);
    }

    /// Takes a mean where enough answers have come since the last; whether it is new.
    fn settle(&self, answers: u32) -> bool {
        if self.count.load(Ordering::Relaxed) < answers {
            return false;
        }
        let (sum, count) = self.take();
        self.mean.store((sum / u64::from(count.max(1))).max(1), Ordering::Relaxed);
        true
    }

    fn take(&self) -> (u64, u32) {
        (self.sum.swap(0, Ordering::Relaxed), self.count.swap(0, Ordering::Relaxed))
    }

    fn mean(&self) -> Option<u64> {
        Some(self.mean.load(Ordering::Relaxed)).filter(|&mean| mean > 0)
    }
}

impl Group {
    /// Leaves servers alone that are slower than the others. At most half of them: where most are slow it is not theirs.
    pub(super) fn look_for_slow(&self, serving: &Serving) {
        let Some(slow) = serving.settings.slow else { return };
        let now = Instant::now();
        for server in &serving.servers {
            if !server.state.times.settle(slow.answers) || !server.is_available(now) {
                continue;
            }
            let others = || serving.servers.iter().filter(|other| !Arc::ptr_eq(other, server));
            let left = others().filter(|other| other.is_available(now)).count();
            let means = others().filter_map(|other| other.state.times.mean()).collect();
            if let Some((own, median)) = is_slow(server.state.times.mean(), means, &slow)
                && left * 2 >= serving.servers.len()
            {
                self.leave_alone(server, serving, (own, median), now);
            }
        }
    }

    fn leave_alone(&self, server: &Server, serving: &Serving, (own, median): (u64, u64), now: Instant) {
        let time = serving.settings.eject;
        lock(&server.state.circuit).open(now, time);
        // What it was says nothing of how it is when it is asked again.
        server.state.times.forget();
        let seconds = |micros: u64| micros as f64 / 1e6;
        (self.tell)(&format!(
            "upstream {}: {} gets nothing for {} s: its answers take {:.3} s, those of the others {:.3} s (`slow`)",
            self.name(),
            server.name(),
            time.as_secs_f32(),
            seconds(own),
            seconds(median),
        ));
    }
}

/// A server's time and the median of the others', where that makes it slow.
fn is_slow(own: Option<u64>, mut others: Vec<u64>, slow: &SlowSettings) -> Option<(u64, u64)> {
    others.sort_unstable();
    // The lower one of two in the middle: of two servers the fast one judges the slow one.
    let median = *others.get(others.len().saturating_sub(1) / 2)?;
    let own = own?;
    let is_slow = own > median.saturating_mul(slow.times.into()) && u128::from(own) > slow.over.as_micros();
    is_slow.then_some((own, median))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_slow_by_what_the_others_take() {
        let slow = SlowSettings { times: 3, over: Duration::from_millis(100), answers: 2 };
        for (own, others, want) in [
            (Some(400_000), vec![100_000, 90_000, 5_000_000], Some((400_000, 100_000))),
            (Some(400_000), vec![200_000, 190_000], None),
            (Some(99_000), vec![1_000], None),
            (Some(400_000), vec![], None),
            (None, vec![1_000], None),
        ] {
            assert_eq!(is_slow(own, others.clone(), &slow), want, "{own:?} {others:?}");
        }
    }

    #[test]
    fn a_mean_is_taken_of_enough_answers() {
        let times = Times::default();
        times.add(Duration::from_micros(10));
        assert!(!times.settle(2));
        times.add(Duration::from_micros(30));
        assert!(times.settle(2) && !times.settle(2));
        assert_eq!(times.mean(), Some(20));
        times.forget();
        assert_eq!(times.mean(), None);
    }
}
