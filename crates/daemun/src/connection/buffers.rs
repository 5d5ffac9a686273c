//! Buffers of an event loop, lent to connections while they have something to read or write.
//!
//! An idle connection holds none, so ten thousand of them cost their sockets and tasks only; a busy one gets memory
//! that is warm in the cache.

use std::cell::RefCell;

use bytes::BytesMut;

/// Bytes of a read buffer: a browser's head with its cookies, and small forms with it.
pub(super) const READ_SIZE: usize = 8 * 1024;

/// Bytes of a read buffer for bodies: each read is a system call, and the kernel has about that much for us at a time.
pub(super) const BODY_SIZE: usize = 64 * 1024;

/// Buffers for bodies that a thread keeps: 512 KiB. Without them the allocator gives the memory back to the system after
/// each body and faults it in again for the next.
const MAX_KEPT_BODY: usize = 8;

/// Bytes that a write buffer may keep.
const MAX_KEPT_WRITE: usize = 64 * 1024;

/// Buffers of each kind that a thread keeps: what a burst needs, at most 4.5 MiB.
const MAX_KEPT: usize = 64;

thread_local! {
    static READ: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static BODY: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static WRITE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer for [`READ_SIZE`] bytes.
pub(super) fn take_read() -> BytesMut {
    READ.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(READ_SIZE))
}

/// An empty buffer for [`BODY_SIZE`] bytes.
pub(super) fn take_body() -> BytesMut {
    BODY.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(BODY_SIZE))
}

/// Gives a buffer of either kind back. It is dropped if somebody still holds a part of what was read, or if it has grown.
pub(super) fn give_read(mut buffer: BytesMut) {
    buffer.clear();
    if buffer.try_reclaim(BODY_SIZE) {
        if buffer.capacity() <= 2 * BODY_SIZE {
            keep(&BODY, buffer, MAX_KEPT_BODY);
        }
    } else if buffer.try_reclaim(READ_SIZE) && buffer.capacity() <= 2 * READ_SIZE {
        keep(&READ, buffer, MAX_KEPT);
    }
}

fn keep(kept: &'static std::thread::LocalKey<RefCell<Vec<BytesMut>>>, buffer: BytesMut, most: usize) {
    kept.with_borrow_mut(|kept| {
        if kept.len() < most {
            kept.push(buffer);
        }
    });
}

/// An empty buffer.
pub(super) fn take_write() -> Vec<u8> {
    WRITE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives a buffer back.
pub(super) fn give_write(mut buffer: Vec<u8>) {
    buffer.clear();
    if buffer.capacity() <= MAX_KEPT_WRITE && buffer.capacity() > 0 {
        WRITE.with_borrow_mut(|kept| {
            if kept.len() < MAX_KEPT {
                kept.push(buffer);
            }
        });
    }
}
