//! What Django's settings add to the routes: asked in the project's own Python, by the program that `serve` starts.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use tokio::runtime::Builder;

use crate::app::{AppSettings, DjangoInfo, Ready, SHIM, Start, Zygote, ZygoteMessage};
use crate::config::Configuration;
use crate::control::message::Project;
use crate::django;
use crate::supervisor::{RuntimeFolder, identity};

/// How long an import may take: as long as `serve` gives it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Adds the routes of every Django project. What could not be found out comes back. A configuration without one starts
/// nothing, and what a server that runs was `told` need not be asked again, as long as the settings are the same.
pub fn ask(configuration: &mut Configuration, mut told: BTreeMap<String, Project>) -> Vec<String> {
    let mut unknown = Vec::new();
    let projects: Vec<AppSettings> = configuration.apps.iter().filter(|app| app.django).cloned().collect();
    for app in projects {
        if let Some(info) = told.remove(&app.name).and_then(known) {
            unknown.extend(django::add(&mut configuration.routes, &app.name, &django::examine(&info).routes));
            continue;
        }
        let user = configuration.server.user.clone();
        let group = configuration.server.group.clone();
        match ready(&app, user.as_deref(), group.as_deref()) {
            Ok(ready) => {
                if let Some(error) = &ready.django_error {
                    unknown.push(format!("{}: some of Django's settings: {error}", app.name));
                }
                if let Some(info) = &ready.django {
                    unknown.extend(django::add(&mut configuration.routes, &app.name, &django::examine(info).routes));
                }
            }
            Err(error) => unknown.push(format!(
                "{}: which routes Django's settings add: the project could not be asked: {error}",
                app.name
            )),
        }
    }
    unknown
}

/// What was told, unless a module has changed since that stands beside the settings: they may be made of several.
fn known(told: Project) -> Option<DjangoInfo> {
    let info: DjangoInfo = serde_json::from_value(told.settings).ok()?;
    let folder = Path::new(info.settings_file.as_ref()?).parent()?;
    let read_at = UNIX_EPOCH + Duration::try_from_secs_f64(told.read_at).ok()?;
    for entry in folder.read_dir().ok()? {
        let entry = entry.ok()?;
        let is_module = Path::new(&entry.file_name()).extension().is_some_and(|extension| extension == "py");
        if is_module && std::fs::metadata(entry.path()).and_then(|found| found.modified()).ok()? >= read_at {
            return None;
        }
    }
    Some(info)
}

/// Imports the application as its user, and no more: no worker is forked.
fn ready(app: &AppSettings, user: Option<&str>, group: Option<&str>) -> Result<Box<Ready>, String> {
    let user = app.user.as_deref().or(user);
    let group = app.group.as_deref().or(group);
    let chosen = identity::of_application(user, group, &app.directory).map_err(|error| error.to_string())?;
    let folder = RuntimeFolder::new().map_err(|error| error.to_string())?;
    let shim = folder.write_program("daemun_worker.py", SHIM.as_bytes()).map_err(|error| error.to_string())?;
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let (lifeline, kept) = std::io::pipe().map_err(|error| error.to_string())?;
        let (_stacks, theirs) = std::io::pipe().map_err(|error| error.to_string())?;
        let start = Start {
            shim: &shim,
            accelerator: None,
            development: None,
            // No worker will ask for it.
            socket: Path::new(""),
            account: chosen.account.as_ref(),
            lifeline: lifeline.into(),
            stacks: theirs.into(),
            open_files: None,
        };
        let started = Zygote::start(app, start).await;
        let (mut zygote, mut words) = started.map_err(|error| format!("{}: {error}", app.python.display()))?;
        let said = tokio::time::timeout(PATIENCE, words.next()).await;
        zygote.stop().await;
        drop(kept);
        end(zygote.pid);
        match said {
            Ok(Ok(Some(ZygoteMessage::Ready(ready)))) => Ok(ready),
            Ok(Ok(Some(ZygoteMessage::Failed { what, .. }))) => Err(what),
            Ok(_) => Err("its Python ended; what it said stands above".to_owned()),
            Err(_) => Err(format!("its import is still running after {} s", PATIENCE.as_secs())),
        }
    })
}

/// The zygote has told all that was asked of it; nothing that it started is to outlive the question.
fn end(pid: i32) {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else { return };
    // It may have ended already.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
}
