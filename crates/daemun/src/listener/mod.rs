//! Listening sockets: bound by the supervisor, accepted by the front.
//!
//! * [`bind()`] probes an address first and names who holds it; then binds one socket for each event loop, so that the
//!   kernel spreads connections. Their number never changes while the address lives: closing a `SO_REUSEPORT` socket
//!   resets what is queued in it.
//! * [`accept`](accept::accept): permit, then accept, then a task of its own for the connection.

pub mod accept;
mod bind;
mod clients;
mod handed;
mod holder;
mod refuse;
mod settings;

pub use bind::{BindError, Bound, bind};
pub use clients::{Clients, Seat};
pub use handed::Handed;
pub use refuse::refuse;
pub use settings::{Address, ListenerSettings, Protocol, Role};
