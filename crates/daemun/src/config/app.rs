//! `[app.NAME]`: as it was written, then with what is found filled in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::environment::{Environment, join};
use super::fault::{ConfigFault, Place, Report};
use super::interpreter::{Choice, Named};
use super::section::{Entry, Keys, Section};
use super::target::{self, Application, Looking, Target};
use super::{filters, static_route, units, variables};
use crate::app::{AppSettings, InheritEnv, Mount, Preload};
use crate::filter::{EarlyHints, Placed};

/// The keys of `[app.NAME]`.
pub(super) const KEYS: Keys = Keys {
    known: &[
        "target",
        "wsgi",
        "mounts",
        "middleware",
        "directory",
        "python",
        "processes",
        "threads",
        "env",
        "env_file",
        "inherit_env",
        "timeout",
        "queue",
        "stream_idle",
        "max_requests",
        "memory_limit",
        "lifetime",
        "preload",
        "ready",
        "hooks",
        "accelerator",
        "collect",
        "user",
        "group",
        "sendfile",
        "early_hints",
    ],
    later: &["asgi", "static", "watch"],
};

const PROCESSES: Keys = Keys { known: &["min", "max", "idle"], later: &[] };

const QUEUE: Keys = Keys { known: &["max", "timeout"], later: &[] };

/// An application as it was written or found, before what is missing is filled in.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) settings: AppSettings,
    /// Where it was written.
    pub(super) place: Place,
    /// `target`, what it is relative to, and where it was written.
    pub(super) target: Option<(String, PathBuf, Place)>,
    /// Whether callables were written or found.
    pub(super) directory: Option<(PathBuf, Place)>,
    pub(super) python: Option<Named>,
    /// `None`: as many as there are cores.
    pub(super) processes: Option<u32>,
    /// The fewest processes, where they are started on demand.
    pub(super) min_processes: Option<u32>,
    /// What its routes do about early hints.
    pub(super) early_hints: Option<Placed<EarlyHints>>,
    /// What stands in for `directory` where nothing says it.
    pub(super) folder: PathBuf,
}

// === impl Draft ===

impl Draft {
    /// An application with every default.
    pub(super) fn new(name: &str, place: Place, folder: PathBuf) -> Self {
        let settings = AppSettings {
            name: name.to_owned(),
            mounts: Vec::new(),
            middleware: Vec::new(),
            development: None,
            directory: PathBuf::new(),
            script_name: String::new(),
            python: PathBuf::new(),
            python_reason: String::new(),
            django: false,
            collect: false,
            processes: 0,
            min_processes: 0,
            idle: IDLE,
            threads: 4,
            env: BTreeMap::new(),
            inherit_env: InheritEnv::All,
            timeout: Duration::from_secs(30),
            queue_max: 1000,
            queue_timeout: Duration::from_secs(10),
            stream_idle: None,
            max_requests: None,
            memory_limit: None,
            lifetime: None,
            preload: Preload::Auto,
            ready: None,
            hooks: None,
            accelerator: true,
            user: None,
            group: None,
            sendfile: Vec::new(),
        };
        Self {
            settings,
            place,
            target: None,
            directory: None,
            python: None,
            processes: None,
            min_processes: None,
            early_hints: None,
            folder,
        }
    }

    /// An application that was found.
    pub(super) fn found(application: Application, place: Place) -> Self {
        let mut draft = Self::new("app", place, application.directory.clone());
        draft.settings.mounts = application.mounts;
        draft.settings.django = application.django;
        draft
    }

    /// Reads `[app.NAME]`.
    pub(super) fn read(name: &str, section: &Section<'_>, entry: &Entry<'_>) -> Self {
        let mut draft = Self::new(name, entry.place(), entry.source.document.folder.clone());
        draft.read_callables(section);
        draft.read_surroundings(section);
        draft.read_limits(section);
        draft.read_worker(section);
        draft.early_hints = filters::early_hints(section);
        draft
    }

    fn read_callables(&mut self, section: &Section<'_>) {
        let given = |key: &str| section.entry(key).map(|_| format!("`{key}`"));
        let named: Vec<String> = ["target", "wsgi", "mounts"].into_iter().filter_map(given).collect();
        if named.len() != 1 {
            let found = if named.is_empty() { "none".to_owned() } else { named.join(" and ") };
            let message =
                format!("[app.{}] needs one of `target`, `wsgi` and `mounts`, found {found}", self.settings.name);
            section.fault(message);
        }
        if let Some(entry) = section.entry("target") {
            self.target = entry.name().map(|text| (text, entry.source.document.folder.clone(), entry.place()));
        }
        if let Some(callable) =
            section.entry("wsgi").and_then(|entry| entry.parse("`module:callable`", target::callable))
        {
            self.settings.mounts = vec![Mount { path: String::new(), callable }];
        }
        if let Some(entry) = section.entry("mounts") {
            self.settings.mounts = mounts(&entry, &self.settings.name);
        }
        if let Some(entry) = section.entry("middleware") {
            let items = entry.items("a list such as [\"module:factory\"]").unwrap_or_default();
            self.settings.middleware =
                items.iter().filter_map(|item| item.parse("`module:factory`", target::callable)).collect();
        }
    }

    fn read_surroundings(&mut self, section: &Section<'_>) {
        let settings = &mut self.settings;
        self.directory = section.entry("directory").and_then(|entry| Some((entry.path()?, entry.place())));
        self.python = section.entry("python").and_then(|entry| {
            let reason = format!("`python` in [app.{}]", settings.name);
            Some(Named {
                text: entry.name()?,
                folder: entry.source.document.folder.clone(),
                place: entry.place(),
                reason,
            })
        });
        if let Some(entry) = section.entry("sendfile") {
            settings.sendfile = static_route::sendfile(&entry, &format!("`sendfile` of [app.{}]", settings.name));
        }
        if let Some(entry) = section.entry("env_file")
            && let Some(path) = entry.path()
        {
            let Entry { source, .. } = entry;
            read_env_file(&path, &entry.place(), source.environment, source.report, &mut settings.env);
        }
        if let Some(entry) = section.entry("env") {
            let title = format!("`env` of [app.{}]", settings.name);
            for variable in entry.map(&title, "a table such as { NAME = \"value\" }").unwrap_or_default() {
                if variable.key().is_empty() || variable.key().contains(['=', '\0']) {
                    variable.fault("this cannot be the name of an environment variable");
                } else if let Some(value) = variable.text() {
                    settings.env.insert(variable.key().to_owned(), value);
                }
            }
        }
        if let Some(entry) = section.entry("inherit_env") {
            let inherited = if entry.is_list() {
                entry.texts().map(InheritEnv::Names)
            } else if entry.is_text() {
                entry.expected("`true`, `false` or a list of names");
                None
            } else {
                entry.boolean().map(|all| if all { InheritEnv::All } else { InheritEnv::Nothing })
            };
            settings.inherit_env = inherited.unwrap_or(InheritEnv::All);
        }
        settings.user = section.entry("user").and_then(|entry| entry.name());
        settings.group = section.entry("group").and_then(|entry| entry.name());
        settings.accelerator = section.entry("accelerator").and_then(|entry| entry.boolean()).unwrap_or(true);
        settings.collect = section.entry("collect").and_then(|entry| entry.boolean()).unwrap_or(false);
    }

    fn read_limits(&mut self, section: &Section<'_>) {
        if let Some(entry) = section.entry("processes") {
            if entry.is_table() {
                self.read_processes(&entry);
            } else if entry.is_text() {
                self.processes = entry.parse("a number or \"auto\"", processes).flatten();
            } else {
                self.processes = entry.whole(1, MOST_PROCESSES).map(|number| number as u32);
            }
        }
        let settings = &mut self.settings;
        if let Some(threads) = section.entry("threads").and_then(|entry| entry.whole(1, MOST_THREADS)) {
            settings.threads = threads as u16;
        }
        if let Some(timeout) = section.entry("timeout").and_then(|entry| entry.positive_duration()) {
            settings.timeout = timeout;
        }
        if let Some(entry) = section.entry("queue") {
            let title = format!("`queue` of [app.{}]", settings.name);
            if let Some(queue) = entry.section(&title, "a table such as { max = 1000, timeout = \"10s\" }", QUEUE) {
                if let Some(max) = queue.entry("max").and_then(|entry| entry.whole(0, 10_000_000)) {
                    settings.queue_max = max as usize;
                }
                if let Some(timeout) = queue.entry("timeout").and_then(|entry| entry.positive_duration()) {
                    settings.queue_timeout = timeout;
                }
            }
        }
        settings.stream_idle = section.entry("stream_idle").and_then(|entry| entry.positive_duration());
        settings.max_requests = section.entry("max_requests").and_then(|entry| entry.whole(1, i64::MAX as u64));
        settings.memory_limit = section.entry("memory_limit").and_then(|entry| entry.size());
        settings.lifetime = section.entry("lifetime").and_then(|entry| entry.positive_duration());
    }

    /// `processes = { min = 0, max = 8, idle = "10m" }`.
    fn read_processes(&mut self, entry: &Entry<'_>) {
        let title = format!("`processes` of [app.{}]", self.settings.name);
        let what = "a number, \"auto\" or a table such as { min = 0, max = 8, idle = \"10m\" }";
        let Some(table) = entry.section(&title, what, PROCESSES) else { return };
        self.processes =
            table.entry("max").and_then(|entry| entry.whole(1, MOST_PROCESSES)).map(|number| number as u32);
        let min = table.entry("min").and_then(|entry| entry.whole(0, MOST_PROCESSES)).map_or(1, |min| min as u32);
        if self.processes.is_some_and(|max| min > max) {
            entry.fault("`min` is larger than `max`");
        }
        self.min_processes = Some(min);
        if let Some(idle) = table.entry("idle").and_then(|entry| entry.positive_duration()) {
            self.settings.idle = idle;
        }
    }

    fn read_worker(&mut self, section: &Section<'_>) {
        let settings = &mut self.settings;
        if let Some(entry) = section.entry("preload") {
            let read = |text: &str| if text == "auto" { Ok(Preload::Auto) } else { Err(text.to_owned()) };
            let preload = if entry.is_text() {
                entry.parse("`true`, `false` or \"auto\"", |text| {
                    read(text).map_err(|text| format!("expected `true`, `false` or \"auto\", found {text:?}"))
                })
            } else {
                entry.boolean().map(|once| if once { Preload::Always } else { Preload::Never })
            };
            settings.preload = preload.unwrap_or(settings.preload);
        }
        settings.ready = section.entry("ready").and_then(|entry| {
            entry.parse("a path such as \"/healthz\"", |text| {
                let valid = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
                if valid {
                    Ok(text.to_owned())
                } else {
                    Err(format!("expected a path such as \"/healthz\", found {text:?}"))
                }
            })
        });
        if let Some(entry) = section.entry("hooks")
            && let Some(path) = entry.path()
        {
            if !path.is_file() {
                entry.fault(format!("there is no file {}", path.display()));
            }
            settings.hooks = Some(path);
        }
    }

    /// Fills in what is found: callables of a target, folder, interpreter, number of processes.
    pub(super) fn complete(mut self, environment: &Environment, report: &Report) -> AppSettings {
        if let Some(found) = self.target.take().and_then(|target| report.take(self.look(&target))) {
            self.settings.mounts = found.mounts;
            self.settings.django = found.django;
            self.folder = found.directory;
        }
        let (directory, place) = self.directory.take().unwrap_or_else(|| (self.folder.clone(), self.place.clone()));
        if !directory.is_dir() {
            report.fault(place.clone(), format!("there is no folder {}", directory.display()));
        }
        self.settings.directory = directory;
        let settings = &mut self.settings;
        let shared = Application {
            directory: settings.directory.clone(),
            mounts: settings.mounts.clone(),
            django: settings.django,
            description: String::new(),
        };
        if let Err(message) = target::check_settings(&shared) {
            report.fault(self.place.clone(), message);
        }
        if settings.collect && !settings.django {
            report.warn(format!("[app.{}] is no Django project: there is nothing to collect", settings.name));
        }
        let module = if settings.django { Some("django".to_owned()) } else { outside_module(settings) };
        let choice = Choice {
            named: self.python.as_ref(),
            environment,
            directory: &settings.directory,
            module: module.as_deref(),
            place: &self.place,
        };
        if let Some((python, reason)) = report.take(choice.decide()) {
            (settings.python, settings.python_reason) = (python, reason);
        }
        settings.processes = self.processes.unwrap_or(environment.cores.clamp(1, MOST_PROCESSES as usize) as u32);
        settings.min_processes = self.min_processes.map_or(settings.processes, |min| min.min(settings.processes));
        self.settings
    }

    fn look(&self, (text, folder, place): &(String, PathBuf, Place)) -> Result<Application, ConfigFault> {
        let wrong = |message: String| ConfigFault { place: place.clone(), message };
        let directory = self.directory.as_ref().map(|(path, _)| path.as_path());
        let looking = Looking { base: folder, directory, configurations: false };
        let found = looking.find(std::slice::from_ref(text)).map_err(|fault| {
            let message = format!("`target` in [app.{}]: {}: {}", self.settings.name, fault.place, fault.message);
            wrong(message)
        })?;
        match found {
            Target::Application(application) => Ok(application),
            Target::Files(folder) | Target::Configuration(folder) => Err(wrong(format!(
                "`target` in [app.{}]: {} holds files and no application; write a [[route]] with static = {{ root = {text:?} }}",
                self.settings.name,
                folder.display()
            ))),
        }
    }
}

/// How long a process that was started on demand waits for the next request: a pause between two visits of one person.
const IDLE: Duration = Duration::from_secs(600);

/// More is a mistake: each is an interpreter with the whole application.
pub(super) const MOST_PROCESSES: u64 = 1024;
/// More is a mistake: they share one lock.
pub(super) const MOST_THREADS: u64 = 1024;

/// A number, or `auto` for `None`.
pub(super) fn processes(text: &str) -> Result<Option<u32>, String> {
    if text == "auto" {
        return Ok(None);
    }
    let number = units::whole(text, 1, MOST_PROCESSES);
    let wrong = |_| format!("expected a number from 1 to {MOST_PROCESSES} or \"auto\", found {text:?}");
    number.map(|number| Some(number as u32)).map_err(wrong)
}

/// Reads a file of variables into `env`; each of its faults is told at its line.
pub(super) fn read_env_file(
    path: &Path,
    place: &Place,
    environment: &Environment,
    report: &Report,
    env: &mut BTreeMap<String, String>,
) {
    let path = join(&environment.directory, path);
    let name = environment.shown(&path);
    match std::fs::read_to_string(&path) {
        Err(error) => report.fault(place.clone(), format!("cannot read {name}: {error}")),
        Ok(text) => {
            for (line, variable) in variables::env_file(&text) {
                match variable {
                    Ok((key, value)) => drop(env.insert(key, value)),
                    Err(message) => report.fault(Place::File { name: name.clone(), line, column: 1 }, message),
                }
            }
        }
    }
}

fn mounts(entry: &Entry<'_>, app: &str) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = Vec::new();
    let what = "a table such as { \"/\" = \"portal:app\", \"/wiki\" = \"wiki.wsgi:application\" }";
    let entries = entry.map(&format!("`mounts` of [app.{app}]"), what).unwrap_or_default();
    if entries.is_empty() && entry.is_table() {
        entry.expected("at least one mount");
    }
    for item in entries {
        let path = match target::mount_path(item.key()) {
            Ok(path) => path,
            Err(message) => {
                item.fault(message);
                continue;
            }
        };
        if mounts.iter().any(|mount| mount.path == path) {
            item.fault(format!("something is mounted at `{path}/` already"));
        }
        if let Some(callable) = item.parse("`module:callable`", target::callable) {
            mounts.push(Mount { path, callable });
        }
    }
    mounts
}

/// The top module of the first callable, if it does not lie in the application's folder.
fn outside_module(settings: &AppSettings) -> Option<String> {
    let callable = &settings.mounts.first()?.callable;
    let top = callable.split([':', '.']).next()?;
    let inside = settings.directory.join(top);
    (!inside.is_dir() && !inside.with_extension("py").is_file()).then(|| top.to_owned())
}
