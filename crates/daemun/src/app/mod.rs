//! Applications: pools of worker processes, each the application's own Python, and the way of a request to them.

mod settings;

pub use settings::{AppSettings, InheritEnv, Mount};
