//! Which handler answers: the most specific rule wins, whatever the order in the file.

use serde::{Deserialize, Serialize};

/// When a route answers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Rule {
    /// Which hosts.
    pub host: HostPattern,
    /// Which paths.
    pub path: PathPattern,
    /// Where the rule was written, for instance `daemun.toml:12:1` or `from Django: STATIC_URL`.
    pub origin: String,
}

/// Which hosts a rule is for. Names are in lower case, without port.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum HostPattern {
    /// Any.
    Any,
    /// Exactly this one.
    Exact(String),
    /// `*.example.com`, kept as `.example.com`: any name below it, but not itself.
    Below(String),
}

/// Which paths a rule is for.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum PathPattern {
    /// Exactly this one.
    Exact(String),
    /// Everything that begins with `prefix` (which ends in `/` for `/static/*`) and ends with `suffix` (empty for most).
    Prefix {
        /// What stands before the `*`.
        prefix: String,
        /// What stands after it.
        suffix: String,
    },
}
