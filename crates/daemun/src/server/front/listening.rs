//! The accept loops of the front.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::connection::{self, Context, Transport};
use crate::http::{Endpoint, Scheme};
use crate::listener::accept::{Accepted, Listener, accept};
use crate::listener::{Address, ListenerSettings};
use crate::telemetry::metrics;

/// Every address that is being listened on, and the connections that came of it.
pub(super) struct Listening {
    addresses: HashMap<Address, watch::Sender<bool>>,
    permits: Arc<Semaphore>,
    limit: usize,
}

impl Listening {
    pub(super) fn new(limit: usize) -> Self {
        Self { addresses: HashMap::new(), permits: Arc::new(Semaphore::new(limit)), limit }
    }

    /// Connections that are open.
    pub(super) fn connections(&self) -> usize {
        self.limit.saturating_sub(self.permits.available_permits())
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
            self.permits.add_permits(limit - self.limit);
            self.limit = limit;
        }
        for ((_, address, _), sockets) in listeners.iter().zip(sockets) {
            if self.addresses.contains_key(address) {
                continue;
            }
            let (stopping, stopped) = watch::channel(false);
            let alone = sockets.len() == 1;
            for (number, socket) in sockets.into_iter().enumerate() {
                // One socket for all: its accept loop hands connections out in turn.
                let targets = if alone { event_loops.to_vec() } else { Vec::new() };
                let loop_ = AcceptLoop { permits: Arc::clone(&self.permits), context: Arc::clone(context), targets };
                event_loops[number % event_loops.len()].spawn(loop_.run(socket, stopped.clone()));
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

/// One socket's loop.
struct AcceptLoop {
    permits: Arc<Semaphore>,
    context: Arc<Context>,
    targets: Vec<Handle>,
}

impl AcceptLoop {
    async fn run(self, socket: OwnedFd, stopped: watch::Receiver<bool>) {
        let listener = match Listener::from_socket(socket) {
            Ok(listener) => listener,
            Err(error) => return self.context.errors.error(format_args!("cannot accept: {error}")),
        };
        let server = listener.address();
        let turn = AtomicUsize::new(0);
        let serve = |accepted, permit| {
            if self.targets.len() > 1 {
                let target = &self.targets[turn.fetch_add(1, Ordering::Relaxed) % self.targets.len()];
                hand_over(target, accepted, server, permit, Arc::clone(&self.context));
            } else {
                tokio::spawn(serve(accepted, server, permit, Arc::clone(&self.context)));
            }
        };
        let complain = |error: &io::Error| {
            self.context.errors.error(format_args!("accepting pauses: {error} (limit of open files: `ulimit -n`)"));
        };
        accept(listener, Arc::clone(&self.permits), stopped, serve, complain).await;
    }
}

/// Serves a connection on the event loop that this runs on.
async fn serve(accepted: Accepted, server: Option<SocketAddr>, permit: OwnedSemaphorePermit, context: Arc<Context>) {
    let (transport, client) = match accepted {
        Accepted::Tcp(stream, client) => {
            // A socket that listens on all addresses: the one that this client has reached.
            let server = if server.is_some_and(|server| server.ip().is_unspecified()) {
                stream.local_addr().ok()
            } else {
                server
            };
            return run(Transport::Tcp(stream), Some(client), server, permit, context).await;
        }
        Accepted::Unix(stream) => (Transport::Unix(stream), None),
    };
    run(transport, client, None, permit, context).await;
}

async fn run(
    transport: Transport,
    client: Option<SocketAddr>,
    server: Option<SocketAddr>,
    permit: OwnedSemaphorePermit,
    context: Arc<Context>,
) {
    let endpoint = Arc::new(Endpoint::new(client, server, Scheme::Http));
    let _counted = context.is_counted.then(Counted::new);
    connection::serve(transport, endpoint, context).await;
    drop(permit);
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
fn hand_over(
    target: &Handle,
    accepted: Accepted,
    server: Option<SocketAddr>,
    permit: OwnedSemaphorePermit,
    context: Arc<Context>,
) {
    // A socket that cannot be moved is gone: nothing was read from it yet.
    match accepted {
        Accepted::Tcp(stream, client) => {
            let Ok(stream) = stream.into_std() else { return };
            target.spawn(async move {
                if let Ok(stream) = TcpStream::from_std(stream) {
                    serve(Accepted::Tcp(stream, client), server, permit, context).await;
                }
            });
        }
        Accepted::Unix(stream) => {
            let Ok(stream) = stream.into_std() else { return };
            target.spawn(async move {
                if let Ok(stream) = UnixStream::from_std(stream) {
                    serve(Accepted::Unix(stream), server, permit, context).await;
                }
            });
        }
    }
}
