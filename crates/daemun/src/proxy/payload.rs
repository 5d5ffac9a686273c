//! The body of a request on its way to a server: gathered in memory, then in an unlinked file; or passed on as it comes.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use daemun_protocol::fastcgi;
use tokio::task::JoinHandle;

use crate::gateway::{Spool, SpoolFile, refuse};
use crate::handler::HandlerError;
use crate::http::h1::{encode_chunk_size, encode_end};
use crate::http::{Fields, RequestBody};

/// Bytes that are gathered in memory before they are written to the file in one call.
const WRITE: usize = 256 * 1024;

/// Bytes of a file that are read at a time.
const READ: usize = 128 * 1024;

/// A body.
pub(super) enum Payload {
    None,
    Memory(Bytes),
    File(Arc<SpoolFile>),
    /// It can be sent once.
    Stream(Option<RequestBody>),
}

/// How the bytes of a body stand in what is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Framing {
    /// As they are.
    Plain,
    /// In chunks.
    Chunked,
    /// In FastCGI records of this request.
    Records(u16),
}

/// A body on its way out in one try.
pub(super) struct Upload {
    source: Source,
    framing: Framing,
    /// Whether its end was said, where the framing has one.
    is_ended: bool,
    /// The fields behind it, where they are known.
    trailers: Option<Fields>,
}

/// Where its bytes come from.
enum Source {
    Done,
    Memory(Bytes),
    File {
        file: Arc<OwnedFd>,
        _spooled: Arc<SpoolFile>,
        at: u64,
        left: u64,
        reading: Option<JoinHandle<io::Result<Bytes>>>,
    },
    Stream(RequestBody),
}

/// Why the next bytes of a body are not there.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error("its body ended before its time")]
    Client,
    #[error("its body could not be read from `spool`: {0}")]
    Spool(io::Error),
}

impl Payload {
    /// Gathers `body` with the fields behind it, unless it is still coming and can be sent as it comes.
    pub(super) async fn of(
        body: RequestBody,
        streams: bool,
        spool: &Arc<Spool>,
    ) -> Result<(Self, Option<Fields>), HandlerError> {
        match body {
            RequestBody::Empty => Ok((Self::None, None)),
            RequestBody::Full(bytes) if bytes.is_empty() => Ok((Self::None, None)),
            RequestBody::Full(bytes) => Ok((Self::Memory(bytes), None)),
            RequestBody::Coming(_) if streams => Ok((Self::Stream(Some(body)), None)),
            // Apart, so that a request without a body has no room for its gathering.
            RequestBody::Coming(_) => Box::pin(Self::gather(body, spool)).await,
        }
    }

    async fn gather(mut body: RequestBody, spool: &Arc<Spool>) -> Result<(Self, Option<Fields>), HandlerError> {
        let mut memory = BytesMut::new();
        let mut file: Option<SpoolFile> = None;
        while let Some(chunk) = body.chunk().await {
            memory.extend_from_slice(&chunk.map_err(|error| refuse(&error))?);
            if memory.len() >= WRITE {
                file = Some(SpoolFile::append(file, memory.split(), spool).await?);
            }
        }
        let trailers = body.take_trailers();
        let payload = match file {
            None if memory.is_empty() => Self::None,
            None => Self::Memory(memory.freeze()),
            Some(file) if memory.is_empty() => Self::File(Arc::new(file)),
            Some(file) => Self::File(Arc::new(SpoolFile::append(Some(file), memory, spool).await?)),
        };
        Ok((payload, trailers))
    }

    /// Its length, where it is known.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::None => Some(0),
            Self::Memory(bytes) => Some(bytes.len() as u64),
            Self::File(file) => Some(file.length()),
            Self::Stream(body) => body.as_ref().and_then(RequestBody::length),
        }
    }

    /// Whether it can be sent (again).
    pub(super) fn is_at_hand(&self) -> bool {
        !matches!(self, Self::Stream(None))
    }

    /// Whether it can be sent as often as it is wanted.
    pub(super) fn is_repeatable(&self) -> bool {
        !matches!(self, Self::Stream(_))
    }

    /// The same body once more, where it is at hand as often as it is wanted.
    pub(super) fn again(&self) -> Option<Self> {
        match self {
            Self::None => Some(Self::None),
            Self::Memory(bytes) => Some(Self::Memory(bytes.clone())),
            Self::File(file) => Some(Self::File(Arc::clone(file))),
            Self::Stream(_) => None,
        }
    }

    /// The body for one try, with the fields behind it where they are known already.
    pub(super) fn upload(&mut self, framing: Framing, trailers: Option<Fields>) -> io::Result<Upload> {
        let source = match self {
            Self::None => Source::Done,
            Self::Memory(bytes) => Source::Memory(bytes.clone()),
            Self::File(file) => Source::File {
                file: Arc::new(file.reopen()?),
                _spooled: Arc::clone(file),
                at: 0,
                left: file.length(),
                reading: None,
            },
            Self::Stream(body) => match body.take() {
                Some(body) => Source::Stream(body),
                None => return Err(io::Error::other("it was sent already")),
            },
        };
        Ok(Upload { source, framing, is_ended: false, trailers })
    }
}

impl Upload {
    /// The fields behind it, once, after its end, where its framing is not what says them.
    pub(super) fn take_trailers(&mut self) -> Option<Fields> {
        self.trailers.take()
    }

    /// Appends the next bytes, framed, to `out`; false where there are no more.
    pub(super) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        out: &mut BytesMut,
    ) -> Poll<Result<bool, UploadError>> {
        let next = ready!(self.source.poll_next(context, &mut self.trailers))?;
        match (self.framing, next) {
            (_, Some(bytes)) if bytes.is_empty() => {}
            (Framing::Plain, Some(bytes)) => out.extend_from_slice(&bytes),
            (Framing::Chunked, Some(bytes)) => {
                let mut size = Vec::with_capacity(20);
                encode_chunk_size(&mut size, bytes.len());
                out.extend_from_slice(&size);
                out.extend_from_slice(&bytes);
                out.extend_from_slice(b"\r\n");
            }
            (Framing::Records(id), Some(bytes)) => fastcgi::put_stream(out, fastcgi::Kind::Stdin, id, &bytes),
            (Framing::Plain, None) => return Poll::Ready(Ok(false)),
            (_, None) if self.is_ended => return Poll::Ready(Ok(false)),
            (framing, None) => {
                self.is_ended = true;
                if let Framing::Records(id) = framing {
                    fastcgi::put_record(out, fastcgi::Kind::Stdin, id, b"");
                } else {
                    let mut end = Vec::with_capacity(5);
                    encode_end(&mut end, self.trailers.take().as_ref());
                    out.extend_from_slice(&end);
                }
            }
        }
        Poll::Ready(Ok(true))
    }
}

impl Source {
    /// The next bytes; at the end of a stream its `trailers` are told.
    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        trailers: &mut Option<Fields>,
    ) -> Poll<Result<Option<Bytes>, UploadError>> {
        let bytes = match self {
            Self::Done => return Poll::Ready(Ok(None)),
            Self::Memory(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Done;
                bytes
            }
            Self::File { left: 0, .. } => {
                *self = Self::Done;
                return Poll::Ready(Ok(None));
            }
            Self::File { file, at, left, reading, .. } => {
                let task = reading.get_or_insert_with(|| {
                    let (file, at, length) = (Arc::clone(file), *at, (*left).min(READ as u64) as usize);
                    tokio::task::spawn_blocking(move || read(&file, at, length))
                });
                let read = ready!(std::pin::Pin::new(task).poll(context));
                let bytes = read.map_err(io::Error::other).flatten().map_err(UploadError::Spool)?;
                (*at, *left, *reading) = (*at + bytes.len() as u64, *left - bytes.len() as u64, None);
                bytes
            }
            Self::Stream(body) => match ready!(body.poll_chunk(context)) {
                Some(Ok(bytes)) => bytes,
                Some(Err(_)) => return Poll::Ready(Err(UploadError::Client)),
                None => {
                    *trailers = body.take_trailers();
                    *self = Self::Done;
                    return Poll::Ready(Ok(None));
                }
            },
        };
        Poll::Ready(Ok(Some(bytes)))
    }
}

/// Bytes of a file from `at` on.
pub(super) fn read(file: &OwnedFd, at: u64, length: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match rustix::io::pread(file, &mut buffer[filled..], at + filled as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(buffer.into())
}
