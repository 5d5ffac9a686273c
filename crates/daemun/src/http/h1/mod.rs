//! The HTTP/1.1 codec (RFC 9112): bytes in, values out, and back. No socket and no clock.
//!
//! A message has one reading or none: whatever two servers could read differently is refused, and a refusal always
//! ends the connection, because nobody can say where the next request would begin (RFC 9112, section 11.2).
//!
//! * [`HeadScan`] finds the end of a head as its bytes come in; [`parse_head`] reads it.
//! * [`BodyDecoder`] takes the framing off a request's body.
//! * [`parse_answer`] reads the head of an upstream's answer.
//! * [`plan`] says how a response is framed; [`encode_head`] and [`encode_chunk_size`] write it.

mod answer;
mod authority;
mod body;
mod chunked;
mod head;
mod response;
mod scan;
#[cfg(test)]
mod tests;

pub use answer::{AnswerFraming, AnswerHead, parse_answer, scan_answer};
pub(super) use authority::is_authority;
pub use body::{BodyDecoder, Decoded};
pub use chunked::ChunkedDecoder;
pub(super) use head::MAX_METHOD;
pub use head::{Framing, ParsedHead, parse_head};
pub use response::{
    CONTINUE, ConnectionField, HeadPlan, LAST_CHUNK, Length, MAX_CHUNK_FRAME, Outgoing, encode_chunk_size, encode_end,
    encode_head, encode_interim, encode_switch, plan,
};
pub(super) use response::{Kind, Lines, kind};
pub use scan::{HeadScan, Scanned};

use std::fmt;

use super::Status;

/// Caps of a head and of a trailer section.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HeadLimits {
    /// Bytes of a head, request line included; also of a trailer section.
    pub max_head: usize,
    /// Bytes of a request line.
    pub max_request_line: usize,
    /// Fields of a head or a trailer section, at most 256.
    pub max_fields: usize,
}

/// A message that is not read further. The connection answers with the status and closes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub struct Refusal {
    /// What the client sees.
    pub status: Status,
    /// Why, in a few words; goes to the client and to the log.
    pub reason: &'static str,
    /// The key of `daemun.toml` that says how much is too much; goes to the log alone.
    pub limit: Option<&'static str>,
}

impl Refusal {
    /// A refusal with this status.
    pub const fn new(status: Status, reason: &'static str) -> Self {
        Self { status, reason, limit: None }
    }

    /// The same of what is more than this key of `[server]` allows.
    pub const fn over(status: Status, reason: &'static str, limit: &'static str) -> Self {
        Self { status, reason, limit: Some(limit) }
    }

    /// A 400.
    pub const fn bad(reason: &'static str) -> Self {
        Self::new(Status::BAD_REQUEST, reason)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)?;
        self.limit.map_or(Ok(()), |limit| write!(f, "; `{limit}` in [server] says what may be"))
    }
}
