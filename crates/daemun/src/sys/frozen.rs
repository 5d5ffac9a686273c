//! Copies that nobody can change any more, from which the kernel sends.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use rustix::mm::{MapFlags, ProtFlags};

use super::SharedMemory;

/// Bytes of a memory that copies share: a huge page, where pages have 4 KiB. `sendfile` looks small ones up one by one,
/// which is a tenth of what 100 KiB take.
const HUGE: usize = 2 << 20;

/// Shared memories at a time: one that is full stays as long as the last copy in it.
const MOST: usize = 16;

/// A copy that nobody can change any more.
#[derive(Clone, Debug)]
pub struct Frozen {
    /// Its bytes.
    pub bytes: Bytes,
    /// Where the kernel can send it from.
    pub descriptor: Arc<OwnedFd>,
    /// Where it begins there.
    pub offset: u64,
}

/// Where copies are made, many in one memory. They may outlive it.
#[derive(Debug, Default)]
pub struct Freezer(Mutex<Room>);

/// The memory that copies are put into now, and all that still have some.
#[derive(Debug, Default)]
struct Room {
    current: Option<Arc<SharedMemory>>,
    used: usize,
    all: Vec<Weak<SharedMemory>>,
}

impl Freezer {
    /// An empty one.
    pub const fn new() -> Self {
        Self(Mutex::new(Room { current: None, used: 0, all: Vec::new() }))
    }

    /// Copies `content`. Fails without memory or descriptors. It begins on a page of its own, so it should be some pages
    /// long; and at times the kernel has to find a huge page, which is no work for an event loop.
    pub fn freeze(&self, content: &[u8]) -> io::Result<Frozen> {
        let (memory, offset) = match self.room(content.len()) {
            Some(place) => place,
            None => (Arc::new(SharedMemory::new("daemun-file", content.len(), true)?), 0),
        };
        memory.write(offset, content);
        let descriptor = Arc::clone(&memory.descriptor);
        let bytes = Bytes::from_owner(Part { memory, range: offset..offset + content.len() });
        Ok(Frozen { bytes, descriptor, offset: offset as u64 })
    }

    /// A place of that length in a memory that copies share, which is given to nobody else. `None` where there are too many
    /// of them, or no more can be made, or it would take much of one.
    fn room(&self, length: usize) -> Option<(Arc<SharedMemory>, usize)> {
        if length > HUGE / 8 {
            return None;
        }
        let mut room = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = length.next_multiple_of(rustix::param::page_size());
        if room.current.is_none() || room.used + taken > HUGE {
            room.all.retain(|memory| memory.strong_count() > 0);
            if room.all.len() == MOST {
                return None;
            }
            let memory = Arc::new(SharedMemory::new("daemun-files", HUGE, true).ok()?);
            collapse(&memory);
            room.all.push(Arc::downgrade(&memory));
            (room.current, room.used) = (Some(memory), 0);
        }
        let place = (Arc::clone(room.current.as_ref()?), room.used);
        room.used += taken;
        Some(place)
    }
}

/// A part of a memory that was written for the last time: whoever has the descriptor can only read.
struct Part {
    memory: Arc<SharedMemory>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the range lies within the mapping, as `SharedMemory::write` has seen, which lives as long as `self` and is
        // sealed against being shortened. Nobody writes to it: `Freezer` gives each place once, has written it before this
        // value was made, and lets nobody else have the `SharedMemory`, on which all that writes is.
        unsafe { std::slice::from_raw_parts(self.memory.address.as_ptr().add(self.range.start), self.range.len()) }
    }
}

/// Puts a huge page in the place of small ones (Linux 6.1 and later; `MADV_COLLAPSE`, madvise(2)). Where the kernel has
/// none, or pages are of another size, all stays as it is: that sends as well, at a higher price.
fn collapse(memory: &SharedMemory) {
    // Of what has no page at all the kernel makes nothing.
    memory.write(0, &[0]);
    // The call wants an aligned mapping: in twice the space there is one.
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: new and of no content, at an address that the kernel chooses.
    let Ok(space) = (unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), 2 * HUGE, ProtFlags::empty(), flags) })
    else {
        return;
    };
    let aligned = space.wrapping_byte_add(space.cast::<u8>().align_offset(HUGE));
    // SAFETY: takes the place of what was just mapped, half of it from the first aligned address on, to which nothing refers.
    // The advice changes no byte, and that it is not taken is no error.
    unsafe {
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        if rustix::mm::mmap(aligned, HUGE, ProtFlags::READ, flags, &memory.descriptor, 0).is_ok() {
            libc::madvise(aligned, HUGE, libc::MADV_COLLAPSE);
        }
    }
    // SAFETY: both were mapped here, and nothing refers to them. A failure leaves addresses behind.
    let _ = unsafe { rustix::mm::munmap(space, 2 * HUGE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(frozen: &Frozen) -> Vec<u8> {
        let mut bytes = vec![0; frozen.bytes.len()];
        let read = rustix::io::pread(&frozen.descriptor, &mut bytes[..], frozen.offset).unwrap();
        bytes.truncate(read);
        bytes
    }

    #[test]
    fn copies_share_a_memory_and_none_is_in_anothers_place() {
        let freezer = Freezer::new();
        let contents: Vec<Vec<u8>> = (1..=30_u8).map(|number| vec![number; 10_000 * usize::from(number)]).collect();
        let copies: Vec<Frozen> = contents.iter().map(|content| freezer.freeze(content).unwrap()).collect();
        for (content, copy) in contents.iter().zip(&copies) {
            assert!(copy.bytes == content && sent(copy) == *content);
        }
        assert!(Arc::ptr_eq(&copies[0].descriptor, &copies[1].descriptor));
        assert_eq!(copies[1].offset % rustix::param::page_size() as u64, 0);
        let last = &copies[29];
        assert_eq!((last.offset, sent(last).len()), (0, 300_000), "what is long has a memory of its own");
    }

    #[test]
    fn nobody_who_has_the_descriptor_can_write() {
        let content = vec![b'x'; 50_000];
        let copy = Freezer::new().freeze(&content).unwrap();
        assert!(rustix::io::pwrite(&copy.descriptor, b"y", 0).is_err());
        assert!(rustix::fs::ftruncate(&copy.descriptor, 0).is_err());
        assert!(sent(&copy) == content);
    }

    #[test]
    fn memories_are_few_and_go_with_the_last_copy_in_them() {
        let freezer = Freezer::new();
        let content = vec![b'x'; HUGE / 8];
        let shared = |copy: &Frozen| rustix::fs::fstat(&copy.descriptor).unwrap().st_size == HUGE as i64;
        let mut copies: Vec<Frozen> = (0..8 * MOST).map(|_| freezer.freeze(&content).unwrap()).collect();
        assert!(copies.iter().all(shared));
        assert!(!shared(&freezer.freeze(&content).unwrap()), "one more would be a memory more");
        // One that keeps its whole memory, and seven that went.
        copies.drain(1..8);
        assert!(!shared(&freezer.freeze(&content).unwrap()));
        copies.remove(0);
        assert!(shared(&freezer.freeze(&content).unwrap()));
    }
}
