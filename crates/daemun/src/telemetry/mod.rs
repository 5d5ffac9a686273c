//! What the server says about itself: the access log and the error log.

mod settings;

pub use settings::{AccessLog, ErrorLog, Format, Level, Sink, TelemetrySettings};
