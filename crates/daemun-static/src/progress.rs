//! How far a build is, for whoever watches.

/// Hears how far a build is. Called from several threads.
pub trait Progress: Sync {
    /// A part of the work begins, of this many steps.
    fn begin(&self, what: &'static str, steps: usize);
    /// A step of it is done.
    fn step(&self);
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _what: &'static str, _steps: usize) {}

    fn step(&self) {}
}
