//! The body of an HTTP/2 request on its way from its stream to the handler: what [`incoming`](super::incoming) is for
//! HTTP/1.1. The client's windows open as the handler takes what came, so that one that does not read holds its client
//! back; that a body is as long as it said is found by the `h2` crate.

use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use ::h2::RecvStream;
use bytes::Bytes;
use tokio::time::Instant;

use super::Limits;
use super::http2::Shared;
use crate::alarm::Alarm;
use crate::http::{BodyError, BodyFeed, RequestBody, Status, trailers};

const CUT: BodyError = BodyError::Cut("the client reset the stream");

/// The body of a request, as far as it is still to come.
pub(super) struct Inflow(Option<Box<Coming>>);

struct Coming {
    stream: RecvStream,
    feed: BodyFeed,
    /// The client waits for a 100.
    owes_continue: bool,
    seen: u64,
    max_body: u64,
    /// Time in which some bytes have to come while the handler waits for them.
    pace: Duration,
    late_at: Option<Instant>,
    alarm: Alarm,
    /// All bytes came; the fields behind them are still to come.
    is_whole: bool,
    is_over: bool,
    failure: Option<Status>,
}

impl Inflow {
    /// No body.
    pub(super) fn nothing() -> Self {
        Self(None)
    }

    /// Makes the way for a body.
    pub(super) fn begin(
        stream: RecvStream,
        length: Option<u64>,
        owes_continue: bool,
        limits: &Limits,
    ) -> (Self, RequestBody) {
        if stream.is_end_stream() {
            return (Self(None), RequestBody::Empty);
        }
        let (feed, body) = RequestBody::coming(length);
        let coming = Coming {
            stream,
            feed,
            owes_continue,
            seen: 0,
            max_body: limits.max_body,
            pace: limits.header_timeout,
            late_at: None,
            alarm: Alarm::default(),
            is_whole: false,
            is_over: false,
            failure: None,
        };
        (Self(Some(Box::new(coming))), body)
    }

    /// Feeds the handler what it wants. Ready when something changed: poll the handler again.
    pub(super) fn poll(&mut self, task: &mut Task<'_>, shared: &Shared) -> Poll<()> {
        match &mut self.0 {
            Some(coming) if coming.is_wanted() => coming.poll(task, shared),
            Some(coming) => {
                coming.late_at = None;
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }

    /// Whether a 100 is to be sent now: the handler wants what the client waits to send. True once.
    pub(super) fn takes_continue(&mut self) -> bool {
        let Some(coming) = &mut self.0 else { return false };
        let is_due = coming.owes_continue && coming.is_wanted() && coming.seen == 0;
        coming.owes_continue &= !is_due;
        is_due
    }

    /// The status that the body's own failure asks for.
    pub(super) fn failure(&self) -> Option<Status> {
        self.0.as_ref()?.failure
    }
}

impl Coming {
    fn is_wanted(&self) -> bool {
        !self.is_over && self.feed.is_wanted() && !self.feed.is_abandoned()
    }

    fn poll(&mut self, task: &mut Task<'_>, shared: &Shared) -> Poll<()> {
        if !self.is_whole {
            match self.stream.poll_data(task) {
                Poll::Ready(Some(data)) => {
                    self.late_at = None;
                    match data {
                        Ok(bytes) => self.take(bytes, shared),
                        Err(_) => self.fail(None, CUT),
                    }
                    return Poll::Ready(());
                }
                Poll::Ready(None) => self.is_whole = true,
                Poll::Pending => return self.poll_late(task),
            }
        }
        match self.stream.poll_trailers(task) {
            Poll::Ready(Ok(fields)) => {
                self.is_over = true;
                self.feed.end_with(fields.as_ref().and_then(trailers::received));
            }
            Poll::Ready(Err(_)) => self.fail(None, CUT),
            Poll::Pending => return self.poll_late(task),
        }
        Poll::Ready(())
    }

    /// Only while the handler waits: one that is busy does not make its client slow.
    fn poll_late(&mut self, task: &mut Task<'_>) -> Poll<()> {
        let late_at = *self.late_at.get_or_insert_with(|| Instant::now() + self.pace);
        ready!(self.alarm.poll(task, late_at));
        self.fail(Some(Status::REQUEST_TIMEOUT), BodyError::Slow);
        Poll::Ready(())
    }

    fn take(&mut self, bytes: Bytes, shared: &Shared) {
        shared.count(bytes.len());
        self.seen += bytes.len() as u64;
        // Of a stream that is gone nothing needs to be released.
        let _ = self.stream.flow_control().release_capacity(bytes.len());
        if self.seen > self.max_body {
            self.fail(Some(Status::CONTENT_TOO_LARGE), BodyError::TooLarge(self.max_body));
        } else {
            self.feed.push(bytes);
        }
    }

    fn fail(&mut self, status: Option<Status>, error: BodyError) {
        self.is_over = true;
        self.failure = status;
        self.feed.end(Err(error));
    }
}
