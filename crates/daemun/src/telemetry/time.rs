//! The time of a log line, as text, made once a second and thread. Always UTC: a log that crosses a change of the
//! clock or of the machine stays in order.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

thread_local! {
    static COMMON: RefCell<(u64, Vec<u8>)> = const { RefCell::new((u64::MAX, Vec::new())) };
}

/// Appends `[22/Nov/2026:12:00:00 +0000]`.
pub(super) fn push_common(line: &mut Vec<u8>, now: SystemTime) {
    let (seconds, _) = since_epoch(now);
    COMMON.with_borrow_mut(|(cached, text)| {
        if *cached != seconds {
            let (year, month, day) = date(seconds / 86_400);
            let (hour, minute, second) = time(seconds);
            let month = MONTHS[month as usize - 1];
            *text = format!("[{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000]").into_bytes();
            *cached = seconds;
        }
        line.extend_from_slice(text);
    });
}

/// `2026-11-22T12:00:00.123Z` (RFC 3339).
pub fn rfc3339(now: SystemTime) -> String {
    let (seconds, millis) = since_epoch(now);
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = time(seconds);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

fn since_epoch(now: SystemTime) -> (u64, u32) {
    now.duration_since(UNIX_EPOCH).map_or((0, 0), |since| (since.as_secs(), since.subsec_millis()))
}

fn time(seconds: u64) -> (u64, u64, u64) {
    (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

/// Year, month and day of a day since 1970, by Howard Hinnant's `civil_from_days`.
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_utc() {
        let moment = UNIX_EPOCH + Duration::from_millis(1_795_348_805_007);
        assert_eq!(rfc3339(moment), "2026-11-22T12:00:05.007Z");
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(951_782_400)), "2000-02-29T00:00:00.000Z");
        let mut line = Vec::new();
        push_common(&mut line, moment);
        assert_eq!(line, b"[22/Nov/2026:12:00:05 +0000]");
    }
}
