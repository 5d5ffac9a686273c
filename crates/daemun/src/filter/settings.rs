//! The settings of all filters of a route, and how `explain` names them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::access::AccessSettings;
use super::basic_auth::AuthSettings;
use super::cache::CacheSettings;
use super::compress::CompressSettings;
use super::early_hints::EarlyHints;
use super::errors::ErrorPages;
use super::headers::HeaderSettings;
use super::rate_limit::RateLimitSettings;
use super::rewrite::RewriteSettings;
use super::xslt::XsltSettings;

/// A setting and where it was written.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Placed<T> {
    /// The setting.
    pub value: T,
    /// For instance `daemun.toml:12:1`.
    pub origin: String,
}

/// The filters of a route, in the order in which they are asked; none by default.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct FilterSettings {
    /// `allow` and `deny`: who may.
    pub access: Option<Placed<AccessSettings>>,
    /// `rate_limit`: how often.
    pub rate_limit: Option<Placed<RateLimitSettings>>,
    /// `headers`: fields of answers and requests.
    pub headers: Option<Placed<HeaderSettings>>,
    /// `basic_auth`: who it is.
    pub basic_auth: Option<Placed<AuthSettings>>,
    /// `max_body`: bytes of a request body.
    pub max_body: Option<Placed<u64>>,
    /// `timeout`: from hand-over to the first byte of an answer.
    pub timeout: Option<Placed<Duration>>,
    /// `request_buffering`: whether the body is gathered before the handler begins.
    pub request_buffering: Option<Placed<bool>>,
    /// `rewrite`: another path and query.
    pub rewrite: Option<Placed<RewriteSettings>>,
    /// `strip_prefix`: the part of the path that becomes `SCRIPT_NAME`, without a slash at its end.
    pub strip_prefix: Option<Placed<String>>,
    /// `cache`: what is kept in memory.
    pub cache: Option<Placed<CacheSettings>>,
    /// `early_hints`: whether what pages name is said ahead of them.
    pub early_hints: Option<Placed<EarlyHints>>,
    /// `xslt`: what is transformed. It stands before the handler itself, and is put there by whoever makes that.
    pub xslt: Option<Placed<XsltSettings>>,
    /// `compress`: what is compressed.
    pub compress: Option<Placed<CompressSettings>>,
    /// `errors`: own pages.
    pub errors: Option<Placed<ErrorPages>>,
    /// `server_timing`: whether answers say where the time went.
    pub server_timing: Option<Placed<bool>>,
}

impl FilterSettings {
    /// The filters in the order in which a request meets them; those for the answer alone come last.
    pub fn describe(&self) -> Vec<Described> {
        fn one<T>(
            name: &'static str,
            filter: Option<&Placed<T>>,
            text: impl FnOnce(&T) -> String,
        ) -> Option<Described> {
            filter.map(|placed| Described { name, origin: placed.origin.clone(), text: text(&placed.value) })
        }
        let buffering =
            |whole: &bool| if *whole { "the body is gathered first" } else { "the body is streamed" }.to_owned();
        let timing = |on: &bool| if *on { "on" } else { "off" }.to_owned();
        [
            one("allow, deny", self.access.as_ref(), AccessSettings::describe),
            one("rate_limit", self.rate_limit.as_ref(), RateLimitSettings::describe),
            one("basic_auth", self.basic_auth.as_ref(), AuthSettings::describe),
            one("max_body", self.max_body.as_ref(), |most| format!("at most {most} bytes")),
            one("timeout", self.timeout.as_ref(), |time| format!("{time:?} to the first byte")),
            one("request_buffering", self.request_buffering.as_ref(), buffering),
            one("rewrite", self.rewrite.as_ref(), RewriteSettings::describe),
            one("strip_prefix", self.strip_prefix.as_ref(), |prefix| format!("{prefix} becomes SCRIPT_NAME")),
            one("cache", self.cache.as_ref(), CacheSettings::describe),
            one("early_hints", self.early_hints.as_ref(), |learned| learned.describe()),
            one("xslt", self.xslt.as_ref(), XsltSettings::describe),
            one("compress", self.compress.as_ref(), CompressSettings::describe),
            one("errors", self.errors.as_ref(), ErrorPages::describe),
            one("headers", self.headers.as_ref(), HeaderSettings::describe),
            one("server_timing", self.server_timing.as_ref(), timing),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// These filters, and where there is none of a kind, the one of `outer`.
    #[must_use]
    pub fn within(self, outer: &Self) -> Self {
        let outer = outer.clone();
        Self {
            access: self.access.or(outer.access),
            rate_limit: self.rate_limit.or(outer.rate_limit),
            headers: self.headers.or(outer.headers),
            basic_auth: self.basic_auth.or(outer.basic_auth),
            max_body: self.max_body.or(outer.max_body),
            timeout: self.timeout.or(outer.timeout),
            request_buffering: self.request_buffering.or(outer.request_buffering),
            rewrite: self.rewrite.or(outer.rewrite),
            strip_prefix: self.strip_prefix.or(outer.strip_prefix),
            cache: self.cache.or(outer.cache),
            early_hints: self.early_hints.or(outer.early_hints),
            xslt: self.xslt.or(outer.xslt),
            compress: self.compress.or(outer.compress),
            errors: self.errors.or(outer.errors),
            server_timing: self.server_timing.or(outer.server_timing),
        }
    }
}

/// A filter as `explain` shows it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Described {
    /// Its key in the file.
    pub name: &'static str,
    /// Where it was written.
    pub origin: String,
    /// What it does, in a line.
    pub text: String,
}
