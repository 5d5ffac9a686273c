//! Listening sockets: bound by the supervisor, accepted by the front.

mod settings;

pub use settings::{Address, ListenerSettings};
