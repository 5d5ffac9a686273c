//! The gates that no compiler holds: imports go down only, files stay short and say what they are, every claim of
//! conformance names a test, every link leads somewhere, and the repository speaks of nothing but itself.
//!
//! Each gate is a plain function from text to faults, so that each also has a test that shows it can fail.

mod conformance;
mod floors;
mod links;
mod manual;
mod shape;
mod source;
mod words;

use std::path::{Path, PathBuf};

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the crate lies two folders below")
}

/// Folders that hold nothing that was written by hand.
const BUILT: &[&str] = &[
    ".git",
    "target",
    ".tools",
    ".demo",
    ".venv",
    "dist",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    "__pycache__",
];

/// A file that was written by hand.
struct File {
    /// Its path below the repository, with slashes.
    path: String,
    text: String,
}

/// Every text file below `folder` whose name ends in `ending`, sorted by path.
fn files(folder: &str, ending: &str) -> Vec<File> {
    let mut found = Vec::new();
    walk(&root().join(folder), ending, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn walk(folder: &Path, ending: &str, found: &mut Vec<File>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.map(|entry| entry.expect("a readable folder")) {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().expect("a file's type");
        if kind.is_dir() && !BUILT.contains(&name.as_str()) {
            walk(&path, ending, found);
        } else if kind.is_file() && name.ends_with(ending) {
            let below = path.strip_prefix(root()).expect("below the repository");
            // What is not UTF-8 is a picture or an archive.
            if let Ok(text) = std::fs::read_to_string(&path) {
                found.push(File { path: below.to_string_lossy().into_owned(), text });
            }
        }
    }
}

/// Fails with one fault a line.
fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "{} fault(s):\n{}", faults.len(), faults.join("\n"));
}
