//! From a name to what may be sent for it: the roots in their order, index names, what is refused, the manifest.
//!
//! What waits for the disk runs on the blocking pool. An event loop looks with [`Patience::AtHand`], and goes there with what fails.

use std::fs::Metadata;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::cache::Sought;
use super::coding::Coding;
use super::dress::Dress;
use super::entry::{Entry, Identity, Keeping, Opened};
use super::listing;
use super::manifest::{self, Manifest, ManifestError};
use super::name;
use super::settings::{Barred, Missing, StaticSettings};
use super::tree::{Below, Listing, Patience, Tree};

/// How often the manifest is looked at: the same second after which a file is.
const MANIFEST_CHECK: Duration = Duration::from_secs(1);

/// Seconds for which a plain name beside hashed ones is kept: its content changes with a deployment.
const BESIDE_HASHED: u32 = 60;

/// A lookup that failed: the machine's fault or the operator's, never the client's.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookupError {
    /// Opening or reading failed.
    #[error("{name} below {root}: {source}")]
    Io {
        /// The name, as it was asked for.
        name: String,
        /// The root.
        root: String,
        /// Why.
        source: io::Error,
    },
    /// It was written to, again and again.
    #[error("{name} below {root} changes while it is read")]
    Changing {
        /// The name, as it was asked for.
        name: String,
        /// The root.
        root: String,
    },
}

/// What is known before the disk is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    /// What the name led to before: if that is still so, nothing is read.
    pub(super) last: Option<&'a Arc<Entry>>,
    /// When the request came.
    pub(super) now: Instant,
    /// Whether the disk may be waited for.
    pub(super) patience: Patience,
}

/// The roots of a static route.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a wish of its own")]
pub(super) struct Lookup {
    roots: Vec<RootTree>,
    index: Vec<String>,
    is_next_on_missing: bool,
    allow_names: Vec<String>,
    refuse_sources: bool,
    barred: Vec<Barred>,
    is_edited: bool,
    precompressed: bool,
    listing: bool,
    max_age: Option<u32>,
    age_unsaid: bool,
    dress: Dress,
    manifest: Option<Mutex<Watched>>,
}

#[derive(Debug)]
struct RootTree {
    tree: Tree,
    prefix: Vec<u8>,
    path: PathBuf,
}

/// The manifest as it was last read.
#[derive(Debug)]
struct Watched {
    checked: Option<Instant>,
    identity: Option<Identity>,
    manifest: Arc<Manifest>,
    fault: Option<ManifestError>,
}

impl Lookup {
    /// The roots of these settings, with the folders that were opened for them in the same order.
    pub(super) fn new(settings: StaticSettings, folders: Vec<OwnedFd>) -> Self {
        let dress = Dress::new(&settings);
        let roots = settings.roots.into_iter().zip(folders).map(|(root, folder)| RootTree {
            tree: Tree::new(folder),
            prefix: root.prefix.trim_matches('/').as_bytes().to_vec(),
            path: root.path,
        });
        let watched = Watched { checked: None, identity: None, manifest: Arc::default(), fault: None };
        Self {
            roots: roots.collect(),
            index: settings.index,
            is_next_on_missing: settings.missing == Missing::Next,
            allow_names: settings.allow_names,
            refuse_sources: settings.refuse_sources,
            barred: settings.barred,
            is_edited: !settings.cache,
            // What lies beside sources that are edited is of yesterday.
            precompressed: settings.precompressed && settings.cache,
            listing: settings.listing,
            max_age: settings.max_age,
            age_unsaid: settings.age_unsaid,
            dress,
            manifest: settings.manifest.then(|| Mutex::new(watched)),
        }
    }

    /// What the own part of a path leads to.
    pub(super) fn look_up(&self, own: &[u8], known: Known<'_>) -> Result<Sought, LookupError> {
        let sought = self.in_roots(own, known)?;
        // "Next" means that nothing of that name is there; a folder that would answer nothing is nothing.
        if self.is_next_on_missing && matches!(sought, Sought::Folder) {
            let with_slash = [own, b"/"].concat();
            if matches!(self.in_roots(&with_slash, known)?, Sought::Absent) {
                return Ok(Sought::Absent);
            }
        }
        Ok(sought)
    }

    /// What is wrong with the manifest, as far as it was looked at.
    pub(super) fn manifest_fault(&self) -> Option<ManifestError> {
        let _ = self.current_manifest(Instant::now(), Patience::Waits);
        self.manifest.as_ref().and_then(|watched| lock(watched).fault.clone())
    }

    fn in_roots(&self, own: &[u8], known: Known<'_>) -> Result<Sought, LookupError> {
        for root in &self.roots {
            match self.in_root(root, own, known)? {
                None | Some(Sought::Absent) => {}
                Some(sought) => return Ok(sought),
            }
        }
        Ok(Sought::Absent)
    }

    /// What one root has; `None` where its prefix stands against the name.
    fn in_root(&self, root: &RootTree, own: &[u8], known: Known<'_>) -> Result<Option<Sought>, LookupError> {
        let Some(name) = root.below(own) else { return Ok(None) };
        let sought = if own.is_empty() || own.ends_with(b"/") {
            self.index_of(root, own, name, known)?
        } else if name.is_empty() {
            Sought::Folder
        } else {
            self.named(root, own, name, known)?
        };
        Ok(Some(sought))
    }

    /// Every root that is asked, in order, with the path that the name has in it and what stands there; the last is the
    /// one that decides.
    pub(super) fn trace(&self, own: &[u8], now: Instant) -> Vec<(PathBuf, PathBuf, Result<Sought, LookupError>)> {
        let known = Known { last: None, now, patience: Patience::Waits };
        let mut steps = Vec::new();
        for root in &self.roots {
            let result = match self.in_root(root, own, known) {
                Ok(None) => continue,
                Ok(Some(sought)) => Ok(sought),
                Err(error) => Err(error),
            };
            let name = root.below(own).unwrap_or_default();
            let index = self.index.iter().map(|index| [name, index.as_bytes()].concat()).find(|whole| {
                (own.is_empty() || own.ends_with(b"/"))
                    && matches!(root.tree.open(whole, Patience::Waits), Ok(Below::File(..)))
            });
            let name = index.unwrap_or_else(|| name.to_vec());
            let path = root.path.join(std::ffi::OsStr::from_bytes(&name));
            let is_last = !matches!(result, Ok(Sought::Absent));
            steps.push((root.path.clone(), path, result));
            if is_last {
                break;
            }
        }
        steps
    }

    /// The plain name of one that the manifest hashes. Reads the manifest: for questions, not for requests.
    pub(super) fn plain_name(&self, hashed: &[u8]) -> Option<Vec<u8>> {
        let Ok(Below::File(file, _)) = self.roots.first()?.tree.open(manifest::NAME.as_bytes(), Patience::Waits) else {
            return None;
        };
        let mut bytes = Vec::new();
        file.take(manifest::LONGEST).read_to_end(&mut bytes).ok()?;
        manifest::plain_name(&bytes, hashed)
    }

    /// The names that stand in the folder `own` of any root; those of folders end with a slash.
    pub(super) fn names(&self, own: &[u8]) -> Vec<Vec<u8>> {
        let mut names = Vec::new();
        for root in &self.roots {
            let Some(listing) = self.list_in(root, own).ok().flatten() else { continue };
            let slash = |is_folder: bool| if is_folder { &b"/"[..] } else { b"" };
            names.extend(listing.entries.iter().map(|one| [&one.name, slash(one.size.is_none())].concat()));
        }
        // A prefix of a root is a folder that none of them has.
        let prefixes = self.roots.iter().filter_map(|root| {
            let rest = root.prefix.strip_prefix(own)?;
            let first = rest.split(|&byte| byte == b'/').next().filter(|first| !first.is_empty())?;
            Some([first, b"/"].concat())
        });
        names.extend(prefixes);
        names.sort();
        names.dedup();
        names
    }

    /// The file that answers for a folder.
    fn index_of(&self, root: &RootTree, own: &[u8], folder: &[u8], known: Known<'_>) -> Result<Sought, LookupError> {
        for index in &self.index {
            let index = index.as_bytes();
            match self.named(root, &[own, index].concat(), &[folder, index].concat(), known)? {
                // A folder called index.html answers for nothing.
                Sought::Absent | Sought::Folder => {}
                Sought::Script => return Ok(Sought::Handed([own, index].concat().into())),
                found => return Ok(found),
            }
        }
        let trimmed = folder.strip_suffix(b"/").unwrap_or(folder);
        if self.listing && !name::is_denied(own, &self.allow_names, false) && !self.is_script(root, trimmed) {
            let below = if trimmed.is_empty() { Ok(Below::Folder) } else { root.tree.open(trimmed, known.patience) };
            if let Below::Folder = below.map_err(|errno| root.failed(folder, errno))? {
                return Ok(Sought::Listing);
            }
        }
        Ok(Sought::Absent)
    }

    /// What stands in the folder that `own` names: of the first root that has it.
    pub(super) fn list(&self, own: &[u8]) -> Result<Option<Listing>, LookupError> {
        for root in &self.roots {
            let listing = self.list_in(root, own)?;
            if listing.is_some() {
                return Ok(listing);
            }
        }
        Ok(None)
    }

    fn list_in(&self, root: &RootTree, own: &[u8]) -> Result<Option<Listing>, LookupError> {
        let Some(folder) = root.below(own) else { return Ok(None) };
        let folder = folder.strip_suffix(b"/").unwrap_or(folder);
        let is_hidden = |name: &[u8]| {
            let below = if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() };
            name::is_denied(&[own, name].concat(), &self.allow_names, self.refuse_sources)
                || self.is_script(root, &below)
        };
        listing::read(&root.tree, folder, is_hidden).map_err(|errno| root.failed(folder, errno))
    }

    /// Whether what stands under `name` in this root belongs to a CGI route.
    fn is_script(&self, root: &RootTree, name: &[u8]) -> bool {
        self.barred.iter().any(|barred| barred.root == root.path && name::is_script(name, barred))
    }

    /// What stands under `name` in this root, which is `own` in the route.
    fn named(&self, root: &RootTree, own: &[u8], name: &[u8], known: Known<'_>) -> Result<Sought, LookupError> {
        let below = root.tree.open(name, known.patience).map_err(|errno| root.failed(name, errno));
        let below = match below {
            Err(error) if known.patience == Patience::AtHand => return Err(error),
            other => other,
        };
        let is_denied = name::is_denied(own, &self.allow_names, self.refuse_sources);
        if is_denied || self.is_script(root, name) {
            // Even what cannot be opened: nothing tells a hidden file from one that is only unreadable.
            return Ok(match below {
                Ok(Below::Nothing) => Sought::Absent,
                Ok(Below::File(..)) if !is_denied => Sought::Script,
                _ => Sought::Refused,
            });
        }
        match below? {
            Below::Nothing => Ok(Sought::Absent),
            Below::Other => Ok(Sought::Refused),
            Below::Folder => Ok(Sought::Folder),
            Below::File(file, metadata) => {
                let keeping = self.keeping(own, known).map_err(|errno| root.failed(name, errno))?;
                let opened = Opened { file, metadata };
                let siblings = self.siblings(root, name, (&opened, keeping), known.patience);
                let siblings = siblings.map_err(|errno| root.failed(name, errno))?;
                if let Some(last) = known.last.filter(|last| last.is_still(&opened, &siblings, keeping)) {
                    let frozen = last.frozen(known.patience).map_err(|errno| root.failed(name, errno))?;
                    return Ok(Sought::File(frozen.map_or_else(|| Arc::clone(last), Arc::new)));
                }
                let loaded = Entry::load((name, opened), siblings, &self.dress, keeping, known.patience);
                match loaded.map_err(|source| root.failed(name, source))? {
                    Some(entry) => Ok(Sought::File(Arc::new(entry))),
                    None => Err(LookupError::Changing { name: text(name), root: root.path.display().to_string() }),
                }
            }
        }
    }

    /// The variants of a file that were compressed beforehand and can stand for it: smaller, and not older, unless the
    /// name says that the content never changes. What cannot be opened is no variant.
    fn siblings(
        &self,
        root: &RootTree,
        name: &[u8],
        (plain, keeping): (&Opened, Keeping),
        patience: Patience,
    ) -> Result<Vec<(Coding, Opened)>, Errno> {
        if !self.precompressed || Coding::ALL.iter().any(|coding| name.ends_with(coding.suffix().as_bytes())) {
            return Ok(Vec::new());
        }
        let modified = |metadata: &Metadata| (metadata.mtime(), metadata.mtime_nsec());
        let stands = |(_, sibling): &(Coding, Opened)| {
            sibling.metadata.size() < plain.metadata.size()
                && (keeping == Keeping::Immutable || modified(&sibling.metadata) >= modified(&plain.metadata))
        };
        let mut found = Vec::new();
        for coding in Coding::ALL {
            match root.tree.open(&[name, coding.suffix().as_bytes()].concat(), patience) {
                Ok(Below::File(file, metadata)) => found.push((coding, Opened { file, metadata })),
                Err(error) if patience == Patience::AtHand => return Err(error),
                _ => {}
            }
        }
        found.retain(stands);
        Ok(found)
    }

    fn keeping(&self, own: &[u8], known: Known<'_>) -> Result<Keeping, Errno> {
        if self.is_edited {
            return Ok(Keeping::Ask);
        }
        Ok(match self.current_manifest(known.now, known.patience)? {
            Some(manifest) if manifest.is_hashed(own) => Keeping::Immutable,
            manifest => match self.max_age {
                Some(seconds) => Keeping::Seconds(seconds),
                None if manifest.is_some() && !self.age_unsaid => Keeping::Seconds(BESIDE_HASHED),
                None => Keeping::Unsaid,
            },
        })
    }

    /// The manifest, read again if it is another one than a second ago. `None` where the route has none. On an event loop
    /// it is neither read nor waited for.
    fn current_manifest(&self, now: Instant, patience: Patience) -> Result<Option<Arc<Manifest>>, Errno> {
        let Some(watched) = &self.manifest else { return Ok(None) };
        let mut watched = match patience {
            Patience::Waits => lock(watched),
            Patience::AtHand => watched.try_lock().map_err(|_| Errno::AGAIN)?,
        };
        if watched.checked.is_none_or(|checked| now.saturating_duration_since(checked) >= MANIFEST_CHECK) {
            let tree = self.roots.first().map(|root| &root.tree);
            if patience == Patience::AtHand && !watched.is_same(tree) {
                return Err(Errno::AGAIN);
            }
            watched.checked = Some(now);
            if patience == Patience::Waits {
                watched.refresh(tree);
            }
        }
        Ok(Some(Arc::clone(&watched.manifest)))
    }
}

impl RootTree {
    fn failed(&self, name: &[u8], source: impl Into<io::Error>) -> LookupError {
        LookupError::Io { name: text(name), root: self.path.display().to_string(), source: source.into() }
    }

    /// `own` as it is called in this root; `None` where the root's prefix stands against it.
    fn below<'a>(&self, own: &'a [u8]) -> Option<&'a [u8]> {
        if self.prefix.is_empty() {
            return Some(own);
        }
        let rest = own.strip_prefix(self.prefix.as_slice())?;
        // `vendor` is not the beginning of `vendors`.
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix(b"/") }
    }
}

impl Watched {
    /// Whether it is seen, without waiting, to be the file that was read.
    fn is_same(&self, root: Option<&Tree>) -> bool {
        let found = root.map(|tree| tree.open(manifest::NAME.as_bytes(), Patience::AtHand));
        matches!(found, Some(Ok(Below::File(_, metadata))) if self.identity == Some(Identity::of(&metadata)))
    }

    fn refresh(&mut self, root: Option<&Tree>) {
        let (identity, result) = match root.map(|tree| tree.open(manifest::NAME.as_bytes(), Patience::Waits)) {
            Some(Ok(Below::File(file, metadata))) => {
                let identity = Identity::of(&metadata);
                if self.identity == Some(identity) {
                    return;
                }
                let mut bytes = Vec::new();
                let read = file.take(manifest::LONGEST).read_to_end(&mut bytes);
                let parsed = match read {
                    Ok(_) => Manifest::parse(&bytes),
                    Err(error) => Err(ManifestError::Unreadable(error.to_string())),
                };
                (Some(identity), parsed)
            }
            Some(Ok(Below::Nothing)) | None => (None, Err(ManifestError::Absent)),
            Some(Ok(Below::Folder | Below::Other)) => (None, Err(ManifestError::Unreadable("not a file".to_owned()))),
            Some(Err(errno)) => (None, Err(ManifestError::Unreadable(io::Error::from(errno).to_string()))),
        };
        self.identity = identity;
        (self.manifest, self.fault) = match result {
            Ok(manifest) => (Arc::new(manifest), None),
            Err(fault) => (Arc::default(), Some(fault)),
        };
    }
}

/// A panic while the lock was held left plain data behind: it can be used.
fn lock(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name for the log: any bytes, none of which can forge a line.
fn text(name: &[u8]) -> String {
    name.escape_ascii().to_string()
}
