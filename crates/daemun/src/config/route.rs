//! `[[route]]`: a condition and exactly one handler.

use std::collections::{HashMap, HashSet};

use super::configuration::{HandlerSettings, RouteSettings};
use super::fault::{Place, Report};
use super::section::{Entry, Keys, Section, list};
use super::suggest::did_you_mean;
use super::{cgi, condition, filters, static_route, upstream};
use crate::filter::FilterSettings;
use crate::respond::{Redirect, Respond};
use crate::router::{Conditions, HostPattern, PathPattern, Rule};
use crate::static_files::Missing;

/// The keys of `[[route]]`.
pub(super) const KEYS: Keys = Keys {
    known: &[
        "host",
        "path",
        "static",
        "app",
        "cgi",
        "upstream",
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
        "early_hints",
        "xslt",
        "errors",
        "server_timing",
    ],
    later: &[],
};

const HANDLERS: [&str; 6] = ["static", "app", "cgi", "upstream", "redirect", "respond"];
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

    /// A route that stands for what was written elsewhere.
    pub(super) fn made(rule: Rule, handler: HandlerSettings, place: Place) -> Self {
        let settings = RouteSettings { rule, filters: FilterSettings::default(), handler };
        Self { settings, place, app_place: None }
    }

    /// The route as it is served. Own pages stand for those of a static tree too: it has none that anybody wrote.
    pub(super) fn complete(mut self) -> RouteSettings {
        if let (HandlerSettings::Static(_), Some(errors)) = (&self.settings.handler, &mut self.settings.filters.errors)
        {
            errors.value.intercept = true;
        }
        self.settings
    }

    /// The same for another host.
    pub(super) fn with_host(&self, host: HostPattern) -> Self {
        let mut draft = self.clone();
        draft.settings.rule.host = host;
        draft
    }

    /// Reads one `[[route]]`.
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let host = section.entry("host").map_or(Some(HostPattern::Any), |entry| entry.parse("a host", str::parse));
        let path = match section.entry("path") {
            None => Some(PathPattern::Prefix { prefix: "/".to_owned(), suffix: String::new() }),
            Some(entry) => entry.parse("a path such as \"/static/*\"", str::parse),
        };
        let conditions = condition::read(section);
        // All of it is read, so that all its faults are told.
        let (Some(path), Some(conditions)) = (path, conditions) else {
            filters::read(section, None);
            handler(section);
            return None;
        };
        Self::read_as(section, path, conditions).and_then(|draft| Some(draft.with_host(host?)))
    }

    /// Reads handler and filters of a route for any host.
    pub(super) fn read_as(section: &Section<'_>, path: PathPattern, conditions: Conditions) -> Option<Self> {
        let filters = filters::read(section, Some(&path));
        let handler = handler(section)?;
        let app = section.entry("app");
        let strips = matches!(
            handler,
            HandlerSettings::Static(_) | HandlerSettings::Redirect { .. } | HandlerSettings::Respond { .. }
        );
        if let Some(entry) = section.entry("strip_prefix").filter(|_| strips) {
            entry.fault("it is for handlers that pass the path on; files are found by what follows the prefix anyway");
        }
        let rule = Rule { host: HostPattern::Any, path, conditions, origin: section.place().to_string() };
        let settings = RouteSettings { rule, filters, handler };
        Some(Self { settings, place: section.place(), app_place: app.map(|entry| entry.place()) })
    }
}

/// Whether a table names a handler.
pub(super) fn has_handler(section: &Section<'_>) -> bool {
    HANDLERS.iter().any(|key| section.entry(key).is_some())
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
    warn_of_shadows(routes, report);
    for tie in crate::router::ties(routes.iter().map(|route| &route.settings.rule)) {
        let place = places.get(&tie.second).map_or_else(|| Place::named(&tie.second), |place| (*place).clone());
        let host = if tie.host == HostPattern::Any { String::new() } else { format!(" on host `{}`", tie.host) };
        report.fault(
            place,
            format!("a route for `{}`{host} stands already at {}; which of them answers?", tie.path, tie.first),
        );
    }
}

/// Tells routes for any host that a site's own `/*` hides on its hosts.
fn warn_of_shadows(routes: &[Draft], report: &Report) {
    let rules: Vec<&Rule> = routes.iter().map(|route| &route.settings.rule).collect();
    let declines = |at: usize| match &routes[at].settings.handler {
        HandlerSettings::Static(settings) => settings.missing == Missing::Next,
        // Where there is no script of that name; one program answers everything.
        HandlerSettings::Cgi(settings) => settings.script_root().is_some(),
        // It only leads to the host that is served.
        HandlerSettings::Redirect { to, .. } => to.contains("{port}{path}"),
        _ => false,
    };
    let mut told = HashSet::new();
    for shadow in crate::router::shadows(&rules, declines) {
        let (hidden, by) = (&routes[shadow.hidden], &routes[shadow.by]);
        // A site has a route for each of its hosts: one of them is enough.
        if hidden.place == by.place || !told.insert((&hidden.place, &by.place)) {
            continue;
        }
        report.warn(format!(
            "{}: the route for `{}` is never asked on host `{}`: `{}` at {} is for that host and comes first [D404]",
            hidden.place, hidden.settings.rule.path, by.settings.rule.host, by.settings.rule.path, by.place
        ));
    }
}

fn handler(section: &Section<'_>) -> Option<HandlerSettings> {
    let present: Vec<Entry<'_>> = HANDLERS.iter().filter_map(|key| section.entry(key)).collect();
    match &present[..] {
        [] => {
            section
                .fault("a route needs a handler: one of `static`, `app`, `cgi`, `upstream`, `redirect` and `respond`");
            None
        }
        [entry] => match entry.key() {
            "static" => static_route::read(entry).map(HandlerSettings::Static),
            "app" => entry.name().map(HandlerSettings::App),
            "upstream" => upstream::route(entry),
            "cgi" => cgi::read(entry).map(|settings| HandlerSettings::Cgi(Box::new(settings))),
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
