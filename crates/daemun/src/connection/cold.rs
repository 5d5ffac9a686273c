//! Parts of a file that are not in memory: reading them would stall every other connection of the event loop, for
//! milliseconds on a disk and for as long as it likes on a network. The blocking pool reads them first.

use std::io;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// What the kernel reads ahead by default: a page of each such stretch tells of all of it. The last one does, since a read
/// that was given up leaves the beginning in memory.
const STRETCH: u64 = 128 * 1024;

/// Bytes of one read on the pool.
const READ: usize = 128 * 1024;

/// File systems behind a network or a process, which cannot say what is in memory (`f_type` of statfs(2)): NFS, SMB,
/// CIFS, SMB2, FUSE, 9P, Ceph, AFS. Of others that cannot say it, such as overlayfs, the pages are taken for present, as
/// they mostly are: looking for certain would cost more than the rest of the answer.
const FAR: [u64; 8] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x6573_5546, 0x0102_1997, 0x00c3_6400, 0x5346_414f];

/// Whether these bytes of the file can be had without waiting for a disk, as far as can be told. One system call for
/// each 128 KiB.
pub(super) fn is_at_hand(file: BorrowedFd<'_>, offset: u64, length: u64) -> bool {
    let end = offset.saturating_add(length);
    let mut at = offset;
    while at < end {
        at = at.saturating_add(STRETCH).min(end);
        let mut byte = [0];
        match preadv2(file, &mut [IoSliceMut::new(&mut byte)], at - 1, ReadWriteFlags::NOWAIT) {
            Err(Errno::AGAIN) => return false,
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                return !rustix::fs::fstatfs(file).is_ok_and(|system| FAR.contains(&(system.f_type as u32).into()));
            }
            // What is wrong shows when it is read.
            Ok(_) | Err(_) => {}
        }
    }
    true
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
        assert!(is_at_hand(file.as_fd(), 0, 1_000_000));
        file.sync_all().unwrap();
        // Where the file system keeps its pages all the same, the rest holds too.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let file = Arc::new(OwnedFd::from(file));
        fetch(&file, 100, 900_000).await.unwrap();
        assert!(is_at_hand(file.as_fd(), 100, 900_000));
        fetch(&file, 2_000_000, 10).await.unwrap();
        assert!(is_at_hand(file.as_fd(), 2_000_000, 10), "nothing is there, and nothing is waited for");
    }
}
