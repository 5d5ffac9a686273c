//! The supervisor's process: one loop over signals, ended children and what the front and the zygotes say.
//!
//! Every change of configuration or code goes the same way, the start too:
//! 1. [`change`]: bind what is new, start a zygote for each application, wait until each has imported its own.
//! 2. [`switching`]: the front is told to prepare; workers are forked and connect to it.
//! 3. The front switches; zygotes and workers of the generation before end.
//!
//! Whatever goes wrong before 3 leaves the old in place.

mod binding;
mod certificates;
mod certifying;
mod change;
mod children;
mod collecting;
mod controlling;
mod death;
mod departed;
mod developing;
mod draining;
mod events;
mod launching;
mod lines;
mod logs;
mod reports;
mod roots;
mod scaling;
mod spawning;
mod stacks;
mod stopping;
mod switching;
mod transforming;
mod upgrading;

pub(crate) use launching::appoint;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use tokio::sync::mpsc;

use super::plan::{FromFront, ToFront};
use crate::app::{ACCELERATOR, AppSettings, DjangoInfo, SHIM, Zygote};
use crate::config::Configuration;
use crate::listener::{Bound, Handed};
use crate::process::{self, Account, Channel};
use crate::supervisor::{Backoff, Notify, RuntimeFolder};
use crate::sys::{self, ChildSetup, Ended};
use crate::telemetry::ErrorLogger;
use certificates::Certificates;
use certifying::Certifying;
use change::Change;
use collecting::NotCollected;
use controlling::Desk;
use death::OomKills;
use departed::Departed;
use developing::Developing;
use events::Event;
use launching::Launching;
use logs::Logs;
use spawning::Spawning;
use stacks::Stacks;
use transforming::Transforming;
pub use upgrading::{CHECK as UPGRADE_CHECK, VARIABLE as UPGRADE};
use upgrading::{Heritage, Old};

/// Reads the configuration anew; an error is the whole text for the log.
pub type Configure = Box<dyn Fn() -> Result<Configuration, String>>;

/// Descriptors that the front may have open: connections, files and lanes.
const FRONT_OPEN_FILES: u64 = 1 << 20;

/// What each event loop has at hand of each small size of memory, where glibc keeps seven: requests come in crowds, and
/// each takes some ten pieces. Another libc does not read it.
const FRONT_TUNABLES: &str = "glibc.malloc.tcache_count=64";

/// How long the last lines of the log may take to be written at the end.
const LOG_DEADLINE: Duration = Duration::from_secs(2);

/// Runs the server until it is stopped.
pub fn run(configuration: Configuration, configure: Configure) -> ExitCode {
    // Before anything else opens a descriptor.
    let heritage = Heritage::take();
    let handed = if heritage.is_some() { Vec::new() } else { Handed::from_systemd() };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return lines::fail(format!("cannot start: {error}")),
    };
    runtime.block_on(async {
        let (sender, receiver) = mpsc::unbounded_channel();
        match Master::new(configuration, configure, handed, sender) {
            Ok(mut master) => {
                if let Some(heritage) = heritage {
                    master.inherit(heritage);
                }
                // Those that came while an upgrade had no handlers.
                let _ = sys::take_signals();
                master.run(receiver).await
            }
            Err(error) => lines::fail(&error),
        }
    })
}

/// The state of the supervisor.
struct Master {
    configure: Configure,
    /// What is being served, routes that were found included.
    configuration: Configuration,
    /// What https listeners show.
    certificates: Certificates,
    watches_certificates: bool,
    certifying: Certifying,
    /// Whether the first change has come through.
    serving: bool,
    logs: Logs,
    errors: ErrorLogger,
    bound: Vec<Bound>,
    /// Sockets that were passed to us and that no listener has taken yet.
    handed: Vec<Handed>,
    runtime: RuntimeFolder,
    shim: PathBuf,
    accelerator: Option<PathBuf>,
    developing: Developing,
    program: PathBuf,
    apps: BTreeMap<String, App>,
    change: Option<Change>,
    /// Another reload was asked for while one was under way.
    again: bool,
    front: Front,
    launching: Launching,
    spawning: Spawning,
    transforming: Transforming,
    phase: Phase,
    events: mpsc::UnboundedSender<Event>,
    open_files: Option<u64>,
    next_serial: u32,
    /// Changes begun so far: the number of the last one, and the generation of what came of it.
    changes: u64,
    /// Children that ended before their zygote said that it had forked them.
    strangers: Vec<Ended>,
    /// The pid file, once it is ours.
    pid_file: Option<PathBuf>,
    /// Which folder each static root was at the last look.
    roots: Vec<Option<(u64, u64)>>,
    oom_kills: OomKills,
    exit: ExitCode,
    /// Who asked for what on the control socket.
    desk: Desk,
    notify: Notify,
    /// What served before the last upgrade and has not ended yet.
    old: Option<Old>,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Starting or serving.
    Running,
    /// Clients are asked to close.
    AskingForClose,
    /// What is in flight is being finished.
    Draining,
}

/// The front's process.
struct Front {
    pid: i32,
    epoch: u64,
    started: Instant,
    channel: Channel<ToFront, FromFront>,
    backoff: Backoff,
}

/// The processes of an application.
struct App {
    settings: AppSettings,
    account: Option<Account>,
    socket_path: PathBuf,
    socket: OwnedFd,
    lifeline: Lifeline,
    stacks: Stacks,
    /// Implementation and version of its Python, once it has said so.
    python: String,
    /// What its Django settings say that are served, and when their import began.
    django: Option<(SystemTime, DjangoInfo)>,
    /// How many workers there should be now.
    wanted: u32,
    generation: u64,
    zygote: Option<Zygote>,
    zygote_started: Instant,
    zygote_ready: bool,
    /// Whether its last import failed while others serve: it answers 503.
    given_up: bool,
    workers: BTreeMap<u32, Worker>,
    /// Workers that have ended and of which the front has not said yet what they were serving.
    departed: BTreeMap<u32, Departed>,
    backoff: Backoff,
    zygote_backoff: Backoff,
}

/// A pipe that closes when we are gone, whatever way we go.
struct Lifeline {
    /// Given to the application's processes, and theirs: each opens it once more.
    end: OwnedFd,
    /// Nobody else has this one.
    kept: OwnedFd,
}

/// A worker process.
struct Worker {
    pid: i32,
    generation: u64,
    threads: u16,
    started: Instant,
    connected: bool,
    /// Its end is expected: it was told to retire.
    leaving: bool,
    /// Another has been asked for in its place.
    is_due: bool,
    /// What the front said when its lanes closed.
    last_words: Option<LastWords>,
    /// The worker that it replaces once it has connected.
    replaces: Option<u32>,
}

/// What the front knows of a worker that is gone.
struct LastWords {
    served: u64,
    serving: Vec<(String, f32)>,
}

impl Master {
    fn new(
        configuration: Configuration,
        configure: Configure,
        handed: Vec<Handed>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Self, String> {
        let text = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        // Resolved now: pip replaces the file under a running server.
        let program = std::env::current_exe().map_err(text("cannot find the program itself"))?;
        let open_files = sys::open_files();
        sys::forbid_inspection().map_err(text("cannot protect the process"))?;
        sys::become_subreaper().map_err(text("cannot become a subreaper"))?;
        let logs = Logs::open(&configuration.server.telemetry)?;
        let errors = logs.error_logger(&configuration.server.telemetry.error)?;
        let runtime = RuntimeFolder::new().map_err(text("cannot make a folder for sockets"))?;
        let written = text("cannot write the worker's program");
        let shim = runtime.write_program("daemun_worker.py", SHIM.as_bytes()).map_err(written)?;
        let accelerator = if ACCELERATOR.is_empty() {
            None
        } else {
            Some(runtime.write_program("daemun_accelerator.so", ACCELERATOR).map_err(written)?)
        };
        let developing = Developing::new(&configuration, &runtime).map_err(written)?;
        events::watch_signals(&events).map_err(text("cannot watch signals"))?;
        let front = Front::start(&program, 0, &events).map_err(text("cannot start the front"))?;
        Ok(Self {
            configure,
            configuration,
            certificates: Certificates::default(),
            watches_certificates: false,
            certifying: Certifying::default(),
            serving: false,
            logs,
            errors,
            bound: Vec::new(),
            handed,
            runtime,
            shim,
            accelerator,
            developing,
            program,
            apps: BTreeMap::new(),
            change: None,
            again: false,
            front,
            launching: Launching::default(),
            spawning: Spawning::default(),
            transforming: Transforming::default(),
            phase: Phase::Running,
            events,
            open_files,
            next_serial: 1,
            changes: 0,
            strangers: Vec::new(),
            pid_file: None,
            roots: Vec::new(),
            oom_kills: OomKills::now(),
            exit: ExitCode::SUCCESS,
            desk: Desk::new(),
            old: None,
            notify: Notify::from_environment(),
        })
    }

    async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) -> ExitCode {
        self.watch_sources();
        let mut stop = match self.collect(&mut events).await {
            Ok(()) => match self.start_debugger().await {
                Ok(()) => self.begin_first().await,
                Err(error) => self.start_failed(&error),
            },
            Err(NotCollected::Stopped) => true,
            Err(NotCollected::Failed(error)) => {
                self.exit = lines::fail(&error);
                true
            }
        };
        while !stop && let Some(event) = events.recv().await {
            stop = self.take(event).await;
        }
        self.mourn_all();
        self.end_everything();
        self.end_launcher();
        if let Some(path) = &self.pid_file {
            // Somebody may have removed it already.
            let _ = std::fs::remove_file(path);
        }
        self.errors.close(LOG_DEADLINE);
        self.exit
    }

    /// Acts on one event; true when that was the end.
    async fn take(&mut self, event: Event) -> bool {
        match event {
            Event::Reload => self.reload().await,
            Event::Sources(notice) => self.sources_changed(notice).await,
            Event::DebuggerEnded => return self.debugger_ended().await,
            Event::Release => self.release().await,
            Event::Reopen => self.reopen_logs().await,
            Event::Stop { at_once } => return self.stop(at_once).await,
            Event::Drain => return self.drain().await,
            Event::GraceOver => {
                self.errors.warning(format_args!("grace is over: what is still in flight is cut"));
                return true;
            }
            Event::ChildrenEnded => return self.reap(),
            Event::Front(epoch, message) if epoch == self.front.epoch => return self.front_said(message).await,
            Event::Front(..) => {}
            Event::Zygote(app, generation, message) => return self.zygote_said(&app, generation, message).await,
            Event::Fork(app, generation) => self.fork_worker(&app, generation, None).await,
            Event::RestartZygote(app) => self.restart_zygote(&app).await,
            Event::RestartFront => self.restart_front().await,
            Event::RestartTransformer => self.restart_transformer().await,
            Event::Respawn(path) => self.respawn(&path),
            Event::RestartLauncher => self.restart_launcher().await,
            Event::ConnectDeadline(number) => return self.connect_deadline(number).await,
            Event::ImportDeadline(number) => return self.import_deadline(number).await,
            Event::Unheard(pid, why) => self.unheard(pid, &why),
            Event::Overdue(pid) => self.kill_if_alive(pid),
            Event::WordsDeadline(name, serial) => self.words_deadline(&name, serial),
            Event::LookForCertificates => self.look_for_certificates().await,
            Event::Certify(timer) => self.certify_timer(timer).await,
            Event::Certifier(errand, message) => self.certifier_said(errand, message).await,
            Event::ErrandOverdue(errand) => self.errand_overdue(errand).await,
            Event::LookForRoots => self.look_for_roots().await,
            Event::LookAtWorkers => {
                self.look_at_workers().await;
                // Of an end that no signal has told.
                return self.reap();
            }
            Event::Unfit(generation, why) => return self.unfit(generation, &why),
            Event::Watchdog => self.sign_of_life().await,
            Event::Upgrade => self.upgrade(None),
            Event::DrainOld => self.drain_old().await,
            Event::OldEnded => return self.old_ended(),
            Event::OldOverdue => self.kill_old(),
            Event::Asked(asked) => return self.asked(asked).await,
            Event::ReportLate(number) => self.report(number, None),
            Event::StatusWanted(number) => self.tell_status(number).await,
            Event::StackTold(number, stack) => self.tell_front(ToFront::Stack(number, stack)).await,
            Event::WorkerMore => self.resize(1).await,
            Event::WorkerLess => self.resize(-1).await,
        }
        false
    }

    /// The first change. True when the server must end.
    async fn begin_first(&mut self) -> bool {
        let begun = match self.begin(self.configuration.clone(), &[]).await {
            Ok(()) => self.open_desk(),
            Err(error) => Err(error),
        };
        begun.is_err_and(|error| self.start_failed(&error))
    }

    /// Only once requests are answered: whoever waits for the file may ask, and a second server that cannot listen
    /// leaves the file of the first alone.
    fn write_pid_file(&mut self) {
        let Some(path) = &self.configuration.server.pid_file else { return };
        match std::fs::write(path, format!("{}\n", std::process::id())) {
            Ok(()) => self.pid_file = Some(path.clone()),
            Err(error) => {
                self.errors.warning(format_args!("cannot write the pid file {}: {error}", path.display()));
            }
        }
    }

    /// Sends a message to the front. One that is gone gets everything anew when it is back.
    async fn tell_front(&self, message: ToFront) {
        let _ = self.front.channel.send(&message, &[]).await;
    }

    /// Lets an event come later.
    fn later(&self, pause: Duration, event: Event) {
        events::later(&self.events, pause, event);
    }

    /// Ends whatever is still there. The folder and the sockets go with the value.
    fn end_everything(&mut self) {
        let workers = self.apps.values().flat_map(|app| app.workers.values().map(|worker| worker.pid));
        let zygotes = self.apps.values().filter_map(|app| app.zygote.as_ref().map(|zygote| zygote.pid));
        let changing = self.change.iter().flat_map(Change::pids);
        let old = self.old.iter().flat_map(Old::pids);
        let transformers = self.transforming.pids();
        let certifiers = self.certifying.pids().to_vec();
        for pid in certifiers
            .into_iter()
            .chain(old)
            .chain(transformers)
            .chain(workers)
            .chain(zygotes)
            .chain(changing)
            .chain(self.developing.pids())
            .chain([self.front.pid])
        {
            // Those that have ended already are not ours to signal any more: the kernel says so.
            let _ = sys::signal(pid, Signal::KILL);
        }
        for pid in self.spawning.pids() {
            sys::signal_group(pid, Some(Signal::KILL));
        }
        self.bound.iter().for_each(Bound::remove_file);
    }
}

impl Lifeline {
    /// The end that we hold.
    fn kept(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.kept)
    }

    /// A pipe whose reading end belongs to `account`: what root owns another user cannot open once more.
    fn new(account: Option<&Account>) -> io::Result<Self> {
        let (end, kept) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        if let Some(account) = account {
            std::os::unix::fs::fchown(&end, Some(account.identity.user), Some(account.identity.group))?;
        }
        Ok(Self { end, kept })
    }
}

impl Front {
    /// Starts a front; what it says becomes events of this epoch.
    fn start(program: &std::path::Path, epoch: u64, events: &mpsc::UnboundedSender<Event>) -> io::Result<Self> {
        let (mut channel, theirs) = Channel::pair()?;
        // This very program, although its file may have been replaced meanwhile, or lie where only we can go.
        let own = std::path::Path::new("/proc/self/exe");
        let mut command = Command::new(if own.exists() { own } else { program });
        command.arg0(program).arg(super::FRONT_ROLE);
        // It needs nothing of the environment, and secrets in it are not its own.
        command.env_clear().env("GLIBC_TUNABLES", FRONT_TUNABLES);
        let identity = crate::supervisor::identity::is_root().then(process::account::unused_identity);
        let setup = ChildSetup {
            descriptors: vec![theirs],
            identity,
            open_files: Some(FRONT_OPEN_FILES),
            no_new_privileges: true,
            own_group: true,
        };
        let pid = process::spawn(command, setup)?;
        let (sender, events) = (channel.sender(), events.clone());
        tokio::spawn(async move {
            loop {
                let message = channel.receive().await.unwrap_or_else(|error| {
                    if !error.is_end() {
                        // The receiver ends with the server.
                        let _ = events.send(Event::Unheard(pid, error.to_string()));
                    }
                    None
                });
                let message = message.map(|(message, _)| message);
                let last = message.is_none();
                if events.send(Event::Front(epoch, message)).is_err() || last {
                    return;
                }
            }
        });
        Ok(Self { pid, epoch, started: Instant::now(), channel: sender, backoff: Backoff::default() })
    }
}
