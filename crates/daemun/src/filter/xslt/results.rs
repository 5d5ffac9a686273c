//! Results in memory, by what they were made from, and who is making one just now.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::sheets::Sheet;
use crate::http::ResponseBody;
use crate::transformer::{Failure, Made};

/// Bytes of results, and of documents that are held to be known again, of one route.
const MOST: usize = 32 << 20;

/// Bytes that a result takes beside its body.
const OVERHEAD: usize = 512;

/// How long it is remembered that a transformation ended its process: a page that is asked for again and again must not
/// end them all.
const ENDED: Duration = Duration::from_secs(10);

/// Turns that are remembered before it is looked which are over.
const TURNS: usize = 256;

/// State of the stylesheet, path and bytes of the document.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Key([u8; 32]);

impl Key {
    pub(super) fn new(sheet: u64, path: &str, document: &[u8]) -> Self {
        let mut digest = Sha256::new();
        digest.update(sheet.to_le_bytes());
        digest.update((path.len() as u64).to_le_bytes());
        digest.update(path);
        digest.update(document);
        Self(digest.finalize().into())
    }
}

/// A document that is known without reading it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Quick {
    path: Box<str>,
    kind: Kind,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Kind {
    /// Address and length; the bytes are held, so that no others can be there.
    Memory(usize, usize),
    /// Device, inode, length, time of its change, and which part.
    File(u64, u64, u64, (i64, u64), (u64, u64)),
}

/// What can be known of a body at once.
pub(super) fn quick(body: &ResponseBody, path: &str) -> Option<Quick> {
    let kind = match body {
        ResponseBody::Full(bytes) => Kind::Memory(bytes.as_ptr() as usize, bytes.len()),
        ResponseBody::File(file) => {
            if let Some(bytes) = file.at_hand() {
                return Some(Quick { path: path.into(), kind: Kind::Memory(bytes.as_ptr() as usize, bytes.len()) });
            }
            let facts = rustix::fs::fstat(&*file.file).ok()?;
            let time = (facts.st_mtime, facts.st_mtime_nsec);
            Kind::File(facts.st_dev, facts.st_ino, facts.st_size as u64, time, (file.offset, file.length))
        }
        _ => return None,
    };
    Some(Quick { path: path.into(), kind })
}

/// What came of a document.
#[derive(Debug)]
pub(super) struct Transformation {
    /// The stylesheet in the state that it was made with.
    pub(super) sheet: Arc<Sheet>,
    pub(super) result: Result<Page, Failure>,
    until: Option<Instant>,
}

/// A result.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) content_type: Bytes,
    pub(super) tag: Bytes,
    pub(super) body: Bytes,
}

/// The results of a route.
#[derive(Default)]
pub(super) struct Results {
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    kept: HashMap<Key, Arc<Transformation>>,
    known: HashMap<Quick, (Bytes, Arc<Transformation>)>,
    /// In the order in which they came; the oldest go first.
    queue: VecDeque<(Entry, usize)>,
    bytes: usize,
    turns: HashMap<Key, Arc<tokio::sync::Mutex<()>>>,
}

enum Entry {
    Kept(Key),
    Known(Quick),
}

impl Results {
    /// What this document became when it was seen before.
    pub(super) fn recall(&self, quick: &Quick) -> Option<Arc<Transformation>> {
        let inside = self.inside();
        let (_, done) = inside.known.get(quick)?;
        done.is_good().then(|| Arc::clone(done))
    }

    /// Knows this document again.
    pub(super) fn remember(&self, quick: Quick, document: Bytes, done: &Arc<Transformation>) {
        let mut inside = self.inside();
        // A file that is read was copied; only what lies in somebody's memory is held.
        let held = if matches!(quick.kind, Kind::Memory(..)) { document } else { Bytes::new() };
        let size = held.len();
        if inside.known.insert(quick.clone(), (held, Arc::clone(done))).is_none() {
            inside.add(Entry::Known(quick), size + OVERHEAD);
        }
    }

    pub(super) fn find(&self, key: Key) -> Option<Arc<Transformation>> {
        self.inside().kept.get(&key).filter(|done| done.is_good()).cloned()
    }

    /// Whoever holds this makes the result; the others wait for it.
    pub(super) fn turn(&self, key: Key) -> Arc<tokio::sync::Mutex<()>> {
        let mut inside = self.inside();
        if inside.turns.len() >= TURNS {
            inside.turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        Arc::clone(inside.turns.entry(key).or_default())
    }

    pub(super) fn keep(
        &self,
        key: Key,
        sheet: &Arc<Sheet>,
        result: Result<(Made, Bytes), Failure>,
    ) -> Arc<Transformation> {
        let until = matches!(result, Err(Failure::Ended(_))).then(|| Instant::now() + ENDED);
        let result = result.map(|(made, body)| {
            let digest = Sha256::digest(&body);
            let tag = format!("{:024x}", u128::from_be_bytes(digest[..16].try_into().unwrap_or_default()) >> 32);
            Page { content_type: made.content_type.into(), tag: format!("\"{tag}\"").into(), body }
        });
        let size = result.as_ref().map_or(0, |page| page.body.len()) + OVERHEAD;
        let done = Arc::new(Transformation { sheet: Arc::clone(sheet), result, until });
        let mut inside = self.inside();
        inside.kept.insert(key, Arc::clone(&done));
        inside.add(Entry::Kept(key), size);
        done
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        // A panic while the lock was held left plain data behind: it can be used.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    fn add(&mut self, entry: Entry, size: usize) {
        self.queue.push_back((entry, size));
        self.bytes += size;
        while self.bytes > MOST
            && let Some((oldest, size)) = self.queue.pop_front()
        {
            self.bytes -= size;
            match oldest {
                Entry::Kept(key) => drop(self.kept.remove(&key)),
                Entry::Known(quick) => drop(self.known.remove(&quick)),
            }
        }
    }
}

impl Transformation {
    fn is_good(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}
