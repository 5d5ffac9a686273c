//! One connection's life: heads in, responses out, deadlines, limits.
//!
//! 1. [`serve`] waits, holding no buffer, until a request begins ([`life`]).
//! 2. Its head is read under a deadline and found valid, or refused and the connection ended.
//! 3. The handler is polled; between polls the connection feeds it the body and watches the client ([`exchange`],
//!    [`incoming`]).
//! 4. The response is framed and written as the client takes it ([`reply`]).
//! 5. What the handler left of the body is drained, or the connection closed; a line goes to the access log.
//!
//! All of it is one task that owns the socket: for a small request and answer one read and one write, and no wake-up
//! in between. It knows a handler, never the router; it is told of the shutdown, never asks for it.
//!
//! A client that closes only its sending half is answered: `printf … | nc` and shutdown-happy clients do so. One that
//! resets the connection is gone, and the handler's future is dropped.

mod buffers;
mod cold;
mod current;
mod drain;
mod error_page;
mod exchange;
mod file;
mod gateway;
mod handshake;
mod http2;
mod incoming;
mod inflow;
mod life;
mod reply;
mod secure;
mod settings;
mod stream;
#[cfg(test)]
mod tests;
mod transport;
mod tunnel;
mod wire;

use std::sync::Arc;

use arc_swap::ArcSwap;

pub use drain::{Drain, Phase};
pub use life::{serve, serve_gateway, serve_tls};
pub use settings::Limits;
pub use transport::Transport;

use crate::handler::Handler;
use crate::http::TrustedProxies;
use crate::telemetry::traces::Tracer;
use crate::telemetry::{AccessLogger, ErrorLogger};

/// What all connections share.
pub struct Context {
    /// What answers, and within which limits. A reload stores another one: the next request of a connection that is
    /// kept alive already gets it, the one in flight ends with what it began with.
    pub serving: ArcSwap<Serving>,
    /// Whether we are going down.
    pub drain: Drain,
    /// One line for each request.
    pub access: AccessLogger,
    /// What an operator should know.
    pub errors: ErrorLogger,
    /// Whether requests are counted: those for health and metrics are not.
    pub is_counted: bool,
}

/// What a reload replaces.
pub struct Serving {
    /// What answers.
    pub handler: Arc<dyn Handler>,
    /// What a connection may cost.
    pub limits: Limits,
    /// Whose word about a request counts.
    pub trusted: TrustedProxies,
    /// What tells of requests, where that is wished for.
    pub traces: Option<Arc<Tracer>>,
}

impl Context {
    /// A context that serves this.
    pub fn new(handler: Arc<dyn Handler>, limits: Limits, access: AccessLogger, errors: ErrorLogger) -> Self {
        let serving = Serving { handler, limits, trusted: TrustedProxies::default(), traces: None };
        let serving = ArcSwap::from_pointee(serving);
        Self { serving, drain: Drain::default(), access, errors, is_counted: true }
    }
}
