//! How fast an application answers: what decides how many requests may be on their way to one thread.

use std::time::Duration;

use daemun_protocol::frame::SLOTS;

/// An application that answers in less than this, in microseconds, may have several requests on their way to one
/// thread. A slow one among them does no harm for long: what waits behind a silent thread is taken back.
const FAST: f32 = 1_000.0;

/// Work, in microseconds, that may wait in front of a thread: enough to outlast one round of the event loop.
const AHEAD: f32 = 2_000.0;

/// What a single answer counts at most: on a busy machine a thread may lose the processor for much longer than the
/// application took.
const CLIP: f32 = 2.0 * FAST;

/// A thread from which nothing was heard for this long while it had work is taken to be blocked in a call, and its
/// siblings may run. Shorter would make threads fight over the interpreter's lock for calls that are nearly done, and it
/// must be longer than a worker holds answers back.
const SILENCE: Duration = Duration::from_millis(1);

/// The same for an application whose usual answer takes as long as that.
const LONGEST_SILENCE: Duration = Duration::from_millis(5);

/// A thread whose answers take longer than this, in microseconds, writes each at once: a worker holds none back for
/// longer (`HOLD` in the shim), and it expects the next to take as long as the slowest of the last.
const WRITES_AT_ONCE: f32 = 500.0;

/// The running average of one application's answers, in microseconds.
#[derive(Debug, Default)]
pub(super) struct Pace {
    average: Option<f32>,
}

impl Pace {
    /// One more answer.
    pub(super) fn record(&mut self, microseconds: u32) {
        let clipped = (microseconds as f32).min(CLIP);
        let average = self.average.get_or_insert(clipped);
        *average += (clipped - *average) / 32.0;
    }

    /// How long a thread may be silent before it is taken to be blocked: some answers' time.
    pub(super) fn silence(&self) -> Duration {
        let usual = self.average.unwrap_or_default();
        Duration::from_micros((3.0 * usual) as u64).clamp(SILENCE, LONGEST_SILENCE)
    }

    /// Whether threads may be holding answers back for others to come.
    pub(super) fn holds_back(&self) -> bool {
        self.average.is_none_or(|average| average < WRITES_AT_ONCE)
    }

    /// Requests that may be on their way to one thread: 1 unless answers are fast.
    pub(super) fn depth(&self) -> usize {
        match self.average {
            Some(average) if average < FAST => ((AHEAD / average.max(1.0)) as usize).clamp(1, SLOTS),
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fast_application_gets_requests_ahead() {
        let mut pace = Pace::default();
        assert_eq!(pace.depth(), 1, "nothing is known");
        pace.record(10);
        assert_eq!((pace.depth(), pace.silence()), (SLOTS, SILENCE));
        pace.record(5_000_000);
        assert!(pace.depth() > 1, "one slow answer does not make it slow");
        for _ in 0..100 {
            pace.record(5_000);
        }
        assert_eq!((pace.depth(), pace.silence()), (1, LONGEST_SILENCE), "many do");
        for _ in 0..200 {
            pace.record(500);
        }
        assert!((3..=4).contains(&pace.depth()), "2 ms of work ahead: {}", pace.depth());
    }
}
