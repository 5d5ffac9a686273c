//! What workers lay into memory that the front shares with them, piece by piece, instead of writing it down their lanes:
//! the kernel sends it to the client from there, and nothing copies it on the way.
//!
//! A worker may change what lies there at any time, also while it is sent. Nobody here looks at a byte of it: it goes from
//! there into the client's socket, or is copied, and what came of that is the piece.

use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};

use bytes::{Buf, Bytes};
use daemun_protocol::frame::{LANE_PAGE, SHELF, SHELF_BLOCK, SHELF_BLOCKS, SLOTS, laid};
use rustix::net::{SendAncillaryBuffer, SendFlags};

use super::signal::LaneError;
use crate::http::LaidPiece;
use crate::sys::SharedMemory;

/// Bytes of a piece that came down the lane from which on it is a sign that the worker found no room on its shelf.
pub(super) const WORTH_LAYING: usize = 16 * 1024;

/// The shelf of one lane.
#[derive(Debug)]
pub(super) struct Shelf {
    page: Arc<SharedMemory>,
    memory: Arc<SharedMemory>,
    thread: usize,
    /// What may still lie there, and for which request.
    lying: Mutex<Vec<(u32, Weak<Mutex<Place>>)>>,
}

/// A piece of an answer that lies on a shelf, or did: whoever needs the room copies it.
pub(super) struct Laid {
    place: Arc<Mutex<Place>>,
    length: usize,
}

/// Where a piece is.
#[derive(Debug)]
enum Place {
    Shelf(Blocks, Range<usize>),
    Memory(Bytes),
}

/// Blocks of a shelf, given back on drop.
#[derive(Debug)]
struct Blocks {
    shelf: Arc<Shelf>,
    taken: Range<usize>,
}

// === impl Shelf ===

impl Shelf {
    /// That of the lane of this number; `memory` holds those of all lanes of a worker, `page` says what is taken.
    pub(super) fn new(page: &Arc<SharedMemory>, memory: &Arc<SharedMemory>, thread: usize) -> Arc<Self> {
        Arc::new(Self { page: Arc::clone(page), memory: Arc::clone(memory), thread, lying: Mutex::default() })
    }

    /// The piece for `request` of which a worker says that it lies here.
    pub(super) fn find(self: &Arc<Self>, request: u32, payload: &[u8]) -> Result<Laid, LaneError> {
        let (offset, length) = laid(payload)?;
        let (offset, length) = (offset as usize, length as usize);
        if !offset.is_multiple_of(SHELF_BLOCK) || length > SHELF || offset > SHELF - length {
            return Err(LaneError::Beside);
        }
        let taken = offset / SHELF_BLOCK..(offset + length).div_ceil(SHELF_BLOCK);
        let begin = SHELF * self.thread + offset;
        let blocks = Blocks { shelf: Arc::clone(self), taken };
        let place = Arc::new(Mutex::new(Place::Shelf(blocks, begin..begin + length)));
        let mut lying = lock(&self.lying);
        lying.retain(|(_, place)| place.strong_count() > 0);
        // Each has a block of its own.
        if lying.len() >= SHELF_BLOCKS {
            return Err(LaneError::Beside);
        }
        lying.push((request, Arc::downgrade(&place)));
        Ok(Laid { place, length })
    }

    /// Copies what lies here for others than `request`, so that there is room: their clients take their time, and this
    /// lane's thread is past them. What is just being sent stays.
    pub(super) fn clear(&self, request: u32) {
        // The lock is given back first: to copy the last of something drops it.
        let others: Vec<_> = {
            let mut lying = lock(&self.lying);
            lying.extract_if(.., |(other, _)| *other != request).filter_map(|(_, place)| place.upgrade()).collect()
        };
        for place in others {
            let mut place = match place.try_lock() {
                Ok(place) => place,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => continue,
            };
            // One that cannot be copied now stays, and fails or not when its client wants it.
            if let Ok(bytes) = place.read() {
                *place = Place::Memory(bytes);
            }
        }
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        let first = LANE_PAGE * self.shelf.thread + 2 * SLOTS;
        for block in self.taken.clone().take(SHELF_BLOCKS) {
            if let Some(flag) = self.shelf.page.byte(first + block) {
                // Behind every read of what lies there.
                flag.store(0, Ordering::Release);
            }
        }
    }
}

// === impl Laid ===

impl Laid {
    /// A copy of what is left of it.
    pub(super) fn into_bytes(self) -> io::Result<Bytes> {
        lock(&self.place).read().map(|bytes| bytes.slice(..self.length))
    }
}

impl LaidPiece for Laid {
    fn length(&self) -> usize {
        self.length
    }

    fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    fn advance(&mut self, bytes: usize) {
        self.length -= bytes;
        match &mut *lock(&self.place) {
            Place::Shelf(_, part) => part.start += bytes,
            Place::Memory(left) => left.advance(bytes),
        }
    }

    fn send(&self, socket: BorrowedFd<'_>, before: &[u8], after: &[u8]) -> io::Result<usize> {
        match &*lock(&self.place) {
            Place::Shelf(blocks, part) => {
                blocks.shelf.memory.send(socket, before, part.start..part.start + self.length, after)
            }
            Place::Memory(bytes) => {
                let parts = [IoSlice::new(before), IoSlice::new(&bytes[..self.length]), IoSlice::new(after)];
                let mut nothing = SendAncillaryBuffer::default();
                let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                Ok(rustix::net::sendmsg(socket, &parts, &mut nothing, flags)?)
            }
        }
    }
}

impl fmt::Debug for Laid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Laid({})", self.length)
    }
}

// === impl Place ===

impl Place {
    fn read(&self) -> io::Result<Bytes> {
        match self {
            Self::Shelf(blocks, part) => blocks.shelf.memory.read(part.clone()),
            Self::Memory(bytes) => Ok(bytes.clone()),
        }
    }
}

/// A panic while the lock was held left plain data behind: it can be used.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    const FLAGS: usize = LANE_PAGE + 2 * SLOTS;

    /// The shelf of the second of two lanes, with its page and the memory of both.
    fn shelf() -> (Arc<Shelf>, Arc<SharedMemory>, Arc<SharedMemory>) {
        let page = Arc::new(SharedMemory::new("test", 4096, false).unwrap());
        let memory = Arc::new(SharedMemory::new("test", 2 * SHELF, false).unwrap());
        (Shelf::new(&page, &memory, 1), page, memory)
    }

    /// Does what a worker does.
    fn lay(page: &SharedMemory, memory: &SharedMemory, block: usize, bytes: &[u8]) -> Vec<u8> {
        for index in block..block + bytes.len().div_ceil(SHELF_BLOCK) {
            page.byte(FLAGS + index).unwrap().store(1, Ordering::SeqCst);
        }
        memory.write(SHELF + block * SHELF_BLOCK, bytes);
        said(block * SHELF_BLOCK, bytes.len())
    }

    fn said(offset: usize, length: usize) -> Vec<u8> {
        [(offset as u32).to_le_bytes(), (length as u32).to_le_bytes()].concat()
    }

    fn taken(page: &SharedMemory) -> Vec<usize> {
        let is_taken = |&index: &usize| page.byte(FLAGS + index).unwrap().load(Ordering::SeqCst) != 0;
        (0..SHELF_BLOCKS).filter(is_taken).collect()
    }

    #[test]
    fn a_piece_keeps_its_blocks_until_it_is_dropped() {
        let (shelf, page, memory) = shelf();
        let first = shelf.find(1, &lay(&page, &memory, 0, &[1; SHELF_BLOCK + 1])).unwrap();
        let second = shelf.find(1, &lay(&page, &memory, 2, b"two")).unwrap();
        assert_eq!(taken(&page), [0, 1, 2]);
        drop(first);
        assert_eq!(taken(&page), [2]);
        assert_eq!(&second.into_bytes().unwrap()[..], b"two");
        assert_eq!(taken(&page), [0; 0]);
    }

    #[test]
    fn what_lies_where_nothing_can_is_refused() {
        let (shelf, page, memory) = shelf();
        let wrong =
            [(1, 1), (SHELF, 1), (0, SHELF + 1), (SHELF - SHELF_BLOCK, SHELF_BLOCK + 1), (0, u32::MAX as usize)];
        for (offset, length) in wrong {
            assert!(matches!(shelf.find(1, &said(offset, length)), Err(LaneError::Beside)), "{offset} {length}");
        }
        assert!(matches!(shelf.find(1, &[0; 7]), Err(LaneError::Frame(_))), "too short");
        let whole = shelf.find(1, &lay(&page, &memory, 0, &vec![1; SHELF])).unwrap();
        assert_eq!(whole.length(), SHELF);
        let others: Vec<Laid> = (1..SHELF_BLOCKS).map(|_| shelf.find(1, &said(0, 1)).unwrap()).collect();
        assert!(matches!(shelf.find(1, &said(0, 1)), Err(LaneError::Beside)), "more pieces than blocks");
        drop(others);
        assert!(shelf.find(1, &said(0, 1)).is_ok());
    }

    #[test]
    fn a_piece_is_sent_between_what_stands_around_it_and_goes_on_where_it_was_left() {
        let (shelf, page, memory) = shelf();
        for is_cleared in [false, true] {
            let mut piece = shelf.find(1, &lay(&page, &memory, 0, b"0123456789")).unwrap();
            piece.truncate(8);
            piece.advance(2);
            if is_cleared {
                shelf.clear(2);
                assert_eq!(taken(&page), [0; 0], "it was copied");
                memory.write(SHELF, b"----------");
            }
            let (ours, theirs) = UnixStream::pair().unwrap();
            assert_eq!(piece.send(ours.as_fd(), b"<", b">").unwrap(), 8);
            drop(ours);
            assert_eq!(std::io::read_to_string(theirs).unwrap(), "<234567>");
            assert_eq!(&piece.into_bytes().unwrap()[..], b"234567");
        }
    }

    #[test]
    fn what_lies_there_for_others_is_copied_when_room_is_needed_and_what_is_being_sent_is_not() {
        let (shelf, page, memory) = shelf();
        let [ours, theirs, busy] = [(0, 1, b"ours "), (1, 2, b"their"), (2, 3, b"busy ")]
            .map(|(block, request, bytes)| shelf.find(request, &lay(&page, &memory, block, bytes)).unwrap());
        {
            let _being_sent = lock(&busy.place);
            shelf.clear(1);
        }
        assert_eq!(taken(&page), [0, 2]);
        let found = [ours, theirs, busy].map(|piece| piece.into_bytes().unwrap());
        assert_eq!(found.each_ref().map(|bytes| &bytes[..]), [&b"ours "[..], b"their", b"busy "]);
        assert_eq!(taken(&page), [0; 0]);
    }
}
