//! Writing a response as fast as its client takes it and its producer makes it.

use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::buffers;
use super::cold;
use super::current::told;
use super::file::FileStream;
use super::incoming::Incoming;
use super::wire::Wire;
use crate::handler::Fault;
use crate::http::h1::{ConnectionField, HeadPlan, Length, Outgoing, encode_chunk_size, encode_end, encode_head, plan};
use crate::http::{BodyError, BodyStream, FileBody, LaidPiece, Piece, Response, ResponseBody, Status, date};

/// Files up to this length are read and written with the head; above, `sendfile` is cheaper (it halves the cost at
/// 10 MiB, and costs a system call more below some tens of KiB).
pub(super) const SMALL_FILE: u64 = 32 * 1024;

/// Bodies up to this length are copied behind the head: one plain write instead of a gathering one.
const SMALL_BODY: usize = 16 * 1024;

/// Bytes of a stream that are gathered into one write while they are at hand.
const GATHER: usize = 32 * 1024;

/// Bytes of a file that are read and written after all others were handed to the socket, once it is certain that the file
/// is still what it was: an answer whose bytes changed on the way never gets its end.
const LAST: u64 = 16 * 1024;

/// Bytes that one `sendfile` may send before other connections have their turn.
const SENDFILE_STEP: u64 = 2 * 1024 * 1024;

/// Bytes that are read from the disk before they are sent.
const FETCH_STEP: u64 = 512 * 1024;

/// Why a response did not end well. The connection is cut: a broken body never looks whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReplyError {
    /// The client went away or took nothing for too long.
    #[error("the client did not take the answer: {0}")]
    Client(#[from] io::Error),
    /// The body could not be begun: the client has seen nothing yet, and can be told.
    #[error("{message}")]
    NotBegun {
        /// What went wrong.
        message: String,
        /// How it is told, and whose fault it is.
        blamed: (Status, Fault),
    },
    /// The body broke off, and the client has seen its beginning.
    #[error("{0}")]
    Cut(String),
}

/// A response on its way out.
pub(super) struct Reply<'a> {
    pub(super) wire: &'a mut Wire,
    pub(super) incoming: &'a mut Incoming,
    /// Bytes of the body that were sent or handed to the socket, without framing.
    pub(super) sent: u64,
}

/// How a response ended well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sent {
    /// The connection can go on.
    KeepAlive,
    /// The client was told, or sees by it, that it ends.
    Close,
    /// The body was longer than it said; the rest was left out, and nobody should trust this connection.
    Overlong,
}

impl Reply<'_> {
    /// Sends `response`. `outgoing.length` is filled in from its body.
    pub(super) async fn send(&mut self, response: Response, mut outgoing: Outgoing) -> Result<Sent, ReplyError> {
        outgoing.length = length(&response.body);
        let plan = plan(&outgoing);
        self.incoming.withhold_continue();
        if !self.wire.output.is_empty() {
            // What is left of a 100.
            self.write_with(Bytes::new()).await?;
        }
        if self.wire.output.capacity() == 0 {
            self.wire.output = buffers::take_write();
        }
        let Response { status, reason, fields, body, .. } = response;
        let date = date::now();
        let head = move |out: &mut Vec<u8>| encode_head(out, plan, (status, reason.as_ref()), &fields, &date);
        let body = if self.wire.transport.is_plain() { body } else { body.at_hand() };
        let close = if plan.connection == ConnectionField::Close { Sent::Close } else { Sent::KeepAlive };
        match body {
            ResponseBody::Full(bytes) if plan.sends_body => {
                head(&mut self.wire.output);
                self.sent = bytes.len() as u64;
                self.write_with(bytes).await?;
            }
            ResponseBody::File(file) if plan.sends_body && file.length > SMALL_FILE && !self.may_sendfile(&file) => {
                return Box::pin(self.send_copied(file, plan, &head)).await;
            }
            // Apart, so that a connection that sends none is no larger for it.
            ResponseBody::File(file) if plan.sends_body => Box::pin(self.send_file(&file, &head)).await?,
            ResponseBody::Stream(stream) if plan.sends_body => {
                return Box::pin(self.send_stream(stream, plan, &head)).await;
            }
            _ => {
                head(&mut self.wire.output);
                self.write_with(Bytes::new()).await?;
            }
        }
        Ok(close)
    }

    /// Whether the kernel can send the file by itself, and the file is likely to stay as it is meanwhile.
    fn may_sendfile(&self, file: &FileBody) -> bool {
        self.wire.transport.is_plain() && file.is_still()
    }

    async fn send_file(&mut self, file: &FileBody, head: &impl Fn(&mut Vec<u8>)) -> Result<(), ReplyError> {
        head(&mut self.wire.output);
        if file.length <= SMALL_FILE {
            let read = match fetch(file, file.offset, file.length).await {
                Ok(()) => {
                    file.read_into(&mut self.wire.output).map_err(|error| format!("a file could not be read: {error}"))
                }
                Err(message) => Err(message),
            };
            if let Err(message) = read {
                self.wire.output.clear();
                return Err(ReplyError::NotBegun { message, blamed: blamed(Some(file)) });
            }
            self.sent = file.length;
            return Ok(self.write_with(Bytes::new()).await?);
        }
        // With more to come; what the socket did not take follows plainly.
        if let Ok(written) = self.wire.transport.try_write_more(&self.wire.output) {
            self.wire.output.drain(..written);
        }
        self.write_with(Bytes::new()).await?;
        let mut end = file.clone();
        let is_frozen = file.memory.is_some();
        let bulk = end.split_to(file.length - if is_frozen { 0 } else { LAST }).length;
        // Up to here it was seen to be in memory.
        let mut warm = if is_frozen { bulk } else { 0 };
        while self.sent < bulk {
            if self.sent >= warm {
                warm = self.warm(file, bulk).await.map_err(ReplyError::Cut)?;
            }
            let step = warm - self.sent;
            let written = self.sendfile(file, file.offset + self.sent, step).await?;
            if written == 0 {
                let message = format!("a file was {} bytes shorter than when it was opened", file.length - self.sent);
                return Err(ReplyError::Cut(message));
            }
            self.sent += written;
            if written == step && self.sent < bulk {
                tokio::task::yield_now().await;
            }
        }
        if is_frozen {
            return Ok(());
        }
        let last = fetch(&end, end.offset, end.length).await;
        let last = last.and_then(|()| end.read_into(&mut self.wire.output).map_err(|error| error.to_string()));
        last.map_err(ReplyError::Cut)?;
        self.sent = file.length;
        Ok(self.write_with(Bytes::new()).await?)
    }

    /// Up to where the bytes that come next are in memory: a step where they all are, else less, read from the disk.
    async fn warm(&self, file: &FileBody, bulk: u64) -> Result<u64, String> {
        let offset = file.offset + self.sent;
        // Steps end at the same places for all clients, which then need not look at the same bytes again.
        let to = |step: u64| ((offset / step + 1) * step - file.offset).min(bulk);
        let far = to(SENDFILE_STEP);
        if cold::is_at_hand(&file.file, offset, far - self.sent) {
            return Ok(far);
        }
        let near = to(FETCH_STEP);
        fetch(file, offset, near - self.sent).await?;
        Ok(near)
    }

    async fn sendfile(&mut self, file: &FileBody, offset: u64, step: u64) -> io::Result<u64> {
        std::future::poll_fn(|context| {
            loop {
                match self.wire.poll_writable(context) {
                    Poll::Ready(ready) => ready?,
                    Poll::Pending => {
                        ready!(self.incoming.poll(self.wire, context))?;
                        continue;
                    }
                }
                match self.wire.transport.try_sendfile(file.file.as_fd(), offset, step as usize) {
                    Ok(written) => return Poll::Ready(Ok(written as u64)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        })
        .await
    }

    /// Sends a file that the kernel cannot or should not send by itself.
    async fn send_copied(
        &mut self,
        file: FileBody,
        plan: HeadPlan,
        head: &impl Fn(&mut Vec<u8>),
    ) -> Result<Sent, ReplyError> {
        let sent = self.send_stream(Box::pin(FileStream::new(file.clone())), plan, head).await;
        sent.map_err(|error| match error {
            ReplyError::NotBegun { message, .. } => ReplyError::NotBegun { message, blamed: blamed(Some(&file)) },
            error => error,
        })
    }

    /// The head goes out with whatever is at hand; the next chunk is asked for when the last ones were written.
    async fn send_stream(
        &mut self,
        mut stream: Pin<Box<dyn BodyStream>>,
        plan: HeadPlan,
        head: &impl Fn(&mut Vec<u8>),
    ) -> Result<Sent, ReplyError> {
        let mut head_sent = false;
        loop {
            // The first time what is at hand decides; from then on there is nothing to do but wait.
            let begun = head_sent;
            let mut gathered = Gathered {
                plan,
                sent: self.sent,
                head: (!begun).then_some(head),
                tail: Bytes::new(),
                takes_laid: self.wire.transport.is_plain(),
                laid: None,
            };
            let step = std::future::poll_fn(|context| {
                loop {
                    match gathered.poll(stream.as_mut(), &mut self.wire.output, context) {
                        Poll::Pending if begun => ready!(self.incoming.poll(self.wire, context))?,
                        Poll::Pending => return Poll::Ready(Ok(Step::More)),
                        Poll::Ready(step) => return Poll::Ready(Ok::<_, io::Error>(step)),
                    }
                }
            })
            .await?;
            let Gathered { sent, tail, head: unsent_head, laid, .. } = gathered;
            if let Step::Failed(message) = step {
                if head_sent || unsent_head.is_none() {
                    self.write_with(tail).await?;
                    return Err(ReplyError::Cut(message));
                }
                return Err(ReplyError::NotBegun { message, blamed: blamed(None) });
            }
            if let Some(head) = unsent_head {
                head(&mut self.wire.output);
            }
            if step == Step::End && plan.length == Length::Chunked && tail.is_empty() {
                encode_end(&mut self.wire.output, stream.as_mut().take_trailers().as_ref());
            }
            head_sent = true;
            self.sent = sent;
            match laid {
                Some(piece) => self.write_laid(piece, plan.length).await?,
                None => self.write_with(tail).await?,
            }
            match step {
                Step::End if plan.connection == ConnectionField::Close => return Ok(Sent::Close),
                Step::End => return Ok(Sent::KeepAlive),
                Step::Overlong => return Ok(Sent::Overlong),
                Step::More | Step::Failed(_) => {}
            }
        }
    }

    /// Writes the output and a piece behind it that lies elsewhere, as [`write_with`](Self::write_with) does.
    async fn write_laid(&mut self, mut piece: Box<dyn LaidPiece>, length: Length) -> io::Result<()> {
        let after: &[u8] = if length == Length::Chunked { b"\r\n" } else { b"" };
        let written = std::future::poll_fn(|context| {
            loop {
                match self.wire.poll_send_laid(context, &mut *piece, after) {
                    Poll::Ready(result) => return Poll::Ready(result),
                    Poll::Pending => ready!(self.incoming.poll(self.wire, context))?,
                }
            }
        })
        .await;
        self.sent -= piece.length() as u64;
        written
    }

    /// Writes the output and `tail` behind it, and goes on feeding the handler's body meanwhile.
    async fn write_with(&mut self, mut tail: Bytes) -> io::Result<()> {
        if tail.len() <= SMALL_BODY {
            self.wire.output.extend_from_slice(&tail);
            tail = Bytes::new();
        }
        std::future::poll_fn(|context| {
            loop {
                match self.wire.poll_send(context, &mut tail) {
                    Poll::Ready(result) => return Poll::Ready(result),
                    Poll::Pending => ready!(self.incoming.poll(self.wire, context))?,
                }
            }
        })
        .await
    }
}

/// What a turn of a stream came to.
#[derive(Debug, Eq, PartialEq)]
enum Step {
    /// Something is to be written, then more follows.
    More,
    /// It is over.
    End,
    /// It has given more than it said.
    Overlong,
    /// It broke.
    Failed(String),
}

/// The chunks of one write.
struct Gathered<'a, H> {
    plan: HeadPlan,
    sent: u64,
    /// The head, until it was written before the first chunk.
    head: Option<&'a H>,
    /// A large chunk that is not copied; ends the gathering.
    tail: Bytes,
    /// Whether the kernel can send what lies elsewhere.
    takes_laid: bool,
    /// Such a piece; ends the gathering.
    laid: Option<Box<dyn LaidPiece>>,
}

impl<H: Fn(&mut Vec<u8>)> Gathered<'_, H> {
    fn poll(
        &mut self,
        mut stream: Pin<&mut dyn BodyStream>,
        output: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Poll<Step> {
        let begin = self.sent;
        loop {
            let polled = catch_unwind(AssertUnwindSafe(|| {
                if self.takes_laid {
                    return stream.as_mut().poll_piece(context);
                }
                stream.as_mut().poll_chunk(context).map(|next| next.map(|chunk| chunk.map(Piece::Bytes)))
            }));
            let piece = match polled {
                Ok(Poll::Ready(Some(Ok(piece)))) => piece,
                Ok(Poll::Ready(Some(Err(error)))) => return Poll::Ready(failed(&error)),
                Ok(Poll::Ready(None)) => return Poll::Ready(self.end()),
                Ok(Poll::Pending) if self.sent > begin => return Poll::Ready(Step::More),
                Ok(Poll::Pending) => return Poll::Pending,
                Err(panic) => return Poll::Ready(Step::Failed(format!("a response body panicked: {}", told(&*panic)))),
            };
            let length = match &piece {
                Piece::Bytes(bytes) => bytes.len(),
                Piece::Laid(laid) => laid.length(),
            };
            if length == 0 {
                continue;
            }
            if let Some(head) = self.head.take() {
                head(output);
            }
            let room = if let Length::Known(length) = self.plan.length { length - self.sent } else { u64::MAX };
            let is_overlong = length as u64 > room;
            self.put(piece, length.min(usize::try_from(room).unwrap_or(usize::MAX)), output);
            if is_overlong {
                return Poll::Ready(Step::Overlong);
            }
            if output.len() >= GATHER || !self.tail.is_empty() || self.laid.is_some() {
                return Poll::Ready(Step::More);
            }
        }
    }

    /// Puts the first `length` bytes of `piece` behind the others.
    fn put(&mut self, piece: Piece, length: usize, output: &mut Vec<u8>) {
        if length == 0 {
            return;
        }
        self.sent += length as u64;
        let is_chunked = self.plan.length == Length::Chunked;
        if is_chunked {
            encode_chunk_size(output, length);
        }
        let mut chunk = match piece {
            Piece::Bytes(chunk) => chunk,
            Piece::Laid(mut laid) => {
                laid.truncate(length);
                self.laid = Some(laid);
                return;
            }
        };
        chunk.truncate(length);
        if chunk.len() > SMALL_BODY && !is_chunked {
            self.tail = chunk;
            return;
        }
        output.extend_from_slice(&chunk);
        if is_chunked {
            output.extend_from_slice(b"\r\n");
        }
    }

    fn end(&self) -> Step {
        match self.plan.length {
            Length::Known(length) if self.sent < length => {
                Step::Failed(format!("a response body was {} bytes shorter than it said", length - self.sent))
            }
            _ => Step::End,
        }
    }
}

/// How it is told that a body could not even be begun, and whose fault that is. A `file` that has changed since it was
/// promised is nobody's fault, and there again a moment later.
pub(super) fn blamed(file: Option<&FileBody>) -> (Status, Fault) {
    match file {
        Some(file) if file.check().is_err() => (Status::SERVICE_UNAVAILABLE, Fault::Server),
        _ => (Status::BAD_GATEWAY, Fault::Worker),
    }
}

fn failed(error: &BodyError) -> Step {
    Step::Failed(format!("a response body failed: {error}"))
}

pub(super) fn length(body: &ResponseBody) -> Option<u64> {
    match body {
        ResponseBody::Empty => Some(0),
        ResponseBody::Full(bytes) => Some(bytes.len() as u64),
        ResponseBody::File(file) => Some(file.length),
        ResponseBody::LengthOnly(length) => Some(*length),
        ResponseBody::Stream(stream) => stream.length(),
        ResponseBody::Tunnel(_) => None,
    }
}

/// Has a part of a file in memory, so that sending it waits for no disk.
async fn fetch(file: &FileBody, offset: u64, length: u64) -> Result<(), String> {
    if cold::is_at_hand(&file.file, offset, length) {
        return Ok(());
    }
    cold::fetch(&file.file, offset, length).await.map_err(|error| format!("a file could not be read: {error}"))
}
