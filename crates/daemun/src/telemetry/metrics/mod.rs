//! What is counted while requests are answered.
//!
//! Each event loop counts in a shard of its own, so that counting is a load and a store of memory that nobody else
//! writes; whoever reads adds the shards up. The registry is the process's own, as its descriptors are: one front, one
//! set of counters, through all reloads.
//!
//! Labels are bounded: a route by its pattern, never a URL; a method by its registered name; a status by its class.

mod gather;
mod histogram;
mod route;
mod shard;
mod text;

pub use gather::{RouteFigures, Snapshot, gather};
pub use histogram::{BOUNDS, Distribution};
pub use route::{Labels, Place, PlaceId, RouteId, Scope, intern, intern_place, mark};
pub(super) use route::{labels, place};
pub use shard::{answered, connection_closed, connection_opened, lost_lines, received, tls_handshake};
pub use text::{Exposition, Kind};
