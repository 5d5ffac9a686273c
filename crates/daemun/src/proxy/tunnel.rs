//! A connection to a server that has left HTTP.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncReadExt, AsyncWrite};

use super::flow::Flow;
use crate::http::Tunnel;
use crate::upstream::{Connection, Place};

/// Bytes that are read at a time.
const READ: usize = 16 * 1024;

/// The server's end of a tunnel. It holds its place until it ends.
pub(super) struct Through {
    connection: Connection,
    place: Place,
    protocol: Bytes,
}

impl Through {
    pub(super) fn new(flow: Flow, protocol: Bytes) -> Self {
        Self { connection: flow.connection, place: flow.place, protocol }
    }
}

impl Tunnel for Through {
    fn protocol(&self) -> &[u8] {
        &self.protocol
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let Connection { socket, input, .. } = &mut self.connection;
        if input.is_empty() {
            input.reserve(READ);
            ready!(pin!(socket.read_buf(input)).poll(context))?;
        }
        Poll::Ready(Ok(input.split().freeze()))
    }

    fn poll_send(&mut self, context: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<()>> {
        while !bytes.is_empty() {
            let written = ready!(Pin::new(&mut self.connection.socket).poll_write(context, bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            bytes.advance(written);
        }
        Pin::new(&mut self.connection.socket).poll_flush(context)
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection.socket).poll_shutdown(context)
    }

    fn patience(&self) -> Duration {
        self.place.serving().settings.tunnel_timeout
    }
}
