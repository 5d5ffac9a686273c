//! The control socket: what an operator asks of the running server.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::death::How;
use super::draining::Drain;
use super::events::Event;
use super::{App, Master, Phase, lines};
use crate::control::message::{
    AppStatus, Death, FrontStatus, Project, ReloadStatus, ServerStatus, Status, WorkerStatus,
};
use crate::control::place::{self, Surroundings};
use crate::control::{Answer, Asked, Command, Listening, Reply};
use crate::listener::Role;
use crate::server::plan::{FrontReport, ToFront};
use crate::sys::Ended;

/// How long the front may take to tell what it has counted; without it the rest is told.
pub(super) const REPORT_DEADLINE: Duration = Duration::from_secs(1);

/// Deaths that are remembered.
const MOST_DEATHS: usize = 20;

/// The number of the question that the watchdog asks.
const WATCHDOG: u64 = u64::MAX;

/// Who asked for what, and what only an operator wants to know.
pub(super) struct Desk {
    listening: Option<Listening>,
    /// Wait for the end of the change that is under way.
    waiting: Vec<Reply>,
    /// Wait for the one after it.
    waiting_next: Vec<Reply>,
    /// Applications that the next round is for; empty for all.
    next_apps: Option<Vec<String>>,
    /// Wait for the end of the server.
    stopping: Vec<Reply>,
    /// Wait for what the front has counted.
    reports: BTreeMap<u64, Reply>,
    /// Wait for servers to get nothing new.
    pub(super) drains: BTreeMap<u64, Drain>,
    next_report: u64,
    pub(super) last_reload: Option<ReloadStatus>,
    pub(super) restarts: BTreeMap<String, BTreeMap<String, u64>>,
    /// Workers that ended unasked, the last one last.
    deaths: VecDeque<Death>,
    pub(super) began: Instant,
    /// Whether the first change is over.
    served: bool,
    /// Clients are asked to close although the server serves on.
    pub(super) is_draining: bool,
    /// What opens URLs and stacks on the monitor listener.
    pub(super) token: String,
}

impl Desk {
    pub(super) fn new() -> Self {
        Self {
            listening: None,
            waiting: Vec::new(),
            waiting_next: Vec::new(),
            next_apps: None,
            stopping: Vec::new(),
            reports: BTreeMap::new(),
            drains: BTreeMap::new(),
            next_report: 0,
            last_reload: None,
            restarts: BTreeMap::new(),
            deaths: VecDeque::new(),
            began: Instant::now(),
            served: false,
            is_draining: false,
            token: new_token(),
        }
    }

    /// A worker was replaced for this cause.
    pub(super) fn restarted(&mut self, app: &str, cause: &str) {
        *self.restarts.entry(app.to_owned()).or_default().entry(cause.to_owned()).or_default() += 1;
    }

    /// A worker has ended unasked; this is its certificate.
    pub(super) fn died(&mut self, app: &str, serial: u32, ended: Ended, text: &str) {
        if self.deaths.len() == MOST_DEATHS {
            self.deaths.pop_front();
        }
        let (app, pid, text) = (app.to_owned(), ended.pid, text.to_owned());
        self.deaths.push_back(Death { at: now(), app, serial, pid, how: How(ended).to_string(), text });
    }

    /// A round was asked for while one is under way: for these applications, and for all if any asks for all.
    pub(super) fn next_round(&mut self, only: &[String]) {
        self.next_apps = match self.next_apps.take() {
            Some(apps) if apps.is_empty() || only.is_empty() => Some(Vec::new()),
            Some(apps) => Some([&apps, only].concat()),
            None => Some(only.to_vec()),
        };
    }

    /// Those who wait for the next round wait for this one.
    pub(super) fn round_begins(&mut self) {
        self.waiting.append(&mut self.waiting_next);
        self.next_apps = None;
    }

    /// What the front's answer to a question comes back with.
    pub(super) fn number(&mut self) -> u64 {
        self.next_report += 1;
        self.next_report - 1
    }

    /// What the next round is for.
    pub(super) fn take_next_apps(&mut self) -> Vec<String> {
        self.next_apps.take().unwrap_or_default()
    }
}

impl Master {
    /// Listens for commands. A server that was told where to must; one that was not serves without if it cannot.
    pub(super) fn open_desk(&mut self) -> Result<(), String> {
        let told = self.configuration.server.control.clone();
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (service, session) = (variable("RUNTIME_DIRECTORY"), variable("XDG_RUNTIME_DIR"));
        let surroundings = Surroundings {
            user: rustix::process::geteuid().as_raw(),
            service_folder: service.as_deref(),
            session_folder: session.as_deref(),
        };
        let found = told.clone().map_or_else(|| place::of_server(&self.configuration.key, surroundings), Ok);
        let events = self.events.clone();
        let asked = move |asked| {
            // The receiver ends with the server.
            let _ = events.send(Event::Asked(asked));
        };
        let opened = found.and_then(|path| {
            Listening::start(&path, asked)
                .map_err(|error| std::io::Error::new(error.kind(), format!("{}: {error}", path.display())))
        });
        match (opened, told) {
            (Ok(listening), _) => self.desk.listening = Some(listening),
            (Err(error), Some(_)) => return Err(format!("control socket {error}")),
            (Err(error), None) => self.configuration_warning(format!(
                "no control socket ({error}): `daemun status`, `reload` and the like do not reach this server; set \
                 `control` in [server], or --control"
            )),
        }
        Ok(())
    }

    fn configuration_warning(&mut self, warning: String) {
        match &mut self.change {
            Some(change) => change.configuration.warnings.push(warning),
            None => self.errors.warning(format_args!("{warning}")),
        }
    }

    /// The lines that others wait for.
    pub(super) fn say_where(&self) {
        for bound in &self.bound {
            let url = bound.url();
            match bound.settings.role {
                Role::Clients => {}
                Role::Monitor => lines::say(format_args!("monitor on {url}/?token={}", self.desk.token)),
                Role::Health => lines::say(format_args!("health on {url}")),
            }
        }
        for bound in self.bound.iter().filter(|bound| bound.settings.role == Role::Clients) {
            lines::say(format_args!("listening on {}", bound.url()));
        }
    }

    /// Tells the service manager that the front is alive, once it has said so. One that is being started again, or is
    /// finishing what it has, need not say it.
    pub(super) async fn sign_of_life(&mut self) {
        let Some(pause) = self.notify.watchdog() else { return };
        self.later(pause, Event::Watchdog);
        if self.phase == Phase::Running && self.front.pid != 0 {
            self.tell_front(ToFront::Report(WATCHDOG)).await;
        } else {
            self.notify.alive();
        }
    }

    /// Tells the service manager what is served.
    pub(super) fn tell_ready(&self) {
        let apps = self.apps.len();
        let sites = if apps == 1 { "1 application".to_owned() } else { format!("{apps} applications") };
        self.notify.ready(&format!("serving {sites}: {}", self.configuration.target));
    }

    /// What the projects that are served have told.
    fn projects(&self) -> BTreeMap<String, Project> {
        let told = self.apps.iter().filter_map(|(name, app)| {
            let (read_at, info) = app.django.as_ref()?;
            let read_at = read_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            Some((name.clone(), Project { read_at, settings: serde_json::to_value(info).ok()? }))
        });
        told.collect()
    }

    /// Carries a command out. True when the server must end.
    pub(super) async fn asked(&mut self, Asked { command, reply }: Asked) -> bool {
        match command {
            Command::Status => self.ask_front(reply).await,
            Command::Projects => reply.send(Answer::Projects { projects: self.projects() }),
            Command::Reload { apps } => self.asked_to_reload(apps, reply).await,
            Command::Stacks { app } => self.asked_for_stacks(app.as_deref(), reply),
            Command::Drain { upstream: None, .. } => {
                self.desk.is_draining = true;
                self.tell_front(ToFront::AskForClose).await;
                self.errors.info(format_args!("draining: clients are asked to close, and /readyz says 503"));
                reply.done("draining: clients are asked to close, and /readyz says 503; it ends with a restart");
            }
            Command::Drain { upstream: Some(name), server } => self.drain_server(name, server, reply).await,
            Command::Upgrade => self.upgrade(Some(&reply)),
            Command::Stop => {
                let grace = self.configuration.server.grace.as_secs_f32();
                reply.say(format!("stopping: what is in flight has {grace} s"));
                self.desk.stopping.push(reply);
                return self.stop(false).await;
            }
        }
        false
    }

    async fn asked_to_reload(&mut self, apps: Vec<String>, reply: Reply) {
        if let Some(unknown) = apps.iter().find(|app| !self.apps.contains_key(*app)) {
            let known: Vec<&str> = self.apps.keys().map(String::as_str).collect();
            return reply.refuse(format!("there is no application `{unknown}`; there is: {}", known.join(", ")));
        }
        if self.phase != Phase::Running {
            return reply.refuse("the server is stopping");
        }
        reply.say("reloading");
        self.desk.waiting_next.push(reply);
        self.reload_apps(apps).await;
    }

    fn asked_for_stacks(&self, app: Option<&str>, reply: Reply) {
        if let Some(unknown) = app.filter(|app| !self.apps.contains_key(*app)) {
            return reply.refuse(format!("there is no application `{unknown}`"));
        }
        let mut asked = Vec::new();
        for (name, each) in self.apps.iter().filter(|(name, _)| app.is_none_or(|app| app == *name)) {
            // Before it is connected, a worker may not have its signal handler yet and would end.
            for (serial, worker) in each.workers.iter().filter(|(_, worker)| worker.connected) {
                let head = format!("{name}: worker {serial} (pid {})", worker.pid);
                asked.push((head, each.stacks.ask(worker.pid)));
            }
        }
        tokio::spawn(async move {
            let count = asked.len();
            for (head, stacks) in asked {
                match stacks.await {
                    Some(stacks) => reply.say(format!("{head}\n{stacks}")),
                    None => reply.say(format!("{head}\n  did not answer")),
                }
            }
            reply.done(if count == 1 { "1 worker".to_owned() } else { format!("{count} workers") });
        });
    }

    /// Asks a worker what one of its threads does, for the front.
    pub(super) fn ask_for_stack(&self, number: u64, app: &str, serial: u32, thread: u16) {
        let events = self.events.clone();
        let found = self.apps.get(app).and_then(|app| {
            // Before it is connected, a worker may not have its signal handler yet and would end.
            let worker = app.workers.get(&serial).filter(|worker| worker.connected)?;
            Some(app.stacks.ask(worker.pid))
        });
        tokio::spawn(async move {
            let stack = match found {
                Some(asked) => asked.await.map(|stacks| stacks.of_thread(thread)),
                None => None,
            };
            // The receiver ends with the server.
            let _ = events.send(Event::StackTold(number, stack));
        });
    }

    /// Tells those who wait how the reload that is over went.
    pub(super) fn reload_ended(&mut self, result: Result<(), &str>) {
        if self.serving {
            self.tell_ready();
        }
        let at = now();
        let text = result.err().unwrap_or("reloaded: the new code serves").to_owned();
        for reply in self.desk.waiting.drain(..) {
            match result {
                Ok(()) => reply.done(&text),
                Err(reason) => reply.refuse(reason),
            }
        }
        if self.desk.began_serving() {
            self.desk.last_reload = Some(ReloadStatus { at, succeeded: result.is_ok(), text });
        }
    }

    /// Generations of the applications that a change leaves alone, beside those that it brings.
    pub(super) fn with_untouched(&self, mut generations: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let Some(change) = &self.change else { return generations };
        for app in &change.configuration.apps {
            if let Some(untouched) = self.apps.get(&app.name) {
                generations.entry(app.name.clone()).or_insert(untouched.generation);
            }
        }
        generations
    }

    /// Asks the front what it has counted, for whoever asks how the server is.
    async fn ask_front(&mut self, reply: Reply) {
        let number = self.desk.number();
        self.desk.reports.insert(number, reply);
        if self.front.pid == 0 {
            return self.report(number, None);
        }
        self.tell_front(ToFront::Report(number)).await;
        self.later(REPORT_DEADLINE, Event::ReportLate(number));
    }

    /// The front has answered, or has not in time.
    pub(super) fn report(&mut self, number: u64, report: Option<FrontReport>) {
        if number == WATCHDOG && report.is_some() {
            self.notify.alive();
        }
        let Some(reply) = self.desk.reports.remove(&number) else { return self.drain_late(number) };
        let mut status = self.status();
        if let Some(report) = report {
            (status.traffic, status.upstreams) = (Some(report.traffic), report.upstreams);
            status.degraded.extend(without_servers(&status));
            for (name, pool) in report.pools {
                let Some(app) = status.apps.get_mut(&name) else { continue };
                (app.queued, app.busy, app.idle, app.replays) = (pool.queued, pool.busy, pool.idle, pool.replays);
            }
        } else {
            status.degraded.push("the web server's process does not answer".to_owned());
        }
        reply.send(Answer::Status(Box::new(status)));
    }

    /// Tells the front what it does not know, for whoever asked it.
    pub(super) async fn tell_status(&mut self, number: u64) {
        let mut status = self.status();
        // It is for whoever has the token, not for giving it away.
        status.monitor.clear();
        self.tell_front(ToFront::Status(number, Box::new(status))).await;
    }

    fn status(&self) -> Status {
        let urls = |role| -> Vec<String> {
            self.bound.iter().filter(|bound| bound.settings.role == role).map(crate::listener::Bound::url).collect()
        };
        let phase = match self.phase {
            _ if !self.serving => "starting",
            Phase::Running if self.desk.is_draining => "draining",
            Phase::Running => "serving",
            Phase::AskingForClose | Phase::Draining => "stopping",
        };
        let apps: BTreeMap<String, AppStatus> = self
            .apps
            .iter()
            .filter(|(_, app)| app.generation != u64::MAX)
            .map(|(name, app)| (name.clone(), self.app_status(name, app)))
            .collect();
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime: self.desk.began.elapsed().as_secs_f64(),
            phase: phase.to_owned(),
            target: self.configuration.target.clone(),
            files: self.configuration.files.iter().map(|path| path.display().to_string()).collect(),
            listeners: urls(Role::Clients),
            health: urls(Role::Health),
            monitor: urls(Role::Monitor).iter().map(|url| format!("{url}/?token={}", self.desk.token)).collect(),
            front: FrontStatus {
                pid: self.front.pid,
                age: self.front.started.elapsed().as_secs_f64(),
                restarts: self.front.epoch,
            },
            apps,
            upstreams: BTreeMap::new(),
            traffic: None,
            deaths: self.desk.deaths.iter().cloned().collect(),
            last_reload: self.desk.last_reload.clone(),
            certificates: self.certificates_status(),
            degraded: Vec::new(),
        };
        status.degraded = degraded(&status);
        status
    }

    fn app_status(&self, name: &str, app: &App) -> AppStatus {
        let workers = app.workers.iter().filter(|(_, worker)| worker.pid != 0).map(|(&serial, worker)| WorkerStatus {
            serial,
            pid: worker.pid,
            generation: worker.generation,
            age: worker.started.elapsed().as_secs_f64(),
            connected: worker.connected,
            leaving: worker.leaving,
            memory: crate::sys::resident_memory(worker.pid),
        });
        let workers: Vec<WorkerStatus> = workers.collect();
        let state = match workers.iter().any(|worker| worker.connected && !worker.leaving) {
            true => "serving",
            false if app.given_up => "failed",
            false if app.settings.min_processes == 0 => "waiting",
            false => "starting",
        };
        AppStatus {
            state: state.to_owned(),
            generation: app.generation,
            processes: app.settings.processes,
            least: app.wanted.min(app.settings.min_processes),
            threads: app.settings.threads,
            workers,
            restarts: self.desk.restarts.get(name).cloned().unwrap_or_default(),
            ..AppStatus::default()
        }
    }
}

impl Desk {
    /// The first change is no reload.
    fn began_serving(&mut self) -> bool {
        std::mem::replace(&mut self.served, true)
    }

    /// A program that takes over listens at the same place.
    pub(super) fn leave(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.leave();
        }
    }
}

/// What is not as it should be.
fn degraded(status: &Status) -> Vec<String> {
    let mut found = Vec::new();
    if status.phase != "serving" {
        found.push(format!("the server is {}", status.phase));
    }
    if status.front.pid == 0 {
        found.push("the web server's process is being started again".to_owned());
    }
    for (name, app) in &status.apps {
        let there = app.workers.iter().filter(|worker| worker.connected && !worker.leaving).count();
        match app.state.as_str() {
            "failed" => found.push(format!("{name}: it could not be imported and answers 503; the log says why")),
            _ if there < app.least as usize => {
                found.push(format!("{name}: {there} of {} workers are there", app.least));
            }
            _ => {}
        }
    }
    for certificate in &status.certificates {
        let hosts = certificate.hosts.join(", ");
        match (certificate.until, &certificate.reason) {
            (None, None) => found.push(format!("no certificate for {hosts} yet: it is being asked for")),
            (None, Some(reason)) => found.push(format!("no certificate for {hosts}: {reason}")),
            (Some(_), Some(reason)) => found.push(format!("the certificate for {hosts} was not renewed: {reason}")),
            (Some(_), None) => {}
        }
    }
    if let Some(reload) = status.last_reload.as_ref().filter(|reload| !reload.succeeded) {
        found.push(format!("the last reload was refused: {}", reload.text.lines().next().unwrap_or_default()));
    }
    found
}

/// Upstreams of which nobody can be asked.
fn without_servers(status: &Status) -> Vec<String> {
    let is_out = |server: &ServerStatus| matches!(server.state.as_str(), "down" | "ejected" | "unresolved");
    let empty = status.upstreams.iter().filter(|(_, servers)| !servers.is_empty() && servers.iter().all(is_out));
    empty.map(|(name, _)| format!("upstream {name}: none of its servers is well")).collect()
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// 128 bits that nobody can guess.
fn new_token() -> String {
    let mut bytes = [0_u8; 16];
    // Without randomness there is no token that would be safe: an empty one opens nothing.
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(16) => format!("{:032x}", u128::from_be_bytes(bytes)),
        _ => String::new(),
    }
}
