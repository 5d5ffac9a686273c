//! One server: what it is, how it has been, and the connections that are kept to it.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::abilities::Abilities;
use super::circuit::Circuit;
use super::multiplexed::{self, Opened, Slot};
use super::place::Reuse;
use super::settings::{Scheme, ServerSettings};
use super::shared;
use super::slow::Times;
use super::socket::{Connection, Secured, Socket};
use super::sticky::{self, Id};

/// Lists of kept connections: each event loop looks into its own first, because a connection is cheapest where it was
/// made.
const SHARDS: usize = 16;

/// A server as the settings of now describe it. What has been found out about it outlives them.
pub struct Server {
    pub(super) settings: ServerSettings,
    /// `Host` for itself.
    pub(super) authority: String,
    pub(super) id: Id,
    /// When it is asked: backups after all others, and those of a service by their priority.
    pub(super) tier: u32,
    pub(super) secured: Option<Secured>,
    pub(super) state: Arc<State>,
}

/// What has been found out about a server.
pub(super) struct State {
    /// Requests that it has now.
    pub(super) active: AtomicUsize,
    /// Whether it was told to get nothing new.
    pub(super) is_drained: AtomicBool,
    /// The verdict of the questions for its health.
    pub(super) is_well: AtomicBool,
    pub(super) circuit: Mutex<Circuit>,
    /// When it came or came back, for a slow start.
    since: Mutex<Option<Instant>>,
    /// When it was last heard of, by an answer or by none: milliseconds after `BEGIN`, and one; 0 for never.
    heard: AtomicU64,
    /// Requests and failures since the start.
    pub(super) requests: AtomicU64,
    pub(super) failures: AtomicU64,
    /// How long its answers take, where somebody wants to know.
    pub(super) times: Times,
    /// Connections that requests share.
    opened: Mutex<Vec<Opened>>,
    /// What it says that it can do, where it speaks FastCGI, and those of its connections that requests share.
    pub(super) abilities: Arc<Abilities>,
    shared: Mutex<Vec<shared::Opened>>,
    /// Held while another one of those is made, so that a burst makes one.
    opening: tokio::sync::Mutex<()>,
    idle: [Mutex<Vec<Idle>>; SHARDS],
    kept: AtomicUsize,
    /// Requests that nobody may have accepted because kept connections hold the processes that would.
    hungry: AtomicUsize,
}

/// A request that has waited long for its server to accept it. Until it is dropped no connection is kept.
pub struct Hungry(Arc<Server>);

/// A connection without a request.
struct Idle {
    connection: Connection,
    since: Instant,
}

/// What times are counted from.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

thread_local! {
    static SHARD: Cell<usize> = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS)
    };
}

// === impl Server ===

impl Server {
    /// `priority` is among the records of a service.
    pub(super) fn new(
        (settings, priority): (ServerSettings, u16),
        authority: String,
        secured: Option<Secured>,
        state: Arc<State>,
    ) -> Self {
        let tier = u32::from(settings.backup) << u16::BITS | u32::from(priority);
        Self { authority, id: sticky::id(&settings.url), tier, settings, secured, state }
    }

    /// Whether an operator may mean it by this: its URL, host and port, or host; or the name that led to it.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.settings.is_called(name) || name == self.authority
    }

    /// Its name in logs.
    pub fn name(&self) -> &str {
        &self.settings.url
    }

    /// How it is spoken to.
    pub fn scheme(&self) -> Scheme {
        self.settings.scheme
    }

    /// What stands in `Host` for itself.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Its name without a port: the one that was followed, where one was.
    pub fn host(&self) -> &str {
        let bare = match self.authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => host,
            _ => &self.authority,
        };
        bare.trim_start_matches('[').trim_end_matches(']')
    }

    /// Takes a place among `max_connections`, if there is one.
    pub(super) fn enter(&self) -> bool {
        let most = self.most();
        let grown = |active: usize| (active < most).then_some(active + 1);
        self.state.active.fetch_update(Ordering::SeqCst, Ordering::SeqCst, grown).is_ok()
    }

    /// Whether it has such a place.
    pub(super) fn has_room(&self) -> bool {
        self.state.active.load(Ordering::SeqCst) < self.most()
    }

    fn most(&self) -> usize {
        self.settings.max_connections.unwrap_or(usize::MAX).min(self.state.abilities.requests())
    }

    /// Whether it is well as far as anybody knows.
    pub(super) fn is_available(&self, now: Instant) -> bool {
        self.state.is_well.load(Ordering::Relaxed) && lock(&self.state.circuit).admits(now)
    }

    /// Its share: less than its weight for a while after it came back.
    pub(super) fn weight(&self, slow_start: Duration, now: Instant) -> f64 {
        let whole = f64::from(self.settings.weight);
        if slow_start.is_zero() {
            return whole;
        }
        let Some(since) = *lock(&self.state.since) else { return whole };
        let part = now.saturating_duration_since(since).as_secs_f64() / slow_start.as_secs_f64();
        whole * part.clamp(0.1, 1.0)
    }
}

// === impl Hungry ===

impl Hungry {
    pub(super) fn new(server: &Arc<Server>) -> Self {
        server.state.hungry.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(server))
    }

    /// One kept connection less.
    pub fn make_room(&self) {
        self.0.state.make_room();
    }
}

impl Drop for Hungry {
    fn drop(&mut self) {
        self.0.state.hungry.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl State ===

impl State {
    /// A server of which nothing is known. One that `joins` others at work starts slowly.
    pub(super) fn new(joins: bool) -> Arc<Self> {
        Arc::new(Self {
            active: AtomicUsize::new(0),
            is_drained: AtomicBool::new(false),
            is_well: AtomicBool::new(true),
            circuit: Mutex::new(Circuit::Closed { failures: 0 }),
            since: Mutex::new(joins.then(Instant::now)),
            heard: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            times: Times::default(),
            opened: Mutex::default(),
            abilities: Abilities::new(),
            shared: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            idle: [const { Mutex::new(Vec::new()) }; SHARDS],
            kept: AtomicUsize::new(0),
            hungry: AtomicUsize::new(0),
        })
    }

    /// It is asked again.
    pub(super) fn came_back(&self) {
        *lock(&self.since) = Some(Instant::now());
        // It may be another program.
        self.abilities.forget();
    }

    /// It has answered, or has not when it should have.
    pub(super) fn hear(&self) {
        self.heard.store(BEGIN.elapsed().as_millis() as u64 + 1, Ordering::Relaxed);
    }

    /// How long ago it was heard of.
    pub(super) fn age(&self) -> Option<Duration> {
        let heard = self.heard.load(Ordering::Relaxed).checked_sub(1)?;
        Some(BEGIN.elapsed().saturating_sub(Duration::from_millis(heard)))
    }

    /// A kept connection that is as its last answer left it. The youngest: the others grow old enough to be closed.
    pub(super) fn take(&self, timeout: Duration, reuse: Reuse) -> Option<Connection> {
        if reuse == Reuse::Never || self.kept.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let own = SHARD.get();
        for shard in (0..SHARDS).map(|at| (own + at) % SHARDS) {
            loop {
                let Some(mut idle) = lock(&self.idle[shard]).pop() else { break };
                self.kept.fetch_sub(1, Ordering::Relaxed);
                // What another event loop knows of its connections may come later than the request.
                let asks_kernel = reuse != Reuse::Likely || shard != own;
                if idle.since.elapsed() < timeout && idle.connection.is_clean(asks_kernel) {
                    idle.connection.is_reused = true;
                    return Some(idle.connection);
                }
            }
        }
        None
    }

    /// Keeps a connection for the next request, where there is room.
    pub(super) fn keep(&self, connection: Connection, most: usize) {
        if self.hungry.load(Ordering::Relaxed) > 0 {
            return;
        }
        let grown = |kept: usize| (kept < most).then_some(kept + 1);
        if self.kept.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok() {
            lock(&self.idle[SHARD.get()]).push(Idle { connection, since: Instant::now() });
        }
    }

    /// Closes a connection that is kept: whoever has it accepts another one then.
    pub(super) fn make_room(&self) {
        let oldest = |shard: &Mutex<Vec<Idle>>| {
            let mut idle = lock(shard);
            (!idle.is_empty()).then(|| idle.remove(0))
        };
        if self.idle.iter().find_map(oldest).is_some() {
            self.kept.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A place on a connection that requests share.
    pub(super) fn slot(&self) -> Option<Slot> {
        multiplexed::take(&mut lock(&self.opened), SHARD.get())
    }

    /// Opens another one of those. Requests that came meanwhile may have, too: one too many ends when it is idle.
    pub(super) async fn open(&self, server: &Server) -> io::Result<Slot> {
        let (opened, slot) = multiplexed::open(server, SHARD.get()).await?;
        lock(&self.opened).push(opened);
        Ok(slot)
    }

    /// A place on a FastCGI connection that requests share, on a new one where the others have none.
    pub(super) async fn share(&self, server: &Server) -> io::Result<Connection> {
        let (shard, abilities) = (SHARD.get(), &self.abilities);
        let take = || shared::take(&mut lock(&self.shared), shard, abilities);
        if let Some(stream) = take() {
            return Ok(Connection::over(Socket::Shared(stream), true));
        }
        let _opening = self.opening.lock().await;
        if let Some(stream) = take() {
            return Ok(Connection::over(Socket::Shared(stream), true));
        }
        let connection = Connection::open(&server.settings.address, server.secured.as_ref()).await?;
        let (opened, stream) = shared::open(connection.socket, shard, abilities);
        lock(&self.shared).push(opened);
        Ok(Connection::over(Socket::Shared(stream), false))
    }

    /// Closes connections that are too old or that the server has closed.
    pub(super) fn sweep(&self, timeout: Duration) {
        multiplexed::sweep(&mut lock(&self.opened), timeout);
        shared::sweep(&mut lock(&self.shared), timeout);
        for shard in &self.idle {
            let mut idle = lock(shard);
            let before = idle.len();
            idle.retain_mut(|idle| idle.since.elapsed() < timeout && idle.connection.is_clean(true));
            self.kept.fetch_sub(before - idle.len(), Ordering::Relaxed);
        }
    }

    /// Connections that are kept.
    pub(super) fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed) + lock(&self.opened).len() + lock(&self.shared).len()
    }
}

/// A panic while the lock was held left plain data behind: it can be used.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
