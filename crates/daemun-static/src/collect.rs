//! One build: list, read, hash, rewrite, compress, publish.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rayon::prelude::*;

use crate::cache::Cache;
use crate::compression::{self, Siblings};
use crate::content::{Content, Reader, Snapshot};
use crate::error::Error;
use crate::hashing::{self, Hashed, Input};
use crate::progress::Progress;
use crate::publish::{self, Destination, Kind, Output};
use crate::references::{Rewriter, Unresolved};
use crate::report::Report;
use crate::retired::Retired;
use crate::settings::{Hashing, Settings};
use crate::sources::{self, Found};
use crate::{manifest, url};

/// Extensions of siblings.
const SIBLINGS: [&str; 3] = ["br", "gz", "zst"];

/// Builds the tree.
pub fn run(settings: &Settings, progress: &dyn Progress) -> Result<Report, Error> {
    let start = Instant::now();
    check_destination(settings)?;
    let rewriter = settings.hashing.as_ref().map(|hashing| Rewriter::new(&hashing.rewriting));
    let rewriter = rewriter.transpose().map_err(Error::Unsupported)?;
    let destination = if settings.dry_run { None } else { Some(Destination::open(settings)?) };
    let listing = sources::list(&settings.sources, &settings.ignore, &settings.destination)?;
    let mut report = Report { files: listing.files.len(), ..Report::default() };
    report.note_listing(&listing);
    let stage = destination.as_ref().map(|destination| destination.stage().to_owned());
    let snapshots = read(&listing.files, rewriter.as_ref(), stage, progress)?;
    report.source_bytes = snapshots.iter().map(|snapshot| snapshot.content.len()).sum();

    let mut outputs = BTreeMap::new();
    let hashed = match (&settings.hashing, &rewriter) {
        (Some(hashing), Some(rewriter)) => {
            progress.begin("rewriting references", listing.files.len());
            Some(rewrite(hashing, rewriter, &listing.files, &snapshots, settings, &mut report)?)
        }
        _ => None,
    };
    let only_hashed = settings.hashing.as_ref().is_some_and(|hashing| hashing.only_hashed);
    if !only_hashed {
        for (found, snapshot) in listing.files.iter().zip(&snapshots) {
            outputs.insert(found.name.clone(), (snapshot.content.clone(), Kind::Plain));
        }
    }
    if let Some(hashed) = &hashed {
        take_hashed(hashed, &listing.files, only_hashed, &mut outputs);
        report.note_hashed(hashed);
    }
    let siblings = compress(settings, hashed.as_ref(), &outputs, progress, &mut report)?;
    for (name, content, _) in siblings.files {
        let plain = name.rsplit_once('.').and_then(|(base, _)| outputs.get(base)).map(|(_, kind)| *kind);
        let kind = if plain == Some(Kind::Hashed) { Kind::HashedSibling } else { Kind::PlainSibling };
        outputs.insert(name, (content, kind));
    }
    let manifest = write_manifest(settings.hashing.as_ref(), hashed.as_ref(), &mut outputs);
    report.output_files = outputs.len();
    if let Some(destination) = destination {
        progress.begin("writing", outputs.len());
        publish(settings, &destination, outputs, &listing.files, manifest, &mut report)?;
    } else {
        let is_new =
            |(name, (content, _)): &(&String, &(Content, Kind))| !content.is_at(&settings.destination.join(name));
        report.written = outputs.iter().filter(is_new).map(|(name, _)| name.clone()).collect();
        report.unmodified = outputs.len() - report.written.len();
    }
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// A destination that cannot have been meant.
fn check_destination(settings: &Settings) -> Result<(), Error> {
    let destination = &settings.destination;
    if !destination.is_absolute()
        || destination.parent().is_none()
        || url::normal(&destination.to_string_lossy()) == "/"
    {
        let shown = destination.display();
        return Err(Error::Destination(format!(
            "{shown} is the root of the file system: files cannot be collected there"
        )));
    }
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let own = real(destination);
    for source in &settings.sources {
        let theirs = real(&source.path);
        if theirs == own {
            let shown = destination.display();
            return Err(Error::Destination(format!("{shown} is both where files come from and where they go to")));
        }
        if settings.clear && theirs.starts_with(&own) {
            let message = format!("--clear would remove {}, which lies in {}", theirs.display(), destination.display());
            return Err(Error::Destination(message));
        }
    }
    Ok(())
}

fn read(
    files: &[Found],
    rewriter: Option<&Rewriter<'_>>,
    stage: Option<PathBuf>,
    progress: &dyn Progress,
) -> Result<Vec<Snapshot>, Error> {
    let reader = Reader::new(stage);
    progress.begin("reading", files.len());
    let read = |(number, found): (usize, &Found)| {
        let text = rewriter.is_some_and(|rewriter| rewriter.is_adjustable(&found.name));
        let snapshot = reader.read(found, number, text);
        progress.step();
        snapshot
    };
    files.par_iter().enumerate().map(read).collect()
}

fn rewrite(
    hashing: &Hashing,
    rewriter: &Rewriter<'_>,
    files: &[Found],
    snapshots: &[Snapshot],
    settings: &Settings,
    report: &mut Report,
) -> Result<Hashed, Error> {
    // Looking for references takes the time, and needs no order; putting them right needs it.
    let look = |(found, snapshot): (&Found, &Snapshot)| -> Result<(bool, Option<String>, Option<Error>), Error> {
        if !rewriter.is_adjustable(&found.name) {
            return Ok((false, None, None));
        }
        let bytes = snapshot.content.bytes()?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let byte = error.valid_up_to();
            let line = bytes[..byte].split(|&byte| byte == b'\n').count();
            Error::NotUtf8 { source_file: found.name.clone(), line, byte }
        });
        let text = match text {
            Ok(text) => text,
            // Left as it is, then.
            Err(error) if settings.lenient => return Ok((true, None, Some(error))),
            Err(error) => return Err(error),
        };
        let any = rewriter.finds_any(&found.name[found.below..], text);
        Ok((true, any.then(|| text.to_owned()), None))
    };
    let looked = files.par_iter().zip(snapshots).map(look).collect::<Result<Vec<_>, Error>>()?;
    let inputs: Vec<Input<'_>> = files
        .iter()
        .zip(snapshots)
        .zip(&looked)
        .map(|((found, snapshot), (adjustable, text, _))| Input {
            found,
            snapshot,
            text: text.as_deref(),
            adjustable: *adjustable,
        })
        .collect();
    report.warnings.extend(looked.iter().filter_map(|(_, _, fault)| fault.as_ref()).map(Error::to_string));
    hashing::run(hashing, rewriter, &inputs, &settings.destination, settings.lenient)
}

/// Files with hashed names join the outputs; where only they are wanted, those that are final.
fn take_hashed(hashed: &Hashed, files: &[Found], only_hashed: bool, outputs: &mut BTreeMap<String, (Content, Kind)>) {
    let last: HashSet<&str> = hashed.names.iter().map(|(_, hashed)| hashed.as_str()).collect();
    let plain: HashSet<&str> = files.iter().map(|found| found.name.as_str()).collect();
    for (name, content) in &hashed.outputs {
        if only_hashed && !last.contains(name.as_str()) {
            continue;
        }
        let kind = if plain.contains(name.as_str()) { Kind::Plain } else { Kind::Hashed };
        outputs.insert(name.clone(), (content.clone(), kind));
    }
}

fn compress(
    settings: &Settings,
    hashed: Option<&Hashed>,
    outputs: &BTreeMap<String, (Content, Kind)>,
    progress: &dyn Progress,
    report: &mut Report,
) -> Result<Siblings, Error> {
    let Some(compression) = &settings.compression else { return Ok(Siblings::default()) };
    let last: Option<HashSet<&str>> =
        hashed.map(|hashed| hashed.names.iter().map(|(_, hashed)| hashed.as_str()).collect());
    // What an earlier pass left is never asked for.
    let is_wanted =
        |name: &str, kind: Kind| kind == Kind::Plain || last.as_ref().is_none_or(|last| last.contains(name));
    let files: Vec<(&str, &Content)> = outputs
        .iter()
        .filter(|(name, (_, kind))| is_wanted(name, *kind))
        .map(|(name, (content, _))| (name.as_str(), content))
        .collect();
    let cache = settings.cache.as_ref().filter(|_| !settings.dry_run).and_then(Cache::open);
    let siblings = compression::compress(compression, cache.as_ref(), &files, progress)?;
    if let Some(cache) = &cache {
        cache.trim();
    }
    report.note_siblings(&siblings);
    Ok(siblings)
}

/// Adds the manifest; its file's path and the names it gives, for what is retired.
fn write_manifest(
    hashing: Option<&Hashing>,
    hashed: Option<&Hashed>,
    outputs: &mut BTreeMap<String, (Content, Kind)>,
) -> Option<PathBuf> {
    let manifest = hashing?.manifest.as_ref()?;
    let bytes = manifest::encode(&hashed?.names, manifest);
    outputs.insert(manifest.name.clone(), (Content::of(bytes), Kind::Manifest));
    Some(manifest.folder.clone().unwrap_or_default().join(&manifest.name))
}

fn publish(
    settings: &Settings,
    destination: &Destination<'_>,
    outputs: BTreeMap<String, (Content, Kind)>,
    files: &[Found],
    manifest: Option<PathBuf>,
    report: &mut Report,
) -> Result<(), Error> {
    let before = manifest.map(|place| manifest::hashed_names(&settings.destination.join(place))).unwrap_or_default();
    let names: BTreeSet<String> = outputs.keys().cloned().collect();
    let list = outputs.into_iter().map(|(name, (content, kind))| Output { name, content, kind }).collect();
    let published = destination.publish(list)?;
    let mut over: Vec<String> = Vec::new();
    let used: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    if let Some(cache) = &settings.cache
        && Cache::open(cache).is_some()
    {
        let mut retired = Retired::load(&cache.folder, &settings.destination);
        over = retired.note(&before, &used, settings.keep);
        retired.store();
    }
    let siblings = |name: &String| SIBLINGS.map(|extension| format!("{name}.{extension}"));
    let mut stale: Vec<String> = over.iter().flat_map(siblings).collect();
    // A sibling of other bytes than its file's would be sent in its place.
    stale.extend(published.written.iter().flat_map(siblings));
    stale.extend(over);
    if settings.hashing.as_ref().is_some_and(|hashing| hashing.only_hashed) {
        stale.extend(files.iter().map(|found| found.name.clone()));
    }
    if settings.clear {
        stale.extend(publish::files_below(&settings.destination));
    }
    stale.sort_unstable();
    stale.dedup();
    report.removed = destination.remove(stale.into_iter().filter(|name| !names.contains(name)));
    report.unmodified = published.unmodified;
    report.written = published.written;
    Ok(())
}

// === impl Report ===

impl Report {
    fn note_listing(&mut self, listing: &sources::Listing) {
        self.shadowed.clone_from(&listing.shadowed);
        for (one, other) in sources::case_twins(&listing.files) {
            self.warnings.push(format!(
                "{one} and {other} differ by their letters' case only: on a disk or a CDN that ignores it they are one file"
            ));
        }
    }

    fn note_hashed(&mut self, hashed: &Hashed) {
        self.hashed = hashed.names.len();
        for (name, fault) in &hashed.faults {
            let what = match &fault.why {
                Unresolved::Missing(target) => format!("the file '{target}' could not be found"),
                Unresolved::Outside => String::from("it leads out of the static files"),
            };
            self.warnings.push(format!("{name}:{}: {} is left as it is: {what}", fault.line, fault.reference));
        }
    }

    fn note_siblings(&mut self, siblings: &Siblings) {
        self.distinct = siblings.contents;
        self.cached = siblings.cached;
        self.compressed = siblings.made;
        self.siblings = siblings.files.len();
        // Of the siblings of one file a visitor gets the smallest.
        let mut smallest: HashMap<&str, (u64, u64)> = HashMap::new();
        for (name, content, whole) in &siblings.files {
            let base = name.rsplit_once('.').map_or(name.as_str(), |(base, _)| base);
            let entry = smallest.entry(base).or_insert((content.len(), *whole));
            entry.0 = entry.0.min(content.len());
        }
        self.saved_bytes = smallest.values().map(|(packed, whole)| whole.saturating_sub(*packed)).sum();
        for name in &siblings.large {
            self.warnings.push(format!("{name} is too large to be compressed"));
        }
    }
}
