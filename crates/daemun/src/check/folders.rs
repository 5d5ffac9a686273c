//! What lies in folders of static files and is not for visitors.

use std::path::{Path, PathBuf};

use super::Examination;
use super::scripts::has_shebang;
use crate::codes::Finding;
use crate::config::{Configuration, HandlerSettings, RouteSettings};
use crate::static_files::StaticSettings;

/// Entries of one folder tree that are looked at: enough for any site, and an end for a disk of archives.
const MOST: usize = 200_000;

/// Folders of version control.
const HISTORY: [&str; 3] = [".git", ".hg", ".svn"];

/// Endings of databases and of sources that a page of PHP consists of.
const PRIVATE: [&str; 6] = ["sqlite3", "sqlite", "db", "php", "phtml", "sql"];

/// Checks the roots of every static route, those that Django's settings make included.
pub(super) fn check(configuration: &Configuration, found: &[RouteSettings], examination: &mut Examination) {
    let routes = configuration.routes.iter().chain(found);
    let all: Vec<&StaticSettings> = routes
        .filter_map(|route| match &route.handler {
            HandlerSettings::Static(settings) => Some(settings),
            _ => None,
        })
        .collect();
    if all.is_empty() {
        return examination.skip(&["D307", "D409"], "there is no static route");
    }
    examination.run(&["D307", "D409"]);
    let mut seen: Vec<&Path> = Vec::new();
    for settings in all {
        for root in &settings.roots {
            if seen.contains(&root.path.as_path()) {
                continue;
            }
            seen.push(&root.path);
            one(settings, &root.path, examination);
        }
    }
}

fn one(settings: &StaticSettings, root: &Path, examination: &mut Examination) {
    for name in HISTORY {
        let path = root.join(name);
        if path.exists() {
            let message = format!("{} lies in a static root: the history of the project", path.display());
            examination.add(private(&path, message));
        }
    }
    for path in walk(root) {
        let below = path.strip_prefix(root).unwrap_or(&path);
        if is_barred(settings, root, below) {
            continue;
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let ending = Path::new(name).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if name == ".env" || name.starts_with(".env.") || PRIVATE.contains(&ending.to_ascii_lowercase().as_str()) {
            let message = format!("{} lies in a static root", path.display());
            examination.add(private(&path, message));
        } else if !settings.refuse_sources && (["cgi", "fcgi", "pl"].contains(&ending) || is_program(&path)) {
            let message =
                format!("{} lies in a static root, and no CGI route covers it: its source is sent", path.display());
            let finding = Finding::new("D307", message).at(path.display().to_string(), None);
            examination.add(finding.mend("move it below a CGI route, or write one for it"));
        }
    }
}

fn private(path: &Path, message: String) -> Finding {
    Finding::new("D409", message).at(path.display().to_string(), None).mend("move it out of the folder that is served")
}

/// Whether a file is a script that is run elsewhere.
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o111 != 0) && has_shebang(path)
}

/// Whether a CGI route covers a name, so that it is never sent.
fn is_barred(settings: &StaticSettings, root: &Path, below: &Path) -> bool {
    let name = below.to_string_lossy();
    settings.barred.iter().filter(|barred| barred.root == root).any(|barred| {
        let is_below = barred.folder.is_empty() || below.starts_with(barred.folder.trim_matches('/'));
        is_below && name.ends_with(barred.ending.as_str())
    })
}

/// Every file below a folder; links are not followed, and version control is left out.
pub(super) fn walk(root: &Path) -> impl Iterator<Item = PathBuf> {
    let mut folders = vec![root.to_path_buf()];
    let mut files: Vec<PathBuf> = Vec::new();
    let mut left = MOST;
    std::iter::from_fn(move || {
        loop {
            if let Some(file) = files.pop() {
                return Some(file);
            }
            let folder = folders.pop()?;
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten().take(left) {
                left -= 1;
                let is_history = entry.file_name().to_str().is_some_and(|name| HISTORY.contains(&name));
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() && !is_history => folders.push(entry.path()),
                    Ok(kind) if kind.is_file() => files.push(entry.path()),
                    _ => {}
                }
            }
            files.sort();
        }
    })
}
