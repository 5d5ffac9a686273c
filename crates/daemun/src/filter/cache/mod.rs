//! `cache`: answers of a handler, kept in memory for a while (RFC 9111).
//!
//! 1. What is not asked with GET or HEAD, or is for one client only, passes by; a method that changes something makes
//!    the cache forget its URL.
//! 2. A fresh answer is given from memory. One that is stale a little is too, while it is asked for anew behind it.
//! 3. Otherwise one request goes to the handler and the others for the same URL wait for it: with `If-None-Match` where
//!    a stale answer is there, so that a 304 makes it fresh again.
//! 4. What may be kept is kept as it streams by ([`rules`], [`store`]). Where the handler fails a stale answer helps out.
//! 5. The client's own conditions are answered here; `Age` and `Cache-Status` (RFC 9211) tell what happened.
//!
//! A client's `no-cache` does not reach through, as with nginx: the cache stands for the handler, and protects it.

mod rules;
mod store;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::handler::{Answering, Fault, Handler, HandlerError, Outcome};
use crate::http::{
    BodyError, BodyStream, Fields, HeadEdit, Interim, Method, Request, RequestBody, RequestHead, Response,
    ResponseBody, Status,
};
use store::{Flight, Stored, Turn};

pub(in crate::filter) use store::Store;

/// What is kept, and how long.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CacheSettings {
    /// Bytes of all answers of the route.
    pub max: u64,
    /// Bytes of one.
    pub max_object: u64,
    /// How long answers are kept that do not say it themselves; `None`: not at all.
    pub ttl: Option<Duration>,
    /// How long answers that do not say it themselves may be used when they are no longer fresh: while they are asked
    /// for anew, and where that fails.
    pub stale: Duration,
    /// Whether answers to requests with `Authorization`, or of authenticated users, are kept: for all of them alike.
    pub authorization: bool,
    /// Whether answers that set cookies are kept.
    pub set_cookie: bool,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            max: 64 << 20,
            max_object: 1 << 20,
            ttl: None,
            stale: Duration::ZERO,
            authorization: false,
            set_cookie: false,
        }
    }
}

impl CacheSettings {
    pub(super) fn describe(&self) -> String {
        let ttl =
            self.ttl.map_or("as long as answers say".to_owned(), |ttl| format!("{ttl:?} where answers say nothing"));
        format!("{ttl}, at most {} bytes", self.max)
    }
}

/// What `Cache-Status` says of nearly every answer from memory.
const HIT: &str = "hit";

/// How long a request waits for one that is on its way, before it goes itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// A handler whose answers are kept.
#[derive(Clone)]
pub(super) struct Caching {
    settings: CacheSettings,
    store: Arc<Store>,
    next: Arc<dyn Handler>,
}

impl Handler for Caching {
    fn handle(&self, request: Request) -> Answering<'_> {
        Box::pin(self.run(request))
    }

    fn may_decline(&self) -> bool {
        self.next.may_decline()
    }
}

impl Caching {
    pub(super) fn new(settings: CacheSettings, store: Arc<Store>, next: Arc<dyn Handler>) -> Self {
        Self { settings, store, next }
    }

    async fn run(&self, request: Request) -> Result<Outcome, HandlerError> {
        let method = request.head.method();
        if !matches!(method, Method::Get | Method::Head) {
            return self.change(request).await;
        }
        if !self.is_for_all(&request) {
            return self.forward(request, "fwd=bypass").await;
        }
        let key = key(&request);
        if let Some(stored) = self.store.find(&key, &request.head) {
            match stored.left(request.received) {
                Ok(_) => return Ok(given(&stored, &request.head, request.received, HIT)),
                Err(late) if late < stored.lifetime.revalidating && method == Method::Get => {
                    if let Turn::Yours(flight) = self.store.turn(&key.into(), request.received) {
                        self.ask_behind(&request, &stored, flight);
                    }
                    return Ok(given(&stored, &request.head, request.received, HIT));
                }
                Err(_) => {}
            }
        }
        if method == Method::Head {
            return self.forward(request, "fwd=uri-miss").await;
        }
        // Apart, so that what is kept already has no room for the way to the handler.
        Box::pin(self.miss(request, key.into())).await
    }

    /// Nothing is kept that is fresh: asks the handler, or waits for whoever does.
    async fn miss(&self, request: Request, key: Bytes) -> Result<Outcome, HandlerError> {
        let head = request.head.clone();
        match self.store.turn(&key, request.received) {
            Turn::Yours(flight) => self.ask(request, &key, Some(flight)).await,
            Turn::Alone => self.ask(request, &key, None).await,
            Turn::Wait(mut done) => {
                // It ends with an error: whoever was on the way never says anything but goes.
                let _ = tokio::time::timeout(PATIENCE, done.changed()).await;
                let now = Instant::now();
                match self.store.find(&key, &head).filter(|stored| stored.left(now).is_ok()) {
                    Some(stored) => Ok(given(&stored, &head, now, "hit; collapsed")),
                    None => self.ask(request, &key, None).await,
                }
            }
        }
    }

    /// Whether the answer would be the same for everybody.
    fn is_for_all(&self, request: &Request) -> bool {
        let is_personal = request.head.field("authorization").is_some() || request.notes.user.is_some();
        matches!(request.body, RequestBody::Empty)
            && request.head.field("range").is_none()
            && (self.settings.authorization || !is_personal)
    }

    async fn forward(&self, request: Request, told: &str) -> Result<Outcome, HandlerError> {
        let mut outcome = self.next.handle(request).await?;
        if let Outcome::Response(response) = &mut outcome {
            tell(&mut response.fields, told);
        }
        Ok(outcome)
    }

    /// What changes something makes what is kept of it wrong (RFC 9111, section 4.4).
    async fn change(&self, request: Request) -> Result<Outcome, HandlerError> {
        let is_safe = matches!(request.head.method(), Method::Options | Method::Trace);
        let key = key(&request);
        let outcome = self.forward(request, "fwd=method").await?;
        if let Outcome::Response(response) = &outcome
            && !is_safe
            && (200..400).contains(&response.status.code())
        {
            self.store.forget(&key);
        }
        Ok(outcome)
    }

    /// Asks the handler, keeps what may be kept, and answers.
    async fn ask(&self, mut request: Request, key: &Bytes, flight: Option<Flight>) -> Result<Outcome, HandlerError> {
        let head = request.head.clone();
        let stored = self.store.find(key, &head);
        request.head = unconditional(&head, stored.as_deref());
        let helped = |now: Instant| {
            let stored = stored.as_ref()?;
            let late = stored.left(now).err().unwrap_or_default();
            (late < stored.lifetime.on_error).then(|| given(stored, &head, now, "hit; fwd=stale; fwd-status=error"))
        };
        let response = match self.next.handle(request).await {
            Ok(Outcome::Response(response)) => response,
            Ok(Outcome::Decline(mut declined)) => {
                declined.head = head;
                self.store.pass(key, Instant::now());
                return Ok(Outcome::Decline(declined));
            }
            Ok(other @ Outcome::Redirect(_)) => return Ok(other),
            Err(error) => {
                let is_client = error.fault == Fault::Client;
                return helped(Instant::now()).filter(|_| !is_client).ok_or(error);
            }
        };
        let now = Instant::now();
        if response.status.code() >= 500
            && let Some(outcome) = helped(now)
        {
            return Ok(outcome);
        }
        if let (Status::NOT_MODIFIED, Some(stored)) = (response.status, &stored) {
            let stored = self.renew(key, stored, &response, &head);
            return Ok(given(&stored, &head, now, "hit; fwd=stale; fwd-status=304"));
        }
        let mut response = self.keep(key, response, &head, flight);
        if response.status == Status::OK && matches(&head, &response.fields) {
            not_modified(&mut response);
        }
        Ok(Outcome::Response(response))
    }

    /// A stored answer that is still right, with what the 304 said (RFC 9111, section 4.3.4).
    fn renew(&self, key: &Bytes, stored: &Stored, response: &Response, head: &RequestHead) -> Arc<Stored> {
        const OF_THE_BODY: [&[u8]; 4] = [b"content-length", b"content-encoding", b"content-type", b"content-range"];
        let mut fields = stored.fields.clone();
        let told = |name: &[u8]| !OF_THE_BODY.iter().any(|other| name.eq_ignore_ascii_case(other));
        for field in response.fields.iter().filter(|field| told(field.name())) {
            fields.remove(&String::from_utf8_lossy(field.name()));
        }
        for field in response.fields.iter().filter(|field| told(field.name())) {
            fields.push(Bytes::copy_from_slice(field.name()), Bytes::copy_from_slice(field.value()));
        }
        let whole = Response::new(stored.status).with_fields(fields);
        let lifetime = rules::lifetime(&whole, &self.settings, SystemTime::now()).unwrap_or(rules::Lifetime {
            fresh: Duration::ZERO,
            revalidating: Duration::ZERO,
            on_error: Duration::ZERO,
        });
        let parts = (stored.status, whole.fields, stored.body.clone());
        self.store.keep(key, Stored::new(parts, lifetime, Instant::now(), head), self.settings.max)
    }

    /// Keeps the answer: at once where it is whole, else as it streams by.
    fn keep(&self, key: &Bytes, mut response: Response, head: &RequestHead, flight: Option<Flight>) -> Response {
        let now = Instant::now();
        let lifetime = rules::lifetime(&response, &self.settings, SystemTime::now());
        let length = match &response.body {
            ResponseBody::Empty => Some(0),
            ResponseBody::Full(bytes) => Some(bytes.len() as u64),
            ResponseBody::Stream(stream) => stream.length().or(Some(0)),
            // A file is at hand as it is.
            ResponseBody::File(_) | ResponseBody::LengthOnly(_) | ResponseBody::Tunnel(_) => None,
        };
        let (Some(lifetime), Some(_)) = (lifetime, length.filter(|&length| length <= self.settings.max_object)) else {
            self.store.pass(key, now);
            tell(&mut response.fields, "fwd=uri-miss");
            return response;
        };
        let parts = (response.status, response.fields.clone());
        tell(&mut response.fields, "fwd=uri-miss; stored");
        let keep = Keeping { caching: self.clone(), key: key.clone(), parts, lifetime, made: now, head: head.clone() };
        response.body = match response.body {
            ResponseBody::Full(bytes) => {
                keep.finish(bytes.clone());
                ResponseBody::Full(bytes)
            }
            ResponseBody::Stream(stream) => {
                let keep = Some((keep, flight));
                ResponseBody::Stream(Box::pin(Teed { stream, held: BytesMut::new(), keep }))
            }
            other => {
                keep.finish(Bytes::new());
                other
            }
        };
        response
    }

    /// Asks for a stale answer anew, while the client has the old one.
    fn ask_behind(&self, request: &Request, stored: &Arc<Stored>, flight: Flight) {
        let behind = Request {
            head: unconditional(&request.head, Some(stored)),
            path: request.path.clone(),
            prefix_length: request.prefix_length,
            body: RequestBody::Empty,
            endpoint: Arc::clone(&request.endpoint),
            received: request.received,
            timeout: request.timeout,
            interim: Interim::none(),
            notes: request.notes.clone(),
        };
        let (caching, key) = (self.clone(), Bytes::from(key(request)));
        tokio::spawn(async move {
            let Ok(Outcome::Response(response)) = caching.ask(behind, &key, Some(flight)).await else { return };
            if let ResponseBody::Stream(mut stream) = response.body {
                while let Some(Ok(_)) = std::future::poll_fn(|context| stream.as_mut().poll_chunk(context)).await {}
            }
        });
    }
}

/// What will be kept once its body is whole.
struct Keeping {
    caching: Caching,
    key: Bytes,
    parts: (Status, Fields),
    lifetime: rules::Lifetime,
    made: Instant,
    head: RequestHead,
}

impl Keeping {
    fn finish(self, body: Bytes) {
        let (status, fields) = self.parts;
        let stored = Stored::new((status, fields, body), self.lifetime, self.made, &self.head);
        self.caching.store.keep(&self.key, stored, self.caching.settings.max);
    }
}

/// A stream that is kept as it goes by. Those who wait for it wait for its end.
struct Teed {
    stream: Pin<Box<dyn BodyStream>>,
    held: BytesMut,
    keep: Option<(Keeping, Option<Flight>)>,
}

impl BodyStream for Teed {
    fn poll_chunk(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let polled = ready!(self.stream.as_mut().poll_chunk(context));
        match (&polled, self.keep.take()) {
            (Some(Ok(bytes)), Some((keep, flight))) => {
                if (self.held.len() + bytes.len()) as u64 <= keep.caching.settings.max_object {
                    self.held.extend_from_slice(bytes);
                    self.keep = Some((keep, flight));
                } else {
                    keep.caching.store.pass(&keep.key, Instant::now());
                    self.held = BytesMut::new();
                }
            }
            (None, Some((keep, _flight))) => keep.finish(std::mem::take(&mut self.held).freeze()),
            // A body that broke is not kept.
            _ => {}
        }
        Poll::Ready(polled)
    }

    fn length(&self) -> Option<u64> {
        self.stream.length()
    }

    fn may_trail(&self) -> bool {
        self.stream.may_trail()
    }

    fn take_trailers(mut self: Pin<&mut Self>) -> Option<Fields> {
        self.stream.as_mut().take_trailers()
    }
}

/// One name for all requests that ask for the same.
fn key(request: &Request) -> Vec<u8> {
    let head = &request.head;
    let (scheme, authority, path) = (request.endpoint.scheme().as_str(), head.authority(), head.raw_path());
    let query = head.query();
    let length = scheme.len() + authority.len() + path.len() + query.map_or(0, |query| query.len() + 1) + 2;
    let mut key = Vec::with_capacity(length);
    key.extend_from_slice(scheme.as_bytes());
    key.push(b' ');
    key.extend(authority.bytes().map(|byte| byte.to_ascii_lowercase()));
    key.push(b' ');
    key.extend_from_slice(path);
    if let Some(query) = query {
        key.push(b'?');
        key.extend_from_slice(query);
    }
    key
}

/// The request without the client's conditions, and with ours where there is something to compare with.
fn unconditional(head: &RequestHead, stored: Option<&Stored>) -> RequestHead {
    const CONDITIONS: [&str; 5] = ["If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since", "If-Range"];
    let mut set: Vec<(&[u8], &[u8])> = Vec::new();
    if let Some(stored) = stored {
        let ours =
            [("If-None-Match", stored.fields.get("etag")), ("If-Modified-Since", stored.fields.get("last-modified"))];
        set.extend(ours.into_iter().filter_map(|(name, value)| Some((name.as_bytes(), value?))));
    }
    if set.is_empty() && !CONDITIONS.iter().any(|name| head.field(name).is_some()) {
        return head.clone();
    }
    head.edited(&HeadEdit { remove: &CONDITIONS, set: &set, ..HeadEdit::default() })
}

/// A stored answer for this request.
fn given(stored: &Stored, head: &RequestHead, now: Instant, told: &str) -> Outcome {
    let age = (stored.age + now.saturating_duration_since(stored.made)).as_secs();
    let left = stored.left(now).map(|left| left.as_secs()).map_err(|late| late.as_secs());
    let dress = || {
        let mut fields = stored.fields.clone();
        fields.set("Age", age.to_string());
        let left = left.map_or_else(|late| format!("-{late}"), |left| left.to_string());
        tell(&mut fields, &format!("{told}; ttl={left}"));
        fields
    };
    let fields = if told == HIT { stored.dressed((age, left), dress) } else { dress() };
    let body = match (head.method(), stored.body.len()) {
        (_, 0) => ResponseBody::Empty,
        (Method::Head, length) => ResponseBody::LengthOnly(length as u64),
        _ => ResponseBody::Full(stored.body.clone()),
    };
    let mut response = Response::new(stored.status).with_fields(fields).with_body(body);
    if stored.status == Status::OK && matches(head, &response.fields) {
        not_modified(&mut response);
    }
    Outcome::Response(response)
}

/// Whether the client has this answer already (RFC 9110, section 13.2.2).
fn matches(head: &RequestHead, fields: &Fields) -> bool {
    if head.field("if-none-match").is_some() {
        let weak = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_vec();
        let Some(own) = fields.get("etag").map(weak) else { return false };
        let tags = head.field_values("if-none-match").flat_map(|line| line.split(|&byte| byte == b','));
        return tags.map(<[u8]>::trim_ascii).any(|tag| tag == b"*" || weak(tag) == own);
    }
    let date = |value: Option<&[u8]>| httpdate::parse_http_date(std::str::from_utf8(value?).ok()?).ok();
    match (date(head.field("if-modified-since")), date(fields.get("last-modified"))) {
        (Some(since), Some(modified)) => modified <= since,
        _ => false,
    }
}

fn not_modified(response: &mut Response) {
    response.status = Status::NOT_MODIFIED;
    response.reason = None;
    response.body = ResponseBody::Empty;
    for name in ["Content-Type", "Content-Encoding", "Content-Language"] {
        response.fields.remove(name);
    }
}

fn tell(fields: &mut Fields, told: &str) {
    fields.push(&b"Cache-Status"[..], format!("daemun; {told}"));
}
