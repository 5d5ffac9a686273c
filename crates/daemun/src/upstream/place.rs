//! A request's place at a server: counted, timed, and given back however the request ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::circuit::Change;
use super::group::{Group, Serving};
use super::multiplexed::Slot;
use super::server::{Hungry, Server, lock};
use super::socket::Connection;

/// A request's place at a server. Dropping it gives the place to the next.
pub struct Place {
    group: Arc<Group>,
    serving: Arc<Serving>,
    server: Arc<Server>,
    /// Whether this request finds out how the server is.
    is_probe: bool,
    is_concluded: bool,
    begun: Instant,
}

/// Which kept connections may be used for a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reuse {
    /// None.
    Never,
    /// Those of which the kernel says at this moment that nothing came, no end either: the request can be sent once.
    Certain,
    /// Also those of which the event loop knows nothing else: should one have ended just now, the request is sent again.
    Likely,
}

/// Why one try came to nothing.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// Whether the server may have seen some of the request.
    pub sent: bool,
    /// Whether some of an answer came.
    pub received: bool,
    /// What an operator reads.
    pub message: String,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FailureKind {
    /// There is no connection.
    Connect,
    /// It took too long.
    Timeout,
    /// The connection broke, or what came over it is no answer.
    Broken,
    /// The client's body ended before its time.
    Client,
}

impl Failure {
    /// Nothing of the request has left us.
    pub fn unsent(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, sent: false, received: false, message: message.into() }
    }
}

impl Place {
    pub(super) fn enter(group: &Arc<Group>, serving: &Arc<Serving>, at: usize, now: Instant) -> Option<Self> {
        let server = &serving.servers[at];
        if !server.enter() {
            return None;
        }
        let is_probe = lock(&server.state.circuit).begin(now);
        server.state.requests.fetch_add(1, Ordering::Relaxed);
        let (group, serving, server) = (Arc::clone(group), Arc::clone(serving), Arc::clone(server));
        Some(Self { group, serving, server, is_probe, is_concluded: false, begun: now })
    }

    /// The server.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// The settings that it was chosen by.
    pub fn serving(&self) -> &Arc<Serving> {
        &self.serving
    }

    /// A connection: one that was kept, if it may be, else a new one.
    pub async fn connect(&self, reuse: Reuse) -> Result<Connection, Failure> {
        let settings = &self.serving.settings;
        if let Some(connection) = self.server.state.take(settings.keep_alive_timeout, reuse) {
            return Ok(connection);
        }
        // Connecting is rare, and its state large: every request would carry the room for it.
        Box::pin(self.within(Connection::open(&self.server.settings.address, self.server.secured.as_ref()))).await
    }

    /// A place on a connection that requests share: one that was there, if `may_reuse`, else a new one.
    pub async fn slot(&self, may_reuse: bool) -> Result<Slot, Failure> {
        if may_reuse && let Some(slot) = self.server.state.slot() {
            return Ok(slot);
        }
        Box::pin(self.within(self.server.state.open(&self.server))).await
    }

    /// A connection for a FastCGI request: a part of one that requests share, where the server takes several on one and
    /// kept ones may be used; else as [`Place::connect`]. Where a server is to wait for its clients (`response_buffering = false`) each
    /// of them has its own.
    pub async fn converse(&self, reuse: Reuse, has_body: bool) -> Result<Connection, Failure> {
        let (settings, abilities) = (&self.serving.settings, &self.server.state.abilities);
        let may_share = reuse != Reuse::Never && abilities.shares(has_body);
        if may_share && settings.keep_alive > 0 && settings.response_buffering.is_some() {
            return Box::pin(self.within(self.server.state.share(&self.server))).await;
        }
        self.connect(reuse).await
    }

    /// What comes of connecting, within `connect_timeout`.
    async fn within<T>(&self, open: impl Future<Output = io::Result<T>>) -> Result<T, Failure> {
        let (settings, name) = (&self.serving.settings, self.server.name());
        match tokio::time::timeout(settings.connect_timeout, open).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => {
                Err(Failure::unsent(FailureKind::Connect, format!("cannot connect to {name}: {}", chain(&error))))
            }
            Err(_) => {
                let seconds = settings.connect_timeout.as_secs_f32();
                let message = format!("no connection to {name} within {seconds} s (`connect_timeout`)");
                Err(Failure::unsent(FailureKind::Timeout, message))
            }
        }
    }

    /// Its request waits for its server to accept it, and others keep connections to it.
    pub fn hungers(&self) -> Hungry {
        Hungry::new(&self.server)
    }

    /// Keeps a connection whose answer was read to its end.
    pub fn keep(&self, connection: Connection) {
        let settings = &self.serving.settings;
        let is_whole = connection.input.is_empty() && connection.shared().is_none();
        if is_whole && !self.server.state.is_drained.load(Ordering::Relaxed) {
            self.server.state.keep(connection, settings.keep_alive);
        }
    }

    /// The server has answered.
    pub fn succeed(&mut self) {
        self.is_concluded = true;
        self.server.state.hear();
        if self.serving.settings.slow.is_some() {
            self.server.state.times.add(self.begun.elapsed());
        }
        let change = lock(&self.server.state.circuit).succeed();
        if change != Change::None {
            self.group.report(&self.server, change);
        }
    }

    /// It has not.
    pub fn fail(&mut self) {
        self.is_concluded = true;
        self.server.state.hear();
        self.server.state.failures.fetch_add(1, Ordering::Relaxed);
        let settings = &self.serving.settings;
        let change = lock(&self.server.state.circuit).fail(Instant::now(), settings.failures, settings.eject);
        self.group.report(&self.server, change);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_probe && !self.is_concluded {
            lock(&self.server.state.circuit).abandon(Instant::now());
        }
        self.server.state.active.fetch_sub(1, Ordering::SeqCst);
        self.group.free();
    }
}

/// An error with its causes: a TLS failure says its reason only there.
fn chain(error: &io::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
