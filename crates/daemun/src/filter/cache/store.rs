//! Answers in memory, up to a number of bytes, and who is asking for one just now.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use super::rules::Lifetime;
use crate::http::{Fields, RequestHead, Status};

/// Answers for one URL that differ by what `Vary` names. More are a sign that it names too much.
const VARIANTS: usize = 16;

/// How long it is remembered that answers for a URL cannot be kept: nobody waits for one meanwhile.
const PASS: Duration = Duration::from_secs(5);

/// URLs of which that is remembered.
const PASSES: usize = 4096;

/// Bytes that an entry takes beside its body.
const OVERHEAD: u64 = 512;

/// An answer that is kept.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) status: Status,
    pub(super) fields: Fields,
    pub(super) body: Bytes,
    pub(super) lifetime: Lifetime,
    /// When it was made.
    pub(super) made: Instant,
    /// Its age by then.
    pub(super) age: Duration,
    /// What `Vary` names, and what the request said.
    pub(super) vary: Vec<(String, Vec<u8>)>,
    /// Whether it was asked for since the last look: then it is not thrown out yet.
    used: AtomicBool,
    /// The fields with which it was last given, and what they say of the time.
    dressed: Mutex<Option<(Told, Fields)>>,
}

/// Seconds that an answer is old, and that it stays fresh or has not been any more.
pub(super) type Told = (u64, Result<u64, u64>);

/// The answers of one route.
#[derive(Debug, Default)]
pub(in crate::filter) struct Store {
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    answers: HashMap<Bytes, Vec<Arc<Stored>>>,
    queue: VecDeque<(Bytes, Weak<Stored>)>,
    bytes: u64,
    flights: HashMap<Bytes, watch::Receiver<()>>,
    passes: HashMap<Bytes, Instant>,
}

/// Who asks the handler.
pub(super) enum Turn {
    /// You do; the others wait until this is dropped.
    Yours(Flight),
    /// Somebody does already.
    Wait(watch::Receiver<()>),
    /// Everybody for himself: the answers could not be kept lately.
    Alone,
}

/// A request on its way to the handler, for which others may be waiting.
pub(super) struct Flight {
    store: Arc<Store>,
    key: Bytes,
    _done: watch::Sender<()>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.store.lock().flights.remove(&self.key);
    }
}

// === impl Stored ===

impl Stored {
    pub(super) fn new(parts: (Status, Fields, Bytes), lifetime: Lifetime, made: Instant, head: &RequestHead) -> Self {
        let (status, fields, body) = parts;
        let said = fields.get("age").and_then(|age| std::str::from_utf8(age).ok()?.trim().parse().ok());
        let age = Duration::from_secs(said.unwrap_or(0).min(u64::from(u32::MAX)));
        let vary = variant(&fields, head);
        let used = AtomicBool::new(false);
        Self { status, fields, body, lifetime, made, age, vary, used, dressed: Mutex::default() }
    }

    /// The fields to give it with at this time: they say the same for a second, so they are made once for all who ask in it.
    pub(super) fn dressed(&self, told: Told, make: impl FnOnce() -> Fields) -> Fields {
        let mut dressed = self.dressed.lock().unwrap_or_else(PoisonError::into_inner);
        match &*dressed {
            Some((last, fields)) if *last == told => fields.clone(),
            _ => dressed.insert((told, make().shared())).1.clone(),
        }
    }

    fn suits(&self, head: &RequestHead) -> bool {
        self.vary.iter().all(|(name, value)| said(head, name) == *value)
    }

    fn size(&self) -> u64 {
        // Each is in two lists, which share their bytes, and written down once more.
        let fields: usize = self.fields.iter().map(|field| 2 * (field.name().len() + field.value().len()) + 128).sum();
        self.body.len() as u64 + fields as u64 + OVERHEAD
    }

    /// Time for which it is still fresh; below zero how long it no longer is.
    pub(super) fn left(&self, now: Instant) -> Result<Duration, Duration> {
        let since = now.saturating_duration_since(self.made);
        match self.lifetime.fresh.checked_sub(since) {
            Some(left) if !left.is_zero() => Ok(left),
            _ => Err(since.saturating_sub(self.lifetime.fresh)),
        }
    }
}

// === impl Store ===

impl Store {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer for this request, fresh or not.
    pub(super) fn find(&self, key: &[u8], head: &RequestHead) -> Option<Arc<Stored>> {
        let inside = self.lock();
        let found = inside.answers.get(key)?.iter().find(|stored| stored.suits(head))?;
        found.used.store(true, Ordering::Relaxed);
        Some(Arc::clone(found))
    }

    /// Keeps an answer in the place of the one for the same request, and throws out what no longer has room.
    pub(super) fn keep(&self, key: &Bytes, stored: Stored, most: u64) -> Arc<Stored> {
        let stored = Arc::new(stored);
        let mut inside = self.lock();
        inside.passes.remove(key);
        let variants = inside.answers.entry(key.clone()).or_default();
        let mut gone: Vec<Arc<Stored>> = variants.extract_if(.., |other| other.vary == stored.vary).collect();
        if variants.len() >= VARIANTS {
            gone.push(variants.remove(0));
        }
        variants.push(Arc::clone(&stored));
        inside.bytes -= gone.iter().map(|stored| stored.size()).sum::<u64>();
        inside.bytes += stored.size();
        inside.queue.push_back((key.clone(), Arc::downgrade(&stored)));
        inside.shrink(most);
        drop(inside);
        stored
    }

    /// Forgets what is kept for a URL.
    pub(super) fn forget(&self, key: &[u8]) {
        let mut inside = self.lock();
        let gone = inside.answers.remove(key).unwrap_or_default();
        inside.bytes -= gone.iter().map(|stored| stored.size()).sum::<u64>();
    }

    /// Remembers that answers for a URL cannot be kept.
    pub(super) fn pass(&self, key: &Bytes, now: Instant) {
        let mut inside = self.lock();
        if inside.passes.len() >= PASSES {
            inside.passes.clear();
        }
        inside.passes.insert(key.clone(), now + PASS);
    }

    /// Whose turn it is to ask the handler for a URL.
    pub(super) fn turn(self: &Arc<Self>, key: &Bytes, now: Instant) -> Turn {
        let mut inside = self.lock();
        match inside.passes.get(key) {
            Some(&until) if until > now => return Turn::Alone,
            Some(_) => {
                inside.passes.remove(key);
            }
            None => {}
        }
        if let Some(flight) = inside.flights.get(key) {
            return Turn::Wait(flight.clone());
        }
        let (done, waiting) = watch::channel(());
        inside.flights.insert(key.clone(), waiting);
        Turn::Yours(Flight { store: Arc::clone(self), key: key.clone(), _done: done })
    }
}

impl Inside {
    fn shrink(&mut self, most: u64) {
        // Entries that were replaced are still in the queue: no more of them than of the others.
        while self.bytes > most || self.queue.len() > 2 * self.answers.len() * VARIANTS + 1024 {
            let Some((key, weak)) = self.queue.pop_front() else { return };
            let Some(stored) = weak.upgrade() else { continue };
            let Some(variants) = self.answers.get_mut(&key) else { continue };
            let Some(at) = variants.iter().position(|other| Arc::ptr_eq(other, &stored)) else { continue };
            if stored.used.swap(false, Ordering::Relaxed) {
                self.queue.push_back((key, weak));
                continue;
            }
            variants.remove(at);
            self.bytes -= stored.size();
            if variants.is_empty() {
                self.answers.remove(&key);
            }
        }
    }
}

/// What `Vary` names, and what this request says to it.
fn variant(fields: &Fields, head: &RequestHead) -> Vec<(String, Vec<u8>)> {
    let mut names: Vec<String> = Vec::new();
    for field in fields.iter().filter(|field| field.name().eq_ignore_ascii_case(b"vary")) {
        for name in field.value().split(|&byte| byte == b',') {
            let name = String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase();
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names.into_iter().map(|name| (said(head, &name), name)).map(|(value, name)| (name, value)).collect()
}

/// What a request says in a field. Browsers write `Accept-Encoding` in many ways and mean the same: only which codings
/// they take counts.
fn said(head: &RequestHead, name: &str) -> Vec<u8> {
    if name != "accept-encoding" {
        return head.field_values(name).collect::<Vec<_>>().join(&b", "[..]);
    }
    let mut taken = [0_u8; 6];
    for item in head.field_values(name).flat_map(|line| line.split(|&byte| byte == b',')) {
        let mut parts = item.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let coding = parts.next().unwrap_or_default().to_ascii_lowercase();
        let refused =
            parts.any(|part| part.strip_prefix(b"q=0").is_some_and(|rest| rest.iter().all(|b| b".0".contains(b))));
        let known: [&[u8]; 6] = [b"zstd", b"br", b"gzip", b"deflate", b"*", b"identity"];
        if let Some(at) = known.iter().position(|known| *known == coding.as_slice()) {
            taken[at] = if refused { 2 } else { 1 };
        }
    }
    taken.to_vec()
}
