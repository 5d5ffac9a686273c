//! Why a tree could not be collected.

use std::path::{Path, PathBuf};

/// Why nothing was published. The tree that was there before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused something.
    #[error("{what} {}: {error}", path.display())]
    Io {
        /// What was tried, as `cannot read`.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// A source was there when its folder was listed, and no longer when it was read.
    #[error("{} vanished while the files were collected; collect again when nothing writes there", .0.display())]
    Vanished(PathBuf),
    /// A source grew, shrank or was replaced while it was read.
    #[error("{} changed while it was read; collect again when nothing writes there", .0.display())]
    Changed(PathBuf),
    /// A link that leads nowhere.
    #[error("{} is a broken symbolic link", .0.display())]
    BrokenLink(PathBuf),
    /// A link to a folder above it.
    #[error("{} is a symbolic link into a loop, or folders lie too deep", .0.display())]
    Loop(PathBuf),
    /// A file that is no file.
    #[error("{} is neither a file nor a folder", .0.display())]
    Special(PathBuf),
    /// Its name is not UTF-8.
    #[error("{}: the name is not UTF-8; a URL cannot name it reliably", .0.display())]
    Name(PathBuf),
    /// References cannot be rewritten in bytes that are no text.
    #[error(
        "{source_file}:{line}: not UTF-8 (byte {byte}); references in it cannot be rewritten; save the file as UTF-8, or leave it out with --ignore"
    )]
    NotUtf8 {
        /// The file's name below the tree.
        source_file: String,
        /// The line of the first such byte.
        line: usize,
        /// Its place.
        byte: usize,
    },
    /// A reference to a file that is not there.
    #[error("{source_file}:{line}: the file '{target}' could not be found; it is referred to as {reference}{hint}")]
    Missing {
        /// Where the reference stands.
        source_file: String,
        /// On which line.
        line: usize,
        /// What it comes to, below the tree.
        target: String,
        /// The reference as it is written.
        reference: String,
        /// The nearest name, if one is near.
        hint: String,
    },
    /// A reference out of the tree.
    #[error("{source_file}:{line}: the reference {reference} leads out of the static files")]
    Outside {
        /// Where the reference stands.
        source_file: String,
        /// On which line.
        line: usize,
        /// The reference as it is written.
        reference: String,
    },
    /// Files refer to one another in a ring, so that no name is ever final.
    #[error("{}: these files refer to one another in a ring, so their hashed names never settle (Django: Max post-process passes exceeded)", .0.join(", "))]
    Cycle(Vec<String>),
    /// Another build works in the same folder.
    #[error("another build is collecting to {}", .0.display())]
    Busy(PathBuf),
    /// A pattern or something else that we do not do as Django does.
    #[error("{0}")]
    Unsupported(String),
    /// The destination cannot be what was meant.
    #[error("{0}")]
    Destination(String),
}

impl Error {
    /// The error for this call on this file.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { what, path, error }
    }
}
