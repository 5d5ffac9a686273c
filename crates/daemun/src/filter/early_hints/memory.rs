//! What pages named last, bounded.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

/// Paths that are remembered; at most 3 KiB each with what the page named.
const MOST_PATHS: usize = 1024;

/// Longer ones are not remembered.
const LONGEST_KEY: usize = 1024;

/// What was not learned anew for this long is not said any more: a page may have become personal since, and is then not
/// learned from.
const LONGEST: Duration = Duration::from_secs(3600);

/// What to say ahead of which page. The one that was of no use for the longest time makes room.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<Paths>);

#[derive(Debug, Default)]
struct Paths {
    known: HashMap<Bytes, Known>,
    turn: u64,
}

#[derive(Debug)]
struct Known {
    link: Bytes,
    learned: Instant,
    used: u64,
}

impl Memory {
    /// What to say.
    pub(super) fn recall(&self, key: &[u8], now: Instant) -> Option<Bytes> {
        let mut paths = self.lock();
        let turn = paths.next_turn();
        let known = paths.known.get_mut(key)?;
        known.used = turn;
        (now.duration_since(known.learned) < LONGEST).then(|| known.link.clone())
    }

    /// Replaces what was known.
    pub(super) fn keep(&self, key: Bytes, link: Bytes, learned: Instant) {
        if key.len() > LONGEST_KEY {
            return;
        }
        let mut paths = self.lock();
        let used = paths.next_turn();
        if paths.known.len() >= MOST_PATHS && !paths.known.contains_key(&key) {
            let oldest = paths.known.iter().min_by_key(|(_, known)| known.used).map(|(key, _)| key.clone());
            oldest.map(|oldest| paths.known.remove(&oldest));
        }
        paths.known.insert(key, Known { link, learned, used });
    }

    pub(super) fn forget(&self, key: &[u8]) {
        self.lock().known.remove(key);
    }

    /// A panic while the lock was held left plain data behind: it can be used.
    fn lock(&self) -> MutexGuard<'_, Paths> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Paths {
    fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(memory: &Memory, key: &str, now: Instant) -> Option<String> {
        memory.recall(key.as_bytes(), now).map(|link| String::from_utf8_lossy(&link).into_owned())
    }

    #[test]
    fn the_last_word_counts_until_it_is_forgotten_or_old() {
        let (memory, now) = (Memory::default(), Instant::now());
        memory.keep("a".into(), "one".into(), now);
        memory.keep("a".into(), "two".into(), now);
        assert_eq!(text(&memory, "a", now).as_deref(), Some("two"));
        assert_eq!(text(&memory, "a", now + LONGEST), None);
        memory.forget(b"a");
        assert_eq!(text(&memory, "a", now), None);
    }

    #[test]
    fn the_path_that_was_asked_for_least_lately_makes_room() {
        let (memory, now) = (Memory::default(), Instant::now());
        (0..MOST_PATHS).for_each(|number| memory.keep(number.to_string().into(), "x".into(), now));
        assert!(text(&memory, "0", now).is_some());
        memory.keep("new".into(), "y".into(), now);
        assert_eq!(memory.lock().known.len(), MOST_PATHS);
        assert!(text(&memory, "0", now).is_some() && text(&memory, "1", now).is_none());
        assert!(text(&memory, "new", now).is_some());
    }

    #[test]
    fn a_path_without_end_is_not_remembered() {
        let (memory, now) = (Memory::default(), Instant::now());
        memory.keep(vec![b'a'; LONGEST_KEY + 1].into(), "x".into(), now);
        assert!(memory.lock().known.is_empty());
    }
}
