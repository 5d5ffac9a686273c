//! What a client sees of an error: one function for every status that the connection makes itself.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::http::{RequestHead, Response, Status};
use crate::respond::page::{self, Facts};

/// The response for an error. `reference` also stands in the log's line, so that a user's report finds it. Nothing of
/// the request is repeated.
pub(super) fn error_response(
    status: Status,
    detail: Option<&'static str>,
    reference: Option<&str>,
    retry_after: Option<u32>,
    head: Option<&RequestHead>,
) -> Response {
    let mut response = page::of_status(&Facts { status, detail, reference }, head);
    response.fields.push("Cache-Control", "no-store");
    if let Some(seconds) = retry_after {
        response.fields.push("Retry-After", seconds.to_string());
    }
    response
}

/// A number that nobody needs to guess, only to find again: eight hexadecimal digits, no two alike within a run.
pub(super) fn new_reference() -> String {
    static START: LazyLock<u64> =
        LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = *START + COUNT.fetch_add(1, Ordering::Relaxed);
    // An odd factor keeps numbers apart and makes neighbours look different.
    format!("{:08x}", (count as u32).wrapping_mul(0x9e37_79b1))
}
