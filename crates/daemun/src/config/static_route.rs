//! `static = { … }` on a route, and what a folder is served with that was only named.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::section::{Entry, Keys};
use crate::http::Fields;
use crate::router::PathPattern;
use crate::static_files::{Missing, Root, StaticSettings};

/// The keys of `static`.
pub(super) const KEYS: Keys = Keys {
    known: &[
        "root",
        "index",
        "missing",
        "manifest",
        "allow_names",
        "precompressed",
        "listing",
        "types",
        "headers",
        "max_age",
        "uploads",
    ],
    later: &[],
};

/// The longest time that caches take for what it says: 2^31 seconds (RFC 9111, section 1.2.2).
const LONGEST_AGE: u64 = 1 << 31;

/// Fields that the connection writes: said here they would be said twice.
const OF_FRAMING: [&str; 6] =
    ["content-length", "transfer-encoding", "connection", "date", "content-range", "content-encoding"];

/// What a folder that was named on the command line or found is served with.
pub(super) fn folder(path: &Path) -> StaticSettings {
    StaticSettings {
        roots: vec![Root { path: path.to_path_buf(), prefix: String::new() }],
        index: vec!["index.html".to_owned()],
        refuse_sources: true,
        cache: true,
        precompressed: true,
        ..StaticSettings::default()
    }
}

/// Reads `static = { … }`.
pub(super) fn read(entry: &Entry<'_>) -> Option<StaticSettings> {
    let section = entry.section("`static`", "a table such as { root = \"static\" }", KEYS)?;
    let Some(root) = section.entry("root") else {
        entry.fault("a `root` is missing: the folder whose files are sent");
        return None;
    };
    let items = if root.is_list() { root.items("a path")? } else { vec![root] };
    let mut roots = Vec::new();
    for item in items {
        let path = item.path()?;
        if path.is_file() {
            item.expected("a folder");
        } else if !path.is_dir() {
            // Not a fault: what is collected later is not there yet.
            item.source.report.warn(format!("{}: there is no folder {} yet", item.place(), path.display()));
        }
        roots.push(Root { path, prefix: String::new() });
    }
    let boolean = |key: &str| section.entry(key).and_then(|entry| entry.boolean());
    let missing = section.entry("missing").and_then(|entry| entry.parse("\"404\", \"next\" or a path", missing));
    let max_age = section.entry("max_age").and_then(|entry| entry.duration());
    Some(StaticSettings {
        barred: Vec::new(),
        index: section.entry("index").and_then(|entry| file_names(&entry)).unwrap_or(vec!["index.html".to_owned()]),
        missing: missing.unwrap_or(Missing::NotFound),
        manifest: boolean("manifest").unwrap_or(false),
        allow_names: section.entry("allow_names").and_then(|entry| file_names(&entry)).unwrap_or_default(),
        roots,
        refuse_sources: false,
        cache: true,
        precompressed: boolean("precompressed").unwrap_or(true),
        listing: boolean("listing").unwrap_or(false),
        types: section.entry("types").map(|entry| types(&entry)).unwrap_or_default(),
        headers: section.entry("headers").map(|entry| headers(&entry)).unwrap_or_default(),
        max_age: max_age.map(|age| age.as_secs().min(LONGEST_AGE) as u32),
        age_unsaid: false,
        uploads: boolean("uploads").unwrap_or(false),
        sources: Vec::new(),
    })
}

/// Names of files, without a folder.
fn file_names(entry: &Entry<'_>) -> Option<Vec<String>> {
    let items = entry.items("a list of file names")?;
    let mut names = Vec::new();
    for item in items {
        let Some(name) = item.name() else { continue };
        if name.contains('/') || name == ".." || name == "." {
            item.expected("a file name without a folder");
        } else {
            names.push(name);
        }
    }
    Some(names)
}

/// Content types by ending or by name.
fn types(entry: &Entry<'_>) -> BTreeMap<String, String> {
    let items = entry.map("`types`", "a table such as { \".gpx\" = \"application/gpx+xml\" }").unwrap_or_default();
    let mut types = BTreeMap::new();
    for item in items {
        let key = item.key();
        if key.is_empty() || key == "." || key.contains('/') {
            item.fault(format!("`{key}` is neither the ending of a name, such as \".gpx\", nor the name of a file"));
        } else if !key.starts_with('.') && !key.contains('.') && key.bytes().all(|byte| byte.is_ascii_lowercase()) {
            let message =
                format!("{}: `{key}` is for files of that whole name; an ending is written \".{key}\"", item.place());
            item.source.report.warn(message);
        }
        let kind = item.parse("a content type", |text| {
            let is_type = text.split_once('/').is_some_and(|(kind, rest)| !kind.is_empty() && !rest.is_empty());
            let is_value = Fields::new().try_push(Bytes::from_static(b"Content-Type"), Bytes::from(text.to_owned()));
            if is_type && is_value {
                Ok(text.to_owned())
            } else {
                Err(format!("expected a content type such as \"text/plain; charset=utf-8\", found {text:?}"))
            }
        });
        types.extend(kind.map(|kind| (key.to_owned(), kind)));
    }
    types
}

/// Fields on every file.
fn headers(entry: &Entry<'_>) -> BTreeMap<String, String> {
    let what = "a table such as { \"Access-Control-Allow-Origin\" = \"*\" }";
    let mut headers = BTreeMap::new();
    for item in entry.map("`headers`", what).unwrap_or_default() {
        let name = item.key();
        if OF_FRAMING.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            item.fault(format!("`{name}` is for the server to say"));
            continue;
        }
        let value = item.parse("the value of a field", |text| {
            let (key, value) = (Bytes::from(name.to_owned()), Bytes::from(text.to_owned()));
            let is_field = Fields::new().try_push(key, value);
            if is_field { Ok(text.to_owned()) } else { Err(format!("`{name}: {}` is no field", text.escape_debug())) }
        });
        headers.extend(value.map(|value| (name.to_owned(), value)));
    }
    headers
}

/// Folders that an application may have files sent from, by the URL prefix that each stands for.
pub(super) fn sendfile(entry: &Entry<'_>, title: &str) -> Vec<(String, PathBuf)> {
    let mut roots = Vec::new();
    for item in entry.map(title, "a table such as { \"/protected/\" = \"media\" }").unwrap_or_default() {
        let prefix = item.key();
        let is_prefix = prefix.starts_with('/') && prefix.ends_with('/') && !prefix.contains("//");
        if !is_prefix || prefix.contains(['*', '?', '%', '\\']) {
            item.fault("expected a prefix such as \"/protected/\"");
        }
        let Some(path) = item.path() else { continue };
        if path.is_file() {
            item.expected("a folder");
        } else if !path.is_dir() {
            item.source.report.warn(format!("{}: there is no folder {} yet", item.place(), path.display()));
        }
        roots.push((prefix.to_owned(), path));
    }
    roots
}

fn missing(text: &str) -> Result<Missing, String> {
    match text {
        "404" => Ok(Missing::NotFound),
        "next" => Ok(Missing::Next),
        _ => match text.parse() {
            Ok(PathPattern::Exact(path)) => Ok(Missing::File(path)),
            _ => Err(format!(
                "expected \"404\", \"next\" or a path of the same route such as \"/index.html\", found {text:?}"
            )),
        },
    }
}
