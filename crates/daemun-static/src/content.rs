//! A file's content as it was when it was read: once, for everything that is made of it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use md5::{Digest, Md5};

use crate::error::Error;
use crate::sources::Found;

/// Files up to this size are kept in memory, as long as the budget lasts; others are copied at once.
const SMALL: u64 = 4 * 1024 * 1024;

/// Bytes of sources in memory.
const BUDGET: u64 = 512 * 1024 * 1024;

/// Bytes that are copied at once.
const BLOCK: usize = 256 * 1024;

/// Bytes, in memory or in a file of ours.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// All of it.
    Memory(Arc<[u8]>),
    /// A copy in the staging folder; in a dry run the source itself.
    File(PathBuf, u64),
}

/// A source, read.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) content: Content,
    /// 12 hexadecimal digits of its MD5.
    pub(crate) hash: String,
}

/// The fingerprint in hashed names.
pub(crate) fn fingerprint(bytes: &[u8]) -> String {
    hexadecimal(&Md5::digest(bytes)[..6])
}

/// Bytes in hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // A string takes whatever is written.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

/// Reads sources into memory or, where they are large, into files named by `stage`.
pub(crate) struct Reader {
    used: AtomicU64,
    stage: Option<PathBuf>,
}

impl Reader {
    /// `stage` is where copies go; `None` where nothing may be written.
    pub(crate) fn new(stage: Option<PathBuf>) -> Self {
        Self { used: AtomicU64::new(0), stage }
    }

    /// Reads one; `text`: whether all of it is needed in memory.
    pub(crate) fn read(&self, found: &Found, number: usize, text: bool) -> Result<Snapshot, Error> {
        let path = &found.path;
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::Vanished(path.clone()),
            _ => Error::io("cannot read", path)(error),
        };
        let mut file = File::open(path).map_err(failed)?;
        let status = file.metadata().map_err(failed)?;
        let length = status.len();
        let in_memory = length <= SMALL && self.used.fetch_add(length, Ordering::Relaxed) + length <= BUDGET;
        let (content, hash, read) = if text || in_memory {
            let mut bytes = Vec::with_capacity(length as usize + 1);
            file.read_to_end(&mut bytes).map_err(failed)?;
            let read = bytes.len() as u64;
            let hash = fingerprint(&bytes);
            (Content::Memory(bytes.into()), hash, read)
        } else {
            self.copy(&mut file, path, number)?
        };
        // What was read in the middle of a write is a mixture of two files.
        let after = file.metadata().map_err(failed)?;
        if read != length || after.len() != length || after.modified().ok() != status.modified().ok() {
            return Err(Error::Changed(path.clone()));
        }
        Ok(Snapshot { content, hash })
    }

    fn copy(&self, file: &mut File, path: &Path, number: usize) -> Result<(Content, String, u64), Error> {
        let staged = self.stage.as_ref().map(|folder| folder.join(format!("source-{number}")));
        let mut copy = staged
            .as_ref()
            .map(|staged| File::create_new(staged).map_err(Error::io("cannot create", staged)))
            .transpose()?;
        let mut digest = Md5::new();
        let mut block = vec![0; BLOCK];
        let mut total = 0;
        loop {
            let size = file.read(&mut block).map_err(Error::io("cannot read", path))?;
            if size == 0 {
                break;
            }
            digest.update(&block[..size]);
            total += size as u64;
            if let (Some(copy), Some(staged)) = (&mut copy, &staged) {
                copy.write_all(&block[..size]).map_err(Error::io("cannot write", staged))?;
            }
        }
        let place = staged.unwrap_or_else(|| path.to_owned());
        Ok((Content::File(place, total), hexadecimal(&digest.finalize()[..6]), total))
    }
}

// === impl Content ===

impl Content {
    /// What `bytes` are.
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Self::Memory(bytes.into())
    }

    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(_, length) => *length,
        }
    }

    /// All of it in memory.
    pub(crate) fn bytes(&self) -> Result<Arc<[u8]>, Error> {
        match self {
            Self::Memory(bytes) => Ok(bytes.clone()),
            Self::File(path, _) => Ok(std::fs::read(path).map_err(Error::io("cannot read", path))?.into()),
        }
    }

    /// Whether the file at `path` holds just this. Links do not count: they are replaced.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        let same_size = std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.len() == self.len());
        same_size && self.equals(path).unwrap_or(false)
    }

    fn equals(&self, path: &Path) -> std::io::Result<bool> {
        match self {
            Self::Memory(bytes) => Ok(std::fs::read(path)?[..] == bytes[..]),
            Self::File(own, _) => {
                let (mut one, mut other) = (File::open(own)?, File::open(path)?);
                let (mut left, mut right) = (vec![0; BLOCK], vec![0; BLOCK]);
                loop {
                    let size = one.read(&mut left)?;
                    if size == 0 {
                        return Ok(true);
                    }
                    if other.read_exact(&mut right[..size]).is_err() || left[..size] != right[..size] {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Writes it to a new file.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        match self {
            Self::Memory(bytes) => write(path, bytes),
            Self::File(own, _) => std::fs::copy(own, path).map(drop).map_err(Error::io("cannot write", path)),
        }
    }
}

/// Writes a new file.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut file = File::create_new(path).map_err(Error::io("cannot create", path))?;
    file.write_all(bytes).map_err(Error::io("cannot write", path))
}
