//! What a connection may cost.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Deadlines and caps of every connection.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Limits {
    /// Time for the whole head, from its first byte (for a new connection: from accept). Also the longest time in
    /// which a body may bring nothing, and in which a client may take nothing of a response. Default 10 s: a slow
    /// mobile link sends a head in one.
    pub header_timeout: Duration,
    /// How long an idle connection is kept. Default 75 s: longer than the 60 s of common balancers, which otherwise
    /// reuse a connection that was just closed.
    pub keep_alive: Duration,
    /// Bytes of a head, request line included. Default 64 KiB.
    pub max_head: usize,
    /// Bytes of a request line. Default 16 KiB; more is a 414.
    pub max_request_line: usize,
    /// Fields in a head or a trailer section. Default 100, as nginx and Apache; more is a 431.
    pub max_fields: usize,
    /// Bytes of a request body, unless a route says otherwise. Default 100 MiB; more is a 413.
    pub max_body: u64,
    /// Unread body bytes that are read and dropped to keep a connection alive. Default 256 KiB; beyond it the
    /// connection is closed.
    pub max_drain: u64,
    /// Connections at a time over all listeners. Default 10,000; beyond it a client hears 503.
    pub max_connections: usize,
    /// Connections at a time of one client: an IPv4 address, or the /64 of an IPv6 address. Trusted proxies and Unix
    /// sockets have no such limit. Default: [`Limits::CONNECTIONS_PER_CLIENT`], and none for clients on this machine.
    pub max_connections_per_client: Option<usize>,
}

impl Limits {
    /// Whole offices sit behind one address, yet one client cannot take all.
    pub const CONNECTIONS_PER_CLIENT: usize = 1_000;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            max_head: 64 * 1024,
            max_request_line: 16 * 1024,
            max_fields: 100,
            max_body: 100 * 1024 * 1024,
            max_drain: 256 * 1024,
            max_connections: 10_000,
            max_connections_per_client: None,
        }
    }
}
