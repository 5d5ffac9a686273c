//! Static files: contained below their root by construction.
//!
//! Knows folders that were opened for it, names, and what RFC 9110 says about files. Must not know routes, hosts, other
//! handlers or absolute paths. The way of a request:
//!
//! 1. *Method* (`answer`): without a next route that may take it, a method that files do not have ends here.
//! 2. *Name* (`name`): what stands behind the rule's prefix. With an encoded slash in it there is nothing of that name.
//! 3. *Memory* (`cache`): what the name led to within the last second, ready to be sent, without a system call.
//! 4. *Disk* (`lookup`), where the kernel has all of it in memory at once, else on the blocking pool: the first root that
//!    has the name, opened beneath it (`tree`), an index for a folder; made ready (`entry`) with its type
//!    (`content_type`), with what lies beside it compressed, with how long it may be kept (`manifest`) and what the route
//!    adds (`dress`).
//! 5. *Missing*: the route's other path takes the name's place, once.
//! 6. *Outcome*: a folder that may be told is listed (`listing`); absent is 404 or the next route; there but not to be
//!    sent is 404 and never the next route; a folder wants its slash; a file is sent.
//! 7. *Variant* (`coding`), then *preconditions* (`conditional`): 304, 412.
//! 8. *Range* (`range`, `multipart`): 206, 416.
//!
//! `send` puts the same behind the answers of another handler: `X-Sendfile` and `X-Accel-Redirect`.

mod answer;
mod cache;
mod coding;
mod conditional;
mod content_type;
mod dress;
mod entry;
mod listing;
mod lookup;
mod manifest;
mod multipart;
mod name;
mod origin;
mod range;
mod send;
mod settings;
#[cfg(test)]
mod tests;
mod trace;
mod tree;

use std::future::ready;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use self::cache::{Cache, Evicted, Sought};
use self::entry::Keeping;
use self::lookup::{Known, Lookup, LookupError};
use self::tree::Patience;
use crate::handler::{Answering, Fault, Handler, HandlerError, Outcome};
use crate::http::{Method, Request, Status};

pub use manifest::ManifestError;
pub use send::{SendFiles, SendRoots};
pub use settings::{Barred, Missing, Owner, Root, Source, StaticSettings};
pub use trace::Trace;

/// The handler of a static route.
#[derive(Debug)]
pub struct StaticFiles {
    lookup: Arc<Lookup>,
    /// `None` where the sources are being edited.
    cache: Option<Arc<Cache>>,
    /// What answers for a name that is not there.
    other: Option<Bytes>,
    is_next_on_missing: bool,
    /// Whether a script may stand in for a name: one that `index` or `missing` names.
    hands_on: bool,
    /// Whose the files are; for [`trace`] alone.
    sources: Vec<Source>,
}

/// Other folders were opened than the settings have roots.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{folders} folders were opened for {roots} roots")]
pub struct RootsError {
    /// Roots in the settings.
    pub roots: usize,
    /// Folders that were opened.
    pub folders: usize,
}

impl StaticFiles {
    /// A handler for these settings. `folders` are the roots in their order, opened by whoever may (`O_PATH` or
    /// `O_DIRECTORY`): nothing is ever opened but relative to them.
    pub fn new(settings: StaticSettings, folders: Vec<OwnedFd>) -> Result<Self, RootsError> {
        if settings.roots.len() != folders.len() {
            return Err(RootsError { roots: settings.roots.len(), folders: folders.len() });
        }
        let other = match &settings.missing {
            Missing::File(path) => Some(Bytes::copy_from_slice(path.trim_start_matches('/').as_bytes())),
            Missing::NotFound | Missing::Next => None,
        };
        Ok(Self {
            cache: settings.cache.then(|| Arc::new(Cache::new())),
            other,
            is_next_on_missing: settings.missing == Missing::Next,
            hands_on: hands_on(&settings),
            sources: settings.sources.clone(),
            lookup: Arc::new(Lookup::new(settings, folders)),
        })
    }

    /// What is wrong with the manifest; `None` where it is well or the route has none. Waits for the disk: for start-up
    /// lines and the status page, not for an event loop.
    pub fn manifest_fault(&self) -> Option<ManifestError> {
        self.lookup.manifest_fault()
    }

    /// Steps 2, 3 and 5 as far as memory goes: what the request's name leads to, or the name to look for on the disk.
    fn at_hand(&self, request: &Request) -> Result<Sought, Bytes> {
        if !request.path.has_encoded_slash() {
            let Some(own) = name::own_part(&request.path, request.prefix_length) else { return Ok(Sought::Folder) };
            match self.recall(own, request.received) {
                Some(Sought::Absent) => {}
                Some(sought) => return Ok(sought),
                None => return Err(Bytes::copy_from_slice(own)),
            }
        }
        match &self.other {
            Some(other) => {
                let sought = self.recall(other, request.received);
                sought.map(|sought| in_stead(sought, other)).ok_or_else(|| other.clone())
            }
            None => Ok(Sought::Absent),
        }
    }

    fn recall(&self, name: &[u8], now: Instant) -> Option<Sought> {
        match self.cache.as_ref()?.recall(name, now)? {
            // A length that is no longer true would make an answer that has to be cut.
            Sought::File(entry) if entry.has_changed() => None,
            sought => Some(sought),
        }
    }

    /// Steps 4 and 5.
    async fn look_on_disk(&self, request: Request, name: Bytes) -> Result<Outcome, HandlerError> {
        let mut sought = self.look_up(name.clone(), request.received).await?;
        if let Some(other) = &self.other {
            if matches!(sought, Sought::Absent) && name != other {
                sought = match self.recall(other, request.received) {
                    Some(sought) => sought,
                    None => self.look_up(other.clone(), request.received).await?,
                };
                sought = in_stead(sought, other);
            } else if name == other {
                sought = in_stead(sought, other);
            }
        }
        if let Sought::Listing = sought {
            return self.list(request).await;
        }
        Ok(self.outcome(request, &sought))
    }

    /// What is in a folder, as it is now.
    async fn list(&self, request: Request) -> Result<Outcome, HandlerError> {
        let head = &request.head;
        if !is_served(head.method()) {
            return Ok(Outcome::Response(answer::other_method(head)));
        }
        let own = name::own_part(&request.path, request.prefix_length).unwrap_or_default();
        let (lookup, own) = (Arc::clone(&self.lookup), Bytes::copy_from_slice(own));
        let listing = on_disk(move || lookup.list(&own)).await?;
        Ok(Outcome::Response(match listing {
            Some(listing) => listing.answer(&request),
            None => answer::plain(Status::NOT_FOUND, head),
        }))
    }

    /// On this event loop as far as the kernel has everything in memory; else on the blocking pool, from the beginning.
    async fn look_up(&self, name: Bytes, now: Instant) -> Result<Sought, HandlerError> {
        let known = |last| Known { last, now, patience: Patience::AtHand };
        let last = self.cache.as_ref().and_then(|cache| cache.last(&name));
        if let Ok(sought) = self.lookup.look_up(&name, known(last.as_ref())) {
            let evicted = self.cache.as_ref().map(|cache| cache.remember(&name, &sought, now));
            if let Some(evicted) = evicted.filter(Evicted::closes) {
                tokio::task::spawn_blocking(move || drop(evicted));
            }
            return Ok(sought);
        }
        let (lookup, cache) = (Arc::clone(&self.lookup), self.cache.clone());
        on_disk(move || {
            let result = lookup.look_up(&name, Known { last: last.as_ref(), now, patience: Patience::Waits });
            match (&result, cache) {
                (Ok(sought), Some(cache)) => drop(cache.remember(&name, sought, now)),
                (Err(_), Some(cache)) => cache.forget(&name),
                (_, None) => {}
            }
            result
        })
        .await
    }

    /// Step 6.
    fn outcome(&self, request: Request, sought: &Sought) -> Outcome {
        let method = request.head.method();
        if let Sought::Handed(script) = sought {
            let path = script_path(&request, script);
            // One that asks for the script itself has come here because nobody runs it.
            if path != request.path.as_bytes() {
                return Outcome::Redirect(Box::new(request.handed_on(&path)));
            }
        }
        Outcome::Response(match sought {
            Sought::Absent if self.is_next_on_missing => return Outcome::Decline(request),
            Sought::Absent | Sought::Refused | Sought::Script | Sought::Listing | Sought::Handed(_) => {
                answer::plain(Status::NOT_FOUND, &request.head)
            }
            _ if !is_served(method) => answer::other_method(&request.head),
            Sought::Folder => {
                let keeping = if self.cache.is_some() { Keeping::Unsaid } else { Keeping::Ask };
                answer::to_folder(request.path.as_bytes(), request.head.query(), keeping)
            }
            Sought::File(entry) => answer::file(&request.head, entry),
        })
    }
}

impl Handler for StaticFiles {
    fn may_decline(&self) -> bool {
        self.is_next_on_missing || self.hands_on
    }

    fn handle(&self, request: Request) -> Answering<'_> {
        if let Some(trace) = &request.notes.trace {
            trace.note(|steps| steps.handed = Some(Instant::now()));
        }
        let method = request.head.method();
        if !self.is_next_on_missing && !self.hands_on && !is_served(method) {
            return Box::pin(ready(Ok(Outcome::Response(answer::other_method(&request.head)))));
        }
        match self.at_hand(&request) {
            Ok(Sought::Listing) => Box::pin(self.list(request)),
            Ok(sought) => Box::pin(ready(Ok(self.outcome(request, &sought)))),
            Err(name) => Box::pin(self.look_on_disk(request, name)),
        }
    }
}

/// Whether a script of another route may stand in for a name.
fn hands_on(settings: &StaticSettings) -> bool {
    let missing = if let Missing::File(path) = &settings.missing { Some(path) } else { None };
    settings
        .index
        .iter()
        .chain(missing)
        .any(|name| settings.barred.iter().any(|barred| !barred.ending.is_empty() && name.ends_with(&barred.ending)))
}

/// What `missing` names, where that is a script.
fn in_stead(sought: Sought, other: &Bytes) -> Sought {
    if let Sought::Script = sought { Sought::Handed(other.clone()) } else { sought }
}

/// The path of a name below the route's prefix.
fn script_path(request: &Request, name: &[u8]) -> Vec<u8> {
    let prefix = request.path.as_bytes().get(..request.prefix_length).unwrap_or_default();
    let slash: &[u8] = if prefix.ends_with(b"/") { b"" } else { b"/" };
    [prefix, slash, name].concat()
}

/// Runs a lookup on the blocking pool.
async fn on_disk<T: Send + 'static>(
    look: impl FnOnce() -> Result<T, LookupError> + Send + 'static,
) -> Result<T, HandlerError> {
    match tokio::task::spawn_blocking(look).await {
        Ok(result) => result.map_err(|error| failure(&error)),
        Err(error) => {
            let message = format!("looking for a file: {error}");
            Err(HandlerError::new(Status::INTERNAL_SERVER_ERROR, Fault::Server, message))
        }
    }
}

fn is_served(method: Method) -> bool {
    matches!(method, Method::Get | Method::Head)
}

/// What the client sees of a failed lookup, and what the operator reads.
fn failure(error: &LookupError) -> HandlerError {
    const EXHAUSTED: [i32; 4] = [
        rustix::io::Errno::MFILE.raw_os_error(),
        rustix::io::Errno::NFILE.raw_os_error(),
        rustix::io::Errno::NOMEM.raw_os_error(),
        rustix::io::Errno::AGAIN.raw_os_error(),
    ];
    let (status, retry_after) = match error {
        LookupError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => (Status::FORBIDDEN, None),
        LookupError::Io { source, .. } if source.raw_os_error().is_some_and(|code| EXHAUSTED.contains(&code)) => {
            (Status::SERVICE_UNAVAILABLE, Some(1))
        }
        LookupError::Io { .. } => (Status::INTERNAL_SERVER_ERROR, None),
        LookupError::Changing { .. } => (Status::SERVICE_UNAVAILABLE, Some(1)),
    };
    HandlerError { status, fault: Fault::Server, message: error.to_string(), retry_after, dress: None }
}

#[cfg(test)]
mod failures {
    use super::*;

    #[test]
    fn a_failed_lookup_is_our_fault_and_says_what_it_was_about() {
        let io = |errno: rustix::io::Errno| LookupError::Io {
            name: "a.txt".to_owned(),
            root: "/srv".to_owned(),
            source: io::Error::from(errno),
        };
        for (error, status, retry_after) in [
            (io(rustix::io::Errno::ACCESS), Status::FORBIDDEN, None),
            (io(rustix::io::Errno::MFILE), Status::SERVICE_UNAVAILABLE, Some(1)),
            (io(rustix::io::Errno::AGAIN), Status::SERVICE_UNAVAILABLE, Some(1)),
            (io(rustix::io::Errno::IO), Status::INTERNAL_SERVER_ERROR, None),
        ] {
            let failed = failure(&error);
            assert_eq!((failed.status, failed.fault, failed.retry_after), (status, Fault::Server, retry_after));
            assert!(failed.message.starts_with("a.txt below /srv: "), "{}", failed.message);
        }
    }
}
