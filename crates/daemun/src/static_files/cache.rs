//! What was found a moment ago, so that a hot file costs no system call.
//!
//! An answer is used for a second without looking at the disk, that nothing is there for a tenth of one. Then one request looks, and until it is back the others
//! go on with what is there: a slow disk delays one client, and never sends a crowd after the same file. Three kinds of
//! things are bounded apart, so that a flood of unknown names cannot push a file out.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use bytes::Bytes;

use super::entry::Entry;

/// Milliseconds for which the disk is not looked at: short enough that a deployment shows at once, long enough that a
/// file asked for thousands of times a second is opened once.
const FRESH: u64 = 1000;

/// The same for a name that leads to nothing: what is being uploaded, made or put in the place of something else is there
/// the next moment, and whoever waits for it asks again at once. A flood after one such name looks ten times a second.
const FRESH_ABSENCE: u64 = 100;

/// Bytes of small files in memory, for each static route.
const MEMORY: usize = 32 * 1024 * 1024;

/// What a file in memory costs besides its bytes: the name, the fields, the maps. So empty files are bounded too.
const OVERHEAD: usize = 2048;

/// Large files kept open, for each static route: far below what a process may open, and more than a page names.
const DESCRIPTORS: usize = 256;

/// Names remembered as absent, refused or folders.
const VERDICTS: usize = 1024;

/// Longer names are looked for each time: nobody's page has many, and a flood of them would cost memory.
const LONGEST_NAME: usize = 512;

/// What a name leads to.
#[derive(Clone, Debug)]
pub(super) enum Sought {
    /// This file.
    File(Arc<Entry>),
    /// A folder that wants its slash.
    Folder,
    /// A folder without an index, whose content may be told.
    Listing,
    /// Something that may not be sent.
    Refused,
    /// A script: refused, unless it stands in for a name that was asked for.
    Script,
    /// The script of this name, which stands in for the name that was asked for.
    Handed(Bytes),
    /// Nothing.
    Absent,
}

impl Sought {
    fn class(&self) -> (usize, usize) {
        match self {
            // Variants that lie in memory beside one that is open count like descriptors of as many bytes.
            Self::File(entry) => match entry.descriptors() {
                0 => (0, OVERHEAD + entry.held()),
                open => (1, open + entry.held().div_ceil(MEMORY / DESCRIPTORS)),
            },
            Self::Folder | Self::Listing | Self::Refused | Self::Script | Self::Handed(_) | Self::Absent => (2, 1),
        }
    }
}

/// What was found, by the handler's own part of the path.
#[derive(Debug)]
pub(super) struct Cache {
    started: Instant,
    shelves: RwLock<Shelves>,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), shelves: RwLock::new(Shelves::new([MEMORY, DESCRIPTORS, VERDICTS])) }
    }

    /// What this name led to, if the disk need not be looked at. `now` is when the request came, which is at hand
    /// without asking the clock; an earlier moment only makes the answer look older.
    pub(super) fn recall(&self, name: &[u8], now: Instant) -> Option<Sought> {
        let now = self.millis(now);
        let shelves = self.shelves.read().unwrap_or_else(PoisonError::into_inner);
        let slot = shelves.slots.get(name)?;
        let checked = slot.checked.load(Ordering::Relaxed);
        let fresh = if matches!(slot.sought, Sought::Absent) { FRESH_ABSENCE } else { FRESH };
        let is_mine = now >= checked + fresh
            && slot.checked.compare_exchange(checked, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_mine {
            return None;
        }
        // A plain load first: a line of memory that all event loops read is not fought over.
        if !slot.used.load(Ordering::Relaxed) {
            slot.used.store(true, Ordering::Relaxed);
        }
        Some(slot.sought.clone())
    }

    /// The file that this name led to, however long ago.
    pub(super) fn last(&self, name: &[u8]) -> Option<Arc<Entry>> {
        let shelves = self.shelves.read().unwrap_or_else(PoisonError::into_inner);
        match &shelves.slots.get(name)?.sought {
            Sought::File(entry) => Some(Arc::clone(entry)),
            _ => None,
        }
    }

    /// Keeps what this name leads to, as it was found for a request that came at `now`. Gives back what had to go for it:
    /// to drop that closes files, and may wait for a network file system.
    pub(super) fn remember(&self, name: &[u8], sought: &Sought, now: Instant) -> Evicted {
        if name.len() > LONGEST_NAME {
            return Evicted::default();
        }
        let slot = Arc::new(Slot {
            name: Bytes::copy_from_slice(name),
            sought: sought.clone(),
            checked: AtomicU64::new(self.millis(now)),
            used: AtomicBool::new(false),
        });
        Evicted(self.shelves.write().unwrap_or_else(PoisonError::into_inner).insert(slot))
    }

    /// Forgets this name: looking at the disk failed.
    pub(super) fn forget(&self, name: &[u8]) {
        let evicted = self.shelves.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        drop(evicted);
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_millis() as u64
    }
}

/// What is no longer remembered.
#[derive(Debug, Default)]
#[must_use = "where it is dropped matters"]
pub(super) struct Evicted(Vec<Arc<Slot>>);

impl Evicted {
    /// Whether dropping it may close a file.
    pub(super) fn closes(&self) -> bool {
        self.0.iter().any(|slot| slot.sought.class().0 == 1)
    }
}

#[derive(Debug)]
struct Slot {
    name: Bytes,
    sought: Sought,
    checked: AtomicU64,
    used: AtomicBool,
}

/// The slots by name, and for each kind a ring in which the clock hand looks for one that was not used lately.
#[derive(Debug)]
struct Shelves {
    slots: HashMap<Bytes, Arc<Slot>>,
    rings: [Ring; 3],
}

#[derive(Debug, Default)]
struct Ring {
    slots: VecDeque<Arc<Slot>>,
    held: usize,
    capacity: usize,
}

impl Shelves {
    fn new(capacities: [usize; 3]) -> Self {
        Self {
            slots: HashMap::new(),
            rings: capacities.map(|capacity| Ring { slots: VecDeque::new(), held: 0, capacity }),
        }
    }

    /// Puts a slot in its place and gives back what had to go.
    fn insert(&mut self, slot: Arc<Slot>) -> Vec<Arc<Slot>> {
        let mut evicted: Vec<_> = self.remove(&slot.name).into_iter().collect();
        let (class, weight) = slot.sought.class();
        self.slots.insert(slot.name.clone(), Arc::clone(&slot));
        let ring = &mut self.rings[class];
        ring.held += weight;
        ring.slots.push_back(slot);
        while ring.held > ring.capacity {
            let Some(oldest) = ring.slots.pop_front() else { break };
            // Second chance: one that was used since the hand was here last goes round once more.
            if oldest.used.swap(false, Ordering::Relaxed) {
                ring.slots.push_back(oldest);
                continue;
            }
            ring.held -= oldest.sought.class().1;
            self.slots.remove(&oldest.name);
            evicted.push(oldest);
        }
        evicted
    }

    fn remove(&mut self, name: &[u8]) -> Option<Arc<Slot>> {
        let slot = self.slots.remove(name)?;
        let (class, weight) = slot.sought.class();
        let ring = &mut self.rings[class];
        if let Some(place) = ring.slots.iter().position(|other| Arc::ptr_eq(other, &slot)) {
            ring.slots.remove(place);
            ring.held -= weight;
        }
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn slot(name: &str) -> Arc<Slot> {
        Arc::new(Slot {
            name: Bytes::copy_from_slice(name.as_bytes()),
            sought: Sought::Absent,
            checked: AtomicU64::new(0),
            used: AtomicBool::new(false),
        })
    }

    #[test]
    fn what_was_found_is_used_for_a_second_and_then_one_looks_again() {
        let cache = Cache::new();
        let now = Instant::now();
        let _ = cache.remember(b"a", &Sought::Folder, now);
        assert!(cache.recall(b"a", now + Duration::from_millis(900)).is_some());
        let later = now + Duration::from_millis(1100);
        assert!(cache.recall(b"a", later).is_none(), "the first one looks");
        assert!(cache.recall(b"a", later).is_some(), "the others do not wait for it");
        cache.forget(b"a");
        assert!(cache.recall(b"a", later).is_none());
    }

    #[test]
    fn what_is_not_there_is_looked_for_again_in_a_moment() {
        let cache = Cache::new();
        let now = Instant::now();
        let _ = cache.remember(b"a", &Sought::Absent, now);
        assert!(cache.recall(b"a", now + Duration::from_millis(90)).is_some());
        assert!(cache.recall(b"a", now + Duration::from_millis(110)).is_none());
    }

    #[test]
    fn a_flood_of_unknown_names_stays_bounded() {
        let cache = Cache::new();
        for number in 0..3 * VERDICTS {
            let _ = cache.remember(format!("{number}").as_bytes(), &Sought::Absent, Instant::now());
        }
        let _ = cache.remember(&vec![b'x'; LONGEST_NAME + 1], &Sought::Absent, Instant::now());
        let shelves = cache.shelves.read().unwrap();
        assert_eq!((shelves.slots.len(), shelves.rings[2].slots.len()), (VERDICTS, VERDICTS));
    }

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let mut shelves = Shelves::new([0, 0, 3]);
        for name in ["a", "b", "c"] {
            assert!(shelves.insert(slot(name)).is_empty());
        }
        shelves.slots[&b"a"[..]].used.store(true, Ordering::Relaxed);
        let gone = shelves.insert(slot("d"));
        assert_eq!(gone.iter().map(|slot| slot.name.clone()).collect::<Vec<_>>(), ["b"]);
        assert!(shelves.slots.contains_key(&b"a"[..]));
        // The same name again replaces, and nothing is counted twice.
        shelves.insert(slot("a"));
        assert_eq!((shelves.rings[2].held, shelves.rings[2].slots.len(), shelves.slots.len()), (3, 3, 3));
    }
}
