//! Standard input: a body that is all there. A small one waits in a pipe, a large one in an unlinked file, so that its
//! length is known and neither a slow client holds a program nor a program that reads nothing holds anybody.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::BytesMut;
use rustix::pipe::PipeFlags;

use crate::gateway::{Spool, SpoolFile, refuse};
use crate::handler::{Fault, HandlerError};
use crate::http::{RequestBody, Status};

/// Bytes that a pipe takes without a reader.
const PIPE: usize = 64 * 1024;

/// Bytes that are gathered before they are written to the file in one call.
const WRITE: usize = 256 * 1024;

/// A program's standard input and how many bytes there are to read.
#[derive(Debug)]
pub(super) struct Input {
    kind: Kind,
    pub(super) length: u64,
}

#[derive(Debug)]
enum Kind {
    Nothing,
    Pipe(OwnedFd),
    File {
        open: OwnedFd,
        /// Keeps its room reserved.
        _file: SpoolFile,
    },
}

impl Input {
    /// Gathers `body`.
    pub(super) async fn gather(mut body: RequestBody, spool: &Arc<Spool>) -> Result<Self, HandlerError> {
        let mut memory = BytesMut::new();
        let mut file: Option<SpoolFile> = None;
        while let Some(chunk) = body.chunk().await {
            memory.extend_from_slice(&chunk.map_err(|error| refuse(&error))?);
            if memory.len() >= WRITE {
                file = Some(SpoolFile::append(file, memory.split(), spool).await?);
            }
        }
        if file.is_none() {
            if memory.is_empty() {
                return Ok(Self { kind: Kind::Nothing, length: 0 });
            }
            if memory.len() <= PIPE
                && let Some(pipe) = filled_pipe(&memory).map_err(|error| failed(&error))?
            {
                return Ok(Self { kind: Kind::Pipe(pipe), length: memory.len() as u64 });
            }
        }
        let file = SpoolFile::append(file, memory, spool).await?;
        let open = file.reopen().map_err(|error| failed(&error))?;
        let length = file.length();
        Ok(Self { kind: Kind::File { open, _file: file }, length })
    }

    /// What the program is given; `nothing` where there is no body.
    pub(super) fn descriptor<'a>(&'a self, nothing: &'a OwnedFd) -> BorrowedFd<'a> {
        match &self.kind {
            Kind::Nothing => nothing.as_fd(),
            Kind::Pipe(pipe) => pipe.as_fd(),
            Kind::File { open, .. } => open.as_fd(),
        }
    }
}

/// A pipe with these bytes and then its end; `None` where the kernel gave us one that is too small.
fn filled_pipe(bytes: &[u8]) -> io::Result<Option<OwnedFd>> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&writer, true)?;
    match rustix::io::write(&writer, bytes) {
        Ok(written) if written == bytes.len() => Ok(Some(reader)),
        Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn failed(error: &io::Error) -> HandlerError {
    let message = format!("cannot make a standard input: {error}");
    let mut failed = HandlerError::new(Status::SERVICE_UNAVAILABLE, Fault::Server, message);
    failed.retry_after = Some(1);
    failed
}
