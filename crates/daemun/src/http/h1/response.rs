//! Writing the head of a response and the frames around its body (RFC 9112, sections 4, 6 and 7).
//!
//! [`plan`] decides, [`encode_head`] writes. Framing and connection fields are made here and nowhere else: those of a
//! handler are left out, so that a response can never be framed in two ways.

use bytes::Bytes;

use super::super::{Field, Fields, Method, Status, Version, date};
use crate::http::fields::is_value;

/// `100 Continue`, whole (RFC 9110, section 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The last chunk and an empty trailer section.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends the end of a body in chunks, with the fields behind it.
pub fn encode_end(out: &mut Vec<u8>, trailers: Option<&Fields>) {
    let Some(trailers) = trailers else { return out.extend_from_slice(LAST_CHUNK) };
    out.extend_from_slice(b"0\r\n");
    for field in trailers.iter() {
        encode_field(out, field.name(), field.value());
    }
    out.extend_from_slice(b"\r\n");
}

/// Bytes of the longest line that [`encode_chunk_size`] writes, and of the line end behind the chunk.
pub const MAX_CHUNK_FRAME: usize = 16 + 2 + 2;

/// How the end of a response is told (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Length {
    /// The status has no body and no framing fields: 1xx, 204, 304.
    Absent,
    /// `Content-Length`.
    Known(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// By closing the connection: HTTP/1.0 knows no chunks.
    UntilClose,
}

/// What the `Connection` field says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConnectionField {
    /// Nothing: an HTTP/1.1 connection goes on.
    Absent,
    /// `close`.
    Close,
    /// `keep-alive`, for HTTP/1.0, where it has to be said.
    KeepAlive,
}

/// How a response is framed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HeadPlan {
    /// How its end is told.
    pub length: Length,
    /// What is said about the connection.
    pub connection: ConnectionField,
    /// Whether body bytes follow the head.
    pub sends_body: bool,
}

/// What a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    /// The method that is answered; a HEAD is answered without a body.
    pub method: Method,
    /// The client's version.
    pub version: Version,
    /// The status.
    pub status: Status,
    /// The length of the body, where it is known.
    pub length: Option<u64>,
    /// Whether the connection could go on.
    pub keep_alive: bool,
}

/// Decides how a response is framed.
pub fn plan(outgoing: &Outgoing) -> HeadPlan {
    let length = match outgoing.length {
        _ if outgoing.status.is_bodiless() => Length::Absent,
        // Reset Content has no content, and says so (RFC 9110, section 15.3.6).
        _ if outgoing.status.code() == 205 => Length::Known(0),
        Some(length) => Length::Known(length),
        None if outgoing.version == Version::Http10 => Length::UntilClose,
        None => Length::Chunked,
    };
    let is_head = outgoing.method == Method::Head;
    // Without a body there is nothing whose end the closing would tell.
    let keep_alive = outgoing.keep_alive && (length != Length::UntilClose || is_head);
    let connection = match (keep_alive, outgoing.version) {
        (false, _) => ConnectionField::Close,
        (true, Version::Http11 | Version::Http2) => ConnectionField::Absent,
        (true, Version::Http10) => ConnectionField::KeepAlive,
    };
    HeadPlan { length, connection, sends_body: !is_head && !matches!(length, Length::Absent | Length::Known(0)) }
}

/// Appends a whole head. `date` is the `Date` of now; a handler's own `Date` or `Server` is kept instead of ours.
///
/// Names and values of `fields` are valid by their type; a `reason` that could split the response is replaced by the
/// registered one (RFC 9112, section 11.1).
pub fn encode_head(
    out: &mut Vec<u8>,
    plan: HeadPlan,
    (status, reason): (Status, Option<&Bytes>),
    fields: &Fields,
    date: &[u8; date::LENGTH],
) {
    encode_status_line(out, status, reason);
    let (lines, own) = fields.parts();
    let mut said = Said::default();
    if let Some(lines) = lines {
        out.extend_from_slice(&lines.bytes);
        said = lines.said;
    }
    encode_fields(out, own, &mut said);
    if !said.server {
        out.extend_from_slice(b"Server: daemun\r\n");
    }
    if !said.date {
        encode_field(out, b"Date", date);
    }
    match plan.length {
        Length::Known(length) => {
            out.extend_from_slice(b"Content-Length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Length::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Length::Absent | Length::UntilClose => {}
    }
    match plan.connection {
        ConnectionField::Absent => out.extend_from_slice(b"\r\n"),
        ConnectionField::Close => out.extend_from_slice(b"Connection: close\r\n\r\n"),
        ConnectionField::KeepAlive => out.extend_from_slice(b"Connection: keep-alive\r\n\r\n"),
    }
}

/// Which of the fields that are ours otherwise a handler has said.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    date: bool,
    server: bool,
}

/// A handler's fields as [`encode_head`] writes them.
#[derive(Debug)]
pub(in crate::http) struct Lines {
    bytes: Vec<u8>,
    said: Said,
}

impl Lines {
    pub(in crate::http) fn of(fields: &[Field]) -> Self {
        let (mut bytes, mut said) = (Vec::new(), Said::default());
        encode_fields(&mut bytes, fields, &mut said);
        Self { bytes, said }
    }
}

fn encode_fields(out: &mut Vec<u8>, fields: &[Field], said: &mut Said) {
    for field in fields {
        match kind(field) {
            Kind::Ours => continue,
            Kind::Date => said.date = true,
            Kind::Server => said.server = true,
            Kind::Other => {}
        }
        encode_field(out, field.name(), field.value());
    }
}

/// Appends an interim response (1xx), whole: it has no body, and fields of framing or connection have no place in it.
pub fn encode_interim(out: &mut Vec<u8>, status: Status, fields: &Fields) {
    encode_status_line(out, status, None);
    for field in fields.iter().filter(|field| !matches!(kind(field), Kind::Ours)) {
        encode_field(out, field.name(), field.value());
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the whole head of a 101, after which this connection speaks `protocol` (RFC 9110, section 7.8).
pub fn encode_switch(out: &mut Vec<u8>, status: Status, fields: &Fields, protocol: &[u8]) {
    encode_status_line(out, status, None);
    for field in fields.iter().filter(|field| !matches!(kind(field), Kind::Ours)) {
        encode_field(out, field.name(), field.value());
    }
    encode_field(out, b"Upgrade", protocol);
    out.extend_from_slice(b"Connection: Upgrade\r\n\r\n");
}

/// Appends the line before a chunk of this size, which must not be 0.
pub fn encode_chunk_size(out: &mut Vec<u8>, size: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.push(DIGITS[size >> (digit * 4) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

fn encode_status_line(out: &mut Vec<u8>, status: Status, reason: Option<&Bytes>) {
    if status == Status::OK && reason.is_none() {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    let code = status.code();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend([code / 100, code / 10 % 10, code % 10].map(|digit| b'0' + digit as u8));
    out.push(b' ');
    match reason {
        Some(reason) if reason.iter().all(|&byte| is_value(byte)) => out.extend_from_slice(reason),
        _ => out.extend_from_slice(status.reason().as_bytes()),
    }
    out.extend_from_slice(b"\r\n");
}

fn encode_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// What a field is to the codec.
pub(in crate::http) enum Kind {
    /// Framing and hop-by-hop fields (RFC 9110, section 7.6.1): the codec's own.
    Ours,
    /// `Date`: ours where a handler says none.
    Date,
    /// `Server`, the same.
    Server,
    /// A handler's own.
    Other,
}

/// The length decides first: nearly every field is told apart without looking at its name.
pub(in crate::http) fn kind(field: &Field) -> Kind {
    let name = field.name();
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    match name.len() {
        2 if is("te") => Kind::Ours,
        4 if is("date") => Kind::Date,
        6 if is("server") => Kind::Server,
        7 if is("trailer") || is("upgrade") => Kind::Ours,
        10 if is("connection") || is("keep-alive") => Kind::Ours,
        14 if is("content-length") => Kind::Ours,
        16 if is("proxy-connection") => Kind::Ours,
        17 if is("transfer-encoding") => Kind::Ours,
        _ => Kind::Other,
    }
}
