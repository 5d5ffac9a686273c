//! A part of an open file, and whether the file is still what it was when its answer was begun.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::Stat;
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

/// Seconds after its last change from which on a file is at rest. What is being written, or written anew again and again,
/// is not: then its bytes are copied before they are sent.
const AT_REST: i64 = 10;

/// A part of an open regular file, sent with `sendfile` or read when it is small.
#[derive(Clone, Debug)]
pub struct FileBody {
    /// The file; shared by all who are sending it.
    pub file: Arc<OwnedFd>,
    /// First byte.
    pub offset: u64,
    /// Bytes. If the file turns out shorter, the connection is cut: a short file never looks whole.
    pub length: u64,
    /// What the file was when this was promised. If it is another one at the end, the connection is cut too: half of one
    /// version and half of the other never looks whole.
    pub version: FileVersion,
    /// All bytes that this is a part of, where they are in memory too and nobody can change them or the file.
    pub memory: Option<Arc<InMemory>>,
}

/// Bytes of a file that are in memory too.
#[derive(Clone, Debug)]
pub struct InMemory {
    /// The bytes.
    pub bytes: Bytes,
    /// Where they begin in the file.
    pub offset: u64,
}

/// What tells one content of an open file from another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FileVersion {
    size: u64,
    modified: (i64, i64),
}

/// A file is not what it was when its answer was begun.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FileChanged {
    /// It has lost bytes that were promised.
    #[error("a file became shorter while it was sent")]
    Shorter,
    /// It was written to.
    #[error("a file was rewritten while it was sent")]
    Rewritten,
    /// It cannot be told.
    #[error("a file could not be looked at: {0}")]
    Unknown(Errno),
}

// === impl FileVersion ===

impl FileVersion {
    /// What the file is now.
    pub fn of(file: impl AsFd) -> io::Result<Self> {
        Ok(Self::told(&rustix::fs::fstat(file)?))
    }

    /// A file of this size that was last modified then: seconds since 1970, and nanoseconds.
    pub fn new(size: u64, modified: (i64, i64)) -> Self {
        Self { size, modified }
    }

    fn told(stat: &Stat) -> Self {
        Self::new(stat.st_size.max(0).cast_unsigned(), (stat.st_mtime, stat.st_mtime_nsec as i64))
    }

    /// Whether nobody has written to it for a while. The time is the file's own word, which whoever unpacked it has set:
    /// what matters is that a file that is being written is not at rest.
    pub fn is_at_rest(&self) -> bool {
        clock_gettime(ClockId::RealtimeCoarse).tv_sec.saturating_sub(self.modified.0) >= AT_REST
    }

    /// Whether bytes that were read from what is now `other` are those of this version. A file that has grown keeps the
    /// bytes before: logs and recordings are read while they are written.
    fn check(&self, other: &Self) -> Result<(), FileChanged> {
        if other.size < self.size {
            return Err(FileChanged::Shorter);
        }
        if other.size == self.size && other.modified != self.modified {
            return Err(FileChanged::Rewritten);
        }
        Ok(())
    }
}

// === impl FileBody ===

impl FileBody {
    /// The first `length` bytes as a body of their own; the rest stays.
    #[must_use]
    pub fn split_to(&mut self, length: u64) -> Self {
        let length = length.min(self.length);
        let memory = self.memory.clone();
        let first = Self { file: Arc::clone(&self.file), offset: self.offset, length, version: self.version, memory };
        self.offset += length;
        self.length -= length;
        first
    }

    /// The descriptor.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The bytes, where they are in memory.
    pub fn at_hand(&self) -> Option<Bytes> {
        let memory = self.memory.as_ref()?;
        let first = (self.offset - memory.offset) as usize;
        Some(memory.bytes.slice(first..first + self.length as usize))
    }

    /// Whether the kernel can be trusted to send it as it is: nobody can write to it, or nobody has for a while.
    pub fn is_still(&self) -> bool {
        self.memory.is_some() || self.version.is_at_rest()
    }

    /// Whether what was read or sent up to now was of the version that was promised. To be asked after the last byte was
    /// read and before it is sent. One system call.
    pub fn check(&self) -> Result<(), FileChanged> {
        let stat = rustix::fs::fstat(&self.file).map_err(FileChanged::Unknown)?;
        self.version.check(&FileVersion::told(&stat))
    }

    /// Appends all of it to `output`, and nothing where it is not there any more or not what it was. Waits for the disk.
    pub fn read_into(&self, output: &mut Vec<u8>) -> io::Result<()> {
        if let Some(bytes) = self.at_hand() {
            output.extend_from_slice(&bytes);
            return Ok(());
        }
        let begin = output.len();
        output.resize(begin + self.length as usize, 0);
        let read = self.fill(&mut output[begin..]).and_then(|()| self.check().map_err(io::Error::other));
        if read.is_err() {
            output.truncate(begin);
        }
        read
    }

    /// All of it, in memory; an error where it is not there any more or not what it was. Waits for the disk.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read_into(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&self, bytes: &mut [u8]) -> io::Result<()> {
        let mut at = 0;
        while at < bytes.len() {
            match rustix::io::pread(&*self.file, &mut bytes[at..], self.offset + at as u64) {
                Ok(0) => return Err(io::Error::other(FileChanged::Shorter)),
                Ok(read) => at += read,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::time::{Duration, SystemTime};

    use super::*;

    fn body(content: &[u8], length: u64) -> (File, FileBody) {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 0).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
        let version = FileVersion::of(&file).unwrap();
        let shared = Arc::new(OwnedFd::from(file.try_clone().unwrap()));
        (file, FileBody { file: shared, offset: 1, length, version, memory: None })
    }

    #[test]
    fn bytes_are_given_out_only_of_the_version_that_was_promised() {
        let (file, body) = body(b"0123456789", 9);
        assert!(body.version.is_at_rest());
        assert_eq!(body.read().unwrap(), b"123456789");
        file.write_all_at(b"more", 10).unwrap();
        assert_eq!(body.read().unwrap(), b"123456789", "what was appended changes nothing before it");
        file.set_len(10).unwrap();
        assert_eq!(body.check(), Err(FileChanged::Rewritten));
        let mut output = b"head".to_vec();
        assert_eq!(body.read_into(&mut output).unwrap_err().to_string(), "a file was rewritten while it was sent");
        assert_eq!(output, b"head", "nothing of it");
        file.set_len(9).unwrap();
        assert_eq!(body.read().unwrap_err().to_string(), "a file became shorter while it was sent");
    }

    #[test]
    fn a_file_that_was_just_written_is_not_at_rest() {
        let (file, mut body) = body(b"0123456789", 9);
        file.write_all_at(b"x", 0).unwrap();
        assert!(!FileVersion::of(&file).unwrap().is_at_rest());
        let first = body.split_to(4);
        assert_eq!((first.offset, first.length, body.offset, body.length), (1, 4, 5, 5));
        assert_eq!(body.split_to(50).length, 5);
    }
}
