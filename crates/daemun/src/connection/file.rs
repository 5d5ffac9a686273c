//! A file as a stream of bytes, where the kernel cannot send it by itself: through TLS and HTTP/2; and where it should not,
//! because the file is not at rest: what `sendfile` has put into a socket are not bytes but pages of the file, and they
//! change with it until the client has read them.

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use rustix::io::{Errno, ReadWriteFlags};
use tokio::task::JoinHandle;

use crate::http::{BodyError, BodyStream, FileBody};

/// Bytes that are read at once: four TLS records.
const STEP: u64 = 64 * 1024;

/// What is left of a file that is being sent.
pub(super) struct FileStream {
    file: FileBody,
    /// All of it when it began.
    length: u64,
    /// A read of what is not in memory, away from the event loop.
    cold: Option<JoinHandle<io::Result<Vec<u8>>>>,
}

impl FileStream {
    pub(super) fn new(file: FileBody) -> Self {
        let length = file.length;
        Self { file, length, cold: None }
    }

    fn advance(&mut self, bytes: Vec<u8>) -> Result<Bytes, BodyError> {
        if bytes.is_empty() {
            return Err(shorter(self.file.length));
        }
        self.file.offset += bytes.len() as u64;
        self.file.length -= bytes.len() as u64;
        if self.file.length == 0 {
            // The last bytes are held back until it is certain that all are of one version.
            self.file.check().map_err(|changed| BodyError::Failed(changed.to_string()))?;
        }
        Ok(Bytes::from(bytes))
    }
}

impl BodyStream for FileStream {
    fn poll_chunk(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.file.length == 0 {
            return Poll::Ready(None);
        }
        if self.cold.is_none() {
            match read(&self.file, ReadWriteFlags::NOWAIT) {
                Ok(bytes) => return Poll::Ready(Some(self.advance(bytes))),
                // Not in memory (or the file system cannot tell): that is no work for an event loop.
                Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INVAL) => {}
                Err(error) => return Poll::Ready(Some(Err(unreadable(&error.into())))),
            }
            let file = self.file.clone();
            let work = move || read(&file, ReadWriteFlags::empty()).map_err(io::Error::from);
            self.cold = Some(tokio::task::spawn_blocking(work));
        }
        let Some(cold) = &mut self.cold else { return Poll::Pending };
        let Poll::Ready(done) = Pin::new(cold).poll(context) else { return Poll::Pending };
        self.cold = None;
        let read = done.map_err(io::Error::other).flatten();
        Poll::Ready(Some(read.map_err(|error| unreadable(&error)).and_then(|bytes| self.advance(bytes))))
    }

    fn length(&self) -> Option<u64> {
        Some(self.length)
    }
}

/// The next bytes of a file; none at its end.
fn read(file: &FileBody, flags: ReadWriteFlags) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; file.length.min(STEP) as usize];
    loop {
        match rustix::io::preadv2(&*file.file, &mut [IoSliceMut::new(&mut bytes)], file.offset, flags) {
            Ok(read) => {
                bytes.truncate(read);
                return Ok(bytes);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

fn shorter(missing: u64) -> BodyError {
    BodyError::Failed(format!("a file was {missing} bytes shorter than when it was opened"))
}

fn unreadable(error: &io::Error) -> BodyError {
    BodyError::Failed(format!("a file could not be read: {error}"))
}
