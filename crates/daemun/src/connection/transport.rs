//! The socket under a connection.

use std::future::Future;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWrite, Interest};
use tokio::net::{TcpStream, UnixStream};

/// The socket under a connection.
pub enum Transport {
    /// Over TCP. The listener has set `TCP_NODELAY`: answers are written whole.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// The same call on whichever socket it is.
macro_rules! on {
    ($self:expr, $socket:ident => $call:expr) => {
        match $self {
            Transport::Tcp($socket) => $call,
            Transport::Unix($socket) => $call,
        }
    };
}

impl Transport {
    /// Whether there is something to read. Without a system call where the last read took less than it could.
    pub(super) fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self, socket => socket.poll_read_ready(context))
    }

    /// Appends to `input` as much as fits into its capacity; 0 bytes are the end.
    pub(super) fn poll_read(&mut self, context: &mut Context<'_>, input: &mut BytesMut) -> Poll<io::Result<usize>> {
        on!(self, socket => pin!(socket.read_buf(input)).poll(context))
    }

    /// Writes the beginning of `parts`.
    pub(super) fn poll_write(&mut self, context: &mut Context<'_>, parts: [&[u8]; 2]) -> Poll<io::Result<usize>> {
        match parts {
            [one, []] | [[], one] => on!(self, socket => Pin::new(socket).poll_write(context, one)),
            both => {
                let slices = both.map(IoSlice::new);
                on!(self, socket => Pin::new(socket).poll_write_vectored(context, &slices))
            }
        }
    }

    /// Whether a write would take something.
    pub(super) fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self, socket => socket.poll_write_ready(context))
    }

    /// Sends `head` with more to come at once, so that it shares a packet with the file behind it.
    pub(super) fn try_write_more(&self, head: &[u8]) -> io::Result<usize> {
        let flags = rustix::net::SendFlags::MORE | rustix::net::SendFlags::NOSIGNAL;
        on!(self, socket => socket.try_io(Interest::WRITABLE, || Ok(rustix::net::send(socket, head, flags)?)))
    }

    /// Sends up to `length` bytes of `file` from `offset`; 0 bytes are the file's end.
    /// A page that is not in memory is read from the disk here, in the event loop: whoever sends looks first (`cold`).
    pub(super) fn try_sendfile(&self, file: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<usize> {
        let send = |socket: BorrowedFd<'_>| {
            let mut at = offset;
            Ok(rustix::fs::sendfile(socket, file, Some(&mut at), length)?)
        };
        on!(self, socket => socket.try_io(Interest::WRITABLE, || send(std::os::fd::AsFd::as_fd(socket))))
    }

    /// Whether bytes lie in the socket that the event loop has not told of yet. A system call: not for every request.
    pub(super) fn has_bytes(&self) -> bool {
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        let peeked = on!(self, socket => rustix::net::recv(socket, &mut [0_u8; 1][..], flags));
        peeked.is_ok_and(|(received, _)| received > 0)
    }

    /// Has the close tear the connection down, so that the client sees that something is missing.
    pub(super) fn reset_on_close(&self) {
        if let Self::Tcp(socket) = self {
            // Refused only where there is no connection left that could be torn down.
            let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
        }
    }

    /// Tells the client that nothing more comes.
    pub(super) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self, socket => Pin::new(socket).poll_shutdown(context))
    }
}
