//! What the server says about itself: the access log and the error log.
//!
//! Descriptors 1 and 2 stay blocking, they are shared with the shell; so event loops never write. They append lines
//! to a bounded buffer, and a thread for each log writes it out ([`writer`]). A log that nobody reads costs lines,
//! never requests: what was lost is counted and told.

mod access;
mod error;
mod escape;
pub mod flights;
mod mask;
pub mod metrics;
mod seldom;
mod settings;
mod template;
mod time;
pub mod traces;
mod writer;

pub use access::{AccessLogger, Entry, RequestLine};
pub use error::ErrorLogger;
pub use seldom::Seldom;
pub use settings::{AccessLog, ErrorLog, Format, Level, Sink, TelemetrySettings};
pub use template::Template;
pub use time::rfc3339;
pub use writer::LogWriter;
