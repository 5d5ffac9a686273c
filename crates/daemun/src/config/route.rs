//! `[[route]]`: a condition and exactly one handler.

use std::collections::HashMap;
use std::path::Path;

use super::configuration::{HandlerSettings, RouteSettings};
use super::fault::{Place, Report};
use super::section::{Entry, Keys, Section, list};
use super::suggest::did_you_mean;
use super::{condition, filters};
use crate::filter::FilterSettings;
use crate::respond::{Redirect, Respond};
use crate::router::{Conditions, HostPattern, PathPattern, Rule};
use crate::static_files::{Missing, Root, StaticSettings};

/// The keys of `[[route]]`.
pub(super) const KEYS: Keys = Keys {
    known: &[
        "host",
        "path",
        "static",
        "app",
        "redirect",
        "respond",
        "method",
        "header",
        "strip_prefix",
        "max_body",
        "timeout",
        "request_buffering",
        "server_timing",
    ],
    later: &[
        "cgi",
        "upstream",
        "headers",
        "rewrite",
        "compress",
        "cache",
        "xslt",
        "rate_limit",
        "basic_auth",
        "allow",
        "deny",
        "errors",
    ],
};

const HANDLERS: [&str; 4] = ["static", "app", "redirect", "respond"];
const LATER_HANDLERS: [&str; 2] = ["cgi", "upstream"];
const STATIC: Keys =
    Keys { known: &["root", "index", "missing", "manifest", "allow_names"], later: &["listing", "headers"] };
const REDIRECT: Keys = Keys { known: &["to", "status"], later: &[] };
const RESPOND: Keys = Keys { known: &["status", "body", "content_type"], later: &[] };

/// Another temporary redirect would surprise least: permanent ones cannot be taken back from browsers.
const REDIRECT_STATUS: u16 = 302;
const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

/// A route with the place that its faults are told at.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) settings: RouteSettings,
    pub(super) place: Place,
    /// Where the name of its application stands, if it has one.
    app_place: Option<Place>,
}

// === impl Draft ===

impl Draft {
    /// A route that nobody wrote.
    pub(super) fn found(path: &str, handler: HandlerSettings, origin: &str) -> Self {
        let prefix = path.strip_suffix('*').unwrap_or(path).to_owned();
        let path = PathPattern::Prefix { prefix, suffix: String::new() };
        let rule = Rule { host: HostPattern::Any, path, conditions: Conditions::default(), origin: origin.to_owned() };
        Self {
            settings: RouteSettings { rule, filters: FilterSettings::default(), handler },
            place: Place::named(origin),
            app_place: None,
        }
    }

    /// Reads one `[[route]]`.
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let host = section.entry("host").map_or(Some(HostPattern::Any), |entry| entry.parse("a host", str::parse));
        let path = match section.entry("path") {
            None => Some(PathPattern::Prefix { prefix: "/".to_owned(), suffix: String::new() }),
            Some(entry) => entry.parse("a path such as \"/static/*\"", str::parse),
        };
        let app = section.entry("app");
        let conditions = condition::read(section);
        let filters = filters::read(section, path.as_ref());
        let handler = handler(section)?;
        let rule = Rule { host: host?, path: path?, conditions: conditions?, origin: section.place().to_string() };
        let settings = RouteSettings { rule, filters, handler };
        Some(Self { settings, place: section.place(), app_place: app.map(|entry| entry.place()) })
    }
}

/// Tells every reference to an application that is not there, and every pair of routes that tie.
pub(super) fn check(routes: &[Draft], apps: &[&str], report: &Report) {
    let mut places: HashMap<String, &Place> = HashMap::new();
    for route in routes {
        places.insert(route.settings.rule.origin.clone(), &route.place);
        if let HandlerSettings::App(name) = &route.settings.handler
            && !apps.contains(&name.as_str())
        {
            let place = route.app_place.clone().unwrap_or_else(|| route.place.clone());
            let known: Vec<String> = apps.iter().map(|app| format!("`{app}`")).collect();
            let near = did_you_mean(name, apps);
            let more = match (near.is_empty(), known.is_empty()) {
                (false, _) => near,
                (true, true) => format!("; write [app.{name}]"),
                (true, false) => format!("; there is {}", list(&known)),
            };
            report.fault(place, format!("`app` in [[route]]: there is no application `{name}`{more}"));
        }
    }
    for tie in crate::router::ties(routes.iter().map(|route| &route.settings.rule)) {
        let place = places.get(&tie.second).map_or_else(|| Place::named(&tie.second), |place| (*place).clone());
        let host = if tie.host == HostPattern::Any { String::new() } else { format!(" on host `{}`", tie.host) };
        report.fault(
            place,
            format!("a route for `{}`{host} stands already at {}; which of them answers?", tie.path, tie.first),
        );
    }
}

/// What a folder that was named on the command line or found is served with.
pub(super) fn folder(path: &Path) -> StaticSettings {
    StaticSettings {
        roots: vec![Root { path: path.to_path_buf(), prefix: String::new() }],
        index: vec!["index.html".to_owned()],
        missing: Missing::NotFound,
        manifest: false,
        allow_names: Vec::new(),
        refuse_sources: true,
        cache: true,
    }
}

fn handler(section: &Section<'_>) -> Option<HandlerSettings> {
    let present: Vec<Entry<'_>> = HANDLERS.iter().filter_map(|key| section.entry(key)).collect();
    match &present[..] {
        [] => {
            // One that is not supported was told already.
            if !LATER_HANDLERS.iter().any(|key| section.entry(key).is_some()) {
                section.fault("a route needs a handler: one of `static`, `app`, `redirect` and `respond`");
            }
            None
        }
        [entry] => match entry.key() {
            "static" => static_files(entry).map(HandlerSettings::Static),
            "app" => entry.name().map(HandlerSettings::App),
            "redirect" => redirect(entry),
            _ => respond(entry),
        },
        [first, others @ ..] => {
            for other in others {
                other.fault(format!("a route has exactly one handler, and this one has `{}` already", first.key()));
            }
            None
        }
    }
}

fn static_files(entry: &Entry<'_>) -> Option<StaticSettings> {
    let section = entry.section("`static`", "a table such as { root = \"static\" }", STATIC)?;
    let Some(root) = section.entry("root") else {
        entry.fault("a `root` is missing: the folder whose files are sent");
        return None;
    };
    let items = if root.is_list() { root.items("a path")? } else { vec![root] };
    let mut roots = Vec::new();
    for item in items {
        let path = item.path()?;
        if path.is_file() {
            item.expected("a folder");
        } else if !path.is_dir() {
            // Not a fault: what is collected later is not there yet.
            item.source.report.warn(format!("{}: there is no folder {} yet", item.place(), path.display()));
        }
        roots.push(Root { path, prefix: String::new() });
    }
    let missing = section.entry("missing").and_then(|entry| entry.parse("\"404\", \"next\" or a path", missing));
    Some(StaticSettings {
        index: section.entry("index").and_then(|entry| file_names(&entry)).unwrap_or(vec!["index.html".to_owned()]),
        missing: missing.unwrap_or(Missing::NotFound),
        manifest: section.entry("manifest").and_then(|entry| entry.boolean()).unwrap_or(false),
        allow_names: section.entry("allow_names").and_then(|entry| file_names(&entry)).unwrap_or_default(),
        roots,
        refuse_sources: false,
        cache: true,
    })
}

/// Names of files, without a folder.
fn file_names(entry: &Entry<'_>) -> Option<Vec<String>> {
    let items = entry.items("a list of file names")?;
    let mut names = Vec::new();
    for item in items {
        let Some(name) = item.name() else { continue };
        if name.contains('/') || name == ".." || name == "." {
            item.expected("a file name without a folder");
        } else {
            names.push(name);
        }
    }
    Some(names)
}

fn missing(text: &str) -> Result<Missing, String> {
    match text {
        "404" => Ok(Missing::NotFound),
        "next" => Ok(Missing::Next),
        _ => match text.parse() {
            Ok(PathPattern::Exact(path)) => Ok(Missing::File(path)),
            _ => Err(format!(
                "expected \"404\", \"next\" or a path of the same route such as \"/index.html\", found {text:?}"
            )),
        },
    }
}

fn redirect(entry: &Entry<'_>) -> Option<HandlerSettings> {
    let section = entry.section("`redirect`", "a table such as { to = \"/new/{rest}\", status = 308 }", REDIRECT)?;
    let Some(to_entry) = section.entry("to") else {
        entry.fault("a `to` is missing: where the client is sent");
        return None;
    };
    let status = status(&section, REDIRECT_STATUS);
    let to = to_entry.text()?;
    // Two tries, so that a fault is told where it stands.
    if let Err(message) = Redirect::new(&to, REDIRECT_STATUS) {
        to_entry.fault(message);
    } else if let (Some(status), Some(entry)) = (status, section.entry("status"))
        && let Err(message) = Redirect::new(&to, status)
    {
        entry.fault(message);
    }
    Some(HandlerSettings::Redirect { to, status: status? })
}

fn respond(entry: &Entry<'_>) -> Option<HandlerSettings> {
    let section = entry.section("`respond`", "a table such as { status = 404, body = \"gone\" }", RESPOND)?;
    let text = |key: &str, default: &str| section.entry(key).map_or(Some(default.to_owned()), |entry| entry.text());
    let (body, content_type) = (text("body", "")?, text("content_type", PLAIN_TEXT)?);
    let status = status(&section, 200)?;
    if let Err(message) = Respond::new(status, &body, &content_type) {
        entry.fault(message);
    }
    Some(HandlerSettings::Respond { status, body, content_type })
}

fn status(section: &Section<'_>, default: u16) -> Option<u16> {
    section.entry("status").map_or(Some(default), |entry| entry.whole(100, 999).map(|status| status as u16))
}
