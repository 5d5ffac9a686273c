//! What every version of HTTP does with a request beside reading and writing it: who may ask, what becomes of errors,
//! and the line in the access log.

use std::any::Any;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as Task, Poll};

use tokio::time::Instant;

use super::error_page::error_response;
use super::{Context, Serving};
use crate::crowd::Busy;
use crate::handler::{Answering, Fault, HandlerError, Outcome};
use crate::http::trace::Trace;
use crate::http::{
    CanonicalPath, Endpoint, Interim, Notes, Request, RequestBody, RequestHead, RequestId, Response, ResponseBody,
    Scheme, Status, Timing, TrustedProxies,
};
use crate::telemetry::flights::{self, Entered};
use crate::telemetry::metrics::{self, Scope};
use crate::telemetry::traces::{Told, Tracer};
use crate::telemetry::{Entry, Level, RequestLine};
use crate::tls::Certificates;

/// What is known of a request while it is answered.
pub(super) struct Current {
    pub(super) head: RequestHead,
    pub(super) received: Instant,
    /// The route that it takes.
    scope: Scope,
    endpoint: Arc<Endpoint>,
    context: Arc<Context>,
    id: RequestId,
    /// Where it comes from and how, by the word of a trusted proxy.
    forwarded: (Option<IpAddr>, Option<Scheme>),
    /// Where somebody may look: its entry among the requests in flight.
    flight: Option<Entered>,
    /// Where there are traces: its part of one.
    traced: Option<Box<Traced>>,
    _busy: Busy,
}

/// A request that is traced, whether that is kept or not.
struct Traced {
    tracer: Arc<Tracer>,
    trace: Arc<Trace>,
    /// The head with us as its parent.
    head: RequestHead,
}

/// Which certificate a connection began with, where some ask for those of clients.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) certificates: Arc<Certificates>,
    pub(super) entry: usize,
}

/// How a handler's work ended: well or not, or with what its panic said.
pub(super) type Worked = Result<Result<Outcome, HandlerError>, String>;

impl Current {
    pub(super) fn new(head: RequestHead, endpoint: &Arc<Endpoint>, context: &Arc<Context>, serving: &Serving) -> Self {
        let mut id = RequestId::None;
        let mut forwarded = (None, None);
        let is_trusted = serving.trusted.trusts(endpoint);
        // A proxy's word for where a request comes from, and its name for it, count only where the proxy is trusted.
        if is_trusted {
            let trusted = &serving.trusted;
            forwarded = (trusted.client(&head, endpoint), trusted.scheme(&head));
            id = head.field("x-request-id").and_then(RequestId::given).unwrap_or_default();
        }
        if id == RequestId::None {
            id = RequestId::next();
        }
        let traced = serving.traces.as_ref().map(|tracer| {
            let (trace, head) = tracer.begin(&head, is_trusted);
            Box::new(Traced { tracer: Arc::clone(tracer), trace, head })
        });
        let (endpoint, context) = (Arc::clone(endpoint), Arc::clone(context));
        let received = Instant::now();
        let flight = (flights::is_watched() && context.is_counted).then(|| {
            let client = forwarded.0.or(endpoint.client().map(|peer| peer.address.ip()));
            flights::enter(&head, &id, client, received.into_std())
        });
        let scope = Scope::default();
        Self { head, received, scope, endpoint, context, id, forwarded, flight, traced, _busy: Busy::begin() }
    }

    /// It is the first on its connection, which was accepted then.
    pub(super) fn is_first(&self, accepted: Instant) {
        if let Some(traced) = &self.traced {
            traced.trace.note(|steps| steps.accepted = Some(accepted.into_std()));
        }
    }

    /// The request as handlers see it, or the answer to one that none of them sees.
    pub(super) fn route(
        &self,
        body: RequestBody,
        interim: Interim,
        guard: Option<&Guard>,
    ) -> Result<Request, Box<Response>> {
        let head = self.traced.as_ref().map_or(&self.head, |traced| &traced.head).clone();
        if head.raw_path() == b"*" {
            // A ping of the server itself (RFC 9110, section 9.3.7).
            return Err(Box::new(Response::new(Status::OK)));
        }
        if guard.is_some_and(|guard| !guard.certificates.covers(guard.entry, head.host())) {
            let detail = Some("this name asks for client certificates of its own; connect to it by its name");
            return Err(Box::new(error_response(Status::MISDIRECTED_REQUEST, detail, None, None, Some(&head))));
        }
        let Ok(path) = CanonicalPath::parse(&head.raw_path_bytes()) else {
            let detail = Some("the path has no canonical form");
            return Err(Box::new(error_response(Status::BAD_REQUEST, detail, None, None, Some(&head))));
        };
        let (endpoint, received) = (Arc::clone(&self.endpoint), self.received.into_std());
        let trace = self.traced.as_ref().map(|traced| Arc::clone(&traced.trace));
        let notes = Notes { id: self.id.clone(), scheme: self.forwarded.1, trace, ..Notes::default() };
        Ok(Request { head, path, body, endpoint, received, prefix_length: 0, timeout: None, interim, notes })
    }

    /// What the client is told of how the work ended. A body that `failed` on its way in is the client's fault, whatever
    /// the handler made of it.
    pub(super) fn conclude(&self, worked: Worked, failed: Option<Status>) -> Response {
        let response = match worked {
            Ok(Ok(outcome)) => self.seen(self.check(outcome)),
            Ok(Err(error)) => self.explain(error, failed),
            Err(panic) => {
                let message = format!("a handler panicked: {panic}");
                self.report(Status::INTERNAL_SERVER_ERROR, Fault::Server, &message, None)
            }
        };
        if let Some(flight) = &self.flight {
            flight.answered(response.fields.get("server-timing"));
        }
        if let Some(traced) = &self.traced {
            traced.trace.note(|steps| {
                steps.answered = Some(Instant::now().into_std());
                steps.is_streamed = matches!(response.body, ResponseBody::Stream(_) | ResponseBody::Tunnel(_));
            });
        }
        response
    }

    fn check(&self, outcome: Outcome) -> Response {
        match outcome {
            Outcome::Response(response)
                if response.status.is_informational() && !matches!(response.body, ResponseBody::Tunnel(_)) =>
            {
                let message = format!("a handler answered with {} alone", response.status.code());
                self.report(Status::BAD_GATEWAY, Fault::Worker, &message, None)
            }
            Outcome::Response(response) => response,
            Outcome::Redirect(_) => {
                let message = "a handler redirected, and nothing before it carries that out";
                self.report(Status::INTERNAL_SERVER_ERROR, Fault::Server, message, None)
            }
            Outcome::Decline(_) => error_response(Status::NOT_FOUND, None, None, None, Some(&self.head)),
        }
    }

    /// Says once why a site redirects its visitors in a circle: it sends to https what came over https to a proxy that
    /// nobody told us to believe.
    fn seen(&self, response: Response) -> Response {
        static IS_TOLD: AtomicBool = AtomicBool::new(false);
        if !matches!(response.status.code(), 301 | 302 | 303 | 307 | 308) || self.endpoint.scheme() == Scheme::Https {
            return response;
        }
        let trusted = TrustedProxies::default();
        if let Some(peer) = self.endpoint.client()
            && self.forwarded.1.is_none()
            && trusted.scheme(&self.head) == Some(Scheme::Https)
            && response.fields.get("location").is_some_and(|location| self.is_here_over_https(location))
            && !IS_TOLD.swap(true, Ordering::Relaxed)
        {
            let (ip, bits) = (&peer.ip, if peer.address.ip().to_canonical().is_ipv4() { 32 } else { 128 });
            self.context.errors.warning(format_args!(
                "{ip} says that its clients speak https and is not believed, so that a redirect to https leads back to \
                 itself; if it is your proxy, add to [server]: trusted_proxies = [\"{ip}/{bits}\"]"
            ));
        }
        response
    }

    /// Whether this leads to what was asked for, over https.
    fn is_here_over_https(&self, location: &[u8]) -> bool {
        let head = &self.head;
        let said = head.field("x-forwarded-host").unwrap_or_default();
        let Some(rest) = location.strip_prefix(b"https://") else { return false };
        let end = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
        let (host, target) = rest.split_at(end);
        let (path, query) = match memchr::memchr(b'?', target) {
            Some(mark) => (&target[..mark], Some(&target[mark + 1..])),
            None => (target, None),
        };
        let is_host = [head.authority().as_bytes(), head.host().as_bytes(), said].contains(&host);
        is_host && path == head.raw_path() && query == head.query()
    }

    fn explain(&self, error: HandlerError, failed: Option<Status>) -> Response {
        let (status, fault) = match failed {
            Some(status) => (status, Fault::Client),
            None => (error.status, error.fault),
        };
        let mut page = self.report(status, fault, &error.message, error.retry_after);
        if let Some(dress) = error.dress {
            dress.apply(&mut page);
        }
        page
    }

    /// The one place where an error becomes a response and a line of the log.
    pub(super) fn report(&self, status: Status, fault: Fault, message: &str, retry: Option<u32>) -> Response {
        let reference = self.id.to_string();
        let level = if fault == Fault::Client { Level::Info } else { Level::Error };
        let target = self.context.access.masked(self.head.target());
        let (method, target) = (self.head.method_name(), target.escape_ascii());
        let errors = &self.context.errors;
        errors.log(level, format_args!("{message} ({method} {target}, {}, reference {reference})", status.code()));
        error_response(status, None, Some(&reference), retry, Some(&self.head))
    }

    /// Says what was wrong with a response that had begun.
    pub(super) fn report_broken(&self, message: &str) {
        let target = self.context.access.masked(self.head.target());
        self.context.errors.error(format_args!("{message} ({})", target.escape_ascii()));
    }

    /// Runs a step of its handler, and remembers the route that it took.
    fn run<T>(&self, step: impl FnOnce() -> T) -> T {
        let result = self.scope.run(step);
        if let Some(flight) = &self.flight {
            flight.take(self.scope.route());
        }
        result
    }

    /// The line of the access log, and the counters.
    pub(super) fn log(&self, status: Status, bytes: u64, timing: Timing) {
        let duration = self.received.elapsed();
        if self.context.is_counted {
            metrics::answered(self.scope.route(), self.head.method(), status, bytes, duration, timing);
        }
        if let Some(flight) = &self.flight {
            flight.finish(&self.context.access.masked(self.head.target()), status, bytes, timing);
        }
        if !self.context.access.is_on() && self.traced.is_none() {
            return;
        }
        let entry = Entry {
            client: self.endpoint.client().map(|peer| peer.address),
            request: RequestLine::Head(&self.head),
            status,
            bytes,
            duration,
            timing,
            id: Some(&self.id),
            trace: self.traced.as_ref().map(|traced| traced.trace.id),
            forwarded: self.forwarded.0,
            scheme: self.forwarded.1.unwrap_or(self.endpoint.scheme()),
            place: self.scope.place(),
        };
        self.context.access.log(&entry);
        if let Some(traced) = &self.traced {
            traced.tracer.end(&Told {
                trace: &traced.trace,
                entry: &entry,
                route: self.scope.route(),
                endpoint: &self.endpoint,
                target: &self.context.access.masked(self.head.target()),
                received: self.received.into_std(),
            });
        }
    }
}

/// Begins a handler's work. A panic stays here.
pub(super) fn begin<'a>(serving: &'a Serving, current: &Current, request: Request) -> Result<Answering<'a>, String> {
    let begun = catch_unwind(AssertUnwindSafe(|| current.run(|| serving.handler.handle(request))));
    begun.map_err(|panic| told(&*panic).to_owned())
}

/// Goes on with it.
pub(super) fn poll(answering: &mut Answering<'_>, current: &Current, task: &mut Task<'_>) -> Poll<Worked> {
    match catch_unwind(AssertUnwindSafe(|| current.run(|| answering.as_mut().poll(task)))) {
        Ok(polled) => polled.map(Ok),
        Err(panic) => Poll::Ready(Err(told(&*panic).to_owned())),
    }
}

/// What a panic said.
pub(super) fn told(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&'static str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("nothing")
}
