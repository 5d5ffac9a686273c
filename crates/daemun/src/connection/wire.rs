//! A socket with its buffers and its timer.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::time::Instant;

use super::buffers;
use super::transport::Transport;
use crate::alarm::Alarm;
use crate::http::{BodyRoom, LaidPiece};

/// How long a client may take nothing of a response before the connection is cut. As nginx's `send_timeout`: a phone
/// in a tunnel comes back within a minute, and what is held for it is bounded.
pub(super) const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes that are read ahead of a handler that does not ask for them: the next requests of a client that pipelines.
pub(super) const MAX_AHEAD: usize = 64 * 1024;

/// Bytes that are read behind a body at once. There are none as a rule; that there is room for some has the kernel say so.
const BEYOND: usize = 512;

/// Spare bytes below which the input gets room again: fewer would make a system call for little.
const MIN_ROOM: usize = 1024;

/// A socket with its buffers and its timer.
pub(super) struct Wire {
    pub(super) transport: Transport,
    /// What came in and was not yet understood.
    pub(super) input: BytesMut,
    /// What is to go out.
    pub(super) output: Vec<u8>,
    /// Bytes of `output` that went out.
    written: usize,
    pub(super) alarm: Alarm,
    /// The client will send nothing more.
    pub(super) is_ended: bool,
    /// It was whole that long before, so that the end belongs to the request.
    is_ended_late: bool,
    /// When the request that is being answered was whole, as far as it is known.
    asked: Instant,
    look: Look,
    /// Whether the handler wishes to be left when the client closes the connection.
    pub(super) follows_client: bool,
    /// Bytes that came and were not counted yet.
    pub(super) received: usize,
    /// Since it took nothing: when it is cut.
    stalled_until: Option<Instant>,
}

/// How often the client was looked at since the request that is being answered was whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Look {
    /// Whatever lies there came with the request.
    First,
    /// There was nothing to read before.
    Again,
}

/// How soon after its request a client that closes its sending half does so: with it, but for what the network adds. One
/// that closes later leaves.
const HALF_CLOSE: Duration = Duration::from_millis(100);

impl Wire {
    pub(super) fn new(transport: Transport) -> Self {
        Self {
            transport,
            input: BytesMut::new(),
            output: Vec::new(),
            written: 0,
            alarm: Alarm::default(),
            is_ended: false,
            is_ended_late: false,
            asked: Instant::now(),
            look: Look::First,
            follows_client: false,
            received: 0,
            stalled_until: None,
        }
    }

    /// Reads what has come, at most some `room` bytes; 0 is the end. A buffer is taken only when something is there.
    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        let Poll::Ready(ready) = self.transport.poll_read_ready(context) else { return self.quiet() };
        ready?;
        if self.input.capacity() == 0 {
            self.input = buffers::take_read();
        }
        // A buffer for heads is enough for heads; a body is worth a larger one.
        if room > buffers::READ_SIZE && self.input.is_empty() && !self.input.try_reclaim(room) {
            buffers::give_read(std::mem::replace(&mut self.input, buffers::take_body()));
        }
        if self.input.capacity() - self.input.len() < MIN_ROOM {
            self.input.reserve(room);
        }
        let Poll::Ready(read) = self.transport.poll_read(context, &mut self.input) else { return self.quiet() };
        let read = read?;
        self.has_read(read);
        Poll::Ready(Ok(read))
    }

    /// Reads what has come of the next `most` bytes of a body into `room`, and what has come after it into the input, which
    /// is empty: how many bytes of the body that were; 0 is the end.
    pub(super) fn poll_fill_room(
        &mut self,
        context: &mut Context<'_>,
        room: &dyn BodyRoom,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let mut beyond = [0; BEYOND];
        let received = self.transport.poll_receive(context, (room, most), &mut beyond);
        let Poll::Ready(read) = received else { return self.quiet() };
        let read = read?;
        self.has_read(read);
        self.input.extend_from_slice(&beyond[..read.saturating_sub(most)]);
        Poll::Ready(Ok(read.min(most)))
    }

    fn has_read(&mut self, read: usize) {
        if read == 0 && !self.is_ended {
            self.is_ended = true;
            // One that lay there when we first looked belongs to the request, however late we are.
            self.is_ended_late = self.look == Look::Again && self.asked.elapsed() > HALF_CLOSE;
        }
        self.received += read;
    }

    /// The request that is being answered was whole at this time.
    pub(super) fn is_asked(&mut self, at: Instant) {
        (self.asked, self.look) = (at, Look::First);
    }

    fn quiet<T>(&mut self) -> Poll<T> {
        self.look = Look::Again;
        Poll::Pending
    }

    /// When the request that is being answered was whole, as far as it is known.
    pub(super) fn asked(&self) -> Instant {
        self.asked
    }

    /// Reads ahead while something else is waited for, so that a reset is seen. Ready only with an error: the client is
    /// gone; for a handler that follows its client, one that has closed the connection after its request too.
    pub(super) fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        while !self.is_ended && self.input.len() < MAX_AHEAD {
            if let Err(error) = ready!(self.poll_fill(context, buffers::READ_SIZE)) {
                return Poll::Ready(error);
            }
        }
        if self.follows_client && self.is_ended && self.is_ended_late {
            return Poll::Ready(io::ErrorKind::UnexpectedEof.into());
        }
        Poll::Pending
    }

    /// Gives the input's buffer back while there is nothing in it.
    pub(super) fn rest_input(&mut self) {
        if self.input.is_empty() && self.input.capacity() > 0 {
            buffers::give_read(std::mem::take(&mut self.input));
        }
    }

    /// Gives the buffers back while there is nothing in them.
    pub(super) fn rest(&mut self) {
        self.rest_input();
        if self.output.is_empty() && self.output.capacity() > 0 {
            buffers::give_write(std::mem::take(&mut self.output));
        }
    }

    /// Writes `output` and `tail`, both to their end. Ends with `TimedOut` if the client takes nothing for too long.
    pub(super) fn poll_send(&mut self, context: &mut Context<'_>, tail: &mut Bytes) -> Poll<io::Result<()>> {
        while self.written < self.output.len() || !tail.is_empty() {
            let head = &self.output[self.written..];
            let head_length = head.len();
            match self.transport.poll_write(context, [head, tail]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.stalled_until = None;
                    let of_head = written.min(head_length);
                    self.written += of_head;
                    tail.advance(written - of_head);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.poll_stalled(context).map(Err),
            }
        }
        ready!(self.poll_flush(context))?;
        self.output.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Writes `output`, `piece` and `after`, all to their end, as [`poll_send`](Self::poll_send) does.
    pub(super) fn poll_send_laid(
        &mut self,
        context: &mut Context<'_>,
        piece: &mut dyn LaidPiece,
        after: &[u8],
    ) -> Poll<io::Result<()>> {
        while piece.length() > 0 {
            let head = &self.output[self.written..];
            let head_length = head.len();
            match self.transport.poll_send_laid(context, head, piece, after) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.stalled_until = None;
                    let of_head = written.min(head_length);
                    let of_piece = (written - of_head).min(piece.length());
                    self.written += of_head;
                    piece.advance(of_piece);
                    if piece.length() == 0 {
                        self.output.clear();
                        self.written = 0;
                        self.output.extend_from_slice(&after[written - of_head - of_piece..]);
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.poll_stalled(context).map(Err),
            }
        }
        self.poll_send(context, &mut Bytes::new())
    }

    /// Writes the beginning of `parts`, past the output. Ends with `TimedOut` if the client takes nothing for too long.
    pub(super) fn poll_write(&mut self, context: &mut Context<'_>, parts: [&[u8]; 2]) -> Poll<io::Result<usize>> {
        match self.transport.poll_write(context, parts) {
            Poll::Ready(written) => {
                self.stalled_until = None;
                Poll::Ready(written)
            }
            Poll::Pending => self.poll_stalled(context).map(Err),
        }
    }

    /// Waits until everything that was written is in the socket.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.transport.poll_flush(context) {
            Poll::Ready(flushed) => Poll::Ready(flushed),
            Poll::Pending => self.poll_stalled(context).map(Err),
        }
    }

    /// Waits until a write would take something.
    pub(super) fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.transport.poll_write_ready(context) {
            Poll::Ready(result) => {
                self.stalled_until = None;
                Poll::Ready(result)
            }
            Poll::Pending => self.poll_stalled(context).map(Err),
        }
    }

    /// The client takes nothing: ready when that has lasted too long.
    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if self.transport.took() {
            self.stalled_until = None;
        }
        let until = *self.stalled_until.get_or_insert_with(|| Instant::now() + SEND_TIMEOUT);
        self.alarm.poll(context, until).map(|()| io::Error::from(io::ErrorKind::TimedOut))
    }
}
