//! One request of an HTTP/2 connection and its answer: the same as [`exchange`](super::exchange), in the words of
//! streams. A stream that is reset drops its handler's future; one whose answer fails is reset, and never ends well.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use ::h2::server::SendResponse;
use ::h2::{Reason, RecvStream, SendStream};
use ::http::request::Parts;
use ::http::{Request as WireRequest, Response as WireResponse};
use bytes::Bytes;
use tokio::time::Instant;

use super::Serving;
use super::current::{self, Current, Worked, told};
use super::error_page::error_response;
use super::file::FileStream;
use super::http2::Shared;
use super::inflow::Inflow;
use super::reply::{SMALL_FILE, blamed, length};
use super::wire::SEND_TIMEOUT;
use crate::alarm::Alarm;
use crate::http::h1::{HeadLimits, Length, Outgoing, Refusal, plan};
use crate::http::h2::{interim_head, read_head, request_line, response_head};
use crate::http::{
    BodyStream, Fields, InterimQueue, Request, Response, ResponseBody, Status, Timing, Version, date, trailers,
};
use crate::telemetry::{Entry, RequestLine};

/// Bodies up to this length go out with their head; what the client's window does not take waits in memory.
const SMALL_BODY: usize = 16 * 1024;

/// What became of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ended {
    /// It was answered, well or not.
    Answered,
    /// The client took it back.
    Cancelled,
}

/// Answers one request.
pub(super) async fn answer(
    shared: Arc<Shared>,
    request: WireRequest<RecvStream>,
    respond: SendResponse<Bytes>,
) -> Ended {
    let serving = shared.context.serving.load_full();
    let (parts, body) = request.into_parts();
    let read = match read_head(&parts, &HeadLimits::from(&serving.limits)) {
        Ok(read) => read,
        Err(refusal) => return refuse(&shared, &parts, respond, refusal),
    };
    drop(parts);
    shared.count(
        read.head.target().len() + read.head.fields().map(|(name, value)| name.len() + value.len()).sum::<usize>(),
    );
    let current = Current::new(read.head, &shared.endpoint, &shared.context, &serving);
    if let Some(accepted) = shared.accepted() {
        current.is_first(accepted);
    }
    if read.length.is_some_and(|length| length > serving.limits.max_body) {
        let refusal = Refusal::over(Status::CONTENT_TOO_LARGE, "the body is too long", "max_body");
        let (method, target) = (current.head.method_name(), current.head.target().escape_ascii());
        shared.context.errors.info(format_args!("a body was refused: {refusal} ({method} {target})"));
        let page = error_response(refusal.status, Some(refusal.reason), None, None, Some(&current.head));
        return Stream::new(&shared, &current, respond, Inflow::nothing()).reply(page).await;
    }
    let (inflow, body) = Inflow::begin(body, read.length, read.expect_continue, &serving.limits);
    let mut stream = Stream::new(&shared, &current, respond, inflow);
    let mut interim = InterimQueue::default();
    let response = match current.route(body, interim.open(), shared.guard.as_ref()) {
        Err(response) => *response,
        Ok(request) => {
            let Some(worked) = stream.work(&serving, request, &interim).await else {
                current.log(Status::CLIENT_CLOSED, 0, Timing::default());
                return Ended::Cancelled;
            };
            current.conclude(worked, stream.inflow.failure())
        }
    };
    stream.reply(response).await
}

/// Answers what is no request, without a handler.
fn refuse(shared: &Shared, parts: &Parts, mut respond: SendResponse<Bytes>, refusal: Refusal) -> Ended {
    let page = error_response(refusal.status, Some(refusal.reason), None, None, None);
    let body = if let ResponseBody::Full(body) = page.body { body } else { Bytes::new() };
    let is_head = parts.method == ::http::Method::HEAD;
    let head = response_head(page.status, &page.fields, Length::Known(body.len() as u64), &date::now());
    let bytes = if is_head { 0 } else { body.len() as u64 };
    if let Ok(mut send) = respond.send_response(head, is_head)
        && !is_head
    {
        // The stream is gone already, or it goes out.
        let _ = send.send_data(body, true);
    }
    shared.context.access.log(&Entry {
        client: shared.endpoint.client().map(|peer| peer.address),
        request: RequestLine::Refused(&request_line(parts)),
        status: refusal.status,
        bytes,
        duration: std::time::Duration::ZERO,
        timing: Timing::default(),
        id: None,
        trace: None,
        forwarded: None,
        scheme: crate::http::Scheme::Https,
        place: crate::telemetry::metrics::PlaceId::default(),
    });
    shared.context.errors.info(format_args!("a request was refused: {refusal}"));
    Ended::Answered
}

/// A stream whose request was read.
struct Stream<'a> {
    shared: &'a Shared,
    current: &'a Current,
    respond: SendResponse<Bytes>,
    inflow: Inflow,
    /// Where the body of the answer goes, once its head is sent.
    send: Option<SendStream<Bytes>>,
    /// Bytes of it that were sent.
    sent: u64,
    alarm: Alarm,
}

/// Why an answer did not end well.
enum Broken {
    /// The client took the request back, or is gone.
    Gone,
    /// It took nothing of the answer for too long.
    Stalled,
    /// The body could not be made.
    Body(String),
}

impl<'a> Stream<'a> {
    fn new(shared: &'a Shared, current: &'a Current, respond: SendResponse<Bytes>, inflow: Inflow) -> Self {
        Self { shared, current, respond, inflow, send: None, sent: 0, alarm: Alarm::default() }
    }

    /// Polls the handler, feeds it its body, and watches the client; `None` when that took the request back.
    async fn work(&mut self, serving: &Serving, request: Request, interim: &InterimQueue) -> Option<Worked> {
        let mut answering = match current::begin(serving, self.current, request) {
            Ok(answering) => answering,
            Err(panic) => return Some(Err(panic)),
        };
        poll_fn(|task| {
            loop {
                let polled = current::poll(&mut answering, self.current, task);
                if interim.has_any() {
                    interim.take().iter().for_each(|(status, fields)| self.tell(*status, fields));
                }
                if let Poll::Ready(worked) = polled {
                    return Poll::Ready(Some(worked));
                }
                if self.poll_reset(task).is_ready() {
                    return Poll::Ready(None);
                }
                if self.inflow.takes_continue() {
                    self.tell(Status::CONTINUE, &Fields::new());
                }
                ready!(self.inflow.poll(task, self.shared));
            }
        })
        .await
    }

    /// Sends an interim response. One that cannot be sent is no loss.
    fn tell(&mut self, status: Status, fields: &Fields) {
        let _ = self.respond.send_informational(interim_head(status, fields));
    }

    /// Sends the answer, and tells of it.
    async fn reply(&mut self, response: Response) -> Ended {
        let (mut status, timing) = (response.status, response.timing);
        let file = response.body.as_file().cloned();
        let mut result = self.send(response).await;
        if let (Err(Broken::Body(message)), None) = (&result, &self.send) {
            let (blamed, fault) = blamed(file.as_ref());
            let page = self.current.report(blamed, fault, message, None);
            status = page.status;
            result = self.send(page).await;
        }
        self.shared.count(self.sent as usize);
        self.current.log(status, self.sent, timing);
        match result {
            Ok(()) => Ended::Answered,
            Err(Broken::Gone) => Ended::Cancelled,
            Err(Broken::Stalled) => {
                self.respond.send_reset(Reason::CANCEL);
                Ended::Cancelled
            }
            Err(Broken::Body(message)) => {
                self.current.report_broken(&format!("{message}; the stream was reset"));
                self.respond.send_reset(Reason::INTERNAL_ERROR);
                Ended::Answered
            }
        }
    }

    async fn send(&mut self, response: Response) -> Result<(), Broken> {
        let Response { status, fields, body, .. } = response;
        let plan = plan(&Outgoing {
            method: self.current.head.method(),
            version: Version::Http2,
            status,
            length: length(&body),
            keep_alive: true,
        });
        let head = response_head(status, &fields, plan.length, &date::now());
        let bytes = match body.at_hand() {
            ResponseBody::Full(bytes) if plan.sends_body => bytes,
            ResponseBody::File(file) if plan.sends_body && file.length <= SMALL_FILE => {
                file.read().map_err(|error| Broken::Body(error.to_string()))?.into()
            }
            ResponseBody::File(file) if plan.sends_body => {
                return self.send_stream(Box::pin(FileStream::new(file)), head, plan.length).await;
            }
            ResponseBody::Stream(stream) if plan.sends_body => {
                return self.send_stream(stream, head, plan.length).await;
            }
            _ => return self.begin(head, true),
        };
        self.begin(head, false)?;
        self.send_part(bytes, true).await
    }

    /// Sends the head.
    fn begin(&mut self, head: WireResponse<()>, is_all: bool) -> Result<(), Broken> {
        self.send = Some(self.respond.send_response(head, is_all).map_err(|_| Broken::Gone)?);
        Ok(())
    }

    /// The head goes out with whatever is at hand; the next chunk is asked for when the last one was taken.
    async fn send_stream(
        &mut self,
        mut stream: Pin<Box<dyn BodyStream>>,
        head: WireResponse<()>,
        length: Length,
    ) -> Result<(), Broken> {
        let mut head = Some(head);
        let mut first = match poll_fn(|task| Poll::Ready(poll_chunk(stream.as_mut(), task))).await {
            Poll::Ready(chunk) => Some(chunk?),
            Poll::Pending => None,
        };
        loop {
            if let Some(head) = head.take() {
                self.begin(head, false)?;
            }
            let chunk = match first.take() {
                Some(chunk) => chunk,
                None => self.next(stream.as_mut()).await?,
            };
            let left = if let Length::Known(length) = length { length - self.sent } else { u64::MAX };
            let Some(chunk) = chunk else {
                if left > 0 && left < u64::MAX {
                    return Err(Broken::Body(format!("a response body was {left} bytes shorter than it said")));
                }
                return self.end(stream.as_mut().take_trailers());
            };
            let is_overlong = chunk.len() as u64 > left;
            let is_last = chunk.len() as u64 >= left && (is_overlong || !stream.may_trail());
            let chunk = if is_overlong { chunk.slice(..left as usize) } else { chunk };
            self.send_part(chunk, is_last).await?;
            if is_overlong {
                self.current.report_broken("a response body was longer than it said; the rest was left out");
                return Ok(());
            }
            if is_last {
                return self.finish(stream.as_mut()).await;
            }
        }
    }

    /// The client has everything; whoever made it may still have something to do, and is not to be cancelled.
    async fn finish(&mut self, mut stream: Pin<&mut dyn BodyStream>) -> Result<(), Broken> {
        loop {
            match poll_fn(|task| poll_chunk(stream.as_mut(), task)).await {
                Ok(Some(more)) if more.is_empty() => {}
                Ok(None) => return Ok(()),
                Ok(Some(_)) => {
                    self.current.report_broken("a response body was longer than it said; the rest was left out");
                    return Ok(());
                }
                Err(Broken::Body(message)) => {
                    self.current.report_broken(&message);
                    return Ok(());
                }
                Err(broken) => return Err(broken),
            }
        }
    }

    /// The next chunk of the answer, while the body of the request goes on coming in.
    async fn next(&mut self, mut stream: Pin<&mut dyn BodyStream>) -> Result<Option<Bytes>, Broken> {
        poll_fn(|task| {
            loop {
                if let Poll::Ready(chunk) = poll_chunk(stream.as_mut(), task) {
                    return Poll::Ready(chunk);
                }
                if self.poll_reset(task).is_ready() {
                    return Poll::Ready(Err(Broken::Gone));
                }
                ready!(self.inflow.poll(task, self.shared));
            }
        })
        .await
    }

    /// Sends bytes as the client's windows take them.
    async fn send_part(&mut self, mut bytes: Bytes, is_last: bool) -> Result<(), Broken> {
        if is_last && bytes.len() <= SMALL_BODY {
            return self.part(bytes, true);
        }
        let mut stalled_at = None;
        while !bytes.is_empty() {
            let room = poll_fn(|task| {
                loop {
                    match self.poll_room(task, bytes.len(), &mut stalled_at) {
                        Poll::Ready(room) => return Poll::Ready(room),
                        Poll::Pending => ready!(self.inflow.poll(task, self.shared)),
                    }
                }
            });
            let part = bytes.split_to(room.await?);
            stalled_at = None;
            let is_end = is_last && bytes.is_empty();
            self.part(part, is_end)?;
        }
        Ok(())
    }

    fn part(&mut self, bytes: Bytes, is_end: bool) -> Result<(), Broken> {
        let send = self.send.as_mut().ok_or(Broken::Gone)?;
        self.sent += bytes.len() as u64;
        send.send_data(bytes, is_end).map_err(|_| Broken::Gone)
    }

    /// Ends the body, with the fields behind it.
    fn end(&mut self, trailers: Option<Fields>) -> Result<(), Broken> {
        let Some(fields) = trailers else { return self.part(Bytes::new(), true) };
        let send = self.send.as_mut().ok_or(Broken::Gone)?;
        send.send_trailers(trailers::to_send(&fields)).map_err(|_| Broken::Gone)
    }

    /// How many of `wanted` bytes can be sent.
    fn poll_room(
        &mut self,
        task: &mut Task<'_>,
        wanted: usize,
        stalled_at: &mut Option<Instant>,
    ) -> Poll<Result<usize, Broken>> {
        let Some(send) = &mut self.send else { return Poll::Ready(Err(Broken::Gone)) };
        send.reserve_capacity(wanted);
        loop {
            let room = send.capacity();
            if room > 0 {
                return Poll::Ready(Ok(room.min(wanted)));
            }
            match send.poll_capacity(task) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Poll::Ready(Err(Broken::Gone)),
                Poll::Pending => {
                    let at = *stalled_at.get_or_insert_with(|| Instant::now() + SEND_TIMEOUT);
                    return self.alarm.poll(task, at).map(|()| Err(Broken::Stalled));
                }
            }
        }
    }

    /// Ready when the client has taken the request back or is gone.
    fn poll_reset(&mut self, task: &mut Task<'_>) -> Poll<()> {
        match &mut self.send {
            Some(send) => send.poll_reset(task).map(drop),
            None => self.respond.poll_reset(task).map(drop),
        }
    }
}

/// The next chunk that is not empty. A panic stays here.
fn poll_chunk(mut stream: Pin<&mut dyn BodyStream>, task: &mut Task<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
    loop {
        let polled = catch_unwind(AssertUnwindSafe(|| stream.as_mut().poll_chunk(task)));
        let broken = |message| Poll::Ready(Err(Broken::Body(message)));
        return match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Some(Ok(chunk)))) if chunk.is_empty() => continue,
            Ok(Poll::Ready(Some(Ok(chunk)))) => Poll::Ready(Ok(Some(chunk))),
            Ok(Poll::Ready(None)) => Poll::Ready(Ok(None)),
            Ok(Poll::Ready(Some(Err(error)))) => broken(format!("a response body failed: {error}")),
            Err(panic) => broken(format!("a response body panicked: {}", told(&*panic))),
        };
    }
}
