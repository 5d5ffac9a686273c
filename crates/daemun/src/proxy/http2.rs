//! Asking a server over HTTP/2 (RFC 9113): a stream of a connection that requests share.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::h2::client::ResponseFuture;
use ::h2::{Reason, RecvStream, SendStream};
use ::http::{HeaderMap, HeaderName, HeaderValue, Request as WireRequest, Response as WireResponse, Uri};
use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::exchange::{Answer, Asked, Outbound};
use super::flow::Sending;
use super::head;
use super::payload::{Framing, Upload, UploadError};
use super::told::Untold;
use crate::alarm::Alarm;
use crate::http::{
    BodyError, BodyStream, Fields, Interim, Method, Request, Response, ResponseBody, Status, Timing, trailers,
};
use crate::upstream::{Failure, FailureKind, Place, Slot};

/// Fields of an answer that are of the connection, or said anew.
const LEFT_OUT: [&str; 6] =
    ["connection", "content-length", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// A request going out and an answer coming in on one stream.
struct Flow {
    place: Place,
    slot: Slot,
    /// Where the body goes; nothing once it is out.
    send: Option<SendStream<Bytes>>,
    out: BytesMut,
    upload: Upload,
    sending: Sending,
    has_received: bool,
    waiting_since: Option<Instant>,
    alarm: Alarm,
}

/// Asks the server of `place` once, on a connection that is there if `may_reuse`.
pub(super) async fn ask(place: Place, mut outbound: Outbound<'_>, may_reuse: bool) -> Asked {
    let slot = match place.slot(may_reuse).await {
        Ok(slot) => slot,
        Err(failure) => return Err((place, failure)),
    };
    let unsent = |place: Place, kind, message: String| {
        let message = format!("{}: {message}", place.server().name());
        Err((place, Failure::unsent(kind, message)))
    };
    let Some(request) = request(&place, &outbound) else {
        return unsent(place, FailureKind::Client, "its request cannot be said in HTTP/2".to_owned());
    };
    let upload = match outbound.upload(Framing::Plain) {
        Ok(upload) => upload,
        Err(error) => return unsent(place, FailureKind::Client, format!("its body: {error}")),
    };
    let is_reused = slot.is_reused;
    let has_body = outbound.length() != Some(0);
    let settings = &place.serving().settings;
    let mut sender = slot.sender.clone();
    let free = tokio::time::timeout(settings.send_timeout, poll_fn(|context| sender.poll_ready(context))).await;
    let begun = match free {
        Ok(free) => free.and_then(|()| sender.send_request(request, !has_body)),
        Err(_) => return unsent(place, FailureKind::Timeout, "no stream was free within `send_timeout`".to_owned()),
    };
    let (mut answer, send) = match begun {
        Ok(begun) => begun,
        Err(_) if is_reused => {
            // The connection ended since it was last used: nobody's fault.
            slot.condemn();
            return Box::pin(ask(place, outbound, false)).await;
        }
        Err(error) => return unsent(place, FailureKind::Broken, error.to_string()),
    };
    let (send, sending) = if has_body { (Some(send), Sending::Blocked) } else { (None, Sending::Done) };
    let mut flow = Box::new(Flow {
        place,
        slot,
        send,
        out: BytesMut::new(),
        upload,
        sending,
        has_received: false,
        waiting_since: None,
        alarm: Alarm::default(),
    });
    match read_head(&mut flow, &mut answer, &outbound).await {
        Ok(head) => {
            flow.place.succeed();
            Ok(Answer::Response(respond(flow, head, outbound.request)))
        }
        Err(Broken { kind, message, was_seen }) => {
            let message = format!("{}: {message}", flow.place.server().name());
            let failure = Failure { kind, sent: was_seen, received: flow.has_received, message };
            let may_repeat = !was_seen || outbound.request.head.method().is_idempotent();
            if kind == FailureKind::Broken {
                flow.slot.condemn();
                if is_reused && !failure.received && may_repeat && outbound.payload.is_at_hand() {
                    return Box::pin(ask(flow.place, outbound, false)).await;
                }
            }
            Err((flow.place, failure))
        }
    }
}

/// Why no head came.
struct Broken {
    kind: FailureKind,
    message: String,
    /// Whether the server may have begun with the request.
    was_seen: bool,
}

async fn read_head(
    flow: &mut Flow,
    answer: &mut ResponseFuture,
    outbound: &Outbound<'_>,
) -> Result<WireResponse<RecvStream>, Broken> {
    let seen = |kind, message: String| Broken { kind, message, was_seen: true };
    poll_fn(|context| {
        flow.poll_send(context).map_err(|error| match error {
            UploadError::Client => seen(FailureKind::Client, error.to_string()),
            UploadError::Spool(_) => seen(FailureKind::Broken, error.to_string()),
        })?;
        while let Poll::Ready(Some(Ok(interim))) = answer.poll_informational(context) {
            flow.has_received = true;
            flow.waiting_since = None;
            pass_on(&outbound.request.interim, &interim);
        }
        match Pin::new(&mut *answer).poll(context) {
            Poll::Ready(Ok(head)) => {
                flow.has_received = true;
                flow.waiting_since = None;
                Poll::Ready(Ok(head))
            }
            Poll::Ready(Err(error)) => {
                // Streams that a GOAWAY leaves out, or that are refused, were not begun (RFC 9113, section 8.7).
                let was_left = error.is_remote()
                    && (error.reason() == Some(Reason::REFUSED_STREAM)
                        || error.is_go_away() && error.reason() == Some(Reason::NO_ERROR));
                Poll::Ready(Err(Broken { was_seen: !was_left, ..seen(FailureKind::Broken, error.to_string()) }))
            }
            Poll::Pending => {
                let waited = ready!(flow.poll_late(context, outbound.due)).as_secs_f32();
                let message = match flow.sending {
                    Sending::Blocked => format!("it took nothing of the request for {waited:.1} s (`send_timeout`)"),
                    _ => format!("no answer within {waited:.1} s (`read_timeout`)"),
                };
                Poll::Ready(Err(seen(FailureKind::Timeout, message)))
            }
        }
    })
    .await
}

fn pass_on(interim: &Interim, head: &WireResponse<()>) {
    if let Some(status) = Status::from_code(head.status().as_u16()) {
        interim.send(status, fields_of(head.headers()));
    }
}

/// The request without its body; nothing where HTTP/2 has no way to say it.
fn request(place: &Place, outbound: &Outbound<'_>) -> Option<WireRequest<()>> {
    let head = &outbound.request.head;
    let mut target = head.raw_path().to_vec();
    if let Some(query) = head.query() {
        target.push(b'?');
        target.extend_from_slice(query);
    }
    let scheme = if place.server().scheme().is_secure() { "https" } else { "http" };
    let uri = Uri::builder().scheme(scheme).authority(head::host(place, outbound)).path_and_query(target);
    let request = WireRequest::builder().method(head.method_name()).uri(uri.build().ok()?);
    let mut request = request.body(()).ok()?;
    let mut is_said = true;
    head::fields(outbound, |name, value| match (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        (Ok(name), Ok(value)) => drop(request.headers_mut().append(name, value)),
        _ => is_said = false,
    });
    if outbound.takes_trailers() {
        request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    }
    is_said.then_some(request)
}

fn fields_of(headers: &HeaderMap) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in headers {
        if !LEFT_OUT.contains(&name.as_str()) {
            let name = Bytes::copy_from_slice(name.as_str().as_bytes());
            let _ = fields.try_push(name, Bytes::copy_from_slice(value.as_bytes()));
        }
    }
    fields
}

/// The answer as the client gets it.
fn respond(flow: Box<Flow>, head: WireResponse<RecvStream>, request: &Request) -> Response {
    let (parts, stream) = head.into_parts();
    let status = Status::from_code(parts.status.as_u16()).unwrap_or(Status::BAD_GATEWAY);
    let length = parts.headers.get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
    let fields = fields_of(&parts.headers);
    let body = if request.head.method() == Method::Head {
        match length {
            Some(length) => ResponseBody::LengthOnly(length),
            None => ResponseBody::Stream(Box::pin(Untold)),
        }
    } else if stream.is_end_stream() {
        ResponseBody::Empty
    } else {
        // Over HTTP/1.1 fields behind the body need chunks, which have no length.
        let length = length.filter(|_| !parts.headers.contains_key("trailer"));
        ResponseBody::Stream(Box::pin(AnswerBody { flow: Some(flow), stream, length, is_whole: false, trailers: None }))
    };
    Response { status, reason: None, fields, body, timing: Timing::default() }
}

// === impl Flow ===

impl Flow {
    /// Sends what can be sent. An error is one of the client's body: that the server takes no more is no reason not to
    /// read its answer, which may say why.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Result<(), UploadError> {
        while let Some(send) = &mut self.send {
            if self.out.is_empty() {
                match self.upload.poll_next(context, &mut self.out) {
                    Poll::Ready(Ok(true)) => {}
                    Poll::Ready(Ok(false)) => {
                        let is_out = match self.upload.take_trailers() {
                            Some(fields) => send.send_trailers(trailers::to_send(&fields)).is_ok(),
                            None => send.send_data(Bytes::new(), true).is_ok(),
                        };
                        self.sending = if is_out { Sending::Done } else { Sending::Broken };
                        self.send = None;
                    }
                    Poll::Ready(Err(error)) => {
                        send.send_reset(Reason::CANCEL);
                        return Err(error);
                    }
                    Poll::Pending => {
                        self.sending = Sending::Starved;
                        return Ok(());
                    }
                }
                continue;
            }
            send.reserve_capacity(self.out.len());
            let room = match send.capacity() {
                0 => match send.poll_capacity(context) {
                    Poll::Ready(Some(Ok(0))) => continue,
                    Poll::Ready(Some(Ok(room))) => room,
                    Poll::Ready(Some(Err(_)) | None) => {
                        (self.send, self.sending) = (None, Sending::Broken);
                        return Ok(());
                    }
                    Poll::Pending => {
                        self.sending = Sending::Blocked;
                        return Ok(());
                    }
                },
                room => room,
            };
            let bytes = self.out.split_to(room.min(self.out.len())).freeze();
            self.waiting_since = None;
            if send.send_data(bytes, false).is_err() {
                (self.send, self.sending) = (None, Sending::Broken);
            }
        }
        Ok(())
    }

    /// Ready when the server has been waited for too long, or `due` has passed: how long that was.
    fn poll_late(&mut self, context: &mut Context<'_>, due: Option<Instant>) -> Poll<std::time::Duration> {
        let settings = &self.place.serving().settings;
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let Some(at) = self.sending.late_at(settings, since, due) else { return Poll::Pending };
        self.alarm.poll(context, at).map(|()| since.elapsed())
    }
}

/// The body of an answer as it comes in.
struct AnswerBody {
    flow: Option<Box<Flow>>,
    stream: RecvStream,
    length: Option<u64>,
    /// All bytes came; the fields behind them may be still to come.
    is_whole: bool,
    trailers: Option<Fields>,
}

impl AnswerBody {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, String>>> {
        let Some(flow) = &mut self.flow else { return Poll::Ready(None) };
        if flow.poll_send(context).is_err() {
            return Poll::Ready(Some(Err("the body of its request ended before its time".to_owned())));
        }
        let mut data = if self.is_whole { Poll::Ready(None) } else { self.stream.poll_data(context) };
        if matches!(data, Poll::Ready(None)) {
            self.is_whole = true;
            data = self.stream.poll_trailers(context).map(|behind| match behind {
                Ok(fields) => {
                    self.trailers = fields.as_ref().and_then(trailers::received);
                    None
                }
                Err(error) => Some(Err(error)),
            });
        }
        match data {
            Poll::Ready(Some(Ok(bytes))) => {
                flow.waiting_since = None;
                let released = self.stream.flow_control().release_capacity(bytes.len());
                Poll::Ready(Some(released.map(|()| bytes).map_err(|error| error.to_string())))
            }
            // What is left of the request nobody wants: the server has said so with its answer.
            Poll::Ready(None) => {
                self.flow = None;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.to_string()))),
            Poll::Pending => {
                let waited = ready!(flow.poll_late(context, None)).as_secs_f32();
                Poll::Ready(Some(Err(format!("nothing has come for {waited:.1} s (`read_timeout`)"))))
            }
        }
    }
}

impl BodyStream for AnswerBody {
    fn poll_chunk(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let polled = ready!(self.poll(context));
        Poll::Ready(polled.map(|result| {
            result.map_err(|message| {
                let mut flow = self.flow.take();
                let name = flow.as_ref().map_or("", |flow| flow.place.server().name());
                let failed = BodyError::Failed(format!("the answer of {name}: {message}"));
                if let Some(flow) = &mut flow {
                    flow.place.fail();
                }
                failed
            })
        }))
    }

    fn length(&self) -> Option<u64> {
        self.length
    }

    fn may_trail(&self) -> bool {
        true
    }

    fn take_trailers(mut self: Pin<&mut Self>) -> Option<Fields> {
        self.trailers.take()
    }
}
