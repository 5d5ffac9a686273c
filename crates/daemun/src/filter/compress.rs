//! `compress`: text is compressed on its way out.
//!
//! Compressed is what is text, is not small, not compressed yet and not a part of a whole. Large pieces are compressed
//! on the blocking pool; small ones where they come by. What a stream brings is flushed as soon as nothing more is at
//! hand, so that an event waits for nobody.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::handler::{Answering, Handler, HandlerError, Outcome};
use crate::http::{BodyError, BodyStream, Coding, Fields, FileBody, Method, Request, Response, ResponseBody, Status};

/// What is compressed, and how.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CompressSettings {
    /// Codings, those we like better first.
    pub codings: Vec<Coding>,
    /// From 1 (fast) to 5 (small).
    pub level: u32,
    /// Bytes below which nothing is gained: one packet is one packet.
    pub least: u64,
    /// Content types; `text/*` stands for all that begin so.
    pub types: Vec<String>,
}

impl Default for CompressSettings {
    fn default() -> Self {
        const TYPES: [&str; 13] = [
            "text/*",
            "application/javascript",
            "application/json",
            "application/ld+json",
            "application/manifest+json",
            "application/problem+json",
            "application/x-ndjson",
            "application/xml",
            "application/xhtml+xml",
            "application/rss+xml",
            "application/atom+xml",
            "application/wasm",
            "image/svg+xml",
        ];
        Self {
            codings: vec![Coding::Zstd, Coding::Brotli, Coding::Gzip],
            level: 3,
            least: 1024,
            types: TYPES.iter().map(|&text| text.to_owned()).collect(),
        }
    }
}

impl CompressSettings {
    pub(super) fn describe(&self) -> String {
        let codings: Vec<&str> = self.codings.iter().map(|coding| coding.as_str()).collect();
        format!("{} at level {}, text from {} bytes on", codings.join(", "), self.level, self.least)
    }

    /// Whether an answer may be compressed for some client or other.
    fn suits(&self, response: &Response) -> bool {
        let fields = &response.fields;
        let length = match &response.body {
            ResponseBody::Empty => Some(0),
            ResponseBody::Full(bytes) => Some(bytes.len() as u64),
            ResponseBody::File(file) => Some(file.length),
            ResponseBody::LengthOnly(length) => Some(*length),
            ResponseBody::Stream(stream) => stream.length(),
            ResponseBody::Tunnel(_) => return false,
        };
        !response.status.is_bodiless()
            && response.status != Status::PARTIAL_CONTENT
            && length.is_none_or(|length| length >= self.least.max(1))
            && fields.get("content-encoding").is_none()
            && fields.get("content-range").is_none()
            && !fields.lists("cache-control", "no-transform")
            && fields.get("content-type").is_some_and(|value| self.names(value))
    }

    fn names(&self, content_type: &[u8]) -> bool {
        let bare = content_type.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        self.types.iter().any(|known| match known.strip_suffix('*') {
            Some(start) => bare.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start.as_bytes())),
            None => bare.eq_ignore_ascii_case(known.as_bytes()),
        })
    }
}

/// A handler whose answers are compressed.
pub(super) struct Compressing {
    settings: CompressSettings,
    next: Arc<dyn Handler>,
}

impl Compressing {
    pub(super) fn new(settings: CompressSettings, next: Arc<dyn Handler>) -> Self {
        Self { settings, next }
    }

    async fn run(&self, request: Request) -> Result<Outcome, HandlerError> {
        let coding = Coding::negotiate(&request.head, &self.settings.codings);
        let is_head = request.head.method() == Method::Head;
        let mut outcome = self.next.handle(request).await?;
        if let Outcome::Response(response) = &mut outcome {
            self.compress(response, coding, is_head);
        }
        Ok(outcome)
    }

    fn compress(&self, response: &mut Response, coding: Option<Coding>, is_head: bool) {
        if response.status == Status::NOT_MODIFIED {
            // The same as the answer that it stands for (RFC 9110, section 15.4.5).
            if coding.is_some() {
                weaken(&mut response.fields);
            }
            response.fields.vary("Accept-Encoding");
            return;
        }
        if !self.settings.suits(response) {
            return;
        }
        response.fields.vary("Accept-Encoding");
        let Some(coding) = coding else { return };
        let body = std::mem::replace(&mut response.body, ResponseBody::Empty);
        let body = if is_head {
            Some(ResponseBody::Stream(Box::pin(Untold)))
        } else {
            Compressor::new(coding, self.settings.level).map(|compressor| compressed(body, compressor))
        };
        // Only memory can be missing for a compressor; then the answer goes without.
        let Some(body) = body else { return };
        response.body = body;
        weaken(&mut response.fields);
        for name in ["Accept-Ranges", "Content-MD5", "Content-Digest"] {
            response.fields.remove(name);
        }
        response.fields.push(&b"Content-Encoding"[..], coding.as_str());
    }
}

impl Handler for Compressing {
    fn handle(&self, request: Request) -> Answering<'_> {
        Box::pin(self.run(request))
    }

    fn may_decline(&self) -> bool {
        self.next.may_decline()
    }
}

/// Two codings of one page are not the same bytes: a strong tag would lie (RFC 9110, section 8.8.3.3).
fn weaken(fields: &mut Fields) {
    if let Some(tag) = fields.get("etag").filter(|tag| tag.starts_with(b"\"")) {
        let weak = [b"W/", tag].concat();
        fields.set("ETag", weak);
    }
}

/// The body of an answer to HEAD: as GET, it says no length.
struct Untold;

impl BodyStream for Untold {
    fn poll_chunk(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        Poll::Ready(None)
    }
}

/// Pieces up to this many bytes are compressed on the event loop: that takes less than handing them over.
const INLINE: usize = 8 * 1024;

/// Bytes of a large body that one job compresses.
const PIECE: usize = 128 * 1024;

/// Bytes of output that are given on at once.
const ENOUGH: usize = 16 * 1024;

fn compressed(body: ResponseBody, compressor: Compressor) -> ResponseBody {
    let source = match body.at_hand() {
        ResponseBody::Full(bytes) => Source::Whole(bytes),
        ResponseBody::File(file) => Source::File(file),
        ResponseBody::Stream(stream) => Source::Stream(stream),
        other @ (ResponseBody::Empty | ResponseBody::LengthOnly(_) | ResponseBody::Tunnel(_)) => return other,
    };
    ResponseBody::Stream(Box::pin(CompressedBody { source, state: State::Idle(Box::new(compressor)), is_dirty: false }))
}

/// A body on its way through a compressor.
struct CompressedBody {
    source: Source,
    state: State,
    /// Whether the compressor holds what the client has not seen.
    is_dirty: bool,
}

enum Source {
    Whole(Bytes),
    File(FileBody),
    Stream(Pin<Box<dyn BodyStream>>),
}

enum State {
    Idle(Box<Compressor>),
    Working(JoinHandle<(Box<Compressor>, io::Result<()>)>),
    Done,
}

/// What comes next.
enum Next {
    Bytes(Bytes),
    Part(FileBody),
    Nothing,
}

impl BodyStream for CompressedBody {
    fn poll_chunk(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let polled = ready!(self.poll(context));
        if !matches!(polled, Some(Ok(_))) {
            self.state = State::Done;
        }
        Poll::Ready(polled)
    }
}

impl CompressedBody {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let failed = |error: &dyn std::fmt::Display| Some(Err(BodyError::Failed(format!("compressing: {error}"))));
        loop {
            let mut compressor = match std::mem::replace(&mut self.state, State::Done) {
                State::Done => return Poll::Ready(None),
                State::Idle(compressor) => compressor,
                State::Working(mut job) => match Pin::new(&mut job).poll(context) {
                    Poll::Pending => {
                        self.state = State::Working(job);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok((compressor, Ok(())))) => compressor,
                    Poll::Ready(Ok((_, Err(error)))) => return Poll::Ready(failed(&error)),
                    Poll::Ready(Err(error)) => return Poll::Ready(failed(&error)),
                },
            };
            if compressor.output().len() >= ENOUGH {
                let bytes = compressor.take();
                self.state = State::Idle(compressor);
                return Poll::Ready(Some(Ok(bytes)));
            }
            let next = match self.source.poll(context) {
                Poll::Ready(Ok(next)) => next,
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                Poll::Pending => {
                    if !self.is_dirty && compressor.output().is_empty() {
                        self.state = State::Idle(compressor);
                        return Poll::Pending;
                    }
                    if let Err(error) = compressor.flush() {
                        return Poll::Ready(failed(&error));
                    }
                    self.is_dirty = false;
                    let bytes = compressor.take();
                    self.state = State::Idle(compressor);
                    return if bytes.is_empty() { Poll::Pending } else { Poll::Ready(Some(Ok(bytes))) };
                }
            };
            self.is_dirty = true;
            match next {
                Next::Nothing => {
                    let last = compressor.finish();
                    return Poll::Ready(last.map_or_else(|error| failed(&error), |bytes| Some(Ok(bytes))));
                }
                Next::Bytes(bytes) if bytes.len() <= INLINE => {
                    if let Err(error) = compressor.write(&bytes) {
                        return Poll::Ready(failed(&error));
                    }
                    self.state = State::Idle(compressor);
                }
                Next::Bytes(bytes) => {
                    self.state = State::Working(tokio::task::spawn_blocking(move || {
                        let result = compressor.write(&bytes);
                        (compressor, result)
                    }));
                }
                Next::Part(part) => {
                    self.state = State::Working(tokio::task::spawn_blocking(move || {
                        let result = part.read().and_then(|bytes| compressor.write(&bytes));
                        (compressor, result)
                    }));
                }
            }
        }
    }
}

impl Source {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Next, BodyError>> {
        Poll::Ready(Ok(match self {
            Self::Whole(bytes) if bytes.is_empty() => Next::Nothing,
            Self::Whole(bytes) => Next::Bytes(bytes.split_to(bytes.len().min(PIECE))),
            Self::File(file) if file.length == 0 => Next::Nothing,
            Self::File(file) => Next::Part(file.split_to(PIECE as u64)),
            Self::Stream(stream) => match ready!(stream.as_mut().poll_chunk(context)) {
                Some(chunk) => Next::Bytes(chunk?),
                None => Next::Nothing,
            },
        }))
    }
}

/// One of the three, at work.
enum Compressor {
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
}

/// Half a megabyte of window, in bits: a page repeats itself close by, and each answer has a compressor of its own.
const WINDOW_BITS: u32 = 19;

impl Compressor {
    fn new(coding: Coding, level: u32) -> Option<Self> {
        Some(match coding {
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level as i32).ok()?;
                encoder.window_log(WINDOW_BITS).ok()?;
                Self::Zstd(encoder)
            }
            Coding::Brotli => {
                Self::Brotli(Box::new(brotli::CompressorWriter::new(Vec::new(), 4096, level, WINDOW_BITS)))
            }
            Coding::Gzip => Self::Gzip(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level))),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Zstd(encoder) => encoder.write_all(bytes),
            Self::Brotli(encoder) => encoder.write_all(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Zstd(encoder) => encoder.flush(),
            Self::Brotli(encoder) => encoder.flush(),
            Self::Gzip(encoder) => encoder.flush(),
        }
    }

    fn output(&self) -> &Vec<u8> {
        match self {
            Self::Zstd(encoder) => encoder.get_ref(),
            Self::Brotli(encoder) => encoder.get_ref(),
            Self::Gzip(encoder) => encoder.get_ref(),
        }
    }

    /// What came out so far.
    fn take(&mut self) -> Bytes {
        Bytes::from(std::mem::take(match self {
            Self::Zstd(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Gzip(encoder) => encoder.get_mut(),
        }))
    }

    fn finish(self) -> io::Result<Bytes> {
        Ok(Bytes::from(match self {
            Self::Zstd(encoder) => encoder.finish()?,
            Self::Brotli(encoder) => encoder.into_inner(),
            Self::Gzip(encoder) => encoder.finish()?,
        }))
    }
}
