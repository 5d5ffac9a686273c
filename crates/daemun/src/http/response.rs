//! A response as handlers make it.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use super::{BodyError, Fields, FileBody, Status};

/// A response: status, fields and a body that may still be coming.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: Status,
    /// The reason phrase where it is not the registered one.
    pub reason: Option<Bytes>,
    /// The fields but those of framing.
    pub fields: Fields,
    /// The body.
    pub body: ResponseBody,
    /// Where the time went, for the access log.
    pub timing: Timing,
}

impl Response {
    /// A response without fields or body.
    pub fn new(status: Status) -> Self {
        Self { status, reason: None, fields: Fields::new(), body: ResponseBody::Empty, timing: Timing::default() }
    }

    /// The same with these fields.
    #[must_use]
    pub fn with_fields(mut self, fields: Fields) -> Self {
        self.fields = fields;
        self
    }

    /// The same with this body.
    #[must_use]
    pub fn with_body(mut self, body: ResponseBody) -> Self {
        self.body = body;
        self
    }
}

/// Where the time of a request went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// Waiting for a free worker.
    pub queue: Option<Duration>,
    /// In the application, to the first byte.
    pub application: Option<Duration>,
}

/// The body of a response.
pub enum ResponseBody {
    /// No bytes. `Content-Length: 0` where the status allows a body.
    Empty,
    /// All of it, at hand.
    Full(Bytes),
    /// A part of an open file.
    File(FileBody),
    /// No bytes are sent, but this length is told: the answer to HEAD.
    LengthOnly(u64),
    /// Bytes that are still coming.
    Stream(Pin<Box<dyn BodyStream>>),
    /// No HTTP any more: the answer is a 101, and the connection carries bytes both ways from then on.
    Tunnel(Box<dyn Tunnel>),
}

impl ResponseBody {
    /// The same, as bytes where they are in memory: for whoever cannot have the kernel send a file.
    #[must_use]
    pub fn at_hand(self) -> Self {
        match self {
            Self::File(file) => file.at_hand().map_or(Self::File(file), Self::Full),
            other => other,
        }
    }

    /// The file, where it is one.
    pub fn as_file(&self) -> Option<&FileBody> {
        if let Self::File(file) = self { Some(file) } else { None }
    }
}

/// A body that is still coming.
pub trait BodyStream: Send {
    /// The next bytes, `None` at the end. An error cuts the connection: a broken body never looks whole.
    fn poll_chunk(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>>;

    /// The same for whoever can send what lies elsewhere.
    fn poll_piece(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Piece, BodyError>>> {
        self.poll_chunk(context).map(|next| next.map(|chunk| chunk.map(Piece::Bytes)))
    }

    /// The length of all of it, where it is known before the first chunk.
    fn length(&self) -> Option<u64> {
        None
    }

    /// Whether fields may follow, so that its end is not known by its length.
    fn may_trail(&self) -> bool {
        false
    }

    /// The fields behind it (RFC 9110, section 6.5), to be asked for once, after its end.
    fn take_trailers(self: Pin<&mut Self>) -> Option<Fields> {
        None
    }
}

/// A piece of a body that is still coming.
pub enum Piece {
    /// At hand.
    Bytes(Bytes),
    /// Elsewhere.
    Laid(Box<dyn LaidPiece>),
}

/// Bytes in memory that somebody else may change: the kernel can read them, and nobody here. Dropping it gives the place back.
pub trait LaidPiece: Send {
    /// Bytes that are left of it.
    fn length(&self) -> usize;

    /// Leaves out what is behind so many bytes.
    fn truncate(&mut self, length: usize);

    /// Leaves out so many bytes at its beginning.
    fn advance(&mut self, bytes: usize);

    /// Writes `before`, the piece and `after` into `socket`, as far as it takes them now; how many bytes that was.
    fn send(&self, socket: BorrowedFd<'_>, before: &[u8], after: &[u8]) -> io::Result<usize>;
}

/// The far end of a connection that has left HTTP (`Upgrade`, RFC 9110, section 7.8).
pub trait Tunnel: Send {
    /// What is spoken, for the `Upgrade` field.
    fn protocol(&self) -> &[u8];

    /// The next bytes from there; none at the end.
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<Bytes>>;

    /// Sends all of `bytes`; ready when nothing is left of them.
    fn poll_send(&mut self, context: &mut Context<'_>, bytes: &mut Bytes) -> Poll<std::io::Result<()>>;

    /// Tells that nothing more is sent.
    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>>;

    /// How long both sides may be silent.
    fn patience(&self) -> Duration;
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Full(bytes) => write!(f, "Full({})", bytes.len()),
            Self::File(file) => write!(f, "File({})", file.length),
            Self::LengthOnly(length) => write!(f, "LengthOnly({length})"),
            Self::Stream(stream) => write!(f, "Stream({:?})", stream.length()),
            Self::Tunnel(_) => f.write_str("Tunnel"),
        }
    }
}
