//! What a build did.

use std::path::PathBuf;

/// What a build did, or in a dry run would do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Sources that were found.
    pub files: usize,
    /// Their bytes.
    pub source_bytes: u64,
    /// Files of the tree that they make: copies, hashed copies, siblings, the manifest.
    pub output_files: usize,
    /// Files that were written, by name.
    pub written: Vec<String>,
    /// Files that were there already, with these bytes.
    pub unmodified: usize,
    /// Files that have hashed names.
    pub hashed: usize,
    /// Compressed siblings.
    pub siblings: usize,
    /// Distinct contents among what was to be compressed.
    pub distinct: usize,
    /// Compressed contents that were in the cache.
    pub cached: usize,
    /// Compressed contents that had to be made.
    pub compressed: usize,
    /// Bytes that visitors need not fetch: each file once, by its smallest sibling.
    pub saved_bytes: u64,
    /// Files that were not collected since one of their name came first, and that one.
    pub shadowed: Vec<(PathBuf, PathBuf)>,
    /// Files that were removed.
    pub removed: Vec<String>,
    /// What is odd, but hinders nothing.
    pub warnings: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}
