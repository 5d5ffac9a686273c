//! The two bytes that a front and a worker share for each request in flight: has it begun, is it asked for back.
//!
//! Both sides call the same lines: the pool here, the accelerator in the worker (its build takes this file in, so nothing
//! beyond `core` stands here). `shim.py` does in Python what [`Flags::start`] does.

use core::sync::atomic::{AtomicU8, Ordering};

/// A byte that others may read and write at any time: an [`AtomicU8`], in the model loom's.
pub(crate) trait Byte {
    /// Reads it.
    fn load(&self, order: Ordering) -> u8;
    /// Writes it.
    fn store(&self, value: u8, order: Ordering);
    /// A barrier between what this processor does before and after it.
    fn fence(order: Ordering);
}

impl Byte for AtomicU8 {
    fn load(&self, order: Ordering) -> u8 {
        self.load(order)
    }

    fn store(&self, value: u8, order: Ordering) {
        self.store(value, order);
    }

    fn fence(order: Ordering) {
        core::sync::atomic::fence(order);
    }
}

/// The flags of one slot. Any value but 0 means yes: a worker can write what it likes, and it is never an index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flags<'a, B> {
    /// The worker writes it just before it calls the application.
    pub(crate) started: &'a B,
    /// The front writes it to have the request back.
    pub(crate) revoked: &'a B,
}

impl<B: Byte> Flags<'_, B> {
    /// Worker: says that the application is being called. False if the request was taken back: then it must not be.
    ///
    /// One side stores *started* and then loads *revoked*, the other stores *revoked* and then loads *started*. Without
    /// the barriers each could miss the other's store, which may still be on its way out of the processor.
    pub(crate) fn start(&self) -> bool {
        self.started.store(1, Ordering::Release);
        B::fence(Ordering::SeqCst);
        self.revoked.load(Ordering::Acquire) == 0
    }
}
