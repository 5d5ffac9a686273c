//! Static routes that had no folder when they were built: the first upload makes `MEDIA_ROOT`.
//!
//! The supervisor finds such a folder by itself within a tenth of a second, and has the routes swapped. Whoever has just
//! uploaded the first picture asks for it sooner: so a request to such a route asks the supervisor, which alone may open
//! folders, to look now. Routes that have a folder never come here.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::handler::{Answering, Handler};
use crate::http::Request;
use crate::server::plan::FromFront;
use crate::static_files::{RootsError, StaticFiles, StaticSettings};

/// Between two looks at the same folders. Whoever comes meanwhile waits for the next one, however many there are: a flood
/// costs the supervisor a hundred looks a second, and nobody is told of a moment before he asked.
const PAUSE: Duration = Duration::from_millis(10);

/// How long the supervisor may take; then there is nothing, as before.
const DEADLINE: Duration = Duration::from_secs(1);

/// Folders that are there, with their descriptors.
type Found = Vec<(PathBuf, OwnedFd)>;

/// Asks the supervisor for folders.
pub(super) struct Lookout {
    questions: mpsc::UnboundedSender<FromFront>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Found>>>,
    next: AtomicU64,
}

impl Lookout {
    /// `questions` go to the supervisor.
    pub(super) fn new(questions: mpsc::UnboundedSender<FromFront>) -> Arc<Self> {
        Arc::new(Self { questions, waiting: Mutex::default(), next: AtomicU64::new(0) })
    }

    /// The supervisor has looked.
    pub(super) fn told(&self, number: u64, found: Found) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        // Whoever asked may be gone.
        let _ = waiting.map(|waiting| waiting.send(found));
    }

    async fn look(&self, paths: Vec<PathBuf>) -> Found {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(number, sender);
        let answer = match self.questions.send(FromFront::FoldersWanted(number, paths)) {
            Ok(()) => timeout(DEADLINE, receiver).await.ok().and_then(Result::ok),
            Err(_) => None,
        };
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        answer.unwrap_or_default()
    }
}

/// A static route without a folder.
pub(super) struct Late {
    settings: StaticSettings,
    lookout: Arc<Lookout>,
    /// When it was last looked for them.
    looked: Turn<Option<Instant>>,
    /// What answers once they are there.
    files: OnceLock<StaticFiles>,
    /// What answers until then.
    nothing: StaticFiles,
}

impl Late {
    /// A route with these settings, none of whose roots is there.
    pub(super) fn new(settings: StaticSettings, lookout: Arc<Lookout>) -> Result<Self, RootsError> {
        let nothing = StaticFiles::new(StaticSettings { roots: Vec::new(), ..settings.clone() }, Vec::new())?;
        Ok(Self { settings, lookout, looked: Turn::default(), files: OnceLock::new(), nothing })
    }

    /// What answers a request that has come now.
    async fn files(&self) -> &StaticFiles {
        let came = Instant::now();
        let mut looked = self.looked.lock().await;
        if let Some(files) = self.files.get() {
            return files;
        }
        if looked.is_none_or(|looked| looked <= came) {
            if let Some(last) = *looked {
                sleep_until(last + PAUSE).await;
            }
            *looked = Some(Instant::now());
            self.look().await;
        }
        self.files.get().unwrap_or(&self.nothing)
    }

    async fn look(&self) {
        let paths = self.settings.roots.iter().map(|root| root.path.clone()).collect();
        let mut found = self.lookout.look(paths).await;
        let mut settings = self.settings.clone();
        let mut folders = Vec::new();
        settings.roots.retain(|root| match found.iter().position(|(path, _)| *path == root.path) {
            Some(position) => {
                folders.push(found.swap_remove(position).1);
                true
            }
            None => false,
        });
        if let (false, Ok(files)) = (folders.is_empty(), StaticFiles::new(settings, folders)) {
            // The turn is ours: nobody else can have set it.
            let _ = self.files.set(files);
        }
    }
}

impl Handler for Late {
    fn may_decline(&self) -> bool {
        self.nothing.may_decline()
    }

    fn handle(&self, request: Request) -> Answering<'_> {
        match self.files.get() {
            Some(files) => files.handle(request),
            None => Box::pin(async move { self.files().await.handle(request).await }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::static_files::Root;

    fn late(path: &std::path::Path) -> (Arc<Late>, mpsc::UnboundedReceiver<FromFront>) {
        let (questions, asked) = mpsc::unbounded_channel();
        let roots = vec![Root { path: path.to_owned(), prefix: String::new() }];
        let settings = StaticSettings { roots, ..StaticSettings::default() };
        (Arc::new(Late::new(settings, Lookout::new(questions)).unwrap()), asked)
    }

    #[tokio::test]
    async fn all_who_wait_are_told_by_one_look_that_began_after_they_came() {
        let folder = tempfile::tempdir().unwrap();
        let (late, mut asked) = late(folder.path());
        let spawn = || {
            let late = Arc::clone(&late);
            tokio::spawn(async move { std::ptr::eq(late.files().await, &raw const late.nothing) })
        };
        let first = spawn();
        let Some(FromFront::FoldersWanted(number, paths)) = asked.recv().await else { panic!("no question") };
        assert_eq!(paths, [folder.path()]);
        let crowd: Vec<_> = (0..100).map(|_| spawn()).collect();
        // They wait for their turn.
        tokio::task::yield_now().await;
        late.lookout.told(number, Vec::new());
        assert!(first.await.unwrap(), "nothing was there");
        let Some(FromFront::FoldersWanted(number, _)) = asked.recv().await else { panic!("no question") };
        late.lookout.told(number, Vec::new());
        for one in crowd {
            assert!(one.await.unwrap());
        }
        assert!(asked.try_recv().is_err(), "one look is enough for all");
        let last = spawn();
        let Some(FromFront::FoldersWanted(number, _)) = asked.recv().await else { panic!("no question") };
        let opened = crate::server::plan::open_folder(folder.path()).unwrap();
        late.lookout.told(number, vec![(folder.path().to_owned(), opened)]);
        assert!(!last.await.unwrap(), "it is there");
        assert!(!spawn().await.unwrap(), "and nobody asks again");
        assert!(asked.try_recv().is_err());
    }
}
