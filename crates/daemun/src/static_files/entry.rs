//! A file made ready to be sent: read or kept open, with every field of its answers computed once.

use std::fs::{File, Metadata};
use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rustix::io::{Errno, ReadWriteFlags};

use super::coding::{Accepted, Coding};
use super::conditional::{self, Validators};
use super::dress::Dress;
use super::range::Part;
use super::tree::Patience;
use crate::http::{Fields, FileBody, FileVersion, InMemory, ResponseBody, date};
use crate::sys::{Freezer, Frozen};

/// Files up to this length are held in memory.
pub(super) const SMALL: u64 = 128 * 1024;

/// From this length on what is in memory is sent by the kernel, from where nobody can change it: `sendfile` costs a system
/// call more than one `writev` of head and body, and half the processor time of 100 KiB.
const SENT_BY_KERNEL: u64 = 32 * 1024 + 1;

/// One for all static routes, which share its memory.
static FREEZER: Freezer = Freezer::new();

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
    /// So many seconds: what the route says, or a minute for a plain name beside hashed ones, whose content changes
    /// with a deployment.
    Seconds(u32),
    /// For ever: the name carries the hash of the content (RFC 8246).
    Immutable,
}

impl Keeping {
    /// The value of `Cache-Control` (RFC 9111, section 5.2.2).
    pub(super) fn value(self) -> Option<Bytes> {
        Some(match self {
            Self::Unsaid => return None,
            Self::Ask => Bytes::from_static(b"no-cache"),
            Self::Seconds(seconds) => Bytes::from(format!("public, max-age={seconds}")),
            Self::Immutable => Bytes::from_static(b"public, max-age=31536000, immutable"),
        })
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

    /// What the bytes that are sent must be of.
    fn version(&self) -> FileVersion {
        FileVersion::new(self.size, self.modified)
    }

    /// The strong entity tag (RFC 9110, section 8.8.3): modification time in nanoseconds and size. Not the inode,
    /// which differs between machines that serve copies of one tree; but where the time was set by a packager it says
    /// nothing, and the change time stands in.
    ///
    /// Each variant has its own, since its bytes are others (section 8.8.3.3).
    fn tag(&self, coding: Option<Coding>) -> Bytes {
        let ((seconds, nanos), size) = (self.modified, self.size);
        let (dash, coding) = coding.map_or(("", ""), |coding| ("-", coding.name()));
        Bytes::from(if seconds < PACKAGED {
            let (changed, changed_nanos) = self.changed;
            format!("\"{seconds:x}.{nanos:x}-{size:x}-{changed:x}.{changed_nanos:x}{dash}{coding}\"")
        } else {
            format!("\"{seconds:x}.{nanos:x}-{size:x}{dash}{coding}\"")
        })
    }
}

/// An open file and what `fstat` said of it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) metadata: Metadata,
}

/// A file, ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    keeping: Keeping,
    is_settled: bool,
    plain: Representation,
    variants: Vec<Representation>,
}

/// The file as it is, or compressed beforehand.
#[derive(Clone, Debug)]
pub(super) struct Representation {
    coding: Option<Coding>,
    identity: Identity,
    content: Content,
    tag: Bytes,
    modified: SystemTime,
    whole: Fields,
    unchanged: Fields,
}

#[derive(Clone, Debug)]
enum Content {
    Memory(Bytes),
    /// The same bytes behind a descriptor, where they were asked for in more than one second.
    Frozen(Arc<InMemory>, Arc<OwnedFd>),
    Open(Arc<OwnedFd>),
}

// === impl Entry ===

impl Entry {
    /// Makes an open file and its variants ready. `None` where it changed while it was read, twice in a row.
    pub(super) fn load(
        (name, mut plain): (&[u8], Opened),
        siblings: Vec<(Coding, Opened)>,
        dress: &Dress,
        keeping: Keeping,
        patience: Patience,
    ) -> io::Result<Option<Self>> {
        let Some(content) = read_until_still(&mut plain, patience)? else { return Ok(None) };
        let now = SystemTime::now();
        let touched = plain.metadata.modified().unwrap_or(UNIX_EPOCH);
        let modified = conditional::last_modified(touched, now);
        let mut variants = Vec::new();
        let mut is_settled = is_settled(touched, now);
        for (coding, mut sibling) in siblings {
            // One that is being written now is passed over; a second later it is looked at again.
            let Some(content) = read_until_still(&mut sibling, patience)? else {
                is_settled = false;
                continue;
            };
            is_settled &= sibling.metadata.modified().is_ok_and(|touched| self::is_settled(touched, now));
            variants.push((Some(coding), content, Identity::of(&sibling.metadata)));
        }
        let fields = FieldsOf { name, modified, dress, keeping, varies: !variants.is_empty() };
        Ok(Some(Self {
            keeping,
            is_settled,
            plain: fields.representation(None, content, Identity::of(&plain.metadata)),
            variants: variants
                .into_iter()
                .map(|(coding, content, identity)| fields.representation(coding, content, identity))
                .collect(),
        }))
    }

    /// Whether these are still the file and its variants, so that nothing has to be read again.
    pub(super) fn is_still(&self, plain: &Opened, siblings: &[(Coding, Opened)], keeping: Keeping) -> bool {
        let is_same = |one: &Representation, other: &Opened| one.identity == Identity::of(&other.metadata);
        self.is_settled
            && self.keeping == keeping
            && is_same(&self.plain, plain)
            && self.variants.len() == siblings.len()
            && self
                .variants
                .iter()
                .zip(siblings)
                .all(|(variant, (coding, sibling))| variant.coding == Some(*coding) && is_same(variant, sibling))
    }

    /// The same with what the kernel may send put where it can, if there is any that is not there yet: `EAGAIN` where that may
    /// not be waited for. Not at first sight: pages of its own cost more than sending a file a few times.
    pub(super) fn frozen(&self, patience: Patience) -> Result<Option<Self>, Errno> {
        let can_freeze = |one: &Representation| match &one.content {
            Content::Memory(bytes) => bytes.len() as u64 >= SENT_BY_KERNEL,
            Content::Frozen(..) | Content::Open(_) => false,
        };
        if !can_freeze(&self.plain) && !self.variants.iter().any(can_freeze) {
            return Ok(None);
        }
        if patience == Patience::AtHand {
            return Err(Errno::AGAIN);
        }
        let mut entry = self.clone();
        for one in std::iter::once(&mut entry.plain).chain(&mut entry.variants) {
            if can_freeze(one)
                && let Content::Memory(bytes) = &one.content
            {
                // Without memory for it, or descriptors, it goes on as it is.
                let Ok(Frozen { bytes, descriptor, offset }) = FREEZER.freeze(bytes) else { return Ok(None) };
                one.content = Content::Frozen(Arc::new(InMemory { bytes, offset }), descriptor);
            }
        }
        Ok(Some(entry))
    }

    /// Whether there is anything to choose between.
    pub(super) fn varies(&self) -> bool {
        !self.variants.is_empty()
    }

    /// How long it may be kept.
    pub(super) fn keeping(&self) -> Keeping {
        self.keeping
    }

    /// What there is beside the plain file.
    pub(super) fn codings(&self) -> Vec<Coding> {
        self.variants.iter().filter_map(|variant| variant.coding).collect()
    }

    /// The file as it is.
    pub(super) fn plain(&self) -> &Representation {
        &self.plain
    }

    /// What the client wants most; of what it wants alike, the smallest.
    pub(super) fn choose(&self, accepted: Accepted) -> &Representation {
        let mut best = (&self.plain, 0);
        for variant in &self.variants {
            let weight = variant.coding.map_or(0, |coding| accepted.weight(coding));
            let is_better = weight > best.1 || weight == best.1 && variant.length() < best.0.length();
            if weight > 0 && is_better && !accepted.prefers_identity(weight) {
                best = (variant, weight);
            }
        }
        best.0
    }

    /// Bytes that it holds in memory.
    pub(super) fn held(&self) -> usize {
        let held = |one: &Representation| match &one.content {
            Content::Memory(bytes) => bytes.len(),
            Content::Frozen(memory, _) => memory.bytes.len(),
            Content::Open(_) => 0,
        };
        held(&self.plain) + self.variants.iter().map(held).sum::<usize>()
    }

    /// Whether a file that it holds open is not what it was: shortened, rewritten, or removed or replaced under its name,
    /// each of which sets the change time. One system call for a file that is not in memory; none for one that is.
    pub(super) fn has_changed(&self) -> bool {
        std::iter::once(&self.plain).chain(&self.variants).any(|one| match &one.content {
            Content::Memory(_) | Content::Frozen(..) => false,
            Content::Open(file) => rustix::fs::fstat(file).map_or(true, |stat| {
                let (size, modified) = (stat.st_size as u64, (stat.st_mtime, stat.st_mtime_nsec as i64));
                let changed = (stat.st_ctime, stat.st_ctime_nsec as i64);
                (size, modified, changed) != (one.identity.size, one.identity.modified, one.identity.changed)
            }),
        })
    }

    /// Descriptors that it holds open.
    pub(super) fn descriptors(&self) -> usize {
        let all = std::iter::once(&self.plain).chain(&self.variants);
        all.filter(|one| !matches!(one.content, Content::Memory(_))).count()
    }
}

fn is_settled(touched: SystemTime, now: SystemTime) -> bool {
    now.duration_since(touched).is_ok_and(|age| age >= SETTLED)
}

// === impl Representation ===

impl Representation {
    /// The length of all of it.
    pub(super) fn length(&self) -> u64 {
        self.identity.size
    }

    /// How it is compressed.
    pub(super) fn coding(&self) -> Option<Coding> {
        self.coding
    }

    /// Whether it is compressed.
    pub(super) fn is_coded(&self) -> bool {
        self.coding.is_some()
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

    /// A part of it that lies within it.
    pub(super) fn part(&self, part: Part) -> ResponseBody {
        let Part { first: offset, length } = part;
        let slice = |bytes: &Bytes| bytes.slice(offset as usize..(offset + length) as usize);
        let version = self.identity.version();
        match &self.content {
            Content::Memory(bytes) => ResponseBody::Full(slice(bytes)),
            Content::Frozen(memory, _) if length < SENT_BY_KERNEL => ResponseBody::Full(slice(&memory.bytes)),
            Content::Frozen(memory, file) => {
                let (offset, memory) = (memory.offset + offset, Some(Arc::clone(memory)));
                ResponseBody::File(FileBody { file: Arc::clone(file), offset, length, version, memory })
            }
            Content::Open(file) => {
                ResponseBody::File(FileBody { file: Arc::clone(file), offset, length, version, memory: None })
            }
        }
    }
}

/// What the fields of a file and its variants are made of.
struct FieldsOf<'a> {
    name: &'a [u8],
    modified: SystemTime,
    dress: &'a Dress,
    keeping: Keeping,
    varies: bool,
}

impl FieldsOf<'_> {
    fn representation(&self, coding: Option<Coding>, content: Content, identity: Identity) -> Representation {
        let tag = identity.tag(coding);
        let mut whole = Fields::new()
            .with("Content-Type", self.dress.content_type(self.name))
            .with("X-Content-Type-Options", Bytes::from_static(b"nosniff"))
            .with("ETag", tag.clone())
            .with("Last-Modified", Bytes::copy_from_slice(&date::format(self.modified)))
            .with("Accept-Ranges", Bytes::from_static(b"bytes"));
        // What RFC 9110, section 15.4.5 wants in a 304; the fields of the content would be noise.
        let mut unchanged = Fields::new().with("ETag", tag.clone());
        if let Some(coding) = coding {
            whole.push(Bytes::from_static(b"Content-Encoding"), Bytes::from_static(coding.name().as_bytes()));
        }
        if self.varies {
            for fields in [&mut whole, &mut unchanged] {
                fields.push(Bytes::from_static(b"Vary"), Bytes::from_static(b"Accept-Encoding"));
            }
        }
        if let Some(value) = self.keeping.value() {
            whole.push(Bytes::from_static(b"Cache-Control"), value.clone());
            unchanged.push(Bytes::from_static(b"Cache-Control"), value);
        }
        self.dress.put_on(&mut whole, &mut unchanged);
        let (whole, unchanged) = (whole.shared(), unchanged.shared());
        Representation { coding, identity, content, tag, modified: self.modified, whole, unchanged }
    }
}

/// The content of an open file: in memory where it is small. `None` where it changed while it was read, twice in a row.
fn read_until_still(opened: &mut Opened, patience: Patience) -> io::Result<Option<Content>> {
    for _ in 0..2 {
        if opened.metadata.size() > SMALL {
            return Ok(Some(Content::Open(Arc::new(OwnedFd::from(opened.file.try_clone()?)))));
        }
        if let Some(bytes) = read_as(&opened.file, &opened.metadata, patience)? {
            return Ok(Some(Content::Memory(bytes)));
        }
        opened.metadata = opened.file.metadata()?;
    }
    Ok(None)
}

/// The content that belongs to `metadata`; `None` where it turns out shorter, or where the file is another one
/// afterwards: then the bytes may be half of one and half of the other.
fn read_as(file: &File, metadata: &Metadata, patience: Patience) -> io::Result<Option<Bytes>> {
    let mut bytes = vec![0; metadata.size() as usize];
    let read = match patience {
        Patience::Waits => file.read_exact_at(&mut bytes, 0),
        Patience::AtHand => read_at_hand(file, &mut bytes),
    };
    match read {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let after = file.metadata()?;
    let is_same = after.size() == metadata.size() && after.modified()? == metadata.modified()?;
    Ok(is_same.then(|| Bytes::from(bytes)))
}

/// The first bytes of a file, if they are in memory; `EAGAIN` where some are not, or the file is shorter.
fn read_at_hand(file: &File, bytes: &mut [u8]) -> io::Result<()> {
    let length = bytes.len();
    if length == 0 {
        return Ok(());
    }
    match rustix::io::preadv2(file, &mut [IoSliceMut::new(bytes)], 0, ReadWriteFlags::NOWAIT)? {
        read if read == length => Ok(()),
        _ => Err(Errno::AGAIN.into()),
    }
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
        assert_eq!(read_as(&file, &before, Patience::Waits).unwrap().as_deref(), Some(&b"0123456789"[..]));
        file.set_len(4).unwrap();
        assert_eq!(read_as(&file, &before, Patience::Waits).unwrap(), None, "shorter");
        file.set_len(12).unwrap();
        set_modified(&file, before.modified().unwrap());
        assert_eq!(read_as(&file, &before, Patience::Waits).unwrap(), None, "longer, with its time set back");
        file.set_len(10).unwrap();
        set_modified(&file, UNIX_EPOCH + Duration::from_secs(1_000_000_000));
        assert_eq!(read_as(&file, &before, Patience::Waits).unwrap(), None, "touched");
    }

    fn load(file: File, metadata: Metadata) -> Entry {
        Entry::load(
            (b"a.txt", Opened { file, metadata }),
            Vec::new(),
            &Dress::default(),
            Keeping::Unsaid,
            Patience::Waits,
        )
        .unwrap()
        .unwrap()
    }

    #[test]
    fn a_file_that_changed_once_is_read_again_as_what_it_is_now() {
        let file = file_of(b"0123456789");
        let before = file.metadata().unwrap();
        file.set_len(4).unwrap();
        let entry = load(file, before);
        assert_eq!(entry.plain().length(), 4);
        let body = entry.plain().part(Part { first: 0, length: 4 });
        assert!(matches!(body, ResponseBody::Full(bytes) if bytes == "0123"));
    }

    #[test]
    fn a_fresh_file_is_read_again_because_its_times_may_not_tell() {
        let file = file_of(b"x");
        let opened = |file: &File| Opened { metadata: file.metadata().unwrap(), file: file.try_clone().unwrap() };
        let entry = load(file.try_clone().unwrap(), file.metadata().unwrap());
        assert!(!entry.is_still(&opened(&file), &[], Keeping::Unsaid));
        set_modified(&file, SystemTime::now() - Duration::from_secs(60));
        let entry = load(file.try_clone().unwrap(), file.metadata().unwrap());
        assert!(entry.is_still(&opened(&file), &[], Keeping::Unsaid));
        assert!(!entry.is_still(&opened(&file), &[], Keeping::Immutable), "a new manifest changes the fields");
        let sibling = (Coding::Gzip, opened(&file));
        assert!(!entry.is_still(&opened(&file), &[sibling], Keeping::Unsaid), "a variant has come");
    }

    #[test]
    fn what_is_asked_for_again_gets_memory_that_the_kernel_sends() {
        let of = |length: u64| {
            let file = file_of(&vec![b'x'; length as usize]);
            let metadata = file.metadata().unwrap();
            load(file, metadata)
        };
        let entry = of(SENT_BY_KERNEL);
        assert_eq!((entry.descriptors(), entry.held()), (0, SENT_BY_KERNEL as usize));
        assert_eq!(entry.frozen(Patience::AtHand).unwrap_err(), Errno::AGAIN, "no work for an event loop");
        let frozen = entry.frozen(Patience::Waits).unwrap().unwrap();
        assert_eq!((frozen.descriptors(), frozen.held()), (1, SENT_BY_KERNEL as usize));
        let whole = Part { first: 0, length: SENT_BY_KERNEL };
        assert!(matches!(entry.plain().part(whole), ResponseBody::Full(bytes) if bytes.len() as u64 == SENT_BY_KERNEL));
        // Of two the second lies behind the first, and both are what they were.
        for frozen in [&frozen, &entry.frozen(Patience::Waits).unwrap().unwrap()] {
            let ResponseBody::File(mut file) = frozen.plain().part(whole) else { panic!("sent by the kernel") };
            assert_eq!(file.at_hand().unwrap(), vec![b'x'; SENT_BY_KERNEL as usize]);
            assert_eq!(file.split_to(10).at_hand().unwrap(), [b'x'; 10][..]);
            assert_eq!(file.at_hand().unwrap().len() as u64, SENT_BY_KERNEL - 10);
        }
        assert!(frozen.frozen(Patience::AtHand).unwrap().is_none(), "once");
        assert!(of(SENT_BY_KERNEL - 1).frozen(Patience::AtHand).unwrap().is_none(), "a plain write is cheaper");
    }

    #[test]
    fn what_is_in_memory_is_read_at_once_and_never_in_half() {
        let file = file_of(b"0123456789");
        let before = file.metadata().unwrap();
        assert_eq!(read_as(&file, &before, Patience::AtHand).unwrap().as_deref(), Some(&b"0123456789"[..]));
        file.set_len(4).unwrap();
        let shorter = read_as(&file, &before, Patience::AtHand).unwrap_err();
        assert_eq!(shorter.raw_os_error(), Some(Errno::AGAIN.raw_os_error()), "whoever may wait finds out");
        file.set_len(0).unwrap();
        let empty = read_as(&file, &file.metadata().unwrap(), Patience::AtHand).unwrap();
        assert_eq!(empty.as_deref(), Some(&b""[..]));
    }

    #[test]
    fn the_tag_is_strong_and_tells_time_and_size() {
        let identity = |modified, size, inode, changed| Identity { device: 1, inode, size, modified, changed };
        let tag = identity((1_700_000_000, 5), 7, 1, (1, 1)).tag(None);
        assert!(tag.starts_with(b"\"") && tag.ends_with(b"\"") && tag.len() > 2);
        assert_eq!(identity((1_700_000_000, 5), 7, 2, (2, 2)).tag(None), tag, "the same on another machine");
        assert_ne!(identity((1_700_000_000, 6), 7, 1, (1, 1)).tag(None), tag);
        assert_ne!(identity((1_700_000_000, 5), 8, 1, (1, 1)).tag(None), tag);
        // Nix dates all its files to second 1.
        assert_ne!(identity((1, 0), 7, 1, (9, 0)).tag(None), identity((1, 0), 7, 1, (8, 0)).tag(None));
    }

    #[test]
    fn last_modified_of_a_file_from_the_future_is_now() {
        let file = file_of(b"x");
        set_modified(&file, SystemTime::now() + Duration::from_secs(86_400));
        let metadata = file.metadata().unwrap();
        let entry = load(file, metadata);
        assert!(entry.plain().validators().modified <= SystemTime::now());
    }
}
