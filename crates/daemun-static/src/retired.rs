//! Files with hashed names that no manifest names any more: cached pages, draining workers and other machines still ask
//! for them, so they stay for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use crate::content::hexadecimal;

/// Since when each name is out of use, in seconds since 1970. Lies in the cache: without it nothing is removed.
pub(crate) struct Retired {
    place: PathBuf,
    since: BTreeMap<String, u64>,
}

impl Retired {
    /// Those of this destination.
    pub(crate) fn load(cache: &Path, destination: &Path) -> Self {
        let digest = Sha256::digest(destination.as_os_str().as_encoded_bytes());
        let name = hexadecimal(&digest[..8]);
        let place = cache.join(format!("retired-{name}.json"));
        let since =
            std::fs::read(&place).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { place, since }
    }

    /// Takes note of names that were in use until now; gives those that have been out of use for longer than `keep`.
    pub(crate) fn note(&mut self, before: &[String], now_used: &BTreeSet<&str>, keep: Option<Duration>) -> Vec<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        self.since.retain(|name, _| !now_used.contains(name.as_str()));
        for name in before.iter().filter(|name| !now_used.contains(name.as_str())) {
            self.since.entry(name.clone()).or_insert(now);
        }
        let Some(keep) = keep else { return Vec::new() };
        let is_over = |since: u64| now.saturating_sub(since) >= keep.as_secs();
        let over: Vec<String> =
            self.since.iter().filter(|&(_, &since)| is_over(since)).map(|(name, _)| name.clone()).collect();
        for name in &over {
            self.since.remove(name);
        }
        over
    }

    /// Keeps the list for the next build.
    pub(crate) fn store(&self) {
        let beside = self.place.with_extension(format!("new-{}", std::process::id()));
        let Ok(bytes) = serde_json::to_vec(&self.since) else { return };
        if std::fs::write(&beside, bytes).and_then(|()| std::fs::rename(&beside, &self.place)).is_err() {
            let _ = std::fs::remove_file(&beside);
        }
    }
}
