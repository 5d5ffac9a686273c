//! Which requests are traced, and under which name.

use serde::{Deserialize, Serialize};

/// `[server] traces`, but for where to.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct TraceSettings {
    /// The part of the traces that begin here which is kept, from 0 to 1. One that a sender keeps we keep, and one that it
    /// does not keep we do not. Default all: on the scale of one machine a span costs little, and what is wanted is found.
    pub ratio: f64,
    /// Whose `traceparent` counts. Default everybody's: a trace begins in the browser or at a balancer.
    pub parents: Parents,
    /// What we are called: `service.name`. Default `daemun`.
    pub service: String,
    /// What else is said of us, such as `deployment.environment.name`.
    pub resource: Vec<(String, String)>,
}

/// Whose `traceparent` counts.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Parents {
    /// Everybody's.
    #[default]
    All,
    /// That of trusted proxies; with others a trace begins.
    Trusted,
}

impl Eq for TraceSettings {}

impl Default for TraceSettings {
    fn default() -> Self {
        Self { ratio: 1.0, parents: Parents::default(), service: "daemun".to_owned(), resource: Vec::new() }
    }
}
