//! The front's end: starts programs by the launcher and hears of their ends.

use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::message::{FromLauncher, MAX_PACKET, MAX_WORDS, Start, decode_from_launcher, encode_end, encode_start};
use crate::sys::{self, Step};

/// How long a request waits for a launcher that is being started again.
const LAUNCHER_DEADLINE: Duration = Duration::from_secs(5);

/// How a program ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ending {
    /// Its exit code.
    pub code: Option<i32>,
    /// The signal that killed it. Without a code too: nobody knows, because the launcher is gone.
    pub signal: Option<i32>,
    /// Whether others of its process group go on.
    pub left_others: bool,
}

/// Why a program does not run.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A step of the start failed.
    #[error("{error} ({step:?})")]
    Start {
        /// Which.
        step: Step,
        /// Why.
        error: io::Error,
    },
    /// Arguments and environment are longer than a packet can be.
    #[error("arguments and environment have more than {MAX_PACKET} bytes")]
    TooLong,
    /// There is no launcher, and none came in time.
    #[error("there is no launcher")]
    NoLauncher,
}

/// Starts programs. Shared by all routes; the launcher behind it may change.
pub struct Client {
    connection: watch::Sender<Option<Arc<Connection>>>,
    next: AtomicU64,
    home: Handle,
}

/// A socket to a launcher, and who waits for word from it.
struct Connection {
    socket: AsyncFd<OwnedFd>,
    waiting: Mutex<HashMap<u64, Waiting>>,
    closed: AtomicBool,
}

/// Who waits for the end of a program, and what is held until then whether anybody waits or not: its place.
struct Waiting {
    sender: oneshot::Sender<Result<Ending, LaunchError>>,
    _held: Box<dyn Any + Send>,
}

/// A program that was started. Dropping it ends the program with its whole process group.
pub struct Running {
    connection: Arc<Connection>,
    id: u64,
    ending: Option<oneshot::Receiver<Result<Ending, LaunchError>>>,
    left_others: bool,
}

impl Client {
    /// A client without a launcher yet; what it hears is dealt with on the event loop `home`.
    pub fn new(home: Handle) -> Arc<Self> {
        Arc::new(Self { connection: watch::Sender::new(None), next: AtomicU64::new(1), home })
    }

    /// From now on programs are started through this socket.
    pub fn connect(self: &Arc<Self>, socket: OwnedFd) -> io::Result<()> {
        let _entered = self.home.enter();
        let socket = sys::watched(socket, Interest::READABLE)?;
        let connection = Arc::new(Connection { socket, waiting: Mutex::default(), closed: AtomicBool::new(false) });
        self.home.spawn(listen(Arc::clone(&connection)));
        self.connection.send_replace(Some(connection));
        Ok(())
    }

    /// Starts a program with these as standard input, output and error. Whether it could be executed is told by its
    /// [ending](Running::ending). `held` is dropped when it has ended.
    pub async fn start(
        &self,
        start: &Start,
        standard: [BorrowedFd<'_>; 3],
        held: Box<dyn Any + Send>,
    ) -> Result<Running, LaunchError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let packet = encode_start(id, start);
        if packet.len() > MAX_PACKET {
            return Err(LaunchError::TooLong);
        }
        let connection = self.connected().await?;
        let (sender, receiver) = oneshot::channel();
        connection.waiting().insert(id, Waiting { sender, _held: held });
        let running = Running { connection, id, ending: Some(receiver), left_others: false };
        if packet::send(&running.connection.socket, &packet, &standard).await.is_err() {
            running.connection.waiting().remove(&id);
            return Err(LaunchError::NoLauncher);
        }
        Ok(running)
    }

    /// The launcher; one that is being started again is waited for.
    async fn connected(&self) -> Result<Arc<Connection>, LaunchError> {
        let alive = |connection: &Option<Arc<Connection>>| connection.clone().filter(|alive| !alive.is_closed());
        if let Some(connection) = alive(&self.connection.borrow()) {
            return Ok(connection);
        }
        let mut connections = self.connection.subscribe();
        let waiting = async {
            loop {
                if let Some(connection) = alive(&connections.borrow_and_update()) {
                    return Ok(connection);
                }
                connections.changed().await.map_err(|_| LaunchError::NoLauncher)?;
            }
        };
        tokio::time::timeout(LAUNCHER_DEADLINE, waiting).await.unwrap_or(Err(LaunchError::NoLauncher))
    }
}

impl Connection {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        // A panic while the lock was held left plain data behind: it can be used.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the launcher is gone.
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Says that a run is to end; the few bytes nearly always fit at once.
    fn end(self: &Arc<Self>, id: u64, gently: bool) {
        let packet = encode_end(id, gently);
        if packet::try_send(&self.socket, &packet, &[]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            && let Ok(handle) = Handle::try_current()
        {
            let connection = Arc::clone(self);
            handle.spawn(async move {
                // A launcher that is gone has ended what it had started, or lets it go on: nobody can tell it.
                let _ = packet::send(&connection.socket, &packet, &[]).await;
            });
        }
    }
}

/// Takes the launcher's word until it is gone; whoever still waits then hears that nobody knows.
async fn listen(connection: Arc<Connection>) {
    let mut buffer = [0; MAX_WORDS];
    while let Ok((length, _)) = packet::receive(&connection.socket, &mut buffer).await {
        if length == 0 {
            break;
        }
        for word in decode_from_launcher(&buffer[..length]) {
            let (id, word) = match word {
                FromLauncher::Ended { id, code, signal, left_others } => (id, Ok(Ending { code, signal, left_others })),
                FromLauncher::Failed { id, step, number } => {
                    (id, Err(LaunchError::Start { step, error: io::Error::from_raw_os_error(number) }))
                }
            };
            if let Some(waiting) = connection.waiting().remove(&id) {
                // Nobody may be interested any more.
                let _ = waiting.sender.send(word);
            }
        }
    }
    connection.closed.store(true, Ordering::Release);
    connection.waiting().clear();
}

impl Running {
    /// How it ended. To be asked once.
    pub async fn ending(&mut self) -> Result<Ending, LaunchError> {
        let Some(receiver) = &mut self.ending else { return Ok(UNKNOWN) };
        let ending = receiver.await.unwrap_or(Ok(UNKNOWN));
        self.ending = None;
        self.left_others = ending.as_ref().is_ok_and(|ending| ending.left_others);
        ending
    }

    /// Whether its end has been told.
    pub fn has_ended(&self) -> bool {
        self.ending.is_none()
    }
}

/// The launcher is gone.
const UNKNOWN: Ending = Ending { code: None, signal: None, left_others: false };

impl Drop for Running {
    fn drop(&mut self) {
        if self.ending.is_some() || self.left_others {
            self.connection.end(self.id, self.ending.is_none());
        }
    }
}

/// Packets with descriptors over a socket that keeps their bounds.
pub(super) mod packet {
    use std::io::{self, IoSlice, IoSliceMut};
    use std::mem::MaybeUninit;
    use std::os::fd::{BorrowedFd, OwnedFd};
    use std::time::Duration;

    use rustix::net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    use crate::sys;

    /// Descriptors that come with a packet.
    const MOST: usize = 3;

    /// How long after a call that failed for want of memory it is made again.
    const PAUSE: Duration = Duration::from_millis(10);

    /// The next packet; 0 bytes when the other end is closed. That the kernel has no memory for a moment is no end.
    pub(in crate::launcher) async fn receive(
        socket: &AsyncFd<OwnedFd>,
        buffer: &mut [u8],
    ) -> io::Result<(usize, Vec<OwnedFd>)> {
        loop {
            let mut ready = socket.readable().await?;
            match ready.try_io(|socket| try_receive(socket.get_ref(), buffer)) {
                Ok(Err(error)) if matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::ENOBUFS | libc::EINTR)) => {
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(result) => return result,
                Err(_) => {}
            }
        }
    }

    fn try_receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let message = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
        let mut descriptors = Vec::with_capacity(MOST);
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = part {
                descriptors.extend(received);
            }
        }
        if message.flags.contains(ReturnFlags::CTRUNC) {
            // Out of descriptors: what did arrive is of no use.
            descriptors.clear();
        }
        Ok((message.bytes, descriptors))
    }

    /// Sends a packet, waiting for room.
    pub(in crate::launcher) async fn send(
        socket: &AsyncFd<OwnedFd>,
        packet: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        match try_send(socket, packet, descriptors) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
        // The socket itself is watched for what comes alone, and a packet hardly ever finds no room.
        let watched = sys::watched(socket.get_ref().try_clone()?, Interest::WRITABLE)?;
        loop {
            let mut ready = watched.writable().await?;
            if let Ok(result) = ready.try_io(|_| try_send(socket, packet, descriptors)) {
                return result;
            }
        }
    }

    /// Sends a packet if there is room for it.
    pub(in crate::launcher) fn try_send(
        socket: &AsyncFd<OwnedFd>,
        packet: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::net::sendmsg(socket.get_ref(), &[IoSlice::new(packet)], &mut control, flags)?;
        Ok(())
    }
}
