//! The supervisor's tools: everything that starts, watches and ends processes.
//!
//! * [`RuntimeFolder`]: where the workers' sockets and the shim lie while the server runs.
//! * [`Backoff`]: how long to wait before something that keeps failing is started again.
//! * [`Notify`]: what a service manager wants to know.
//! * [`state`]: the folder for what must be found again.
//! * [`identity`]: which user a process runs as.
//!
//! Must not read a byte that a client sent, and knows no routes.

mod backoff;
pub mod identity;
mod notify;
mod runtime;
pub mod state;

pub use backoff::Backoff;
pub use notify::Notify;
pub use runtime::RuntimeFolder;
