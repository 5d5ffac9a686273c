//! Scripts that were found a moment ago, by the path that led to them, so that a page asked for often costs one look at
//! its file and no walk to it.
//!
//! That look comes with each request: what was removed, replaced or became a link is looked for anew at once. And once in
//! a while everything is, which is when a look that may wait for a disk goes where that is no harm.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::script::Aimed;
use crate::gateway::{Found, Identity, Scripts};

/// For how long the way to a file is not walked again: as long as what static routes have in memory is used.
const FRESH: Duration = Duration::from_secs(1);

/// Paths that are remembered, for each route: more than a site has scripts that are asked for by name.
const MOST: usize = 1024;

/// Longer paths are walked each time.
const LONGEST: usize = 512;

/// The scripts of one route.
#[derive(Debug, Default)]
pub(super) struct Known(RwLock<HashMap<Box<[u8]>, Arc<Slot>>>);

#[derive(Debug)]
struct Slot {
    /// Where the route was mounted: it is a part of the script's name.
    mount: Bytes,
    name: CString,
    identity: Identity,
    found: Instant,
    aimed: Arc<Aimed>,
}

impl Known {
    /// What the path below the root, of a route that is mounted there, led to, if its file is still the same.
    pub(super) fn recall(&self, scripts: &Scripts, (mount, path): (&Bytes, &[u8]), now: Instant) -> Option<Arc<Aimed>> {
        // A disk that is waited for holds nobody up who only wants to know.
        let slot = Arc::clone(self.0.read().unwrap_or_else(PoisonError::into_inner).get(path)?);
        let is_fresh = now.saturating_duration_since(slot.found) < FRESH && slot.mount == *mount;
        (is_fresh && scripts.is_still(&slot.name, slot.identity)).then(|| Arc::clone(&slot.aimed))
    }

    /// Keeps what a path leads to that names a script and nothing behind it.
    pub(super) fn remember(&self, (mount, path): (&Bytes, &[u8]), found: &Found, aimed: &Arc<Aimed>, now: Instant) {
        let is_whole = found.length == path.len() && path.len() <= LONGEST;
        let (Ok(name), true, false) = (CString::new(path), is_whole, found.is_far) else { return };
        let (mount, aimed) = (mount.clone(), Arc::clone(aimed));
        let slot = Slot { mount, name, identity: found.identity, found: now, aimed };
        let mut slots = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MOST && !slots.contains_key(path) {
            // Rare, and what is asked for often is soon back.
            slots.clear();
        }
        slots.insert(path.into(), Arc::new(slot));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    type Change<'a> = (&'static str, &'a dyn Fn(&Path));

    fn aimed(found: &Found) -> Arc<Aimed> {
        let name = b"/x.php".to_vec();
        Arc::new(Aimed { filename: found.path.clone(), root: "/".into(), name, path_info: Vec::new() })
    }

    #[test]
    fn a_script_is_known_until_another_file_has_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        let outside = folder.path().join("outside.php");
        let file = root.join("x.php");
        let scripts = Scripts::new(fs::File::open(&root).unwrap().into(), root, Vec::new());
        let (known, mount, now) = (Known::default(), Bytes::new(), Instant::now());
        let at = (&mount, &b"x.php"[..]);
        let changes: [Change<'_>; 4] = [
            ("gone", &|file| fs::remove_file(file).unwrap()),
            ("replaced", &|file| {
                fs::write(file.with_extension("new"), "new").unwrap();
                fs::rename(file.with_extension("new"), file).unwrap();
            }),
            ("a link out of the root", &|file| {
                fs::write(&outside, "secret").unwrap();
                fs::remove_file(file).unwrap();
                symlink(&outside, file).unwrap();
            }),
            ("moved out of the root, and a link to there", &|file| {
                fs::rename(file, &outside).unwrap();
                symlink(&outside, file).unwrap();
            }),
        ];
        for (what, change) in changes {
            let _ = fs::remove_file(&file);
            fs::write(&file, "old").unwrap();
            let found = scripts.find(at.1, true).unwrap();
            assert!(known.recall(&scripts, (&mount, b"y.php"), now).is_none());
            known.remember(at, &found, &aimed(&found), now);
            assert!(known.recall(&scripts, at, now).is_some());
            assert!(known.recall(&scripts, (&Bytes::from_static(b"/shop"), at.1), now).is_none());
            assert!(known.recall(&scripts, at, now + FRESH).is_none(), "it is walked to once in a while");
            // File systems keep times in ticks of some milliseconds: a change within one need not show in it.
            if what.starts_with("moved") {
                let before = fs::metadata(&file).unwrap();
                wait_for_a_tick(folder.path(), &before);
            }
            change(&file);
            assert!(known.recall(&scripts, at, now).is_none(), "{what}");
        }
    }

    #[test]
    fn only_a_path_that_names_a_script_and_nothing_behind_it_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x.php"), "").unwrap();
        let scripts = Scripts::new(fs::File::open(folder.path()).unwrap().into(), folder.path().into(), Vec::new());
        let (known, mount, now) = (Known::default(), Bytes::new(), Instant::now());
        let found = scripts.find(b"x.php/info", true).unwrap();
        known.remember((&mount, b"x.php/info"), &found, &aimed(&found), now);
        assert!(known.recall(&scripts, (&mount, b"x.php/info"), now).is_none());
    }

    /// Returns once a file that is made now is younger than that.
    fn wait_for_a_tick(folder: &Path, before: &fs::Metadata) {
        use std::os::unix::fs::MetadataExt;
        let time = |found: &fs::Metadata| (found.ctime(), found.ctime_nsec());
        loop {
            fs::write(folder.join("tick"), "").unwrap();
            if time(&fs::metadata(folder.join("tick")).unwrap()) > time(before) {
                return;
            }
        }
    }
}
