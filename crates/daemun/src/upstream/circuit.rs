//! Whether a server is asked, from how it has answered: a circuit breaker with half-open probes. No clock of its own.

use std::time::{Duration, Instant};

use super::settings::MOST_EJECTIONS;

/// What is known of a server from the requests that it got.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Circuit {
    /// It is asked; so many requests in a row have failed.
    Closed { failures: u32 },
    /// It is left alone, for the so-manieth time in a row; because it is slow, so that an answer to what was on its way
    /// says nothing new.
    Open { until: Instant, times: u32, is_slow: bool },
    /// One request finds out how it is.
    HalfOpen { times: u32 },
}

/// What a request's end has changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// It is left alone for this long.
    Ejected(Duration),
    /// It is asked again.
    Back,
}

impl Circuit {
    /// Whether a request may go there.
    pub(super) fn admits(self, now: Instant) -> bool {
        match self {
            Self::Closed { .. } => true,
            Self::Open { until, .. } => until <= now,
            Self::HalfOpen { .. } => false,
        }
    }

    /// A request goes there; whether it is the one that finds out.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        match *self {
            Self::Open { until, times, .. } if until <= now => {
                *self = Self::HalfOpen { times };
                true
            }
            _ => false,
        }
    }

    /// The request that was to find out was abandoned: the next one does.
    pub(super) fn abandon(&mut self, now: Instant) {
        if let Self::HalfOpen { times } = *self {
            *self = Self::Open { until: now, times, is_slow: false };
        }
    }

    /// A request was answered.
    pub(super) fn succeed(&mut self) -> Change {
        if matches!(self, Self::Open { is_slow: true, .. }) {
            return Change::None;
        }
        let before = std::mem::replace(self, Self::Closed { failures: 0 });
        if matches!(before, Self::Closed { .. }) { Change::None } else { Change::Back }
    }

    /// It is to be left alone for this long, whatever it answers.
    pub(super) fn open(&mut self, now: Instant, time: Duration) {
        *self = Self::Open { until: now + time, times: 0, is_slow: true };
    }

    /// A request was not; `limit` in a row open the circuit for `eject`.
    pub(super) fn fail(&mut self, now: Instant, limit: u32, eject: Duration) -> Change {
        let times = match *self {
            Self::Closed { failures } if failures + 1 < limit => {
                *self = Self::Closed { failures: failures + 1 };
                return Change::None;
            }
            Self::Closed { .. } => 0,
            Self::HalfOpen { times } => (times + 1).min(MOST_EJECTIONS),
            // Requests that were on their way when it was ejected.
            Self::Open { .. } => return Change::None,
        };
        let time = eject * 2_u32.pow(times);
        *self = Self::Open { until: now + time, times, is_slow: false };
        Change::Ejected(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EJECT: Duration = Duration::from_secs(10);

    #[test]
    fn a_server_is_left_alone_after_failures_in_a_row_and_asked_once_before_it_is_trusted_again() {
        let begin = Instant::now();
        let mut circuit = Circuit::Closed { failures: 0 };
        assert_eq!(circuit.fail(begin, 3, EJECT), Change::None);
        assert_eq!(circuit.succeed(), Change::None);
        assert_eq!(circuit.fail(begin, 3, EJECT), Change::None);
        assert_eq!(circuit.fail(begin, 3, EJECT), Change::None);
        assert_eq!(circuit.fail(begin, 3, EJECT), Change::Ejected(EJECT));
        assert!(!circuit.admits(begin + EJECT / 2));
        let later = begin + EJECT;
        assert!(circuit.admits(later) && circuit.begin(later));
        assert!(!circuit.admits(later), "one request finds out");
        assert_eq!(circuit.fail(later, 3, EJECT), Change::Ejected(EJECT * 2));
        let later = later + EJECT * 2;
        assert!(circuit.begin(later));
        assert_eq!((circuit.succeed(), circuit.admits(later)), (Change::Back, true));
    }

    #[test]
    fn an_abandoned_probe_lets_the_next_request_find_out() {
        let now = Instant::now();
        let mut circuit = Circuit::Open { until: now, times: 1, is_slow: false };
        assert!(circuit.begin(now));
        circuit.abandon(now);
        assert!(circuit.admits(now) && circuit.begin(now));
    }

    #[test]
    fn a_slow_server_is_left_alone_whatever_it_still_answers_and_then_asked_once() {
        let now = Instant::now();
        let mut circuit = Circuit::Closed { failures: 0 };
        circuit.open(now, EJECT);
        assert_eq!((circuit.succeed(), circuit.admits(now)), (Change::None, false));
        assert!(circuit.begin(now + EJECT));
        assert_eq!((circuit.succeed(), circuit.admits(now)), (Change::Back, true));
    }

    #[test]
    fn the_time_of_an_ejection_has_an_end() {
        let mut now = Instant::now();
        let mut circuit = Circuit::Closed { failures: 0 };
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            circuit.begin(now);
            if let Change::Ejected(time) = circuit.fail(now, 1, EJECT) {
                last = time;
                now += time;
            }
        }
        assert_eq!(last, EJECT * 32);
    }
}
