//! Compressed contents between builds, by the address of what was compressed.
//!
//! Safe to delete at any time, and safe for several builds at once: an entry is written beside its place and renamed,
//! never changed, and read only if its own sum is right. Whatever fails here costs time, not a build.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::compression::{Address, Encoding};
use crate::content::hexadecimal;
use crate::settings::CacheSettings;

/// Changes with whatever makes other bytes of the same content.
const VERSION: &str = "v1";

/// Bytes of an entry's sum.
const SUM: usize = 16;

/// An entry that was used is marked so, but not again within this time.
const MARK: Duration = Duration::from_secs(24 * 3600);

/// Entries that were written this recently may belong to a build that still runs.
const YOUNG: Duration = Duration::from_secs(3600);

/// A folder of compressed contents.
pub(crate) struct Cache {
    folder: PathBuf,
    limit: u64,
    added: AtomicU64,
}

impl Cache {
    /// Opens or makes the folder; `None` where that cannot be done.
    pub(crate) fn open(settings: &CacheSettings) -> Option<Self> {
        let folder = settings.folder.join(VERSION);
        // What a stranger could put here would be served to visitors.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).ok()?;
        let status = fs::metadata(&folder).ok()?;
        let trusted = status.uid() == rustix::process::geteuid().as_raw() && status.mode() & 0o022 == 0;
        if !trusted {
            return None;
        }
        let tag = settings.folder.join("CACHEDIR.TAG");
        if !tag.exists() {
            let _ = fs::write(tag, "Signature: 8a477f597d28d172789f06886806bc55\n# Made by daemun; safe to delete.\n");
            let _ = fs::write(settings.folder.join(".gitignore"), "*\n");
        }
        Some(Self { folder, limit: settings.limit, added: AtomicU64::new(0) })
    }

    fn place(&self, encoding: Encoding, level: u32, address: &Address) -> PathBuf {
        let name = hexadecimal(address);
        self.folder.join(&name[..2]).join(format!("{}.{}-{level}", &name[2..], encoding.extension()))
    }

    /// What the content at `address` comes to, if it was compressed before.
    pub(crate) fn get(&self, encoding: Encoding, level: u32, address: &Address) -> Option<Vec<u8>> {
        let place = self.place(encoding, level, address);
        let mut bytes = fs::read(&place).ok()?;
        let sum = bytes.get(..SUM)?.to_owned();
        let packed = bytes.split_off(SUM);
        if Sha256::digest(&packed)[..SUM] != sum[..] {
            let _ = fs::remove_file(&place);
            return None;
        }
        mark(&place);
        Some(packed)
    }

    /// Keeps what a content came to.
    pub(crate) fn put(&self, encoding: Encoding, level: u32, address: &Address, packed: &[u8]) {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let place = self.place(encoding, level, address);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let beside = self.folder.join(format!("new-{}-{number}", std::process::id()));
        let mut bytes = Sha256::digest(packed)[..SUM].to_vec();
        bytes.extend(packed);
        let folder = place.parent().unwrap_or(&self.folder);
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&beside, &bytes));
        if written.and_then(|()| fs::rename(&beside, &place)).is_err() {
            let _ = fs::remove_file(&beside);
            return;
        }
        self.added.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }

    /// Removes what was used least recently, until the rest is within the limit.
    pub(crate) fn trim(&self) {
        if self.added.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut entries = Vec::new();
        list(&self.folder, &mut entries);
        let mut total: u64 = entries.iter().map(|entry| entry.2).sum();
        entries.sort();
        let old = SystemTime::now().checked_sub(YOUNG).unwrap_or(SystemTime::UNIX_EPOCH);
        for (used, path, length) in entries {
            let left_behind = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("new-"));
            // What another build is writing just now is not touched.
            let goes = if left_behind { used < old } else { total > self.limit };
            if !goes {
                continue;
            }
            if fs::remove_file(&path).is_ok() {
                total -= length;
            }
        }
    }
}

fn mark(place: &Path) {
    let now = SystemTime::now();
    let fresh = fs::metadata(place).and_then(|found| found.modified());
    if fresh.is_ok_and(|time| now.duration_since(time).is_ok_and(|age| age > MARK)) {
        let _ = File::options()
            .append(true)
            .open(place)
            .and_then(|file| file.set_times(FileTimes::new().set_modified(now)));
    }
}

fn list(folder: &Path, entries: &mut Vec<(SystemTime, PathBuf, u64)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(status) = entry.metadata() else { continue };
        if status.is_dir() {
            list(&entry.path(), entries);
        } else {
            entries.push((status.modified().unwrap_or(SystemTime::UNIX_EPOCH), entry.path(), status.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(limit: u64) -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&CacheSettings { folder: folder.path().join("c"), limit }).unwrap();
        (folder, cache)
    }

    #[test]
    fn what_was_put_is_found_and_what_was_damaged_is_not() {
        let (_folder, cache) = cache(1 << 20);
        let address = [7; 32];
        cache.put(Encoding::Gzip, 9, &address, b"packed");
        assert_eq!(cache.get(Encoding::Gzip, 9, &address).unwrap(), b"packed");
        assert!(cache.get(Encoding::Gzip, 8, &address).is_none());
        let place = cache.place(Encoding::Gzip, 9, &address);
        let mut bytes = fs::read(&place).unwrap();
        bytes[SUM] ^= 1;
        fs::write(&place, bytes).unwrap();
        assert!(cache.get(Encoding::Gzip, 9, &address).is_none());
        assert!(!place.exists());
    }

    #[test]
    fn it_stays_within_its_limit_and_lets_go_of_the_oldest() {
        let (_folder, cache) = cache(3 * (100 + SUM as u64));
        for number in 0..5 {
            cache.put(Encoding::Brotli, 11, &[number; 32], &[number; 100]);
            let time = SystemTime::now() - Duration::from_secs(1000 - u64::from(number));
            let place = cache.place(Encoding::Brotli, 11, &[number; 32]);
            File::options().append(true).open(place).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
        }
        cache.trim();
        let kept: Vec<bool> = (0..5).map(|number| cache.get(Encoding::Brotli, 11, &[number; 32]).is_some()).collect();
        assert_eq!(kept, [false, false, true, true, true]);
    }
}
