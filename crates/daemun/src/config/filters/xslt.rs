//! `xslt = { stylesheet = "feed.xsl" }`, or `xslt = true`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::section::{Entry, Keys, Section};
use crate::filter::XsltSettings;
use crate::router::PathPattern;

pub(super) const XSLT: Keys =
    Keys { known: &["stylesheet", "root", "params", "on_error", "max_size", "timeout"], later: &[] };

/// A feed of ten thousand entries.
const MAX_SIZE: u64 = 8 << 20;

/// A large document takes a hundredth of it.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the filter of a route; `route` is the table that it stands in.
pub(super) fn read(entry: &Entry<'_>, route: &Section<'_>, path: Option<&PathPattern>) -> Option<XsltSettings> {
    const WHAT: &str = "`true`, or a table such as { stylesheet = \"feed.xsl\" }";
    if !entry.is_table() {
        entry.boolean()?.then_some(())?;
        let root = of_route(route).or_else(|| {
            entry.fault(
                "for this handler it needs a folder: { root = \"public\" }, where stylesheets are looked up by URL",
            );
            None
        })?;
        return Some(settings(root, None, prefix(path)));
    }
    let section = entry.section("`xslt`", WHAT, XSLT)?;
    let root = section.entry("root").map(|entry| Some((entry.path()?, entry)));
    let root = match root {
        Some(found) => Some(found?),
        None => None,
    };
    let mut made = if let Some(entry) = section.entry("stylesheet") {
        with_stylesheet(&entry, root.as_ref().map(|(root, _)| root.as_path()))?
    } else {
        let own = of_route(route).map(|root| settings(root, None, prefix(path)));
        let named = root.as_ref().map(|(root, _)| settings(root.clone(), None, String::new()));
        named.or(own).or_else(|| {
            entry.fault("it needs a `stylesheet`, or a `root` where those that documents name are looked up by URL");
            None
        })?
    };
    if let Some((root, entry)) = root.filter(|(root, _)| !root.is_dir()) {
        entry.fault(format!("{} is not a folder", root.display()));
        return None;
    }
    if let Some(entry) = section.entry("params") {
        let items = entry.map("`params`", "a table such as { title = \"News\" }")?;
        made.parameters =
            items.iter().map(|item| Some((item.key().to_owned(), item.text()?))).collect::<Option<_>>()?;
    }
    if let Some(entry) = section.entry("on_error") {
        made.passes_on_error = entry.parse("\"500\" or \"pass\"", |text| match text {
            "500" => Ok(false),
            "pass" => Ok(true),
            _ => Err(format!("expected \"500\" or \"pass\", found {text:?}")),
        })?;
    }
    made.max_size = section.entry("max_size").map_or(Some(made.max_size), |entry| entry.size())?;
    made.timeout = section.entry("timeout").map_or(Some(made.timeout), |entry| entry.positive_duration())?;
    Some(made)
}

fn settings(root: PathBuf, stylesheet: Option<String>, prefix: String) -> XsltSettings {
    XsltSettings {
        root,
        stylesheet,
        prefix,
        parameters: Vec::new(),
        passes_on_error: false,
        max_size: MAX_SIZE,
        timeout: TIMEOUT,
    }
}

/// A stylesheet lies below the root; without one its own folder is it.
fn with_stylesheet(entry: &Entry<'_>, root: Option<&Path>) -> Option<XsltSettings> {
    let path = entry.path()?;
    let path = match root {
        // Relative to the root where it is not relative to the file.
        Some(root) if !path.starts_with(root) => root.join(entry.text()?),
        _ => path,
    };
    if !path.is_file() {
        entry.fault(format!("there is no file {}", path.display()));
        return None;
    }
    let root = root.or_else(|| path.parent())?;
    let name = path.strip_prefix(root).ok().and_then(Path::to_str);
    let Some(name) = name else {
        entry.fault(format!("it lies outside of the root {}", root.display()));
        return None;
    };
    Some(settings(root.to_owned(), Some(format!("/{name}")), String::new()))
}

/// The folder of a route with `static`.
fn of_route(route: &Section<'_>) -> Option<PathBuf> {
    let files = route.entry("static").filter(Entry::is_table)?;
    let root = files.map("`static`", "a table")?.into_iter().find(|entry| entry.key() == "root")?;
    if root.is_text() { root.path() } else { None }
}

/// What that folder stands for.
fn prefix(path: Option<&PathPattern>) -> String {
    match path {
        Some(PathPattern::Prefix { prefix, .. }) => prefix.trim_end_matches('/').to_owned(),
        _ => String::new(),
    }
}
