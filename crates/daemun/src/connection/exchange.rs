//! One request and its answer.

use std::task::Poll;

use bytes::Bytes;

use super::current::{self, Current, Worked};
use super::error_page::error_response;
use super::incoming::{Incoming, Leftover};
use super::life::{Connection, Ending};
use super::reply::{Reply, ReplyError, Sent};
use super::wire::Wire;
use super::{Phase, Serving};
use crate::http::h1::{Outgoing, ParsedHead, Refusal, encode_interim};
use crate::http::{Interim, InterimQueue, Method, Request, Response, ResponseBody, Status, Timing, Version};

impl Connection {
    /// Answers one request, and says how the connection goes on.
    pub(super) async fn exchange(&mut self, parsed: ParsedHead, serving: &Serving) -> Ending {
        let current = Current::new(parsed.head, &self.endpoint, &self.context, serving);
        if let Some(accepted) = self.accepted.take() {
            current.is_first(accepted);
        }
        let mut keep_alive = parsed.keep_alive;
        let owes_continue = parsed.expect_continue;
        self.wire.is_asked(current.received);
        self.wire.follows_client = false;
        let begun = Incoming::begin(&mut self.wire.input, parsed.framing, &serving.limits, owes_continue);
        let (mut incoming, body) = match begun {
            Ok(begun) => begun,
            // Boxed, as all that is rare: an idle connection carries along the room that its exchange needs.
            Err(refusal) => return Box::pin(self.refuse(&current, refusal)).await,
        };
        // HTTP/1.0 knows no interim responses (RFC 9110, section 15.2).
        let is_told = current.head.version() == Version::Http11;
        let interim = if is_told { self.interim.open() } else { Interim::none() };
        let response = match current.route(body, interim, self.guard.as_ref()) {
            Err(response) => *response,
            Ok(request) => {
                let asked = (serving, &current);
                let answered = answer((&mut self.wire, &mut incoming), &self.interim, asked, request).await;
                let Some(worked) = answered else {
                    current.log(Status::CLIENT_CLOSED, 0, Timing::default());
                    return Ending::Cut;
                };
                keep_alive &= worked.is_ok();
                current.conclude(worked, incoming.failure())
            }
        };
        self.reply(&current, response, (&mut incoming, keep_alive), serving).await
    }

    async fn reply(
        &mut self,
        current: &Current,
        response: Response,
        (incoming, keep_alive): (&mut Incoming, bool),
        serving: &Serving,
    ) -> Ending {
        let (status, timing) = (response.status, response.timing);
        if let ResponseBody::Tunnel(tunnel) = response.body {
            // Boxed: what a tunnel needs would else be carried along by every exchange.
            return Box::pin(self.tunnel(current, (status, response.fields, timing), tunnel)).await;
        }
        let leftover = incoming.leftover(serving.limits.max_drain);
        let keep_alive =
            keep_alive && leftover != Leftover::Undrainable && self.context.drain.phase() == Phase::Serving;
        let outgoing = Outgoing {
            method: current.head.method(),
            version: current.head.version(),
            status,
            length: None,
            keep_alive,
        };
        let mut reply = Reply { wire: &mut self.wire, incoming, sent: 0 };
        let result = reply.send(response, outgoing).await;
        let sent = reply.sent;
        match result {
            Ok(Sent::KeepAlive) => {
                current.log(status, sent, timing);
                let is_clean = incoming.drain(&mut self.wire, &serving.limits).await;
                if is_clean { Ending::KeepAlive } else { Ending::Linger }
            }
            Ok(Sent::Close) => {
                current.log(status, sent, timing);
                let is_whole = incoming.leftover(0) == Leftover::Nothing && self.wire.input.is_empty();
                if is_whole { Ending::Close } else { Ending::Linger }
            }
            Ok(Sent::Overlong) => {
                current.report_broken("a response body was longer than it said; the rest was left out");
                current.log(status, sent, timing);
                Ending::Linger
            }
            Err(ReplyError::NotBegun { message, blamed: (status, fault) })
                if current.head.method() != Method::Connect =>
            {
                let page = current.report(status, fault, &message, None);
                Box::pin(self.send_last(current, page, incoming)).await
            }
            Err(error) => {
                if let ReplyError::NotBegun { message, .. } | ReplyError::Cut(message) = &error {
                    current.report_broken(&format!("{message}; the connection was cut"));
                }
                current.log(status, sent, timing);
                // Without chunks a plain close would pass for the end of the body (RFC 9112, section 8).
                if current.head.version() == Version::Http10 {
                    self.wire.transport.reset_on_close();
                }
                Ending::Cut
            }
        }
    }

    /// Answers a request whose body cannot be taken.
    async fn refuse(&mut self, current: &Current, refusal: Refusal) -> Ending {
        let head = &current.head;
        let (method, target) = (head.method_name(), head.target().escape_ascii());
        self.context.errors.info(format_args!("a body was refused: {refusal} ({method} {target})"));
        let page = error_response(refusal.status, Some(refusal.reason), None, None, Some(head));
        self.send_last(current, page, &mut Incoming::nothing()).await
    }

    /// Sends an answer that ends the connection.
    async fn send_last(&mut self, current: &Current, page: Response, incoming: &mut Incoming) -> Ending {
        let status = page.status;
        let outgoing = Outgoing {
            method: current.head.method(),
            version: current.head.version(),
            status,
            length: None,
            keep_alive: false,
        };
        let mut reply = Reply { wire: &mut self.wire, incoming, sent: 0 };
        let result = reply.send(page, outgoing).await;
        let sent = reply.sent;
        current.log(status, sent, Timing::default());
        if result.is_ok() { Ending::Linger } else { Ending::Cut }
    }
}

/// Polls the handler, feeds it its body, and watches the client; `None` when that reset the connection.
async fn answer(
    (wire, incoming): (&mut Wire, &mut Incoming),
    interim: &InterimQueue,
    (serving, asked): (&Serving, &Current),
    request: Request,
) -> Option<Worked> {
    let mut answering = match current::begin(serving, asked, request) {
        Ok(answering) => answering,
        Err(panic) => return Some(Err(panic)),
    };
    // Whether interim responses of the handler's stand in the output.
    let mut is_telling = false;
    std::future::poll_fn(|context| {
        loop {
            let polled = current::poll(&mut answering, asked, context);
            if interim.has_any() {
                is_telling = true;
                interim.take().iter().for_each(|(status, fields)| encode_interim(&mut wire.output, *status, fields));
            }
            if let Poll::Ready(worked) = polled {
                // What is in the output by then goes ahead of the answer.
                return Poll::Ready(Some(worked));
            }
            if is_telling {
                match wire.poll_send(context, &mut Bytes::new()) {
                    Poll::Ready(Ok(())) => is_telling = false,
                    Poll::Ready(Err(_)) => return Poll::Ready(None),
                    Poll::Pending => {}
                }
            }
            wire.follows_client = interim.follows_client();
            match incoming.poll(wire, context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}
