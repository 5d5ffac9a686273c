//! `[[route]]`: a condition and exactly one handler.

use std::collections::HashMap;

use super::configuration::{HandlerSettings, RouteSettings};
use super::fault::{Place, Report};
use super::section::{Entry, Keys, Section, list};
use super::static_route;
use super::suggest::did_you_mean;
use super::{condition, filters};
use crate::filter::FilterSettings;
use crate::respond::{Redirect, Respond};
use crate::router::{Conditions, HostPattern, PathPattern, Rule};

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
        "allow",
        "deny",
        "rate_limit",
        "headers",
        "basic_auth",
        "max_body",
        "timeout",
        "request_buffering",
        "rewrite",
        "strip_prefix",
        "cache",
        "compress",
        "errors",
        "server_timing",
    ],
    later: &["cgi", "upstream", "xslt"],
};

const HANDLERS: [&str; 4] = ["static", "app", "redirect", "respond"];
const LATER_HANDLERS: [&str; 2] = ["cgi", "upstream"];
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
            "static" => static_route::read(entry).map(HandlerSettings::Static),
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
