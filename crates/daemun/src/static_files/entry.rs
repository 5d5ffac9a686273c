//! A file made ready to be sent: read or kept open, with every field of its answers computed once.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::conditional::{self, Validators};
use super::content_type;
use crate::http::{Fields, FileBody, ResponseBody, date};

/// Files up to this length are held in memory. `sendfile` begins to pay only above some tens of KiB; below, one
/// `writev` of head and body is cheaper.
pub(super) const SMALL: u64 = 64 * 1024;

/// Time after which a file's times can be trusted to change with its content: the coarsest clock of a file system in
/// use is FAT's, with 2 s. Until then two different contents can carry the same times.
const SETTLED: Duration = Duration::from_secs(2);

/// Files dated before the 2nd of January 1980 were given their time by a packager (Nix: second 1, zip archives and
/// many wheels: 1980-01-01), the same for every version.
const PACKAGED: i64 = 315_619_200;

/// How long clients and caches may keep an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Keeping {
    /// Nothing is said.
    Unsaid,
    /// They must ask each time: the sources are being edited.
    Ask,
    /// A minute: a plain name beside hashed ones, whose content changes with a deployment.
    Minute,
    /// For ever: the name carries the hash of the content (RFC 8246).
    Immutable,
}

impl Keeping {
    /// The value of `Cache-Control` (RFC 9111, section 5.2.2).
    pub(super) fn value(self) -> Option<&'static str> {
        match self {
            Self::Unsaid => None,
            Self::Ask => Some("no-cache"),
            Self::Minute => Some("public, max-age=60"),
            Self::Immutable => Some("public, max-age=31536000, immutable"),
        }
    }
}

/// What tells one state of a file from another. The change time tells even a copy that kept size and modification time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The strong entity tag (RFC 9110, section 8.8.3): modification time in nanoseconds and size. Not the inode,
    /// which differs between machines that serve copies of one tree; but where the time was set by a packager it says
    /// nothing, and the change time stands in.
    fn tag(&self) -> Bytes {
        let ((seconds, nanos), size) = (self.modified, self.size);
        Bytes::from(if seconds < PACKAGED {
            let (changed, changed_nanos) = self.changed;
            format!("\"{seconds:x}.{nanos:x}-{size:x}-{changed:x}.{changed_nanos:x}\"")
        } else {
            format!("\"{seconds:x}.{nanos:x}-{size:x}\"")
        })
    }
}

/// A file, ready to be sent.
#[derive(Debug)]
pub(super) struct Entry {
    identity: Identity,
    keeping: Keeping,
    is_settled: bool,
    content: Content,
    tag: Bytes,
    modified: SystemTime,
    whole: Fields,
    unchanged: Fields,
}

#[derive(Debug)]
enum Content {
    Memory(Bytes),
    Open(Arc<OwnedFd>),
}

impl Entry {
    /// Makes an open file ready. `None` where it changed while it was read, twice in a row.
    pub(super) fn load(name: &[u8], file: File, metadata: Metadata, keeping: Keeping) -> io::Result<Option<Self>> {
        if metadata.size() > SMALL {
            return Ok(Some(Self::new(name, &metadata, Content::Open(Arc::new(OwnedFd::from(file))), keeping)));
        }
        let mut metadata = metadata;
        for _ in 0..2 {
            if let Some(bytes) = read_as(&file, &metadata)? {
                return Ok(Some(Self::new(name, &metadata, Content::Memory(bytes), keeping)));
            }
            metadata = file.metadata()?;
            if metadata.size() > SMALL {
                break;
            }
        }
        Ok(None)
    }

    fn new(name: &[u8], metadata: &Metadata, content: Content, keeping: Keeping) -> Self {
        let (identity, now) = (Identity::of(metadata), SystemTime::now());
        let touched = metadata.modified().unwrap_or(UNIX_EPOCH);
        let (tag, modified) = (identity.tag(), conditional::last_modified(touched, now));
        let mut whole = Fields::new()
            .with("Content-Type", content_type::of(name))
            .with("X-Content-Type-Options", Bytes::from_static(b"nosniff"))
            .with("ETag", tag.clone())
            .with("Last-Modified", Bytes::copy_from_slice(&date::format(modified)))
            .with("Accept-Ranges", Bytes::from_static(b"bytes"));
        // What RFC 9110, section 15.4.5 wants in a 304; the fields of the content would be noise.
        let mut unchanged = Fields::new().with("ETag", tag.clone());
        if let Some(value) = keeping.value() {
            whole.push(Bytes::from_static(b"Cache-Control"), Bytes::from_static(value.as_bytes()));
            unchanged.push(Bytes::from_static(b"Cache-Control"), Bytes::from_static(value.as_bytes()));
        }
        let is_settled = now.duration_since(touched).is_ok_and(|age| age >= SETTLED);
        Self { identity, keeping, is_settled, content, tag, modified, whole, unchanged }
    }

    /// Whether this is still the file with this metadata, so that nothing has to be read again.
    pub(super) fn is_still(&self, metadata: &Metadata, keeping: Keeping) -> bool {
        self.is_settled && self.keeping == keeping && self.identity == Identity::of(metadata)
    }

    /// The length of the file.
    pub(super) fn length(&self) -> u64 {
        self.identity.size
    }

    /// Bytes that it holds in memory; `None` where it holds a descriptor instead.
    pub(super) fn held(&self) -> Option<usize> {
        match &self.content {
            Content::Memory(bytes) => Some(bytes.len()),
            Content::Open(_) => None,
        }
    }

    /// What preconditions compare.
    pub(super) fn validators(&self) -> Validators<'_> {
        Validators { tag: &self.tag, modified: self.modified }
    }

    /// The fields of a 200; those of a 206 but for `Content-Range`.
    pub(super) fn whole(&self) -> Fields {
        self.whole.clone()
    }

    /// The fields of a 304.
    pub(super) fn unchanged(&self) -> Fields {
        self.unchanged.clone()
    }

    /// A part of the file that lies within it.
    pub(super) fn part(&self, first: u64, length: u64) -> ResponseBody {
        match &self.content {
            Content::Memory(bytes) => ResponseBody::Full(bytes.slice(first as usize..(first + length) as usize)),
            Content::Open(file) => ResponseBody::File(FileBody { file: Arc::clone(file), offset: first, length }),
        }
    }
}

/// The content that belongs to `metadata`; `None` where it turns out shorter, or where the file is another one
/// afterwards: then the bytes may be half of one and half of the other.
fn read_as(file: &File, metadata: &Metadata) -> io::Result<Option<Bytes>> {
    let mut bytes = vec![0; metadata.size() as usize];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let after = file.metadata()?;
    let is_same = after.size() == metadata.size() && after.modified()? == metadata.modified()?;
    Ok(is_same.then(|| Bytes::from(bytes)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file_of(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    fn set_modified(file: &File, moment: SystemTime) {
        file.set_modified(moment).unwrap();
    }

    #[test]
    fn a_file_that_shrinks_or_changes_while_it_is_read_is_not_taken() {
        let file = file_of(b"0123456789");
        let before = file.metadata().unwrap();
        assert_eq!(read_as(&file, &before).unwrap().as_deref(), Some(&b"0123456789"[..]));
        file.set_len(4).unwrap();
        assert_eq!(read_as(&file, &before).unwrap(), None, "shorter");
        file.set_len(12).unwrap();
        set_modified(&file, before.modified().unwrap());
        assert_eq!(read_as(&file, &before).unwrap(), None, "longer, with its time set back");
        file.set_len(10).unwrap();
        set_modified(&file, UNIX_EPOCH + Duration::from_secs(1_000_000_000));
        assert_eq!(read_as(&file, &before).unwrap(), None, "touched");
    }

    #[test]
    fn a_file_that_changed_once_is_read_again_as_what_it_is_now() {
        let file = file_of(b"0123456789");
        let before = file.metadata().unwrap();
        file.set_len(4).unwrap();
        let entry = Entry::load(b"a.txt", file, before, Keeping::Unsaid).unwrap().unwrap();
        assert_eq!(entry.length(), 4);
        assert!(matches!(entry.part(0, 4), ResponseBody::Full(bytes) if bytes == "0123"));
    }

    #[test]
    fn a_fresh_file_is_read_again_because_its_times_may_not_tell() {
        let file = file_of(b"x");
        let load = |file: &File| {
            let metadata = file.metadata().unwrap();
            Entry::load(b"a", file.try_clone().unwrap(), metadata, Keeping::Unsaid).unwrap().unwrap()
        };
        assert!(!load(&file).is_still(&file.metadata().unwrap(), Keeping::Unsaid));
        set_modified(&file, SystemTime::now() - Duration::from_secs(60));
        let entry = load(&file);
        assert!(entry.is_still(&file.metadata().unwrap(), Keeping::Unsaid));
        assert!(!entry.is_still(&file.metadata().unwrap(), Keeping::Immutable), "a new manifest changes the fields");
    }

    #[test]
    fn the_tag_is_strong_and_tells_time_and_size() {
        let identity = |modified, size, inode, changed| Identity { device: 1, inode, size, modified, changed };
        let tag = identity((1_700_000_000, 5), 7, 1, (1, 1)).tag();
        assert!(tag.starts_with(b"\"") && tag.ends_with(b"\"") && tag.len() > 2);
        assert_eq!(identity((1_700_000_000, 5), 7, 2, (2, 2)).tag(), tag, "the same on another machine");
        assert_ne!(identity((1_700_000_000, 6), 7, 1, (1, 1)).tag(), tag);
        assert_ne!(identity((1_700_000_000, 5), 8, 1, (1, 1)).tag(), tag);
        // Nix dates all its files to second 1.
        assert_ne!(identity((1, 0), 7, 1, (9, 0)).tag(), identity((1, 0), 7, 1, (8, 0)).tag());
    }

    #[test]
    fn last_modified_of_a_file_from_the_future_is_now() {
        let file = file_of(b"x");
        set_modified(&file, SystemTime::now() + Duration::from_secs(86_400));
        let metadata = file.metadata().unwrap();
        let entry = Entry::load(b"a", file, metadata, Keeping::Unsaid).unwrap().unwrap();
        assert!(entry.validators().modified <= SystemTime::now());
    }
}
