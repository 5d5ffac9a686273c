//! Connections that many requests share at a time (HTTP/2, RFC 9113): kept for as long as somebody asks, and as many as
//! the streams that servers allow make necessary.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ::http::Request as WireRequest;
use bytes::Bytes;
use h2::client::{Builder, SendRequest};

use super::server::Server;
use super::socket::Connection;

/// Requests at a time over one connection, whatever the server allows: the bytes of all of them wait for one another.
const MOST_STREAMS: usize = 100;

/// Bytes of an answer that may be on their way to us, and of all answers of a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Bytes of a request that wait to be written, for each stream.
const SEND_BUFFER: usize = 64 * 1024;

/// Bytes of the fields of an answer.
const MAX_HEAD: u32 = 64 * 1024;

/// A connection that is open.
pub(super) struct Opened {
    sender: SendRequest<Bytes>,
    active: Arc<AtomicUsize>,
    /// It takes no more requests.
    is_over: Arc<AtomicBool>,
    /// The event loop that it lives in.
    shard: usize,
    /// When a request was last begun.
    used: Instant,
}

/// A place on such a connection. Dropping it gives it to the next.
pub struct Slot {
    /// Begins the request.
    pub sender: SendRequest<Bytes>,
    /// Whether the connection was there before.
    pub is_reused: bool,
    active: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
}

impl Slot {
    /// The connection is no good: nobody begins a request on it any more.
    pub fn condemn(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.active.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A place on one of these connections, if one has room.
pub(super) fn take(opened: &mut Vec<Opened>, shard: usize) -> Option<Slot> {
    opened.retain(|one| !one.is_over.load(Ordering::Relaxed));
    for one in opened.iter_mut().filter(|one| one.shard == shard) {
        let most = one.sender.current_max_send_streams().min(MOST_STREAMS);
        let grown = |active: usize| (active < most).then_some(active + 1);
        if one.active.fetch_update(Ordering::AcqRel, Ordering::Relaxed, grown).is_ok() {
            one.used = Instant::now();
            let (sender, active, is_over) = (one.sender.clone(), Arc::clone(&one.active), Arc::clone(&one.is_over));
            return Some(Slot { sender, is_reused: true, active, is_over });
        }
    }
    None
}

/// Forgets connections that have had nothing to do for so long; they end with their last request.
pub(super) fn sweep(opened: &mut Vec<Opened>, timeout: Duration) {
    opened.retain(|one| {
        let is_idle = one.active.load(Ordering::Acquire) == 0 && one.used.elapsed() >= timeout;
        !is_idle && !one.is_over.load(Ordering::Relaxed)
    });
}

/// Connects. The caller sets the deadline.
pub(super) async fn open(server: &Server, shard: usize) -> io::Result<(Opened, Slot)> {
    let connection = Connection::open(&server.settings.address, server.secured.as_ref()).await?;
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEAD)
        .max_send_buffer_size(SEND_BUFFER);
    let (sender, connection) = builder.handshake(connection.socket).await.map_err(io::Error::other)?;
    let (active, is_over) = (Arc::new(AtomicUsize::new(1)), Arc::new(AtomicBool::new(false)));
    let over = Arc::clone(&is_over);
    tokio::spawn(async move {
        // Its streams say what was wrong.
        let _ = connection.await;
        over.store(true, Ordering::Relaxed);
    });
    let slot =
        Slot { sender: sender.clone(), is_reused: false, active: Arc::clone(&active), is_over: Arc::clone(&is_over) };
    Ok((Opened { sender, active, is_over, shard, used: Instant::now() }, slot))
}

/// Asks once for `path`, on a connection of its own: status and the first bytes of the body.
pub(super) async fn get(server: &Server, host: &str, path: &str, most: usize) -> io::Result<(u16, Vec<u8>)> {
    let (_, slot) = open(server, 0).await?;
    let scheme = if server.scheme().is_secure() { "https" } else { "http" };
    let request = WireRequest::get(format!("{scheme}://{host}{path}")).header("user-agent", "daemun-health");
    let request = request.body(()).map_err(io::Error::other)?;
    let mut sender = slot.sender.clone().ready().await.map_err(io::Error::other)?;
    let (response, _) = sender.send_request(request, true).map_err(io::Error::other)?;
    let (head, mut body) = response.await.map_err(io::Error::other)?.into_parts();
    let mut read = Vec::new();
    while read.len() < most
        && let Some(bytes) = body.data().await
    {
        let bytes = bytes.map_err(io::Error::other)?;
        body.flow_control().release_capacity(bytes.len()).map_err(io::Error::other)?;
        read.extend_from_slice(&bytes);
    }
    Ok((head.status.as_u16(), read))
}
