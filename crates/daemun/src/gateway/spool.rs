//! Request bodies that are too large for memory: unlinked files in one folder, under one cap. A slow client never holds
//! a program, and a request can be sent again.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use rustix::fs::{Mode, OFlags};

use crate::handler::{Fault, HandlerError};
use crate::http::{BodyError, Status};

/// Where bodies go that are too large for memory, and how much room they may take together.
#[derive(Debug)]
pub struct Spool {
    folder: OwnedFd,
    limit: u64,
    used: AtomicU64,
}

impl Spool {
    /// A spool in `folder` that takes at most `limit` bytes.
    pub fn new(folder: OwnedFd, limit: u64) -> Self {
        Self { folder, limit, used: AtomicU64::new(0) }
    }

    fn reserve(&self, bytes: u64) -> bool {
        let grown = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok()
    }
}

/// What the client sees when its body cannot be read to the end.
pub fn refuse(error: &BodyError) -> HandlerError {
    let status = match error {
        BodyError::TooLarge(_) => Status::CONTENT_TOO_LARGE,
        BodyError::Slow => Status::REQUEST_TIMEOUT,
        BodyError::Cut(_) | BodyError::Failed(_) => Status::BAD_REQUEST,
    };
    HandlerError::new(status, Fault::Client, error.to_string())
}

/// A body in an unlinked file.
#[derive(Debug)]
pub struct SpoolFile {
    descriptor: Arc<OwnedFd>,
    length: u64,
    spool: Arc<Spool>,
}

impl SpoolFile {
    /// Appends to the file, which is made first where there is none; on the blocking pool, since disks can hang.
    pub async fn append(file: Option<SpoolFile>, bytes: BytesMut, spool: &Arc<Spool>) -> Result<Self, HandlerError> {
        let spool = Arc::clone(spool);
        if !spool.reserve(bytes.len() as u64) {
            let message = format!("request bodies on disk have reached `max_spool` ({} bytes)", spool.limit);
            let mut error = HandlerError::new(Status::SERVICE_UNAVAILABLE, Fault::Server, message);
            error.retry_after = Some(10);
            return Err(error);
        }
        let write = move || -> io::Result<SpoolFile> {
            let mut file = match file {
                Some(file) => file,
                None => SpoolFile::create(&spool)?,
            };
            // Counted before it is written, so that a failed write gives the room back.
            file.length += bytes.len() as u64;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let written = rustix::io::write(&*file.descriptor, rest)?;
                rest = &rest[written..];
            }
            Ok(file)
        };
        let written = tokio::task::spawn_blocking(write).await;
        written.map_err(io::Error::other).flatten().map_err(|error| {
            let message = format!("cannot spool a request body in `spool`: {error}");
            HandlerError::new(Status::INSUFFICIENT_STORAGE, Fault::Server, message)
        })
    }

    fn create(spool: &Arc<Spool>) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let descriptor = rustix::fs::openat(&spool.folder, ".", flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Self { descriptor: Arc::new(descriptor), length: 0, spool: Arc::clone(spool) })
    }

    /// Bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Opens it again for reading only, from its start.
    pub fn reopen(&self) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", crate::sys::number(&*self.descriptor));
        Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        self.spool.used.fetch_sub(self.length, Ordering::Relaxed);
    }
}
