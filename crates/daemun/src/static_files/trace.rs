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
use super::{StaticFiles, name};
use crate::http::Request;

/// Names that differ in more than a third of their letters are not what was meant.
const NEAR: usize = 3;

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
    /// The application whose folder of static files the file lies in, where the folder is called as Django has it.
    pub application: Option<String>,
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
                    trace.application = application(&root);
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
            trace.nearest = self.nearest(own);
        }
    }

    /// The name in the same folder that is most like this one.
    fn nearest(&self, own: &[u8]) -> Option<String> {
        let whole = own.strip_suffix(b"/").unwrap_or(own);
        let cut = whole.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let (folder, last) = whole.split_at(cut);
        let last = text(last);
        let listing = self.lookup.list(folder).ok().flatten()?;
        let names = listing.entries.iter().map(|entry| text(&entry.name));
        let near = names.filter(|name| *name != last).map(|name| {
            let (one, other) = (name.to_lowercase(), last.to_lowercase());
            (strsim::damerau_levenshtein(&one, &other), name)
        });
        let near = near.filter(|(distance, name)| *distance * NEAR <= name.chars().count().max(last.chars().count()));
        near.min().map(|(_, name)| text(folder) + &name)
    }
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

/// `admin` for `…/django/contrib/admin/static`.
fn application(root: &Path) -> Option<String> {
    let package = root.parent().filter(|_| root.file_name().is_some_and(|name| name == "static"))?;
    let is_package = package.join("__init__.py").is_file();
    package.file_name().filter(|_| is_package).map(|name| name.to_string_lossy().into_owned())
}

fn shown(path: &Path) -> String {
    text(path.as_os_str().as_bytes())
}

/// A name as it can be shown: any bytes.
fn text(name: &[u8]) -> String {
    OsStr::from_bytes(name).to_str().map_or_else(|| name.escape_ascii().to_string(), str::to_owned)
}
