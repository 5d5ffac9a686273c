//! Whose a file is: the application or the setting that brings it to a Django project. For `explain` alone.
//!
//! Nobody writes down where a collected file came from, and whoever did could be Django's own command: the folders of
//! the project's finders are looked through again, in their order, under the name that the file had before it got its
//! hash.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::coding::Coding;
use super::settings::{Owner, Source};

/// Digits of the hash that Django's storages put before a name's ending.
const HASH: usize = 12;

/// A file that a finder finds under a name.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Found<'a> {
    /// The file.
    pub(super) path: PathBuf,
    /// Who brings it.
    pub(super) owner: &'a Owner,
    /// Whether it lies there under a name without a hash that no manifest tells any more.
    pub(super) is_of_old: bool,
}

/// What the finders have under this name, the first first: the others are hidden by it.
pub(super) fn find<'a>(sources: &'a [Source], name: &[u8]) -> Vec<Found<'a>> {
    let found = sources.iter().filter_map(|source| {
        let below = below(source, name).filter(|below| !below.is_empty())?;
        let path = source.root.path.join(OsStr::from_bytes(below));
        path.is_file().then_some(Found { path, owner: &source.owner, is_of_old: false })
    });
    found.collect()
}

/// The same for a name below the folder that was collected to. `plain` is what the manifest calls a hashed name.
pub(super) fn find_collected<'a>(
    sources: &'a [Source],
    name: &[u8],
    plain: impl Fn(&[u8]) -> Option<Vec<u8>>,
) -> Vec<Found<'a>> {
    let packed = Coding::ALL.iter().find_map(|coding| name.strip_suffix(coding.suffix().as_bytes()));
    for name in [Some(name), packed].into_iter().flatten() {
        let found = find(sources, name);
        if !found.is_empty() {
            return found;
        }
        if let Some(plain) = plain(name) {
            return find(sources, &plain);
        }
        let found = without_hash(name).map(|plain| find(sources, &plain)).unwrap_or_default();
        if !found.is_empty() {
            return found.into_iter().map(|found| Found { is_of_old: true, ..found }).collect();
        }
    }
    Vec::new()
}

/// Whose the folder `root` is, where it is one that the finders look through.
pub(super) fn owner<'a>(sources: &'a [Source], root: &Path, name: &[u8]) -> Option<&'a Owner> {
    let source = sources.iter().find(|source| source.root.path == root && below(source, name).is_some())?;
    Some(&source.owner)
}

fn below<'a>(source: &Source, name: &'a [u8]) -> Option<&'a [u8]> {
    match source.root.prefix.trim_matches('/') {
        "" => Some(name),
        prefix => name.strip_prefix(prefix.as_bytes())?.strip_prefix(b"/"),
    }
}

/// `css/site.css` for `css/site.55e7cbb9ba48.css`.
pub(super) fn without_hash(name: &[u8]) -> Option<Vec<u8>> {
    let cut = name.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let last = &name[cut..];
    // A name without an ending carries its hash at its end.
    let dot = last.iter().rposition(|&byte| byte == b'.')?;
    let (stem, ending) = last.split_at(dot);
    let is_hash = |part: &[u8]| part.len() == HASH && part.iter().all(u8::is_ascii_hexdigit);
    if is_hash(&ending[1..]) {
        return Some(name[..cut + dot].to_vec());
    }
    let hash = stem.iter().rposition(|&byte| byte == b'.')?;
    is_hash(&stem[hash + 1..]).then(|| [&name[..cut + hash], ending].concat())
}

#[cfg(test)]
mod tests {
    use super::super::settings::Root;
    use super::*;

    #[test]
    fn a_hash_is_taken_out_where_django_puts_it() {
        for (name, plain) in [
            ("css/site.55e7cbb9ba48.css", Some("css/site.css")),
            ("a.min.55e7cbb9ba48.js", Some("a.min.js")),
            ("LICENSE.55e7cbb9ba48", Some("LICENSE")),
            ("css/site.css", None),
            ("css.55e7cbb9ba48/site.css", None),
            ("site.55e7cbb9ba4.css", None),
            ("site.55e7cbb9ba4z.css", None),
        ] {
            assert_eq!(without_hash(name.as_bytes()).as_deref(), plain.map(str::as_bytes), "{name}");
        }
    }

    #[test]
    fn the_first_folder_that_has_the_name_brings_it_whatever_it_is_called_by_now() {
        let folder = tempfile::tempdir().unwrap();
        let source = |name: &str, prefix: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("a.css"), name).unwrap();
            let root = Root { path, prefix: prefix.to_owned() };
            Source { root, owner: Owner::Application(name.to_owned()) }
        };
        let sources = [source("vendor", "vendor"), source("one", ""), source("two", "")];
        let names = |found: Vec<Found<'_>>| {
            let name =
                |found: &Found<'_>| (found.path.parent().unwrap().file_name().unwrap().to_owned(), found.is_of_old);
            found.iter().map(name).map(|(name, old)| (name.into_string().unwrap(), old)).collect::<Vec<_>>()
        };
        let both = |old| vec![("one".to_owned(), old), ("two".to_owned(), old)];
        let plain = |name: &[u8]| (name == b"a.123456789abc.css").then(|| b"a.css".to_vec());
        let collected = |name: &str| names(find_collected(&sources, name.as_bytes(), plain));
        assert_eq!(collected("a.css"), both(false));
        assert_eq!(collected("a.123456789abc.css"), both(false));
        assert_eq!(collected("a.123456789abc.css.br"), both(false));
        assert_eq!(collected("a.000000000000.css"), both(true));
        assert_eq!(collected("vendor/a.css"), [("vendor".to_owned(), false)]);
        assert_eq!(collected("vendors/a.css"), []);
        assert_eq!(collected("vendor"), []);
        assert_eq!(owner(&sources, &folder.path().join("two"), b"a.css"), Some(&sources[2].owner));
        assert_eq!(owner(&sources, folder.path(), b"a.css"), None);
    }
}
