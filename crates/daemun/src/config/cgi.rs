//! `cgi` of `[[route]]`, and what stands between CGI roots and folders of static files.

use std::path::{Path, PathBuf};

use super::configuration::HandlerSettings;
use super::environment::Environment;
use super::fault::Report;
use super::route::Draft;
use super::section::{Entry, Keys, Section};
use super::static_route;
use crate::cgi::{CgiSettings, find_program};
use crate::launcher::{Reuse, Sandbox};
use crate::router::{HostPattern, PathPattern};
use crate::static_files::Barred;

/// The keys of `cgi`.
pub(super) const KEYS: Keys = Keys {
    known: &[
        "root",
        "program",
        "interpreters",
        "env",
        "document_root",
        "sendfile",
        "authorization",
        "timeout",
        "stream_idle",
        "total_timeout",
        "max_processes",
        "queue",
        "user",
        "group",
        "limits",
        "sandbox",
        "reuse",
        "python",
        "warm",
    ],
    later: &[],
};
const QUEUE: Keys = Keys { known: &["max", "timeout"], later: &[] };
const LIMITS: Keys = Keys { known: &["cpu", "memory", "files", "processes", "file_size"], later: &[] };
const SANDBOX: Keys = Keys { known: &["read", "write"], later: &[] };

/// Most places that make sense on one machine.
const MOST_PROCESSES: u64 = 10_000;

/// Reads `cgi`.
pub(super) fn read(entry: &Entry<'_>) -> Option<CgiSettings> {
    let section = entry.section("`cgi`", "a table such as { root = \"cgi-bin\" }", KEYS)?;
    let mut settings = CgiSettings::default();
    let program = section.entry("program").map(|entry| command(&entry));
    settings.program = match program {
        Some(program) => program?,
        None => Vec::new(),
    };
    match section.entry("root") {
        Some(root) => settings.root = folder(&root)?,
        None if settings.program.is_empty() => {
            entry.fault("a `root` is missing: the folder of the scripts; or a `program` that answers everything");
            return None;
        }
        None => {
            let parent = settings.program.first().and_then(|program| Path::new(program).parent());
            parent.filter(|parent| parent.is_absolute()).unwrap_or(Path::new("/")).clone_into(&mut settings.root);
        }
    }
    interpreters(&section, &mut settings);
    settings.env = env(&section);
    settings.document_root = section.entry("document_root").and_then(|entry| folder(&entry));
    if let Some(entry) = section.entry("sendfile") {
        settings.sendfile = static_route::sendfile(&entry, "`sendfile` of `cgi`");
    }
    settings.authorization = section.entry("authorization").and_then(|entry| entry.boolean()).unwrap_or(false);
    deadlines_and_places(&section, &mut settings);
    settings.user = section.entry("user").and_then(|entry| entry.name());
    settings.group = section.entry("group").and_then(|entry| entry.name());
    limits(&section, &mut settings);
    settings.profile.sandbox = sandbox(&section, &settings);
    reuse(&section, &mut settings);
    Some(settings)
}

/// What `--cgi` gives: scripts in a folder.
pub(super) fn folder_of_scripts(root: &Path) -> CgiSettings {
    CgiSettings { root: root.to_owned(), ..CgiSettings::default() }
}

fn folder(entry: &Entry<'_>) -> Option<PathBuf> {
    let path = entry.path()?;
    if !path.is_dir() {
        entry.fault(format!("there is no folder {}", path.display()));
        return None;
    }
    // Scripts see their own paths: without links they are the same ones that the owner rules look at.
    Some(path.canonicalize().unwrap_or(path))
}

/// A command: a name or path, or a list that begins with one.
pub(super) fn command(entry: &Entry<'_>) -> Option<Vec<String>> {
    let mut words = if entry.is_list() { entry.texts()? } else { vec![entry.name()?] };
    let Some(program) = words.first_mut().filter(|program| !program.is_empty()) else {
        entry.expected("a program, or a list such as [\"git\", \"http-backend\"]");
        return None;
    };
    if program.contains('/') {
        let path = super::environment::join(&entry.source.document.folder, program.as_str());
        *program = path.display().to_string();
    }
    match find_program(program) {
        Some(path) => *program = path.display().to_string(),
        // Not a fault: the rest of the site works without it.
        None => entry.source.report.warn(format!(
            "{}: there is no program `{program}` in {}; every request to it will be 500",
            entry.place(),
            crate::cgi::PROGRAM_PATH
        )),
    }
    Some(words)
}

fn interpreters(section: &Section<'_>, settings: &mut CgiSettings) {
    let Some(entry) = section.entry("interpreters") else { return };
    if !settings.program.is_empty() {
        return entry.fault("`program` answers everything: there is no script to choose an interpreter for");
    }
    let what = "a table such as { \".pl\" = \"perl\" }";
    for one in entry.map("`interpreters` of `cgi`", what).unwrap_or_default() {
        if !one.key().starts_with('.') || one.key().contains('/') || one.key().len() < 2 {
            one.fault("expected an ending such as \".pl\" before the `=`");
        } else if let Some(command) = command(&one) {
            settings.interpreters.push((one.key().to_owned(), command));
        }
    }
}

fn env(section: &Section<'_>) -> Vec<(String, String)> {
    let Some(entry) = section.entry("env") else { return Vec::new() };
    let mut env = Vec::new();
    for variable in entry.map("`env` of `cgi`", "a table such as { LANG = \"C.UTF-8\" }").unwrap_or_default() {
        if variable.key().is_empty() || variable.key().contains(['=', '\0']) {
            variable.fault("this cannot be the name of an environment variable");
        } else if let Some(value) = variable.text() {
            env.push((variable.key().to_owned(), value));
        }
    }
    env
}

fn deadlines_and_places(section: &Section<'_>, settings: &mut CgiSettings) {
    let time = |key: &str, default| section.entry(key).and_then(|entry| entry.positive_duration()).unwrap_or(default);
    settings.timeout = time("timeout", settings.timeout);
    settings.stream_idle = time("stream_idle", settings.stream_idle);
    settings.total_timeout = time("total_timeout", settings.total_timeout);
    if let Some(most) = section.entry("max_processes").and_then(|entry| entry.whole(1, MOST_PROCESSES)) {
        settings.max_processes = most as u32;
    }
    let queue = section.entry("queue");
    let what = "a table such as { max = 1000, timeout = \"10s\" }";
    if let Some(queue) = queue.and_then(|entry| entry.section("`queue` of `cgi`", what, QUEUE)) {
        if let Some(most) = queue.entry("max").and_then(|entry| entry.whole(0, 1_000_000)) {
            settings.queue_max = most as usize;
        }
        if let Some(timeout) = queue.entry("timeout").and_then(|entry| entry.positive_duration()) {
            settings.queue_timeout = timeout;
        }
    }
}

fn limits(section: &Section<'_>, settings: &mut CgiSettings) {
    let what = "a table such as { cpu = \"30s\", memory = \"512MiB\" }";
    let limits = section.entry("limits").and_then(|entry| entry.section("`limits` of `cgi`", what, LIMITS));
    let Some(limits) = limits else { return };
    let profile = &mut settings.profile;
    let cpu = limits.entry("cpu").and_then(|entry| entry.positive_duration());
    // The kernel counts whole seconds, and 0 would mean at once.
    profile.cpu = cpu.map(|time| time.as_secs_f64().ceil() as u64);
    profile.memory = limits.entry("memory").and_then(|entry| entry.size());
    profile.files = limits.entry("files").and_then(|entry| entry.whole(8, 1 << 20));
    profile.processes = limits.entry("processes").and_then(|entry| entry.whole(1, 1 << 20));
    profile.file_size = limits.entry("file_size").and_then(|entry| entry.size());
}

/// `true`, or what may be read and written beyond the system and the root.
fn sandbox(section: &Section<'_>, settings: &CgiSettings) -> Option<Sandbox> {
    let entry = section.entry("sandbox")?;
    let mut sandbox = Sandbox { read: vec![settings.root.clone()], write: Vec::new() };
    sandbox.read.extend(settings.document_root.clone());
    if !entry.is_table() {
        return entry.boolean()?.then_some(sandbox);
    }
    let what = "`true`, or a table such as { read = [\"/srv/data\"], write = [\"/tmp\"] }";
    let table = entry.section("`sandbox` of `cgi`", what, SANDBOX)?;
    for (key, paths) in [("read", &mut sandbox.read), ("write", &mut sandbox.write)] {
        for item in table.entry(key).and_then(|entry| entry.items("a list of paths")).unwrap_or_default() {
            paths.extend(item.path());
        }
    }
    Some(sandbox)
}

fn reuse(section: &Section<'_>, settings: &mut CgiSettings) {
    let (python, warm) = (section.entry("python"), section.entry("warm"));
    let Some(reuse) = section.entry("reuse") else {
        for entry in [python, warm].into_iter().flatten() {
            entry.fault("it is for `reuse = \"fork\"`, which is missing");
        }
        return;
    };
    let forks = reuse.parse("\"fork\" or \"off\"", |text| match text {
        "fork" => Ok(true),
        "off" => Ok(false),
        other => Err(format!("expected \"fork\" or \"off\", found {other:?}")),
    });
    settings.reuse = forks.unwrap_or(false);
    if !settings.reuse {
        return;
    }
    let named = python.as_ref().and_then(command).and_then(|words| words.into_iter().next());
    let python = named.or_else(|| find_program("python3").map(|path| path.display().to_string()));
    let Some(python) = python else {
        return reuse.fault("there is no python3; say where it is: python = \"/usr/bin/python3\"");
    };
    let warm = warm.and_then(|entry| entry.texts()).unwrap_or_default();
    let mut env = settings.env.clone();
    if !env.iter().any(|(name, _)| name == "PATH") {
        env.push(("PATH".to_owned(), crate::cgi::PROGRAM_PATH.to_owned()));
    }
    settings.profile.reuse = Some(Reuse { python: PathBuf::from(python), warm, env });
}

/// `DOCUMENT_ROOT` where none is written: the root of the static route that answers `/*` on the same host.
pub(super) fn find_document_roots(routes: &mut [Draft]) {
    let whole = |path: &PathPattern| matches!(path, PathPattern::Prefix { prefix, suffix } if prefix == "/" && suffix.is_empty());
    let roots: Vec<(HostPattern, PathBuf)> = routes
        .iter()
        .filter(|route| whole(&route.settings.rule.path))
        .filter_map(|route| match &route.settings.handler {
            HandlerSettings::Static(settings) => {
                Some((route.settings.rule.host.clone(), settings.roots.first()?.path.clone()))
            }
            _ => None,
        })
        .collect();
    for route in routes {
        let host = route.settings.rule.host.clone();
        if let HandlerSettings::Cgi(settings) = &mut route.settings.handler
            && settings.document_root.is_none()
        {
            settings.document_root = roots.iter().find(|(other, _)| *other == host).map(|(_, root)| root.clone());
        }
    }
}

/// No file below a CGI root is ever sent. A folder of static files that lies there as a whole is a fault; of one that
/// contains a CGI root, or is the same folder with programs chosen by ending, the scripts are barred.
pub(super) fn bar_scripts(routes: &mut [Draft], environment: &Environment, report: &Report) {
    let scripts: Vec<(PathBuf, String, String)> = routes
        .iter()
        .filter_map(|route| match (&route.settings.handler, &route.settings.rule.path) {
            (HandlerSettings::Cgi(settings), path) => {
                let ending = match path {
                    PathPattern::Prefix { suffix, .. } => suffix.clone(),
                    PathPattern::Exact(_) => String::new(),
                };
                Some((settings.script_root()?.to_owned(), ending, route.settings.rule.origin.clone()))
            }
            (HandlerSettings::Scripts(settings), _) => {
                Some((settings.root.clone()?, settings.split.clone(), route.settings.rule.origin.clone()))
            }
            _ => None,
        })
        .collect();
    for route in routes {
        let HandlerSettings::Static(settings) = &mut route.settings.handler else { continue };
        for root in &settings.roots {
            let real = root.path.canonicalize().unwrap_or_else(|_| root.path.clone());
            for (folder, ending, origin) in &scripts {
                let (root, ending) = (root.path.clone(), ending.clone());
                match folder.strip_prefix(&real) {
                    Ok(below) if !(below.as_os_str().is_empty() && ending.is_empty()) => {
                        settings.barred.push(Barred { root, folder: below.display().to_string(), ending });
                    }
                    _ if !real.starts_with(folder) => {}
                    _ if !ending.is_empty() => settings.barred.push(Barred { root, folder: String::new(), ending }),
                    _ => report.fault(
                        route.place.clone(),
                        format!(
                            "the static files of {} lie below the CGI root {} of {origin}: scripts would be sent as \
                             text; move one of them out of the other",
                            environment.shown(&real),
                            environment.shown(folder)
                        ),
                    ),
                }
            }
        }
    }
}
