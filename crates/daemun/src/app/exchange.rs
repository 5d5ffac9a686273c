//! One request on its way to a worker and back: what was asked, and a mailbox for what is answered.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use daemun_protocol::frame::{Answer, Ending};

use super::spool::Payload;
use crate::http::Method;

/// What comes back for a request.
#[derive(Debug)]
pub(super) enum Event {
    /// All of it at once.
    Answer(Answer),
    /// An interim response (1xx), a head only; the answer is still awaited.
    Inform(Bytes),
    /// Microseconds to get here, status and fields; the body follows.
    Head(u32, Bytes),
    /// A piece of the body.
    Data(Bytes),
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
    /// Its worker died after the application had been called.
    WorkerDied,
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
    mailbox: Mutex<Mailbox>,
}

#[derive(Debug, Default)]
struct Mailbox {
    /// The oldest event. Most answers are a single one, and need no queue.
    first: Option<Event>,
    /// Those behind it.
    events: VecDeque<Event>,
    waker: Option<Waker>,
    place: Option<Place>,
    sent: Option<Instant>,
    tries: u8,
}

impl Exchange {
    pub(super) fn new(environment: Vec<u8>, body: Payload, method: Method, submitted: Instant) -> Arc<Self> {
        Arc::new(Self { environment, body, submitted, method, mailbox: Mutex::new(Mailbox::default()) })
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

    /// Puts an event into the mailbox; the waker is to be woken once no lock is held.
    pub(super) fn post(&self, event: Event, wakers: &mut Vec<Waker>) {
        let mut mailbox = self.mailbox();
        if mailbox.first.is_none() {
            mailbox.first = Some(event);
        } else {
            mailbox.events.push_back(event);
        }
        wakers.extend(mailbox.waker.take());
    }

    /// The next event.
    pub(super) fn poll_event(&self, context: &Context<'_>) -> Poll<Event> {
        let mut mailbox = self.mailbox();
        if let Some(event) = mailbox.first.take() {
            mailbox.first = mailbox.events.pop_front();
            return Poll::Ready(event);
        }
        match &mut mailbox.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Remembers where the request was sent.
    pub(super) fn sent_to(&self, place: Place, now: Instant) {
        let mut mailbox = self.mailbox();
        mailbox.place = Some(place);
        mailbox.sent = Some(now);
        mailbox.tries = mailbox.tries.saturating_add(1);
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

    /// How often it was sent to a worker.
    pub(super) fn tries(&self) -> u8 {
        self.mailbox().tries
    }

    /// A panic while the lock was held left plain data behind: it can be used.
    fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
