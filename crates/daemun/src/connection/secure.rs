//! TLS over a socket.
//!
//! Whatever comes in is decrypted at once into the connection's own buffer, and nothing is kept here but a part of a
//! record: an idle connection holds a session, and no buffers. What could not be written is kept encrypted; the
//! connection writes no more until it is gone.

use std::cell::RefCell;
use std::io::{self, BufRead, IoSlice, Write};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use rustls::ServerConnection;

use super::transport::Transport;

/// Bytes that are read at once: two full records.
const SCRATCH_SIZE: usize = 34 * 1024;

/// Room for less than this is not worth a read.
const LEAST_READ: usize = 4 * 1024;

thread_local! {
    /// Where encrypted bytes lie between the socket and the session: one place for all connections of an event loop.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_SIZE]);
}

/// A socket with a session over it.
pub struct Secure {
    pub(super) socket: Transport,
    session: ServerConnection,
    is_closing: bool,
}

impl Secure {
    /// A session whose handshake goes on or is done.
    pub(super) fn new(socket: Transport, session: ServerConnection) -> Self {
        Self { socket, session, is_closing: false }
    }

    pub(super) fn session(&self) -> &ServerConnection {
        &self.session
    }

    /// Appends to `input` what has come; 0 bytes are the end.
    pub(super) fn poll_read(&mut self, task: &mut Context<'_>, input: &mut BytesMut) -> Poll<io::Result<usize>> {
        let before = input.len();
        let room = (input.capacity() - before).max(LEAST_READ);
        loop {
            let is_ended = ready!(self.poll_take(task, input, room))?;
            if is_ended || input.len() > before {
                return Poll::Ready(Ok(input.len() - before));
            }
        }
    }

    /// Reads once and gives it to the session, what it makes of it to `input`. True at the end.
    pub(super) fn poll_take(
        &mut self,
        task: &mut Context<'_>,
        input: &mut BytesMut,
        room: usize,
    ) -> Poll<io::Result<bool>> {
        ready!(self.socket.poll_read_ready(task))?;
        let taken = SCRATCH.with_borrow_mut(|scratch| {
            let room = room.min(scratch.len());
            let read = match self.socket.try_read(&mut scratch[..room]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                read => read?,
            };
            if read == 0 {
                return Ok(Some(true));
            }
            self.feed(&scratch[..read], input).map(Some)
        });
        match taken {
            // Asked again: the event loop now waits for the socket.
            Ok(None) => self.poll_take(task, input, room),
            Ok(Some(is_ended)) => {
                // Tickets, alerts, new keys: what the session has to say of its own goes out as far as it can.
                self.write_pending()?;
                Poll::Ready(Ok(is_ended))
            }
            Err(error) => {
                let _ = self.write_pending();
                Poll::Ready(Err(error))
            }
        }
    }

    /// Gives encrypted bytes to the session, and what it makes of them to `input`. True when the client has closed.
    pub(super) fn feed(&mut self, mut encrypted: &[u8], input: &mut BytesMut) -> io::Result<bool> {
        let mut is_ended = false;
        while !encrypted.is_empty() && !is_ended {
            self.session.read_tls(&mut encrypted)?;
            let state = self
                .session
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let mut left = state.plaintext_bytes_to_read();
            let mut reader = self.session.reader();
            while left > 0 {
                let part = reader.fill_buf()?;
                let length = part.len();
                input.extend_from_slice(part);
                reader.consume(length);
                left = left.saturating_sub(length.max(1));
            }
            is_ended = state.peer_has_closed();
        }
        Ok(is_ended)
    }

    /// Encrypts the beginning of `parts`, once what was encrypted before is written.
    pub(super) fn poll_write(&mut self, task: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(task))?;
        let taken = self.session.writer().write_vectored(parts)?;
        match self.poll_flush(task) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken)),
        }
    }

    /// Writes everything that is encrypted.
    pub(super) fn poll_flush(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.write_pending()? {
            ready!(self.socket.poll_write_ready(task))?;
        }
        Poll::Ready(Ok(()))
    }

    /// True when nothing is left.
    fn write_pending(&mut self) -> io::Result<bool> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Writing(&self.socket)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Says that nothing more comes, in TLS and below it.
    pub(super) fn poll_shutdown(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.is_closing, true) {
            self.session.send_close_notify();
        }
        ready!(self.poll_flush(task))?;
        self.socket.poll_shutdown(task)
    }
}

/// The socket as the session writes to it.
struct Writing<'a>(&'a Transport);

impl Write for Writing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads once from a socket without a session: the first bytes of a connection. An empty slice is the end.
pub(super) fn poll_first<T>(
    socket: &Transport,
    task: &mut Context<'_>,
    mut take: impl FnMut(&[u8]) -> T,
) -> Poll<io::Result<T>> {
    loop {
        ready!(socket.poll_read_ready(task))?;
        let taken: io::Result<T> = SCRATCH.with_borrow_mut(|scratch| {
            let read = socket.try_read(scratch)?;
            Ok(take(&scratch[..read]))
        });
        match taken {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            taken => return Poll::Ready(taken),
        }
    }
}
