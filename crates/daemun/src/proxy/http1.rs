//! Asking a server over HTTP/1.1 (RFC 9112).

use std::task::{Poll, ready};

use bytes::BytesMut;

use super::exchange::{Answer, Asked, Outbound};
use super::flow::{AnswerBody, Flow, Sending};
use super::head;
use super::payload::{Framing, UploadError};
use super::told::Untold;
use super::tunnel::Through;
use crate::http::h1::{AnswerFraming, AnswerHead, parse_answer, scan_answer};
use crate::http::{Interim, Method, Request, Response, ResponseBody, Timing};
use crate::upstream::{Failure, FailureKind, Place};

/// Bytes of an answer's head. Applications that put their whole session into cookies stay below it.
const MAX_HEAD: usize = 64 * 1024;

/// Interim responses that are read before one answer.
const MAX_INTERIM: usize = 32;

/// Asks the server of `place` once, over a kept connection if `may_reuse`.
pub(super) async fn ask(place: Place, mut outbound: Outbound<'_>, may_reuse: bool) -> Asked {
    let connection = match place.connect(outbound.reuse(may_reuse)).await {
        Ok(connection) => connection,
        Err(failure) => return Err((place, failure)),
    };
    let is_reused = connection.is_reused;
    let mut out = BytesMut::with_capacity(1024);
    head::write(&mut out, &place, &outbound);
    let framing = if outbound.length().is_none() { Framing::Chunked } else { Framing::Plain };
    let upload = match outbound.upload(framing) {
        Ok(upload) => upload,
        Err(error) => return Err((place, Failure::unsent(FailureKind::Client, format!("its body: {error}")))),
    };
    let mut flow = Box::new(Flow::new(connection, place, out, upload));
    match read_head(&mut flow, &outbound).await {
        Ok(head) => {
            flow.place.succeed();
            Ok(Answer::Response(respond(flow, head, outbound.request)))
        }
        Err((kind, message)) => {
            let message = format!("{}: {message}", flow.place.server().name());
            let failure = Failure { kind, sent: flow.has_sent, received: flow.has_received, message };
            let is_stale = is_reused && !failure.received && kind == FailureKind::Broken;
            let may_repeat = !failure.sent || outbound.request.head.method().is_idempotent();
            if is_stale && may_repeat && outbound.payload.is_at_hand() {
                // The server has closed a kept connection while the request was on its way: nobody's fault.
                return Box::pin(ask(flow.place, outbound, false)).await;
            }
            Err((flow.place, failure))
        }
    }
}

async fn read_head(flow: &mut Flow, outbound: &Outbound<'_>) -> Result<AnswerHead, (FailureKind, String)> {
    let request = outbound.request;
    let (mut from, mut interims) = (0, 0);
    let broken = |message: &str| (FailureKind::Broken, message.to_owned());
    std::future::poll_fn(|context| {
        loop {
            flow.poll_send(context).map_err(|error| match error {
                UploadError::Client => (FailureKind::Client, error.to_string()),
                UploadError::Spool(_) => (FailureKind::Broken, error.to_string()),
            })?;
            if !flow.connection.input.is_empty() {
                let input = &mut flow.connection.input;
                let scanned = scan_answer(input, &mut from).map_err(|why| broken(&format!("its answer: {why}")))?;
                if let Some(end) = scanned {
                    let bytes = input.split_to(end).freeze();
                    from = 0;
                    let parsed = parse_answer(&bytes, request.head.method());
                    let head = parsed.map_err(|why| broken(&format!("its answer: {why}")))?;
                    match head.status.code() {
                        101 if outbound.upgrade.is_some() && head.upgrade.is_some() => return Poll::Ready(Ok(head)),
                        101 => return Poll::Ready(Err(broken("it changed the protocol, and nobody had asked for it"))),
                        100..200 if interims < MAX_INTERIM => interims += 1,
                        100..200 => return Poll::Ready(Err(broken("it sends interim responses without end"))),
                        _ => return Poll::Ready(Ok(head)),
                    }
                    pass_on(&request.interim, head);
                    continue;
                }
                if input.len() > MAX_HEAD {
                    return Poll::Ready(Err(broken("the head of its answer is too long")));
                }
            }
            match flow.poll_fill(context) {
                Poll::Ready(Ok(0)) if flow.has_received => {
                    return Poll::Ready(Err(broken("it closed the connection before the end of its head")));
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(broken("it closed the connection without an answer"))),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(broken(&error.to_string()))),
                Poll::Pending => {
                    let waited = ready!(flow.poll_late(context, outbound.due)).as_secs_f32();
                    let message = match flow.sending {
                        Sending::Blocked => {
                            format!("it took nothing of the request for {waited:.1} s (`send_timeout`)")
                        }
                        _ => format!("no answer within {waited:.1} s (`read_timeout`)"),
                    };
                    return Poll::Ready(Err((FailureKind::Timeout, message)));
                }
            }
        }
    })
    .await
}

fn pass_on(interim: &Interim, head: AnswerHead) {
    interim.send(head.status, head.fields);
}

/// The answer as the client gets it.
fn respond(mut flow: Box<Flow>, head: AnswerHead, request: &Request) -> Response {
    let AnswerHead { status, reason, fields, framing, length, keep_alive, upgrade } = head;
    let body = if let Some(protocol) = upgrade.filter(|_| status.code() == 101) {
        ResponseBody::Tunnel(Box::new(Through::new(*flow, protocol)))
    } else {
        match framing {
            AnswerFraming::None => {
                flow.finish(keep_alive);
                match length {
                    _ if request.head.method() != Method::Head => ResponseBody::Empty,
                    Some(length) => ResponseBody::LengthOnly(length),
                    None => ResponseBody::Stream(Box::pin(Untold)),
                }
            }
            // All there: whatever stands behind it keeps the connection from being used again.
            AnswerFraming::Length(length)
                if flow.connection.input.len() as u64 >= length && flow.sending == Sending::Done =>
            {
                let bytes = flow.connection.input.split_to(length as usize).freeze();
                flow.finish(keep_alive);
                ResponseBody::Full(bytes)
            }
            _ => ResponseBody::Stream(Box::pin(AnswerBody::new(flow, framing, keep_alive))),
        }
    };
    Response { status, reason, fields, body, timing: Timing::default() }
}
