//! Filters that change or keep answers.

use super::super::section::{Entry, Keys};
use crate::filter::{CacheSettings, CompressSettings, EarlyHints, ErrorPage, ErrorPages};
use crate::http::Coding;

pub(super) const COMPRESS: Keys = Keys { known: &["codings", "level", "least", "types"], later: &[] };
pub(super) const CACHE: Keys =
    Keys { known: &["max", "max_object", "ttl", "stale", "authorization", "set_cookie"], later: &[] };

/// Bytes of a page of `errors`: it is kept in memory.
const MOST_PAGE: u64 = 1 << 20;

/// `true`, or `{ codings = ["zstd", "gzip"], level = 3, least = "1KiB", types = ["text/*"] }`.
pub(super) fn compress(entry: &Entry<'_>) -> Option<CompressSettings> {
    const WHAT: &str = "`true`, or a table such as { level = 3, types = [\"text/*\"] }";
    if !entry.is_table() {
        return entry.boolean()?.then(CompressSettings::default);
    }
    let section = entry.section("`compress`", WHAT, COMPRESS)?;
    let default = CompressSettings::default();
    let codings = section.entry("codings").map_or(Some(default.codings), |entry| {
        let items = entry.items("a list such as [\"zstd\", \"br\", \"gzip\"]")?;
        items.iter().map(|item| item.parse("a coding", coding)).collect::<Option<Vec<_>>>()
    });
    Some(CompressSettings {
        codings: codings?,
        level: section.entry("level").map_or(Some(u64::from(default.level)), |entry| entry.whole(1, 5))? as u32,
        least: section.entry("least").map_or(Some(default.least), |entry| entry.size())?,
        types: section.entry("types").map_or(Some(default.types), |entry| entry.texts())?,
    })
}

fn coding(text: &str) -> Result<Coding, String> {
    match text {
        "zstd" => Ok(Coding::Zstd),
        "br" => Ok(Coding::Brotli),
        "gzip" => Ok(Coding::Gzip),
        _ => Err(format!("expected \"zstd\", \"br\" or \"gzip\", found {text:?}")),
    }
}

/// `true`, or `{ ttl = "10s", stale = "30s", max = "64MiB" }`.
pub(super) fn cache(entry: &Entry<'_>) -> Option<CacheSettings> {
    const WHAT: &str = "`true`, or a table such as { ttl = \"10s\", max = \"64MiB\" }";
    if !entry.is_table() {
        return entry.boolean()?.then(CacheSettings::default);
    }
    let section = entry.section("`cache`", WHAT, CACHE)?;
    let default = CacheSettings::default();
    let size = |key: &str, default: u64| section.entry(key).map_or(Some(default), |entry| entry.size());
    let flag = |key: &str| section.entry(key).map_or(Some(false), |entry| entry.boolean());
    Some(CacheSettings {
        max: size("max", default.max)?,
        max_object: size("max_object", default.max_object)?,
        ttl: section.entry("ttl").map_or(Some(None), |entry| entry.positive_duration().map(Some))?,
        stale: section.entry("stale").map_or(Some(default.stale), |entry| entry.duration())?,
        authorization: flag("authorization")?,
        set_cookie: flag("set_cookie")?,
    })
}

/// `"learn"`, or `"off"` where a site or an application says otherwise.
pub(super) fn early_hints(entry: &Entry<'_>) -> Option<EarlyHints> {
    entry.parse("\"learn\" or \"off\"", |text| match text {
        "learn" => Ok(EarlyHints::Learn),
        "off" => Ok(EarlyHints::Off),
        _ => Err(format!("expected \"learn\" or \"off\", found {text:?}")),
    })
}

/// `{ 404 = "404.html", 5xx = "sorry.html", intercept = true }`.
pub(super) fn errors(entry: &Entry<'_>) -> Option<ErrorPages> {
    const WHAT: &str = "a table such as { 404 = \"404.html\", 5xx = \"sorry.html\" }";
    let mut errors = ErrorPages::default();
    for item in entry.map("`errors`", WHAT)? {
        if item.key() == "intercept" {
            errors.intercept = item.boolean()?;
            continue;
        }
        let (from, to) = match item.key() {
            "4xx" => (400, 499),
            "5xx" => (500, 599),
            key => {
                let Ok(code @ 400..=599) = key.parse() else {
                    item.fault("expected a status from 400 to 599, `4xx`, `5xx` or `intercept`");
                    return None;
                };
                (code, code)
            }
        };
        errors.pages.push(page(&item, from, to)?);
    }
    if errors.pages.is_empty() {
        entry.expected(WHAT);
        return None;
    }
    errors.pages.sort_by_key(|page| page.to - page.from);
    Some(errors)
}

fn page(item: &Entry<'_>, from: u16, to: u16) -> Option<ErrorPage> {
    let path = item.path()?;
    let read = std::fs::metadata(&path).and_then(|facts| match facts.len() {
        0..=MOST_PAGE => std::fs::read_to_string(&path),
        _ => Err(std::io::Error::other("it is larger than 1 MiB")),
    });
    let text = read.map_err(|error| item.fault(format!("cannot read {}: {error}", path.display()))).ok()?;
    let guessed = mime_guess::from_path(&path).first();
    let content_type = guessed.map_or_else(|| "text/html".to_owned(), |guessed| guessed.essence_str().to_owned());
    let content_type = match content_type.as_str() {
        bare @ ("text/html" | "text/plain") => format!("{bare}; charset=utf-8"),
        other => other.to_owned(),
    };
    Some(ErrorPage { from, to, content_type, text, file: path.display().to_string() })
}
