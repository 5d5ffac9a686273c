//! What every way out of HTTP into a program shares: the variables that stand for a request, and bodies that wait on
//! disk until the program wants them.
//!
//! Knows RFC 3875, section 4.1. Must not know which program it is, nor how it is reached.

mod environment;
mod spool;

pub use crate::http::TrustedProxies;
pub use environment::{Forwarding, Script, write_script, write_wsgi};
pub use spool::{Spool, SpoolFile, refuse};
