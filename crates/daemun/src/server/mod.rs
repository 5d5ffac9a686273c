//! The whole: the supervisor's process and the front's, composed of the rooms.
//!
//! * [`master`]: the supervisor. Binds, starts the front and the zygotes, and carries out every change of
//!   configuration or code: build the new, swap, stop the old.
//! * [`front`]: the front. Builds handlers, pools and listeners from a [`plan`] and swaps them.
//!
//! Between them goes a channel of typed messages; everything that the front may open comes along as a descriptor.

pub mod front;
pub mod master;
mod plan;

pub use master::{UPGRADE, UPGRADE_CHECK as CHECK};

/// The argument with which the program is started to be a front, on the channel that it inherits as descriptor 3.
pub const FRONT_ROLE: &str = "--role=front";
