//! Request bodies that are too large for memory: unlinked files in one folder, under one cap. A slow client never holds
//! a program, and a request can be sent again. Where no folder takes a file they are kept in memory all the same, as far as
//! that can be had for nothing worse.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use rustix::fs::{Mode, OFlags};

use crate::handler::{Fault, HandlerError};
use crate::http::{BodyError, Status};

/// Where bodies go unless another folder is named. Not /tmp: it often is memory, and they are those that are too large for it.
pub const DEFAULT_SPOOL: &str = "/var/tmp";

/// Bytes of all bodies together where they can only be kept in memory: a container with a root that cannot be written often
/// has some hundred MiB in all, and forms with pictures should work there.
const MOST_IN_MEMORY: u64 = 64 << 20;

/// Where bodies go that are too large for memory, and how much room they may take together.
#[derive(Debug)]
pub struct Spool {
    folder: OwnedFd,
    path: PathBuf,
    /// Whether the folder takes no files.
    in_memory: bool,
    limit: u64,
    used: AtomicU64,
}

impl Spool {
    /// A spool in `folder`, which is at `path`, that takes at most `limit` bytes. Where no file can be made there the second
    /// value says why, and what is done instead.
    pub fn new(folder: OwnedFd, path: PathBuf, limit: u64) -> (Self, Option<String>) {
        let refused = make_file(&folder).err();
        let in_memory = refused.is_some();
        let limit = if in_memory { limit.min(MOST_IN_MEMORY) } else { limit };
        let warning = refused.map(|error| {
            format!(
                "no file can be made in {} ({error}): request bodies that belong there are kept in memory, {} MiB of them in \
                 all, and beyond it refused with 507; name a folder that user {} may write to: `spool` in [server]",
                path.display(),
                limit >> 20,
                rustix::process::geteuid().as_raw(),
            )
        });
        (Self { folder, path, in_memory, limit, used: AtomicU64::new(0) }, warning)
    }

    /// What a body hears for which there is no room.
    fn is_full(&self) -> HandlerError {
        if self.in_memory {
            let message = format!(
                "request bodies have reached {} MiB, all that is kept in memory where `spool` ({}) takes no files",
                self.limit >> 20,
                self.path.display()
            );
            return HandlerError::new(Status::INSUFFICIENT_STORAGE, Fault::Server, message);
        }
        let message = format!("request bodies on disk have reached `max_spool` ({} bytes)", self.limit);
        let mut error = HandlerError::new(Status::SERVICE_UNAVAILABLE, Fault::Server, message);
        error.retry_after = Some(10);
        error
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
            return Err(spool.is_full());
        }
        let path = spool.path.clone();
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
            let message = format!("cannot write a request body to `spool` ({}): {error}", path.display());
            HandlerError::new(Status::INSUFFICIENT_STORAGE, Fault::Server, message)
        })
    }

    fn create(spool: &Arc<Spool>) -> io::Result<Self> {
        let descriptor = if spool.in_memory {
            rustix::fs::memfd_create("daemun-spool", rustix::fs::MemfdFlags::CLOEXEC)?
        } else {
            make_file(&spool.folder)?
        };
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

/// A file without a name.
fn make_file(folder: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::openat(folder, ".", flags, Mode::RUSR | Mode::WUSR)
}

/// Whether a folder is there in which a file can be made: by us, and it may be somebody else who is to do it.
pub fn takes_files(path: &std::path::Path) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).is_ok_and(|folder| make_file(&folder).is_ok())
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        self.spool.used.fetch_sub(self.length, Ordering::Relaxed);
    }
}
