//! One request and its answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use tokio::time::Instant;

use super::error_page::{error_response, new_reference};
use super::incoming::{Incoming, Leftover};
use super::life::{Connection, Ending};
use super::reply::{Reply, ReplyError, Sent, told};
use super::wire::Wire;
use super::{Phase, Serving};
use crate::handler::{Fault, HandlerError, Outcome};
use crate::http::h1::{Outgoing, ParsedHead, Refusal, encode_interim};
use crate::http::{
    CanonicalPath, Interim, InterimQueue, Method, Notes, Request, RequestBody, RequestHead, Response, Status, Timing,
    Version,
};
use crate::telemetry::metrics::{self, Scope};
use crate::telemetry::{Entry, Level, RequestLine};

/// How the handler's work ended.
enum Answer {
    Outcome(Result<Outcome, HandlerError>),
    Panicked(String),
    /// The client reset the connection.
    Gone,
}

/// What is known of a request while it is answered.
struct Current {
    head: RequestHead,
    received: Instant,
    keep_alive: bool,
    /// The route that it took.
    scope: Scope,
}

impl Connection {
    /// Answers one request, and says how the connection goes on.
    pub(super) async fn exchange(&mut self, parsed: ParsedHead, serving: &Serving) -> Ending {
        let received = Instant::now();
        let mut current =
            Current { head: parsed.head.clone(), received, keep_alive: parsed.keep_alive, scope: Scope::default() };
        let owes_continue = parsed.expect_continue;
        let begun = Incoming::begin(&mut self.wire.input, parsed.framing, &serving.limits, owes_continue);
        let (mut incoming, body) = match begun {
            Ok(begun) => begun,
            Err(refusal) => return self.refuse(&current, refusal).await,
        };
        let response = match self.route(parsed.head, body, received) {
            Err(response) => *response,
            Ok(request) => {
                match answer((&mut self.wire, &mut incoming), &self.interim, (serving, &current.scope), request).await {
                    Answer::Outcome(Ok(outcome)) => self.check(&current, outcome),
                    Answer::Outcome(Err(error)) => self.explain(&current, error, &incoming),
                    Answer::Panicked(message) => {
                        current.keep_alive = false;
                        let message = format!("a handler panicked: {message}");
                        self.report(&current, Status::INTERNAL_SERVER_ERROR, Fault::Server, &message, None)
                    }
                    Answer::Gone => {
                        self.log(&current, Status::CLIENT_CLOSED, 0, Timing::default());
                        return Ending::Cut;
                    }
                }
            }
        };
        self.reply(&current, response, &mut incoming, serving).await
    }

    /// The request as handlers see it, or the answer to one that none of them sees.
    fn route(&mut self, head: RequestHead, body: RequestBody, received: Instant) -> Result<Request, Box<Response>> {
        if head.raw_path() == b"*" {
            // A ping of the server itself (RFC 9110, section 9.3.7).
            return Err(Box::new(Response::new(Status::OK)));
        }
        let Ok(path) = CanonicalPath::parse(&head.raw_path_bytes()) else {
            let detail = Some("the path has no canonical form");
            return Err(Box::new(error_response(Status::BAD_REQUEST, detail, None, None, Some(&head))));
        };
        let endpoint = Arc::clone(&self.endpoint);
        let received = received.into_std();
        // HTTP/1.0 knows no interim responses (RFC 9110, section 15.2).
        let interim = if head.version() == Version::Http11 { self.interim.open() } else { Interim::none() };
        Ok(Request {
            head,
            path,
            body,
            endpoint,
            received,
            prefix_length: 0,
            timeout: None,
            interim,
            notes: Notes::default(),
        })
    }

    fn check(&self, current: &Current, outcome: Outcome) -> Response {
        match outcome {
            Outcome::Response(response) if response.status.is_informational() => {
                let message = format!("a handler answered with {} alone", response.status.code());
                self.report(current, Status::BAD_GATEWAY, Fault::Worker, &message, None)
            }
            Outcome::Response(response) => response,
            Outcome::Redirect(_) => {
                let message = "a handler redirected, and nothing before it carries that out";
                self.report(current, Status::INTERNAL_SERVER_ERROR, Fault::Server, message, None)
            }
            Outcome::Decline(_) => error_response(Status::NOT_FOUND, None, None, None, Some(&current.head)),
        }
    }

    /// A body that failed on its way in is the client's fault, whatever the handler made of it.
    fn explain(&self, current: &Current, error: HandlerError, incoming: &Incoming) -> Response {
        let (status, fault) = match incoming.failure() {
            Some(status) => (status, Fault::Client),
            None => (error.status, error.fault),
        };
        let mut page = self.report(current, status, fault, &error.message, error.retry_after);
        if let Some(dress) = error.dress {
            dress.apply(&mut page);
        }
        page
    }

    /// The one place where an error becomes a response and a line of the log.
    fn report(&self, current: &Current, status: Status, fault: Fault, message: &str, retry: Option<u32>) -> Response {
        let reference = new_reference();
        let level = if fault == Fault::Client { Level::Info } else { Level::Error };
        let (method, target) = (current.head.method_name(), current.head.target().escape_ascii());
        let errors = &self.context.errors;
        errors.log(level, format_args!("{message} ({method} {target}, {}, reference {reference})", status.code()));
        error_response(status, None, Some(&reference), retry, Some(&current.head))
    }

    async fn reply(
        &mut self,
        current: &Current,
        response: Response,
        incoming: &mut Incoming,
        serving: &Serving,
    ) -> Ending {
        let (status, timing) = (response.status, response.timing);
        let leftover = incoming.leftover(serving.limits.max_drain);
        let keep_alive =
            current.keep_alive && leftover != Leftover::Undrainable && self.context.drain.phase() == Phase::Serving;
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
                self.log(current, status, sent, timing);
                let is_clean = incoming.drain(&mut self.wire, &serving.limits).await;
                if is_clean { Ending::KeepAlive } else { Ending::Linger }
            }
            Ok(Sent::Close) => {
                self.log(current, status, sent, timing);
                let is_whole = incoming.leftover(0) == Leftover::Nothing && self.wire.input.is_empty();
                if is_whole { Ending::Close } else { Ending::Linger }
            }
            Ok(Sent::Overlong) => {
                let target = current.head.target().escape_ascii();
                let message = "a response body was longer than it said; the rest was left out";
                self.context.errors.error(format_args!("{message} ({target})"));
                self.log(current, status, sent, timing);
                Ending::Linger
            }
            Err(ReplyError::Body { message, head_sent: false }) if current.head.method() != Method::Connect => {
                let page = self.report(current, Status::BAD_GATEWAY, Fault::Worker, &message, None);
                self.send_last(current, page, incoming).await
            }
            Err(error) => {
                if let ReplyError::Body { message, .. } = &error {
                    let target = current.head.target().escape_ascii();
                    self.context.errors.error(format_args!("{message}; the connection was cut ({target})"));
                }
                self.log(current, status, sent, timing);
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
        self.log(current, status, sent, Timing::default());
        if result.is_ok() { Ending::Linger } else { Ending::Cut }
    }

    fn log(&mut self, current: &Current, status: Status, bytes: u64, timing: Timing) {
        let duration = current.received.elapsed();
        let request = RequestLine::Head(&current.head);
        self.context.access.log(&Entry {
            client: self.endpoint.client().map(|peer| peer.address),
            request,
            status,
            bytes,
            duration,
            timing,
        });
        let route = current.scope.route();
        self.count(|| metrics::answered(route, current.head.method(), status, bytes, duration, timing));
    }
}

/// Polls the handler, feeds it its body, and watches the client. A panic stays here.
async fn answer(
    (wire, incoming): (&mut Wire, &mut Incoming),
    interim: &InterimQueue,
    (serving, scope): (&Serving, &Scope),
    request: Request,
) -> Answer {
    let mut answering = match catch_unwind(AssertUnwindSafe(|| scope.run(|| serving.handler.handle(request)))) {
        Ok(answering) => answering,
        Err(panic) => return Answer::Panicked(told(&*panic).to_owned()),
    };
    // Whether interim responses of the handler's stand in the output.
    let mut is_telling = false;
    std::future::poll_fn(|context| {
        loop {
            let polled = catch_unwind(AssertUnwindSafe(|| scope.run(|| answering.as_mut().poll(context))));
            if interim.has_any() {
                is_telling = true;
                interim.take().iter().for_each(|(status, fields)| encode_interim(&mut wire.output, *status, fields));
            }
            match polled {
                // What is in the output by then goes ahead of the answer.
                Ok(Poll::Ready(result)) => return Poll::Ready(Answer::Outcome(result)),
                Ok(Poll::Pending) => {}
                Err(panic) => return Poll::Ready(Answer::Panicked(told(&*panic).to_owned())),
            }
            if is_telling {
                match wire.poll_send(context, &mut Bytes::new()) {
                    Poll::Ready(Ok(())) => is_telling = false,
                    Poll::Ready(Err(_)) => return Poll::Ready(Answer::Gone),
                    Poll::Pending => {}
                }
            }
            match incoming.poll(wire, context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Answer::Gone),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}
