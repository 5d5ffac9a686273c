//! The `Date` of now, formatted once a second and event loop (RFC 9110, section 6.6.1).

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of an IMF-fixdate.
pub const LENGTH: usize = 29;

thread_local! {
    static CACHE: RefCell<(u64, [u8; LENGTH])> = const { RefCell::new((u64::MAX, [0; LENGTH])) };
}

/// The date of now as an IMF-fixdate.
pub fn now() -> [u8; LENGTH] {
    // The clock of the last tick: some milliseconds late, and a fifth of the price.
    let seconds = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse).tv_sec.max(0).cast_unsigned();
    CACHE.with_borrow_mut(|(cached, text)| {
        if *cached != seconds {
            *text = format(UNIX_EPOCH + Duration::from_secs(seconds));
            *cached = seconds;
        }
        *text
    })
}

/// A moment as an IMF-fixdate, for instance for `Last-Modified`.
pub fn format(moment: SystemTime) -> [u8; LENGTH] {
    let mut text = [b' '; LENGTH];
    let formatted = httpdate::fmt_http_date(moment);
    let length = formatted.len().min(LENGTH);
    text[..length].copy_from_slice(&formatted.as_bytes()[..length]);
    text
}
