//! The filters of a route around its handler, in their order.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::access::AccessSettings;
use super::basic_auth::BasicAuth;
use super::cache::Caching;
use super::compress::Compressing;
use super::early_hints::{EarlyHints, Hinting};
use super::errors::ErrorPages;
use super::headers::HeaderSettings;
use super::kept::Kept;
use super::rate_limit::{Limiter, RateLimitSettings};
use super::rewrite::Rewrite;
use super::settings::FilterSettings;
use crate::handler::{Answering, Dress, Fault, Handler, HandlerError, Outcome};
use crate::http::{CanonicalPath, HeadEdit, Request, RequestHead, RequestId, Response, Scheme, Status, TrustedProxies};

/// A handler behind its route's filters.
pub struct Filtered {
    access: Option<AccessSettings>,
    rate_limit: Option<(RateLimitSettings, Arc<Limiter>)>,
    trusted: TrustedProxies,
    basic_auth: Option<BasicAuth>,
    max_body: Option<u64>,
    timeout: Option<Duration>,
    streams_body: bool,
    rewrite: Option<Rewrite>,
    strip_prefix: Option<Bytes>,
    behind: Arc<Behind>,
    /// The handler, behind `early_hints`, `compress` and `cache`.
    next: Arc<dyn Handler>,
}

/// What is done to answers.
#[derive(Debug)]
struct Behind {
    errors: Option<ErrorPages>,
    headers: Option<HeaderSettings>,
    server_timing: bool,
}

/// What of a request still counts when its answer is there.
#[derive(Clone, Debug)]
struct Visit {
    id: RequestId,
    origin: Option<Bytes>,
    scheme: Scheme,
    received: Instant,
}

impl Filtered {
    /// Puts the filters before `handler`. Where there are none, that is the handler itself. `route` names the route
    /// across reloads. The error says which setting cannot be used.
    pub fn wrap(
        settings: &FilterSettings,
        handler: Arc<dyn Handler>,
        trusted: &TrustedProxies,
        (kept, route): (&Kept, &str),
    ) -> Result<Arc<dyn Handler>, String> {
        if *settings == FilterSettings::default() {
            return Ok(handler);
        }
        let mut next = handler;
        if settings.early_hints.as_ref().is_some_and(|hints| hints.value == EarlyHints::Learn) {
            next = Arc::new(Hinting::new(next));
        }
        if let Some(compress) = &settings.compress {
            next = Arc::new(Compressing::new(compress.value.clone(), next));
        }
        if let Some(cache) = &settings.cache {
            let store = kept.store(route, &(&cache.value, &settings.compress.as_ref().map(|placed| &placed.value)));
            next = Arc::new(Caching::new(cache.value.clone(), store, next));
        }
        let rate_limit = settings.rate_limit.as_ref().map(|placed| &placed.value);
        Ok(Arc::new(Self {
            access: settings.access.as_ref().map(|access| access.value.clone()),
            rate_limit: rate_limit.map(|settings| (settings.clone(), kept.limiter(route, settings))),
            trusted: trusted.clone(),
            basic_auth: settings.basic_auth.as_ref().map(|auth| BasicAuth::new(&auth.value)).transpose()?,
            max_body: settings.max_body.as_ref().map(|max| max.value),
            timeout: settings.timeout.as_ref().map(|timeout| timeout.value),
            streams_body: settings.request_buffering.as_ref().is_some_and(|buffering| !buffering.value),
            rewrite: settings.rewrite.as_ref().map(|rewrite| Rewrite::new(&rewrite.value)).transpose()?,
            strip_prefix: settings.strip_prefix.as_ref().map(|prefix| prefix.value.clone().into()),
            behind: Arc::new(Behind {
                errors: settings.errors.as_ref().map(|errors| errors.value.clone()),
                headers: settings.headers.as_ref().map(|headers| headers.value.clone()),
                server_timing: settings.server_timing.as_ref().is_some_and(|timing| timing.value),
            }),
            next,
        }))
    }

    async fn run(&self, request: Request) -> Result<Outcome, HandlerError> {
        let visit = Visit::of(&request);
        match self.answer(request).await {
            Ok(Outcome::Response(mut response)) => {
                self.behind.finish(&mut response, &visit, false);
                Ok(Outcome::Response(response))
            }
            Ok(other) => Ok(other),
            Err(error) => {
                let behind = Arc::clone(&self.behind);
                Err(error.dressed(Dress::new(move |page| behind.finish(page, &visit, true))))
            }
        }
    }

    /// The filters before the handler, in the order that the module's page tells.
    async fn answer(&self, mut request: Request) -> Result<Outcome, HandlerError> {
        if self.access.is_some() || self.rate_limit.is_some() {
            self.admit(&request)?;
        }
        let headers = self.behind.headers.as_ref();
        if let Some(preflight) = headers.and_then(|headers| headers.cors.as_ref()?.preflight(&request.head)) {
            return Ok(Outcome::Response(preflight));
        }
        if let Some(auth) = &self.basic_auth {
            request.notes.user = Some(auth.authenticate(&request.head).await?);
        }
        self.hold_to_limits(&mut request)?;
        let sent = (request.head.clone(), request.path.clone());
        if let Some(rewrite) = &self.rewrite {
            rewrite.apply(&mut request)?;
        }
        if let Some(prefix) = &self.strip_prefix {
            strip(prefix, &mut request);
        }
        if let Some(headers) = headers {
            request.head = with_fields(request.head, headers);
            if headers.changes_requests() {
                request.body.withhold_trailers();
            }
        }
        let mut outcome = self.next.handle(request).await?;
        if let Outcome::Decline(declined) = &mut outcome {
            // For the next route it is the request that was sent.
            (declined.head, declined.path) = sent;
            declined.notes.script_name = Bytes::new();
        }
        Ok(outcome)
    }

    fn admit(&self, request: &Request) -> Result<(), HandlerError> {
        let client = self.trusted.client(&request.head, &request.endpoint);
        if let Some(access) = &self.access
            && !access.lets_in(client)
        {
            return Err(HandlerError::new(Status::FORBIDDEN, Fault::Client, format!("{} may not", told(client))));
        }
        if let Some((settings, limiter)) = &self.rate_limit
            && let Err(wait) = limiter.count(settings, &request.head, client, request.received)
        {
            let message = format!("{} asks more often than {}", told(client), settings.rate);
            let error = HandlerError::new(Status::TOO_MANY_REQUESTS, Fault::Client, message);
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            return Err(HandlerError { retry_after: Some(seconds.min(u64::from(u32::MAX)) as u32), ..error });
        }
        Ok(())
    }

    fn hold_to_limits(&self, request: &mut Request) -> Result<(), HandlerError> {
        request.timeout = self.timeout.or(request.timeout);
        request.notes.streams_body |= self.streams_body;
        match self.max_body {
            Some(most) if !request.body.limit(most) => {
                let message =
                    format!("the body is longer than the {most} bytes of the `max_body` that holds for the route");
                Err(HandlerError::new(Status::CONTENT_TOO_LARGE, Fault::Client, message))
            }
            _ => Ok(()),
        }
    }
}

impl Handler for Filtered {
    fn handle(&self, request: Request) -> Answering<'_> {
        Box::pin(self.run(request))
    }

    fn may_decline(&self) -> bool {
        self.next.may_decline()
    }
}

// === impl Visit ===

impl Visit {
    fn of(request: &Request) -> Self {
        Self {
            id: request.notes.id.clone(),
            origin: request.head.field("origin").map(Bytes::copy_from_slice),
            scheme: request.scheme(),
            received: request.received,
        }
    }
}

// === impl Behind ===

impl Behind {
    /// `is_ours` where no handler made the answer.
    fn finish(&self, response: &mut Response, visit: &Visit, is_ours: bool) {
        if let Some(errors) = &self.errors {
            errors.apply(response, &visit.id, is_ours);
        }
        if let Some(headers) = &self.headers {
            headers.apply(response, visit.origin.as_ref(), visit.scheme);
        }
        if self.server_timing {
            let timing = server_timing(response, visit.received.elapsed());
            response.fields.push(&b"Server-Timing"[..], timing);
        }
    }
}

/// `queue;dur=0.1, app;dur=12.3, total;dur=13.0`, in milliseconds (the W3C's Server Timing).
fn server_timing(response: &Response, total: Duration) -> String {
    let times = [("queue", response.timing.queue), ("app", response.timing.application), ("total", Some(total))];
    let told = times.iter().filter_map(|(name, time)| Some((name, (*time)?)));
    let told: Vec<String> = told.map(|(name, time)| format!("{name};dur={:.3}", time.as_secs_f64() * 1000.0)).collect();
    told.join(", ")
}

fn told(client: Option<IpAddr>) -> String {
    client.map_or_else(|| "a client on a Unix socket".to_owned(), |client| client.to_string())
}

fn with_fields(head: RequestHead, headers: &HeaderSettings) -> RequestHead {
    if !headers.changes_requests() {
        return head;
    }
    let remove: Vec<&str> = headers.request_remove.iter().map(String::as_str).collect();
    let set: Vec<(&[u8], &[u8])> =
        headers.request_set.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    head.edited(&HeadEdit { path: None, remove: &remove, set: &set })
}

/// Moves a prefix of the path into `SCRIPT_NAME`. The path that was sent is cut where it begins with just these bytes;
/// otherwise (`/%61pp/x`, `//app/x`) its canonical form is.
fn strip(prefix: &Bytes, request: &mut Request) {
    let Some(rest) = request.path.as_bytes().strip_prefix(&prefix[..]) else { return };
    if !rest.is_empty() && !rest.starts_with(b"/") {
        return;
    }
    let raw = request.head.raw_path().strip_prefix(&prefix[..]).filter(|raw| raw.starts_with(b"/"));
    let raw = raw.map_or_else(|| CanonicalPath::encode(rest, request.path.has_encoded_slash()), <[u8]>::to_vec);
    let raw = if raw.is_empty() { b"/".to_vec() } else { raw };
    let query = request.head.query().map(<[u8]>::to_vec);
    let Ok(path) = CanonicalPath::parse(&Bytes::copy_from_slice(&raw)) else { return };
    let edit = HeadEdit { path: Some((&raw, query.as_deref())), ..HeadEdit::default() };
    request.head = request.head.edited(&edit);
    request.path = path;
    request.prefix_length = request.prefix_length.saturating_sub(prefix.len()).max(1);
    request.notes.script_name = prefix.clone();
}
