//! `[[site]]`: hosts, what answers them, and routes below.

use super::configuration::HandlerSettings;
use super::route::{self, Draft};
use super::section::{Entry, Keys, Section};
use super::{condition, filters};
use crate::filter::FilterSettings;
use crate::router::{Conditions, HostPattern, PathPattern, Rule};

/// The keys of `[[site]]`: its own, one handler for `/*`, and filters for all its routes.
pub(super) const KEYS: Keys = Keys {
    known: &[
        "hosts",
        "canonical",
        "route",
        "static",
        "app",
        "cgi",
        "upstream",
        "redirect",
        "respond",
        "allow",
        "deny",
        "rate_limit",
        "headers",
        "basic_auth",
        "max_body",
        "timeout",
        "request_buffering",
        "cache",
        "compress",
        "early_hints",
        "xslt",
        "errors",
        "server_timing",
    ],
    later: &[],
};

/// Of another host of the same site: the address bar and search engines should know one name for one page. 308 keeps
/// the method.
const CANONICAL_STATUS: u16 = 308;

/// Reads one `[[site]]` into a route for each host and path.
pub(super) fn read(section: &Section<'_>) -> Vec<Draft> {
    let Some(hosts) = hosts(section) else { return Vec::new() };
    let is_canonical = section.entry("canonical").map_or(Some(true), |entry| entry.boolean()).unwrap_or(true);
    let (served, redirected) = if is_canonical { split(hosts) } else { (hosts, Vec::new()) };
    let outer = filters::read(section, None);
    let mut drafts = Vec::new();
    if route::has_handler(section) {
        // Its filters are those of the table itself.
        drafts.extend(route::Draft::read_as(section, all_paths(), Conditions::default()));
    }
    let routes = section.entry("route");
    let items = routes.and_then(|entry| entry.items("tables, each under a line [[site.route]]")).unwrap_or_default();
    if items.is_empty() && drafts.is_empty() && !route::has_handler(section) {
        section.fault("a site needs something that answers: a handler such as `app`, or a [[site.route]]");
    }
    for entry in items {
        drafts.extend(inner_route(&entry, &outer));
    }
    let mut all = Vec::new();
    for host in &served {
        all.extend(drafts.iter().map(|draft| draft.with_host(host.clone())));
    }
    if let Some(HostPattern::Exact(canonical)) = served.first() {
        all.extend(redirected.into_iter().map(|host| to_canonical(host, canonical, section)));
    }
    all
}

/// Where the site has no hosts it answers any.
fn hosts(section: &Section<'_>) -> Option<Vec<HostPattern>> {
    let Some(entry) = section.entry("hosts") else { return Some(vec![HostPattern::Any]) };
    let items = if entry.is_list() {
        entry.items("a list of hosts such as [\"example.com\", \"www.example.com\"]")?
    } else {
        vec![entry.clone()]
    };
    if items.is_empty() {
        entry.expected("a list of hosts such as [\"example.com\", \"www.example.com\"]");
        return None;
    }
    let mut hosts: Vec<HostPattern> = Vec::new();
    for item in items {
        let host = item.parse("a host", str::parse)?;
        if hosts.contains(&host) {
            item.fault(format!("`{host}` stands here twice"));
        } else {
            hosts.push(host);
        }
    }
    Some(hosts)
}

/// Hosts that are served, the canonical one first, and those that are sent to it. Only names are: a wildcard stands for
/// many sites, and an address or a name of this machine is what health checks and developers ask.
fn split(hosts: Vec<HostPattern>) -> (Vec<HostPattern>, Vec<HostPattern>) {
    if !hosts.first().is_some_and(is_name) {
        return (hosts, Vec::new());
    }
    let mut hosts = hosts.into_iter();
    let first = hosts.next();
    let (redirected, others): (Vec<_>, Vec<_>) = hosts.partition(is_name);
    (first.into_iter().chain(others).collect(), redirected)
}

fn is_name(host: &HostPattern) -> bool {
    match host {
        HostPattern::Exact(name) => {
            let is_local = name == "localhost" || name.ends_with(".localhost");
            !is_local && !name.starts_with('[') && name.parse::<std::net::IpAddr>().is_err()
        }
        HostPattern::Any | HostPattern::Below(_) => false,
    }
}

fn inner_route(entry: &Entry<'_>, outer: &FilterSettings) -> Option<Draft> {
    let section = entry.section("[[site.route]]", "a table under a line [[site.route]]", route::KEYS)?;
    if let Some(host) = section.entry("host") {
        host.fault("the hosts stand in its [[site]]");
        return None;
    }
    let path = section
        .entry("path")
        .map_or(Some(all_paths()), |entry| entry.parse("a path such as \"/static/*\"", str::parse));
    let conditions = condition::read(&section);
    let mut draft = route::Draft::read_as(&section, path?, conditions?)?;
    let mut outer = outer.clone();
    // `false` is a word too: it turns off what the site turns on.
    if section.entry("compress").is_some() {
        outer.compress = None;
    }
    if section.entry("cache").is_some() {
        outer.cache = None;
    }
    if section.entry("xslt").is_some() {
        outer.xslt = None;
    }
    draft.settings.filters = draft.settings.filters.within(&outer);
    Some(draft)
}

fn to_canonical(host: HostPattern, canonical: &str, section: &Section<'_>) -> Draft {
    let to = format!("{{scheme}}://{canonical}{{port}}{{path}}");
    let handler = HandlerSettings::Redirect { to, status: CANONICAL_STATUS };
    let origin = section.place().to_string();
    let rule = Rule { host, path: all_paths(), conditions: Conditions::default(), origin };
    Draft::made(rule, handler, section.place())
}

fn all_paths() -> PathPattern {
    PathPattern::Prefix { prefix: "/".to_owned(), suffix: String::new() }
}

/// One site, and nothing beside it, answers any host: with nothing to choose from, a name that nobody wrote down is no
/// mistake of the client. As soon as there are several it is one. Gives the host that was written.
pub(super) fn widen(drafts: &mut [Draft]) -> Option<HostPattern> {
    // The routes of the first host, which every other host of the site shares.
    let first = drafts.first().map(|draft| draft.settings.rule.host.clone())?;
    if drafts.iter().any(|draft| draft.settings.rule.host == HostPattern::Any) {
        return None;
    }
    for draft in drafts.iter_mut().filter(|draft| draft.settings.rule.host == first) {
        draft.settings.rule.host = HostPattern::Any;
    }
    Some(first)
}
