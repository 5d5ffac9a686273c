//! Sources that change while the development server runs.
//!
//! 1. [`tree`]: what there is now: every file that matters, with its time, size and inode.
//! 2. [`hints`]: the kernel says that something has happened somewhere, or, where it never says so, time passes.
//! 3. Here: two looks are compared. Only what differs counts, so that a hint may come too often, and none is trusted for
//!    what it says.
//!
//! Knows files. Must not know what a change leads to.

mod hints;
mod tree;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use hints::Hints;
use tree::Tree;

/// How long no file may change for a change to be whole: an editor or `git checkout` writes more than one.
const SETTLE: Duration = Duration::from_millis(40);

/// Between two looks: a database that is written a thousand times a second lies beside the sources, too.
const REST: Duration = Duration::from_millis(50);

/// What is watched, and how.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct WatchSettings {
    /// Folders, with everything below that is no one's but the project's own.
    pub folders: Vec<PathBuf>,
    /// Folders in which every file is a template, whatever its name.
    pub templates: Vec<PathBuf>,
    /// Files of configuration.
    pub files: Vec<PathBuf>,
    /// Look again and again, also where the kernel would say when.
    pub poll: bool,
}

/// What a changed file is for. The least first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Purpose {
    /// A browser gets it: a stylesheet, a script, an image.
    Asset,
    /// A page is made of it.
    Template,
    /// The application or its configuration.
    Code,
}

/// What the watch says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Notice {
    /// Something that pages depend on has changed; more may be on its way.
    Begun,
    /// No more is: the weightiest purpose, and the files.
    Ended(Purpose, Vec<PathBuf>),
    /// It cannot be watched as it should be; a sentence.
    Trouble(String),
}

/// A thread that watches. It ends with the value.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: Mutex<WatchSettings>,
    ended: AtomicBool,
}

impl Watch {
    /// Watches from now on: what there is when this returns has not changed. `tell` is false when nobody listens.
    pub fn start(settings: WatchSettings, tell: impl Fn(Notice) -> bool + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { settings: Mutex::new(settings.clone()), ended: AtomicBool::new(false) });
        let (mut hints, trouble) = Hints::new(&settings);
        if let Some(trouble) = trouble {
            tell(Notice::Trouble(trouble));
        }
        let tree = look(&settings, &mut hints, &tell);
        let watcher = Watcher { shared: Arc::clone(&shared), settings, hints, tree, tell };
        std::thread::Builder::new().name(String::from("watch")).spawn(move || watcher.run())?;
        Ok(Self { shared })
    }

    /// Watches these from now on. What was not watched before has not changed.
    pub fn change(&self, settings: WatchSettings) {
        *self.shared.settings() = settings;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn settings(&self) -> MutexGuard<'_, WatchSettings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's own.
struct Watcher<T> {
    shared: Arc<Shared>,
    settings: WatchSettings,
    hints: Hints,
    tree: Tree,
    tell: T,
}

impl<T: Fn(Notice) -> bool> Watcher<T> {
    fn run(mut self) {
        loop {
            let hinted = self.hints.wait();
            if self.shared.ended.load(Ordering::Relaxed) {
                return;
            }
            let wanted = self.shared.settings().clone();
            if !hinted && wanted == self.settings {
                continue;
            }
            if !self.compare() {
                return;
            }
            if wanted != self.settings {
                self.settings = wanted;
                let (hints, trouble) = Hints::new(&self.settings);
                self.hints = hints;
                if let Some(trouble) = trouble {
                    (self.tell)(Notice::Trouble(trouble));
                }
                self.tree = look(&self.settings, &mut self.hints, &self.tell);
            }
            std::thread::sleep(REST);
        }
    }

    /// Looks until nothing changes any more, and tells what has. False when nobody listens.
    fn compare(&mut self) -> bool {
        let (mut purpose, mut paths) = (None, Vec::new());
        let mut has_begun = false;
        loop {
            let now = look(&self.settings, &mut self.hints, &self.tell);
            let changes = now.changes_since(&self.tree);
            self.tree = now;
            if changes.is_empty() {
                break;
            }
            for (path, what) in changes {
                purpose = purpose.max(Some(what));
                if !paths.contains(&path) {
                    paths.push(path);
                }
            }
            if !has_begun && purpose > Some(Purpose::Asset) {
                has_begun = true;
                (self.tell)(Notice::Begun);
            }
            std::thread::sleep(SETTLE);
        }
        purpose.is_none_or(|purpose| (self.tell)(Notice::Ended(purpose, paths)))
    }
}

/// Looks, and has the kernel tell of every folder that was seen for the first time; what came into it before that is
/// seen at another look.
fn look(settings: &WatchSettings, hints: &mut Hints, tell: &impl Fn(Notice) -> bool) -> Tree {
    loop {
        let (tree, is_whole) = Tree::read(settings);
        if !is_whole && hints.is_first_complaint() {
            tell(Notice::Trouble(format!(
                "more than {} folders lie below what is watched, and changes in the rest go unseen; name the folders of \
                 your sources with --watch, or start in a smaller one",
                tree::MOST_FOLDERS
            )));
        }
        if !hints.follow(&tree) {
            return tree;
        }
    }
}

#[cfg(test)]
mod tests;
