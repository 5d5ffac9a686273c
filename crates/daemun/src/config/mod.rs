//! What the whole server is to do: gathered from flags, environment, files and what is found, found valid, and handed
//! to the rooms as their own settings.
//!
//! The way of a configuration, in the order of the steps of [`gather()`]:
//! 1. `target`: what there is to serve, by looking; or a file, and those it includes (`document`).
//! 2. `server`, `app`, `route`: each reads its part of a file (`section`), telling every fault with its place.
//! 3. `wishes`: options and `DAEMUN_*` variables on top, then what the platform says, then defaults.
//! 4. `interpreter`: which Python, and why.
//! 5. References and ties are checked across all of it.
//!
//! Knows every room's settings. Must not know sockets, processes or the command line, and runs nothing.

mod acme;
mod app;
mod cgi;
mod condition;
mod configuration;
mod development;
mod document;
mod environment;
mod fault;
mod filters;
mod gather;
mod interpreter;
mod route;
mod schema;
mod section;
mod server;
mod site;
mod static_route;
mod suggest;
mod target;
#[cfg(test)]
mod tests;
mod tls;
mod traces;
mod units;
mod upstream;
mod variables;
mod wishes;

pub use configuration::{
    Configuration, Debugging, DevelopmentSettings, HandlerSettings, RouteSettings, ServerSettings,
};
pub use development::{DevelopmentWishes, develop};
pub use environment::Environment;
pub use fault::{ConfigError, ConfigFault, Place};
pub use gather::{control_of, gather};
pub use schema::schema;
pub use suggest::nearest;
pub use units::{duration, size};
pub use wishes::{Wish, Wishes};
