//! What a client sees of an error: one function for every status that the connection makes itself.

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
