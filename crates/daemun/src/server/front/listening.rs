//! The accept loops of the front.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use crate::connection::{self, Context, Limits, Transport};
use crate::http::proxy_protocol::{self, NoHeader, Told};
use crate::http::{Endpoint, Scheme};
use crate::listener::accept::{Accepted, Listener, accept};
use crate::listener::{Address, Clients, ListenerSettings, Protocol, refuse};
use crate::telemetry::Seldom;
use crate::telemetry::metrics;
use crate::tls::Certificates;

/// Every address that is being listened on, and the connections that came of it.
pub(super) struct Listening {
    addresses: HashMap<Address, watch::Sender<bool>>,
    room: Arc<Room>,
    limit: usize,
    certificates: Arc<ArcSwap<Certificates>>,
}

/// What all connections share that one of them may find missing.
struct Room {
    permits: Arc<Semaphore>,
    clients: Arc<Clients>,
    /// Refusals that are being written.
    refusing: Arc<Semaphore>,
    too_many: Seldom,
    too_many_of_one: Seldom,
    bad_header: Seldom,
}

/// Refusals at a time that are said in words. In a flood the others are closed as they come.
const REFUSALS: usize = 64;

/// How long a balancer may take to say who its client is: it does so with the first packet.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);

impl Listening {
    pub(super) fn new(limit: usize, certificates: Arc<ArcSwap<Certificates>>) -> Self {
        let room = Room {
            permits: Arc::new(Semaphore::new(limit)),
            clients: Arc::default(),
            refusing: Arc::new(Semaphore::new(REFUSALS)),
            too_many: Seldom::default(),
            too_many_of_one: Seldom::default(),
            bad_header: Seldom::default(),
        };
        Self { addresses: HashMap::new(), room: Arc::new(room), limit, certificates }
    }

    /// Connections that are open.
    pub(super) fn connections(&self) -> usize {
        self.limit.saturating_sub(self.room.permits.available_permits())
    }

    /// Whether a socket that was told to stop is still being looked at: what it takes then is a connection too.
    pub(super) fn is_accepting(&self) -> bool {
        self.addresses.values().any(|stopping| stopping.receiver_count() > 0)
    }

    /// Stops accepting everywhere.
    pub(super) fn stop(&mut self) {
        for stopping in self.addresses.values() {
            stopping.send_replace(true);
        }
    }

    /// Begins to accept on addresses that are new and stops on those that are gone. `sockets` are those of each
    /// listener; for an address that lives on they are copies of what we have.
    pub(super) fn update(
        &mut self,
        listeners: &[(ListenerSettings, Address, usize)],
        sockets: Vec<Vec<OwnedFd>>,
        event_loops: &[Handle],
        context: &Arc<Context>,
    ) {
        let limit = context.serving.load().limits.max_connections;
        if limit > self.limit {
            self.room.permits.add_permits(limit - self.limit);
            self.limit = limit;
        }
        for ((settings, address, _), sockets) in listeners.iter().zip(sockets) {
            if self.addresses.contains_key(address) {
                continue;
            }
            let (stopping, stopped) = watch::channel(false);
            let alone = sockets.len() == 1;
            for (number, socket) in sockets.into_iter().enumerate() {
                // One socket for all: its accept loop hands connections out in turn.
                let targets = if alone { event_loops.to_vec() } else { Vec::new() };
                let (room, context) = (Arc::clone(&self.room), Arc::clone(context));
                let certificates = settings.tls.then(|| Arc::clone(&self.certificates));
                let expects_header = settings.proxy_protocol;
                let protocol = settings.protocol;
                let place = Place { server: None, expects_header, certificates, protocol, room, context };
                let accepting = AcceptLoop { place, targets };
                event_loops[number % event_loops.len()].spawn(accepting.run(socket, stopped.clone()));
            }
            self.addresses.insert(address.clone(), stopping);
        }
        self.addresses.retain(|address, stopping| {
            let stays = listeners.iter().any(|(_, other, _)| other == address);
            if !stays {
                stopping.send_replace(true);
            }
            stays
        });
    }
}

/// When a socket that could not be accepted from is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// One socket's loop.
struct AcceptLoop {
    place: Place,
    targets: Vec<Handle>,
}

/// What a connection needs to know of the listener that it came through.
#[derive(Clone)]
struct Place {
    server: Option<SocketAddr>,
    /// Whether trusted proxies begin with a PROXY header.
    expects_header: bool,
    /// What is shown, where clients speak TLS.
    certificates: Option<Arc<ArcSwap<Certificates>>>,
    /// What is spoken.
    protocol: Protocol,
    room: Arc<Room>,
    context: Arc<Context>,
}

impl AcceptLoop {
    async fn run(mut self, socket: OwnedFd, mut stopped: watch::Receiver<bool>) {
        let context = Arc::clone(&self.place.context);
        let listener = loop {
            match socket.try_clone().and_then(Listener::from_socket) {
                Ok(listener) => break listener,
                Err(error) => context.errors.error(format_args!("cannot accept yet: {error}; it is tried again")),
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                _ = stopped.wait_for(|stop| *stop) => return,
            }
        };
        drop(socket);
        self.place.server = listener.address();
        let turn = AtomicUsize::new(0);
        let serve = |accepted, permit| {
            if self.targets.len() > 1 {
                let target = &self.targets[turn.fetch_add(1, Ordering::Relaxed) % self.targets.len()];
                hand_over(target, accepted, self.place.clone(), permit);
            } else {
                tokio::spawn(self.place.clone().serve(accepted, permit));
            }
        };
        let refuse = |accepted| {
            if let Some(times) = self.place.room.too_many.happened() {
                let limit = context.serving.load().limits.max_connections;
                context.errors.warning(format_args!(
                    "{times} connections were refused with 503: {limit} are open (`max_connections` in [server])"
                ));
            }
            self.place.refuse(accepted);
        };
        let complain = |error: &io::Error| {
            context.errors.error(format_args!("accepting pauses: {error} (limit of open files: `ulimit -n`)"));
        };
        let permits = Arc::clone(&self.place.room.permits);
        accept(listener, permits, stopped, (serve, refuse), complain).await;
    }
}

impl Place {
    /// Serves a connection on the event loop that this runs on.
    async fn serve(self, accepted: Accepted, permit: OwnedSemaphorePermit) {
        let (mut stream, peer) = match accepted {
            Accepted::Tcp(stream, peer) => (stream, peer),
            Accepted::Unix(mut stream) => {
                let told = if self.expects_header {
                    self.header(&mut stream, &"a Unix socket").await
                } else {
                    Some(Told::default())
                };
                let Some(told) = told else { return };
                return self.run(Transport::Unix(stream), told, permit).await;
            }
        };
        let serving = self.context.serving.load_full();
        let is_proxy = serving.trusted.contains(peer.ip().to_canonical());
        let limits = &serving.limits;
        let limit = limits
            .max_connections_per_client
            .or((!peer.ip().to_canonical().is_loopback()).then_some(Limits::CONNECTIONS_PER_CLIENT));
        let seat = match limit.filter(|_| !is_proxy).map(|limit| (self.room.clients.enter(peer.ip(), limit), limit)) {
            Some((None, limit)) => {
                if let Some(times) = self.room.too_many_of_one.happened() {
                    self.context.errors.warning(format_args!(
                        "{times} connections were refused with 503: {} has {limit} open (`max_connections_per_client` in \
                         [server])",
                        peer.ip().to_canonical()
                    ));
                }
                return self.refuse(Accepted::Tcp(stream, peer));
            }
            entered => entered.and_then(|(seat, _)| seat),
        };
        drop(serving);
        // A socket that listens on all addresses: the one that this client has reached.
        let server = match self.server {
            Some(server) if server.ip().is_unspecified() => stream.local_addr().ok(),
            server => server,
        };
        let mut told = Told { ends: server.map(|server| (peer, server)), is_secure: false };
        if self.expects_header && is_proxy {
            let Some(said) = self.header(&mut stream, &peer).await else { return };
            told = Told { ends: said.ends.or(told.ends), ..said };
        }
        self.run(Transport::Tcp(stream), told, permit).await;
        drop(seat);
    }

    /// The header that a trusted proxy begins with; `None` where it does not.
    async fn header(
        &self,
        stream: &mut (impl AsyncReadExt + Unpin),
        peer: &(dyn std::fmt::Display + Sync),
    ) -> Option<Told> {
        let late = Err(NoHeader("it did not come"));
        match timeout(HEADER_DEADLINE, read_header(stream)).await.unwrap_or(late) {
            Ok(told) => Some(told),
            Err(error) => {
                if let Some(times) = self.room.bad_header.happened() {
                    let errors = &self.context.errors;
                    errors.warning(format_args!("{times} connections were closed, the last from {peer}: {error}"));
                }
                None
            }
        }
    }

    async fn run(self, transport: Transport, told: Told, permit: OwnedSemaphorePermit) {
        let scheme = if told.is_secure { Scheme::Https } else { Scheme::Http };
        let (client, server) = told.ends.unzip();
        let endpoint = Endpoint::new(client, server, scheme);
        let _counted = self.context.is_counted.then(Counted::new);
        match self.certificates.map(|certificates| certificates.load_full()) {
            None if self.protocol != Protocol::Http => {
                // Boxed as below.
                Box::pin(connection::serve_gateway(transport, Arc::new(endpoint), self.protocol, self.context)).await;
            }
            None => connection::serve(transport, Arc::new(endpoint), self.context).await,
            // Boxed: a plain connection's task has no room for it.
            Some(certificates) => {
                Box::pin(connection::serve_tls(transport, endpoint, certificates, self.context)).await;
            }
        }
        drop(permit);
    }

    /// Says 503, where not too many hear it already. A client that waits for a TLS handshake is just closed.
    fn refuse(&self, accepted: Accepted) {
        if self.certificates.is_some() || self.protocol != Protocol::Http {
            return;
        }
        if let Ok(permit) = Arc::clone(&self.room.refusing).try_acquire_owned() {
            tokio::spawn(async move {
                refuse(accepted).await;
                drop(permit);
            });
        }
    }
}

/// Reads a PROXY header and not a byte more.
async fn read_header(stream: &mut (impl AsyncReadExt + Unpin)) -> Result<Told, NoHeader> {
    const CUT: NoHeader = NoHeader("the connection ended in it");
    let mut first = [0; proxy_protocol::SIGNATURE];
    stream.read_exact(&mut first).await.map_err(|_| CUT)?;
    match proxy_protocol::version(&first)? {
        proxy_protocol::Version::Line => {
            let mut line = first.to_vec();
            // Byte by byte: what follows the line is HTTP, and it is short.
            while !line.ends_with(b"\n") && line.len() < proxy_protocol::LONGEST_LINE {
                line.push(stream.read_u8().await.map_err(|_| CUT)?);
            }
            proxy_protocol::parse_line(&line)
        }
        proxy_protocol::Version::Binary => {
            let mut fixed = [0; 4];
            stream.read_exact(&mut fixed).await.map_err(|_| CUT)?;
            let mut rest = vec![0; proxy_protocol::rest_length(fixed)?];
            stream.read_exact(&mut rest).await.map_err(|_| CUT)?;
            proxy_protocol::parse_binary(fixed, &rest)
        }
    }
}

/// A connection among those that are counted as open.
struct Counted;

impl Counted {
    fn new() -> Self {
        metrics::connection_opened();
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::connection_closed();
    }
}

/// Moves a connection to another event loop.
fn hand_over(target: &Handle, accepted: Accepted, place: Place, permit: OwnedSemaphorePermit) {
    // A socket that cannot be moved is gone: nothing was read from it yet.
    match accepted {
        Accepted::Tcp(stream, client) => {
            let Ok(stream) = stream.into_std() else { return };
            target.spawn(async move {
                if let Ok(stream) = TcpStream::from_std(stream) {
                    place.serve(Accepted::Tcp(stream, client), permit).await;
                }
            });
        }
        Accepted::Unix(stream) => {
            let Ok(stream) = stream.into_std() else { return };
            target.spawn(async move {
                if let Ok(stream) = UnixStream::from_std(stream) {
                    place.serve(Accepted::Unix(stream), permit).await;
                }
            });
        }
    }
}
