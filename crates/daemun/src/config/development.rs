//! What `daemun dev` makes of a configuration.

use std::path::PathBuf;
use std::time::Duration;

use super::acme;
use super::configuration::{Configuration, Debugging, DevelopmentSettings};
use super::environment::Environment;
use crate::app::{Development, Preload};
use crate::telemetry::Format;
use crate::tls::Source;
use crate::watch::WatchSettings;

/// How long anything may take while a person may be looking at it in a debugger: a week.
const UNHURRIED: Duration = Duration::from_secs(7 * 24 * 3600);

/// What was asked for, beyond what `serve` knows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct DevelopmentWishes {
    /// Whether a number of processes was given.
    pub has_processes: bool,
    /// Whether a form of the access log was given.
    pub has_format: bool,
    /// Folders to watch besides the applications' own.
    pub watch: Vec<String>,
    /// Look for changes again and again.
    pub poll: bool,
    /// Whether changes are acted on.
    pub reload: bool,
    /// Whether pages load themselves anew after a change.
    pub refresh: bool,
    /// Whether the access log goes to a terminal that shows colours.
    pub colours: bool,
    /// What shows the inside of the workers.
    pub debugger: Option<Debugging>,
}

/// Turns what would be served into what is developed: one process that nobody hurries, so that a debugger sees every
/// request and may hold it.
pub fn develop(configuration: &mut Configuration, wishes: &DevelopmentWishes, environment: &Environment) {
    let server = &mut configuration.server;
    server.event_loops = 1;
    server.grace = UNHURRIED;
    if !wishes.has_format && server.telemetry.access.format == Format::Combined {
        server.telemetry.access.format = Format::Readable { colours: wishes.colours };
    }
    // Who develops asks no authority: names of the public web do not lead to this machine.
    for tls in configuration.tls.iter_mut().filter(|tls| matches!(tls.source, Source::Authority(_))) {
        tls.source = Source::SelfMade;
        if let Some(state) = &server.state {
            acme::place(tls, state);
        }
    }
    for app in &mut configuration.apps {
        app.development = Some(Development { refresh: wishes.refresh });
        if wishes.debugger.is_some() {
            // It has threads and a connection of its own, which no fork survives.
            app.preload = Preload::Never;
        }
        if !wishes.has_processes {
            (app.processes, app.min_processes) = (1, 1);
        }
        app.timeout = UNHURRIED;
        app.stream_idle = None;
        app.queue_timeout = UNHURRIED;
        (app.max_requests, app.memory_limit, app.lifetime) = (None, None, None);
    }
    let mut folders: Vec<PathBuf> = configuration.apps.iter().map(|app| app.directory.clone()).collect();
    folders.extend(wishes.watch.iter().map(|folder| environment.absolute(folder)));
    folders.sort();
    folders.dedup();
    let files = configuration.files.clone();
    let watch = WatchSettings { folders, templates: Vec::new(), files, poll: wishes.poll };
    configuration.development =
        Some(DevelopmentSettings { watch: wishes.reload.then_some(watch), debugger: wishes.debugger.clone() });
}
