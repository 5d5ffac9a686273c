//! What an answer has to say, on its way from the future that makes it to the socket: in one task, so that nobody has to
//! be woken.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use bytes::Bytes;

use crate::http::Status;

/// Bytes that wait before whoever makes them is held up.
const MOST: usize = 64 * 1024;

/// Both ends have one.
#[derive(Clone, Default)]
pub(super) struct Outbox(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    parts: VecDeque<Bytes>,
    held: usize,
    /// Whether the answer failed.
    is_broken: bool,
    /// What the failure of the request's body asks for.
    failure: Option<Status>,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts bytes in once there is room.
    pub(super) async fn put(&self, bytes: Bytes) {
        std::future::poll_fn(|_| if self.lock().held < MOST { Poll::Ready(()) } else { Poll::Pending }).await;
        self.put_now(bytes);
    }

    /// Puts bytes in.
    pub(super) fn put_now(&self, bytes: Bytes) {
        let mut waiting = self.lock();
        waiting.held += bytes.len();
        waiting.parts.push_back(bytes);
    }

    /// The next bytes.
    pub(super) fn take(&self) -> Option<Bytes> {
        let mut waiting = self.lock();
        let bytes = waiting.parts.pop_front()?;
        waiting.held -= bytes.len();
        Some(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().parts.is_empty()
    }

    /// The answer will not come to its end.
    pub(super) fn break_off(&self) {
        self.lock().is_broken = true;
    }

    pub(super) fn is_broken(&self) -> bool {
        self.lock().is_broken
    }

    /// The body of the request failed.
    pub(super) fn fail(&self, status: Status) {
        self.lock().failure.get_or_insert(status);
    }

    pub(super) fn failure(&self) -> Option<Status> {
        self.lock().failure
    }
}
