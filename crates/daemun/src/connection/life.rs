//! From accept to close.

use std::io;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::time::Instant;

use super::buffers::READ_SIZE;
use super::current::Guard;
use super::drain::Place;
use super::error_page::error_response;
use super::handshake::{Done, Handshake, HandshakeError, handshake};
use super::transport::Transport;
use super::wire::Wire;
use super::{Context, Phase, Serving};
use crate::crowd::Busy;
use crate::http::h1::{HeadLimits, HeadScan, Outgoing, ParsedHead, Refusal, Scanned, encode_head, parse_head, plan};
use crate::http::h2::PREFACE;
use crate::http::{Endpoint, InterimQueue, Method, ResponseBody, Status, Timing, Version, date};
use crate::listener::Protocol;
use crate::telemetry::{Entry, Level, RequestLine, metrics};
use crate::tls::{self, Certificates};

/// How long and how much is read behind a last answer. Closing with unread bytes makes the kernel send a reset, and
/// the reset can overtake the answer: the client would see neither (RFC 9112, section 9.6).
pub(super) const LINGER: Duration = Duration::from_secs(1);
const MAX_LINGER: usize = 64 * 1024;

/// The same for a client of HTTP/2, which sends on many streams at once and reads its GOAWAY only when it has done so.
/// Reading and dropping costs next to nothing.
pub(super) const DRAINED_FOR: Duration = Duration::from_secs(5);
pub(super) const MAX_DRAINED: usize = 16 * 1024 * 1024;

/// How long a connection that was accepted just before a drain may take to send its first byte: its client has done
/// nothing wrong, and its request is on the way.
pub(super) const DRAIN_NEW: Duration = Duration::from_millis(500);

/// One connection.
pub(super) struct Connection {
    pub(super) wire: Wire,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) context: Arc<Context>,
    /// Which certificate it began with, where that decides what it may ask.
    pub(super) guard: Option<Guard>,
    /// What a handler says ahead of its answer.
    pub(super) interim: InterimQueue,
    pub(super) place: Place,
    /// When it was accepted, until its first request.
    pub(super) accepted: Option<Instant>,
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
    /// It ends, and the client may be sending more than it should: all the same it is to read why.
    Drain,
    /// It is dropped as it is.
    Cut,
    /// With HTTP/2, which the client has begun to speak.
    Http2,
}

/// What came next.
enum Next {
    Request(ParsedHead, Arc<Serving>),
    Refused(Refusal),
    /// The preface of HTTP/2.
    Http2,
    /// Nothing: the client closed, or was idle too long.
    Nothing,
}

/// Serves one connection to its end. Abandon the future to cut it.
pub async fn serve(transport: Transport, endpoint: Arc<Endpoint>, context: Arc<Context>) {
    let mut connection = Connection::new(Wire::new(transport), endpoint, context);
    connection.live(false).await;
}

/// Serves one connection of another web server to its end. Abandon the future to cut it.
pub async fn serve_gateway(transport: Transport, endpoint: Arc<Endpoint>, protocol: Protocol, context: Arc<Context>) {
    let mut connection = Connection::new(Wire::new(transport), endpoint, context);
    let ending = connection.run_gateway(protocol).await;
    if matches!(ending, Ending::Close | Ending::Linger) {
        connection.close(ending).await;
    }
}

/// Serves one connection that begins with TLS to its end. Abandon the future to cut it.
pub async fn serve_tls(socket: Transport, endpoint: Endpoint, certificates: Arc<Certificates>, context: Arc<Context>) {
    let patience = context.serving.load().limits.header_timeout;
    let accepted = Instant::now();
    let busy = Busy::begin();
    // Boxed: what a handshake needs would else be carried along by every idle connection.
    let handshake = Box::pin(handshake(socket, &certificates, patience, &context.drain)).await;
    drop(busy);
    match handshake {
        Handshake::Done(Done { secure, early, entry }) => {
            metrics::tls_handshake(true);
            let Some(entry) = entry else { return };
            let session = secure.session();
            let is_http2 = session.alpn_protocol() == Some(b"h2");
            let told = tls::describe(session, certificates.client_certificates(entry));
            let mut wire = Wire::new(Transport::Tls(secure));
            wire.input = early;
            let mut connection = Connection::new(wire, Arc::new(endpoint.with_tls(told)), context);
            connection.accepted = Some(accepted);
            connection.guard = certificates.asks_clients().then_some(Guard { certificates, entry });
            connection.live(is_http2).await;
        }
        Handshake::Plain(socket, said) => {
            metrics::tls_handshake(false);
            let mut wire = Wire::new(socket);
            wire.input = said;
            let mut connection = Connection::new(wire, Arc::new(endpoint), context);
            let ending = connection.refuse_head(Refusal::bad("plain HTTP was sent to a port for https")).await;
            connection.close(ending).await;
        }
        Handshake::Failed(error) => {
            metrics::tls_handshake(false);
            let client = endpoint.client().map_or("unix:", |peer| &peer.ip);
            // Those that only look whether somebody listens come all the time.
            let level = if matches!(error, HandshakeError::Gone) { Level::Debug } else { Level::Info };
            context.errors.log(level, format_args!("a TLS handshake with {client} failed: {error}"));
        }
    }
}

impl Connection {
    fn new(wire: Wire, endpoint: Arc<Endpoint>, context: Arc<Context>) -> Self {
        let (interim, accepted) = (InterimQueue::default(), Some(wire.asked()));
        Self { wire, endpoint, context, guard: None, interim, place: Place::default(), accepted }
    }

    /// From the first request to the close. By reference: an idle connection would carry along a second copy of itself.
    async fn live(&mut self, is_http2: bool) {
        let mut ending = if is_http2 { Ending::Http2 } else { self.run().await };
        if ending == Ending::Http2 {
            ending = Box::pin(self.run_http2()).await;
        }
        if matches!(ending, Ending::Close | Ending::Linger | Ending::Drain) {
            self.close(ending).await;
        }
    }

    async fn run(&mut self) -> Ending {
        let mut is_new = true;
        loop {
            let ending = match self.next(is_new).await {
                Next::Request(parsed, serving) => {
                    let ending = self.exchange(parsed, &serving).await;
                    self.count(|| ());
                    ending
                }
                Next::Refused(refusal) => self.refuse_head(refusal).await,
                Next::Http2 => Ending::Http2,
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
                    let preface =
                        if is_new && self.endpoint.tls().is_none() { preface(&self.wire.input) } else { Preface::Not };
                    if preface == Preface::Whole {
                        return Poll::Ready(Next::Http2);
                    }
                    match if preface == Preface::Begun { Ok(None) } else { self.read_head(&mut scan) } {
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
                let refusal = Refusal::over(Status::REQUEST_TIMEOUT, "the head came too slowly", "header_timeout");
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
                // For the access log: nothing more is read.
                self.wire.input = BytesMut::from(&head[..]);
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
        self.context.access.log(&Entry {
            client: self.endpoint.client().map(|peer| peer.address),
            request: RequestLine::Refused(&self.wire.input),
            status: refusal.status,
            bytes: if sent.is_ok() { bytes } else { 0 },
            duration: Duration::ZERO,
            timing: Timing::default(),
            id: None,
            trace: None,
            forwarded: None,
            scheme: self.endpoint.scheme(),
            place: metrics::PlaceId::default(),
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
        let (mut left, patience) = match ending {
            Ending::Linger => (MAX_LINGER, LINGER),
            Ending::Drain => (MAX_DRAINED, DRAINED_FOR),
            _ => (0, LINGER),
        };
        let deadline = Instant::now() + patience;
        let shut = std::future::poll_fn(|task| match self.wire.transport.poll_shutdown(task) {
            Poll::Ready(shut) => Poll::Ready(shut.is_ok()),
            // Only through TLS, whose goodbye the client does not take.
            Poll::Pending => self.wire.alarm.poll(task, deadline).map(|()| false),
        });
        if !shut.await {
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

/// How much of HTTP/2's preface a connection begins with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Preface {
    Not,
    Begun,
    Whole,
}

/// One comparison for nearly everybody: only POST, PUT and PATCH begin like it.
fn preface(input: &[u8]) -> Preface {
    if input.first() != Some(&PREFACE[0]) {
        return Preface::Not;
    }
    let length = input.len().min(PREFACE.len());
    match input[..length] == PREFACE[..length] {
        false => Preface::Not,
        true if length == PREFACE.len() => Preface::Whole,
        true => Preface::Begun,
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
