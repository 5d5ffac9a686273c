//! How files come into the destination: all of them are written aside first, then renamed into place, the manifest last.
//!
//! A crash or a full disk while they are written leaves the destination as it was. A rename needs no space, and each
//! file is the old one or the new one at any time.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use rustix::fs::FlockOperation;

use crate::content::Content;
use crate::error::Error;
use crate::settings::Settings;

/// Folders of builds begin so, below the destination: a rename must not leave its file system. No server sends them.
const STAGE: &str = ".daemun-stage-";

/// How long another build in the same destination is waited for.
const PATIENCE: Duration = Duration::from_secs(600);

/// How often it is asked for.
const PAUSE: Duration = Duration::from_millis(50);

/// Kinds of outputs, in the order in which they appear.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Kind {
    Hashed,
    HashedSibling,
    Plain,
    PlainSibling,
    Manifest,
}

/// A file of the tree to be.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    pub(crate) name: String,
    pub(crate) content: Content,
    pub(crate) kind: Kind,
}

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) written: Vec<String>,
    pub(crate) unmodified: usize,
}

/// The destination, held against other builds.
pub(crate) struct Destination<'a> {
    settings: &'a Settings,
    folder: PathBuf,
    stage: PathBuf,
    group: Option<u32>,
    /// The lock lasts as long as this is open.
    _lock: File,
}

impl<'a> Destination<'a> {
    /// Makes the folder where it is not there, waits for other builds, and removes what a crashed one left.
    pub(crate) fn open(settings: &'a Settings) -> Result<Self, Error> {
        let folder = &settings.destination;
        make_folders(folder, settings.folder_mode)?;
        let lock = File::open(folder).map_err(Error::io("cannot open", folder))?;
        let since = Instant::now();
        while let Err(error) = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            // Some network file systems know no locks: then two builds at once are the operator's care.
            if !matches!(error, rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) {
                break;
            }
            if since.elapsed() > PATIENCE {
                return Err(Error::Busy(folder.clone()));
            }
            std::thread::sleep(PAUSE);
        }
        for entry in fs::read_dir(folder).map_err(Error::io("cannot list", folder))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(STAGE) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let stage = folder.join(format!("{STAGE}{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&stage).map_err(Error::io("cannot create", &stage))?;
        let group = fs::metadata(folder).ok().map(|status| status.gid());
        Ok(Self { settings, folder: folder.clone(), stage, group, _lock: lock })
    }

    /// Where large sources are copied to while they are read.
    pub(crate) fn stage(&self) -> &Path {
        &self.stage
    }

    /// Brings `outputs` into place.
    pub(crate) fn publish(&self, mut outputs: Vec<Output>) -> Result<Published, Error> {
        outputs.sort_by(|one, other| (one.kind, &one.name).cmp(&(other.kind, &other.name)));
        let place = |output: &Output| {
            match (&self.settings.hashing, output.kind) {
                (Some(hashing), Kind::Manifest) => {
                    let manifest = hashing.manifest.as_ref();
                    manifest.and_then(|manifest| manifest.folder.clone()).unwrap_or_else(|| self.folder.clone())
                }
                _ => self.folder.clone(),
            }
            .join(&output.name)
        };
        let targets: Vec<PathBuf> = outputs.iter().map(place).collect();
        let changed: Vec<usize> =
            (0..outputs.len()).into_par_iter().filter(|&at| !outputs[at].content.is_at(&targets[at])).collect();
        let mut folders: Vec<&Path> = changed.iter().filter_map(|&at| targets[at].parent()).collect();
        folders.sort_unstable();
        folders.dedup();
        for folder in folders {
            make_folders(folder, self.settings.folder_mode)?;
        }
        // Each thread has a folder: in a common one they would wait for each other with every file, and spin.
        let threads = rayon::current_num_threads().min(changed.len());
        let lanes: Vec<PathBuf> = (0..threads).map(|lane| self.stage.join(format!("lane-{lane}"))).collect();
        for lane in &lanes {
            fs::create_dir(lane).map_err(Error::io("cannot create", lane))?;
        }
        let staged = |place: usize| lanes[place % lanes.len()].join(place.to_string());
        (0..lanes.len()).into_par_iter().with_max_len(1).try_for_each(|lane| {
            (lane..changed.len()).step_by(lanes.len()).try_for_each(|place| {
                let at = changed[place];
                if targets[at].is_dir() {
                    let what = "cannot replace the folder";
                    return Err(Error::io(what, &targets[at])(io::Error::from(io::ErrorKind::IsADirectory)));
                }
                self.write(&outputs[at], &staged(place))
            })
        })?;
        for (place, &at) in changed.iter().enumerate() {
            rename(&staged(place), &targets[at])?;
        }
        let written = changed.iter().map(|&at| outputs[at].name.clone()).collect::<Vec<_>>();
        Ok(Published { unmodified: outputs.len() - written.len(), written })
    }

    fn write(&self, output: &Output, staged: &Path) -> Result<(), Error> {
        output.content.write(staged)?;
        if let Some(mode) = self.settings.file_mode {
            fs::set_permissions(staged, fs::Permissions::from_mode(mode))
                .map_err(Error::io("cannot set the mode of", staged))?;
        }
        if let (Some(group), Ok(status)) = (self.group, fs::metadata(staged))
            && status.gid() != group
        {
            // As Django: the group of the folder, where we may.
            let _ = std::os::unix::fs::chown(staged, None, Some(group));
        }
        if output.kind == Kind::Manifest {
            let file = File::open(staged).map_err(Error::io("cannot open", staged))?;
            file.sync_all().map_err(Error::io("cannot write", staged))?;
        }
        Ok(())
    }

    /// Removes files below the destination; what is not there is no fault. How many were there.
    pub(crate) fn remove(&self, names: impl IntoIterator<Item = String>) -> Vec<String> {
        names.into_iter().filter(|name| fs::remove_file(self.folder.join(name)).is_ok()).collect()
    }
}

impl Drop for Destination<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.stage);
    }
}

fn rename(staged: &Path, target: &Path) -> Result<(), Error> {
    match fs::rename(staged, target) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            // A folder below is a mount of its own: beside the target, then.
            let mut name = target.file_name().unwrap_or_default().to_owned();
            name.push(format!("{STAGE}{}", std::process::id()));
            let beside = target.with_file_name(name);
            let copied = fs::copy(staged, &beside).and_then(|_| fs::rename(&beside, target));
            copied.map_err(Error::io("cannot write", target))
        }
        other => other.map_err(Error::io("cannot write", target)),
    }
}

fn make_folders(folder: &Path, mode: Option<u32>) -> Result<(), Error> {
    if folder.is_dir() {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    if let Some(mode) = mode {
        builder.mode(mode);
    }
    builder.create(folder).map_err(Error::io("cannot create the folder", folder))
}

/// Every file below the destination, as names with slashes.
pub(crate) fn files_below(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(name) = folders.pop() {
        for entry in fs::read_dir(folder.join(&name)).into_iter().flatten().flatten() {
            let Some(own) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let full = crate::url::join(&name, &own);
            // A link to a folder is removed as a link, never followed.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if !own.starts_with(STAGE) {
                    folders.push(full);
                }
            } else {
                names.push(full);
            }
        }
    }
    names
}
