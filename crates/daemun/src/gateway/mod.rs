//! What every way out of HTTP into a program shares: the variables that stand for a request, and bodies that wait on
//! disk until the program wants them; which script a path leads to; what the head of an answer means; complaints on
//! their way to the log.
//!
//! Knows RFC 3875, sections 4.1 and 6. Must not know which program it is, nor how it is reached.

mod document;
mod environment;
mod find;
mod log_lines;
mod path_info;
mod spool;

pub use crate::http::TrustedProxies;
pub use document::{Document, Head, fields};
pub use environment::{Forwarding, Script, Variables, of_name, write_script, write_wsgi};
pub use find::{FindError, Found, Identity, Scripts};
pub use log_lines::LogLines;
pub use path_info::{decode, path_info};
pub use spool::{DEFAULT_SPOOL, Spool, SpoolFile, refuse, takes_files};
