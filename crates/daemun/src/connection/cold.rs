//! Parts of a file that are not in memory: reading them would stall every other connection of the event loop, for
//! milliseconds on a disk and for as long as it likes on a network. The blocking pool reads them first.

use std::cell::RefCell;
use std::io;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::{Errno, ReadWriteFlags, preadv2};
use rustix::time::{ClockId, clock_gettime};

use crate::sys::is_far;

/// What the kernel reads ahead by default: a page of each such stretch tells of all of it. The last one does, since a read
/// that was given up leaves the beginning in memory.
const STRETCH: u64 = 128 * 1024;

/// Stretches that an event loop remembers to have seen in memory.
const REMEMBERED: usize = 1024;

/// Seconds for which that is believed. The kernel rarely drops what is being sent all the time, and where it does one
/// answer waits for the disk.
const BELIEVED: i64 = 1;

/// A stretch of an open file, and when it was seen in memory.
#[derive(Clone, Copy)]
struct Seen {
    /// The address of what all who send the file share. Another file may come to have it: then a look is left out.
    file: usize,
    stretch: u64,
    second: i64,
}

thread_local! {
    /// Each stretch has one place: what is sent to many clients at a time is looked at by one of them.
    static SEEN: RefCell<Box<[Seen]>> =
        RefCell::new(vec![Seen { file: 0, stretch: 0, second: i64::MIN }; REMEMBERED].into_boxed_slice());
}

/// Bytes of one read on the pool.
const READ: usize = 128 * 1024;

/// Whether these bytes of the file can be had without waiting for a disk, as far as can be told. One system call for
/// each 128 KiB that were not seen to be there a moment ago.
///
/// Of file systems that cannot say what is in memory, and are not behind a network, such as overlayfs, the pages are taken
/// for present, as they mostly are: looking for certain would cost more than the rest of the answer.
pub(super) fn is_at_hand(file: &Arc<OwnedFd>, offset: u64, length: u64) -> bool {
    let now = clock_gettime(ClockId::MonotonicCoarse).tv_sec;
    let end = offset.saturating_add(length);
    let mut at = offset;
    while at < end {
        let stretch = at / STRETCH;
        let whole = (stretch + 1).saturating_mul(STRETCH);
        at = whole.min(end);
        let own = Seen { file: Arc::as_ptr(file).addr(), stretch, second: now };
        if was_seen(own) {
            continue;
        }
        let mut byte = [0];
        match preadv2(file, &mut [IoSliceMut::new(&mut byte)], at - 1, ReadWriteFlags::NOWAIT) {
            Err(Errno::AGAIN) => return false,
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return !is_far(file),
            // Of a part only the part is known.
            Ok(1) if at == whole => SEEN.with_borrow_mut(|seen| seen[own.place()] = own),
            // What is wrong shows when it is read.
            Ok(_) | Err(_) => {}
        }
    }
    true
}

fn was_seen(wanted: Seen) -> bool {
    let seen = SEEN.with_borrow(|seen| seen[wanted.place()]);
    seen.file == wanted.file && seen.stretch == wanted.stretch && wanted.second - seen.second <= BELIEVED
}

impl Seen {
    /// Neighbours lie beside each other; files are spread.
    fn place(&self) -> usize {
        (self.file / size_of::<usize>()).wrapping_mul(31).wrapping_add(self.stretch as usize) % REMEMBERED
    }
}

/// Reads these bytes on the blocking pool, so that they are in memory afterwards. The end of the file ends it.
pub(super) async fn fetch(file: &Arc<OwnedFd>, offset: u64, length: u64) -> io::Result<()> {
    let file = Arc::clone(file);
    let reading = tokio::task::spawn_blocking(move || {
        let mut scratch = vec![0; READ];
        let end = offset.saturating_add(length);
        let mut at = offset;
        while at < end {
            let wanted = READ.min((end - at) as usize);
            match rustix::io::pread(file.as_fd(), &mut scratch[..wanted], at) {
                Ok(0) => break,
                Ok(read) => at += read as u64,
                Err(Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error)),
            }
        }
        Ok(())
    });
    reading.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn what_was_fetched_is_at_hand_and_so_is_what_was_just_written() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![b'x'; 1_000_000]).unwrap();
        assert!(is_at_hand(&Arc::new(OwnedFd::from(file.try_clone().unwrap())), 0, 1_000_000));
        file.sync_all().unwrap();
        // Where the file system keeps its pages all the same, the rest holds too.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let file = Arc::new(OwnedFd::from(file));
        fetch(&file, 100, 900_000).await.unwrap();
        assert!(is_at_hand(&file, 100, 900_000));
        fetch(&file, 2_000_000, 10).await.unwrap();
        assert!(is_at_hand(&file, 2_000_000, 10), "nothing is there, and nothing is waited for");
    }

    #[test]
    fn what_was_seen_is_believed_for_a_second_and_of_one_file() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![b'x'; 3 * STRETCH as usize + 10]).unwrap();
        let file = Arc::new(OwnedFd::from(file));
        assert!(is_at_hand(&file, 5, 2 * STRETCH));
        let second = clock_gettime(ClockId::MonotonicCoarse).tv_sec;
        let of = |stretch, second| Seen { file: Arc::as_ptr(&file).addr(), stretch, second };
        assert!(was_seen(of(0, second)) && was_seen(of(1, second)), "whole");
        assert!(!was_seen(of(2, second)), "of it only a part was asked for");
        assert!(!was_seen(of(0, second + BELIEVED + 1)), "long ago");
        assert!(!was_seen(Seen { file: 8, ..of(0, second) }), "another file");
        assert!(is_at_hand(&file, 0, 4 * STRETCH), "the end of the file is no fault");
        assert!(!was_seen(of(3, second)), "and tells nothing");
    }
}
