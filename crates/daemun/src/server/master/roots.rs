//! Folders of static files that appear or are replaced while the server runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::events::Event;
use super::{Master, Phase};
use crate::config::{Configuration, HandlerSettings, RouteSettings};
use crate::server::plan::ToFront;
use crate::supervisor::identity;

/// How often folders are looked for that were not there, or have been replaced since.
pub(super) const LOOK: Duration = Duration::from_secs(2);

impl Master {
    /// Folders that were not there at the last plan, or that have been replaced since (`rm -r`, a release switched by a
    /// symlink), are opened again and the routes swapped, without touching any worker.
    pub(super) async fn look_for_roots(&mut self) {
        self.later(LOOK, Event::LookForRoots);
        if self.change.is_some() || self.phase != Phase::Running {
            return;
        }
        let now = now(&self.configuration);
        if std::mem::replace(&mut self.roots, now.clone()) != now && self.prepare_front().await.is_ok() {
            let apps = self.apps.iter().filter(|(_, app)| app.generation != u64::MAX);
            let generations = apps.map(|(name, app)| (name.clone(), app.generation)).collect();
            self.tell_front(ToFront::Switch(generations)).await;
        }
    }
}

/// Which folders of static files the front cannot enter: where we are root, it has a user of its own. What lies above
/// them does not matter, since it gets them opened.
pub(super) fn closed_to_the_front(configuration: &Configuration) -> Vec<String> {
    use std::os::unix::fs::PermissionsExt;
    if !identity::is_root() {
        return Vec::new();
    }
    let closed = |path: &Path| {
        let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
        let path = path.display();
        (mode & 0o001 == 0).then(|| {
            format!(
                "{path} has mode {mode:o}, and the front, which has a user of its own, cannot enter it: every file in \
                 it will be 403; run chmod o+x {path}"
            )
        })
    };
    let routes = configuration.routes.iter();
    let told = |route: &RouteSettings| match &route.handler {
        HandlerSettings::Static(settings) => {
            let place = format!("{}: ", route.rule.origin);
            settings.roots.iter().filter_map(|root| closed(&root.path)).map(|text| place.clone() + &text).collect()
        }
        _ => Vec::new(),
    };
    let sent = configuration.apps.iter().flat_map(|app| app.sendfile.iter().map(move |(_, path)| (&app.name, path)));
    let sent = sent.filter_map(|(app, path)| Some(format!("`sendfile` of [app.{app}]: {}", closed(path)?)));
    let sent_for_programs =
        sent_for_programs(configuration).filter_map(|(origin, path)| Some(format!("{origin}: {}", closed(path)?)));
    routes.flat_map(told).chain(sent).chain(sent_for_programs).collect()
}

/// The folders that CGI programs may have files sent from, with the places of their routes.
fn sent_for_programs(configuration: &Configuration) -> impl Iterator<Item = (&str, &PathBuf)> {
    configuration.routes.iter().flat_map(|route| {
        let sendfile = match &route.handler {
            HandlerSettings::Cgi(settings) => &settings.sendfile[..],
            _ => &[],
        };
        sendfile.iter().map(|(_, path)| (&*route.rule.origin, path))
    })
}

/// Which folder each static root is now: its device and inode; `None` where it is not there.
pub(super) fn now(configuration: &Configuration) -> Vec<Option<(u64, u64)>> {
    use std::os::unix::fs::MetadataExt;
    let routes = configuration.routes.iter();
    let settings = routes.filter_map(|route| match &route.handler {
        HandlerSettings::Static(settings) => Some(settings),
        _ => None,
    });
    let sent = configuration.apps.iter().flat_map(|app| &app.sendfile).map(|(_, path)| path);
    let paths = settings.flat_map(|settings| &settings.roots).map(|root| &root.path).chain(sent);
    let transformed = configuration.routes.iter().filter_map(|route| route.filters.xslt.as_ref());
    let paths = paths.chain(transformed.map(|xslt| &xslt.value.root));
    let paths = paths.chain(sent_for_programs(configuration).map(|(_, path)| path));
    let paths = paths.map(|path| std::fs::metadata(path).ok());
    paths.map(|found| found.map(|found| (found.dev(), found.ino()))).collect()
}
