//! A server on one end of a socket pair, a client on the other, and a handler that writes down what reached it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::connection::{Context, Limits, Transport, serve};
use crate::handler::{Answering, Fault, Handler, HandlerError, Outcome};
use crate::http::{Endpoint, Fields, Request, Response, ResponseBody, Scheme, Status};
use crate::telemetry::{AccessLogger, ErrorLogger};

/// A request as it reached the handler: method, target, authority, body or what became of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) authority: String,
    pub(super) body: Result<Bytes, String>,
}

type Make = dyn Fn(Request) -> Answering<'static> + Send + Sync;

/// Answers with what it is told to.
pub(super) struct Told(pub(super) Box<Make>);

impl Handler for Told {
    fn handle(&self, request: Request) -> Answering<'_> {
        (self.0)(request)
    }
}

/// A handler made of a closure that answers at once.
pub(super) fn told(make: impl Fn(Request) -> Response + Send + Sync + 'static) -> Arc<dyn Handler> {
    Arc::new(Told(Box::new(move |request| {
        let response = make(request);
        Box::pin(async { Ok(Outcome::Response(response)) })
    })))
}

/// A handler made of a closure that gives a future.
pub(super) fn working<F>(make: impl Fn(Request) -> F + Send + Sync + 'static) -> Arc<dyn Handler>
where
    F: Future<Output = Result<Outcome, HandlerError>> + Send + 'static,
{
    Arc::new(Told(Box::new(move |request| Box::pin(make(request)))))
}

/// A handler that reads every body to its end, writes it down, and says what it got.
pub(super) fn recorder() -> (Arc<dyn Handler>, Arc<Mutex<Vec<Seen>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    let handler = working(move |mut request| {
        let record = Arc::clone(&record);
        async move {
            let mut body = Vec::new();
            let mut error = None;
            while let Some(chunk) = request.body.chunk().await {
                match chunk {
                    Ok(bytes) => body.extend_from_slice(&bytes),
                    Err(failed) => {
                        error = Some(failed.to_string());
                        break;
                    }
                }
            }
            record.lock().unwrap().push(Seen {
                method: request.head.method_name().to_owned(),
                target: String::from_utf8_lossy(request.head.target()).into_owned(),
                authority: request.head.authority().to_owned(),
                body: error.clone().map_or(Ok(Bytes::from(body)), Err),
            });
            match error {
                Some(error) => Err(HandlerError::new(Status::INTERNAL_SERVER_ERROR, Fault::Server, error)),
                None => Ok(Outcome::Response(text(request.head.target()))),
            }
        }
    });
    (handler, seen)
}

/// A 200 with this text.
pub(super) fn text(body: &[u8]) -> Response {
    Response::new(Status::OK)
        .with_fields(Fields::new().with("Content-Type", "text/plain"))
        .with_body(ResponseBody::Full(Bytes::copy_from_slice(body)))
}

pub(super) struct Server {
    pub(super) client: UnixStream,
    pub(super) context: Arc<Context>,
    pub(super) task: JoinHandle<()>,
}

/// Serves one connection.
pub(super) fn start(handler: Arc<dyn Handler>) -> Server {
    start_with(handler, Limits::default())
}

pub(super) fn start_with(handler: Arc<dyn Handler>, limits: Limits) -> Server {
    start_context(Context::new(handler, limits, AccessLogger::off(), ErrorLogger::off()))
}

pub(super) fn start_context(context: Context) -> Server {
    let (client, server) = UnixStream::pair().unwrap();
    let context = Arc::new(context);
    let endpoint = Arc::new(Endpoint::new(None, None, Scheme::Http));
    let task = tokio::spawn(serve(Transport::Unix(server), endpoint, Arc::clone(&context)));
    Server { client, context, task }
}

impl Server {
    /// Sends; a server that has closed may refuse it.
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.client.write_all(bytes.as_ref()).await;
    }

    /// Everything up to the end of the connection. Fails if that does not come.
    pub(super) async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(3600), self.client.read_to_end(&mut bytes));
        let _ = read.await.expect("the server closes the connection");
        bytes
    }

    /// One whole response, with the connection left open.
    pub(super) async fn response(&mut self, method: &str) -> Reply {
        let mut bytes = Vec::new();
        loop {
            if let Some((reply, length)) = Reply::parse(&bytes, method) {
                assert_eq!(length, bytes.len(), "no bytes behind the response");
                return reply;
            }
            let mut part = [0; 4096];
            let read = self.client.read(&mut part).await.expect("the response is sent");
            assert!(read > 0, "the connection ended in {:?}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(&part[..read]);
        }
    }

    /// Every response up to the end of the connection, which must end with one.
    pub(super) async fn responses(&mut self) -> Vec<Reply> {
        let bytes = self.rest().await;
        replies(&bytes)
    }
}

/// A response as a strict client reads it.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) fields: HashMap<String, String>,
    pub(super) body: Vec<u8>,
}

/// Each response of `bytes`, which must end with one.
pub(super) fn replies(mut bytes: &[u8]) -> Vec<Reply> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        let (reply, length) =
            Reply::parse(bytes, "GET").unwrap_or_else(|| panic!("no response: {:?}", String::from_utf8_lossy(bytes)));
        bytes = &bytes[length..];
        replies.push(reply);
    }
    replies
}

impl Reply {
    /// The response and its length in bytes, if it is whole.
    fn parse(bytes: &[u8], method: &str) -> Option<(Self, usize)> {
        let head_end = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&bytes[..head_end - 4]).unwrap();
        let mut lines = head.split("\r\n");
        let status: u16 = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().unwrap();
        let mut fields = HashMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            let twice = fields.insert(name.to_ascii_lowercase(), value.to_owned());
            assert!(twice.is_none(), "{name} stands once");
        }
        let mut reply = Self { status, fields, body: Vec::new() };
        let rest = &bytes[head_end..];
        if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            return Some((reply, head_end));
        }
        assert_ne!(reply.fields.contains_key("content-length"), reply.fields.contains_key("transfer-encoding"));
        if let Some(length) = reply.fields.get("content-length") {
            let length: usize = length.parse().unwrap();
            reply.body = rest.get(..length)?.to_vec();
            return Some((reply, head_end + length));
        }
        let mut at = head_end;
        loop {
            let line = memchr::memmem::find(&bytes[at..], b"\r\n")?;
            let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..at + line]).unwrap(), 16).unwrap();
            at += line + 2;
            reply.body.extend_from_slice(bytes.get(at..at + size)?);
            at += size;
            assert_eq!(bytes.get(at..at + 2)?, b"\r\n");
            at += 2;
            if size == 0 {
                return Some((reply, at));
            }
        }
    }

    pub(super) fn closes(&self) -> bool {
        self.fields.get("connection").map(String::as_str) == Some("close")
    }
}

/// A small generator: the same seed, the same splits.
pub(super) struct Seeded(pub(super) u64);

impl Seeded {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// How bytes are cut on their way.
#[derive(Clone, Copy, Debug)]
pub(super) enum Split {
    Whole,
    Bytes,
    Random(u64),
}

pub(super) const SPLITS: [Split; 5] =
    [Split::Whole, Split::Bytes, Split::Random(0x5eed), Split::Random(0xfeed_beef), Split::Random(42)];

/// Sends `bytes` in pieces, each of which the server reads by itself.
pub(super) async fn send_split(server: &mut Server, bytes: &[u8], split: Split) {
    let mut random = if let Split::Random(seed) = split { Seeded(seed) } else { Seeded(1) };
    let mut rest = bytes;
    while !rest.is_empty() {
        let length = match split {
            Split::Whole => rest.len(),
            Split::Bytes => 1,
            Split::Random(_) => 1 + random.below(rest.len().min(24)),
        };
        let (piece, after) = rest.split_at(length);
        server.send(piece).await;
        rest = after;
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    }
}
