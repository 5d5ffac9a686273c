//! The socket under a connection.

use std::future::Future;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::{Pin, pin};
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use rustix::net::SendFlags;
use tokio::io::{AsyncReadExt, AsyncWrite, Interest};
use tokio::net::{TcpStream, UnixStream};

use super::secure::Secure;
use crate::http::{BodyRoom, LaidPiece};

/// The socket under a connection.
pub enum Transport {
    /// Over TCP. The listener has set `TCP_NODELAY`: answers are written whole.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Through TLS over one of the two.
    Tls(Box<Secure>),
}

/// The same call on whichever socket it is; another one where TLS lies over it.
macro_rules! on {
    ($self:expr, $socket:ident => $call:expr, $secure:ident => $other:expr) => {
        match $self {
            Transport::Tcp($socket) => $call,
            Transport::Unix($socket) => $call,
            Transport::Tls($secure) => $other,
        }
    };
}

impl Transport {
    /// Whether there is something to read. Without a system call where the last read took less than it could.
    pub(super) fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self, socket => socket.poll_read_ready(context), secure => secure.socket.poll_read_ready(context))
    }

    /// Appends to `input` as much as fits into its capacity (through TLS up to a record more); 0 bytes are the end.
    pub(super) fn poll_read(&mut self, context: &mut Context<'_>, input: &mut BytesMut) -> Poll<io::Result<usize>> {
        on!(self, socket => pin!(socket.read_buf(input)).poll(context), secure => secure.poll_read(context, input))
    }

    /// Receives into `room` the next `most` bytes of a body at most, and what comes after it into `beyond`; 0 bytes are
    /// the end.
    pub(super) fn poll_receive(
        &self,
        context: &mut Context<'_>,
        (room, most): (&dyn BodyRoom, usize),
        beyond: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_read_ready(context))?;
            let mut last = 0;
            let mut receive = |socket: BorrowedFd<'_>| match room.receive(socket, most, beyond)? {
                // That was all there is: said so, the next one who reads does not have to ask the kernel.
                bytes if bytes > 0 && bytes < most + beyond.len() => {
                    last = bytes;
                    Err(io::ErrorKind::WouldBlock.into())
                }
                bytes => Ok(bytes),
            };
            let received = on!(self, socket => socket.try_io(Interest::READABLE, || receive(socket.as_fd())), _secure => Err(io::ErrorKind::Unsupported.into()));
            match received {
                Err(_) if last > 0 => return Poll::Ready(Ok(last)),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                received => return Poll::Ready(received),
            }
        }
    }

    /// Writes the beginning of `parts`.
    pub(super) fn poll_write(&mut self, context: &mut Context<'_>, parts: [&[u8]; 2]) -> Poll<io::Result<usize>> {
        match parts {
            [one, []] | [[], one] => {
                on!(self, socket => Pin::new(socket).poll_write(context, one), secure => secure.poll_write(context, &[IoSlice::new(one)]))
            }
            both => {
                let slices = both.map(IoSlice::new);
                on!(self, socket => Pin::new(socket).poll_write_vectored(context, &slices), secure => secure.poll_write(context, &slices))
            }
        }
    }

    /// Writes the beginning of `before`, `piece` and `after`, where the kernel can do that by itself.
    pub(super) fn poll_send_laid(
        &self,
        context: &mut Context<'_>,
        before: &[u8],
        piece: &dyn LaidPiece,
        after: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(context))?;
            let write = |socket: BorrowedFd<'_>| piece.send(socket, before, after);
            let sent = on!(self, socket => socket.try_io(Interest::WRITABLE, || write(socket.as_fd())), _secure => Err(io::ErrorKind::Unsupported.into()));
            match sent {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    /// Whether everything that was written is in the socket: TLS keeps records that it did not take.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(secure) => secure.poll_flush(context),
        }
    }

    /// Whether the socket has taken something although no write was ready: TLS writes in records.
    pub(super) fn took(&mut self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => false,
            Self::Tls(secure) => secure.took(),
        }
    }

    /// Whether a write would take something.
    pub(super) fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self, socket => socket.poll_write_ready(context), secure => secure.socket.poll_write_ready(context))
    }

    /// Whether the kernel can send files by itself, and receive to where a handler wants it: there is no TLS between.
    pub(super) fn is_plain(&self) -> bool {
        !matches!(self, Self::Tls(_))
    }

    /// Sends `head` with more to come at once, so that it shares a packet with the file behind it: a fifth of the
    /// processor time of 100 KiB. Under BBR, which paces packets by their size, it would cost half as much again
    /// instead, so there the head goes ahead.
    pub(super) fn try_write_more(&self, head: &[u8]) -> io::Result<usize> {
        let more = if self.is_paced() { SendFlags::empty() } else { SendFlags::MORE };
        let flags = more | SendFlags::NOSIGNAL;
        let send = |socket: BorrowedFd<'_>| Ok(rustix::net::send(socket, head, flags)?);
        on!(self, socket => socket.try_io(Interest::WRITABLE, || send(socket.as_fd())), _secure => Err(io::ErrorKind::Unsupported.into()))
    }

    /// Whether packets are paced. The system's choice for all connections, so the first one is asked.
    fn is_paced(&self) -> bool {
        static PACED: OnceLock<bool> = OnceLock::new();
        let Self::Tcp(socket) = self else { return false };
        *PACED.get_or_init(|| rustix::net::sockopt::tcp_congestion(socket).is_ok_and(|name| name.starts_with("bbr")))
    }

    /// Sends up to `length` bytes of `file` from `offset`; 0 bytes are the file's end.
    /// A page that is not in memory is read from the disk here, in the event loop: whoever sends looks first (`cold`).
    pub(super) fn try_sendfile(&self, file: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<usize> {
        let send = |socket: BorrowedFd<'_>| {
            let mut at = offset;
            Ok(rustix::fs::sendfile(socket, file, Some(&mut at), length)?)
        };
        on!(self, socket => socket.try_io(Interest::WRITABLE, || send(socket.as_fd())), _secure => Err(io::ErrorKind::Unsupported.into()))
    }

    /// Whether bytes lie in the socket that the event loop has not told of yet. A system call: not for every request.
    pub(super) fn has_bytes(&self) -> bool {
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        let peeked = on!(self, socket => rustix::net::recv(socket, &mut [0_u8; 1][..], flags), secure => return secure.socket.has_bytes());
        peeked.is_ok_and(|(received, _)| received > 0)
    }

    /// Has the close tear the connection down, so that the client sees that something is missing.
    pub(super) fn reset_on_close(&self) {
        match self {
            // Refused only where there is no connection left that could be torn down.
            Self::Tcp(socket) => drop(rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO))),
            Self::Unix(_) => {}
            Self::Tls(secure) => secure.socket.reset_on_close(),
        }
    }

    /// Tells the client that nothing more comes.
    pub(super) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self, socket => Pin::new(socket).poll_shutdown(context), secure => secure.poll_shutdown(context))
    }

    /// Reads what is there, without waiting.
    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        on!(self, socket => socket.try_read(buffer), _secure => Err(io::ErrorKind::Unsupported.into()))
    }

    /// Writes what fits, without waiting.
    pub(super) fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        on!(self, socket => socket.try_write_vectored(parts), _secure => Err(io::ErrorKind::Unsupported.into()))
    }
}
