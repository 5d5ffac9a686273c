//! One request on its way to a worker and back: what was asked, and a mailbox for what is answered.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use daemun_protocol::frame::{Answer, Ending, INITIAL_CREDIT};

use super::shelf::Laid;
use super::sleeper::Sleeper;
use super::spool::Payload;
use crate::http::{LaidPiece, Method, Request};

/// What comes back for a request.
#[derive(Debug)]
pub(super) enum Event {
    /// All of it at once.
    Answer(Answer),
    /// An interim response (1xx), a head only; the answer is still awaited.
    Inform(Bytes),
    /// Microseconds to get here, status and fields; the body follows.
    Head(u32, Bytes),
    /// So many bytes of a streamed request body may be sent.
    Wants(u32),
    /// A piece of the body.
    Data(Bytes),
    /// The same, on the lane's shelf.
    Laid(Laid),
    /// The body is a part of this file.
    File {
        /// Checked to be a regular file.
        file: OwnedFd,
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// The end.
    Done(Ending),
    /// There will be no more.
    Failed(Failure),
}

/// Why a request got no answer, or only a part of one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Failure {
    /// Too many were waiting already.
    QueueFull,
    /// No worker was free in time.
    QueueTimeout,
    /// The application did not answer in time.
    Timeout,
    /// Its answer brought nothing for too long.
    Silent,
    /// Its worker died after the application had been called.
    WorkerDied,
    /// The request's body, which is passed on as it comes, ended before its time.
    Cut,
    /// The server has no descriptor left for its body.
    Resources,
    /// There is no worker, and there will be none until the application can be imported.
    Unavailable,
}

/// Where a request is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place {
    pub(super) serial: u32,
    pub(super) thread: u16,
    pub(super) id: u32,
}

/// A request and the mailbox for its answer.
#[derive(Debug)]
pub(super) struct Exchange {
    /// The environment block of the request.
    pub(super) environment: Vec<u8>,
    /// Its body.
    pub(super) body: Payload,
    /// When it was handed to the pool.
    pub(super) submitted: Instant,
    pub(super) method: Method,
    /// Its route's own deadline.
    pub(super) timeout: Option<Duration>,
    mailbox: Mutex<Mailbox>,
}

#[derive(Debug, Default)]
struct Mailbox {
    /// The oldest event. Most answers are a single one, and need no queue.
    first: Option<Event>,
    /// Those behind it.
    events: VecDeque<Event>,
    sleeper: Option<Sleeper>,
    place: Option<Place>,
    sent: Option<Instant>,
    deaths: u8,
    /// What waits here, as [`Event::weight`] counts it.
    weight: usize,
}

/// What may wait in a mailbox. A worker has credit for a quarter of it; one that sends what nobody takes would fill our
/// memory.
const MOST_WAITING: usize = 4 * INITIAL_CREDIT as usize;

// === impl Event ===

impl Event {
    /// What it costs to keep. An answer that is whole is the last there is, and is bounded by its frame.
    fn weight(&self) -> usize {
        match self {
            Self::Answer(_) | Self::Done(_) | Self::Failed(_) => 0,
            Self::Data(bytes) => bytes.len(),
            Self::Laid(piece) => size_of::<Self>() + piece.length(),
            Self::Inform(bytes) | Self::Head(_, bytes) => size_of::<Self>() + bytes.len(),
            Self::Wants(_) | Self::File { .. } => size_of::<Self>(),
        }
    }
}

impl Event {
    /// Bytes of the body that it brings.
    pub(super) fn brings(&self) -> usize {
        match self {
            Self::Data(bytes) => bytes.len(),
            Self::Laid(piece) => piece.length(),
            _ => 0,
        }
    }
}

// === impl Exchange ===

impl Exchange {
    /// `request`'s environment and body, handed over at `submitted`.
    pub(super) fn new(environment: Vec<u8>, body: Payload, request: &Request, submitted: Instant) -> Arc<Self> {
        let (method, timeout) = (request.head.method(), request.timeout);
        Arc::new(Self { environment, body, submitted, method, timeout, mailbox: Mutex::new(Mailbox::default()) })
    }

    /// Method and target, for logs; read from the environment, since few requests are ever named.
    pub(super) fn what(&self) -> String {
        let mut parts = self.environment.split(|&byte| byte == 0);
        let (mut method, mut target) = (&b""[..], &b""[..]);
        while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            match name {
                b"REQUEST_METHOD" => method = value,
                b"REQUEST_URI" => target = value,
                _ => {}
            }
        }
        format!("{} {}", method.escape_ascii(), target.escape_ascii())
    }

    /// Puts an event into the mailbox; whoever sleeps over it is to be woken once no lock is held. False when too much waits there.
    pub(super) fn post(&self, event: Event, sleepers: &mut Vec<Sleeper>) -> bool {
        let mut mailbox = self.mailbox();
        mailbox.weight += event.weight();
        let has_room = mailbox.weight <= MOST_WAITING;
        if mailbox.first.is_none() {
            mailbox.first = Some(event);
        } else {
            mailbox.events.push_back(event);
        }
        sleepers.extend(mailbox.sleeper.take());
        has_room
    }

    /// The next event.
    pub(super) fn poll_event(&self, context: &Context<'_>) -> Poll<Event> {
        let mut mailbox = self.mailbox();
        if let Some(event) = mailbox.first.take() {
            mailbox.first = mailbox.events.pop_front();
            mailbox.weight -= event.weight();
            return Poll::Ready(event);
        }
        Sleeper::sleep_in(&mut mailbox.sleeper, context);
        Poll::Pending
    }

    /// Remembers where the request was sent.
    pub(super) fn sent_to(&self, place: Place, now: Instant) {
        let mut mailbox = self.mailbox();
        mailbox.place = Some(place);
        mailbox.sent = Some(now);
    }

    /// It waits again.
    pub(super) fn taken_back(&self) {
        self.mailbox().place = None;
    }

    /// Where it is; `None` while it waits.
    pub(super) fn place(&self) -> Option<Place> {
        self.mailbox().place
    }

    /// When it was last sent to a worker.
    pub(super) fn sent(&self) -> Option<Instant> {
        self.mailbox().sent
    }

    /// Whether calling the application twice is the same as once.
    pub(super) fn is_repeatable(&self) -> bool {
        self.method.is_idempotent() && !matches!(self.body, Payload::Stream(_))
    }

    /// Workers that have died while they were at this request.
    pub(super) fn deaths(&self) -> u8 {
        self.mailbox().deaths
    }

    /// A worker has died while it was at this request.
    pub(super) fn has_seen_a_death(&self) {
        self.mailbox().deaths += 1;
    }

    /// A panic while the lock was held left plain data behind: it can be used.
    fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
