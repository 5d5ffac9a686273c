//! The front's end: jobs to whichever transformer is free.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::message::{HEADER, Job, Kind, Made, behead, decode, encode, head};

/// Jobs that wait for a free transformer. More are refused: each holds its document.
pub const MOST_WAITING: usize = 64;

/// How long a job waits for a transformer that is free.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the answer of a transformer may take beyond a job's own time, which its own timer keeps.
const MORE: Duration = Duration::from_secs(2);

/// Why a document was not transformed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Failure {
    /// Stylesheet or document are wrong, each with file and line, one fault per line.
    #[error("{0}")]
    Wrong(String),
    /// The process that did it is gone: time, memory or stack were over.
    #[error("{0}")]
    Ended(&'static str),
    /// Nobody could do it now; another time perhaps.
    #[error("{0}")]
    Busy(&'static str),
}

/// A job with its document.
pub struct Order {
    /// What is to be done.
    pub job: Job,
    /// To this.
    pub document: Bytes,
}

/// Sends jobs. Shared by all routes; the transformers behind it may change.
pub struct Client {
    free: Mutex<Vec<UnixStream>>,
    /// As many permits as there are transformers in `free`.
    permits: Semaphore,
    waiting: AtomicUsize,
    home: Handle,
}

impl Client {
    /// A client without a transformer yet, on the event loop `home`.
    pub fn new(home: Handle) -> Arc<Self> {
        Arc::new(Self { free: Mutex::default(), permits: Semaphore::new(0), waiting: AtomicUsize::new(0), home })
    }

    /// This transformer may have jobs.
    pub fn connect(&self, socket: OwnedFd) -> io::Result<()> {
        let _entered = self.home.enter();
        rustix::io::ioctl_fionbio(&socket, true)?;
        self.give_back(UnixStream::from_std(socket.into())?);
        Ok(())
    }

    /// Has a job done. `read` gives files below the job's root. The job goes on when nobody waits for it any more.
    pub async fn transform<R, F>(self: &Arc<Self>, order: Order, read: R) -> Result<(Made, Bytes), Failure>
    where
        R: Fn(String) -> F + Send + Sync + 'static,
        F: Future<Output = Option<Vec<u8>>> + Send,
    {
        let client = Arc::clone(self);
        let job = self.home.spawn(async move { client.run(&order, read).await });
        job.await.unwrap_or(Err(Failure::Ended("the job was lost")))
    }

    async fn run<R, F>(&self, order: &Order, read: R) -> Result<(Made, Bytes), Failure>
    where
        R: Fn(String) -> F,
        F: Future<Output = Option<Vec<u8>>>,
    {
        let mut socket = self.take().await?;
        let time = Duration::from_millis(order.job.milliseconds) + MORE;
        // A socket that is dropped ends its transformer, which is started again.
        match tokio::time::timeout(time, converse(&mut socket, order, read)).await {
            Ok(Ok(result)) => {
                self.give_back(socket);
                result
            }
            Ok(Err(_)) | Err(_) => Err(Failure::Ended(
                "the process that transformed it ended: time, memory or stack were over (see the lines before)",
            )),
        }
    }

    async fn take(&self) -> Result<UnixStream, Failure> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MOST_WAITING {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Failure::Busy("too many transformations wait"));
        }
        let end = tokio::time::Instant::now() + PATIENCE;
        let found = loop {
            let Ok(Ok(permit)) = tokio::time::timeout_at(end, self.permits.acquire()).await else {
                break Err(Failure::Busy("no transformer was free in time"));
            };
            permit.forget();
            let Some(socket) = self.free().pop() else { continue };
            // One that ended while it had nothing to do is no use. The kernel is asked: the event loop may not have
            // looked since.
            let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            if rustix::net::recv(&socket, &mut [0; 1], flags) == Err(Errno::AGAIN) {
                break Ok(socket);
            }
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        found
    }

    fn give_back(&self, socket: UnixStream) {
        self.free().push(socket);
        self.permits.add_permits(1);
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<UnixStream>> {
        // A panic while the lock was held left plain data behind: it can be used.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends the job, gives what is asked for, and takes the result.
async fn converse<R, F>(socket: &mut UnixStream, order: &Order, read: R) -> io::Result<Result<(Made, Bytes), Failure>>
where
    R: Fn(String) -> F,
    F: Future<Output = Option<Vec<u8>>>,
{
    socket.write_all(&encode(Kind::Job, &[&head(&order.job), &order.document])).await?;
    loop {
        let mut header = [0; HEADER];
        socket.read_exact(&mut header).await?;
        let (length, kind) = decode(header).ok_or(io::ErrorKind::InvalidData)?;
        let mut bytes = vec![0; length];
        socket.read_exact(&mut bytes).await?;
        match kind {
            Kind::Want => {
                let path = String::from_utf8(bytes).unwrap_or_default();
                let wire = match read(path).await {
                    Some(file) => encode(Kind::File, &[&file]),
                    None => encode(Kind::NoFile, &[]),
                };
                socket.write_all(&wire).await?;
            }
            Kind::Made => {
                let (made, result) = behead::<Made>(&bytes).ok_or(io::ErrorKind::InvalidData)?;
                let at = bytes.len() - result.len();
                return Ok(Ok((made, Bytes::from(bytes).slice(at..))));
            }
            Kind::Failed => return Ok(Err(Failure::Wrong(String::from_utf8_lossy(&bytes).into_owned()))),
            Kind::Job | Kind::File | Kind::NoFile => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
