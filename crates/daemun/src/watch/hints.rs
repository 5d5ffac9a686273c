//! That something may have happened: the kernel's word, or the time.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::WatchSettings;
use super::tree::Tree;
use crate::sys;

/// Between two looks where the kernel says nothing: what a person takes for at once.
const POLL: Duration = Duration::from_millis(400);

/// How often it is looked whether anything else is to be watched.
const TURN: Duration = Duration::from_millis(100);

/// Where hints come from.
#[derive(Debug)]
pub(super) struct Hints {
    /// `None` where time passes.
    events: Option<OwnedFd>,
    followed: BTreeSet<(PathBuf, u64)>,
    has_complained: bool,
}

impl Hints {
    /// Follows nothing yet. The second value says why time has to do, where nobody wished so.
    pub(super) fn new(settings: &WatchSettings) -> (Self, Option<String>) {
        let mut hints = Self { events: None, followed: BTreeSet::new(), has_complained: false };
        if settings.poll {
            return (hints, None);
        }
        let mut folders = settings.folders.iter().chain(&settings.templates);
        let deaf = folders.find_map(|folder| Some((folder, sys::without_events(folder)?)));
        if let Some((folder, kind)) = deaf {
            let why =
                format!("{} lies on {kind}, which does not tell of changes: looking twice a second", folder.display());
            return (hints, Some(why));
        }
        match sys::folder_events() {
            Ok(events) => {
                hints.events = Some(events);
                (hints, None)
            }
            Err(error) => (hints, Some(format!("changes are not told of ({error}): looking twice a second"))),
        }
    }

    /// Waits a little; true when it is time to look.
    pub(super) fn wait(&self) -> bool {
        if let Some(events) = &self.events {
            return sys::take_folder_events(events, TURN);
        }
        std::thread::sleep(POLL);
        true
    }

    /// Has the kernel tell of what happens in these folders; true where one of them was not followed before.
    pub(super) fn follow(&mut self, tree: &Tree) -> bool {
        let Some(events) = &self.events else { return false };
        let new: Vec<_> = tree.folders.difference(&self.followed).cloned().collect();
        let failed = |path: &Path| sys::follow_folder(events, path).is_err() && path.exists();
        let failed = new.iter().any(|(path, _)| failed(path));
        self.followed.clone_from(&tree.folders);
        if failed {
            // The limit of watches, which other programs share.
            self.events = None;
        }
        !new.is_empty() && !failed
    }

    /// Whether nothing was said yet of what is too much.
    pub(super) fn is_first_complaint(&mut self) -> bool {
        !std::mem::replace(&mut self.has_complained, true)
    }
}
