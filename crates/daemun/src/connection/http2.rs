//! The life of an HTTP/2 connection (RFC 9113).
//!
//! The `h2` crate reads and writes frames over the connection's own socket, buffers and deadlines ([`Frames`]). Each
//! request is a future of its own ([`stream`]): polled once where it was accepted, since a small file is
//! answered by then; what has to wait becomes a task. Dropping the connection drops them all.
//!
//! What a client may cost is counted here: requests that it takes back, and bytes that bring nothing.
//!
//! `h2` flushes after each answer. Here what it writes is gathered until everything that has come is answered: one
//! record and one system call for many small answers.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use ::h2::server::{Builder, Connection as Http2, SendResponse};
use ::h2::{Reason, RecvStream};
use ::http::Request;
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::buffers::{self, BODY_SIZE};
use super::current::Guard;
use super::drain::{Drain, Phase, Place};
use super::handshake::Deadline;
use super::life::{Connection, DRAINED_FOR, Ending, LINGER, MAX_DRAINED};
use super::stream::{self, Ended};
use super::wire::Wire;
use super::{Context, Limits};
use crate::alarm::Alarm;
use crate::http::Endpoint;

/// Requests at a time, as most servers allow; what is beyond waits at the client.
const MAX_STREAMS: u32 = 100;

/// Bytes of a body that may be on their way to us: what a handler has ahead of it ([`BodyFeed`](crate::http::BodyFeed)).
const STREAM_WINDOW: u32 = 256 * 1024;

/// The same over all streams of a connection: what it may hold of our memory.
const CONNECTION_WINDOW: u32 = 512 * 1024;

/// Bytes of a response that wait to be written, for each stream.
const SEND_BUFFER: usize = 64 * 1024;

/// Bytes that are gathered before they are written: a record of TLS.
const GATHERED: usize = 16 * 1024;

/// Requests that a client may take back, beyond as many as it let us answer, before it is told to calm down: rapid reset
/// (CVE-2023-44487). A browser that leaves a page takes back some tens.
const MAX_CANCELLED: usize = 128;

/// The same for streams that we reset because of what the client did (MadeYouReset, CVE-2025-8671).
const MAX_FAULTS: usize = 100;

/// The same for requests that are taken back before we have seen them.
const MAX_CANCELLED_UNSEEN: usize = 64;

/// Bytes that may come in for each that is a request, a body or a response, and how many besides: frames that bring
/// nothing (PING, SETTINGS, PRIORITY, empty DATA; CVE-2019-9512 to 9518). As in nginx.
const MOST_OVERHEAD: u64 = 8;
const FREE_OVERHEAD: u64 = 1024 * 1024;

/// What the requests of a connection share.
pub(super) struct Shared {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) context: Arc<Context>,
    pub(super) guard: Option<Guard>,
    /// When the connection was accepted, until its first request.
    accepted: Mutex<Option<Instant>>,
    /// Bytes that came in.
    read: AtomicU64,
    /// Bytes of heads and bodies, both ways.
    useful: AtomicU64,
    /// Reading has ended because of a flood.
    is_told: AtomicBool,
    /// Whether a flush may wait, and whether something does.
    may_gather: AtomicBool,
    is_gathered: AtomicBool,
}

impl Shared {
    /// Bytes that are worth something came or went.
    pub(super) fn count(&self, bytes: usize) {
        self.useful.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// When the connection was accepted, for its first request alone.
    pub(super) fn accepted(&self) -> Option<Instant> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_flooded(&self) -> bool {
        self.read.load(Ordering::Relaxed) > FREE_OVERHEAD + MOST_OVERHEAD * self.useful.load(Ordering::Relaxed)
    }
}

impl Connection {
    /// Serves HTTP/2 to its end.
    pub(super) async fn run_http2(&mut self) -> Ending {
        let limits = self.context.serving.load().limits.clone();
        let shared = Arc::new(Shared {
            endpoint: Arc::clone(&self.endpoint),
            context: Arc::clone(&self.context),
            guard: self.guard.take(),
            accepted: Mutex::new(self.accepted.take()),
            read: AtomicU64::new(0),
            useful: AtomicU64::new(0),
            is_told: AtomicBool::new(false),
            may_gather: AtomicBool::new(false),
            is_gathered: AtomicBool::new(false),
        });
        let frames = Frames { wire: &mut self.wire, shared: Arc::clone(&shared), dropped: 0 };
        let mut handshake = std::pin::pin!(builder(&limits).handshake(frames));
        let mut deadline = Deadline::new(limits.header_timeout);
        let begun = std::future::poll_fn(|task| match handshake.as_mut().poll(task) {
            Poll::Ready(begun) => Poll::Ready(begun.map_err(|error| error.to_string())),
            Poll::Pending => {
                deadline.poll(task, (&mut self.place, &self.context.drain)).map(|late| Err(late.to_string()))
            }
        });
        let http2 = match begun.await {
            Ok(http2) => http2,
            Err(error) => return ended(&shared, &error),
        };
        let mut life = Life {
            http2,
            shared: Arc::clone(&shared),
            streams: JoinSet::new(),
            cancelled: 0,
            leaving: Leaving::Not,
            is_cut: false,
            idle_until: Instant::now() + limits.header_timeout,
            keep_alive: limits.keep_alive,
            alarm: Alarm::default(),
        };
        let (place, drain) = (&mut self.place, &self.context.drain);
        match std::future::poll_fn(|task| life.poll(task, place, drain)).await {
            Ok(()) if life.is_cut => Ending::Drain,
            Ok(()) => Ending::Linger,
            Err(error) => ended(&shared, &error.to_string()),
        }
    }
}

fn ended(shared: &Shared, error: &str) -> Ending {
    let client = shared.endpoint.client().map_or("unix:", |peer| &peer.ip);
    shared.context.errors.info(format_args!("an HTTP/2 connection of {client} was ended: {error}"));
    Ending::Drain
}

fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(limits.max_head).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_CANCELLED_UNSEEN)
        .max_local_error_reset_streams(Some(MAX_FAULTS));
    builder
}

/// A connection whose preface was read.
struct Life<'a> {
    http2: Http2<Frames<'a>, Bytes>,
    shared: Arc<Shared>,
    streams: JoinSet<Ended>,
    /// Requests that were taken back, less those that were answered.
    cancelled: usize,
    leaving: Leaving,
    /// It was told to calm down.
    is_cut: bool,
    /// When it ends, unless something is being answered.
    idle_until: Instant,
    keep_alive: Duration,
    alarm: Alarm,
}

/// A request, and where its answer goes.
type Accepted = (Request<RecvStream>, SendResponse<Bytes>);

/// Whether a GOAWAY was sent (RFC 9113, section 6.8).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Leaving {
    Not,
    /// What is under way, and what the client sent before it knew, is still answered.
    Gracefully,
    /// Nothing is answered any more.
    AtOnce,
}

impl Life<'_> {
    fn poll(&mut self, task: &mut Task<'_>, place: &mut Place, drain: &Drain) -> Poll<Result<(), ::h2::Error>> {
        loop {
            while let Poll::Ready(Some(ended)) = self.streams.poll_join_next(task) {
                // One that was aborted, or that panicked, was not taken back by the client.
                self.account(ended.unwrap_or(Ended::Answered));
            }
            if self.leaving < Leaving::AtOnce && (self.cancelled > MAX_CANCELLED || self.shared.is_flooded()) {
                let _ = ended(&self.shared, "it took back too many requests, or sent too much that is none");
                self.leave(Reason::ENHANCE_YOUR_CALM);
            }
            place.register(drain, task);
            if drain.phase() != Phase::Serving && self.leaving == Leaving::Not {
                self.http2.graceful_shutdown();
                self.leaving = Leaving::Gracefully;
                self.idle_until = Instant::now() + LINGER;
            }
            match self.poll_accept(task) {
                Poll::Ready(Some(Ok(_))) if self.leaving == Leaving::AtOnce => {}
                Poll::Ready(Some(Ok((request, respond)))) => {
                    let mut answer = Box::pin(stream::answer(Arc::clone(&self.shared), request, respond));
                    match answer.as_mut().poll(task) {
                        Poll::Ready(ended) => self.account(ended),
                        Poll::Pending => drop(self.streams.spawn(answer)),
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    if !self.streams.is_empty() {
                        return Poll::Pending;
                    }
                    ready!(self.alarm.poll(task, self.idle_until));
                    if self.leaving == Leaving::AtOnce {
                        // It does not even take the goodbye.
                        return Poll::Ready(Ok(()));
                    }
                    self.leave(Reason::NO_ERROR);
                }
            }
        }
    }

    /// The next request. Where there is none for now, everything that was gathered is on its way.
    fn poll_accept(&mut self, task: &mut Task<'_>) -> Poll<Option<Result<Accepted, ::h2::Error>>> {
        self.shared.may_gather.store(true, Ordering::Relaxed);
        let accepted = self.http2.poll_accept(task);
        if accepted.is_ready() || !self.shared.is_gathered.load(Ordering::Relaxed) {
            return accepted;
        }
        self.shared.may_gather.store(false, Ordering::Relaxed);
        self.http2.poll_accept(task)
    }

    /// Only requests keep a connection alive: a head that never ends, or a ping, is none.
    fn account(&mut self, ended: Ended) {
        match ended {
            Ended::Answered => self.cancelled = self.cancelled.saturating_sub(1),
            Ended::Cancelled => self.cancelled += 1,
        }
        let patience = if self.leaving == Leaving::Not { self.keep_alive } else { LINGER };
        self.idle_until = Instant::now() + patience;
    }

    /// Says goodbye; what is open is not answered.
    fn leave(&mut self, reason: Reason) {
        self.streams.abort_all();
        self.http2.abrupt_shutdown(reason);
        self.leaving = Leaving::AtOnce;
        self.is_cut = reason != Reason::NO_ERROR;
        self.idle_until = Instant::now() + if self.is_cut { DRAINED_FOR } else { LINGER };
    }
}

/// The connection's socket as the `h2` crate reads and writes it: what was read before comes first, and a client that
/// takes nothing for too long is cut.
struct Frames<'a> {
    wire: &'a mut Wire,
    shared: Arc<Shared>,
    /// Bytes of a flood that were read and dropped.
    dropped: usize,
}

impl AsyncRead for Frames<'_> {
    fn poll_read(self: Pin<&mut Self>, task: &mut Task<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Frames { wire, shared, dropped } = self.get_mut();
        if shared.is_flooded() {
            // Nothing is understood any more; whoever polls us says so to the client, which reads it only when it has got
            // rid of what it has to send.
            if !shared.is_told.swap(true, Ordering::Relaxed) {
                task.waker().wake_by_ref();
            }
            while *dropped < MAX_DRAINED {
                wire.input.clear();
                let read = ready!(wire.poll_fill(task, BODY_SIZE))?;
                if read == 0 {
                    return Poll::Ready(Ok(()));
                }
                *dropped += read;
            }
            return Poll::Pending;
        }
        if wire.input.is_empty() {
            let filled = wire.poll_fill(task, BODY_SIZE);
            if filled.is_pending() {
                wire.rest_input();
            }
            ready!(filled)?;
        }
        let length = wire.input.len().min(buffer.remaining());
        shared.read.fetch_add(length as u64, Ordering::Relaxed);
        buffer.put_slice(&wire.input[..length]);
        wire.input.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl Frames<'_> {
    /// Writes what was gathered.
    fn poll_gathered(&mut self, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        ready!(self.wire.poll_send(task, &mut Bytes::new()))?;
        self.shared.is_gathered.store(false, Ordering::Relaxed);
        self.wire.rest();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Frames<'_> {
    fn poll_write(self: Pin<&mut Self>, task: &mut Task<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(task, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let frames = self.get_mut();
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        // Also what is written past the output may stay encrypted for a while.
        frames.shared.is_gathered.store(true, Ordering::Relaxed);
        if frames.wire.output.len() + length > GATHERED {
            ready!(frames.wire.poll_send(task, &mut Bytes::new()))?;
            if length > GATHERED {
                let mut full = parts.iter().filter(|part| !part.is_empty()).map(|part| &**part);
                let (first, second) = (full.next().unwrap_or_default(), full.next().unwrap_or_default());
                return frames.wire.poll_write(task, [first, second]);
            }
        }
        if frames.wire.output.capacity() == 0 {
            frames.wire.output = buffers::take_write();
        }
        parts.iter().for_each(|part| frames.wire.output.extend_from_slice(part));
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        let frames = self.get_mut();
        if frames.shared.may_gather.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        frames.poll_gathered(task)
    }

    /// The connection closes itself, and lingers.
    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_gathered(task)
    }
}
