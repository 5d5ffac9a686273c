//! The body of a request on its way from the socket to the handler.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::Limits;
use super::buffers::{BODY_SIZE, READ_SIZE};
use super::wire::Wire;
use crate::http::h1::{BodyDecoder, CONTINUE, Decoded, Framing, HeadLimits, Refusal};
use crate::http::{BodyError, BodyFeed, RequestBody, Status};

/// The body of the request that is being answered, as far as it is still to come.
pub(super) struct Incoming(Option<Coming>);

/// A body that was not whole when its head was read.
struct Coming {
    feed: BodyFeed,
    decoder: BodyDecoder,
    interim: Interim,
    seen: u64,
    max_body: u64,
    /// Time in which some bytes have to come while the handler waits for them.
    pace: Duration,
    late_at: Option<Instant>,
    state: State,
}

/// The 100 that a client asked for (RFC 9110, section 10.1.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Interim {
    /// Nobody waits for one.
    Settled,
    /// The client waits; it is sent when the handler first wants the body.
    Owed,
    /// It stands in the output.
    Sending,
    /// The final status was sent instead. The client may now send the body or not: nobody knows.
    Withheld,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Reading,
    Whole,
    /// Nobody knows where the next request would begin.
    Broken(Status),
}

/// What the handler left of a body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Leftover {
    /// Nothing.
    Nothing,
    /// Bytes that may be read and dropped.
    Drainable,
    /// Too much, broken, or perhaps never sent: the connection closes.
    Undrainable,
}

impl Incoming {
    /// No body.
    pub(super) fn nothing() -> Self {
        Self(None)
    }

    /// Takes the body if it is whole in `input`; else makes the way for what is still to come.
    pub(super) fn begin(
        input: &mut BytesMut,
        framing: Framing,
        limits: &Limits,
        owes_continue: bool,
    ) -> Result<(Self, RequestBody), Refusal> {
        let length = match framing {
            Framing::None => return Ok((Self(None), RequestBody::Empty)),
            Framing::Length(length) if length > limits.max_body => return Err(TOO_LARGE),
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        };
        if let Some(length) = length.and_then(|length| usize::try_from(length).ok())
            && length <= input.len()
        {
            return Ok((Self(None), RequestBody::Full(input.split_to(length).freeze())));
        }
        let mut decoder = BodyDecoder::new(framing, HeadLimits::from(limits));
        let mut parts = Vec::new();
        let mut seen = 0;
        let is_whole = loop {
            match decoder.decode(input)? {
                Decoded::Data(bytes) => {
                    seen += bytes.len() as u64;
                    parts.push(bytes);
                }
                Decoded::Partial => break false,
                Decoded::End => break true,
            }
            if seen > limits.max_body {
                return Err(TOO_LARGE);
            }
        };
        let trailers = if is_whole { decoder.take_trailers() } else { None };
        if is_whole && trailers.is_none() {
            let body = if seen == 0 { RequestBody::Empty } else { RequestBody::Full(join(parts)) };
            return Ok((Self(None), body));
        }
        let (feed, body) = RequestBody::coming(length);
        // A client that has begun to send does not wait.
        let interim = if owes_continue && seen == 0 { Interim::Owed } else { Interim::Settled };
        for part in parts {
            feed.push(part);
        }
        if is_whole {
            feed.end_with(trailers);
            return Ok((Self(None), body));
        }
        let coming = Coming {
            feed,
            decoder,
            interim,
            seen,
            max_body: limits.max_body,
            pace: limits.header_timeout,
            late_at: None,
            state: State::Reading,
        };
        Ok((Self(Some(coming)), body))
    }

    /// Feeds the handler what it wants and watches the client. Ready with `Ok`: something changed, poll the handler
    /// again; with an error: the client is gone.
    pub(super) fn poll(&mut self, wire: &mut Wire, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Some(coming) if coming.is_wanted() => coming.poll(wire, context),
            Some(coming) => {
                coming.late_at = None;
                wire.poll_gone(context).map(Err)
            }
            None => wire.poll_gone(context).map(Err),
        }
    }

    /// The final status goes out: a 100 must not follow it.
    pub(super) fn withhold_continue(&mut self) {
        if let Some(coming) = &mut self.0
            && coming.interim == Interim::Owed
        {
            coming.interim = Interim::Withheld;
        }
    }

    /// The status that the body's own failure asks for.
    pub(super) fn failure(&self) -> Option<Status> {
        match self.0.as_ref()?.state {
            State::Broken(status) => Some(status),
            State::Reading | State::Whole => None,
        }
    }

    /// What is still to come once the handler is done.
    pub(super) fn leftover(&self, max_drain: u64) -> Leftover {
        let Some(coming) = &self.0 else { return Leftover::Nothing };
        match coming.state {
            State::Whole => Leftover::Nothing,
            State::Broken(_) => Leftover::Undrainable,
            State::Reading if matches!(coming.interim, Interim::Owed | Interim::Withheld) => Leftover::Undrainable,
            State::Reading if coming.decoder.remaining().is_some_and(|left| left > max_drain) => Leftover::Undrainable,
            State::Reading => Leftover::Drainable,
        }
    }

    /// Reads and drops what is left. True if the next request begins where the input stands now.
    pub(super) async fn drain(&mut self, wire: &mut Wire, limits: &Limits) -> bool {
        let Some(coming) = &mut self.0 else { return true };
        let deadline = Instant::now() + limits.header_timeout;
        let mut dropped = 0;
        std::future::poll_fn(|context| {
            loop {
                match coming.decoder.decode(&mut wire.input) {
                    Ok(Decoded::End) => return Poll::Ready(true),
                    Ok(Decoded::Data(bytes)) => {
                        dropped += bytes.len() as u64;
                        if dropped > limits.max_drain {
                            return Poll::Ready(false);
                        }
                    }
                    Ok(Decoded::Partial) if wire.is_ended => return Poll::Ready(false),
                    Ok(Decoded::Partial) => match wire.poll_fill(context, READ_SIZE) {
                        Poll::Ready(Ok(1..)) => {}
                        Poll::Ready(_) => return Poll::Ready(false),
                        Poll::Pending => return wire.alarm.poll(context, deadline).map(|()| false),
                    },
                    Err(_) => return Poll::Ready(false),
                }
            }
        })
        .await
    }
}

impl Coming {
    fn is_wanted(&self) -> bool {
        self.state == State::Reading && self.feed.is_wanted() && !self.feed.is_abandoned()
    }

    fn poll(&mut self, wire: &mut Wire, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.decoder.decode(&mut wire.input) {
                Ok(Decoded::Data(bytes)) => {
                    self.take(bytes);
                    return Poll::Ready(Ok(()));
                }
                Ok(Decoded::End) => {
                    self.state = State::Whole;
                    wire.is_asked(Instant::now());
                    self.feed.end_with(self.decoder.take_trailers());
                    return Poll::Ready(Ok(()));
                }
                Ok(Decoded::Partial) => {}
                Err(refusal) => {
                    self.fail(refusal.status, BodyError::Cut(refusal.reason));
                    return Poll::Ready(Ok(()));
                }
            }
            if wire.is_ended {
                self.fail(Status::BAD_REQUEST, BodyError::Cut("the client closed the connection"));
                return Poll::Ready(Ok(()));
            }
            if let Poll::Ready(Err(error)) = self.poll_continue(wire, context) {
                return Poll::Ready(Err(error));
            }
            match self.poll_fill(wire, context) {
                Poll::Ready(Ok(_)) => self.late_at = None,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.poll_late(wire, context),
            }
        }
    }

    /// Reads more of the body: to where the handler wants it, or into the input.
    fn poll_fill(&mut self, wire: &mut Wire, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let left = self.decoder.remaining();
        if let Some(left) = left
            && wire.transport.is_plain()
            && let Some(room) = self.feed.room()
        {
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            let received = ready!(wire.poll_fill_room(context, &*room, most))?;
            self.decoder.skip(received);
            self.seen += received as u64;
            return Poll::Ready(Ok(received));
        }
        let room = left.map_or(BODY_SIZE, |left| left.min(BODY_SIZE as u64) as usize);
        wire.poll_fill(context, room)
    }

    fn poll_continue(&mut self, wire: &mut Wire, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.interim == Interim::Owed {
            wire.output.extend_from_slice(CONTINUE);
            self.interim = Interim::Sending;
        }
        if self.interim == Interim::Sending {
            ready!(wire.poll_send(context, &mut Bytes::new()))?;
            self.interim = Interim::Settled;
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, bytes: Bytes) {
        self.seen += bytes.len() as u64;
        if self.seen > self.max_body {
            self.fail(Status::CONTENT_TOO_LARGE, BodyError::TooLarge(self.max_body));
        } else {
            self.feed.push(bytes);
        }
    }

    fn fail(&mut self, status: Status, error: BodyError) {
        self.state = State::Broken(status);
        self.feed.end(Err(error));
    }

    /// Only while the handler waits: one that is busy does not make its client slow.
    fn poll_late(&mut self, wire: &mut Wire, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let late_at = *self.late_at.get_or_insert_with(|| Instant::now() + self.pace);
        wire.alarm.poll(context, late_at).map(|()| {
            self.fail(Status::REQUEST_TIMEOUT, BodyError::Slow);
            Ok(())
        })
    }
}

const TOO_LARGE: Refusal = Refusal::over(Status::CONTENT_TOO_LARGE, "the body is too long", "max_body");

fn join(mut parts: Vec<Bytes>) -> Bytes {
    match parts.len() {
        0 => Bytes::new(),
        1 => parts.swap_remove(0),
        _ => Bytes::from(parts.concat()),
    }
}

impl From<&Limits> for HeadLimits {
    fn from(limits: &Limits) -> Self {
        Self { max_head: limits.max_head, max_request_line: limits.max_request_line, max_fields: limits.max_fields }
    }
}
