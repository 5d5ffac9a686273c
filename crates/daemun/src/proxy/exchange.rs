//! The door between a request and the protocol of its server: whoever speaks one asks once and says how that went.
//! Choosing servers, trying again and counting is the same for all of them.

use std::io;

use bytes::Bytes;
use tokio::time::Instant;

use super::payload::{Framing, Payload, Upload};
use super::script::Aim;
use crate::gateway::TrustedProxies;
use crate::http::{Fields, Request, Response, Version};
use crate::telemetry::ErrorLogger;
use crate::upstream::{Failure, Place, Reuse};

/// A request on its way to a server.
pub(super) struct Outbound<'a> {
    /// What was asked; its body is the payload.
    pub(super) request: &'a Request,
    pub(super) payload: &'a mut Payload,
    /// The fields behind its body, where that was gathered.
    pub(super) trailers: Option<&'a Fields>,
    pub(super) trusted: &'a TrustedProxies,
    /// The protocol that the client wants to change to.
    pub(super) upgrade: Option<&'a [u8]>,
    /// When the answer must have begun, where the route says it.
    pub(super) due: Option<Instant>,
    /// What a server behind a gateway protocol is to do with it.
    pub(super) aim: &'a Aim,
    /// Variables that the route says.
    pub(super) params: &'a [(String, String)],
    /// Where complaints go.
    pub(super) errors: &'a ErrorLogger,
}

impl Outbound<'_> {
    /// What its head says of the length of the body; nothing where that is not known, and where fields follow it that
    /// HTTP/1.1 can say only behind chunks.
    pub(super) fn length(&self) -> Option<u64> {
        self.payload.length().filter(|_| self.trailers.is_none())
    }

    /// Whether its client takes fields behind a body (RFC 9110, section 10.1.4).
    pub(super) fn takes_trailers(&self) -> bool {
        let head = &self.request.head;
        let lists = |name: &str, word: &str| {
            let mut words = head.field_values(name).flat_map(|value| value.split(|&byte| byte == b','));
            words.any(|one| one.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
        };
        lists("te", "trailers") && (head.version() == Version::Http2 || lists("connection", "te"))
    }

    /// Which kept connections may take it. One that may be sent again may be sent into a connection that has just ended.
    pub(super) fn reuse(&self, may_reuse: bool) -> Reuse {
        match may_reuse {
            false => Reuse::Never,
            true if self.request.head.method().is_idempotent() && self.payload.is_repeatable() => Reuse::Likely,
            true => Reuse::Certain,
        }
    }

    /// The body for one try.
    pub(super) fn upload(&mut self, framing: Framing) -> io::Result<Upload> {
        self.payload.upload(framing, self.trailers.cloned())
    }
}

/// What a server's answer is.
pub(super) enum Answer {
    /// For the client.
    Response(Response),
    /// This path and query are to be answered instead.
    Local {
        /// As it stands in a URL.
        path: Bytes,
        /// What stands after the `?`.
        query: Option<Bytes>,
    },
}

/// What one try comes to. The place comes back with a failure, so that another try can be made.
pub(super) type Asked = Result<Answer, (Place, Failure)>;
