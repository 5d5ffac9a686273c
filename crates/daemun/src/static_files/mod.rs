//! Static files: contained below their root by construction.

mod settings;

pub use settings::{Missing, Root, StaticSettings};
