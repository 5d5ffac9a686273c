//! What there is to collect: every file of every source, in the order in which Django's finders list them.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::glob;
use crate::settings::Source;

/// Folders below folders: more are a loop of links.
const DEEPEST: usize = 100;

/// A file that was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Found {
    /// Its name below the destination, with slashes.
    pub(crate) name: String,
    /// Where the name below its source begins in it: behind the prefix.
    pub(crate) below: usize,
    /// Where it is read.
    pub(crate) path: PathBuf,
}

/// Everything that was found.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) files: Vec<Found>,
    /// Files that are not collected, since one of that name came first; with that one.
    pub(crate) shadowed: Vec<(PathBuf, PathBuf)>,
}

/// Lists every source. Nothing is sorted: the order of a folder's entries is that of Django, and of its manifest.
pub(crate) fn list(sources: &[Source], ignore: &[String], destination: &Path) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    let mut names: HashMap<String, usize> = HashMap::new();
    let own = identity(destination);
    let ignore: Vec<String> = ignore.iter().map(|pattern| crate::url::normal(pattern)).collect();
    for source in sources {
        // A folder that is not there is skipped, as Django does.
        if !source.path.is_dir() {
            continue;
        }
        let mut walk = Walk { ignore: &ignore, destination: own, found: Vec::new() };
        walk.folder(&source.path, "", 0)?;
        for (below, path) in walk.found {
            let name = crate::url::join(&source.prefix, &below);
            if let Some(&first) = names.get(&name) {
                listing.shadowed.push((path, listing.files[first].path.clone()));
                continue;
            }
            names.insert(name.clone(), listing.files.len());
            listing.files.push(Found { below: name.len() - below.len(), name, path });
        }
    }
    Ok(listing)
}

/// Names that differ in their letters' case only: on some disks they are one file.
pub(crate) fn case_twins(files: &[Found]) -> Vec<(String, String)> {
    let mut seen: HashMap<String, &str> = HashMap::new();
    let twins = files.iter().filter_map(|file| {
        seen.insert(file.name.to_lowercase(), &file.name).map(|other| (other.to_owned(), file.name.clone()))
    });
    twins.collect()
}

struct Walk<'a> {
    ignore: &'a [String],
    /// Device and number of the folder that we write to.
    destination: Option<(u64, u64)>,
    found: Vec<(String, PathBuf)>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path, name: &str, depth: usize) -> Result<(), Error> {
        if depth > DEEPEST {
            return Err(Error::Loop(folder.to_owned()));
        }
        let entries = fs::read_dir(folder).map_err(|error| gone(folder, "cannot list", error))?;
        let mut folders = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("cannot list", folder))?;
            let path = entry.path();
            let Some(own) = entry.file_name().to_str().map(str::to_owned) else {
                let shown = entry.file_name().to_string_lossy().into_owned();
                if self.is_ignored(&shown) {
                    continue;
                }
                return Err(Error::Name(path));
            };
            if self.is_ignored(&own) {
                continue;
            }
            let full = crate::url::join(name, &own);
            let kind = entry.file_type().map_err(Error::io("cannot look at", &path))?;
            let kind = if kind.is_symlink() { target(&path)? } else { kind };
            if kind.is_dir() {
                // What we write must not become what we read.
                if self.destination.is_none() || identity(&path) != self.destination {
                    folders.push((path, full));
                }
            } else if kind.is_file() {
                if name.is_empty() || !self.is_ignored(&full) {
                    self.found.push((full, path));
                }
            } else {
                return Err(Error::Special(path));
            }
        }
        for (path, full) in folders {
            self.folder(&path, &full, depth + 1)?;
        }
        Ok(())
    }

    fn is_ignored(&self, name: &str) -> bool {
        self.ignore.iter().any(|pattern| glob::matches(name, pattern))
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

fn target(link: &Path) -> Result<fs::FileType, Error> {
    match fs::metadata(link) {
        Ok(found) => Ok(found.file_type()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::BrokenLink(link.to_owned())),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            Err(Error::Loop(link.to_owned()))
        }
        Err(error) => Err(Error::io("cannot follow", link)(error)),
    }
}

fn gone(path: &Path, what: &'static str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::Vanished(path.to_owned()),
        _ => Error::io(what, path)(error),
    }
}
