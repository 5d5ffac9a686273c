//! The door of an upstream: a request in, a server's answer out.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::ahead::Ahead;
use super::exchange::{Answer, Outbound};
use super::hedge::{Hedging, ask, hedged};
use super::payload::Payload;
use super::script::{Aim, Choice, Chooser};
use super::settings::ScriptSettings;
use super::told::{cookie, rewrite_cookies, rewrite_location, set_cookie};
use super::traced;
use crate::gateway::{Forwarding, Spool, TrustedProxies};
use crate::handler::{Answering, Fault, Handler, HandlerError, Outcome};
use crate::http::{Request, RequestBody, Response, ResponseBody, Status, Timing, Version};
use crate::telemetry::ErrorLogger;
use crate::upstream::{Balance, Failure, FailureKind, Group, HashKey, NoServer, Place, ResponseBuffering, Wanted};

/// Seconds after which a client may try again where no server was free.
const RETRY_AFTER: u32 = 1;

/// Sends requests to the servers of one upstream.
pub struct Proxy {
    group: Arc<Group>,
    spool: Arc<Spool>,
    trusted: TrustedProxies,
    errors: ErrorLogger,
    /// What its servers run, where that are scripts.
    chooser: Option<Chooser>,
}

/// What a handler works with.
pub struct Means {
    /// Holds bodies.
    pub spool: Arc<Spool>,
    /// Whose word about a client counts.
    pub trusted: TrustedProxies,
    /// Where complaints go.
    pub errors: ErrorLogger,
}

/// What a server is chosen by, as bytes of its own.
#[derive(Default)]
struct Chosen {
    key: Vec<u8>,
    cookie: Option<Vec<u8>>,
}

impl Proxy {
    /// A handler in front of `group`.
    pub fn new(group: Arc<Group>, means: Means) -> Self {
        let Means { spool, trusted, errors } = means;
        Self { group, spool, trusted, errors, chooser: None }
    }

    /// The same for servers that run scripts, or are told more. `folder` is the opened root, where there is one.
    #[must_use]
    pub fn with_scripts(mut self, settings: ScriptSettings, folder: Option<OwnedFd>) -> Self {
        self.chooser = Some(Chooser::new(settings, folder));
        self
    }

    async fn answer(&self, mut request: Request) -> Result<Outcome, HandlerError> {
        let aim = match &self.chooser {
            None => Aim::Application,
            Some(chooser) => match chooser.aim(&request).await {
                Choice::Decline => return Ok(Outcome::Decline(request)),
                Choice::Refuse(error) => return Err(error),
                Choice::Ask(aim) => aim,
            },
        };
        request.interim.follow_client();
        let begun = Instant::now();
        let due = request.timeout.map(|timeout| begun + timeout);
        let body = std::mem::replace(&mut request.body, RequestBody::Empty);
        let streams = request.notes.streams_body && self.may_stream(&body);
        let (mut payload, trailers) = Payload::of(body, streams, &self.spool).await?;
        let upgrade = upgrade(&request, &payload).map(<[u8]>::to_vec);
        let chosen = self.chosen(&request);
        let wanted = Wanted { key: &chosen.key, cookie: chosen.cookie.as_deref() };
        let gathered = Instant::now();
        traced::queued(&request, gathered);
        let mut place = self.group.place(&wanted).await.map_err(|error| self.no_server(error))?;
        let queue = gathered.elapsed();
        let mut tried = Vec::new();
        loop {
            let serving = Arc::clone(place.serving());
            traced::asks(&request, gathered + queue, &place);
            let outbound = Outbound {
                request: &request,
                payload: &mut payload,
                trailers: trailers.as_ref(),
                trusted: &self.trusted,
                upgrade: upgrade.as_deref(),
                due,
                aim: &aim,
                params: self.chooser.as_ref().map_or(&[], |chooser| &chooser.settings.params),
                errors: &self.errors,
            };
            let may_hedge = request.head.method().is_idempotent() && outbound.upgrade.is_none();
            let hedge = serving.settings.hedge.filter(|_| may_hedge);
            let asked = match hedge.and_then(|after| Some((after, outbound.payload.again()?))) {
                None => ask(place, outbound).await,
                Some((after, payload)) => {
                    let hedging = Hedging { group: &self.group, wanted, after, payload, tried: &mut tried };
                    Box::pin(hedged(place, outbound, hedging)).await
                }
            };
            let (mut failed, failure) = match asked {
                Ok((Answer::Local { path, query }, _)) => return self.redirect(&request, &path, query.as_deref()),
                Ok((Answer::Response(mut response), server)) => {
                    traced::answered(&request, &server);
                    let scheme = || Forwarding::of(&request, &self.trusted).scheme;
                    if serving.settings.rewrite_location && response.fields.get("location").is_some() {
                        rewrite_location(&mut response.fields, &server, &request, scheme());
                    }
                    if serving.settings.rewrite_cookies {
                        rewrite_cookies(&mut response.fields, &server, &request);
                    }
                    if let Some(cookie) = self.group.cookie(&serving, &server, wanted.cookie) {
                        set_cookie(&mut response.fields, &cookie, scheme());
                    }
                    self.buffer(&mut response, serving.settings.response_buffering);
                    response.timing = Timing { queue: Some(queue), application: Some(begun.elapsed()) };
                    return Ok(Outcome::Response(response));
                }
                Err(failed) => failed,
            };
            if failure.kind != FailureKind::Client {
                failed.fail();
            }
            place = self.another(
                failed,
                &failure,
                &mut tried,
                &Retrying { request: &request, payload: &payload, wanted, due },
            )?;
        }
    }

    /// Has an answer read ahead of its client, unless its server says that it is not to be.
    fn buffer(&self, response: &mut Response, buffering: Option<ResponseBuffering>) {
        let Some(buffering) = buffering.filter(|_| matches!(response.body, ResponseBody::Stream(_))) else { return };
        if response.fields.get("x-accel-buffering").is_some_and(|said| said.eq_ignore_ascii_case(b"no")) {
            return;
        }
        if let ResponseBody::Stream(body) = std::mem::replace(&mut response.body, ResponseBody::Empty) {
            response.body = ResponseBody::Stream(Box::pin(Ahead::new(body, buffering, &self.spool)));
        }
    }

    /// Whether a body can be sent as it comes: a gateway protocol says its length first.
    fn may_stream(&self, body: &RequestBody) -> bool {
        body.length().is_some() || self.group.serving().settings.servers.iter().all(|server| server.scheme.is_http())
    }

    /// Carries a local redirect out.
    fn redirect(&self, request: &Request, path: &[u8], query: Option<&[u8]>) -> Result<Outcome, HandlerError> {
        let redirected = request.redirected(&Bytes::copy_from_slice(path), query);
        redirected.map(|other| Outcome::Redirect(Box::new(other))).map_err(|error| {
            let (name, path) = (self.group.name(), path.escape_ascii());
            let message = format!("upstream {name}: a local redirect to `{path}` leads nowhere: {error}");
            HandlerError::new(Status::BAD_GATEWAY, Fault::Worker, message)
        })
    }

    /// A place at another server, or the failure, where that is not safe or there is none.
    fn another(
        &self,
        failed: Place,
        failure: &Failure,
        tried: &mut Vec<Arc<crate::upstream::Server>>,
        retrying: &Retrying<'_>,
    ) -> Result<Place, HandlerError> {
        let most = failed.serving().settings.retries as usize;
        tried.push(Arc::clone(failed.server()));
        drop(failed);
        let is_safe = !failure.sent || retrying.request.head.method().is_idempotent() && !failure.received;
        let may_retry = is_safe
            && failure.kind != FailureKind::Client
            && retrying.payload.is_at_hand()
            && tried.len() <= most
            && retrying.due.is_none_or(|due| due > Instant::now());
        let place = if may_retry { self.group.another(&retrying.wanted, tried) } else { None };
        place.ok_or_else(|| self.failed(failure))
    }

    fn chosen(&self, request: &Request) -> Chosen {
        let serving = self.group.serving();
        let settings = &serving.settings;
        let key = match &settings.balance {
            Balance::Hash(HashKey::Client) => match self.trusted.client(&request.head, &request.endpoint) {
                Some(IpAddr::V4(address)) => address.octets().to_vec(),
                Some(IpAddr::V6(address)) => address.octets().to_vec(),
                None => Vec::new(),
            },
            Balance::Hash(HashKey::Header(name)) => request.head.field(name).unwrap_or_default().to_vec(),
            Balance::Hash(HashKey::Cookie(name)) => cookie(request, name).unwrap_or_default().to_vec(),
            Balance::RoundRobin | Balance::LeastConnections | Balance::RandomTwo => Vec::new(),
        };
        let sticky = settings.sticky.as_ref().and_then(|sticky| cookie(request, &sticky.cookie));
        Chosen { key, cookie: sticky.map(<[u8]>::to_vec) }
    }

    fn no_server(&self, error: NoServer) -> HandlerError {
        let message = format!("upstream {}: {error}", self.group.name());
        let mut error = HandlerError::new(Status::SERVICE_UNAVAILABLE, Fault::Worker, message);
        error.retry_after = Some(RETRY_AFTER);
        error
    }

    fn failed(&self, failure: &Failure) -> HandlerError {
        let (status, fault) = match failure.kind {
            FailureKind::Connect | FailureKind::Broken => (Status::BAD_GATEWAY, Fault::Worker),
            FailureKind::Timeout => (Status::GATEWAY_TIMEOUT, Fault::Worker),
            FailureKind::Client => (Status::BAD_REQUEST, Fault::Client),
        };
        HandlerError::new(status, fault, format!("upstream {}: {failure}", self.group.name()))
    }
}

impl Handler for Proxy {
    fn handle(&self, request: Request) -> Answering<'_> {
        Box::pin(self.answer(request))
    }

    fn may_decline(&self) -> bool {
        // A local redirect counts as one.
        self.chooser.is_some() || self.group.serving().settings.servers.iter().any(|server| !server.scheme.is_http())
    }
}

/// What decides whether a request may be tried again.
struct Retrying<'a> {
    request: &'a Request,
    payload: &'a Payload,
    wanted: Wanted<'a>,
    due: Option<Instant>,
}

/// The protocol that a client wants to change to. Never HTTP/2: whoever got through to it could ask what no rule of ours
/// would see.
fn upgrade<'a>(request: &'a Request, payload: &Payload) -> Option<&'a [u8]> {
    let head = &request.head;
    let asks = head
        .field_values("connection")
        .flat_map(|value| value.split(|&byte| byte == b','))
        .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
    let protocol = head.field("upgrade").filter(|_| asks)?;
    let is_one = !protocol.is_empty() && !protocol.contains(&b',') && !protocol.to_ascii_lowercase().starts_with(b"h2");
    (is_one && head.version() == Version::Http11 && matches!(payload, Payload::None)).then_some(protocol)
}
