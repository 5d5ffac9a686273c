//! Reading an answer ahead of its client: in memory, then in an unlinked file, so that a slow client does not hold a server.
//!
//! What has come is sent at once; nothing waits for more. The order is kept: what is in memory is older than what is in the
//! file, and while the file holds unread bytes new ones go there. Where neither has room the server waits.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use tokio::task::JoinHandle;

use super::payload::read;
use crate::gateway::{Spool, SpoolFile};
use crate::http::{BodyError, BodyStream, Fields};
use crate::upstream::ResponseBuffering;

/// Bytes that are written to the file in one call.
const WRITE: usize = 256 * 1024;

/// Bytes of the file that are read at a time.
const READ: u64 = 128 * 1024;

type Body = Pin<Box<dyn BodyStream>>;

/// A body that is read ahead from its second chunk on: most have one.
pub(super) struct Ahead {
    state: State,
    length: Option<u64>,
    may_trail: bool,
    means: (ResponseBuffering, Arc<Spool>),
}

/// How it is read.
enum State {
    /// By whoever sends it.
    Direct(Body),
    /// By a task.
    Buffered(Buffered),
}

/// The reading end of what a task has read.
struct Buffered {
    shared: Arc<Mutex<Shared>>,
    task: JoinHandle<()>,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

/// What lies between the server and the client.
#[derive(Default)]
struct Shared {
    memory: VecDeque<Bytes>,
    /// Bytes in it.
    held: usize,
    file: Option<Spilled>,
    /// How it ended, once it has.
    end: Option<Result<(), BodyError>>,
    trailers: Option<Fields>,
    /// Who waits for bytes, and who for room.
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// Bytes on disk.
struct Spilled {
    /// Taken out while it is written to.
    file: Option<SpoolFile>,
    is_written_to: bool,
    reading: Arc<OwnedFd>,
    /// How much of it can be read, and how much was.
    length: u64,
    at: u64,
}

/// Where the next bytes go.
enum Room {
    Memory,
    Disk,
}

impl Ahead {
    /// Reads `body` ahead.
    pub(super) fn new(body: Body, buffering: ResponseBuffering, spool: &Arc<Spool>) -> Self {
        Self {
            length: body.length(),
            may_trail: body.may_trail(),
            state: State::Direct(body),
            means: (buffering, Arc::clone(spool)),
        }
    }
}

impl BodyStream for Ahead {
    fn poll_chunk(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let this = &mut *self;
        match &mut this.state {
            State::Buffered(buffered) => buffered.poll_chunk(context),
            State::Direct(body) => {
                let chunk = ready!(body.as_mut().poll_chunk(context));
                if matches!(chunk, Some(Ok(_))) {
                    let shared = Arc::new(Mutex::new(Shared::default()));
                    let body = std::mem::replace(body, Box::pin(Nothing));
                    let (buffering, spool) = (this.means.0, Arc::clone(&this.means.1));
                    let task = tokio::spawn(fill(body, Arc::clone(&shared), buffering, spool));
                    this.state = State::Buffered(Buffered { shared, task, reading: None });
                }
                Poll::Ready(chunk)
            }
        }
    }

    fn length(&self) -> Option<u64> {
        self.length
    }

    fn may_trail(&self) -> bool {
        self.may_trail
    }

    fn take_trailers(mut self: Pin<&mut Self>) -> Option<Fields> {
        match &mut self.state {
            State::Direct(body) => body.as_mut().take_trailers(),
            State::Buffered(buffered) => lock(&buffered.shared).trailers.take(),
        }
    }
}

// === impl Shared ===

impl Shared {
    /// Frees the room of a file that was read to its end.
    fn forget_what_was_read(&mut self) {
        if self.file.as_ref().is_some_and(|spilled| spilled.at == spilled.length && !spilled.is_written_to) {
            self.file = None;
            wake(&mut self.writer);
        }
    }
}

// === impl Buffered ===

impl Buffered {
    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            if let Some(reading) = &mut self.reading {
                let read = ready!(Pin::new(reading).poll(context));
                self.reading = None;
                let read = read.map_err(io::Error::other).flatten();
                let mut shared = lock(&self.shared);
                let bytes = match read {
                    Ok(bytes) => bytes,
                    Err(error) => {
                        let message = format!("an answer could not be read from `spool`: {error}");
                        return Poll::Ready(Some(Err(BodyError::Failed(message))));
                    }
                };
                if let Some(spilled) = &mut shared.file {
                    spilled.at += bytes.len() as u64;
                    shared.forget_what_was_read();
                }
                return Poll::Ready(Some(Ok(bytes)));
            }
            let mut shared = lock(&self.shared);
            if let Some(bytes) = shared.memory.pop_front() {
                shared.held -= bytes.len();
                wake(&mut shared.writer);
                return Poll::Ready(Some(Ok(bytes)));
            }
            if let Some(spilled) = shared.file.as_ref().filter(|spilled| spilled.at < spilled.length) {
                let (file, at) = (Arc::clone(&spilled.reading), spilled.at);
                let length = (spilled.length - at).min(READ) as usize;
                self.reading = Some(tokio::task::spawn_blocking(move || read(&file, at, length)));
                continue;
            }
            return match shared.end.take() {
                Some(Ok(())) => {
                    shared.end = Some(Ok(()));
                    Poll::Ready(None)
                }
                Some(Err(error)) => {
                    shared.end = Some(Ok(()));
                    Poll::Ready(Some(Err(error)))
                }
                None => {
                    shared.reader = Some(context.waker().clone());
                    Poll::Pending
                }
            };
        }
    }
}

impl Drop for Buffered {
    fn drop(&mut self) {
        // Nobody wants the rest: the server is told so by the end of its connection.
        self.task.abort();
    }
}

/// Tells the reader where the task ends that reads ahead, by a panic too: it has no deadline of its own.
struct Watched(Arc<Mutex<Shared>>);

impl Drop for Watched {
    fn drop(&mut self) {
        let mut shared = lock(&self.0);
        shared.end.get_or_insert_with(|| Err(BodyError::Failed("reading ahead broke off".to_owned())));
        wake(&mut shared.reader);
    }
}

/// Reads a body to its end, as fast as it comes and there is room.
async fn fill(mut body: Body, shared: Arc<Mutex<Shared>>, buffering: ResponseBuffering, spool: Arc<Spool>) {
    let _watched = Watched(Arc::clone(&shared));
    let mut may_spill = buffering.disk > 0;
    loop {
        let mut room = std::future::poll_fn(|context| poll_room(&shared, context, &buffering, may_spill)).await;
        let mut gathered: VecDeque<Bytes> = VecDeque::new();
        let end = std::future::poll_fn(|context| poll_gather(&mut body, context, &mut gathered)).await;
        let mut left = gathered.iter().map(Bytes::len).sum::<usize>();
        while left > 0 {
            match room {
                Room::Memory => {
                    let mut shared = lock(&shared);
                    shared.held += left;
                    shared.memory.append(&mut gathered);
                    wake(&mut shared.reader);
                    left = 0;
                }
                Room::Disk => {
                    if spill(&shared, &gathered, &spool).await.is_ok() {
                        left = 0;
                        continue;
                    }
                    // No room on disk: from now on the server waits for the client, as it would without.
                    may_spill = false;
                    room = std::future::poll_fn(|context| poll_room(&shared, context, &buffering, false)).await;
                }
            }
        }
        if let Some(end) = end {
            // Before the end is told, so that the server is free once the client has seen it.
            let trailers = body.as_mut().take_trailers();
            drop(body);
            let mut shared = lock(&shared);
            shared.trailers = trailers;
            shared.end = Some(end);
            wake(&mut shared.reader);
            return;
        }
    }
}

fn poll_room(
    shared: &Mutex<Shared>,
    context: &mut Context<'_>,
    buffering: &ResponseBuffering,
    may_spill: bool,
) -> Poll<Room> {
    let mut shared = lock(shared);
    let spilled = shared.file.as_ref().map(|spilled| spilled.length);
    match spilled {
        // One piece at least, or nothing would ever come.
        None if shared.held == 0 || shared.held < buffering.memory => return Poll::Ready(Room::Memory),
        None if may_spill => return Poll::Ready(Room::Disk),
        Some(length) if may_spill && length < buffering.disk => return Poll::Ready(Room::Disk),
        _ => {}
    }
    shared.writer = Some(context.waker().clone());
    Poll::Pending
}

/// What is there, at least one chunk; and the end, if it is.
fn poll_gather(
    body: &mut Body,
    context: &mut Context<'_>,
    gathered: &mut VecDeque<Bytes>,
) -> Poll<Option<Result<(), BodyError>>> {
    let mut length = gathered.iter().map(Bytes::len).sum::<usize>();
    loop {
        match body.as_mut().poll_chunk(context) {
            Poll::Ready(Some(Ok(bytes))) => {
                length += bytes.len();
                gathered.push_back(bytes);
                if length >= WRITE {
                    return Poll::Ready(None);
                }
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
            Poll::Ready(None) => return Poll::Ready(Some(Ok(()))),
            Poll::Pending if length > 0 => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// Writes to the end of the file, which is made where there is none.
async fn spill(shared: &Mutex<Shared>, chunks: &VecDeque<Bytes>, spool: &Arc<Spool>) -> Result<(), ()> {
    let mut bytes = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
    for chunk in chunks {
        bytes.extend_from_slice(chunk);
    }
    let file = lock(shared).file.as_mut().and_then(|spilled| {
        spilled.is_written_to = true;
        spilled.file.take()
    });
    let written = SpoolFile::append(file, bytes, spool).await.ok();
    let mut shared = lock(shared);
    let made = match (written, &mut shared.file) {
        (Some(file), Some(spilled)) => {
            (spilled.length, spilled.file, spilled.is_written_to) = (file.length(), Some(file), false);
            Ok(())
        }
        (Some(file), None) => file.reopen().map_err(drop).map(|reading| {
            let (length, reading) = (file.length(), Arc::new(reading));
            shared.file = Some(Spilled { file: Some(file), is_written_to: false, reading, length, at: 0 });
        }),
        (None, spilled) => {
            // What stands in it can still be read.
            if let Some(spilled) = spilled {
                spilled.is_written_to = false;
            }
            Err(())
        }
    };
    shared.forget_what_was_read();
    wake(&mut shared.reader);
    made
}

/// A panic while the lock was held left plain data behind: it can be used.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// What is left where a body was taken away.
struct Nothing;

impl BodyStream for Nothing {
    fn poll_chunk(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One chunk, then it panics.
    struct Breaks(bool);

    impl BodyStream for Breaks {
        fn poll_chunk(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
            assert!(!std::mem::replace(&mut self.0, true), "it breaks");
            Poll::Ready(Some(Ok(Bytes::from_static(b"first"))))
        }
    }

    #[tokio::test]
    async fn a_body_that_panics_while_it_is_read_ahead_fails_and_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let opened = std::fs::File::open(folder.path()).unwrap();
        let spool = Arc::new(Spool::new(opened.into(), folder.path().to_owned(), 1024).0);
        let mut ahead = Ahead::new(Box::pin(Breaks(false)), ResponseBuffering { memory: 1024, disk: 0 }, &spool);
        let mut chunks = Vec::new();
        while let Some(chunk) = std::future::poll_fn(|context| Pin::new(&mut ahead).poll_chunk(context)).await {
            chunks.push(chunk.map_err(|error| error.to_string()));
        }
        assert_eq!(chunks, [Ok(Bytes::from_static(b"first")), Err("reading ahead broke off".to_owned())]);
    }
}
