//! The filters of a `[[route]]` or a `[[site]]`.

mod answers;
mod headers;
mod requests;
mod xslt;

use super::section::{Entry, Keys, Section};
use crate::filter::{AccessSettings, EarlyHints, FilterSettings, Placed};
use crate::router::PathPattern;

/// The keys of those filters that are tables.
pub(super) const KEYS: [(&str, Keys); 7] = [
    ("rate_limit", requests::RATE_LIMIT),
    ("basic_auth", requests::BASIC_AUTH),
    ("rewrite", requests::REWRITE),
    ("headers", headers::HEADERS),
    ("cache", answers::CACHE),
    ("xslt", xslt::XSLT),
    ("compress", answers::COMPRESS),
];

/// Reads the filters of a table. `path` is what `strip_prefix = true` strips; a site has none.
pub(super) fn read(section: &Section<'_>, path: Option<&PathPattern>) -> FilterSettings {
    let entry = |key: &str| section.entry(key);
    FilterSettings {
        access: access(section),
        rate_limit: entry("rate_limit").and_then(|entry| placed(&entry, requests::rate_limit(&entry))),
        headers: entry("headers").and_then(|entry| placed(&entry, headers::read(&entry))),
        basic_auth: entry("basic_auth").and_then(|entry| placed(&entry, requests::basic_auth(&entry))),
        max_body: entry("max_body").and_then(|entry| placed(&entry, entry.size())),
        timeout: entry("timeout").and_then(|entry| placed(&entry, entry.positive_duration())),
        request_buffering: entry("request_buffering").and_then(|entry| placed(&entry, entry.boolean())),
        rewrite: entry("rewrite").and_then(|entry| placed(&entry, requests::rewrite(&entry))),
        strip_prefix: entry("strip_prefix").and_then(|entry| placed(&entry, requests::strip_prefix(&entry, path))),
        cache: entry("cache").and_then(|entry| placed(&entry, answers::cache(&entry))),
        early_hints: early_hints(section),
        xslt: entry("xslt").and_then(|entry| placed(&entry, xslt::read(&entry, section, path))),
        compress: entry("compress").and_then(|entry| placed(&entry, answers::compress(&entry))),
        errors: entry("errors").and_then(|entry| placed(&entry, answers::errors(&entry))),
        server_timing: entry("server_timing").and_then(|entry| placed(&entry, entry.boolean())),
    }
}

/// `early_hints`, which an application has too.
pub(super) fn early_hints(section: &Section<'_>) -> Option<Placed<EarlyHints>> {
    section.entry("early_hints").and_then(|entry| placed(&entry, answers::early_hints(&entry)))
}

/// What was read, with its place.
fn placed<T>(entry: &Entry<'_>, value: Option<T>) -> Option<Placed<T>> {
    value.map(|value| Placed { value, origin: entry.place().to_string() })
}

/// `allow` and `deny` are one filter.
fn access(section: &Section<'_>) -> Option<Placed<AccessSettings>> {
    let (allow, deny) = (section.entry("allow"), section.entry("deny"));
    let origin = allow.as_ref().or(deny.as_ref())?.place().to_string();
    let networks = |entry: Option<Entry<'_>>| entry.map_or(Some(Vec::new()), |entry| requests::networks(&entry));
    Some(Placed { value: AccessSettings { allow: networks(allow)?, deny: networks(deny)? }, origin })
}
