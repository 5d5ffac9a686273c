//! The settings of all filters of a route, and how `explain` names them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A setting and where it was written.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Placed<T> {
    /// The setting.
    pub value: T,
    /// For instance `daemun.toml:12:1`.
    pub origin: String,
}

/// The filters of a route; none by default.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct FilterSettings {
    /// `max_body`: bytes of a request body.
    pub max_body: Option<Placed<u64>>,
    /// `timeout`: from hand-over to the first byte of an answer.
    pub timeout: Option<Placed<Duration>>,
    /// `request_buffering`: whether the body is gathered before the handler begins.
    pub request_buffering: Option<Placed<bool>>,
    /// `strip_prefix`: the part of the path that becomes `SCRIPT_NAME`, without a slash at its end.
    pub strip_prefix: Option<Placed<String>>,
    /// `server_timing`: whether answers say where the time went.
    pub server_timing: Option<Placed<bool>>,
}

/// A filter as `explain` shows it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Described {
    /// Its key in the file.
    pub name: &'static str,
    /// Where it was written.
    pub origin: String,
    /// What it does, in a line.
    pub text: String,
}
