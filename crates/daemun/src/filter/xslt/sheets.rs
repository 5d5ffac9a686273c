//! Stylesheets with all files that they load: opened below one folder, and looked at again from time to time.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// How often it is looked whether a file has changed.
const LOOK: Duration = Duration::from_millis(500);

/// Stylesheets of a route; where documents name more, all are begun anew.
const MOST: usize = 256;

/// Files of one stylesheet. One that loads more is not refreshed for those.
const FILES: usize = 1024;

/// A file as it was: device, inode, length, time of its change; `None` where it is not there.
type Stamp = Option<Facts>;

type Facts = (u64, u64, u64, i64, u64);

/// The number of the next state: no two stylesheets of the whole program share one.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A stylesheet in one state of its files.
#[derive(Debug)]
pub(super) struct Sheet {
    pub(super) number: u64,
    pub(super) path: String,
    files: Mutex<HashMap<String, Stamp>>,
    looked: Mutex<Instant>,
}

/// The stylesheets of a route.
#[derive(Debug)]
pub(super) struct Sheets {
    root: Arc<OwnedFd>,
    prefix: String,
    most: u64,
    known: Mutex<HashMap<String, Arc<Sheet>>>,
}

impl Sheets {
    pub(super) fn new(root: OwnedFd, prefix: String, most: u64) -> Self {
        Self { root: Arc::new(root), prefix, most, known: Mutex::default() }
    }

    /// The stylesheet of this path in its state of now, or of a moment ago.
    pub(super) async fn current(&self, path: &str) -> Arc<Sheet> {
        let known = lock(&self.known).get(path).cloned();
        if let Some(sheet) = known
            && self.is_current(&sheet).await
        {
            return sheet;
        }
        let mut sheets = lock(&self.known);
        if sheets.len() >= MOST {
            sheets.clear();
        }
        let sheet = Arc::new(Sheet {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            path: path.to_owned(),
            files: Mutex::default(),
            looked: Mutex::new(Instant::now()),
        });
        sheets.insert(path.to_owned(), Arc::clone(&sheet));
        sheet
    }

    /// Whether all its files are what they were.
    pub(super) async fn is_current(&self, sheet: &Arc<Sheet>) -> bool {
        if !lock(&self.known).get(&sheet.path).is_some_and(|other| Arc::ptr_eq(other, sheet)) {
            return false;
        }
        {
            let mut looked = lock(&sheet.looked);
            if looked.elapsed() < LOOK {
                return true;
            }
            // Others need not look at the same time.
            *looked = Instant::now();
        }
        let (root, looking) = (Arc::clone(&self.root), Arc::clone(sheet));
        let names: Vec<(String, Option<String>)> =
            lock(&sheet.files).keys().map(|path| (path.clone(), self.below(path).map(str::to_owned))).collect();
        let look = move || {
            names.iter().all(|(path, name)| {
                let now = name.as_ref().and_then(|name| open(&root, name)).map(|(_, stamp)| stamp);
                lock(&looking.files).get(path).is_none_or(|then| *then == now)
            })
        };
        let is_same = tokio::task::spawn_blocking(look).await.unwrap_or(false);
        if !is_same {
            lock(&self.known).retain(|_, other| !Arc::ptr_eq(other, sheet));
        }
        is_same
    }

    /// A file for this stylesheet; `path` begins with a slash.
    pub(super) async fn read(&self, sheet: &Arc<Sheet>, path: String) -> Option<Vec<u8>> {
        let (root, most) = (Arc::clone(&self.root), self.most);
        let name = self.below(&path).map(str::to_owned);
        let reading = move || {
            let (file, stamp) = name.and_then(|name| open(&root, &name))?;
            let mut bytes = Vec::new();
            let read = std::fs::File::from(file).take(most + 1).read_to_end(&mut bytes);
            Some((read.is_ok_and(|read| read as u64 <= most).then_some(bytes), stamp))
        };
        let found = tokio::task::spawn_blocking(reading).await.ok()?;
        let (bytes, stamp) = found.map_or((None, None), |(bytes, stamp)| (bytes, Some(stamp)));
        let mut files = lock(&sheet.files);
        // One that changed since it was first read keeps its first stamp, so that the next look finds the difference.
        if files.len() < FILES {
            files.entry(path).or_insert(stamp);
        }
        bytes
    }

    /// The name below the root.
    fn below<'a>(&self, path: &'a str) -> Option<&'a str> {
        let name = path.strip_prefix(&self.prefix)?.strip_prefix('/')?;
        (!name.is_empty() && !name.contains('\0')).then_some(name)
    }
}

/// Opens a regular file below the root, which the kernel does not let the name leave.
fn open(root: &OwnedFd, name: &str) -> Option<(OwnedFd, Facts)> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(root, name, flags, Mode::empty(), resolve).ok()?;
    let facts = rustix::fs::fstat(&file).ok()?;
    if rustix::fs::FileType::from_raw_mode(facts.st_mode) != rustix::fs::FileType::RegularFile {
        return None;
    }
    let stamp = (facts.st_dev, facts.st_ino, facts.st_size as u64, facts.st_mtime, facts.st_mtime_nsec);
    Some((file, stamp))
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while the lock was held left plain data behind: it can be used.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheets(folder: &std::path::Path, prefix: &str) -> Sheets {
        Sheets::new(std::fs::File::open(folder).unwrap().into(), prefix.to_owned(), 100)
    }

    #[tokio::test]
    async fn nothing_outside_of_the_root_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(folder.path().join("secret"), "secret").unwrap();
        std::fs::write(root.join("a.xsl"), "inside").unwrap();
        std::fs::write(root.join("long"), "x".repeat(101)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("link")).unwrap();
        std::os::unix::fs::symlink("../secret", root.join("up")).unwrap();
        let sheets = sheets(&root, "/feeds");
        let sheet = sheets.current("/feeds/a.xsl").await;
        for refused in [
            "/etc/passwd",
            "/feeds/../secret",
            "../secret",
            "/feeds/link",
            "/feeds/up",
            "/feeds/sub",
            "/feeds/long",
            "/feeds",
            "/feeds/",
            "file:///etc/passwd",
            "http://127.0.0.1/x",
            "/feeds//etc/passwd",
            "/feedsa.xsl",
        ] {
            assert_eq!(sheets.read(&sheet, refused.to_owned()).await, None, "{refused}");
        }
        assert_eq!(sheets.read(&sheet, "/feeds/a.xsl".to_owned()).await.as_deref(), Some(&b"inside"[..]));
    }

    #[tokio::test]
    async fn a_file_that_changes_or_appears_makes_another_state() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.xsl"), "1").unwrap();
        let sheets = sheets(folder.path(), "");
        let long_ago = || Instant::now().checked_sub(LOOK * 2).unwrap();
        let first = sheets.current("/a.xsl").await;
        sheets.read(&first, "/a.xsl".to_owned()).await;
        sheets.read(&first, "/b.xsl".to_owned()).await;
        *lock(&first.looked) = long_ago();
        assert_eq!(sheets.current("/a.xsl").await.number, first.number);
        std::fs::write(folder.path().join("b.xsl"), "2").unwrap();
        assert_eq!(sheets.current("/a.xsl").await.number, first.number, "it was looked at just now");
        *lock(&first.looked) = long_ago();
        let second = sheets.current("/a.xsl").await;
        assert_ne!(second.number, first.number);
        assert!(!sheets.is_current(&first).await, "a result of the state before is not used");
    }
}
