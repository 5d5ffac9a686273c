//! The door of an application: a request in, the application's answer out.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use daemun_protocol::frame::{Answer, Ending, INITIAL_CREDIT};

use super::answer::{AnswerError, AnswerHead};
use super::exchange::{Event, Exchange, Failure};
use super::pool::Pool;
use super::shelf::Laid;
use super::sleeper;
use super::spool::{self, Payload};
use crate::crowd::Waiting;
use crate::gateway::{Spool, TrustedProxies, write_wsgi};
use crate::handler::{Answering, Fault, Handler, HandlerError, Outcome};
use crate::http::trace::Trace;
use crate::http::{
    BodyError, BodyStream, Endpoint, FileBody, FileVersion, Interim, LaidPiece, Method, Piece, Request, RequestBody,
    Response, ResponseBody, Status, Timing,
};

/// Bytes that the environment of a browser's request takes.
const USUAL_ENVIRONMENT: usize = 1024;

/// Sends requests to the workers of one application.
pub struct Application {
    pool: Arc<Pool>,
    spool: Arc<Spool>,
    trusted: TrustedProxies,
    sends_files: bool,
}

impl Application {
    /// A handler in front of `pool`. `sends_files` where whoever holds it carries out `X-Sendfile` and
    /// `X-Accel-Redirect`.
    pub fn new(pool: Arc<Pool>, spool: Arc<Spool>, trusted: TrustedProxies, sends_files: bool) -> Self {
        Self { pool, spool, trusted, sends_files }
    }

    /// Passes the body on while the application is at work: it sees the first byte while its client still sends, a slow
    /// client holds a thread, and what was begun cannot be sent again.
    async fn stream(&self, mut request: Request) -> Result<Outcome, HandlerError> {
        let body = std::mem::replace(&mut request.body, RequestBody::Empty);
        let mut ticket = self.submit(&request, Payload::Stream(body.length()))?;
        ticket.upload = Some(Upload { body, allowed: 0 });
        self.respond(ticket, request.interim, &request.endpoint).await.map(Outcome::Response)
    }

    /// Gathers the body first.
    async fn gather(&self, mut request: Request) -> Result<Outcome, HandlerError> {
        let body = std::mem::replace(&mut request.body, RequestBody::Empty);
        let payload = spool::gather(body, self.pool.arena(), &self.spool).await?;
        let ticket = self.submit(&request, payload)?;
        self.respond(ticket, request.interim, &request.endpoint).await.map(Outcome::Response)
    }

    fn submit(&self, request: &Request, payload: Payload) -> Result<Ticket, HandlerError> {
        let mut environment = Vec::with_capacity(USUAL_ENVIRONMENT);
        write_wsgi(&mut environment, request, payload.length(), &self.trusted);
        let exchange = Exchange::new(environment, payload, request, Instant::now());
        let submitted = self.pool.submit(&exchange, sleeper::number());
        let trace = request.notes.trace.clone();
        let waiting = submitted.map_err(|failure| {
            if let Some(trace) = &trace {
                // Somebody who declined may have noted when it was handed to him.
                trace.note(|steps| steps.handed = None);
            }
            self.failed(failure, &exchange)
        })?;
        Ok(Ticket { pool: Arc::clone(&self.pool), exchange, finished: false, upload: None, waiting, trace })
    }

    /// Makes a response of the first events.
    async fn respond(&self, mut ticket: Ticket, interim: Interim, client: &Endpoint) -> Result<Response, HandlerError> {
        let mut event = ticket.next().await;
        while let Event::Inform(head) = &event {
            // The shim has checked it and said what is wrong; what is not valid all the same is no answer either.
            if let Ok(AnswerHead { status, fields, .. }) = AnswerHead::parse(head) {
                interim.send(status, fields);
            }
            event = ticket.next().await;
        }
        match event {
            Event::Answer(Answer { microseconds, head, body }) => {
                let timing = ticket.timing(microseconds);
                let head = self.head(&head, &ticket.exchange, client)?;
                Ok(Self::whole(head, body, &ticket.exchange, timing))
            }
            Event::Head(microseconds, head) => {
                let timing = ticket.timing(microseconds);
                let head = self.head(&head, &ticket.exchange, client)?;
                // Boxed: the common answer comes whole, and its future should be small.
                Box::pin(self.streamed(ticket, head, timing)).await
            }
            Event::Failed(failure) => Err(self.failed(failure, &ticket.exchange)),
            Event::Done(_)
            | Event::Data(_)
            | Event::Laid(_)
            | Event::File { .. }
            | Event::Inform(_)
            | Event::Wants(_) => {
                let message =
                    format!("{}: {} failed; its traceback stands above", self.pool.name(), ticket.exchange.what());
                Err(HandlerError::new(Status::INTERNAL_SERVER_ERROR, Fault::Worker, message))
            }
        }
    }

    fn head(&self, head: &Bytes, exchange: &Exchange, client: &Endpoint) -> Result<AnswerHead, HandlerError> {
        let failed = |message| HandlerError::new(Status::INTERNAL_SERVER_ERROR, Fault::Worker, message);
        let head = AnswerHead::parse(head).map_err(|error: AnswerError| {
            failed(format!("{}: the answer to {} is not valid: {error}", self.pool.name(), exchange.what()))
        })?;
        // A proxy in front of us may be meant. To anybody else the field would show a path, and an empty body beside it.
        if head.names_file && !self.sends_files && !self.trusted.trusts(client) {
            let (name, what) = (self.pool.name(), exchange.what());
            return Err(failed(format!(
                "{name}: {what}: the answer names a file (X-Sendfile or X-Accel-Redirect), and [app.{name}] has no \
                 `sendfile` that says from which folders files may be sent"
            )));
        }
        Ok(head)
    }

    /// A one-shot answer. A body that is longer than the application said is cut to what it said; one that is shorter
    /// can only be shown as broken (RFC 9112, section 6.3).
    fn whole(head: AnswerHead, body: Bytes, exchange: &Exchange, timing: Timing) -> Response {
        let is_head = exchange.method == Method::Head;
        let body = match head.content_length {
            Some(length) if is_head || head.status.is_bodiless() => ResponseBody::LengthOnly(length),
            // Many frameworks leave the body out themselves: nothing here says nothing of what GET would send.
            None if is_head && body.is_empty() => untold(),
            None if is_head => ResponseBody::LengthOnly(body.len() as u64),
            Some(length) if length < body.len() as u64 => ResponseBody::Full(body.slice(..length as usize)),
            Some(length) if length > body.len() as u64 => {
                ResponseBody::Stream(Box::pin(Short { body: Some(body), length }))
            }
            _ if body.is_empty() => ResponseBody::Empty,
            _ => ResponseBody::Full(body),
        };
        response(head, body, timing)
    }

    /// An answer whose body is still coming, or is a file.
    async fn streamed(&self, mut ticket: Ticket, head: AnswerHead, timing: Timing) -> Result<Response, HandlerError> {
        if ticket.exchange.method == Method::Head || head.status.is_bodiless() {
            // The rest is not wanted: dropping the ticket says so.
            let body = head.content_length.map_or_else(untold, ResponseBody::LengthOnly);
            return Ok(response(head, body, timing));
        }
        let first = match ticket.next().await {
            Event::File { file, offset, length } => {
                ticket.finished = true;
                let said = head.content_length.unwrap_or(length);
                if said > length {
                    let (name, what) = (self.pool.name(), ticket.exchange.what());
                    let message =
                        format!("{name}: {what}: the file has {length} bytes, its Content-Length says {said}");
                    return Err(HandlerError::new(Status::INTERNAL_SERVER_ERROR, Fault::Worker, message));
                }
                let length = said;
                let version = FileVersion::of(&file).map_err(|error| {
                    let message = format!("{}: a file that was handed over: {error}", self.pool.name());
                    HandlerError::new(Status::INTERNAL_SERVER_ERROR, Fault::Server, message)
                })?;
                let file = FileBody { file: Arc::new(file), offset, length, version, memory: None };
                return Ok(response(head, ResponseBody::File(file), timing));
            }
            event => event,
        };
        let length = head.content_length;
        let body = AnswerBody { ticket, first: Some(first), length, consumed: 0, lying: 0 };
        Ok(response(head, ResponseBody::Stream(Box::pin(body)), timing))
    }

    fn failed(&self, failure: Failure, exchange: &Exchange) -> HandlerError {
        let (name, what) = (self.pool.name(), exchange.what());
        let settings = self.pool.settings();
        let waited = exchange.submitted.elapsed().as_secs_f32();
        let (status, retry_after, message) = match failure {
            Failure::QueueFull => (
                Status::SERVICE_UNAVAILABLE,
                Some(1),
                format!("{} requests wait already (`queue.max`)", settings.queue_max),
            ),
            Failure::QueueTimeout => (
                Status::SERVICE_UNAVAILABLE,
                Some(1),
                format!("no worker was free within {waited:.1} s (`queue.timeout`)"),
            ),
            Failure::Timeout => (Status::GATEWAY_TIMEOUT, None, format!("no answer within {waited:.1} s (`timeout`)")),
            Failure::Cut => (Status::BAD_REQUEST, None, String::from("its body ended before its time")),
            Failure::Silent => (Status::GATEWAY_TIMEOUT, None, String::from("its answer has stopped (`stream_idle`)")),
            Failure::WorkerDied => (Status::BAD_GATEWAY, None, String::from("its worker died")),
            Failure::Resources => {
                (Status::SERVICE_UNAVAILABLE, Some(1), String::from("the server has run out of file descriptors"))
            }
            Failure::Unavailable => {
                (Status::SERVICE_UNAVAILABLE, Some(5), String::from("the application has no worker; see above why"))
            }
        };
        let fault = match failure {
            Failure::Resources => Fault::Server,
            Failure::Cut => Fault::Client,
            _ => Fault::Worker,
        };
        let error =
            HandlerError { status, fault, message: format!("{name}: {what}: {message}"), retry_after, dress: None };
        match self.pool.broken().filter(|_| matches!(failure, Failure::Unavailable)) {
            Some(broken) => HandlerError {
                status: Status::INTERNAL_SERVER_ERROR,
                message: format!("{name}: {what}: the application cannot be loaded; see above why"),
                ..error.dressed(broken.dress())
            },
            None => error,
        }
    }
}

impl Handler for Application {
    fn handle(&self, mut request: Request) -> Answering<'_> {
        // A body that is there already needs no waiting before the request is on its way.
        match spool::at_hand(&mut request.body) {
            Some(payload) => {
                let submitted = self.submit(&request, payload);
                let (interim, client) = (request.interim, request.endpoint);
                Box::pin(async move { self.respond(submitted?, interim, &client).await.map(Outcome::Response) })
            }
            None if request.notes.streams_body => Box::pin(self.stream(request)),
            None => Box::pin(self.gather(request)),
        }
    }

    fn may_decline(&self) -> bool {
        false
    }
}

fn response(head: AnswerHead, body: ResponseBody, timing: Timing) -> Response {
    let AnswerHead { status, reason, fields, .. } = head;
    Response { status, reason, fields, body, timing }
}

/// A request that a pool has; dropping it tells the pool that nobody waits any more.
struct Ticket {
    pool: Arc<Pool>,
    exchange: Arc<Exchange>,
    finished: bool,
    upload: Option<Upload>,
    /// Until the first event, where the application is crowded.
    waiting: Option<Waiting>,
    trace: Option<Arc<Trace>>,
}

/// A body on its way to an application that is at work.
struct Upload {
    body: RequestBody,
    /// Bytes that the worker has room for.
    allowed: u32,
}

impl Ticket {
    async fn next(&mut self) -> Event {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        loop {
            let event = self.exchange.poll_event(context);
            if event.is_ready() {
                self.waiting = None;
            }
            match event {
                Poll::Ready(Event::Wants(bytes)) => {
                    if let Some(upload) = &mut self.upload {
                        upload.allowed = upload.allowed.saturating_add(bytes);
                    }
                }
                Poll::Ready(event) => {
                    self.finished |= matches!(event, Event::Answer(_) | Event::Done(_) | Event::Failed(_));
                    return Poll::Ready(event);
                }
                Poll::Pending if self.upload.is_some() => {
                    if let Err(event) = std::task::ready!(self.poll_upload(context)) {
                        return Poll::Ready(event);
                    }
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Passes a piece of the body on. An error is the event that takes the answer's place: the worker was told, and what
    /// the application reads raises.
    fn poll_upload(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Event>> {
        let Some(upload) = self.upload.as_mut().filter(|upload| upload.allowed > 0) else { return Poll::Pending };
        match std::task::ready!(upload.body.poll_chunk(context)) {
            Some(Ok(bytes)) if bytes.is_empty() => {}
            Some(Ok(bytes)) => {
                upload.allowed = upload.allowed.saturating_sub(bytes.len() as u32);
                self.pool.send_body(&self.exchange, &bytes);
            }
            None => {
                self.pool.send_body(&self.exchange, &[]);
                self.upload = None;
            }
            Some(Err(_)) => {
                self.upload = None;
                self.finished = true;
                self.pool.cancel(&self.exchange);
                return Poll::Ready(Err(Event::Failed(Failure::Cut)));
            }
        }
        Poll::Ready(Ok(()))
    }

    fn timing(&self, microseconds: u32) -> Timing {
        let sent = self.exchange.sent().unwrap_or(self.exchange.submitted);
        let queue = sent.saturating_duration_since(self.exchange.submitted);
        Timing { queue: Some(queue), application: Some(Duration::from_micros(u64::from(microseconds))) }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.finished {
            self.pool.cancel(&self.exchange);
        }
        if let Some(trace) = &self.trace {
            let (queued, handed) = (Some(self.exchange.submitted), self.exchange.sent());
            trace.note(|steps| (steps.queued, steps.handed) = (queued, handed));
        }
    }
}

/// The body of an answer while the worker makes it.
struct AnswerBody {
    ticket: Ticket,
    first: Option<Event>,
    length: Option<u64>,
    consumed: u32,
    /// Bytes that were handed out on the worker's shelf: whoever asks for more has given their place back.
    lying: u32,
}

/// What an answer's body brings.
enum Taken {
    Bytes(Bytes),
    Laid(Laid),
}

impl AnswerBody {
    /// Bytes were taken: the worker may send as many more, and is told so a good part at a time.
    fn consume(&mut self, bytes: u32) {
        self.consumed += bytes;
        if self.consumed >= INITIAL_CREDIT / 4 {
            self.ticket.pool.credit(&self.ticket.exchange, self.consumed);
            self.consumed = 0;
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Taken, BodyError>>> {
        let lying = std::mem::take(&mut self.lying);
        self.consume(lying);
        let event = match self.first.take() {
            Some(event) => event,
            None => std::task::ready!(self.ticket.poll(context)),
        };
        Poll::Ready(match event {
            Event::Data(bytes) => {
                self.consume(bytes.len() as u32);
                Some(Ok(Taken::Bytes(bytes)))
            }
            Event::Laid(piece) => {
                self.lying = piece.length() as u32;
                Some(Ok(Taken::Laid(piece)))
            }
            Event::Done(Ending::Clean) => None,
            Event::Done(_) => Some(Err(BodyError::Failed(format!("{} failed midway", self.ticket.exchange.what())))),
            Event::Failed(failure) => {
                Some(Err(BodyError::Failed(format!("{} was cut: {failure:?}", self.ticket.exchange.what()))))
            }
            Event::Answer(_) | Event::Head(..) | Event::File { .. } | Event::Inform(_) | Event::Wants(_) => {
                Some(Err(BodyError::Failed(String::from("the worker broke the protocol"))))
            }
        })
    }
}

impl BodyStream for AnswerBody {
    fn poll_chunk(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let next = std::task::ready!(self.poll(context));
        Poll::Ready(next.map(|taken| match taken? {
            Taken::Bytes(bytes) => Ok(bytes),
            Taken::Laid(piece) => piece.into_bytes().map_err(|error| {
                BodyError::Failed(format!("{} was cut: its bytes cannot be read: {error}", self.ticket.exchange.what()))
            }),
        }))
    }

    fn poll_piece(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Piece, BodyError>>> {
        let next = std::task::ready!(self.poll(context));
        Poll::Ready(next.map(|taken| {
            Ok(match taken? {
                Taken::Bytes(bytes) => Piece::Bytes(bytes),
                Taken::Laid(piece) => Piece::Laid(Box::new(piece)),
            })
        }))
    }

    fn length(&self) -> Option<u64> {
        self.length
    }
}

/// The body of an answer to HEAD of which nobody knows the length: a `Content-Length` must be that of GET or not be
/// there (RFC 9110, section 8.6).
fn untold() -> ResponseBody {
    ResponseBody::Stream(Box::pin(Untold))
}

struct Untold;

impl BodyStream for Untold {
    fn poll_chunk(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        Poll::Ready(None)
    }
}

/// A body that is shorter than the application said: the connection is cut after it.
struct Short {
    body: Option<Bytes>,
    length: u64,
}

impl BodyStream for Short {
    fn poll_chunk(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let said = self.length;
        Poll::Ready(Some(self.body.take().filter(|body| !body.is_empty()).ok_or_else(|| {
            BodyError::Failed(format!("the body is shorter than the Content-Length of {said} that the application set"))
        })))
    }

    fn length(&self) -> Option<u64> {
        Some(self.length)
    }
}
