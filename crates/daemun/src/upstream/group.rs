//! The servers of one upstream: which of them gets a request, who waits, and how often anything is tried again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::balance::{self, Candidate};
use super::circuit::{Change, Circuit};
use super::discovery::{Endpoint, Found, Name};
use super::line::Line;
use super::place::Place;
use super::server::{Server, State, lock};
use super::settings::{Balance, HashKey, Scheme, ServerSettings, UpstreamSettings};
use super::socket::Secured;
use super::{sticky, tls};

/// Says what an operator should know.
pub type Teller = Arc<dyn Fn(&str) + Send + Sync>;

/// Retries that are granted before any request has paid for them: the first failure must not be final.
const FREE_RETRIES: i64 = 10;

/// What one retry costs, in the parts that requests pay.
const RETRY: i64 = 100;

/// The servers of one upstream. It outlives reloads; [`Group::update`] gives it new settings.
pub struct Group {
    name: String,
    serving: ArcSwap<Serving>,
    /// What the names of its servers stand for. Held while `serving` changes, so that no change is lost.
    found: Mutex<Found>,
    /// What each server has gathered towards its turn.
    gathered: Mutex<Vec<f64>>,
    turn: AtomicUsize,
    draws: AtomicU64,
    pub(super) freed: Notify,
    pub(super) waiting: AtomicUsize,
    /// Those that wait in turn; the others wait for a server of their own.
    pub(super) line: Line,
    /// Parts of retries that requests have paid.
    budget: AtomicI64,
    /// What cookies are signed with where the settings have no key.
    key: [u8; 32],
    pub(super) tell: Teller,
}

/// Settings and servers of now.
pub struct Serving {
    /// The settings.
    pub settings: UpstreamSettings,
    /// What TLS is spoken with to each of the servers that were written.
    secured: Vec<Option<Secured>>,
    /// Those that requests go to: as they were written, or what their names stand for.
    pub(super) servers: Vec<Arc<Server>>,
    /// Whether a name was not looked up yet: who finds no server waits.
    is_unsettled: bool,
}

/// What is known of a request for choosing a server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// The key of [`Balance::Hash`].
    pub key: &'a [u8],
    /// The value of the sticky cookie.
    pub cookie: Option<&'a [u8]>,
}

/// Why there is no server for a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoServer {
    /// None that could be asked is left.
    #[error("no server is left that could be asked")]
    None,
    /// All are at their limit, and too many requests wait already.
    #[error("every server is at `max_connections`, and `queue.max` requests wait already")]
    QueueFull,
    /// All stayed at their limit.
    #[error("every server stayed at `max_connections` for `queue.timeout`")]
    QueueTimeout,
    /// Nobody could tell in time where they are.
    #[error("no name of a server was looked up within `queue.timeout`")]
    Unresolved,
}

/// How a server is, for `daemun status`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerStatus {
    /// The server as it was written.
    pub url: String,
    /// `up`, `down`, `ejected`, `probing` or `drained`; `unresolved` for a name that stands for no server.
    pub state: &'static str,
    /// How long ago it was last heard of, by an answer or by none when there should have been one; `None` for never.
    pub age: Option<Duration>,
    /// Requests that it has now.
    pub active: usize,
    /// Connections that are kept to it.
    pub kept: usize,
    /// Requests since the start.
    pub requests: u64,
    /// Those of them that failed.
    pub failures: u64,
}

/// What a look at the servers came to.
pub(super) enum Choice {
    Found(Place),
    /// All are at their limit, or a name is still looked up.
    Later,
    None,
}

impl Group {
    /// A group with these settings. The error names what cannot be used.
    pub fn new(settings: UpstreamSettings, tell: Teller) -> Result<Arc<Self>, String> {
        let mut key = [0_u8; 32];
        rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty()).map_err(|error| error.to_string())?;
        let found = Found::new();
        let serving = Serving::new(settings)?.populated(None, &found);
        Ok(Arc::new(Self {
            name: serving.settings.name.clone(),
            serving: ArcSwap::from_pointee(serving),
            found: Mutex::new(found),
            gathered: Mutex::default(),
            turn: AtomicUsize::new(0),
            draws: AtomicU64::new(0),
            freed: Notify::new(),
            waiting: AtomicUsize::new(0),
            line: Line::default(),
            budget: AtomicI64::new(FREE_RETRIES * RETRY),
            key,
            tell,
        }))
    }

    /// Its name in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Settings and servers of now.
    pub fn serving(&self) -> Arc<Serving> {
        self.serving.load_full()
    }

    /// Makes ready what other settings need; [`Group::update`] puts it to use.
    pub fn prepare(&self, settings: UpstreamSettings) -> Result<Serving, String> {
        Serving::new(settings)
    }

    /// From now on these are the settings: a server that was drained by hand is asked again. One that stays keeps its
    /// health and its connections; what one that is gone has begun it finishes.
    pub fn update(&self, serving: Serving) {
        let found = lock(&self.found);
        self.swap(serving, &found);
        drop(found);
        for server in &self.serving.load().servers {
            server.state.is_drained.store(false, Ordering::Relaxed);
        }
        self.changed();
    }

    /// A name stands for this now, or nobody knows; what it stood for before, where that was something else.
    pub(super) fn learn(&self, name: &Name, endpoints: Option<BTreeSet<Endpoint>>) -> Option<BTreeSet<Endpoint>> {
        let mut found = lock(&self.found);
        let before = found.get(name).cloned();
        let now = endpoints.or_else(|| before.clone()).unwrap_or_default();
        if before.as_ref() == Some(&now) {
            return None;
        }
        found.insert(name.clone(), now);
        let Serving { settings, secured, .. } = &*self.serving.load_full();
        found.retain(|name, _| settings.servers.iter().any(|server| Name::of(server).as_ref() == Some(name)));
        let fresh =
            Serving { settings: settings.clone(), secured: secured.clone(), servers: Vec::new(), is_unsettled: true };
        self.swap(fresh, &found);
        drop(found);
        self.changed();
        Some(before.unwrap_or_default())
    }

    /// What a name stands for.
    pub(super) fn known(&self, name: &Name) -> BTreeSet<Endpoint> {
        lock(&self.found).get(name).cloned().unwrap_or_default()
    }

    fn swap(&self, serving: Serving, found: &Found) {
        let before = self.serving.load_full();
        let now = Arc::new(serving.populated(Some(&before), found));
        self.serving.store(Arc::clone(&now));
        for server in &before.servers {
            if !now.servers.iter().any(|other| Arc::ptr_eq(&other.state, &server.state)) {
                server.state.sweep(Duration::ZERO);
            }
        }
        lock(&self.gathered).clear();
    }

    /// A server for a request, waited for where all are at their limit: whoever comes first is served first, unless
    /// requests belong to one server each, and one of them would wait for another's.
    pub async fn place(self: &Arc<Self>, wanted: &Wanted<'_>) -> Result<Place, NoServer> {
        let serving = self.serving();
        let is_keyed = Self::is_keyed(&serving);
        if is_keyed || self.waiting.load(Ordering::SeqCst) == 0 {
            match self.choose_of(&serving, wanted, &[]) {
                Choice::Found(place) => return Ok(place),
                Choice::None => return Err(NoServer::None),
                Choice::Later => {}
            }
        }
        let settings = &serving.settings;
        let _one = Waiting::new(&self.waiting);
        if self.waiting.load(Ordering::Relaxed) > settings.queue_max {
            return Err(NoServer::QueueFull);
        }
        let found = if is_keyed {
            Box::pin(tokio::time::timeout(settings.queue_timeout, self.at_its_own(wanted))).await.ok()
        } else {
            self.in_turn(wanted, settings.queue_timeout).await
        };
        let is_unsettled = || self.serving.load().is_unsettled;
        found.unwrap_or_else(|| Err(if is_unsettled() { NoServer::Unresolved } else { NoServer::QueueTimeout }))
    }

    /// A place where only some servers will do: who waits for one looks whenever any has room.
    async fn at_its_own(self: &Arc<Self>, wanted: &Wanted<'_>) -> Result<Place, NoServer> {
        loop {
            let mut notified = std::pin::pin!(self.freed.notified());
            // Before looking, so that a place that is freed meanwhile is not missed.
            notified.as_mut().enable();
            match self.choose(wanted, &[]) {
                Choice::Found(place) => return Ok(place),
                Choice::None => return Err(NoServer::None),
                Choice::Later => notified.await,
            }
        }
    }

    /// Another server for a request that `tried` could not answer; none where that would cost too much. Nobody waits for
    /// a second chance.
    pub fn another(self: &Arc<Self>, wanted: &Wanted<'_>, tried: &[Arc<Server>]) -> Option<Place> {
        let spent = |left: i64| (left >= RETRY).then_some(left - RETRY);
        match self.choose(wanted, tried) {
            Choice::Found(place) => {
                self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spent).is_ok().then_some(place)
            }
            Choice::Later | Choice::None => None,
        }
    }

    /// The value of a cookie that leads back to this server, where the client has none that does.
    pub fn cookie(&self, serving: &Serving, server: &Server, shown: Option<&[u8]>) -> Option<(String, String)> {
        let sticky = serving.settings.sticky.as_ref()?;
        let value = sticky::sign(self.key(serving), server.id);
        (shown != Some(value.as_bytes())).then(|| (sticky.cookie.clone(), value))
    }

    /// How the servers are.
    pub fn status(&self) -> Vec<ServerStatus> {
        let now = Instant::now();
        let serving = self.serving.load();
        let status = |server: &Arc<Server>| {
            let state = &server.state;
            let circuit = *lock(&state.circuit);
            let told = match circuit {
                _ if state.is_drained.load(Ordering::Relaxed) => "drained",
                _ if !state.is_well.load(Ordering::Relaxed) => "down",
                Circuit::Closed { .. } => "up",
                Circuit::Open { until, .. } if until > now => "ejected",
                Circuit::Open { .. } | Circuit::HalfOpen { .. } => "probing",
            };
            ServerStatus {
                url: server.settings.url.clone(),
                state: told,
                age: state.age(),
                active: state.active.load(Ordering::Relaxed),
                kept: state.kept(),
                requests: state.requests.load(Ordering::Relaxed),
                failures: state.failures.load(Ordering::Relaxed),
            }
        };
        let unknown = |written: &ServerSettings| {
            let is_unknown = Name::of(written).is_some_and(|name| self.known(&name).is_empty());
            is_unknown.then(|| ServerStatus::unresolved(written.url.clone()))
        };
        let unknown = serving.settings.servers.iter().filter_map(unknown);
        serving.servers.iter().map(status).chain(unknown).collect()
    }

    /// Has a server get nothing new, or something again: by its URL, host and port, or host. Those that were meant.
    pub fn drain(&self, server: &str, is_drained: bool) -> Vec<String> {
        let serving = self.serving.load();
        let meant: Vec<_> = serving.servers.iter().filter(|one| one.is_called(server)).collect();
        for server in &meant {
            server.state.is_drained.store(is_drained, Ordering::Relaxed);
            if is_drained {
                server.state.sweep(Duration::ZERO);
            }
        }
        self.changed();
        meant.iter().map(|server| server.name().to_owned()).collect()
    }

    /// Whether requests for the same server wait for just that one.
    pub(super) fn is_keyed(serving: &Serving) -> bool {
        serving.settings.sticky.is_some() || matches!(serving.settings.balance, Balance::Hash(_))
    }

    /// Tells what a request's end has changed.
    pub(super) fn report(&self, server: &Server, change: Change) {
        let (name, url) = (&self.name, server.name());
        match change {
            Change::None => {}
            Change::Ejected(time) => {
                server.state.sweep(Duration::ZERO);
                (self.tell)(&format!("upstream {name}: {url} gets nothing for {} s: it failed", time.as_secs_f32()));
            }
            Change::Back => {
                server.state.came_back();
                (self.tell)(&format!("upstream {name}: {url} answers again"));
            }
        }
    }

    fn key<'a>(&'a self, serving: &'a Serving) -> &'a [u8] {
        let own = serving.settings.sticky.as_ref().and_then(|sticky| sticky.key.as_ref());
        own.map_or(&self.key[..], |key| key.as_bytes())
    }

    pub(super) fn choose(self: &Arc<Self>, wanted: &Wanted<'_>, tried: &[Arc<Server>]) -> Choice {
        self.choose_of(&self.serving(), wanted, tried)
    }

    fn choose_of(self: &Arc<Self>, serving: &Arc<Serving>, wanted: &Wanted<'_>, tried: &[Arc<Server>]) -> Choice {
        let now = Instant::now();
        let mut candidates = serving.candidates(tried, now);
        if candidates.is_empty() {
            return if serving.is_unsettled { Choice::Later } else { Choice::None };
        }
        if let Some(at) = self.stuck(serving, &candidates, wanted) {
            return match Place::enter(self, serving, at, now) {
                Some(place) => Choice::Found(place),
                None => Choice::Later,
            };
        }
        while !candidates.is_empty() {
            let chosen = self.balance(&serving.settings.balance, &candidates, wanted);
            let Some(at) = chosen else { break };
            if let Some(place) = Place::enter(self, serving, at, now) {
                if tried.is_empty() {
                    self.pay(&serving.settings);
                }
                return Choice::Found(place);
            }
            if matches!(serving.settings.balance, Balance::Hash(_)) {
                break;
            }
            candidates.retain(|one| one.at != at);
        }
        Choice::Later
    }

    /// The server that the client's cookie leads to, if that is one to choose from.
    fn stuck(&self, serving: &Serving, candidates: &[Candidate], wanted: &Wanted<'_>) -> Option<usize> {
        serving.settings.sticky.as_ref()?;
        let id = sticky::verify(self.key(serving), wanted.cookie?)?;
        candidates.iter().map(|one| one.at).find(|&at| serving.servers[at].id == id)
    }

    fn balance(&self, balance: &Balance, candidates: &[Candidate], wanted: &Wanted<'_>) -> Option<usize> {
        match balance {
            _ if candidates.len() == 1 => candidates.first().map(|one| one.at),
            Balance::RoundRobin => balance::in_turn(candidates, &mut lock(&self.gathered)),
            Balance::LeastConnections => balance::least(candidates, self.turn.fetch_add(1, Ordering::Relaxed)),
            Balance::RandomTwo => balance::random_two(candidates, self.draws.fetch_add(1, Ordering::Relaxed)),
            Balance::Hash(HashKey::Client | HashKey::Header(_) | HashKey::Cookie(_)) => {
                balance::by_hash(candidates, balance::hashed(wanted.key))
            }
        }
    }

    /// A request pays its part of a retry.
    fn pay(&self, settings: &UpstreamSettings) {
        let full = FREE_RETRIES * RETRY;
        if self.budget.load(Ordering::Relaxed) < full {
            self.budget.fetch_add(i64::from(settings.retry_budget), Ordering::Relaxed);
        }
    }
}

// === impl Serving ===

impl Serving {
    /// Without servers yet. The error names what cannot be used.
    fn new(settings: UpstreamSettings) -> Result<Self, String> {
        let connector = |scheme, protocol| {
            let is_needed = settings.servers.iter().any(|server| server.scheme == scheme);
            is_needed.then(|| tls::connector(&settings.tls, protocol)).transpose()
        };
        let (http1, http2) = (connector(Scheme::Https, tls::HTTP1)?, connector(Scheme::H2, tls::HTTP2)?);
        let mut secured = Vec::with_capacity(settings.servers.len());
        for server in &settings.servers {
            secured.push(match if server.scheme.is_http2() { &http2 } else { &http1 } {
                Some(connector) if server.scheme.is_secure() => {
                    let name = settings.tls.server_name.as_deref().unwrap_or(server.host());
                    let name = tls::server_name(name).map_err(|error| format!("{}: {error}", server.url))?;
                    Some(Secured { connector: connector.clone(), name })
                }
                _ => None,
            });
        }
        Ok(Self { settings, secured, servers: Vec::new(), is_unsettled: true })
    }

    /// With the servers that are there now. What has been found out about one that was there before stays.
    fn populated(mut self, before: Option<&Serving>, found: &Found) -> Self {
        let none = BTreeSet::new();
        // Other authorities or another key: connections that were made with the old ones are not kept.
        let known = before.filter(|before| before.settings.tls == self.settings.tls).map_or(&[][..], |it| &it.servers);
        let joins = before.is_some_and(|before| !before.servers.is_empty());
        for (written, secured) in self.settings.servers.iter().zip(&self.secured) {
            let stands_for: Vec<_> = match Name::of(written) {
                None => vec![(written.clone(), 0)],
                Some(name) => found.get(&name).unwrap_or(&none).iter().map(|one| one.server(written)).collect(),
            };
            for (settings, priority) in stands_for {
                // Two names may lead to one server.
                if self.servers.iter().any(|other| other.settings.url == settings.url) {
                    continue;
                }
                let tls_name = |secured: &Option<Secured>| secured.as_ref().map(|secured| secured.name.clone());
                let is_same = |other: &&Arc<Server>| {
                    other.settings.url == settings.url && tls_name(&other.secured) == tls_name(secured)
                };
                let state = known.iter().find(is_same).map(|other| Arc::clone(&other.state));
                let state = state.unwrap_or_else(|| State::new(joins));
                let server = Server::new((settings, priority), written.authority(), secured.clone(), state);
                self.servers.push(Arc::new(server));
            }
        }
        self.is_unsettled = Self::is_unsettled(&self.settings, found);
        self
    }

    /// The servers that a request may go to. Where fewer are well than the threshold says, all count as well.
    fn candidates(&self, tried: &[Arc<Server>], now: Instant) -> Vec<Candidate> {
        let is_open = |server: &Arc<Server>| {
            !server.state.is_drained.load(Ordering::Relaxed)
                && !tried.iter().any(|other| Arc::ptr_eq(&other.state, &server.state))
        };
        let open = self.servers.iter().enumerate().filter(|(_, server)| is_open(server));
        let mut candidates: Vec<_> = open
            .map(|(at, server)| Candidate {
                at,
                weight: server.weight(self.settings.slow_start, now),
                active: server.state.active.load(Ordering::Relaxed),
                id: u64::from_be_bytes(server.id),
                tier: server.tier,
                is_well: server.is_available(now),
            })
            .collect();
        let (all, well) = (candidates.len(), candidates.iter().filter(|one| one.is_well).count());
        let panics = well == 0 && tried.is_empty() || well * 100 < all * self.settings.panic_threshold as usize;
        candidates.retain(|one| panics || one.is_well);
        let first = candidates.iter().map(|one| one.tier).min();
        candidates.retain(|one| Some(one.tier) == first);
        candidates
    }
}

// === impl ServerStatus ===

impl ServerStatus {
    fn unresolved(url: String) -> Self {
        Self { url, state: "unresolved", age: None, active: 0, kept: 0, requests: 0, failures: 0 }
    }
}

/// Counts a request that waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        // Before looking: whoever frees a place after that look sees that somebody waits.
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
