//! The front: one process with an event loop for each core. It serves what the supervisor's last plan says.

mod challenges;
mod development;
mod event_loops;
mod handlers;
mod https;
mod late;
mod listening;
mod sight;
mod upstreams;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use super::plan::{FromFront, Plan, ToFront};
pub(crate) use handlers::{behind_https_of, filters, limits};

use crate::app::{self, Pool, Reports, WorkerReport};
use crate::connection::{Context, Phase, Serving};
use crate::exporter::{self, ExporterSettings};
use crate::filter::Kept;
use crate::gateway::Spool;
use crate::http::TrustedProxies;
use crate::launcher::Client;
use crate::process::{self, Channel};
use crate::sys;
use crate::telemetry::traces::Tracer;
use crate::telemetry::{AccessLogger, ErrorLogger, Sink};
use crate::tls::{Certificates, Material, Tickets};
use crate::transformer;
use challenges::Tokens;
use late::Lookout;
use listening::Listening;
use sight::{Aside, Sight};
use upstreams::Upstreams;

/// How long the last lines of the logs may take to be written at the end.
const LOG_DEADLINE: Duration = Duration::from_secs(2);

/// How often a draining front looks whether it is done.
const DRAIN_LOOK: Duration = Duration::from_millis(10);

/// Processes of one application whose hello is awaited at a time: one that connects and says nothing takes descriptors.
const WELCOMES: usize = 128;

/// Runs the front on the channel that was inherited as `descriptor`.
pub fn run(descriptor: i32) -> ExitCode {
    let result = start(descriptor);
    if let Err(error) = &result {
        process::say(format_args!("front: {error}"));
    }
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn start(descriptor: i32) -> io::Result<()> {
    // Before anything else: no process of the same user may look into this one.
    sys::forbid_inspection()?;
    // For `ps` and `top`: it was started through a link of the kernel's.
    let _ = rustix::thread::set_name(c"daemun-front");
    let channel = sys::inherited(descriptor)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut channel = Channel::from_descriptor(channel)?;
        let (reports, reported) = mpsc::unbounded_channel();
        let (questions, questioned) = mpsc::unbounded_channel();
        let sender = channel.sender();
        let forwarding = tokio::spawn(forward(reported, questioned, channel.sender()));
        let mut front: Option<Front> = None;
        // The end of the channel is the end of the supervisor, and of us.
        while let Ok(Some((message, descriptors))) = channel.receive().await {
            if let ToFront::Prepare(plan) = message {
                let prepared = match &mut front {
                    None => Front::new(*plan, descriptors, reports.clone(), questions.clone())
                        .map(|made| front = Some(made)),
                    Some(front) => front.prepare(*plan, descriptors),
                };
                if let Err(error) = prepared {
                    let _ = sender.send(&FromFront::Refused(error.to_string()), &[]).await;
                }
                continue;
            }
            let Some(front) = &mut front else { continue };
            if front.obey(message, descriptors, &sender).await {
                break;
            }
        }
        if let Some(front) = front {
            if let Some((_, tracer)) = &front.tracer {
                tracer.close(LOG_DEADLINE);
            }
            front.context.access.close(LOG_DEADLINE);
            front.context.errors.close(LOG_DEADLINE);
        }
        forwarding.abort();
        Ok(())
    })
}

/// Passes reports of the pools, and questions of whoever asks how all is, on to the supervisor.
async fn forward(
    mut reports: mpsc::UnboundedReceiver<(String, WorkerReport)>,
    mut questions: mpsc::UnboundedReceiver<FromFront>,
    channel: Channel<FromFront, ToFront>,
) {
    loop {
        let message = tokio::select! {
            Some((app, report)) = reports.recv() => FromFront::Worker(app, report),
            Some(question) = questions.recv() => question,
            else => return,
        };
        if channel.send(&message, &[]).await.is_err() {
            return;
        }
    }
}

/// The state of the front.
struct Front {
    context: Arc<Context>,
    event_loops: Vec<Handle>,
    reports: Reports,
    pools: BTreeMap<String, AppPool>,
    /// Applications of the plan that is being served.
    served: BTreeSet<String>,
    upstreams: Upstreams,
    listening: Listening,
    sight: Arc<Sight>,
    lookout: Arc<Lookout>,
    aside: Aside,
    /// What https listeners show.
    certificates: Arc<ArcSwap<Certificates>>,
    /// What authorities want to see by plain HTTP.
    challenges: Tokens,
    tickets: Tickets,
    /// What tells of requests, and what it was made with.
    tracer: Option<(ExporterSettings, Arc<Tracer>)>,
    prepared: Option<Prepared>,
    launcher: Arc<Client>,
    /// The number of the last change of pages, for browsers that wait for one.
    changes: watch::Sender<u64>,
    transformers: Arc<transformer::Client>,
    /// Caches and counters of filters, found again after a reload.
    kept: Kept,
}

/// A pool and the task that accepts its workers.
struct AppPool {
    pool: Arc<Pool>,
    accepting: JoinHandle<()>,
}

/// What waits for the switch.
struct Prepared {
    plan: Plan,
    serving: Serving,
    certificates: Certificates,
    sockets: Vec<Vec<OwnedFd>>,
}

impl Drop for AppPool {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Front {
    fn new(
        plan: Plan,
        descriptors: Vec<OwnedFd>,
        reports: Reports,
        questions: mpsc::UnboundedSender<FromFront>,
    ) -> io::Result<Self> {
        let telemetry = plan.configuration.server.telemetry.clone();
        let logs: Vec<OwnedFd> =
            descriptors.iter().take(2).map(|log| log.as_fd().try_clone_to_owned()).collect::<Result<_, _>>()?;
        let [access, error] = <[OwnedFd; 2]>::try_from(logs).map_err(|_| io::ErrorKind::InvalidData)?;
        let errors = match telemetry.error.sink {
            Sink::Off => ErrorLogger::off(),
            _ => ErrorLogger::start(error, telemetry.error.level)?,
        };
        let access = match telemetry.access.sink {
            Sink::Off => AccessLogger::off(),
            _ => AccessLogger::start(access, telemetry.access.format.clone(), errors.clone())?
                .masking(&telemetry.access.mask),
        };
        let event_loops = event_loops::start(plan.configuration.server.event_loops)?;
        let limits = plan.configuration.server.limits.clone();
        let certificates = Arc::new(ArcSwap::default());
        let listening = Listening::new(limits.max_connections, Arc::clone(&certificates));
        let context = Arc::new(Context::new(Arc::new(handlers::NotYet), limits, access, errors));
        let launcher = Client::new(event_loops[0].clone());
        let transformers = transformer::Client::new(event_loops[0].clone());
        let lookout = Lookout::new(questions.clone());
        let sight = Sight::new(Arc::clone(&context), questions);
        let aside = Aside::new(&sight, &plan.token, &context.errors, &certificates);
        let mut front = Self {
            context,
            event_loops,
            reports,
            pools: BTreeMap::new(),
            served: BTreeSet::new(),
            upstreams: Upstreams::default(),
            listening,
            sight,
            lookout,
            aside,
            certificates,
            challenges: Tokens::default(),
            tickets: Tickets::default(),
            tracer: None,
            prepared: None,
            kept: Kept::default(),
            launcher,
            changes: watch::Sender::new(0),
            transformers,
        };
        front.prepare(plan, descriptors)?;
        Ok(front)
    }

    /// Builds everything that a plan needs, beside what is being served.
    fn prepare(&mut self, plan: Plan, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let mut descriptors = descriptors.into_iter().skip(2);
        let mut next = || descriptors.next().ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof));
        let server = &plan.configuration.server;
        let (spool, warning) = Spool::new(next()?, server.spool.clone(), server.max_spool);
        if let Some(warning) = warning {
            self.context.errors.warning(format_args!("{warning}"));
        }
        let spool = Arc::new(spool);
        let mut sockets = Vec::new();
        for (_, _, count) in &plan.listeners {
            sockets.push((0..*count).map(|_| next()).collect::<io::Result<Vec<_>>>()?);
        }
        let mut worker_sockets = HashMap::new();
        for app in &plan.configuration.apps {
            worker_sockets.insert(app.name.clone(), next()?);
        }
        self.prepare_pools(&plan, worker_sockets);
        let pools = self.pools.iter().map(|(name, app)| (name.clone(), Arc::clone(&app.pool))).collect();
        let watching = (&self.event_loops[0], &self.context.errors);
        let groups = self.upstreams.prepare(&plan.configuration.upstreams, watching)?;
        let (kept, errors) = (&self.kept, &self.context.errors);
        let (launcher, transformers, lookout) = (&self.launcher, &self.transformers, &self.lookout);
        let late = &plan.late;
        let means = handlers::Means { pools, groups, spool, kept, errors, launcher, transformers, late, lookout };
        let handler = handlers::build(&plan.configuration, descriptors, &means)?;
        let handler = handlers::behind_https(handler, &plan, (&self.certificates, &self.challenges));
        let handler = match &plan.configuration.development {
            Some(_) => development::around(handler, self.changes.subscribe()),
            None => handler,
        };
        let certificates = Certificates::new(&plan.certificates, &self.tickets).map_err(io::Error::other)?;
        let server = &plan.configuration.server;
        let traces = self.tracer(server.traces.as_deref())?;
        let trusted = TrustedProxies::new(server.trusted_proxies.clone());
        let serving = Serving { handler, limits: handlers::limits(&plan.configuration), trusted, traces };
        self.prepared = Some(Prepared { plan, serving, certificates, sockets });
        Ok(())
    }

    /// What tells of requests. One that is told the same goes on: what waits in it is not sent ahead of its time.
    fn tracer(&mut self, wanted: Option<&ExporterSettings>) -> io::Result<Option<Arc<Tracer>>> {
        let Some(wanted) = wanted else {
            self.tracer = None;
            return Ok(None);
        };
        let kept = self.tracer.take().filter(|(settings, _)| settings == wanted);
        let tracing = if let Some(kept) = kept {
            kept
        } else {
            (wanted.clone(), exporter::start(wanted, self.context.errors.clone())?)
        };
        let (_, tracer) = self.tracer.insert(tracing);
        Ok(Some(Arc::clone(tracer)))
    }

    /// Makes pools for applications that have none yet.
    fn prepare_pools(&mut self, plan: &Plan, mut sockets: HashMap<String, OwnedFd>) {
        for settings in &plan.configuration.apps {
            let Some(socket) = sockets.remove(&settings.name) else { continue };
            // One that a reload took away may still be finishing: what comes back under its name is another, with
            // another socket.
            if self.pools.contains_key(&settings.name) && self.served.contains(&settings.name) {
                continue;
            }
            let pool = Pool::new(settings.clone(), self.event_loops.len(), self.reports.clone());
            self.event_loops[0].spawn(Pool::watch(Arc::downgrade(&pool)));
            let listener = std::os::unix::net::UnixListener::from(socket);
            let accepting =
                self.event_loops[0].spawn(accept_workers(listener, Arc::clone(&pool), self.event_loops.clone()));
            self.pools.insert(settings.name.clone(), AppPool { pool, accepting });
        }
    }

    /// Carries a message out; true when that was the last one.
    async fn obey(
        &mut self,
        message: ToFront,
        descriptors: Vec<OwnedFd>,
        supervisor: &Channel<FromFront, ToFront>,
    ) -> bool {
        match message {
            ToFront::Prepare(_) => {}
            ToFront::Expect(app, admission) => self.with_pool(&app, |pool| pool.expect(admission)),
            ToFront::GiveUp(app, broken) => self.with_pool(&app, |pool| pool.give_up(broken)),
            ToFront::Hold(held) => self.pools.values().for_each(|app| app.pool.hold(held)),
            ToFront::Changed(number) => drop(self.changes.send_replace(number)),
            ToFront::Retire(app, serial) => self.with_pool(&app, |pool| pool.retire(|other, _| other == serial)),
            ToFront::WhoIsIdle(app, idle) => self.with_pool(&app, |pool| pool.tell_idle(idle)),
            ToFront::Switch(generations) => {
                self.switch(&generations);
                return supervisor.send(&FromFront::Serving, &[]).await.is_err();
            }
            ToFront::DrainServer(number, upstream, server) => {
                let (meant, all) = self.upstreams.drain(&upstream, &server);
                for url in &meant {
                    let errors = &self.context.errors;
                    errors.warning(format_args!("upstream {upstream}: {url} gets nothing new until the next reload"));
                }
                return supervisor.send(&FromFront::Drained(number, meant, all), &[]).await.is_err();
            }
            ToFront::AskForClose => self.context.drain.advance(Phase::AskingForClose),
            ToFront::Report(number) => {
                let report = Box::new(self.sight.report());
                return supervisor.send(&FromFront::Report(number, report), &[]).await.is_err();
            }
            ToFront::Status(number, status) => self.sight.told(number, *status),
            ToFront::Folders(number, paths) => self.lookout.told(number, paths.into_iter().zip(descriptors).collect()),
            ToFront::Stack(number, stack) => self.sight.told_stack(number, stack),
            ToFront::Certificates(materials) => self.show(&materials),
            ToFront::Challenges(number, tokens) => {
                let tokens = tokens.into_iter().map(|(token, text)| (token.into_bytes(), text.into())).collect();
                self.challenges.store(Arc::new(tokens));
                return supervisor.send(&FromFront::Shown(number), &[]).await.is_err();
            }
            ToFront::Reopen(access, error) => self.reopen(access, error, descriptors),
            ToFront::Launcher => {
                for socket in descriptors {
                    if let Err(error) = self.launcher.connect(socket) {
                        self.context.errors.error(format_args!("cannot reach the launcher: {error}"));
                    }
                }
            }
            ToFront::Transformer => {
                for socket in descriptors {
                    if let Err(error) = self.transformers.connect(socket) {
                        self.context.errors.error(format_args!("cannot reach a transformer: {error}"));
                    }
                }
            }
            ToFront::Drain => {
                self.drain().await;
                return true;
            }
        }
        false
    }

    fn with_pool(&self, app: &str, act: impl FnOnce(&Pool)) {
        if let Some(app) = self.pools.get(app) {
            act(&app.pool);
        }
    }

    /// Serves what was prepared.
    fn switch(&mut self, generations: &BTreeMap<String, u64>) {
        let Some(Prepared { mut plan, serving, certificates, sockets }) = self.prepared.take() else { return };
        self.upstreams.switch();
        self.context.serving.store(Arc::new(serving));
        self.certificates.store(Arc::new(certificates));
        let sockets = self.aside.update(&mut plan, sockets, &self.event_loops);
        self.listening.update(&plan.listeners, sockets, &self.event_loops, &self.context);
        let served = self.pools.iter().filter(|(name, _)| generations.contains_key(*name));
        let pools = served.map(|(name, app)| (name.clone(), Arc::clone(&app.pool))).collect();
        let kinds = plan.configuration.routes.iter();
        let kinds = kinds.map(|route| (handlers::pattern(&route.rule), route.handler.kind())).collect();
        self.sight.serve(pools, self.upstreams.groups(), kinds);
        for settings in plan.configuration.apps {
            if let Some(app) = self.pools.get(&settings.name) {
                let current = generations.get(&settings.name).copied().unwrap_or_default();
                app.pool.configure(settings);
                app.pool.retire(|_, generation| generation < current);
            }
        }
        // An application that is no longer in the file finishes what it has.
        for (name, app) in &self.pools {
            if !generations.contains_key(name) {
                app.pool.retire(|_, _| true);
                app.pool.give_up(None);
            }
        }
        self.served = generations.keys().cloned().collect();
        self.pools.retain(|name, app| generations.contains_key(name) || !app.pool.is_idle());
    }

    /// Shows other certificates; connections keep those that they began with.
    fn show(&self, materials: &[Material]) {
        match Certificates::new(materials, &self.tickets) {
            Ok(certificates) => self.certificates.store(Arc::new(certificates)),
            Err(error) => self.context.errors.error(format_args!("{error}; the certificates before are shown on")),
        }
    }

    fn reopen(&self, access: bool, error: bool, descriptors: Vec<OwnedFd>) {
        let mut descriptors = descriptors.into_iter();
        if let Some(log) = access.then(|| descriptors.next()).flatten() {
            self.context.access.reopen(log);
        }
        if let Some(log) = error.then(|| descriptors.next()).flatten() {
            self.context.errors.reopen(log);
        }
    }

    /// Stops accepting and returns when nothing is left. The supervisor ends us where that takes too long.
    async fn drain(&mut self) {
        self.listening.stop();
        self.context.drain.advance(Phase::Draining);
        while self.listening.is_accepting() || self.listening.connections() > 0 {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
        for app in self.pools.values() {
            app.pool.retire(|_, _| true);
        }
        while self.pools.values().any(|app| app.pool.has_workers()) {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    }
}

/// Accepts lanes of an application's workers and runs each on the event loop that is its worker's home.
async fn accept_workers(listener: std::os::unix::net::UnixListener, pool: Arc<Pool>, event_loops: Vec<Handle>) {
    let Ok(listener) = UnixListener::from_std(listener) else { return };
    let welcomes = Arc::new(Semaphore::new(WELCOMES));
    loop {
        // Never closed.
        let Ok(permit) = Arc::clone(&welcomes).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (pool, event_loops) = (Arc::clone(&pool), event_loops.clone());
                tokio::spawn(async move {
                    let _permit = permit;
                    if let Some((home, lane)) = app::welcome(&pool, stream).await {
                        event_loops[home % event_loops.len()].spawn(lane);
                    }
                });
            }
            // Out of descriptors: workers try again, and so do we.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
