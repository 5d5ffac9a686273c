//! The second half of a change: the front prepares, workers connect, the front switches, the old ends.

use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use super::binding::Fresh;
use super::change::{CONNECT_DEADLINE, Change, Import, Stage};
use super::events::Event;
use super::{Master, roots, transforming};
use crate::config::Configuration;
use crate::listener::Bound;
use crate::server::plan::{self, Openings, ToFront};

impl Master {
    /// Sends the plan of the change under way, or of what is being served.
    pub(super) async fn prepare_front(&mut self) -> Result<(), String> {
        let (configuration, certificates, new) = match &self.change {
            Some(change) if change.stage != Stage::Importing => {
                (&change.configuration, &change.certificates, Some(&change.bound))
            }
            _ => (&self.configuration, &self.certificates, None),
        };
        let wanted = |bound: &&Bound| configuration.server.all_listeners().any(|settings| settings == &bound.settings);
        let all = self.bound.iter().filter(wanted).chain(new.into_iter().flat_map(Fresh::iter));
        let bound: Vec<Bound> = all.map(copy).collect::<std::io::Result<_>>().map_err(|error| error.to_string())?;
        let worker_sockets = configuration.apps.iter().filter_map(|app| self.apps.get(&app.name));
        let openings = Openings {
            access_log: self.logs.access(),
            error_log: self.logs.error(),
            bound: &bound,
            token: &self.desk.token,
            worker_sockets: worker_sockets.map(|app| app.socket.as_fd()).collect(),
            certificates: certificates.materials(&self.certifying),
        };
        let transforms = transforming::is_needed(configuration);
        let packed = plan::pack(configuration.clone(), &openings).map_err(|error| error.to_string())?;
        let descriptors: Vec<_> = packed.descriptors.iter().map(AsFd::as_fd).collect();
        // A front that is gone is prepared again when it is back.
        let _ = self.front.channel.send(&ToFront::Prepare(Box::new(packed.plan)), &descriptors).await;
        self.connect_launcher().await;
        self.connect_transformers(transforms).await;
        Ok(())
    }

    /// A worker has connected: switch as soon as enough have. At the start the first of each application is enough, in a
    /// reload the old ones serve until all are there.
    pub(super) async fn check_connected(&mut self) -> bool {
        let Some(change) = self.change.as_ref().filter(|change| change.stage == Stage::Connecting) else {
            return false;
        };
        let enough = change.workers_to_fork().into_iter().all(|(name, generation, processes)| {
            let workers = self.apps.get(&name).map(|app| &app.workers);
            let connected = workers.map_or(0, |workers| {
                workers.values().filter(|worker| worker.generation == generation && worker.connected).count()
            });
            connected >= if self.serving { processes as usize } else { processes.min(1) as usize }
        });
        if enough { self.switch().await } else { false }
    }

    /// Workers that have not connected by now will not: what there is must do.
    pub(super) async fn connect_deadline(&mut self, number: u64) -> bool {
        let waiting = |change: &&Change| change.number == number && change.stage == Stage::Connecting;
        let Some(change) = self.change.as_ref().filter(waiting) else { return false };
        let without = change.workers_to_fork().into_iter().find(|(name, generation, processes)| {
            let app = self.apps.get(name);
            *processes > 0
                && !app.is_some_and(|app| {
                    app.workers.values().any(|worker| worker.generation == *generation && worker.connected)
                })
        });
        match without {
            Some((name, ..)) => {
                let why = format!("{name}: no worker was ready within {} s", CONNECT_DEADLINE.as_secs());
                self.abandon(&why)
            }
            None => self.switch().await,
        }
    }

    pub(super) async fn switch(&mut self) -> bool {
        let Some(change) = &mut self.change else { return false };
        change.stage = Stage::Switching;
        let generations = change.generations();
        let generations = self.with_untouched(generations);
        self.tell_front(ToFront::Switch(generations)).await;
        let Some(change) = &self.change else { return false };
        let development = change.configuration.development.is_some();
        for (name, new) in &change.apps {
            let Import::Failed(why) = &new.import else { continue };
            let broken = development.then(|| self.developing.broken(why, new.page.as_deref()));
            self.tell_front(ToFront::GiveUp(name.clone(), broken)).await;
        }
        false
    }

    /// The front serves what was prepared: the old may go.
    pub(super) async fn switched(&mut self) {
        let Some(Change { configuration, certificates, bound, apps, .. }) =
            self.change.take_if(|change| change.stage == Stage::Switching)
        else {
            return;
        };
        self.take_over(bound, &configuration);
        for (name, new) in apps {
            let Some(app) = self.apps.get_mut(&name) else { continue };
            if let Some(settings) = configuration.apps.iter().find(|settings| settings.name == name) {
                app.settings = settings.clone();
            }
            app.generation = new.generation;
            app.zygote_ready = new.zygote.is_some();
            app.zygote_started = new.started;
            app.given_up = matches!(new.import, Import::Failed(_));
            app.account = new.account;
            app.wanted = new.wanted;
            if let Import::Done(ready) = &new.import {
                app.python = format!("{} {}", ready.implementation, ready.python);
                let read_at = SystemTime::now() - new.started.elapsed();
                app.django = ready.django.clone().map(|info| (read_at, info));
            }
            if let Some(mut old) = std::mem::replace(&mut app.zygote, new.zygote) {
                old.stop().await;
            }
            if matches!(new.import, Import::Done(_)) && app.zygote.is_none() {
                // It died since.
                self.later(Duration::ZERO, Event::RestartZygote(name.clone()));
            }
            self.retire_before(&name, new.generation);
        }
        self.drop_removed_apps(&configuration).await;
        let first = !std::mem::replace(&mut self.serving, true);
        self.roots = roots::now(&configuration);
        self.configuration = configuration;
        self.end_unused_spawned();
        self.certificates = certificates;
        self.watch_certificates();
        if first {
            // Before the line that others wait for.
            self.write_pid_file();
            self.say_where();
            self.replace_old().await;
            self.sign_of_life().await;
            self.later(roots::LOOK_FOR_MISSING, Event::LookForRoots);
            self.look_at_workers().await;
        } else {
            self.renew_launcher().await;
            self.errors.info(format_args!("reloaded"));
        }
        self.plan_certificates().await;
        self.reload_ended(Ok(()));
        self.pages_changed().await;
        if std::mem::take(&mut self.again) {
            let apps = self.desk.take_next_apps();
            self.reload_apps(apps).await;
        } else {
            self.release().await;
        }
    }

    async fn drop_removed_apps(&mut self, configuration: &Configuration) {
        let named = |name: &String| configuration.apps.iter().any(|app| &app.name == name);
        let removed: Vec<String> = self.apps.keys().filter(|name| !named(name)).cloned().collect();
        for name in removed {
            self.retire_before(&name, u64::MAX);
            if let Some(app) = self.apps.get_mut(&name) {
                app.generation = u64::MAX;
                if let Some(mut zygote) = app.zygote.take() {
                    zygote.stop().await;
                }
            }
        }
        self.forget_removed();
    }

    /// Drops applications that are no longer in the file and have no worker left.
    pub(super) fn forget_removed(&mut self) {
        let coming = |name: &str| self.change.as_ref().is_some_and(|change| change.apps.contains_key(name));
        self.apps.retain(|name, app| app.generation != u64::MAX || !app.workers.is_empty() || coming(name));
    }
}

fn copy(bound: &Bound) -> std::io::Result<Bound> {
    let sockets = bound.sockets.iter().map(std::os::fd::OwnedFd::try_clone).collect::<std::io::Result<_>>()?;
    Ok(Bound { settings: bound.settings.clone(), address: bound.address.clone(), is_ours: bound.is_ours, sockets })
}
