//! A change of configuration or code: build the new beside the old. The start is the first one. The swap, and the end of
//! the old, is [`switching`](super::switching).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::binding::Fresh;
use super::certificates::Certificates;
use super::events::Event;
use super::stacks::Stacks;
use super::{App, Lifeline, Master, Phase, certificates, certifying, lines, scaling};
use crate::app::{Preload, Ready, Start, Zygote};
use crate::codes::Finding;
use crate::config::Configuration;
use crate::process::Account;
use crate::supervisor::{Backoff, RuntimeFolder, identity};
use crate::{check, django};

/// How long an import may take.
const IMPORT_DEADLINE: Duration = Duration::from_secs(120);

/// How long forked workers may take to connect.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(30);

/// A change that is under way.
pub(super) struct Change {
    pub(super) number: u64,
    pub(super) configuration: Configuration,
    pub(super) bound: Fresh,
    pub(super) certificates: Certificates,
    pub(super) apps: BTreeMap<String, NewApp>,
    pub(super) stage: Stage,
}

/// An application's next generation.
pub(super) struct NewApp {
    pub(super) generation: u64,
    pub(super) account: Option<Account>,
    pub(super) zygote: Option<Zygote>,
    pub(super) started: Instant,
    /// How many workers it begins with.
    pub(super) wanted: u32,
    pub(super) import: Import,
    /// The page that tells a developer why it failed.
    pub(super) page: Option<String>,
}

pub(super) enum Import {
    Running,
    Done(Box<Ready>),
    Failed(String),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stage {
    Importing,
    Connecting,
    Switching,
}

impl Change {
    /// Its zygotes.
    pub(super) fn pids(&self) -> impl Iterator<Item = i32> {
        self.apps.values().filter_map(|app| app.zygote.as_ref().map(|zygote| zygote.pid))
    }

    fn is_importing(&self) -> bool {
        self.apps.values().any(|app| matches!(app.import, Import::Running))
    }

    fn failures(&self) -> Vec<&str> {
        let failed = |app: &'_ NewApp| matches!(app.import, Import::Failed(_));
        let failed = self.apps.values().filter(|app| failed(app));
        failed.filter_map(|app| if let Import::Failed(why) = &app.import { Some(&**why) } else { None }).collect()
    }
}

impl Master {
    /// HUP: everything anew, or nothing.
    pub(super) async fn reload(&mut self) {
        self.reload_apps(Vec::new()).await;
    }

    /// HUP, or the code of these applications alone where some are named.
    pub(super) async fn reload_apps(&mut self, only: Vec<String>) {
        if self.phase != Phase::Running {
            return;
        }
        if self.change.is_some() {
            // An import can last longer than the pause between two HUPs: one more round after this one is enough.
            self.again = true;
            return self.desk.next_round(&only);
        }
        self.desk.round_begins();
        self.notify.reloading();
        let begun = if only.is_empty() {
            match (self.configure)() {
                Ok(configuration) => {
                    self.warn_of_what_stays(&configuration);
                    self.begin(configuration, &[]).await
                }
                Err(error) => Err(error),
            }
        } else {
            self.begin(self.configuration.clone(), &only).await
        };
        if let Err(error) = begun {
            let text = format!("reload refused, the old configuration serves on: {error}");
            self.errors.error_lines(&text);
            self.reload_ended(Err(&text));
            self.later(Duration::ZERO, Event::Release);
        }
    }

    /// Says what of a new configuration waits for a restart.
    fn warn_of_what_stays(&self, configuration: &Configuration) {
        let (old, new) = (&self.configuration.server, &configuration.server);
        let stays = [
            ("access_log, error_log and their formats", old.telemetry != new.telemetry),
            ("event_loops", old.event_loops != new.event_loops),
            ("pid_file", old.pid_file != new.pid_file),
            ("control", old.control != new.control),
        ];
        for (what, _) in stays.iter().filter(|(_, changed)| *changed) {
            self.errors.warning(format_args!("[server]: a change of {what} takes effect with the next start"));
        }
    }

    /// Begins a change: binds, and starts to import; of the applications only those that are named, where some are.
    pub(super) async fn begin(&mut self, configuration: Configuration, only: &[String]) -> Result<(), String> {
        certifying::prepare(&configuration)?;
        let certificates = Certificates::read(&configuration)?;
        let bound = self.bind_new(&configuration)?;
        // Never used again, so that late news of a change that was given up is not taken for this one's.
        self.changes += 1;
        let number = self.changes;
        let mut change =
            Change { number, configuration, certificates, bound, apps: BTreeMap::new(), stage: Stage::Importing };
        change.configuration.warnings.extend(certificates::warnings(&change.configuration));
        self.prepare_programs(&mut change.configuration).await?;
        self.prepare_spawned(&mut change.configuration)?;
        self.check_transformers(&change.configuration)?;
        let wanted = |app: &crate::app::AppSettings| only.is_empty() || only.contains(&app.name);
        let apps: Vec<_> = change.configuration.apps.iter().filter(|app| wanted(app)).cloned().collect();
        for settings in apps {
            let server = &change.configuration.server;
            let user = settings.user.as_deref().or(server.user.as_deref());
            let group = settings.group.as_deref().or(server.group.as_deref());
            let chosen = identity::of_application(user, group, &settings.directory)
                .map_err(|error| format!("[app.{}]: {error}", settings.name))?;
            if let Some(warning) = chosen.warning.filter(|_| !self.serving) {
                change.configuration.warnings.push(format!("{}: {warning}", settings.name));
            }
            self.ensure_app(&settings, chosen.account.as_ref())
                .map_err(|error| format!("{}: {error}", settings.name))?;
            let zygote = self.start_zygote(&settings, number, chosen.account.as_ref()).await?;
            let app = NewApp {
                generation: number,
                account: chosen.account,
                zygote: Some(zygote),
                started: Instant::now(),
                wanted: scaling::wanted(
                    &settings,
                    self.apps.get(&settings.name).filter(|_| self.serving).map(|app| app.wanted),
                ),
                import: Import::Running,
                page: None,
            };
            change.apps.insert(settings.name, app);
        }
        let waits = change.is_importing();
        self.change = Some(change);
        self.later_unless_developing(IMPORT_DEADLINE, Event::ImportDeadline(number));
        if !waits {
            self.imported().await;
        }
        Ok(())
    }

    /// Makes the place for an application's processes, where it is new.
    fn ensure_app(&mut self, settings: &crate::app::AppSettings, account: Option<&Account>) -> std::io::Result<()> {
        if let Some(app) = self.apps.get(&settings.name) {
            // Workers of the user before are connected already; from now on it is the new one's.
            return RuntimeFolder::give(&app.socket_path, account);
        }
        let lifeline = Lifeline::new(account)?;
        let stacks = Stacks::new(account)?;
        let (socket_path, socket) = self.runtime.worker_socket(&settings.name, account)?;
        let app = App {
            settings: settings.clone(),
            account: account.cloned(),
            socket_path,
            socket,
            lifeline,
            stacks,
            python: String::new(),
            django: None,
            wanted: scaling::wanted(settings, None),
            generation: 0,
            zygote: None,
            zygote_started: Instant::now(),
            zygote_ready: false,
            given_up: false,
            workers: BTreeMap::new(),
            departed: BTreeMap::new(),
            backoff: Backoff::default(),
            zygote_backoff: Backoff::default(),
        };
        self.apps.insert(settings.name.clone(), app);
        Ok(())
    }

    /// Starts a zygote; what it says becomes events of this generation.
    pub(super) async fn start_zygote(
        &self,
        settings: &crate::app::AppSettings,
        generation: u64,
        account: Option<&Account>,
    ) -> Result<Zygote, String> {
        let name = &settings.name;
        let app = self.apps.get(name).ok_or_else(|| format!("no application `{name}`"))?;
        let lifeline = app.lifeline.end.try_clone().map_err(|error| error.to_string())?;
        let stacks = app.stacks.end.try_clone().map_err(|error| error.to_string())?;
        let (shim, socket, open_files) = (&*self.shim, &*app.socket_path, self.open_files);
        let accelerator = self.accelerator.as_deref();
        let development = self.developing.tools();
        let start = Start { shim, accelerator, socket, account, development, lifeline, stacks, open_files };
        let (zygote, mut words) = Zygote::start(settings, start).await.map_err(|error| {
            format!("{name}: cannot start {} ({}): {error}", settings.python.display(), settings.python_reason)
        })?;
        let (events, name, pid) = (self.events.clone(), name.clone(), zygote.pid);
        tokio::spawn(async move {
            loop {
                let message = words.next().await.unwrap_or_else(|error| {
                    // The receiver ends with the server.
                    let _ = events.send(Event::Unheard(pid, error.to_string()));
                    None
                });
                let last = message.is_none();
                if events.send(Event::Zygote(name.clone(), generation, message)).is_err() || last {
                    return;
                }
            }
        });
        Ok(zygote)
    }

    /// What a zygote of the change under way came to. True when the server must end.
    pub(super) async fn import_ended(&mut self, app: &str, result: Result<Box<Ready>, String>) -> bool {
        let Some(change) = &mut self.change else { return false };
        let Some(new) = change.apps.get_mut(app) else { return false };
        if !matches!(new.import, Import::Running) {
            return false;
        }
        new.import = match result {
            Ok(ready) => Import::Done(ready),
            Err(why) => {
                new.zygote = None;
                Import::Failed(why)
            }
        };
        if change.is_importing() { false } else { self.imported().await }
    }

    /// Imports that take too long have failed.
    pub(super) async fn import_deadline(&mut self, number: u64) -> bool {
        let Some(change) = self.change.as_ref().filter(|change| change.number == number) else { return false };
        let late = change.apps.iter().filter(|(_, app)| matches!(app.import, Import::Running));
        let late: Vec<_> =
            late.map(|(name, app)| (name.clone(), app.zygote.as_ref().map(|zygote| zygote.pid))).collect();
        let mut end = false;
        for (name, pid) in late {
            if let Some(pid) = pid {
                self.kill_if_alive(pid);
            }
            let why = format!(
                "{name}: the import has not ended within {} s; a module that starts a server of its own when it is \
                 imported must do so below `if __name__ == \"__main__\":`",
                IMPORT_DEADLINE.as_secs()
            );
            end |= self.import_ended(&name, Err(why)).await;
        }
        end
    }

    /// All imports are done: work out the routes, let the front prepare, fork. True when the server must end.
    async fn imported(&mut self) -> bool {
        let Some(change) = &mut self.change else { return false };
        let failures: Vec<String> = change.failures().into_iter().map(str::to_owned).collect();
        let apps = &self.apps;
        // What was broken before may stay so: the others are loaded all the same.
        let lost = |(name, new): (&String, &NewApp)| {
            matches!(new.import, Import::Failed(_)) && !apps.get(name).is_some_and(|app| app.given_up)
        };
        // Who develops sees the failure in the browser.
        let development = change.configuration.development.is_some();
        if !failures.is_empty()
            && !development
            && (failures.len() == change.apps.len() || self.serving && change.apps.iter().any(lost))
        {
            return self.abandon(&failures.join("\n"));
        }
        for failure in &failures {
            self.errors.error_lines(failure);
            let answers = if development {
                "shows this to browsers until it is mended"
            } else {
                "answers 503 while the others serve"
            };
            self.errors.error(format_args!("the application above {answers}"));
        }
        change.tell_left_behind();
        change.add_django_routes();
        change.configuration.warnings.extend(check::closed_to_the_front(&change.configuration));
        if self.serving {
            let known = &self.configuration.warnings;
            for warning in change.configuration.warnings.iter().filter(|warning| !known.contains(warning)) {
                self.errors.warning(format_args!("{warning}"));
            }
        } else {
            let ready = change.apps.iter();
            let ready = ready.filter_map(|(name, app)| match &app.import {
                Import::Done(ready) => Some((&**name, &**ready)),
                _ => None,
            });
            lines::introduce(&change.configuration, ready);
            for warning in &change.configuration.warnings {
                lines::say(format_args!("warning: {warning}"));
            }
        }
        change.stage = Stage::Connecting;
        if let Some(change) = &self.change {
            self.watch_also(change);
        }
        let Some(change) = &mut self.change else { return false };
        let (number, workers) = (change.number, change.workers_to_fork());
        if let Err(error) = self.prepare_front().await {
            return self.abandon(&error);
        }
        for (name, generation, processes) in &workers {
            for _ in 0..*processes {
                self.fork_worker(name, *generation, None).await;
            }
        }
        if workers.iter().all(|(_, _, processes)| *processes == 0) {
            return self.switch().await;
        }
        self.later_unless_developing(CONNECT_DEADLINE, Event::ConnectDeadline(number));
        false
    }

    /// Ends the processes of a change that will not come through; false when there is none.
    pub(super) fn forget_change(&mut self) -> bool {
        let Some(change) = &self.change else { return false };
        let mut pids: Vec<i32> = change.pids().collect();
        for (name, new) in &change.apps {
            let Some(app) = self.apps.get_mut(name) else { continue };
            for worker in app.workers.values_mut().filter(|worker| worker.generation == new.generation) {
                worker.leaving = true;
                pids.push(worker.pid);
            }
            if app.generation != 0 {
                // Best effort: who made it may still own it.
                let _ = RuntimeFolder::give(&app.socket_path, app.account.as_ref());
            }
            // Nobody will say what became of a fork that is under way; its worker, if it comes, is not expected.
            app.workers.retain(|_, worker| worker.generation != new.generation || worker.pid != 0);
        }
        for pid in pids {
            self.kill_if_alive(pid);
        }
        self.change = None;
        self.end_unused_spawned();
        true
    }

    /// A worker of the change under way cannot serve: neither can the others. True when the server must end.
    pub(super) fn unfit(&mut self, generation: u64, why: &str) -> bool {
        self.change.as_ref().is_some_and(|change| change.number == generation) && self.abandon(why)
    }

    /// Gives a change up; at the start there is nothing to go back to. True when the server must end.
    pub(super) fn abandon(&mut self, why: &str) -> bool {
        if !self.forget_change() {
            return false;
        }
        if !self.serving {
            return self.start_failed(why);
        }
        let text = format!("reload refused, the old code serves on: {why}");
        self.errors.error_lines(&text);
        self.reload_ended(Err(&text));
        if std::mem::take(&mut self.again) {
            // Asked for while this one was under way, perhaps because the fault is mended.
            self.later(Duration::ZERO, Event::Reload);
        } else {
            self.later(Duration::ZERO, Event::Release);
        }
        false
    }
}

impl Change {
    pub(super) fn generations(&self) -> BTreeMap<String, u64> {
        self.apps.iter().map(|(name, app)| (name.clone(), app.generation)).collect()
    }

    /// Applications that were imported, with their generation and number of processes.
    pub(super) fn workers_to_fork(&self) -> Vec<(String, u64, u32)> {
        let imported = self.apps.iter().filter(|(_, app)| matches!(app.import, Import::Done(_)));
        imported.map(|(name, app)| (name.clone(), app.generation, app.wanted)).collect()
    }

    /// Whether the zygote of this application's generation has been imported.
    pub(super) fn zygote(&mut self, app: &str, generation: u64) -> Option<&mut Zygote> {
        let new = self.apps.get_mut(app).filter(|new| new.generation == generation)?;
        new.zygote.as_mut()
    }

    /// The zygote with this process id.
    pub(super) fn zygote_of(&mut self, pid: i32) -> Option<&mut Option<Zygote>> {
        let found = |zygote: &&mut Option<Zygote>| zygote.as_ref().is_some_and(|zygote| zygote.pid == pid);
        self.apps.values_mut().map(|new| &mut new.zygote).find(found)
    }

    /// Whether this application's next generation is this one.
    pub(super) fn is_generation(&self, app: &str, generation: u64) -> bool {
        self.apps.get(app).is_some_and(|new| new.generation == generation)
    }

    /// Says what an import has left behind that a fork would break.
    fn tell_left_behind(&mut self) {
        for (name, app) in &self.apps {
            let Import::Done(ready) = &app.import else { continue };
            let threads = ready.threads.iter().map(|thread| format!("thread {thread}"));
            let sockets = ready.sockets.iter().map(|socket| format!("socket {socket}"));
            let left: Vec<String> = threads.chain(sockets).collect();
            let settings = self.configuration.apps.iter().find(|settings| &settings.name == name);
            let text = match settings.map(|settings| settings.preload) {
                _ if left.is_empty() => continue,
                Some(Preload::Never) | None => continue,
                Some(Preload::Auto) => "each worker imports the application by itself (`preload`)",
                Some(Preload::Always) => "workers are forked from it all the same (`preload = true`)",
            };
            let left = left.join(", ");
            self.configuration
                .warnings
                .push(format!("{name}: the import has left behind what a fork breaks: {left}; {text}"));
        }
    }

    /// Adds what Django's settings say, where no route of the file says otherwise.
    fn add_django_routes(&mut self) {
        for (name, app) in &self.apps {
            let Import::Done(ready) = &app.import else { continue };
            if let Some(error) = &ready.django_error {
                let text = format!("{name}: Django's settings could not be asked for static files: {error}");
                self.configuration.warnings.push(text);
            }
            self.configuration.warnings.extend(ready.warnings.iter().map(|text| format!("{name}: {text}")));
            let Some(info) = &ready.django else { continue };
            let findings = match self.configuration.development {
                Some(_) => django::examine_for_development(info),
                None => django::examine(info),
            };
            self.configuration.warnings.extend(findings.warnings.iter().map(Finding::told));
            django::add(&mut self.configuration.routes, findings.routes);
        }
    }
}
