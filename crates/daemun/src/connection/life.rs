//! From accept to close.

use std::io;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::time::Instant;

use super::buffers::READ_SIZE;
use super::drain::Place;
use super::error_page::error_response;
use super::transport::Transport;
use super::wire::Wire;
use super::{Context, Phase, Serving};
use crate::http::h1::{HeadLimits, HeadScan, Outgoing, ParsedHead, Refusal, Scanned, encode_head, parse_head, plan};
use crate::http::{Endpoint, InterimQueue, Method, ResponseBody, Status, Timing, Version, date};
use crate::telemetry::{Entry, RequestLine, metrics};

/// How long and how much is read behind a last answer. Closing with unread bytes makes the kernel send a reset, and
/// the reset can overtake the answer: the client would see neither (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(1);
const MAX_LINGER: usize = 64 * 1024;

/// How long a connection that was accepted just before a drain may take to send its first byte: its client has done
/// nothing wrong, and its request is on the way.
const DRAIN_NEW: Duration = Duration::from_millis(500);

/// One connection.
pub(super) struct Connection {
    pub(super) wire: Wire,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) context: Arc<Context>,
    /// What a handler says ahead of its answer.
    pub(super) interim: InterimQueue,
    place: Place,
    /// A head that was found complete and then refused, for the access log.
    refused: Bytes,
}

/// How a connection goes on after an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ending {
    /// With the next request.
    KeepAlive,
    /// It ends; the client has nothing more to say.
    Close,
    /// It ends, and the client may still be sending.
    Linger,
    /// It is dropped as it is.
    Cut,
}

/// What came next.
enum Next {
    Request(ParsedHead, Arc<Serving>),
    Refused(Refusal),
    /// Nothing: the client closed, or was idle too long.
    Nothing,
}

/// Serves one connection to its end. Abandon the future to cut it.
pub async fn serve(transport: Transport, endpoint: Arc<Endpoint>, context: Arc<Context>) {
    let wire = Wire::new(transport);
    let mut connection = Connection {
        wire,
        endpoint,
        context,
        interim: InterimQueue::default(),
        place: Place::default(),
        refused: Bytes::new(),
    };
    let ending = connection.run().await;
    if matches!(ending, Ending::Close | Ending::Linger) {
        connection.close(ending).await;
    }
}

impl Connection {
    async fn run(&mut self) -> Ending {
        let mut is_new = true;
        loop {
            let ending = match self.next(is_new).await {
                Next::Request(parsed, serving) => self.exchange(parsed, &serving).await,
                Next::Refused(refusal) => self.refuse_head(refusal).await,
                Next::Nothing => Ending::Close,
            };
            if ending != Ending::KeepAlive {
                return ending;
            }
            is_new = false;
        }
    }

    /// Waits for a request and reads its head.
    async fn next(&mut self, is_new: bool) -> Next {
        let mut scan = HeadScan::default();
        let mut deadline = None;
        let mut drained_at = None;
        let mut has_begun = false;
        std::future::poll_fn(|task| {
            loop {
                if !self.wire.input.is_empty() {
                    match self.read_head(&mut scan) {
                        Ok(Some((parsed, serving))) => return Poll::Ready(Next::Request(parsed, serving)),
                        Ok(None) => {}
                        Err(refusal) => return Poll::Ready(Next::Refused(refusal)),
                    }
                    if !has_begun {
                        has_begun = true;
                        // A new connection's deadline runs since accept, if anybody looked at the clock by now.
                        deadline = deadline.filter(|_| is_new && drained_at.is_none());
                    }
                }
                if self.wire.is_ended {
                    return Poll::Ready(Next::Nothing);
                }
                match self.wire.poll_fill(task, READ_SIZE) {
                    Poll::Ready(Ok(_)) => continue,
                    Poll::Ready(Err(_)) => return Poll::Ready(Next::Nothing),
                    Poll::Pending => {}
                }
                if !has_begun {
                    self.wire.rest();
                    self.place.register(&self.context.drain, task);
                    if self.context.drain.phase() == Phase::Draining && !self.wire.transport.has_bytes() {
                        if !is_new {
                            return Poll::Ready(Next::Nothing);
                        }
                        let soon = Instant::now() + DRAIN_NEW;
                        drained_at = drained_at.or(Some(soon));
                        deadline = deadline.min(drained_at).or(drained_at);
                    }
                }
                let at = *deadline.get_or_insert_with(|| Instant::now() + self.patience(is_new || has_begun));
                ready!(self.wire.alarm.poll(task, at));
                if !has_begun {
                    return Poll::Ready(Next::Nothing);
                }
                let refusal = Refusal::new(Status::REQUEST_TIMEOUT, "the head came too slowly");
                return Poll::Ready(Next::Refused(refusal));
            }
        })
        .await
    }

    fn read_head(&mut self, scan: &mut HeadScan) -> Result<Option<(ParsedHead, Arc<Serving>)>, Refusal> {
        let serving = self.context.serving.load_full();
        let limits = HeadLimits::from(&serving.limits);
        let Scanned::Complete { start, end } = scan.advance(&self.wire.input, &limits)? else { return Ok(None) };
        self.wire.input.advance(start);
        let head = self.wire.input.split_to(end - start).freeze();
        match parse_head(&head, &limits) {
            Ok(parsed) => Ok(Some((parsed, serving))),
            Err(refusal) => {
                self.refused = head;
                Err(refusal)
            }
        }
    }

    fn patience(&self, is_due: bool) -> Duration {
        let serving = self.context.serving.load();
        if is_due { serving.limits.header_timeout } else { serving.limits.keep_alive }
    }

    /// Answers what is no request, without a handler. The method is not known, so the answer always has a body.
    async fn refuse_head(&mut self, refusal: Refusal) -> Ending {
        let page = error_response(refusal.status, Some(refusal.reason), None, None, None);
        let ResponseBody::Full(body) = page.body else { return Ending::Cut };
        let plan = plan(&Outgoing {
            method: Method::Other,
            version: Version::Http11,
            status: page.status,
            length: Some(body.len() as u64),
            keep_alive: false,
        });
        encode_head(&mut self.wire.output, plan, (page.status, None), &page.fields, &date::now());
        let bytes = body.len() as u64;
        let mut tail: Bytes = body;
        let sent: io::Result<()> = std::future::poll_fn(|task| self.wire.poll_send(task, &mut tail)).await;
        let first = if self.refused.is_empty() { &self.wire.input[..] } else { &self.refused[..] };
        self.context.access.log(&Entry {
            client: self.endpoint.client().map(|peer| peer.address),
            request: RequestLine::Refused(first),
            status: refusal.status,
            bytes: if sent.is_ok() { bytes } else { 0 },
            duration: Duration::ZERO,
            timing: Timing::default(),
        });
        let nowhere = metrics::RouteId::default();
        let (status, timing) = (refusal.status, Timing::default());
        self.count(|| metrics::answered(nowhere, Method::Other, status, bytes, Duration::ZERO, timing));
        self.context.errors.info(format_args!("a request was refused: {refusal}"));
        if sent.is_ok() { Ending::Linger } else { Ending::Cut }
    }

    /// Counts an answer, and what came from the client since the last one.
    pub(super) fn count(&mut self, answered: impl FnOnce()) {
        if self.context.is_counted {
            answered();
            metrics::received(std::mem::take(&mut self.wire.received));
        }
    }

    /// Says that nothing more comes, and reads what the client may still be sending.
    async fn close(&mut self, ending: Ending) {
        let deadline = Instant::now() + LINGER;
        let mut left = if ending == Ending::Linger { MAX_LINGER } else { 0 };
        if std::future::poll_fn(|task| self.wire.transport.poll_shutdown(task)).await.is_err() {
            return;
        }
        std::future::poll_fn(|task| {
            while left > 0 && !self.wire.is_ended {
                self.wire.input.clear();
                match self.wire.poll_fill(task, READ_SIZE) {
                    Poll::Ready(Ok(read)) => left = left.saturating_sub(read),
                    Poll::Ready(Err(_)) => break,
                    Poll::Pending => return self.wire.alarm.poll(task, deadline),
                }
            }
            Poll::Ready(())
        })
        .await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.place.leave(&self.context.drain);
        self.wire.input.clear();
        self.wire.output.clear();
        self.wire.rest();
    }
}
