//! What the front tells of itself: to the supervisor, and to the health and monitor listeners.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::listening::Listening;
use super::upstreams::Groups;
use crate::app::Pool;
use crate::connection::{Context, Limits, Phase};
use crate::control::message::{ServerStatus, Status, Traffic};
use crate::listener::Role;
use crate::monitor::{Monitor, Sources, Telling};
use crate::server::plan::{FrontReport, Plan};
use crate::telemetry::{AccessLogger, ErrorLogger, metrics};
use crate::tls::Certificates;
use crate::upstream::Group;

/// How long the supervisor may take to tell what it knows; without it the last known is told.
const STATUS_DEADLINE: Duration = Duration::from_millis(500);

/// What can be told, shared by the front's loop and the listeners.
pub(super) struct Sight {
    /// The context of the clients' listeners.
    context: Arc<Context>,
    pools: Mutex<BTreeMap<String, Arc<Pool>>>,
    groups: Mutex<Groups>,
    /// Who waits for the supervisor's word, by number.
    asked: Mutex<HashMap<u64, oneshot::Sender<Status>>>,
    next: AtomicU64,
    last: Mutex<Status>,
    questions: mpsc::UnboundedSender<u64>,
}

impl Sight {
    /// `questions` go to the supervisor.
    pub(super) fn new(context: Arc<Context>, questions: mpsc::UnboundedSender<u64>) -> Arc<Self> {
        Arc::new(Self {
            context,
            pools: Mutex::default(),
            groups: Mutex::default(),
            asked: Mutex::default(),
            next: AtomicU64::new(0),
            last: Mutex::default(),
            questions,
        })
    }

    /// These applications and upstreams are served from now on.
    pub(super) fn serve(&self, pools: BTreeMap<String, Arc<Pool>>, groups: Groups) {
        *lock(&self.pools) = pools;
        *lock(&self.groups) = groups;
    }

    /// What the supervisor does not know.
    pub(super) fn report(&self) -> FrontReport {
        let snapshot = metrics::gather();
        let mut traffic = Traffic {
            connections: snapshot.connections(),
            accepted: snapshot.opened,
            received_bytes: snapshot.received,
            lost_lines: snapshot.lost_lines,
            ..Traffic::default()
        };
        for (_, figures) in &snapshot.routes {
            traffic.sent_bytes += figures.sent;
            traffic.seconds += figures.duration.seconds;
            for (_, class, count) in &figures.requests {
                traffic.requests += count;
                *traffic.statuses.entry(format!("{class}xx")).or_default() += count;
            }
        }
        let pools = lock(&self.pools).iter().map(|(name, pool)| (name.clone(), pool.figures())).collect();
        let upstreams = lock(&self.groups).iter().map(|(name, group)| (name.clone(), servers(group))).collect();
        FrontReport { traffic, pools, upstreams }
    }

    /// The supervisor has answered.
    pub(super) fn told(&self, number: u64, status: Status) {
        if let Some(waiting) = lock(&self.asked).remove(&number) {
            // Whoever asked may be gone.
            let _ = waiting.send(status);
        }
    }

    /// The supervisor's word, or the last one where it does not come.
    async fn word(&self) -> Status {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        lock(&self.asked).insert(number, sender);
        let answer = match self.questions.send(number) {
            Ok(()) => tokio::time::timeout(STATUS_DEADLINE, receiver).await.ok().and_then(Result::ok),
            Err(_) => None,
        };
        lock(&self.asked).remove(&number);
        match answer {
            Some(status) => {
                lock(&self.last).clone_from(&status);
                status
            }
            None => lock(&self.last).clone(),
        }
    }
}

impl Sources for Sight {
    fn obstacles(&self) -> Vec<String> {
        let mut obstacles = Vec::new();
        if self.context.drain.phase() != Phase::Serving {
            obstacles.push("the server is going down".to_owned());
        }
        for (name, pool) in lock(&self.pools).iter() {
            if !pool.figures().answers {
                obstacles.push(format!("{name}: no worker is there"));
            }
        }
        obstacles
    }

    fn status(&self) -> Telling<'_> {
        Box::pin(async {
            let mut status = self.word().await;
            let FrontReport { traffic, pools, upstreams } = self.report();
            (status.traffic, status.upstreams) = (Some(traffic), upstreams);
            for (name, pool) in pools {
                let app = status.apps.entry(name).or_default();
                (app.queued, app.busy, app.idle, app.replays) = (pool.queued, pool.busy, pool.idle, pool.replays);
            }
            status
        })
    }
}

/// How the servers of an upstream are.
fn servers(group: &Group) -> Vec<ServerStatus> {
    let told = |server: crate::upstream::ServerStatus| ServerStatus {
        url: server.url,
        state: server.state.to_owned(),
        age: server.age.map(|age| age.as_secs_f64()),
        active: server.active,
        kept: server.kept,
        requests: server.requests,
        failures: server.failures,
    };
    group.status().into_iter().map(told).collect()
}

/// The listeners for health and monitor, apart from those of clients: they are answered while the others drain, and
/// have permits of their own.
pub(super) struct Aside {
    health: (Listening, Arc<Context>),
    monitor: (Listening, Arc<Context>),
}

/// Connections for each: a few probes, Prometheus, some browsers.
const CONNECTIONS: usize = 256;

impl Aside {
    pub(super) fn new(
        sight: &Arc<Sight>,
        token: &str,
        errors: &ErrorLogger,
        certificates: &Arc<ArcSwap<Certificates>>,
    ) -> Self {
        let sources = || Arc::clone(sight) as Arc<dyn Sources>;
        let place = |handler: Monitor| {
            let limits = Limits { max_connections: CONNECTIONS, max_body: 0, ..Limits::default() };
            let mut context = Context::new(Arc::new(handler), limits, AccessLogger::off(), errors.clone());
            context.is_counted = false;
            (Listening::new(CONNECTIONS, Arc::clone(certificates)), Arc::new(context))
        };
        Self { health: place(Monitor::health(sources())), monitor: place(Monitor::everything(sources(), token)) }
    }

    /// Takes what is for health and monitor out of the plan's listeners; gives the sockets of the others, in order.
    pub(super) fn update(
        &mut self,
        plan: &mut Plan,
        sockets: Vec<Vec<OwnedFd>>,
        event_loops: &[Handle],
    ) -> Vec<Vec<OwnedFd>> {
        let mut parts: [(Vec<_>, Vec<_>); 3] = Default::default();
        for (listener, sockets) in std::mem::take(&mut plan.listeners).into_iter().zip(sockets) {
            let part = match listener.0.role {
                Role::Clients => 0,
                Role::Health => 1,
                Role::Monitor => 2,
            };
            parts[part].0.push(listener);
            parts[part].1.push(sockets);
        }
        let [clients, health, monitor] = parts;
        self.health.0.update(&health.0, health.1, event_loops, &self.health.1);
        self.monitor.0.update(&monitor.0, monitor.1, event_loops, &self.monitor.1);
        plan.listeners = clients.0;
        clients.1
    }
}

/// Plain data: usable even if a thread panicked while it held the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
