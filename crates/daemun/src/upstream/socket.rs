//! A connection to a server, plain or through TLS, and whether it can be used again.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::settings::Address;
use super::shared::Stream;
use super::tls;
use crate::alarm::Alarm;

/// A connection to a server.
pub struct Connection {
    /// The socket.
    pub socket: Socket,
    /// What came in and was not yet understood.
    pub input: BytesMut,
    /// Its timer.
    pub alarm: Alarm,
    /// Whether a request went over it before.
    pub is_reused: bool,
}

/// Whichever socket it is.
pub enum Socket {
    /// Without TLS.
    Plain(Plain),
    /// Through TLS.
    Tls(Box<TlsStream<Plain>>),
    /// A part of a FastCGI connection that requests share. A write is of whole records.
    Shared(Stream),
}

/// A socket as the kernel gives it.
pub enum Plain {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// What a connection is made with.
#[derive(Clone)]
pub(super) struct Secured {
    pub(super) connector: TlsConnector,
    pub(super) name: rustls::pki_types::ServerName<'static>,
}

// === impl Connection ===

impl Connection {
    /// Connects. The caller sets the deadline.
    pub(super) async fn open(address: &Address, secured: Option<&Secured>) -> io::Result<Self> {
        let plain = match address {
            Address::Tcp(host, port) => {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let socket = TcpStream::connect((host, *port)).await?;
                socket.set_nodelay(true)?;
                Plain::Tcp(socket)
            }
            Address::Unix(path) => Plain::Unix(UnixStream::connect(path).await.map_err(explain)?),
        };
        let socket = match secured {
            None => Socket::Plain(plain),
            Some(secured) => {
                let stream = secured.connector.connect(secured.name.clone(), plain).await?;
                let agreed = stream.get_ref().1.alpn_protocol();
                if secured.connector.config().alpn_protocols.iter().any(|wanted| wanted == tls::HTTP2)
                    && agreed != Some(tls::HTTP2)
                {
                    return Err(io::Error::other("it does not agree to HTTP/2 (ALPN)"));
                }
                Socket::Tls(Box::new(stream))
            }
        };
        Ok(Self::over(socket, false))
    }

    pub(super) fn over(socket: Socket, is_reused: bool) -> Self {
        Self { socket, input: BytesMut::new(), alarm: Alarm::default(), is_reused }
    }

    /// The part of a connection that requests share, where it is one.
    pub fn shared(&self) -> Option<&Stream> {
        match &self.socket {
            Socket::Shared(stream) => Some(stream),
            Socket::Plain(_) | Socket::Tls(_) => None,
        }
    }

    /// Whether nothing has come since the last answer ended: no byte that nobody asked for, and no end. What the event loop
    /// was told is known without a system call; the kernel is asked where what came after that must count, too. One that is
    /// not clean is dropped, so that a byte may be taken to find out.
    pub(super) fn is_clean(&mut self, asks_kernel: bool) -> bool {
        if !self.input.is_empty() {
            return false;
        }
        match &mut self.socket {
            Socket::Plain(plain) => plain.is_quiet(asks_kernel),
            Socket::Tls(stream) => {
                let (plain, session) = stream.get_mut();
                let has_none = session.process_new_packets().is_ok_and(|state| state.plaintext_bytes_to_read() == 0);
                has_none && plain.is_quiet(asks_kernel)
            }
            // It was for one request.
            Socket::Shared(_) => false,
        }
    }
}

/// What keeps most people from a server on a Unix socket: it was made for its own user alone.
fn explain(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let text = format!(
        "{error}: who connects needs the right to write to the socket and to enter its folder, and we are user {user}, \
         group {group}; have its server make it with mode 0666 (gunicorn: --umask 0; uWSGI: --chmod-socket=666; php-fpm: \
         listen.mode)"
    );
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

// === impl Plain ===

impl Plain {
    /// Whether nothing is to be read, and no end.
    fn is_quiet(&self, asks_kernel: bool) -> bool {
        let byte = &mut [0_u8; 1][..];
        if !asks_kernel {
            let read = match self {
                Self::Tcp(socket) => socket.try_read(byte),
                Self::Unix(socket) => socket.try_read(byte),
            };
            return read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        }
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = match self {
            Self::Tcp(socket) => rustix::net::recv(socket, byte, flags),
            Self::Unix(socket) => rustix::net::recv(socket, byte, flags),
        };
        matches!(peeked, Err(rustix::io::Errno::AGAIN))
    }
}

// === impl Socket ===

impl AsyncRead for Plain {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(context, buffer),
            Self::Unix(socket) => Pin::new(socket).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Plain {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write(context, bytes),
            Self::Unix(socket) => Pin::new(socket).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write_vectored(context, parts),
            Self::Unix(socket) => Pin::new(socket).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(context),
            Self::Unix(socket) => Pin::new(socket).poll_shutdown(context),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(plain) => Pin::new(plain).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Shared(stream) => stream.poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(plain) => Pin::new(plain).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Shared(stream) => stream.poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(_) | Self::Shared(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(plain) => Pin::new(plain).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Shared(_) => Poll::Ready(Ok(())),
        }
    }
}
