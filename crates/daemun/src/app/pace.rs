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

/// What [`AHEAD`] is while more waits than all threads will soon come to: enough for the answers that a worker then holds
/// back (`HOLD_CROWDED` in the shim) and those that it works on while they are taken away.
const AHEAD_CROWDED: f32 = 8_000.0;

/// Requests that wait for each thread from which on the application counts as crowded.
const CROWD: usize = 2;

/// Answers that take as long as this, in microseconds, are worth writing together in a crowd: of faster ones many go
/// together anyway, and beside slower ones a wake-up costs nothing.
const WORTH_GATHERING: std::ops::Range<f32> = 100.0..1_900.0;

/// The running average of one application's answers, in microseconds.
#[derive(Debug, Default)]
pub(super) struct Pace {
    average: Option<f32>,
    crowded: bool,
}

impl Pace {
    /// One more answer.
    pub(super) fn record(&mut self, microseconds: u32) {
        let clipped = (microseconds as f32).min(CLIP);
        let average = self.average.get_or_insert(clipped);
        *average += (clipped - *average) / 32.0;
    }

    /// So many requests wait for so many threads.
    pub(super) fn note_queue(&mut self, waiting: usize, threads: usize) {
        self.crowded = waiting > 0
            && waiting >= CROWD * threads
            && self.average.is_some_and(|average| WORTH_GATHERING.contains(&average));
    }

    /// Whether so much waits that answers should be written several at a time: whoever waits behind many others gains
    /// more by the time that this saves than an answer loses that waits for one or two more.
    pub(super) fn is_crowded(&self) -> bool {
        self.crowded
    }

    /// How long a thread may be silent before it is taken to be blocked: some answers' time.
    pub(super) fn silence(&self) -> Duration {
        if self.crowded {
            return LONGEST_SILENCE;
        }
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
            Some(average) if self.crowded => ((AHEAD_CROWDED / average.max(1.0)) as usize).clamp(1, SLOTS),
            Some(average) if average < FAST => ((AHEAD / average.max(1.0)) as usize).clamp(1, SLOTS),
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_gets_more_ahead_where_answers_are_neither_fast_nor_slow() {
        let mut pace = Pace::default();
        pace.record(800);
        pace.note_queue(1, 1);
        assert_eq!((pace.is_crowded(), pace.depth()), (false, 2), "one waits");
        pace.note_queue(2, 1);
        assert_eq!((pace.is_crowded(), pace.depth(), pace.silence()), (true, 10, LONGEST_SILENCE));
        pace.note_queue(2, 2);
        assert!(!pace.is_crowded(), "one for each thread");
        let mut short = Pace::default();
        short.record(200);
        short.note_queue(2, 1);
        assert!(short.is_crowded(), "too long for several to go together by themselves");
        for microseconds in [20, 5_000] {
            let mut pace = Pace::default();
            pace.record(microseconds);
            pace.note_queue(100, 1);
            assert!(!pace.is_crowded(), "{microseconds}");
        }
    }

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
