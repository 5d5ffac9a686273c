//! Asking a server over FastCGI, SCGI or uwsgi. The three differ in how a request is written and how an answer ends;
//! its head is that of CGI for all of them.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use daemun_protocol::cgi::parse_head;
use daemun_protocol::fastcgi::{self, Ending, Kind};
use daemun_protocol::pairs::pairs;
use daemun_protocol::{scgi, uwsgi};
use tokio::time::Instant;

use super::exchange::{Answer, Asked, Outbound};
use super::flow::{Flow, Sending};
use super::gateway_body::{GatewayBody, finish_alone};
use super::payload::{Framing, UploadError};
use super::told::Untold;
use super::variables;
use crate::gateway::{Document, Head, LogLines, fields};
use crate::http::{Method, Request, RequestId, Response, ResponseBody, Status, Timing};
use crate::telemetry::ErrorLogger;
use crate::upstream::{Failure, FailureKind, Hungry, Place, Reuse, Scheme, Stream, TooSlow};

/// The request on a FastCGI connection that it has for itself.
const ONLY: u16 = 1;

/// How long a request on a new FastCGI connection waits for its first byte before a kept connection makes room: a process
/// of php-fpm takes no other connection while it has one. Longer than most answers take, so that connections are kept.
const HUNGER: Duration = Duration::from_millis(100);

/// Interim responses that are read before one answer.
const MAX_INTERIM: usize = 32;

/// Content of a record that is taken as it lies, and not copied to what came before: copying less costs less than sharing.
const TAKEN_WHOLE: usize = 4096;

/// Bytes of an answer that a message quotes.
const QUOTED: usize = 200;

/// What an answer broke of, and how that is told.
pub(super) type Broken = (FailureKind, String);

/// Asks the server of `place` once, over a kept FastCGI connection if `may_reuse`.
pub(super) async fn ask(place: Place, outbound: Outbound<'_>, may_reuse: bool) -> Asked {
    let scheme = place.server().scheme();
    let failed = |place, message: String| Err((place, Failure::unsent(FailureKind::Client, message)));
    let length = outbound.payload.length().unwrap_or_default();
    let Outbound { request, aim, params, trusted, .. } = outbound;
    let variables = || variables::write(request, aim, params, length, trusted);
    let mut out = BytesMut::new();
    let connected = match scheme {
        Scheme::Scgi => {
            scgi::put_head(&mut out, length, pairs(&variables()));
            place.connect(Reuse::Never).await
        }
        Scheme::Uwsgi => {
            if let Err(error) = uwsgi::put_packet(&mut out, uwsgi::REQUEST, pairs(&variables())) {
                return failed(place, error.to_string());
            }
            place.connect(Reuse::Never).await
        }
        _ => place.converse(outbound.reuse(may_reuse), length > 0).await,
    };
    let connection = match connected {
        Ok(connection) => connection,
        Err(failure) => return Err((place, failure)),
    };
    let id = connection.shared().map_or(ONLY, Stream::id);
    let framing = if scheme == Scheme::Fastcgi {
        let beginning = variables::begin(request, aim, params, length, trusted);
        out = beginning.finish(id, place.serving().settings.keep_alive > 0);
        Framing::Records(id)
    } else {
        Framing::Plain
    };
    let is_shared = connection.shared().is_some();
    // Others may break a connection that is shared, whoever was first on it.
    let is_reused = connection.is_reused || is_shared;
    let upload = match outbound.payload.upload(framing, None) {
        Ok(upload) => upload,
        Err(error) => return failed(place, format!("its body: {error}")),
    };
    let flow = Flow::new(connection, place, out, upload);
    let complaints = Complaints::Unwritten(outbound.errors.clone(), request.notes.id.clone());
    let mut talk = Box::new(Talk::new(flow, (scheme, id), complaints));
    if scheme == Scheme::Fastcgi && !is_reused {
        talk.hunger = Some((Instant::now() + HUNGER, None));
    }
    match read_head(&mut talk, &outbound).await {
        Ok(head) => {
            talk.flow.place.succeed();
            Ok(respond(talk, head, outbound.request))
        }
        Err((kind, message)) => {
            let message = format!("{}: {message}", talk.flow.place.server().name());
            let flow = talk.flow;
            let failure = Failure { kind, sent: flow.has_sent, received: flow.has_received, message };
            let is_stale =
                is_reused && kind == FailureKind::Broken && !failure.received || is_shared && talk.cannot_share;
            let may_repeat = !failure.sent || outbound.request.head.method().is_idempotent();
            if is_stale && may_repeat && outbound.payload.is_at_hand() {
                // The connection ended while the request was on its way, or is not for several: nobody's fault.
                return Box::pin(ask(flow.place, outbound, false)).await;
            }
            Err((flow.place, failure))
        }
    }
}

/// A request and its answer while they run.
pub(super) struct Talk {
    pub(super) flow: Flow,
    scheme: Scheme,
    /// The number of the request, over FastCGI.
    id: u16,
    /// What came of the answer and was not yet taken.
    pub(super) text: BytesMut,
    /// The answer has come to its end.
    pub(super) is_over: bool,
    /// Some of it came.
    has_begun: bool,
    /// The server refused it for the connection's sake, and may take it on one of its own.
    cannot_share: bool,
    /// When the server should have begun, on a connection that it may not have accepted yet; and what is done about it.
    hunger: Option<(Instant, Option<Hungry>)>,
    complaints: Complaints,
}

/// What a server complains of while it answers.
enum Complaints {
    /// Nothing yet: where that would go, and what the request is called there.
    Unwritten(ErrorLogger, RequestId),
    /// Something.
    Lines(LogLines),
}

impl Complaints {
    fn push(&mut self, bytes: &[u8], server: &str) {
        if let Self::Unwritten(errors, id) = self {
            *self = Self::Lines(LogLines::new(errors.clone(), format!("{id}: {server}")));
        }
        if let Self::Lines(lines) = self {
            lines.push(bytes);
        }
    }
}

impl Talk {
    fn new(flow: Flow, (scheme, id): (Scheme, u16), complaints: Complaints) -> Self {
        let (text, has_begun, is_over, cannot_share) = (BytesMut::new(), false, false, false);
        Self { flow, scheme, id, text, is_over, has_begun, cannot_share, hunger: None, complaints }
    }

    /// Ready when more of the answer is there, or all of it.
    pub(super) fn poll_more(&mut self, context: &mut Context<'_>, due: Option<Instant>) -> Poll<Result<(), Broken>> {
        loop {
            self.flow.poll_send(context).map_err(|error| match error {
                UploadError::Client => (FailureKind::Client, error.to_string()),
                UploadError::Spool(_) => (FailureKind::Broken, error.to_string()),
            })?;
            if self.is_over || self.take()? {
                return Poll::Ready(Ok(()));
            }
            match self.flow.poll_fill(context) {
                Poll::Ready(Ok(0)) if self.scheme != Scheme::Fastcgi && self.flow.has_received => {
                    self.is_over = true;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(0)) if self.flow.has_received => {
                    return broken("it closed the connection before the end of its answer");
                }
                Poll::Ready(Ok(0)) => return broken("it closed the connection without an answer"),
                Poll::Ready(Ok(_)) => self.hunger = None,
                Poll::Ready(Err(error)) if TooSlow::is_why(&error) => {
                    return Poll::Ready(Err((FailureKind::Client, error.to_string())));
                }
                Poll::Ready(Err(error)) => return broken(&error.to_string()),
                Poll::Pending => {
                    self.poll_hunger(context);
                    let waited = ready!(self.flow.poll_late(context, due)).as_secs_f32();
                    let message = match self.flow.sending {
                        Sending::Blocked => {
                            format!("it took nothing of the request for {waited:.1} s (`send_timeout`)")
                        }
                        _ => format!("nothing has come for {waited:.1} s (`read_timeout`)"),
                    };
                    return Poll::Ready(Err((FailureKind::Timeout, message)));
                }
            }
        }
    }

    /// Has kept connections closed, one after another, while the server may be waiting for just that.
    fn poll_hunger(&mut self, context: &mut Context<'_>) {
        let Some((due, hungry)) = &mut self.hunger else { return };
        while self.flow.connection.alarm.poll(context, *due).is_ready() {
            hungry.get_or_insert_with(|| self.flow.place.hungers()).make_room();
            *due = Instant::now() + HUNGER;
        }
    }

    /// Takes what is there of the answer out of what came in. True where that was something.
    fn take(&mut self) -> Result<bool, Broken> {
        let input = &mut self.flow.connection.input;
        if self.scheme != Scheme::Fastcgi {
            let is_some = !input.is_empty();
            self.text.unsplit(input.split());
            return Ok(is_some);
        }
        let wrong = |message: String| (FailureKind::Broken, message);
        // No more than was read at once: the client is waited for in between.
        let mut has_any = false;
        while let Some(record) = fastcgi::see_record(input).map_err(|error| wrong(error.to_string()))? {
            let content = &input[fastcgi::HEADER..fastcgi::HEADER + record.length];
            match Kind::from_number(record.kind) {
                // What the server says of itself.
                _ if record.id == 0 => {}
                _ if record.id != self.id => return Err(wrong("it answers a request that was not sent".to_owned())),
                // Its end; the request's is said.
                Some(Kind::Stdout) if content.is_empty() => {}
                Some(Kind::Stdout) if content.len() >= TAKEN_WHOLE && self.text.is_empty() => {
                    input.advance(fastcgi::HEADER);
                    self.text = input.split_to(record.length);
                    input.advance(record.whole - fastcgi::HEADER - record.length);
                    (has_any, self.has_begun) = (true, true);
                    continue;
                }
                Some(Kind::Stdout) => {
                    self.text.extend_from_slice(content);
                    (has_any, self.has_begun) = (true, true);
                }
                Some(Kind::Stderr) => self.complaints.push(content, self.flow.place.server().name()),
                Some(Kind::EndRequest) => {
                    let (_, ending) = fastcgi::parse_end(content).map_err(|error| wrong(error.to_string()))?;
                    input.advance(record.whole);
                    return self.end(ending);
                }
                _ => return Err(wrong("a record stands where none of its kind can".to_owned())),
            }
            input.advance(record.whole);
        }
        Ok(has_any)
    }

    /// The server says that its answer has ended, and how.
    fn end(&mut self, ending: Ending) -> Result<bool, Broken> {
        let why = match ending {
            Ending::Complete => {
                self.is_over = true;
                return Ok(true);
            }
            Ending::Overloaded => "it has too much to do (FCGI_OVERLOADED)",
            Ending::CannotMultiplex => "it takes one request at a time (FCGI_CANT_MPX_CONN)",
            Ending::UnknownRole => "it is no responder (FCGI_UNKNOWN_ROLE)",
        };
        // Where it has said nothing else it says that it has done nothing.
        self.flow.has_sent &= self.has_begun;
        self.cannot_share = ending == Ending::CannotMultiplex && !self.has_begun;
        Err(wrong(why))
    }

    /// The answer was taken: the connection is kept if it is as new, else dropped.
    pub(super) fn finish(self) {
        let keep = self.is_over && self.scheme == Scheme::Fastcgi && self.text.is_empty();
        self.flow.finish(keep);
    }
}

async fn read_head(talk: &mut Talk, outbound: &Outbound<'_>) -> Result<Head, Broken> {
    let mut interims = 0;
    loop {
        match parse_head(&talk.text) {
            Ok(Some(head)) => {
                // uwsgi servers write whole responses, and some SCGI servers do.
                let is_whole = talk.scheme == Scheme::Uwsgi || talk.text.starts_with(b"HTTP/");
                let bytes = talk.text.split_to(head.length).freeze();
                let status = head.status.as_ref().and_then(|&(code, _)| Status::from_code(code));
                match status.filter(|status| status.is_informational()) {
                    Some(status) if status.code() == 101 => {
                        return Err(wrong("it changes to a protocol that was not asked for"));
                    }
                    Some(_) if interims == MAX_INTERIM => return Err(wrong("it sent too many interim responses")),
                    Some(status) => outbound.request.interim.send(status, fields(&bytes, &head)),
                    None => return Ok(Head::of(&bytes, &head, is_whole)),
                }
                interims += 1;
                continue;
            }
            Ok(None) if talk.is_over && talk.text.is_empty() => return Err(wrong("its answer is empty")),
            Ok(None) if talk.is_over => {
                return Err(wrong(&format!("its answer ended within its head: {}", quoted(talk))));
            }
            Ok(None) => {}
            Err(error) => return Err(wrong(&format!("{error}; its answer begins with {}", quoted(talk)))),
        }
        std::future::poll_fn(|context| talk.poll_more(context, outbound.due)).await?;
    }
}

/// The answer as the client gets it.
fn respond(mut talk: Box<Talk>, head: Head, request: &Request) -> Answer {
    let document = match head {
        Head::Document(document) => document,
        Head::Local { path, query } => {
            finish_alone(talk);
            return Answer::Local { path, query };
        }
    };
    let Document { status, reason, fields, content_length, is_chunked } = document;
    let body = if request.head.method() == Method::Head || status.is_bodiless() {
        finish_alone(talk);
        match content_length {
            _ if request.head.method() != Method::Head => ResponseBody::Empty,
            Some(length) => ResponseBody::LengthOnly(length),
            None => ResponseBody::Stream(Box::pin(Untold)),
        }
    } else if talk.is_over && !is_chunked && content_length.is_none_or(|length| length == talk.text.len() as u64) {
        let bytes: Bytes = talk.text.split().freeze();
        talk.finish();
        ResponseBody::Full(bytes)
    } else {
        ResponseBody::Stream(Box::pin(GatewayBody::new(talk, content_length, is_chunked)))
    };
    Answer::Response(Response { status, reason, fields, body, timing: Timing::default() })
}

fn quoted(talk: &Talk) -> String {
    format!("\"{}\"", talk.text[..talk.text.len().min(QUOTED)].escape_ascii())
}

fn wrong(message: &str) -> Broken {
    (FailureKind::Broken, message.to_owned())
}

fn broken<T>(message: &str) -> Poll<Result<T, Broken>> {
    Poll::Ready(Err(wrong(message)))
}
