//! The supervisor's tools: everything that starts, watches and ends processes.
//!
//! * [`RuntimeFolder`]: where the workers' sockets and the shim lie while the server runs.
//! * [`Zygote`]: a process that has imported an application and forks workers from it.
//! * [`collect`]: an application's static files, collected before it is served.
//! * [`Backoff`]: how long to wait before something that keeps failing is started again.
//! * [`identity`]: which user a process runs as.
//!
//! Must not read a byte that a client sent, and knows no routes.

mod backoff;
pub mod collect;
pub mod identity;
mod runtime;
mod zygote;

pub use backoff::Backoff;
pub use runtime::RuntimeFolder;
pub use zygote::{DjangoInfo, Finder, Ready, Start, Zygote, ZygoteMessage};
