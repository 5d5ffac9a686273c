//! What there is: every file that matters below the watched folders.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Purpose, WatchSettings};

/// Folders that are looked into: a large project has some thousands, a home folder hundreds of thousands.
pub(super) const MOST_FOLDERS: usize = 20_000;

/// Folders that hold others' files, or what is made from ours.
const OTHERS: &[&str] = &["__pycache__", "node_modules", "site-packages", "bower_components"];

/// What files are for, by the end of their names.
const PURPOSES: &[(Purpose, &[&str])] = &[
    (Purpose::Code, &["py", "mo"]),
    (Purpose::Template, &["html", "htm", "djhtml", "jinja", "jinja2", "j2", "mako", "pt", "tmpl", "tpl", "txt", "xml"]),
    (Purpose::Asset, &["css", "js", "mjs", "svg", "png", "jpg", "jpeg", "gif", "webp", "avif", "ico", "woff2"]),
];

/// One look.
#[derive(Debug, Default)]
pub(super) struct Tree {
    files: BTreeMap<PathBuf, (Purpose, State)>,
    /// Each with its inode: one that was removed and made anew is another.
    pub(super) folders: BTreeSet<(PathBuf, u64)>,
}

/// What tells one content of a file from another. Not its inode, which is another at each look on some network drives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct State {
    modified: (i64, i64),
    size: u64,
}

impl Tree {
    /// Looks at everything; false where there was too much.
    pub(super) fn read(settings: &WatchSettings) -> (Self, bool) {
        let mut tree = Self::default();
        let templates: BTreeSet<PathBuf> =
            settings.templates.iter().filter_map(|path| path.canonicalize().ok()).collect();
        let mut todo: Vec<(PathBuf, bool)> = templates.iter().map(|folder| (folder.clone(), true)).collect();
        let folders = settings.folders.iter().filter_map(|path| path.canonicalize().ok());
        todo.extend(folders.map(|folder| (folder, false)));
        let mut seen = BTreeSet::new();
        while let Some((folder, is_templates)) = todo.pop() {
            if tree.folders.len() >= MOST_FOLDERS {
                return (tree, false);
            }
            let is_templates = is_templates || templates.contains(&folder);
            if !seen.insert((folder.clone(), is_templates)) {
                continue;
            }
            tree.read_folder(&folder, is_templates, &mut todo);
        }
        for path in &settings.files {
            // In whatever way it is replaced: its folder is told of that, and of nothing else that counts.
            if let Some((folder, found)) = path.parent().and_then(|folder| Some((folder, fs::metadata(folder).ok()?))) {
                tree.folders.insert((folder.to_owned(), found.ino()));
            }
            if let Ok(found) = fs::metadata(path) {
                tree.files.insert(path.clone(), (Purpose::Code, State::of(&found)));
            }
        }
        (tree, true)
    }

    fn read_folder(&mut self, folder: &Path, is_templates: bool, todo: &mut Vec<(PathBuf, bool)>) {
        let Ok(found) = fs::metadata(folder) else { return };
        self.folders.insert((folder.to_owned(), found.ino()));
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            // Editors keep their swap files and locks in names that begin so.
            if name.as_encoded_bytes().starts_with(b".") || name.as_encoded_bytes().ends_with(b"~") {
                continue;
            }
            let Ok(found) = fs::metadata(&path) else { continue };
            if found.is_dir() {
                // A link may lead out of the project and round in circles: its target is watched where it is named.
                let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
                if !is_link && !is_others(&name, &path) {
                    todo.push((path, is_templates));
                }
            } else if let Some(purpose) = purpose(&path, is_templates) {
                let known = self.files.entry(path).or_insert((purpose, State::of(&found)));
                known.0 = known.0.max(purpose);
            }
        }
    }

    /// What differs from an earlier look: files that are new, gone or other.
    pub(super) fn changes_since(&self, before: &Self) -> Vec<(PathBuf, Purpose)> {
        let other = |(path, now): &(&PathBuf, &(Purpose, State))| before.files.get(*path) != Some(*now);
        let gone = before.files.iter().filter(|(path, _)| !self.files.contains_key(*path));
        let differing = self.files.iter().filter(other).chain(gone);
        differing.map(|(path, (purpose, _))| (path.clone(), *purpose)).collect()
    }
}

impl State {
    fn of(found: &Metadata) -> Self {
        Self { modified: (found.mtime(), found.mtime_nsec()), size: found.size() }
    }
}

/// Whether a folder is not the project's own: known by its name, or a virtual environment.
fn is_others(name: &OsStr, path: &Path) -> bool {
    name.to_str().is_some_and(|name| OTHERS.contains(&name)) || path.join("pyvenv.cfg").exists()
}

fn purpose(path: &Path, is_templates: bool) -> Option<Purpose> {
    let end = path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
    let end = end.as_deref().unwrap_or_default();
    let found = PURPOSES.iter().find(|(_, ends)| ends.contains(&end)).map(|(purpose, _)| *purpose);
    if is_templates && found != Some(Purpose::Code) { Some(Purpose::Template) } else { found }
}
