//! Counters of one thread.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::histogram::Histogram;
use super::route::RouteId;
use crate::http::{Method, Status, Timing};

/// Names of methods in the order of the counters; what has no name of its own is the last.
pub(super) const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "other"];

/// Classes of status by their first digit.
pub(super) const CLASSES: usize = 6;

/// What one thread has counted.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) opened: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) handshakes: AtomicU64,
    pub(super) failed_handshakes: AtomicU64,
    pub(super) lost_lines: AtomicU64,
    /// Grows when a route is first used on this thread.
    pub(super) routes: Mutex<Vec<(RouteId, Arc<Cells>)>>,
}

/// What one thread has counted of one route.
#[derive(Debug, Default)]
pub(super) struct Cells {
    pub(super) requests: [[AtomicU64; CLASSES]; METHODS.len()],
    pub(super) sent: AtomicU64,
    pub(super) duration: Histogram,
    pub(super) queue: Histogram,
    pub(super) application: Histogram,
}

static SHARDS: Mutex<Vec<Arc<Shard>>> = Mutex::new(Vec::new());

/// This thread's end of its shard.
struct Local {
    shard: Arc<Shard>,
    /// By the number of the route.
    cells: RefCell<Vec<Option<Arc<Cells>>>>,
}

thread_local! {
    static LOCAL: Local = {
        let shard = Arc::new(Shard::default());
        SHARDS.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&shard));
        Local { shard, cells: RefCell::default() }
    };
}

/// Adds to a counter that only this thread writes: no locked instruction is needed, only that no reader sees half of it.
pub(super) fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

pub(super) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

pub(super) fn all() -> Vec<Arc<Shard>> {
    SHARDS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A request was answered with a body of `sent` bytes.
pub fn answered(route: RouteId, method: Method, status: Status, sent: u64, duration: Duration, timing: Timing) {
    LOCAL.with(|local| {
        let mut cells = local.cells.borrow_mut();
        let at = route.0 as usize;
        if at >= cells.len() {
            cells.resize(at + 1, None);
        }
        let cells = cells[at].get_or_insert_with(|| {
            let made = Arc::new(Cells::default());
            local.shard.routes.lock().unwrap_or_else(PoisonError::into_inner).push((route, Arc::clone(&made)));
            made
        });
        let class = usize::from(status.code() / 100).min(CLASSES - 1);
        bump(&cells.requests[method_index(method)][class], 1);
        bump(&cells.sent, sent);
        cells.duration.observe(duration);
        if let Some(queue) = timing.queue {
            cells.queue.observe(queue);
        }
        if let Some(application) = timing.application {
            cells.application.observe(application);
        }
    });
}

fn method_index(method: Method) -> usize {
    match method {
        Method::Get => 0,
        Method::Head => 1,
        Method::Post => 2,
        Method::Put => 3,
        Method::Patch => 4,
        Method::Delete => 5,
        Method::Options => 6,
        Method::Trace => 7,
        Method::Connect => 8,
        Method::Other => 9,
    }
}

/// Bytes came from a client.
pub fn received(bytes: usize) {
    LOCAL.with(|local| bump(&local.shard.received, bytes as u64));
}

/// A connection was accepted.
pub fn connection_opened() {
    LOCAL.with(|local| bump(&local.shard.opened, 1));
}

/// A connection has ended.
pub fn connection_closed() {
    LOCAL.with(|local| bump(&local.shard.closed, 1));
}

/// A TLS handshake has come through, or has not.
pub fn tls_handshake(succeeded: bool) {
    LOCAL.with(|local| {
        bump(if succeeded { &local.shard.handshakes } else { &local.shard.failed_handshakes }, 1);
    });
}

/// Lines of a log were lost.
pub fn lost_lines(lines: u64) {
    LOCAL.with(|local| bump(&local.shard.lost_lines, lines));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_counted_under_its_own_name() {
        for name in METHODS.iter().filter(|&&name| name != "other") {
            assert_eq!(METHODS[method_index(Method::from_name(name.as_bytes()))], *name);
        }
        assert_eq!(METHODS[method_index(Method::from_name(b"PROPFIND"))], "other");
    }
}
