//! Servers that others maintain: which of them gets a request, how they are, and the connections that are kept to them.
//!
//! The way of a request to a server:
//! 1. [`Group::place`] chooses a server that is well and has room ([`Balance`], `sticky`), or waits in a bounded queue.
//! 2. [`Place::connect`] takes a kept connection that is as its last answer left it, or makes one.
//! 3. Whoever speaks the protocol asks once, and says of a failure what had been sent and received ([`Failure`]).
//! 4. [`Place::succeed`] or [`Place::fail`] tell the circuit breaker; [`Group::another`] gives a second chance out of a
//!    budget; [`Place::keep`] keeps the connection.
//!
//! Beside it [`Group::watch`] asks servers whether they are well and what they can do (`abilities`), and looks up the names
//! that are followed (`discovery`). Requests share connections over HTTP/2 (`multiplexed`) and FastCGI (`shared`).
//! A group outlives reloads ([`Group::update`]).
//!
//! Knows sockets, names (by [`resolver`](crate::resolver)), TLS towards servers and the clock. Must not know requests, routes, nor the protocol that is spoken
//! over a connection (but for the questions for a server's health and abilities, and whose bytes are whose where requests
//! share one).

mod abilities;
mod balance;
mod circuit;
mod dialer;
mod discovery;
mod group;
mod health;
mod line;
mod multiplexed;
mod place;
mod server;
mod settings;
mod shared;
mod slow;
mod socket;
mod sticky;
#[cfg(test)]
mod tests;
mod tls;

pub use dialer::Dialer;
pub use group::{Group, NoServer, ServerStatus, Serving, Teller, Wanted};
pub use multiplexed::Slot;
pub use place::{Failure, FailureKind, Place, Reuse};
pub use server::{Hungry, Server};
pub use settings::{
    Address, Balance, ClientTls, Follows, HashKey, HealthSettings, HostField, MOST_EJECTIONS, ResponseBuffering,
    Scheme, ServerSettings, SlowSettings, SpawnSettings, Sticky, UpstreamSettings, is_token,
};
pub use shared::{Stream, TooSlow};
pub use socket::{Connection, Plain, Socket};
pub use tls::check as check_tls;
