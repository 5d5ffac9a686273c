//! Folders of static files that appear or are replaced while the server runs.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use super::events::Event;
use super::{Master, Phase};
use crate::check::sent_for_programs;
use crate::config::{Configuration, HandlerSettings};
use crate::server::plan::{ToFront, open_folder};

/// How often folders are looked at that may have been replaced.
const LOOK: Duration = Duration::from_secs(2);

/// How often, while one of them is not there. Where a route has no other, a request to it does not wait for that: see
/// [`Master::tell_folders`].
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

    /// Opens those of these folders that are there and that a static route names: the front may not have others.
    pub(super) async fn tell_folders(&self, number: u64, mut paths: Vec<PathBuf>) {
        let known: HashSet<&PathBuf> = static_roots(&self.configuration).collect();
        let mut opened = Vec::new();
        paths.retain(|path| match known.contains(path).then(|| open_folder(path)) {
            Some(Ok(folder)) => {
                opened.push(folder);
                true
            }
            Some(Err(_)) | None => false,
        });
        let descriptors: Vec<_> = opened.iter().map(AsFd::as_fd).collect();
        // A front that is gone asks again when it is back.
        let _ = self.front.channel.send(&ToFront::Folders(number, paths), &descriptors).await;
    }
}

fn static_roots(configuration: &Configuration) -> impl Iterator<Item = &PathBuf> {
    let settings = configuration.routes.iter().filter_map(|route| match &route.handler {
        HandlerSettings::Static(settings) => Some(settings),
        _ => None,
    });
    settings.flat_map(|settings| &settings.roots).map(|root| &root.path)
}

/// Which folder each static root is now: its device and inode; `None` where it is not there.
pub(super) fn now(configuration: &Configuration) -> Vec<Option<(u64, u64)>> {
    use std::os::unix::fs::MetadataExt;
    let sent = configuration.apps.iter().flat_map(|app| &app.sendfile).map(|(_, path)| path);
    let paths = static_roots(configuration).chain(sent);
    let transformed = configuration.routes.iter().filter_map(|route| route.filters.xslt.as_ref());
    let paths = paths.chain(transformed.map(|xslt| &xslt.value.root));
    let paths = paths.chain(sent_for_programs(configuration).map(|(_, path)| path));
    let paths = paths.map(|path| std::fs::metadata(path).ok());
    paths.map(|found| found.map(|found| (found.dev(), found.ino()))).collect()
}
