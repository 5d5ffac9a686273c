//! The body of a request: at hand, or fed by the connection as the handler asks for it.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::Fields;

/// Bytes that a [`BodyFeed`] holds before the connection stops reading from the client.
const WINDOW: usize = 256 * 1024;

/// Memory of a handler's own that bytes of a body are received into, where the connection can do that: one copy less.
pub trait BodyRoom: Send + Sync {
    /// Receives from `socket` what is there now of the next `most` bytes of the body, which have room here, and of what
    /// comes after the body into `beyond`: how many bytes that was, 0 at the end.
    fn receive(&self, socket: BorrowedFd<'_>, most: usize, beyond: &mut [u8]) -> io::Result<usize>;
}

/// Why a body ended before its time.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BodyError {
    /// The client closed the connection or broke the framing.
    #[error("the body was cut: {0}")]
    Cut(&'static str),
    /// It is longer than the route allows; a 413.
    #[error("the body is longer than the {0} bytes of `max_body`")]
    TooLarge(u64),
    /// It came too slowly; a 408.
    #[error("the body came too slowly; `header_timeout` in [server] says how long a pause may last")]
    Slow,
    /// The producer of a response body failed.
    #[error("{0}")]
    Failed(String),
}

/// The body of a request.
pub enum RequestBody {
    /// There is none.
    Empty,
    /// It came with the head.
    Full(Bytes),
    /// It is still coming.
    Coming(BodyReader),
}

impl RequestBody {
    /// The length of all of it where the client said one.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Full(bytes) => Some(bytes.len() as u64),
            Self::Coming(reader) => reader.length,
        }
    }

    /// Allows at most this many bytes; false where it is known to be longer. One that turns out longer fails.
    #[must_use]
    pub fn limit(&mut self, most: u64) -> bool {
        if let Self::Coming(reader) = self {
            reader.room = (most, most);
        }
        self.length().is_none_or(|length| length <= most)
    }

    /// The next bytes, `None` at the end.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, BodyError>> {
        std::future::poll_fn(|context| self.poll_chunk(context)).await
    }

    /// The next bytes, `None` at the end.
    pub fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        match std::mem::replace(self, Self::Empty) {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready((!bytes.is_empty()).then_some(Ok(bytes))),
            Self::Coming(mut reader) => {
                let polled = reader.poll(context);
                *self = Self::Coming(reader);
                polled
            }
        }
    }

    /// Has the bytes that are still to come received into `room`, as far as the connection can. What comes as a chunk all
    /// the same stands before whatever is received next: nothing is until it is taken. The whole body has to fit; one of
    /// unknown length comes in chunks.
    pub fn receive_into(&mut self, room: Arc<dyn BodyRoom>) {
        if let Self::Coming(reader) = self
            && reader.length.is_some()
        {
            lock(&reader.pipe).room = Some(room);
        }
    }

    /// The fields behind it (RFC 9110, section 6.5), once, after its end.
    pub fn take_trailers(&mut self) -> Option<Fields> {
        match self {
            Self::Coming(reader) if reader.passes_trailers => lock(&reader.pipe).trailers.take(),
            _ => None,
        }
    }

    /// Has nobody see the fields behind it: whoever changes those of the head would be got round by them.
    pub fn withhold_trailers(&mut self) {
        if let Self::Coming(reader) = self {
            reader.passes_trailers = false;
        }
    }

    /// Bytes that came in, counted without framing, for whoever wants to know before it is all there.
    pub fn coming(length: Option<u64>) -> (BodyFeed, Self) {
        let pipe = Arc::new(Mutex::new(Pipe::default()));
        let reader = BodyReader { pipe: Arc::clone(&pipe), length, room: (u64::MAX, u64::MAX), passes_trailers: true };
        (BodyFeed { pipe }, Self::Coming(reader))
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestBody({:?})", self.length())
    }
}

/// The handler's end of a body that is still coming.
pub struct BodyReader {
    pipe: Arc<Mutex<Pipe>>,
    length: Option<u64>,
    /// Bytes that may still come, and how many were allowed.
    room: (u64, u64),
    /// Whether the fields behind it are told.
    passes_trailers: bool,
}

impl BodyReader {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let mut pipe = lock(&self.pipe);
        if let Some(bytes) = pipe.chunks.pop_front() {
            pipe.held -= bytes.len();
            let Some(room) = self.room.0.checked_sub(bytes.len() as u64) else {
                return Poll::Ready(Some(Err(BodyError::TooLarge(self.room.1))));
            };
            self.room.0 = room;
            return Poll::Ready(Some(Ok(bytes)));
        }
        match &pipe.end {
            Some(Ok(())) => Poll::Ready(None),
            Some(Err(error)) => Poll::Ready(Some(Err(error.clone()))),
            None => {
                pipe.wanted = true;
                pipe.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for BodyReader {
    fn drop(&mut self) {
        let mut pipe = lock(&self.pipe);
        pipe.abandoned = true;
        pipe.room = None;
    }
}

/// The connection's end of a body that is still coming. Both ends live in one task; the connection polls the handler,
/// sees that it [wants](Self::is_wanted) bytes, reads from the client and [pushes](Self::push) them.
pub struct BodyFeed {
    pipe: Arc<Mutex<Pipe>>,
}

impl BodyFeed {
    /// Whether the handler has asked for bytes at least once and there is room for more. `Expect: 100-continue` is
    /// answered when this turns true for the first time.
    pub fn is_wanted(&self) -> bool {
        let pipe = lock(&self.pipe);
        pipe.wanted && pipe.end.is_none() && pipe.held < WINDOW
    }

    /// Whether there is room for more.
    pub fn has_room(&self) -> bool {
        lock(&self.pipe).held < WINDOW
    }

    /// Whether the handler has dropped its end: what still comes is drained or the connection closed.
    pub fn is_abandoned(&self) -> bool {
        lock(&self.pipe).abandoned
    }

    /// Where the next bytes are to be received, if the handler has said so and has taken all before them.
    pub fn room(&self) -> Option<Arc<dyn BodyRoom>> {
        let pipe = lock(&self.pipe);
        pipe.room.clone().filter(|_| pipe.chunks.is_empty())
    }

    /// Hands bytes on.
    pub fn push(&self, bytes: Bytes) {
        let mut pipe = lock(&self.pipe);
        if !pipe.abandoned && !bytes.is_empty() {
            pipe.held += bytes.len();
            pipe.chunks.push_back(bytes);
            pipe.wake();
        }
    }

    /// Ends the body well, with the fields behind it.
    pub fn end_with(&self, trailers: Option<Fields>) {
        let mut pipe = lock(&self.pipe);
        pipe.trailers = trailers;
        pipe.end.get_or_insert(Ok(()));
        pipe.wake();
    }

    /// Ends the body, well or not.
    pub fn end(&self, result: Result<(), BodyError>) {
        let mut pipe = lock(&self.pipe);
        pipe.end.get_or_insert(result);
        pipe.wake();
    }
}

#[derive(Default)]
struct Pipe {
    chunks: VecDeque<Bytes>,
    held: usize,
    end: Option<Result<(), BodyError>>,
    trailers: Option<Fields>,
    room: Option<Arc<dyn BodyRoom>>,
    wanted: bool,
    abandoned: bool,
    reader: Option<Waker>,
}

impl Pipe {
    fn wake(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }
}

/// A panic while the lock was held left plain data behind: it can be used.
fn lock(pipe: &Mutex<Pipe>) -> MutexGuard<'_, Pipe> {
    pipe.lock().unwrap_or_else(PoisonError::into_inner)
}
