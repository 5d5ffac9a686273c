//! What is told of a request: OpenTelemetry's spans, by its semantic conventions for HTTP.
//!
//! One span is the request as a whole; below it stand accepting its connection (for the first on it), waiting in a queue,
//! and the work of what answers. They are written as bytes at once: what waits is small, and whoever sends it copies.

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime};

use super::protobuf::Message;
use super::queue::Spans;
use super::settings::TraceSettings;
use crate::http::trace::{SpanId, Steps, Trace, is_valid_state};
use crate::http::{Endpoint, Method, RequestHead, Version};
use crate::telemetry::access::Entry;
use crate::telemetry::metrics::{self, Labels, Place, RouteId};

/// The version of the conventions that names of attributes are taken from.
const CONVENTIONS: &str = "https://opentelemetry.io/schemas/1.37.0";

/// A connection that was opened longer ago was opened ahead of need, as browsers do: what passed until its first request
/// is no time of this request.
const OPENED_AHEAD: Duration = Duration::from_secs(1);

/// Kinds of spans.
const INTERNAL: u64 = 1;
const SERVER: u64 = 2;
const CLIENT: u64 = 3;

/// `STATUS_CODE_ERROR`.
const FAILED: u64 = 2;

/// Flags beyond those of the trace: it is known whether the parent is elsewhere, and it is.
const KNOWN_PLACE: u32 = 0x100;
const ELSEWHERE: u32 = 0x200;

/// A request that is over.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// Its part of a trace.
    pub trace: &'a Trace,
    /// What the access log is told.
    pub entry: &'a Entry<'a>,
    /// The route that it took.
    pub route: RouteId,
    /// Who asked.
    pub endpoint: &'a Endpoint,
    /// The target as logs may hold it.
    pub target: &'a [u8],
    /// When its head was complete.
    pub received: Instant,
}

/// What a span is told by, beyond its attributes.
struct Outline<'a> {
    id: SpanId,
    parent: Option<SpanId>,
    name: Cow<'a, str>,
    kind: u64,
    began: Instant,
    ended: Instant,
    is_failed: bool,
}

/// Instants as moments of the calendar.
struct Clock {
    now: Instant,
    moment: SystemTime,
}

/// What there is of a trace while its spans are written.
struct Writer<'a> {
    trace: &'a Trace,
    state: Vec<u8>,
    clock: Clock,
    out: Message,
    count: u32,
}

/// The spans of a request.
pub(super) fn of_request(told: &Told<'_>) -> Spans {
    let Told { trace, entry, received, .. } = *told;
    let now = received + entry.duration;
    let state = match entry.head() {
        Some(head) if trace.parent.is_some() && is_valid_state(head) => {
            head.field_values("tracestate").collect::<Vec<_>>().join(&b","[..])
        }
        _ => Vec::new(),
    };
    let clock = Clock { now, moment: SystemTime::now() };
    let mut writer = Writer { trace, state, clock, out: Message(Vec::with_capacity(1024)), count: 0 };
    let steps = trace.steps();
    let labels = metrics::labels(told.route);
    let place = metrics::place(entry.place);
    let handler = place.as_deref().map_or("", |place| place.handler);
    let accepted = steps.accepted.filter(|accepted| received.saturating_duration_since(*accepted) < OPENED_AHEAD);
    writer.whole(told, (&labels, place.as_deref()), (accepted.unwrap_or(received), now));
    let below = |id, name, (began, ended)| Outline {
        id,
        parent: Some(trace.span),
        name: Cow::Borrowed(name),
        kind: INTERNAL,
        began,
        ended,
        is_failed: false,
    };
    if let Some(accepted) = accepted {
        writer.span(&below(super::span_id(), "accept", (accepted, received)), |_| ());
    }
    if let Some(queued) = steps.queued {
        let is_failed = steps.handed.is_none();
        let outline = below(super::span_id(), "queue", (queued, steps.handed.unwrap_or(now)));
        writer.span(&Outline { is_failed, ..outline }, |_| ());
    }
    if let (Some(handed), Some((name, kind))) = (steps.handed, work(handler)) {
        let ended = steps.answered.filter(|_| !steps.is_streamed).unwrap_or(now).max(handed);
        let least = if name == "upstream" { 400 } else { 500 };
        let is_failed = entry.status.code() >= least;
        let outline = Outline { kind, is_failed, ..below(trace.work, name, (handed, ended)) };
        writer.span(&outline, |span| of_work(span, told, &steps, &labels));
    }
    Spans { count: writer.count, bytes: writer.out.0 }
}

/// What the work of a handler is called, and its kind.
fn work(handler: &str) -> Option<(&'static str, u64)> {
    match handler {
        "app" => Some(("application", CLIENT)),
        "upstream" => Some(("upstream", CLIENT)),
        "cgi" => Some(("cgi", INTERNAL)),
        "static" => Some(("file", INTERNAL)),
        _ => None,
    }
}

fn of_work(span: &mut Message, told: &Told<'_>, steps: &Steps, labels: &Labels) {
    if !labels.app.is_empty() {
        text(span, "daemun.app", labels.app.as_bytes());
    }
    let Some(server) = &steps.server else { return };
    method(span, told.entry.head());
    status(span, told.entry);
    let bare = server.split_once("://").map_or(&**server, |(_, bare)| bare);
    match bare.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?))) {
        Some((host, port)) => {
            text(span, "server.address", host.as_bytes());
            number(span, "server.port", port.into());
        }
        None => text(span, "server.address", bare.as_bytes()),
    }
    if steps.tries > 1 {
        number(span, "http.request.resend_count", u64::from(steps.tries) - 1);
    }
}

impl Writer<'_> {
    /// The request as a whole.
    fn whole(
        &mut self,
        told: &Told<'_>,
        (labels, place): (&Labels, Option<&Place>),
        (began, ended): (Instant, Instant),
    ) {
        let Told { trace, entry, endpoint, target, .. } = *told;
        let head = entry.head();
        // Without the host, which a pattern may begin with.
        let route = labels.route.find('/').map(|at| &labels.route[at..]);
        let verb = head.filter(|head| head.method() != Method::Other).map_or("HTTP", RequestHead::method_name);
        let name = route.map_or_else(|| verb.to_owned(), |route| format!("{verb} {route}"));
        let outline = Outline {
            id: trace.span,
            parent: trace.parent,
            name: Cow::Owned(name),
            kind: SERVER,
            began,
            ended,
            is_failed: entry.status.code() >= 500,
        };
        self.span(&outline, |span| {
            method(span, head);
            let (path, query) = match memchr::memchr(b'?', target) {
                Some(mark) => (&target[..mark], Some(&target[mark + 1..])),
                None => (target, None),
            };
            text(span, "url.path", head.map_or(path, RequestHead::raw_path));
            optional(span, "url.query", query);
            text(span, "url.scheme", entry.scheme.as_str().as_bytes());
            status(span, entry);
            optional(span, "http.route", route.map(str::as_bytes));
            number(span, "http.response.body.size", entry.bytes);
            client(span, entry, endpoint);
            if let Some(head) = head {
                of_head(span, head, endpoint);
            }
            if let Some(id) = entry.id {
                let mut name = Vec::with_capacity(16);
                id.push(&mut name);
                text(span, "daemun.request_id", &name);
            }
            optional(span, "daemun.handler", place.map(|place| place.handler.as_bytes()));
            optional(span, "daemun.route", place.map(|place| place.origin.as_bytes()));
            optional(span, "daemun.app", Some(labels.app.as_bytes()).filter(|app| !app.is_empty()));
        });
    }

    /// One `Span`, as a field of `ScopeSpans`.
    fn span(&mut self, outline: &Outline<'_>, attributes: impl FnOnce(&mut Message)) {
        let Self { trace, state, clock, .. } = self;
        let is_elsewhere = outline.id == trace.span && outline.parent.is_some();
        self.out.message(2, |span| {
            span.bytes(1, &trace.id);
            span.bytes(2, &outline.id);
            span.text(3, state);
            span.bytes(4, outline.parent.as_ref().map_or(&[], |parent| &parent[..]));
            span.text(5, outline.name.as_bytes());
            span.number(6, outline.kind);
            span.moment(7, clock.at(outline.began));
            span.moment(8, clock.at(outline.ended));
            attributes(span);
            if outline.is_failed {
                span.message(15, |status| status.number(3, FAILED));
            }
            span.fixed32(16, 1 | KNOWN_PLACE | if is_elsewhere { ELSEWHERE } else { 0 });
        });
        self.count += 1;
    }
}

impl Clock {
    fn at(&self, instant: Instant) -> SystemTime {
        self.moment - self.now.saturating_duration_since(instant)
    }
}

fn client(span: &mut Message, entry: &Entry<'_>, endpoint: &Endpoint) {
    let Some(peer) = endpoint.client() else {
        return text(span, "network.transport", b"unix");
    };
    let address = entry.address().map(|address| address.to_string()).unwrap_or_default();
    text(span, "client.address", address.as_bytes());
    text(span, "network.peer.address", peer.ip.as_bytes());
    number(span, "network.peer.port", peer.address.port().into());
}

fn of_head(span: &mut Message, head: &RequestHead, endpoint: &Endpoint) {
    let version: &[u8] = match head.version() {
        Version::Http10 => b"1.0",
        Version::Http11 => b"1.1",
        Version::Http2 => b"2",
    };
    text(span, "network.protocol.version", version);
    optional(span, "server.address", Some(head.host().as_bytes()).filter(|host| !host.is_empty()));
    let said = head.authority()[head.host().len()..].strip_prefix(':').and_then(|port| port.parse::<u16>().ok());
    if let Some(port) = said.or(endpoint.server().map(|server| server.address.port())) {
        number(span, "server.port", port.into());
    }
    optional(span, "user_agent.original", head.field("user-agent"));
}

/// A method that is not known is `_OTHER`: there is no end of those that clients make up.
fn method(span: &mut Message, head: Option<&RequestHead>) {
    let name = head.map_or("", RequestHead::method_name).as_bytes();
    if head.is_some_and(|head| head.method() != Method::Other) {
        return text(span, "http.request.method", name);
    }
    text(span, "http.request.method", b"_OTHER");
    optional(span, "http.request.method_original", Some(name).filter(|name| !name.is_empty()));
}

fn status(span: &mut Message, entry: &Entry<'_>) {
    let code = entry.status.code();
    number(span, "http.response.status_code", code.into());
    if code >= 500 {
        text(span, "error.type", code.to_string().as_bytes());
    }
}

fn text(span: &mut Message, name: &str, value: &[u8]) {
    attribute(span, 9, name, |any| any.text(1, value));
}

fn optional(span: &mut Message, name: &str, value: Option<&[u8]>) {
    if let Some(value) = value {
        text(span, name, value);
    }
}

fn number(span: &mut Message, name: &str, value: u64) {
    attribute(span, 9, name, |any| any.number(3, value));
}

/// `KeyValue` with an `AnyValue`.
fn attribute(message: &mut Message, field: u32, name: &str, value: impl FnOnce(&mut Message)) {
    message.message(field, |pair| {
        pair.text(1, name.as_bytes());
        pair.message(2, value);
    });
}

/// The `Resource` of all that we send.
pub fn resource(settings: &TraceSettings) -> Vec<u8> {
    let mut resource = Message::default();
    let mut say = |name: &str, value: &str| {
        // What the operator says counts.
        if name == "service.name" || !settings.resource.iter().any(|(said, _)| said == name) {
            attribute(&mut resource, 1, name, |any| any.text(1, value.as_bytes()));
        }
    };
    say("service.name", &settings.service);
    say("host.name", &rustix::system::uname().nodename().to_string_lossy());
    say("telemetry.sdk.name", "daemun");
    say("telemetry.sdk.language", "rust");
    say("telemetry.sdk.version", env!("CARGO_PKG_VERSION"));
    for (name, value) in settings.resource.iter().filter(|(name, _)| name != "service.name") {
        attribute(&mut resource, 1, name, |any| any.text(1, value.as_bytes()));
    }
    resource.0
}

/// An `ExportTraceServiceRequest` with all spans of a batch.
pub fn request(resource: &[u8], batch: &[Spans]) -> Vec<u8> {
    let mut request = Message::default();
    request.message(1, |spans| {
        spans.bytes(1, resource);
        spans.message(2, |scope| {
            scope.message(1, |name| {
                name.bytes(1, b"daemun");
                name.bytes(2, env!("CARGO_PKG_VERSION").as_bytes());
            });
            for spans in batch {
                scope.0.extend_from_slice(&spans.bytes);
            }
            scope.bytes(3, CONVENTIONS.as_bytes());
        });
        spans.bytes(3, CONVENTIONS.as_bytes());
    });
    request.0
}
