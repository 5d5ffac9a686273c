//! When a certificate is asked for, and when again.

use std::time::Duration;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// How often an authority is asked when it wants a certificate renewed, where it does not say (RFC 9773, section 4.3).
pub const ASK_AGAIN: Duration = Duration::from_secs(6 * 3600);

/// When a certificate that is valid for this time is renewed: when a third of its life is left, as authorities ask for; of
/// a life shorter than ten days, half. Seconds since 1970.
pub fn renewal(not_before: i64, not_after: i64) -> i64 {
    let life = not_after.saturating_sub(not_before).max(0);
    let left = if life < 10 * DAY { life / 2 } else { life / 3 };
    not_after - left
}

/// The soonest renewal of a certificate that was issued just `now`: whatever clocks say, an authority is never asked in a
/// circle.
pub fn after_issue(now: i64, not_before: i64, not_after: i64) -> i64 {
    let least = HOUR.min(not_after.saturating_sub(not_before).max(0) / 2).max(1);
    renewal(not_before, not_after).max(now + least)
}

/// The pause after this many failures in a row.
///
/// What was found wrong here costs nobody anything to look at again, and is soon mended: 5 s, doubled up to 5 minutes. An
/// authority allows some five failures an hour for each name (Let's Encrypt): 2 minutes, doubled up to 6 hours, and never
/// less than it says.
pub fn pause(failures: u32, is_ours: bool, retry_after: Option<Duration>) -> Duration {
    let (first, longest) = if is_ours { (5, 5 * 60) } else { (120, 6 * 3600) };
    let doubled = first << failures.saturating_sub(1).min(16);
    Duration::from_secs(doubled.min(longest)).max(retry_after.unwrap_or_default().min(LONGEST))
}

/// More than any authority asks for; else a wrong date would put a renewal off for good.
const LONGEST: Duration = Duration::from_secs(8 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_with_a_third_of_its_life_left_and_a_short_one_with_half() {
        assert_eq!(renewal(0, 90 * DAY), 60 * DAY);
        assert_eq!(renewal(0, 6 * DAY), 3 * DAY);
        assert_eq!(renewal(10, 10), 10);
        assert_eq!(renewal(0, i64::MIN), i64::MIN);
    }

    #[test]
    fn a_clock_that_is_wrong_does_not_make_a_circle() {
        let now = 400 * DAY;
        // Issued, by this machine's clock, with all its life over.
        assert_eq!(after_issue(now, 0, 90 * DAY), now + HOUR);
        assert_eq!(after_issue(now, now, now + 8), now + 4);
        assert_eq!(after_issue(now, now, now + 90 * DAY), now + 60 * DAY);
    }

    #[test]
    fn pauses_double_and_an_authority_has_the_last_word() {
        let seconds =
            |failures, is_ours, after: Option<u64>| pause(failures, is_ours, after.map(Duration::from_secs)).as_secs();
        assert_eq!([1, 2, 3, 7, 40].map(|failures| seconds(failures, true, None)), [5, 10, 20, 300, 300]);
        assert_eq!([1, 2, 5, 9, 40].map(|failures| seconds(failures, false, None)), [120, 240, 1920, 21_600, 21_600]);
        assert_eq!(seconds(1, false, Some(3600)), 3600);
        assert_eq!(seconds(5, false, Some(1)), 1920);
        assert_eq!(seconds(1, false, Some(u64::MAX)), LONGEST.as_secs());
    }
}
