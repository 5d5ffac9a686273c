//! What `daemun explain` tells of a static route: the very lookup that serves, watched.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::cache::Sought;
use super::coding::Coding;
use super::conditional::Conditions;
use super::entry::{Entry, Keeping};
use super::settings::{Owner, Source};
use super::{StaticFiles, name, origin};
use crate::http::Request;

/// Names that differ in more than a third of their letters are not what was meant.
const NEAR: usize = 3;

/// Files that are looked through for a name that its own folder has nothing like.
const WALKED: usize = 20_000;

/// What a name leads to.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Trace {
    /// The name below the route.
    pub name: String,
    /// The file that is sent, or stands in the way.
    pub path: Option<String>,
    /// The root that it lies below.
    pub root: Option<String>,
    /// Every place that was looked at, in order, and what is there.
    pub looked_at: Vec<Place>,
    /// Why it is sent as it is: how long it may be kept, which variant.
    pub reasons: Vec<String>,
    /// The nearest name, where nothing has this one.
    pub nearest: Option<String>,
    /// The application of a Django project that brings the file: `django.contrib.admin`.
    pub application: Option<String>,
    /// The setting that brings it, where it is no application: `STATICFILES_DIRS, settings.py:120`.
    pub setting: Option<String>,
    /// The file that it was collected from.
    pub source: Option<String>,
}

/// A place that was looked at.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Place {
    /// Its path.
    pub path: String,
    /// What is there.
    pub found: String,
}

impl StaticFiles {
    /// What the request's name leads to. Waits for the disk.
    pub fn trace(&self, request: &Request) -> Trace {
        let mut trace = Trace::default();
        if request.path.has_encoded_slash() {
            trace.reasons.push("with an encoded slash in it no file has this name".to_owned());
        } else {
            let own = name::own_part(&request.path, request.prefix_length);
            match own {
                Some(own) => self.follow(own, request, &mut trace),
                None => trace.reasons.push("the path is the folder itself, without its slash".to_owned()),
            }
        }
        if trace.path.is_none()
            && let Some(other) = &self.other
            && !trace.looked_at.iter().any(|place| place.found != NOTHING)
        {
            trace.reasons.push(format!("nothing of this name: `missing` says {}", text(other)));
            self.follow(other, request, &mut trace);
        }
        trace
    }

    fn follow(&self, own: &[u8], request: &Request, trace: &mut Trace) {
        trace.name = text(own);
        for (root, path, result) in self.lookup.trace(own, Instant::now()) {
            let found = match &result {
                Ok(Sought::File(entry)) => {
                    tell(entry, request, trace);
                    trace.path = Some(shown(&path));
                    self.tell_whose(&root, &path, own, trace);
                    trace.root = Some(shown(&root));
                    "a file"
                }
                Ok(Sought::Folder) => "a folder",
                Ok(Sought::Listing) => "a folder that is listed",
                Ok(Sought::Handed(script)) => {
                    trace.reasons.push(format!("the route that runs {} answers", text(script)));
                    "a folder whose index is a script"
                }
                Ok(Sought::Refused | Sought::Script) => {
                    trace.reasons.push(
                        "it is there, but is never sent: hidden, a source, a script, or a link that leads out".into(),
                    );
                    "refused"
                }
                Ok(Sought::Absent) => NOTHING,
                Err(error) => {
                    trace.reasons.push(error.to_string());
                    "not readable"
                }
            };
            trace.looked_at.push(Place { path: shown(&path), found: found.to_owned() });
        }
        if trace.path.is_none() && trace.looked_at.iter().all(|place| place.found == NOTHING) {
            self.tell_what_is_not_collected(own, trace);
            trace.nearest = self.nearest(own);
        }
    }

    /// Who brings a file, and from where it was collected.
    fn tell_whose(&self, root: &Path, path: &Path, own: &[u8], trace: &mut Trace) {
        if self.sources.is_empty() {
            return;
        }
        let name = path.strip_prefix(root).map_or(own, |below| below.as_os_str().as_bytes());
        if let Some(owner) = origin::owner(&self.sources, root, own) {
            trace.bring(owner);
            let hidden = origin::find(&self.sources, own).into_iter().filter(|other| other.path != path);
            trace.reasons.extend(hidden.map(|other| hides(&other)));
            return;
        }
        let mut found = origin::find_collected(&self.sources, name, |name| self.lookup.plain_name(name)).into_iter();
        let Some(source) = found.next() else {
            let why = "no folder of Django's finders has it: its source is gone, or it was never collected from one";
            trace.reasons.push(why.to_owned());
            return;
        };
        trace.bring(source.owner);
        trace.source = Some(shown(&source.path));
        if source.is_of_old {
            trace
                .reasons
                .push("its hash is not the manifest's: it was collected earlier and is kept for a while".into());
        } else if is_older(path, &source.path) {
            let why = format!("{} has changed since it was collected: run daemun collect", shown(&source.path));
            trace.reasons.push(why);
        }
        trace.reasons.extend(found.map(|other| hides(&other)));
    }

    /// What a finder has for a name that the folder of collected files has not.
    fn tell_what_is_not_collected(&self, own: &[u8], trace: &mut Trace) {
        let is_collected = |source: &Source| trace.looked_at.iter().all(|place| !is_below(place, source));
        if !self.sources.iter().all(is_collected) {
            return;
        }
        if let Some(found) = origin::find(&self.sources, own).first() {
            let (path, owner) = (shown(&found.path), said(found.owner));
            trace.reasons.push(format!("it was not collected: {path} of {owner} has it; run daemun collect"));
        }
    }

    /// The name that is most like this one: of its own folder, else of another with the same last part, else of all.
    fn nearest(&self, own: &[u8]) -> Option<String> {
        let whole = own.strip_suffix(b"/").unwrap_or(own);
        let cut = whole.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let (folder, last) = whole.split_at(cut);
        let bare = |name: &[u8]| text(name.strip_suffix(b"/").unwrap_or(name));
        let beside: Vec<String> = self.lookup.names(folder).iter().map(|name| bare(name)).collect();
        // The same file with another hash: a page of another deployment asks for it.
        let same = origin::without_hash(last).and_then(|plain| {
            beside.iter().find(|name| origin::without_hash(name.as_bytes()).as_ref() == Some(&plain))
        });
        if let Some(name) = same {
            return Some(text(folder) + name);
        }
        if let Some(name) = most_like(&text(last), beside.iter().map(String::as_str)) {
            return Some(text(folder) + name);
        }
        let all = self.all_names();
        let (whole, last) = (text(whole), text(last));
        let namesakes = all.iter().map(String::as_str).filter(|name| name.rsplit('/').next() == Some(last.as_str()));
        let distance = |name: &&str| (strsim::damerau_levenshtein(name, &whole), name.len());
        let namesake = namesakes.min_by_key(distance);
        namesake.or_else(|| most_like(&whole, all.iter().map(String::as_str))).map(str::to_owned)
    }

    /// Every file that may be sent, up to [`WALKED`].
    fn all_names(&self) -> Vec<String> {
        let (mut all, mut folders) = (Vec::new(), vec![Vec::new()]);
        while let Some(folder) = folders.pop() {
            for name in self.lookup.names(&folder) {
                let whole = [folder.as_slice(), &name].concat();
                if whole.ends_with(b"/") {
                    folders.push(whole);
                } else {
                    all.push(text(&whole));
                }
            }
            if all.len() + folders.len() > WALKED {
                break;
            }
        }
        all
    }
}

impl Trace {
    fn bring(&mut self, owner: &Owner) {
        match owner {
            Owner::Application(name) => self.application = Some(name.clone()),
            Owner::Setting(place) => self.setting = Some(place.clone()),
        }
    }
}

/// The name that differs least, and in no more than a third of its letters.
fn most_like<'a>(name: &str, others: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let others = others.filter(|other| *other != name).map(|other| {
        let (one, two) = (other.to_lowercase(), name.to_lowercase());
        (strsim::damerau_levenshtein(&one, &two), other)
    });
    let near = others.filter(|(distance, other)| distance * NEAR <= other.chars().count().max(name.chars().count()));
    near.min().map(|(_, other)| other)
}

fn hides(other: &origin::Found<'_>) -> String {
    format!("it hides {} of {}", shown(&other.path), said(other.owner))
}

fn said(owner: &Owner) -> &str {
    match owner {
        Owner::Application(name) => name,
        Owner::Setting(place) => place,
    }
}

/// By the test of Django's own command: the time of the last change.
fn is_older(collected: &Path, source: &Path) -> bool {
    let modified = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    modified(collected).zip(modified(source)).is_some_and(|(collected, source)| collected < source)
}

fn is_below(place: &Place, source: &Source) -> bool {
    Path::new(&place.path).starts_with(&source.root.path)
}

const NOTHING: &str = "nothing";

/// Why the file is sent as it is.
fn tell(entry: &Entry, request: &Request, trace: &mut Trace) {
    let keeping = match entry.keeping() {
        Keeping::Immutable => {
            "immutable: the manifest staticfiles.json says that the name carries its content's hash".to_owned()
        }
        Keeping::Seconds(seconds) => {
            format!("kept for {seconds} s: `max_age` of the route, or a plain name beside hashed ones")
        }
        Keeping::Ask => "no-cache: it lies among sources that are being edited".to_owned(),
        Keeping::Unsaid => "no Cache-Control: neither `max_age` nor a manifest says how long it may be kept".to_owned(),
    };
    trace.reasons.push(keeping);
    let codings = entry.codings();
    let told = |codings: &[Coding]| {
        let names: Vec<&str> = codings.iter().map(|coding| coding.suffix()).collect();
        names.join(", ")
    };
    if !codings.is_empty() {
        let chosen = entry.choose(Conditions::of(&request.head).accepted());
        trace.reasons.push(match chosen.coding() {
            Some(coding) => format!(
                "the variant {} is sent: it lies beside the file, is smaller and not older, and the client takes it",
                coding.suffix()
            ),
            None => format!("variants lie beside it ({}), but Accept-Encoding asks for none of them", told(&codings)),
        });
    }
    trace.reasons.push("ETag: of size and time of the file; it answers If-None-Match with 304".to_owned());
}

fn shown(path: &Path) -> String {
    text(path.as_os_str().as_bytes())
}

/// A name as it can be shown: any bytes.
fn text(name: &[u8]) -> String {
    OsStr::from_bytes(name).to_str().map_or_else(|| name.escape_ascii().to_string(), str::to_owned)
}
