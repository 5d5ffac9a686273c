//! The accept loops of the front.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::connection::{self, Context, Transport};
use crate::http::{Endpoint, Scheme};
use crate::listener::accept::{Accepted, Listener, accept};
use crate::listener::{Address, ListenerSettings};
use crate::tls::Certificates;

/// Every address that is being listened on, and the connections that came of it.
pub(super) struct Listening {
    addresses: HashMap<Address, watch::Sender<bool>>,
    permits: Arc<Semaphore>,
    limit: usize,
    certificates: Arc<ArcSwap<Certificates>>,
}

impl Listening {
    pub(super) fn new(limit: usize, certificates: Arc<ArcSwap<Certificates>>) -> Self {
        Self { addresses: HashMap::new(), permits: Arc::new(Semaphore::new(limit)), limit, certificates }
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
        for ((settings, address, _), sockets) in listeners.iter().zip(sockets) {
            if self.addresses.contains_key(address) {
                continue;
            }
            let (stopping, stopped) = watch::channel(false);
            let alone = sockets.len() == 1;
            for (number, socket) in sockets.into_iter().enumerate() {
                // One socket for all: its accept loop hands connections out in turn.
                let targets = if alone { event_loops.to_vec() } else { Vec::new() };
                let loop_ = AcceptLoop {
                    permits: Arc::clone(&self.permits),
                    context: Arc::clone(context),
                    certificates: settings.tls.then(|| Arc::clone(&self.certificates)),
                    targets,
                };
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
    /// What is shown, where clients speak TLS.
    certificates: Option<Arc<ArcSwap<Certificates>>>,
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
            let certificates = self.certificates.as_ref().map(|certificates| certificates.load_full());
            let arrival = Arrival { server, permit, context: Arc::clone(&self.context), certificates };
            if self.targets.len() > 1 {
                let target = &self.targets[turn.fetch_add(1, Ordering::Relaxed) % self.targets.len()];
                hand_over(target, accepted, arrival);
            } else {
                tokio::spawn(serve(accepted, arrival));
            }
        };
        let complain = |error: &io::Error| {
            self.context.errors.error(format_args!("accepting pauses: {error} (limit of open files: `ulimit -n`)"));
        };
        accept(listener, Arc::clone(&self.permits), stopped, serve, complain).await;
    }
}

/// What comes with a fresh connection.
struct Arrival {
    server: Option<SocketAddr>,
    permit: OwnedSemaphorePermit,
    context: Arc<Context>,
    /// What is shown, where the client speaks TLS.
    certificates: Option<Arc<Certificates>>,
}

/// Serves a connection on the event loop that this runs on.
async fn serve(accepted: Accepted, arrival: Arrival) {
    let (transport, client, server) = match accepted {
        Accepted::Tcp(stream, client) => {
            // A socket that listens on all addresses: the one that this client has reached.
            let is_any = arrival.server.is_some_and(|server| server.ip().is_unspecified());
            let server = if is_any { stream.local_addr().ok() } else { arrival.server };
            (Transport::Tcp(stream), Some(client), server)
        }
        Accepted::Unix(stream) => (Transport::Unix(stream), None, None),
    };
    let endpoint = Endpoint::new(client, server, Scheme::Http);
    match arrival.certificates {
        None => connection::serve(transport, Arc::new(endpoint), arrival.context).await,
        // Boxed: a plain connection's task has no room for it.
        Some(certificates) => {
            Box::pin(connection::serve_tls(transport, endpoint, certificates, arrival.context)).await;
        }
    }
    drop(arrival.permit);
}

/// Moves a connection to another event loop.
fn hand_over(target: &Handle, accepted: Accepted, arrival: Arrival) {
    // A socket that cannot be moved is gone: nothing was read from it yet.
    match accepted {
        Accepted::Tcp(stream, client) => {
            let Ok(stream) = stream.into_std() else { return };
            target.spawn(async move {
                if let Ok(stream) = TcpStream::from_std(stream) {
                    serve(Accepted::Tcp(stream, client), arrival).await;
                }
            });
        }
        Accepted::Unix(stream) => {
            let Ok(stream) = stream.into_std() else { return };
            target.spawn(async move {
                if let Ok(stream) = UnixStream::from_std(stream) {
                    serve(Accepted::Unix(stream), arrival).await;
                }
            });
        }
    }
}
