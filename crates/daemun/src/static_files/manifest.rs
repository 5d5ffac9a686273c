//! Which names are hashed, as the manifest of Django's `ManifestStaticFilesStorage` says.
//!
//! `staticfiles.json` is `{"paths": {"a.css": "a.55e7cbb9ba48.css", …}, "version": "1.1", "hash": "…"}`. A name that
//! carries the hash of its content can never mean another content: it may be kept for ever (RFC 8246). Bytes only; the
//! reading is `lookup`'s.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

/// The manifest's name below the first root; `manifest_name` of Django's storage.
pub(super) const NAME: &str = "staticfiles.json";

/// Bytes that are read of a manifest: some 100 for each file make this 600,000 files.
pub(super) const LONGEST: u64 = 64 * 1024 * 1024;

/// Why a manifest cannot be used. The files are served all the same, without `immutable`.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ManifestError {
    /// It is not there.
    #[error("staticfiles.json is not there: the files have not been collected")]
    Absent,
    /// It cannot be read.
    #[error("staticfiles.json cannot be read: {0}")]
    Unreadable(String),
    /// It is not what Django's storage writes.
    #[error("staticfiles.json is not a manifest: {0}")]
    Malformed(String),
    /// A later Django wrote it.
    #[error("staticfiles.json has version {0:?}, and only 1.0 and 1.1 are known")]
    Version(String),
}

/// The names that carry the hash of their content.
#[derive(Debug, Default)]
pub(super) struct Manifest {
    hashed: HashSet<Box<[u8]>>,
}

impl Manifest {
    /// The manifest in these bytes.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let written: Written =
            serde_json::from_slice(bytes).map_err(|error| ManifestError::Malformed(error.to_string()))?;
        if !matches!(written.version.as_str(), "1.0" | "1.1") {
            return Err(ManifestError::Version(written.version));
        }
        // A storage may leave names as they are; those are not hashed.
        let hashed = written.paths.into_iter().filter(|(plain, hashed)| plain != hashed);
        Ok(Self { hashed: hashed.map(|(_, hashed)| hashed.into_bytes().into_boxed_slice()).collect() })
    }

    /// Whether this name carries the hash of its content.
    pub(super) fn is_hashed(&self, name: &[u8]) -> bool {
        self.hashed.contains(name)
    }
}

/// The plain name of a hashed one, as the manifest in these bytes has it: for questions, not for requests.
pub(super) fn plain_name(bytes: &[u8], hashed: &[u8]) -> Option<Vec<u8>> {
    let written: Written = serde_json::from_slice(bytes).ok()?;
    let plain = written.paths.into_iter().find(|(plain, name)| plain != name && name.as_bytes() == hashed);
    plain.map(|(plain, _)| plain.into_bytes())
}

#[derive(Deserialize)]
struct Written {
    paths: HashMap<String, String>,
    version: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hashed_names_are_those_that_differ_from_the_plain_ones() {
        let json =
            br#"{"paths": {"a.css": "a.55e7cbb9ba48.css", "same.txt": "same.txt"}, "version": "1.1", "hash": "x"}"#;
        let manifest = Manifest::parse(json).unwrap();
        assert!(manifest.is_hashed(b"a.55e7cbb9ba48.css"));
        assert!(!manifest.is_hashed(b"a.css"));
        assert!(!manifest.is_hashed(b"same.txt"));
        assert_eq!(plain_name(json, b"a.55e7cbb9ba48.css").as_deref(), Some(&b"a.css"[..]));
        assert_eq!(plain_name(json, b"same.txt"), None);
    }

    #[test]
    fn a_broken_manifest_says_what_is_wrong_with_it() {
        for (json, want) in [
            (&b"{"[..], "is not a manifest: EOF"),
            (b"", "is not a manifest"),
            (b"[]", "is not a manifest"),
            (b"{\"version\": \"1.1\"}", "missing field `paths`"),
            (b"{\"paths\": {\"a\": 1}, \"version\": \"1.1\"}", "invalid type"),
            (b"{\"paths\": {}, \"version\": \"2.0\"}", "version \"2.0\""),
            (b"\xff", "is not a manifest"),
        ] {
            let error = Manifest::parse(json).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
