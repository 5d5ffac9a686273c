//! `early_hints = "learn"`: the assets that a page's head names go ahead of it the next time.
//!
//! 1. A page that goes by is read as far as its head ([`page`]), and what it names is kept for its path ([`memory`]).
//! 2. The next who asks for that path, and understands, is sent a 103 with the same `Link` while the handler is at work
//!    (RFC 8297).
//! 3. Each answer renews what is known: a page that names something else is told so the next time, one that is gone is
//!    forgotten.
//!
//! What nobody may learn from a hint: what a page named to somebody who was known. So visitors who bring credentials
//! (`Cookie`, `Authorization`, a user of `basic_auth`) and those who bring none have a memory each, and nothing is learned
//! from an answer that is for one person alone (`Set-Cookie`, `Cache-Control: private` or `no-store`).

mod memory;
mod page;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use self::memory::Memory;
use self::page::{Origin, Packing};
use crate::handler::{Answering, Handler, HandlerError, Outcome};
use crate::http::{BodyError, BodyStream, Fields, Method, Request, Response, ResponseBody, Status, Version};

/// Whether a route's pages are learned from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum EarlyHints {
    /// `"off"`.
    Off,
    /// `"learn"`.
    Learn,
}

impl EarlyHints {
    pub(super) fn describe(self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::Learn => "what the page's head named last goes ahead of it".to_owned(),
        }
    }
}

/// Bytes of a page in which its head ends, or what stands later is not looked at.
const MOST_HEAD: usize = 64 * 1024;

/// Bytes of `<body` and what follows it: an end may come in two pieces.
const LONGEST_END: usize = 7;

/// A handler whose pages are learned from.
pub(super) struct Hinting {
    memory: Arc<Memory>,
    next: Arc<dyn Handler>,
}

impl Hinting {
    pub(super) fn new(next: Arc<dyn Handler>) -> Self {
        Self { memory: Arc::default(), next }
    }

    async fn run(&self, request: Request) -> Result<Outcome, HandlerError> {
        let visit = Visit::of(&request);
        if understands(&request)
            && let Some(link) = self.memory.recall(&visit.key, Instant::now())
        {
            request.interim.send(Status::EARLY_HINTS, Fields::new().with("Link", link));
        }
        let mut outcome = self.next.handle(request).await?;
        if let Outcome::Response(response) = &mut outcome {
            self.learn(response, visit);
        }
        Ok(outcome)
    }

    fn learn(&self, response: &mut Response, visit: Visit) {
        let is_page = match response.status.code() {
            200 => true,
            // The page is as it was; and a fault says nothing of it.
            206 | 304 | 500.. => return,
            _ => false,
        };
        let fields = &response.fields;
        let is_personal = fields.get("set-cookie").is_some()
            || fields.lists("cache-control", "private")
            || fields.lists("cache-control", "no-store");
        if is_page && is_personal {
            return;
        }
        let packing = Packing::of(fields.get("content-encoding")).filter(|_| is_page && is_html(fields));
        let Some(packing) = packing else { return self.memory.forget(&visit.key) };
        match std::mem::replace(&mut response.body, ResponseBody::Empty) {
            ResponseBody::Full(bytes) => {
                visit.keep(&self.memory, &bytes[..bytes.len().min(MOST_HEAD)], packing);
                response.body = ResponseBody::Full(bytes);
            }
            ResponseBody::Stream(stream) => {
                let learning = Some((visit, Arc::clone(&self.memory)));
                let read = Read { stream, held: BytesMut::new(), packing, learning };
                response.body = ResponseBody::Stream(Box::pin(read));
            }
            other => response.body = other,
        }
    }
}

impl Handler for Hinting {
    fn handle(&self, request: Request) -> Answering<'_> {
        // Only GET brings a page to look at, and HEAD is no navigation.
        if request.head.method() != Method::Get {
            return self.next.handle(request);
        }
        Box::pin(self.run(request))
    }

    fn may_decline(&self) -> bool {
        self.next.may_decline()
    }
}

/// Browsers heed hints where they navigate, and say so; those that do not say understand them by HTTP/2 at least. Old
/// clients of HTTP/1.1 have been seen to take a 103 for the answer.
fn understands(request: &Request) -> bool {
    if !request.interim.is_wanted() {
        return false;
    }
    match request.head.field("sec-fetch-mode") {
        Some(mode) => mode == b"navigate",
        None => request.head.version() == Version::Http2,
    }
}

fn is_html(fields: &Fields) -> bool {
    let bare = fields.get("content-type").and_then(|value| value.split(|&byte| byte == b';').next());
    bare.is_some_and(|bare| bare.trim_ascii().eq_ignore_ascii_case(b"text/html"))
}

/// Who asked for what.
struct Visit {
    key: Bytes,
    origin: Origin,
}

impl Visit {
    /// The query counts for nothing: a search names the same assets whatever is searched for.
    fn of(request: &Request) -> Self {
        let head = &request.head;
        let is_known =
            head.field("cookie").is_some() || head.field("authorization").is_some() || request.notes.user.is_some();
        let origin = Origin { scheme: request.scheme(), authority: head.authority().to_ascii_lowercase() };
        let who = if is_known { &b"k"[..] } else { &b"-"[..] };
        let scheme = origin.scheme.as_str().as_bytes();
        let parts = [who, scheme, b":", origin.authority.as_bytes(), head.raw_path()];
        Self { key: parts.concat().into(), origin }
    }

    fn keep(self, memory: &Memory, page: &[u8], packing: Packing) {
        match page::links(&packing.open(page, MOST_HEAD), &self.origin) {
            Some(links) => memory.keep(self.key, links.into(), Instant::now()),
            None => memory.forget(&self.key),
        }
    }
}

/// A page that is read as it goes by.
struct Read {
    stream: Pin<Box<dyn BodyStream>>,
    held: BytesMut,
    packing: Packing,
    learning: Option<(Visit, Arc<Memory>)>,
}

impl BodyStream for Read {
    fn poll_chunk(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let polled = ready!(self.stream.as_mut().poll_chunk(context));
        let Some((visit, memory)) = self.learning.take() else { return Poll::Ready(polled) };
        match &polled {
            Some(Ok(bytes)) => {
                let (room, seen) = (MOST_HEAD - self.held.len(), self.held.len());
                self.held.extend_from_slice(&bytes[..bytes.len().min(room)]);
                if bytes.len() >= room || self.packing.has_head(&self.held[seen.saturating_sub(LONGEST_END)..]) {
                    visit.keep(&memory, &std::mem::take(&mut self.held), self.packing);
                } else {
                    self.learning = Some((visit, memory));
                }
            }
            None => visit.keep(&memory, &std::mem::take(&mut self.held), self.packing),
            // What broke says nothing.
            Some(Err(_)) => {}
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
