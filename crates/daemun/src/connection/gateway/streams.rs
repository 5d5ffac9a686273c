//! The requests of a connection while they are read and answered.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context as Task;

use bytes::{Bytes, BytesMut};
use daemun_protocol::fastcgi::{self, Kind};

use super::answer::answer;
use super::outbox::Outbox;
use crate::connection::Context;
use crate::connection::error_page::error_response;
use crate::http::h1::{Length, Refusal};
use crate::http::variables::{ReadVariables, write_response};
use crate::http::{BodyError, BodyFeed, Endpoint, RequestBody, ResponseBody, Status, Timing};
use crate::listener::Protocol;
use crate::telemetry::metrics;
use crate::telemetry::{Entry, RequestLine};

/// Requests at a time on one connection, as over HTTP/2.
pub(super) const MAX_STREAMS: usize = 100;

/// A request.
pub(super) struct Stream {
    pub(super) id: u16,
    /// Its variables while they come in.
    params: Option<BytesMut>,
    feed: Option<BodyFeed>,
    /// Bytes of its body that are still to come, where that is known.
    left: Option<u64>,
    seen: u64,
    answering: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    outbox: Outbox,
}

/// The requests of a connection.
pub(super) struct Streams {
    context: Arc<Context>,
    endpoint: Arc<Endpoint>,
    protocol: Protocol,
    all: Vec<Stream>,
    /// Whose answer goes out next, so that a long one leaves room for the others.
    turn: usize,
    max_body: u64,
}

impl Streams {
    pub(super) fn new(context: Arc<Context>, endpoint: Arc<Endpoint>, protocol: Protocol) -> Self {
        let max_body = context.serving.load().limits.max_body;
        Self { context, endpoint, protocol, all: Vec::new(), turn: 0, max_body }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether no other request begins here: none does on a connection that is to end.
    pub(super) fn is_full(&self) -> bool {
        self.all.len() >= MAX_STREAMS || self.all.iter().any(|stream| stream.outbox.is_broken())
    }

    pub(super) fn has(&self, id: u16) -> bool {
        self.all.iter().any(|stream| stream.is(id))
    }

    /// Whether an answer failed and the connection has to end for it: once the others on it have come to their ends.
    pub(super) fn is_broken(&self) -> bool {
        let has_failed = |stream: &Stream| stream.outbox.is_broken() && stream.outbox.is_empty();
        !self.all.is_empty() && self.all.iter().all(has_failed)
    }

    /// Whether answers wait that the socket may take now.
    pub(super) fn has_more_out(&self) -> bool {
        self.all.iter().any(|stream| !stream.outbox.is_empty())
    }

    /// Whether more may be read: a handler that takes nothing of its body holds its peer up.
    pub(super) fn may_read(&self) -> bool {
        self.all.iter().all(|stream| stream.feed.as_ref().is_none_or(|feed| feed.has_room() || feed.is_abandoned()))
    }

    /// Whether it is the peer that all wait for.
    pub(super) fn waits_for_peer(&self) -> bool {
        let waits = |stream: &Stream| {
            stream.params.is_some() || stream.feed.as_ref().is_some_and(|feed| feed.is_wanted() && !feed.is_abandoned())
        };
        self.all.iter().any(waits)
    }

    /// Requests whose peer is late are told so; false where there is none.
    pub(super) fn too_slow(&mut self) -> bool {
        let mut any = false;
        for stream in &mut self.all {
            if stream.params.take().is_some() {
                stream.outbox.break_off();
                any = true;
            } else if stream.feed.as_ref().is_some_and(|feed| feed.is_wanted() && !feed.is_abandoned()) {
                stream.fail(Status::REQUEST_TIMEOUT, BodyError::Slow);
                any = true;
            }
        }
        any
    }

    /// The peer sends nothing more.
    pub(super) fn ended(&mut self) {
        for stream in &mut self.all {
            if stream.params.take().is_some() {
                stream.outbox.break_off();
            }
            stream.fail(Status::BAD_REQUEST, BodyError::Cut("the peer closed the connection"));
        }
    }

    /// A request begins; its variables follow.
    pub(super) fn open(&mut self, id: u16) {
        self.all.push(Stream {
            id,
            params: Some(BytesMut::new()),
            feed: None,
            left: None,
            seen: 0,
            answering: None,
            outbox: Outbox::default(),
        });
    }

    /// More variables; how many bytes of them there are by now.
    pub(super) fn more_params(&mut self, id: u16, content: &[u8]) -> usize {
        let params = self.find(id).and_then(|stream| stream.params.as_mut());
        params.map_or(0, |params| {
            params.extend_from_slice(content);
            params.len()
        })
    }

    /// All variables of a request that is still being read.
    pub(super) fn params(&mut self, id: u16) -> Option<BytesMut> {
        self.find(id)?.params.take()
    }

    /// A request was read: it is answered.
    pub(super) fn begin(&mut self, id: u16, read: ReadVariables) {
        if !self.has(id) {
            self.open(id);
        }
        // Only FastCGI has an end of its own for a body of which nobody said how long it is.
        let length = read.length.or((self.protocol != Protocol::Fastcgi).then_some(0));
        let (feed, body) = match length {
            Some(0) => (None, RequestBody::Empty),
            length => {
                let (feed, body) = RequestBody::coming(length);
                (Some(feed), body)
            }
        };
        let (context, endpoint) = (Arc::clone(&self.context), Arc::clone(&self.endpoint));
        let is_http = self.protocol == Protocol::Uwsgi;
        let Some(stream) = self.find(id) else { return };
        stream.params = None;
        (stream.feed, stream.left) = (feed, length);
        stream.answering = Some(Box::pin(answer(context, endpoint, (read, body), stream.outbox.clone(), is_http)));
    }

    /// A request that is none is answered without a handler.
    pub(super) fn refuse(&mut self, id: u16, refusal: &Refusal) {
        if !self.has(id) {
            self.open(id);
        }
        self.context.errors.info(format_args!("a request was refused: {refusal}"));
        let page = error_response(refusal.status, Some(refusal.reason), None, None, None);
        let body = if let ResponseBody::Full(body) = page.body { body } else { Bytes::new() };
        let mut head = Vec::new();
        let length = Length::Known(body.len() as u64);
        write_response(&mut head, self.protocol == Protocol::Uwsgi, (page.status, None), &page.fields, length);
        self.context.access.log(&Entry {
            client: self.endpoint.client().map(|peer| peer.address),
            request: RequestLine::Refused(b""),
            status: refusal.status,
            bytes: body.len() as u64,
            duration: std::time::Duration::ZERO,
            timing: Timing::default(),
            id: None,
            trace: None,
            forwarded: None,
            scheme: self.endpoint.scheme(),
            place: metrics::PlaceId::default(),
        });
        let Some(stream) = self.find(id) else { return };
        stream.params = None;
        stream.outbox.put_now(head.into());
        stream.outbox.put_now(body);
        stream.answering = None;
    }

    /// Bytes of a request's body that are still to come.
    pub(super) fn wanted(&self, id: u16) -> u64 {
        let stream = self.all.iter().find(|stream| stream.is(id));
        stream.and_then(|stream| stream.left).unwrap_or_default()
    }

    /// More of a request's body. What is there for nobody is dropped.
    pub(super) fn feed(&mut self, id: u16, bytes: Bytes) {
        let max_body = self.max_body;
        let Some(stream) = self.find(id) else { return };
        stream.seen += bytes.len() as u64;
        let is_over = stream.left.is_some_and(|left| left < bytes.len() as u64);
        stream.left = stream.left.map(|left| left.saturating_sub(bytes.len() as u64));
        if is_over {
            return stream.fail(Status::BAD_REQUEST, BodyError::Cut("it is longer than CONTENT_LENGTH says"));
        }
        if stream.seen > max_body {
            return stream.fail(Status::CONTENT_TOO_LARGE, BodyError::TooLarge(max_body));
        }
        if let Some(feed) = &stream.feed {
            feed.push(bytes);
        }
        if stream.left == Some(0) {
            stream.end_well();
        }
    }

    /// A request's body has come to the end of its stream.
    pub(super) fn end_body(&mut self, id: u16) {
        let Some(stream) = self.find(id) else { return };
        if stream.left.is_some_and(|left| left > 0) {
            stream.fail(Status::BAD_REQUEST, BodyError::Cut("it is shorter than CONTENT_LENGTH says"));
        } else {
            stream.end_well();
        }
    }

    /// The peer no longer wants a request (FastCGI, section 5.4).
    pub(super) fn abort(&mut self, id: u16, out: &mut Vec<u8>) {
        let Some(at) = self.all.iter().position(|stream| stream.is(id)) else { return };
        self.all.swap_remove(at);
        fastcgi::put_end(out, id, 1, fastcgi::Ending::Complete);
    }

    /// Goes on with every answer; true where one came to its end.
    pub(super) fn poll(&mut self, task: &mut Task<'_>) -> bool {
        let mut progress = false;
        for stream in &mut self.all {
            if let Some(answering) = &mut stream.answering
                && answering.as_mut().poll(task).is_ready()
            {
                stream.answering = None;
                progress = true;
            }
        }
        progress
    }

    /// Moves what answers have to say into `out`, up to `most` bytes; true where that was something.
    pub(super) fn drain_into(&mut self, out: &mut Vec<u8>, most: usize) -> bool {
        let before = out.len();
        let is_framed = self.protocol == Protocol::Fastcgi;
        let mut without = 0;
        while out.len() < most && without < self.all.len() {
            self.turn = (self.turn + 1) % self.all.len();
            let stream = &self.all[self.turn];
            let Some(bytes) = stream.outbox.take() else {
                without += 1;
                continue;
            };
            without = 0;
            if is_framed {
                fastcgi::put_stream(out, Kind::Stdout, stream.id, &bytes);
            } else {
                out.extend_from_slice(&bytes);
            }
        }
        self.all.retain(|stream| {
            let is_over = stream.answering.is_none()
                && stream.params.is_none()
                && stream.outbox.is_empty()
                && !stream.outbox.is_broken();
            if is_over && is_framed {
                fastcgi::put_record(out, Kind::Stdout, stream.id, b"");
                fastcgi::put_end(out, stream.id, 0, fastcgi::Ending::Complete);
            }
            !is_over
        });
        out.len() > before
    }

    fn find(&mut self, id: u16) -> Option<&mut Stream> {
        self.all.iter_mut().find(|stream| stream.is(id))
    }
}

impl Stream {
    fn fail(&mut self, status: Status, error: BodyError) {
        if let Some(feed) = self.feed.take() {
            self.outbox.fail(status);
            feed.end(Err(error));
        }
    }

    fn end_well(&mut self) {
        if let Some(feed) = self.feed.take() {
            feed.end(Ok(()));
        }
    }
}
