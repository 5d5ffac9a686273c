//! Folders of static files that appear or are replaced while the server runs.

use std::time::Duration;

use super::events::Event;
use super::{Master, Phase};
use crate::check::sent_for_programs;
use crate::config::{Configuration, HandlerSettings};
use crate::server::plan::ToFront;

/// How often folders are looked at that may have been replaced.
const LOOK: Duration = Duration::from_secs(2);

/// How often, while one of them is not there: the first upload makes MEDIA_ROOT, and the page after it shows the picture.
pub(super) const LOOK_FOR_MISSING: Duration = Duration::from_millis(100);

impl Master {
    /// Folders that were not there at the last plan, or that have been replaced since (`rm -r`, a release switched by a
    /// symlink), are opened again and the routes swapped, without touching any worker.
    pub(super) async fn look_for_roots(&mut self) {
        let is_complete = self.roots.iter().all(Option::is_some);
        self.later(if is_complete { LOOK } else { LOOK_FOR_MISSING }, Event::LookForRoots);
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
