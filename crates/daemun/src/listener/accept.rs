//! Accepting, by the front: a permit, then accept, then the connection is somebody else's.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// First pause after descriptors or memory have run out; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// Longest pause: how late a recovered server may notice.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A listening socket on an event loop.
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// Unix.
    Unix(UnixListener),
}

/// A fresh connection.
pub enum Accepted {
    /// TCP, with the client's address.
    Tcp(TcpStream, SocketAddr),
    /// Unix.
    Unix(UnixStream),
}

impl Listener {
    /// Takes a bound socket onto the event loop that this is called on.
    pub fn from_socket(socket: OwnedFd) -> io::Result<Self> {
        let address = rustix::net::getsockname(&socket)?;
        if SocketAddr::try_from(address).is_ok() {
            Ok(Self::Tcp(TcpListener::from_std(socket.into())?))
        } else {
            Ok(Self::Unix(UnixListener::from_std(socket.into())?))
        }
    }

    /// The address that it listens on; `None` for a Unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, client) = listener.accept().await?;
                // Answers are written whole; waiting for more to send only delays them.
                stream.set_nodelay(true)?;
                Ok(Accepted::Tcp(stream, client))
            }
            Self::Unix(listener) => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }
}

/// Accepts until `stopping` turns true; then takes what is queued already, so that nobody who has connected is reset.
///
/// Each connection holds a permit of `permits` for as long as it lives; one for which there is none left is `refused`.
/// No error ends the loop: a connection that is gone before it was accepted is skipped, and when descriptors have run
/// out there is a pause, during which `complain` has said so once.
pub async fn accept(
    listener: Listener,
    permits: Arc<Semaphore>,
    mut stopping: watch::Receiver<bool>,
    (serve, refuse): (impl Fn(Accepted, OwnedSemaphorePermit), impl Fn(Accepted)),
    complain: impl Fn(&io::Error),
) {
    let take = |accepted| match Arc::clone(&permits).try_acquire_owned() {
        Ok(permit) => serve(accepted, permit),
        Err(_) => refuse(accepted),
    };
    let mut pause = FIRST_PAUSE;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok(accepted) => {
                pause = FIRST_PAUSE;
                take(accepted);
            }
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                if pause == FIRST_PAUSE {
                    complain(&error);
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
    while let Some(Ok(accepted)) = now_or_never(listener.accept()).await {
        take(accepted);
    }
}

/// What the future gives without waiting.
async fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        std::task::Poll::Ready(value) => std::task::Poll::Ready(Some(value)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | InvalidInput | NotConnected)
}
