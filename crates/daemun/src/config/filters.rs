//! The filters of a `[[route]]` or a `[[site]]`.

use super::section::{Entry, Section};
use crate::filter::{FilterSettings, Placed};
use crate::router::PathPattern;

/// Reads the filters of a table. `path` is what `strip_prefix = true` strips; a site has none.
pub(super) fn read(section: &Section<'_>, path: Option<&PathPattern>) -> FilterSettings {
    let entry = |key: &str| section.entry(key);
    FilterSettings {
        max_body: entry("max_body").and_then(|entry| placed(&entry, entry.size())),
        timeout: entry("timeout").and_then(|entry| placed(&entry, entry.positive_duration())),
        request_buffering: entry("request_buffering").and_then(|entry| placed(&entry, entry.boolean())),
        strip_prefix: entry("strip_prefix").and_then(|entry| placed(&entry, strip_prefix(&entry, path))),
        server_timing: entry("server_timing").and_then(|entry| placed(&entry, entry.boolean())),
    }
}

/// What was read, with its place.
fn placed<T>(entry: &Entry<'_>, value: Option<T>) -> Option<Placed<T>> {
    value.map(|value| Placed { value, origin: entry.place().to_string() })
}

/// `true` for what stands before the `*`, or a path.
fn strip_prefix(entry: &Entry<'_>, path: Option<&PathPattern>) -> Option<String> {
    const WHAT: &str = "`true` or a path such as \"/shop\"";
    let prefix = if entry.is_text() {
        entry.parse(WHAT, |text| match text.parse() {
            Ok(PathPattern::Exact(path)) => Ok(path),
            _ => Err(format!("expected {WHAT}, found {text:?}")),
        })?
    } else if entry.boolean()? {
        match path {
            Some(PathPattern::Prefix { prefix, .. }) => prefix.clone(),
            _ => {
                entry.fault("`true` strips what stands before the `*` of `path`, and there is none");
                return None;
            }
        }
    } else {
        return None;
    };
    let prefix = prefix.trim_end_matches('/').to_owned();
    if path.is_some_and(|path| !path.literal().starts_with(&prefix)) {
        entry.fault(format!("no path of the route begins with {prefix:?}"));
        return None;
    }
    (!prefix.is_empty()).then_some(prefix)
}
