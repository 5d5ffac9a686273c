//! The door of a CGI route: a request in, a program's answer out.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::{NoHead, read_head};
use super::body::{OutputBody, Untold};
use super::faults::{self, Why};
use super::input::Input;
use super::invocation::Invocation;
use super::process::{Deadlines, Pipes, Process, standard};
use super::settings::CgiSettings;
use super::way::{Choice, Way};
use crate::gateway::{Document, Head, Spool};
use crate::handler::{Answering, Fault, Handler, HandlerError, Outcome};
use crate::http::{Method, Request, RequestBody, RequestId, Response, ResponseBody, Status, Timing, TrustedProxies};
use crate::launcher::{Client, LaunchError};
use crate::telemetry::ErrorLogger;

/// Seconds after which a client may try again when all places are taken.
const RETRY_AFTER: u32 = 2;

/// What an answer names a file by that the server is to send.
const SENT: [&str; 2] = ["X-Accel-Redirect", "X-Sendfile"];

/// What all CGI routes share.
#[derive(Clone)]
pub struct Shared {
    /// Starts programs.
    pub client: Arc<Client>,
    /// Holds bodies.
    pub spool: Arc<Spool>,
    /// Whose word about a client counts.
    pub trusted: TrustedProxies,
    /// Where standard error goes.
    pub errors: ErrorLogger,
    /// Programs at a time over all routes.
    pub places: Arc<Semaphore>,
}

/// A CGI route.
pub struct Cgi {
    settings: Arc<CgiSettings>,
    choice: Choice,
    shared: Shared,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// `/dev/null`.
    nothing: OwnedFd,
}

impl Cgi {
    /// A route. `folder` is the opened root, where it has one; `is_exact` says that its path has no `*`.
    pub fn new(
        settings: CgiSettings,
        folder: Option<OwnedFd>,
        is_exact: bool,
        shared: Shared,
    ) -> std::io::Result<Self> {
        let choice = Choice::new(settings, folder, is_exact);
        let settings = Arc::clone(&choice.settings);
        let places = Arc::new(Semaphore::new(settings.max_processes.max(1) as usize));
        let nothing = std::fs::File::open("/dev/null")?.into();
        Ok(Self { settings, choice, shared, places, waiting: AtomicUsize::new(0), nothing })
    }

    async fn answer(&self, mut request: Request) -> Result<Outcome, HandlerError> {
        if request.notes.id == RequestId::None {
            // Its standard error is told apart by it.
            request.notes.id = RequestId::next();
        }
        let invocation = match self.choice.way(&request).await {
            Way::Run(invocation) => *invocation,
            Way::Decline => return Ok(Outcome::Decline(request)),
            Way::Refuse(error) => return Err(error),
        };
        request.interim.follow_client();
        let begun = Instant::now();
        let input = Input::gather(std::mem::replace(&mut request.body, RequestBody::Empty), &self.shared.spool).await?;
        let waited = Instant::now();
        let trace = request.notes.trace.clone();
        let note = |handed: Option<Instant>| {
            if let Some(trace) = &trace {
                trace.note(|steps| (steps.queued, steps.handed) = (Some(waited), handed));
            }
        };
        note(None);
        let places = self.take_places(&invocation).await?;
        let queue = waited.elapsed();
        note(Some(waited + queue));
        let mut process = self.start(&invocation, &request, &input, places).await?;
        let head = read_head(&mut process, invocation.is_nph(), &request.interim);
        let timeout = request.timeout.unwrap_or(self.settings.timeout);
        let head = tokio::time::timeout(timeout, head).await.unwrap_or(Err(NoHead::Late));
        let head = head.map_err(|error| self.explain(&invocation, &error, begun))?;
        process.set_idle(self.settings.stream_idle);
        match head {
            Head::Document(document) => {
                let timing = Timing { queue: Some(queue), application: Some(waited.elapsed().saturating_sub(queue)) };
                let name = format!("{}: {}", request.notes.id, invocation.script.display());
                let sends_file = self.sends_file(&document, &request, &invocation)?;
                if sends_file {
                    return Ok(Outcome::Response(named(document, process, timing)));
                }
                let response = respond(document, process, name, request.head.method()).await;
                Ok(Outcome::Response(Response { timing, ..response }))
            }
            Head::Local { path, query } => {
                process.finish_alone();
                let redirected = request.redirected(&path, query.as_deref());
                redirected.map(|other| Outcome::Redirect(Box::new(other))).map_err(|error| {
                    let message = format!(
                        "{}: its local redirect to `{}` leads nowhere: {error}",
                        invocation.script.display(),
                        path.escape_ascii()
                    );
                    HandlerError::new(Status::INTERNAL_SERVER_ERROR, Fault::Worker, message)
                })
            }
        }
    }

    /// Whether the answer is a file that whoever holds us sends. Without folders to send from it is none, unless a
    /// proxy in front of us may be meant: to anybody else the field would show a path.
    fn sends_file(&self, document: &Document, request: &Request, by: &Invocation) -> Result<bool, HandlerError> {
        let names_file = SENT.iter().any(|name| document.fields.get(name).is_some());
        if names_file && self.settings.sendfile.is_empty() && !self.shared.trusted.trusts(&request.endpoint) {
            let message = format!(
                "{}: the answer names a file (X-Sendfile or X-Accel-Redirect), and the route's `cgi` has no `sendfile` \
                 that says from which folders files may be sent",
                by.script.display()
            );
            return Err(HandlerError::new(Status::INTERNAL_SERVER_ERROR, Fault::Worker, message));
        }
        Ok(names_file && !self.settings.sendfile.is_empty() && matches!(document.status.code(), 200..=299))
    }

    /// A place among the route's processes and among all.
    async fn take_places(&self, invocation: &Invocation) -> Result<[OwnedSemaphorePermit; 2], HandlerError> {
        let full = |why: String| {
            let message = format!("{}: {why}", invocation.script.display());
            let mut error = HandlerError::new(Status::SERVICE_UNAVAILABLE, Fault::Server, message);
            error.retry_after = Some(RETRY_AFTER);
            error
        };
        let both = async {
            // The route's first: a route that is full must not keep the places of all.
            let own = Arc::clone(&self.places).acquire_owned().await;
            let all = Arc::clone(&self.shared.places).acquire_owned().await;
            Some([own.ok()?, all.ok()?])
        };
        if self.places.available_permits() == 0 && self.waiting.load(Ordering::Relaxed) >= self.settings.queue_max {
            let most = self.settings.queue_max;
            return Err(full(format!("{most} requests wait already for one of `max_processes` (`queue.max`)")));
        }
        let _one = Waiting::new(&self.waiting);
        let Ok(places) = tokio::time::timeout(self.settings.queue_timeout, both).await else {
            let seconds = self.settings.queue_timeout.as_secs_f32();
            return Err(full(format!("no place among `max_processes` was free within {seconds} s (`queue.timeout`)")));
        };
        places.ok_or_else(|| full("the server is stopping".to_owned()))
    }

    async fn start(
        &self,
        invocation: &Invocation,
        request: &Request,
        input: &Input,
        places: [OwnedSemaphorePermit; 2],
    ) -> Result<Process, HandlerError> {
        let failed = |error: std::io::Error| {
            let message = format!("{}: cannot be started: {error}", invocation.script.display());
            let mut error = HandlerError::new(Status::SERVICE_UNAVAILABLE, Fault::Server, message);
            error.retry_after = Some(RETRY_AFTER);
            error
        };
        let pipes = Pipes::new().map_err(failed)?;
        let start = invocation.start(&self.settings, request, input.length, &self.shared.trusted);
        let standard = standard(input.descriptor(&self.nothing), &pipes);
        let started = self.shared.client.start(&start, standard, Box::new(places)).await;
        let running = started.map_err(|error| self.explain(invocation, &NoHead::Failed(error), Instant::now()))?;
        let deadlines = Deadlines { idle: self.settings.total_timeout, total: self.settings.total_timeout };
        let name = format!("{}: {}", request.notes.id, invocation.script.display());
        let log = (self.shared.errors.clone(), name);
        let Pipes { output, error } = pipes;
        Ok(Process::new(running, output.0, error.0, deadlines, log))
    }

    /// The status and the line of the log for a program that gave no head.
    fn explain(&self, invocation: &Invocation, error: &NoHead, begun: Instant) -> HandlerError {
        let script = invocation.script.display();
        let (status, message) = match error {
            NoHead::Failed(error) => {
                let program =
                    (invocation.is_script && !invocation.interpreter.is_empty()).then(|| invocation.program());
                let status = match error {
                    LaunchError::Start { .. } => Status::INTERNAL_SERVER_ERROR,
                    LaunchError::TooLong => Status::FIELDS_TOO_LARGE,
                    LaunchError::NoLauncher => Status::BAD_GATEWAY,
                };
                let beginning = self.choice.beginning(&invocation.script);
                let why = Why { path: &invocation.script, program, beginning: beginning.as_deref(), error };
                (status, why.to_string())
            }
            NoHead::Late => {
                let seconds = begun.elapsed().as_secs_f32();
                (Status::GATEWAY_TIMEOUT, format!("{script}: {error} (it ran for {seconds:.1} s), and was ended"))
            }
            NoHead::Ended { ending: Some(ending), .. } if ending.code.is_none() && ending.signal.is_none() => {
                (Status::BAD_GATEWAY, format!("{script}: {error}"))
            }
            NoHead::Ended { .. } | NoHead::Invalid { .. } => {
                // A first line that ends with CR is the usual reason for a program that `env` does not find.
                let own = self.choice.beginning(&invocation.script).filter(|_| invocation.interpreter.is_empty());
                let known = own.and_then(|beginning| faults::fault_of_beginning(&beginning));
                let hint = known.map(|fault| format!("; {}", fault.told(&invocation.script))).unwrap_or_default();
                (Status::INTERNAL_SERVER_ERROR, format!("{script}: {error}{hint}"))
            }
        };
        let fault = if status == Status::BAD_GATEWAY { Fault::Server } else { Fault::Worker };
        HandlerError::new(status, fault, message)
    }
}

impl Handler for Cgi {
    fn handle(&self, request: Request) -> Answering<'_> {
        Box::pin(self.answer(request))
    }
}

/// Counts a request that waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer whose body is a file's. The program comes to its end.
fn named(document: Document, mut process: Process, timing: Timing) -> Response {
    let Document { status, reason, fields, .. } = document;
    process.buffer.clear();
    process.finish_alone();
    Response { status, reason, fields, body: ResponseBody::Empty, timing }
}

async fn respond(document: Document, mut process: Process, name: String, method: Method) -> Response {
    let Document { status, reason, fields, content_length, is_chunked } = document;
    let body = if method == Method::Head || status.is_bodiless() {
        // A program that does more than answer comes to its end.
        process.buffer.clear();
        process.finish_alone();
        content_length.map_or_else(|| ResponseBody::Stream(Box::pin(Untold)), ResponseBody::LengthOnly)
    } else if content_length.is_none() && !is_chunked && process.settle().await {
        ResponseBody::Full(process.buffer.split().freeze())
    } else {
        ResponseBody::Stream(Box::pin(OutputBody::new(process, name, content_length, is_chunked)))
    };
    Response { status, reason, fields, body, timing: Timing::default() }
}
