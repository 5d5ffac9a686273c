//! A static tree on disk: sources, fingerprints, references, compression, publishing, manifest.
//!
//! [`collect()`] makes of source folders just the tree that Django's `collectstatic` makes with the same settings, byte
//! for byte, and compressed siblings as whitenoise makes them. It knows no Django: what a storage does is in
//! [`Settings`]. It knows no server either; no socket, no runtime, no `unsafe`.
//!
//! The way of a build: `sources` lists; `content` reads each file once; `references` and `hashing` give names and
//! rewrite; `compression` packs each distinct content, with `cache` between builds; `publish` writes everything aside
//! and renames it into place, the `manifest` last; `retired` lets go of old names after their time.
#![forbid(unsafe_code)]

mod cache;
mod collect;
mod compression;
mod content;
mod error;
mod glob;
mod hashing;
mod manifest;
mod pattern;
mod progress;
mod publish;
mod references;
mod report;
mod retired;
mod settings;
mod sources;
mod url;

#[cfg(test)]
mod tests;

pub use collect::run as collect;
pub use compression::compress_in_place;
pub use error::Error;
pub use pattern::{PythonPattern, Substitution};
pub use progress::{Progress, Silent};
pub use report::Report;
pub use settings::{
    COMPRESSED_EXTENSIONS, CacheSettings, Compression, Hashing, Kind, ManifestSettings, Rewriting, Settings, Source,
};
