//! Requests in flight, and the last ones that were slow or failed: what the live page tells beyond counters.
//!
//! Nothing is kept unless somebody may look ([`watch`]). Then each event loop keeps the requests of its own, so that
//! the lock it takes is its own but for the moment in which somebody looks.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::metrics::{self, RouteId};
use crate::http::{RequestHead, RequestId, Status, Timing};

/// A request that took this long is remembered as slow: longer than a visitor calls prompt.
const SLOW: Duration = Duration::from_millis(500);

/// Requests that are remembered, slow and failed each.
const REMEMBERED: usize = 50;

/// Bytes of a target that are told.
const MAX_TARGET: usize = 2_000;

/// Bytes of an application's own `Server-Timing` that are told.
const MAX_TIMING: usize = 1_000;

static WATCHED: AtomicBool = AtomicBool::new(false);
static SHARDS: Mutex<Vec<Arc<Shard>>> = Mutex::new(Vec::new());
static SLOW_ONES: Mutex<VecDeque<Finished>> = Mutex::new(VecDeque::new());
static FAILED_ONES: Mutex<VecDeque<Finished>> = Mutex::new(VecDeque::new());

thread_local! {
    static LOCAL: OnceCell<Arc<Shard>> = const { OnceCell::new() };
}

/// Requests that one event loop is answering.
#[derive(Debug, Default)]
struct Shard(Mutex<Slots>);

#[derive(Debug, Default)]
struct Slots {
    flights: Vec<Option<Arc<Flight>>>,
    free: Vec<usize>,
}

/// A request in flight.
#[derive(Debug)]
pub struct Flight {
    /// Its head.
    pub head: RequestHead,
    /// What it is called.
    pub id: RequestId,
    /// Who asks; `None` on a Unix socket.
    pub client: Option<IpAddr>,
    /// When its head was complete.
    pub received: Instant,
    /// The route that it took last.
    route: AtomicU64,
    /// When there was an answer to send, and what the application said of where the time went.
    answered: OnceLock<(Duration, Option<Box<str>>)>,
}

/// A request's entry among those in flight. It goes with the request.
#[derive(Debug)]
pub struct Entered {
    flight: Arc<Flight>,
    shard: Arc<Shard>,
    at: usize,
}

/// A request that was slow or has failed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Finished {
    /// What it is called: the reference on its error page.
    pub id: String,
    /// When it was over, in seconds since 1970.
    pub at: f64,
    /// Method and target; the target is left out for those who may not see it.
    pub method: String,
    /// See `method`.
    pub target: Option<String>,
    /// Who asked.
    pub client: Option<String>,
    /// The pattern of its route.
    pub route: String,
    /// Its application, where it has one.
    pub app: String,
    /// How it was answered.
    pub status: u16,
    /// Bytes of the body that were sent.
    pub bytes: u64,
    /// Seconds waiting for a worker.
    pub queue: Option<f64>,
    /// Seconds in the application.
    pub application: Option<f64>,
    /// Seconds until there was an answer to send.
    pub answered: Option<f64>,
    /// Seconds until all of it was sent.
    pub duration: f64,
    /// What the application itself said of where the time went: its `Server-Timing`.
    pub told: Option<String>,
}

/// Whether requests are kept from now on.
pub fn watch(watched: bool) {
    WATCHED.store(watched, Ordering::Relaxed);
}

/// Whether somebody may look.
pub fn is_watched() -> bool {
    WATCHED.load(Ordering::Relaxed)
}

/// Puts a request among those in flight.
pub fn enter(head: &RequestHead, id: &RequestId, client: Option<IpAddr>, received: Instant) -> Entered {
    let flight = Arc::new(Flight {
        head: head.clone(),
        id: id.clone(),
        client,
        received,
        route: AtomicU64::new(0),
        answered: OnceLock::new(),
    });
    let shard = LOCAL.with(|local| {
        Arc::clone(local.get_or_init(|| {
            let made = Arc::new(Shard::default());
            lock(&SHARDS).push(Arc::clone(&made));
            made
        }))
    });
    let mut slots = lock(&shard.0);
    let at = slots.free.pop().unwrap_or_else(|| {
        slots.flights.push(None);
        slots.flights.len() - 1
    });
    slots.flights[at] = Some(Arc::clone(&flight));
    drop(slots);
    Entered { flight, shard, at }
}

/// All requests in flight, the oldest first.
pub fn all() -> Vec<Arc<Flight>> {
    let shards = lock(&SHARDS).clone();
    let mut found: Vec<_> =
        shards.iter().flat_map(|shard| lock(&shard.0).flights.iter().flatten().cloned().collect::<Vec<_>>()).collect();
    found.sort_by_key(|flight| flight.received);
    found
}

/// The last requests that were slow and the last that failed, the newest first.
pub fn remembered() -> (Vec<Finished>, Vec<Finished>) {
    let newest_first = |ring: &Mutex<VecDeque<Finished>>| lock(ring).iter().rev().cloned().collect();
    (newest_first(&SLOW_ONES), newest_first(&FAILED_ONES))
}

// === impl Flight ===

impl Flight {
    /// The labels of the route that it took last: pattern and application.
    pub fn route(&self) -> metrics::Labels {
        metrics::labels(RouteId(self.route.load(Ordering::Relaxed) as u32))
    }

    /// Whether its answer is being sent.
    pub fn is_answered(&self) -> bool {
        self.answered.get().is_some()
    }
}

// === impl Entered ===

impl Entered {
    /// The request took this route.
    pub fn take(&self, route: RouteId) {
        self.flight.route.store(route.0.into(), Ordering::Relaxed);
    }

    /// There is an answer; `told` is the application's own `Server-Timing`.
    pub fn answered(&self, told: Option<&[u8]>) {
        let told = told.map(|told| String::from_utf8_lossy(&told[..told.len().min(MAX_TIMING)]).into());
        // The first answer is the one that was awaited.
        let _ = self.flight.answered.set((self.flight.received.elapsed(), told));
    }

    /// It is over. What was slow, or failed by our fault, is remembered; `target` as logs may hold it.
    pub fn finish(&self, target: &[u8], status: Status, bytes: u64, timing: Timing) {
        let duration = self.flight.received.elapsed();
        let failed = status.code() >= 500;
        if !failed && duration < SLOW {
            return;
        }
        let flight = &self.flight;
        let labels = flight.route();
        let (answered, told) = flight.answered.get().cloned().unzip();
        let finished = Finished {
            id: flight.id.to_string(),
            at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            method: flight.head.method_name().to_owned(),
            target: Some(shown(target)),
            client: flight.client.map(|client| client.to_canonical().to_string()),
            route: labels.route,
            app: labels.app,
            status: status.code(),
            bytes,
            queue: timing.queue.map(|time| time.as_secs_f64()),
            application: timing.application.map(|time| time.as_secs_f64()),
            answered: answered.map(|time| time.as_secs_f64()),
            duration: duration.as_secs_f64(),
            told: told.flatten().map(String::from),
        };
        if duration >= SLOW {
            push(&SLOW_ONES, finished.clone());
        }
        if failed {
            push(&FAILED_ONES, finished);
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut slots = lock(&self.shard.0);
        slots.flights[self.at] = None;
        slots.free.push(self.at);
    }
}

/// A target as it may be shown: printable, and no longer than anybody reads.
pub fn shown(target: &[u8]) -> String {
    target[..target.len().min(MAX_TARGET)].escape_ascii().to_string()
}

fn push(ring: &Mutex<VecDeque<Finished>>, finished: Finished) {
    let mut ring = lock(ring);
    if ring.len() == REMEMBERED {
        ring.pop_front();
    }
    ring.push_back(finished);
}

/// Plain data: usable even if a thread panicked while it held the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::http::h1::{HeadLimits, parse_head};

    const LIMITS: HeadLimits = HeadLimits { max_head: 65_536, max_request_line: 16_384, max_fields: 100 };

    fn entered(target: &str) -> Entered {
        let head = Bytes::from(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let head = parse_head(&head, &LIMITS).unwrap().head;
        enter(&head, &RequestId::next(), None, Instant::now())
    }

    fn in_flight(target: &str) -> usize {
        all().iter().filter(|flight| flight.head.target() == target.as_bytes()).count()
    }

    #[test]
    fn a_request_is_in_flight_until_it_is_gone_and_its_place_is_used_again() {
        let (one, other) = (entered("/in-flight/one"), entered("/in-flight/other"));
        assert_eq!((in_flight("/in-flight/one"), in_flight("/in-flight/other")), (1, 1));
        let at = one.at;
        drop(one);
        assert_eq!((in_flight("/in-flight/one"), in_flight("/in-flight/other")), (0, 1));
        assert_eq!(entered("/in-flight/third").at, at);
        drop(other);
    }

    #[test]
    fn only_what_failed_or_took_long_is_remembered_and_no_more_than_can_be_read() {
        let remembered = |prefix: &str| -> Vec<Finished> {
            let (_, failed) = remembered();
            failed.into_iter().filter(|one| one.target.as_deref().unwrap().starts_with(prefix)).collect()
        };
        let good = entered("/remembered/good");
        good.finish(b"/remembered/good", Status::OK, 1, Timing::default());
        assert!(remembered("/remembered/").is_empty());
        for number in 0..60 {
            let bad = entered("/remembered/bad");
            bad.answered(Some(b"db;dur=3"));
            bad.finish(format!("/remembered/{number}").as_bytes(), Status::BAD_GATEWAY, 0, Timing::default());
        }
        let found = remembered("/remembered/");
        assert_eq!(found.len(), REMEMBERED);
        assert_eq!(found[0].target.as_deref(), Some("/remembered/59"));
        assert_eq!((found[0].status, found[0].told.as_deref()), (502, Some("db;dur=3")));
        assert!(found[0].answered.is_some_and(|answered| answered <= found[0].duration));
    }
}
