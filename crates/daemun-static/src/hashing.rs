//! Hashed names and rewritten references: the passes of Django's `HashedFilesMixin.post_process`.
//!
//! The passes are kept as they are there, one file after the other, each pass seeing what the files before it in the
//! same pass have become: names of intermediate files, the order of the manifest and the question whether a ring of
//! references settles all depend on it. What costs time is not repeated: a file is rewritten again only when a name
//! that it asked for has changed.

use std::collections::HashMap;
use std::path::Path;

use crate::content::{Content, Snapshot, fingerprint};
use crate::error::Error;
use crate::references::{Fault, Rewriter, Unresolved};
use crate::settings::Hashing;
use crate::sources::Found;
use crate::url;

/// What the passes came to.
#[derive(Debug, Default)]
pub(crate) struct Hashed {
    /// Plain and hashed names, in the order in which they were processed first.
    pub(crate) names: Vec<(String, String)>,
    /// Files with hashed names.
    pub(crate) outputs: Vec<(String, Content)>,
    /// References that were left as they are.
    pub(crate) faults: Vec<(String, Fault)>,
}

/// A file that is looked at for references.
pub(crate) struct Input<'a> {
    pub(crate) found: &'a Found,
    pub(crate) snapshot: &'a Snapshot,
    /// Its text, where it may hold references.
    pub(crate) text: Option<&'a str>,
    pub(crate) adjustable: bool,
}

struct Passes<'a> {
    settings: &'a Hashing,
    rewriter: &'a Rewriter<'a>,
    destination: &'a Path,
    lenient: bool,
    files: &'a [Input<'a>],
    /// Places in `files` by name.
    places: HashMap<&'a str, usize>,
    hashed: HashMap<String, String>,
    order: Vec<String>,
    /// Files with hashed names that these passes made; `None` for one that a later pass took away.
    overlay: HashMap<String, Option<Content>>,
    memory: HashMap<usize, Memory>,
    faults: HashMap<usize, Vec<Fault>>,
}

/// What a file was rewritten to, and the names it was given for those that it asked for.
struct Memory {
    asked: Vec<(String, Option<String>)>,
    content: Content,
    hash: String,
}

/// Runs the passes.
pub(crate) fn run(
    settings: &Hashing,
    rewriter: &Rewriter<'_>,
    files: &[Input<'_>],
    destination: &Path,
    lenient: bool,
) -> Result<Hashed, Error> {
    let places = files.iter().enumerate().map(|(place, file)| (file.found.name.as_str(), place)).collect();
    let mut passes = Passes {
        settings,
        rewriter,
        destination,
        lenient,
        files,
        places,
        hashed: HashMap::new(),
        order: Vec::new(),
        overlay: HashMap::new(),
        memory: HashMap::new(),
        faults: HashMap::new(),
    };
    let mut order: Vec<usize> = (0..files.len()).collect();
    // Deepest first; those of one depth stay as they were found.
    order.sort_by_key(|&place| std::cmp::Reverse(files[place].found.name.matches('/').count()));
    for &place in &order {
        passes.process(place)?;
    }
    order.retain(|&place| files[place].adjustable);
    let mut unsettled = Vec::new();
    for _ in 0..settings.passes {
        unsettled.clear();
        for &place in &order {
            if passes.process(place)? {
                unsettled.push(files[place].found.name.clone());
            }
        }
        if unsettled.is_empty() {
            break;
        }
    }
    if !unsettled.is_empty() {
        unsettled.sort();
        return Err(Error::Cycle(unsettled));
    }
    Ok(passes.finish())
}

impl Passes<'_> {
    /// One file in one pass; true where its hashed name changed.
    fn process(&mut self, place: usize) -> Result<bool, Error> {
        let file = &self.files[place];
        let name = &file.found.name;
        let key = name.replace('\\', "/");
        let before = match self.hashed.get(&key) {
            Some(hashed) => hashed.clone(),
            None => hashed_name(name, &file.snapshot.hash),
        };
        if !file.adjustable {
            self.overlay.insert(before.clone(), Some(file.snapshot.content.clone()));
            self.remember(key, before);
            return Ok(true);
        }
        let (content, hash) = self.rewritten(place)?;
        if self.settings.keep_intermediate {
            self.overlay.insert(before.clone(), Some(content.clone()));
        } else {
            self.overlay.insert(before.clone(), None);
        }
        let after = hashed_name(name, &hash).replace('\\', "/");
        self.overlay.insert(after.clone(), Some(content));
        let changed = before != after;
        self.remember(key, after);
        Ok(changed)
    }

    fn remember(&mut self, key: String, hashed: String) {
        if self.hashed.insert(key.clone(), hashed).is_none() {
            self.order.push(key);
        }
    }

    /// The content with references rewritten, and its fingerprint.
    fn rewritten(&mut self, place: usize) -> Result<(Content, String), Error> {
        let file = &self.files[place];
        let Some(text) = file.text else { return Ok((file.snapshot.content.clone(), file.snapshot.hash.clone())) };
        if let Some(memory) = self.memory.get(&place)
            && memory.asked.iter().all(|(key, answer)| self.hashed.get(key) == answer.as_ref())
        {
            return Ok((memory.content.clone(), memory.hash.clone()));
        }
        let name = &file.found.name;
        let mut asked = Vec::new();
        let rewritten = self.rewriter.rewrite(name, &name[file.found.below..], text, self.lenient, &mut |target| {
            self.stored(target, &mut asked)
        });
        if let (Some(fault), false) = (rewritten.faults.first(), self.lenient) {
            return Err(self.error(name, fault));
        }
        self.faults.insert(place, rewritten.faults);
        let hash = fingerprint(rewritten.text.as_bytes());
        let content = Content::of(rewritten.text.into_bytes());
        self.memory.insert(place, Memory { asked, content: content.clone(), hash: hash.clone() });
        Ok((content, hash))
    }

    /// `_stored_name`: what was processed already has its name; else the collected file is read.
    fn stored(&self, name: &str, asked: &mut Vec<(String, Option<String>)>) -> Result<String, Unresolved> {
        let name = url::normal(name);
        let key = name.replace('\\', "/");
        let known = self.hashed.get(&key).cloned();
        asked.push((key, known.clone()));
        match known {
            Some(known) => Ok(known),
            None => Ok(self.computed(&name)?.replace('\\', "/")),
        }
    }

    /// `hashed_name` of a file that is opened for it.
    fn computed(&self, name: &str) -> Result<String, Unresolved> {
        let parts = url::split(&url::unquote(name));
        let clean = parts.path.trim();
        let below = url::normal(clean);
        if clean.starts_with('/') || below == ".." || below.starts_with("../") {
            return Err(Unresolved::Outside);
        }
        let hash = if let Some(&place) = self.places.get(below.as_str()) {
            self.files[place].snapshot.hash.clone()
        } else if let Some(Some(content)) = self.overlay.get(&below) {
            let Ok(bytes) = content.bytes() else { return Ok(name.to_owned()) };
            fingerprint(&bytes)
        } else {
            let path = self.destination.join(&below);
            let folder = format!("{below}/");
            let is_folder = below == "." || self.places.keys().any(|name| name.starts_with(&folder)) || path.is_dir();
            if is_folder {
                // Django cannot open it, and leaves the name as it is.
                return Ok(name.to_owned());
            }
            let Ok(bytes) = std::fs::read(&path) else { return Err(Unresolved::Missing(clean.to_owned())) };
            fingerprint(&bytes)
        };
        Ok(with_hash(name, &parts, &hash))
    }

    fn error(&self, name: &str, fault: &Fault) -> Error {
        let (source_file, line, reference) = (name.to_owned(), fault.line, fault.reference.clone());
        match &fault.why {
            Unresolved::Outside => Error::Outside { source_file, line, reference },
            Unresolved::Missing(target) => {
                let hint = self.nearest(target).map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
                Error::Missing { source_file, line, target: target.clone(), reference, hint }
            }
        }
    }

    /// A file of the same name elsewhere, else one whose name is nearly the same.
    fn nearest(&self, target: &str) -> Option<&str> {
        let base = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
        let wanted = base(target);
        let elsewhere = self.files.iter().map(|file| file.found.name.as_str()).find(|name| base(name) == wanted);
        elsewhere.or_else(|| {
            let names = self.files.iter().map(|file| file.found.name.as_str());
            let rated = names.map(|name| (strsim::jaro_winkler(name, target), name));
            let best = rated.max_by(|(one, _), (other, _)| one.total_cmp(other));
            best.filter(|(rating, _)| *rating > 0.9).map(|(_, name)| name)
        })
    }

    fn finish(mut self) -> Hashed {
        let names = self.order.iter().map(|key| (key.clone(), self.hashed[key].clone())).collect();
        let mut outputs: Vec<(String, Content)> =
            self.overlay.drain().filter_map(|(name, content)| Some((name, content?))).collect();
        outputs.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut faults: Vec<(usize, Vec<Fault>)> = self.faults.drain().collect();
        faults.sort_by_key(|(place, _)| *place);
        let name = |place: usize| self.files[place].found.name.clone();
        let faults = faults.into_iter().flat_map(|(place, faults)| faults.into_iter().map(move |fault| (place, fault)));
        Hashed { names, outputs, faults: faults.map(|(place, fault)| (name(place), fault)).collect() }
    }
}

/// `hashed_name` of a file whose content is known.
fn hashed_name(name: &str, hash: &str) -> String {
    with_hash(name, &url::split(&url::unquote(name)), hash)
}

fn with_hash(name: &str, parts: &url::Split, hash: &str) -> String {
    let clean = parts.path.trim();
    let (folder, base) = clean.rfind('/').map_or(("", clean), |slash| (url::folder_of(clean), &clean[slash + 1..]));
    let (stem, extension) = url::split_extension(base);
    let mut parts = parts.clone();
    parts.path = url::join(folder, &format!("{stem}.{hash}{extension}"));
    if name.contains("?#") && parts.query.is_empty() {
        parts.path.push('?');
    }
    url::unsplit(&parts)
}
