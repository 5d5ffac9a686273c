//! From what was asked for, written and found to one valid [`Configuration`], or to everything that is wrong.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use toml::Spanned;
use toml::de::DeTable;

use super::configuration::{Configuration, HandlerSettings, ServerSettings};
use super::document::{Document, glob};
use super::environment::Environment;
use super::fault::{ConfigError, Place, Report};
use super::section::{self, Entry, Keys, Section};
use super::target::{Looking, Target};
use super::wishes::{Wish, Wishes};
use super::{app, cgi, route, server, site, static_route, tls, units, upstream};
use crate::listener::{Address, ListenerSettings};
use crate::router::HostPattern;
use crate::tls::Source;

pub(super) const FILE: Keys = Keys {
    known: &["include", "server", "tls", "app", "upstream", "route", "site"],
    later: &["monitor", "health", "cache", "control"],
};
/// Where keys belong that stand above the first table by mistake.
const HOMES: [(&str, Keys); 5] = [
    ("[server]", server::KEYS),
    ("a line [[tls]]", tls::KEYS),
    ("a line such as [app.shop]", app::KEYS),
    ("a line such as [upstream.legacy]", upstream::KEYS),
    ("a line [[route]]", route::KEYS),
];
const INCLUDED: Keys = Keys { known: &["server", "tls", "app", "upstream", "route", "site"], later: FILE.later };

/// The first descriptor that systemd passes (sd_listen_fds(3)).
const FIRST_PASSED: i32 = 3;

/// Everything before what is missing is filled in.
struct Draft {
    server: ServerSettings,
    /// Whether the default listener is https.
    listens_secure: bool,
    /// Where `listen` was written.
    listen_place: Option<Place>,
    /// Whether the default listeners are those of the public web, 80 and 443.
    listens_publicly: bool,
    /// The host that was written for the only site.
    only_host: Option<HostPattern>,
    /// Whether `redirect_https` was written.
    says_redirect: bool,
    tls: Vec<tls::Draft>,
    apps: Vec<app::Draft>,
    upstreams: Vec<upstream::Draft>,
    routes: Vec<route::Draft>,
    documents: Vec<std::path::PathBuf>,
    target: String,
}

/// Finds what there is to serve, reads it, applies what was asked for, and checks the whole.
pub fn gather(wishes: &Wishes, environment: &Environment) -> Result<Configuration, ConfigError> {
    let report = Report::default();
    let found = match find(wishes, environment) {
        // What is asked for stands on the command line.
        Err(_) if !wishes.proxies.is_empty() && wishes.targets.is_empty() && wishes.config.is_none() => None,
        found => Some(found?),
    };
    let mut draft = match found {
        None => Draft::new(environment, "servers of --proxy".to_owned()),
        Some(Target::Configuration(path)) => {
            let told = wishes.config.as_ref().map_or_else(|| Place::named(environment.shown(&path)), Wish::place);
            read(&path, &told, environment, &report)?
        }
        Some(Target::Application(application)) => {
            let mut draft = Draft::new(environment, application.description.clone());
            draft.apps.push(app::Draft::found(application, Place::named(&draft.target)));
            draft
        }
        Some(Target::Files(folder)) => {
            let mut draft = Draft::new(environment, format!("files in {}", folder.display()));
            let handler = HandlerSettings::Static(static_route::folder(&folder));
            draft.routes.push(route::Draft::found("/*", handler, "the target"));
            draft
        }
    };
    draft.apply(wishes, environment, &report);
    draft.complete(environment, report)
}

/// The control socket that a file names, whatever else is wrong with the file.
pub fn control_of(path: &Path, environment: &Environment) -> Option<std::path::PathBuf> {
    let unread = Report::default();
    let document = Document::load(path, &Place::named("control"), environment).ok()?;
    let table = document.parse(&unread);
    let source = section::Source { document: &document, environment, report: &unread };
    let server = Section::unchecked(source, table.get_ref()).entry("server")?;
    server.section("[server]", "a table", server::KEYS)?.entry("control")?.path()
}

fn find(wishes: &Wishes, environment: &Environment) -> Result<Target, ConfigError> {
    if let Some(wish) = &wishes.config {
        if let [first, ..] = &wishes.targets[..] {
            let message = format!("a configuration file and a target (`{first}`) exclude each other");
            return Err(ConfigError::one(wish.place(), message));
        }
        return Ok(Target::Configuration(environment.absolute(&wish.value)));
    }
    let directory = wishes.directory(environment);
    let looking = Looking { base: &environment.directory, directory: directory.as_deref(), configurations: true };
    looking.find(&wishes.targets).map_err(|fault| ConfigError { faults: vec![fault] })
}

/// Reads a file and those that it includes.
fn read(path: &Path, told: &Place, environment: &Environment, report: &Report) -> Result<Draft, ConfigError> {
    let one = |fault| ConfigError { faults: vec![fault] };
    let main = Document::load(path, told, environment).map_err(one)?;
    let table = main.parse(report);
    // After a mistake in the grammar some of it was perhaps not read: nothing else that is told would be sure.
    report.check()?;
    let source = section::Source { document: &main, environment, report };
    let mut included = Vec::new();
    if let Some(entry) = Section::file(source, table.get_ref(), FILE, &HOMES).entry("include") {
        for item in entry.items("a list of paths such as [\"sites/*.toml\"]").unwrap_or_default() {
            let Some(pattern) = item.name() else { continue };
            for path in glob(&main.folder, &pattern) {
                if path == main.path || included.iter().any(|document: &Document| document.path == path) {
                    item.fault(format!("{} is included twice", environment.shown(&path)));
                } else {
                    included.extend(report.take(Document::load(&path, &item.place(), environment)));
                }
            }
        }
    }
    let grammar = Report::default();
    let tables: Vec<Spanned<DeTable<'_>>> = included.iter().map(|document| document.parse(&grammar)).collect();
    grammar.check()?;
    let mut files = vec![(source, table.get_ref())];
    files.extend(
        included.iter().zip(&tables).map(|(document, table)| (section::Source { document, ..source }, table.get_ref())),
    );
    for &(source, table) in &files[1..] {
        Section::file(source, table, INCLUDED, &HOMES);
    }
    let mut draft = Draft::new(environment, format!("configuration {}", environment.shown(&main.path)));
    draft.read(&files);
    draft.documents = std::iter::once(&main).chain(&included).map(|document| document.path.clone()).collect();
    Ok(draft)
}

// === impl Draft ===

impl Draft {
    fn new(environment: &Environment, target: String) -> Self {
        let server = server::defaults(environment);
        Self {
            server,
            listens_secure: false,
            listen_place: None,
            listens_publicly: false,
            only_host: None,
            says_redirect: false,
            tls: Vec::new(),
            apps: Vec::new(),
            upstreams: Vec::new(),
            routes: Vec::new(),
            documents: Vec::new(),
            target,
        }
    }

    fn read(&mut self, files: &[(section::Source<'_>, &DeTable<'_>)]) {
        let mut servers = Vec::new();
        let (mut site_routes, mut sites) = (Vec::new(), 0);
        for &(source, table) in files {
            // Unknown keys of the file itself are told already.
            let file = Section::unchecked(source, table);
            servers.extend(file.entry("server"));
            if let Some(entry) = file.entry("app") {
                self.read_apps(&entry);
            }
            if let Some(entry) = file.entry("upstream") {
                self.read_upstreams(&entry);
            }
            let tables = file.entry("tls").and_then(|entry| entry.items("tables, each under a line [[tls]]"));
            for entry in tables.unwrap_or_default() {
                let section = entry.section("[[tls]]", "a table under a line [[tls]]", tls::KEYS);
                self.tls.extend(section.and_then(|section| tls::Draft::read(&section)));
            }
            let routes = file.entry("route").and_then(|entry| entry.items("tables, each under a line [[route]]"));
            for entry in routes.unwrap_or_default() {
                let section = entry.section("[[route]]", "a table under a line [[route]]", route::KEYS);
                self.routes.extend(section.and_then(|section| route::Draft::read(&section)));
            }
            let found = file.entry("site").and_then(|entry| entry.items("tables, each under a line [[site]]"));
            for entry in found.unwrap_or_default() {
                let section = entry.section("[[site]]", "a table under a line [[site]]", site::KEYS);
                site_routes.extend(section.iter().flat_map(site::read));
                sites += 1;
            }
        }
        if sites == 1 && self.routes.is_empty() {
            self.only_host = site::widen(&mut site_routes);
        }
        self.routes.append(&mut site_routes);
        if let Some(section) = Section::merged("[server]", &servers, server::KEYS) {
            server::read(&section, &mut self.server);
            self.listen_place = section.entry("listen").map(|entry| entry.place());
            self.says_redirect = section.entry("redirect_https").is_some();
        }
    }

    fn read_upstreams(&mut self, entry: &Entry<'_>) {
        for entry in entry.map("[upstream]", "tables, each under a line such as [upstream.legacy]").unwrap_or_default()
        {
            let name = entry.key();
            if let Some(first) = self.upstreams.iter().find(|upstream| upstream.settings.name == name) {
                entry.fault(format!("[upstream.{name}] stands already at {}", first.place));
                continue;
            }
            let what = format!("a table under a line such as [upstream.legacy], with `servers`, for `{name}`");
            let section = entry.section(&format!("[upstream.{name}]"), &what, upstream::KEYS);
            self.upstreams.extend(section.map(|section| upstream::read(name, &section, &entry)));
        }
    }

    fn read_apps(&mut self, entry: &Entry<'_>) {
        for entry in entry.map("[app]", "tables, each under a line such as [app.shop]").unwrap_or_default() {
            let name = entry.key();
            if let Some(first) = self.apps.iter().find(|app| app.settings.name == name) {
                entry.source.report.fault(entry.place(), format!("[app.{name}] stands already at {}", first.place));
                continue;
            }
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
                entry.fault("the name of an application has letters, digits, `-`, `_` and `.` only");
            }
            let what = format!("a table under a line such as [app.shop], with `target` or `wsgi`, for `{name}`");
            if let Some(section) = entry.section(&format!("[app.{name}]"), &what, app::KEYS) {
                self.apps.push(app::Draft::read(name, &section, &entry));
            }
        }
    }

    fn apply(&mut self, wishes: &Wishes, environment: &Environment, report: &Report) {
        wishes.apply_to_server(&mut self.server, environment, report);
        if let Some(wish) = wishes.listen.iter().find(|wish| wish.value.starts_with("https://")) {
            self.listen_place = Some(wish.place());
        }
        if let Some(draft) = wishes.certificate(environment, report) {
            // Who gives a certificate and says nothing of where to listen means https.
            self.listens_secure = true;
            self.tls.retain(|other| !other.settings.hosts.is_empty());
            self.tls.push(draft);
        }
        let domains = wishes.domains(report);
        if !domains.is_empty() {
            // Who names a site and says nothing of where to listen means the public web, and https on it.
            self.listens_publicly = true;
            self.server.redirect_https |= !self.says_redirect;
            self.tls.extend(domains);
        }
        wishes.apply_to_acme(&mut self.tls, report);
        if wishes.https {
            self.listens_secure = true;
            self.server.listeners.iter_mut().for_each(|listener| listener.tls = true);
            if self.tls.is_empty() {
                self.tls.push(tls::Draft::wished(Vec::new(), Source::SelfMade, Place::named("--https")));
            }
        }
        if let [_, _, ..] = &self.apps[..] {
            for wish in [&wishes.directory, &wishes.python].into_iter().flatten() {
                let message =
                    format!("it is for one application, and there are {}; write it in the file", self.apps.len());
                report.fault(wish.place(), message);
            }
        }
        for draft in &mut self.apps {
            wishes.apply_to_app(draft, environment, report);
        }
        self.routes.extend(wishes.routes(environment, report));
        for (upstream, route) in wishes.upstreams(report) {
            self.upstreams.push(upstream);
            self.routes.push(route);
        }
    }

    fn complete(mut self, environment: &Environment, report: Report) -> Result<Configuration, ConfigError> {
        self.listen_by_platform(environment, &report);
        tls::keep(&mut self.tls, self.server.state.as_deref(), &report);
        tls::check(&self.tls, &self.server.listeners, self.listen_place.as_ref(), &report);
        let names: Vec<String> = self.apps.iter().map(|app| app.settings.name.clone()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.route_the_only_app(&names);
        if self.routes.is_empty() && report.check().is_ok() {
            report.fault(Place::named(&self.target), "nothing to serve: write an [app.NAME] or a [[route]]");
        }
        self.hint_where_it_helps();
        self.name_scripts();
        cgi::find_document_roots(&mut self.routes);
        cgi::bar_scripts(&mut self.routes, environment, &report);
        route::check(&self.routes, &names, &report);
        upstream::check(&self.routes, &self.upstreams, &report);
        for name in &names {
            let used = self
                .routes
                .iter()
                .any(|route| matches!(&route.settings.handler, HandlerSettings::App(app) if app == name));
            if !used {
                report.warn(format!("[app.{name}] is started, but no route leads to it [D405]"));
            }
        }
        server::warn_of_strangers(&self.server, &report);
        // Those of `listen` were looked at among themselves.
        for (at, listener) in self.server.all_listeners().enumerate().skip(self.server.listeners.len()) {
            let twice = |other: &ListenerSettings| other.address == listener.address;
            if self.server.all_listeners().take(at).any(twice) && !server::is_any_port(&listener.address) {
                let message = format!("`{}` is asked for twice: by `listen`, `health` or `monitor`", listener.address);
                report.fault(Place::named(&self.target), message);
            }
        }
        let mut apps: Vec<_> = self.apps.into_iter().map(|app| app.complete(environment, &report)).collect();
        apps.sort_by(|one, other| one.name.cmp(&other.name));
        let mut upstreams: Vec<_> = self.upstreams.into_iter().map(|upstream| upstream.settings).collect();
        upstreams.sort_by(|one, other| one.name.cmp(&other.name));
        let key = match (&self.documents[..], &apps[..], &self.routes[..]) {
            ([main, ..], ..) => main.clone(),
            (_, [app, ..], _) => app.directory.clone(),
            (.., [route, ..]) => match &route.settings.handler {
                HandlerSettings::Static(files) if !files.roots.is_empty() => files.roots[0].path.clone(),
                _ => environment.directory.clone(),
            },
            _ => environment.directory.clone(),
        };
        Ok(Configuration {
            only_host: self.only_host,
            server: self.server,
            apps,
            upstreams,
            tls: self.tls.into_iter().map(|draft| draft.settings).collect(),
            routes: self.routes.into_iter().map(route::Draft::complete).collect(),
            development: None,
            files: self.documents,
            key,
            target: self.target,
            warnings: report.finish()?,
        })
    }

    /// What all routes of an application strip off the path is its `SCRIPT_NAME`, which Django puts before its URLs.
    fn name_scripts(&mut self) {
        for app in &mut self.apps {
            let ours = |route: &&route::Draft| matches!(&route.settings.handler, HandlerSettings::App(name) if *name == app.settings.name);
            let mut stripped =
                self.routes.iter().filter(ours).map(|route| route.settings.filters.strip_prefix.as_ref());
            let Some(Some(first)) = stripped.next() else { continue };
            if stripped.all(|other| other.is_some_and(|other| other.value == first.value)) {
                app.settings.script_name.clone_from(&first.value);
            }
        }
    }

    /// What an application says of `early_hints` counts for its routes that say nothing. What is at hand at once, such as a
    /// file, needs no hints, whatever its site says.
    fn hint_where_it_helps(&mut self) {
        for route in &mut self.routes {
            let hints = &mut route.settings.filters.early_hints;
            match &route.settings.handler {
                HandlerSettings::App(name) if hints.is_none() => {
                    let app = self.apps.iter().find(|app| app.settings.name == *name);
                    hints.clone_from(&app.and_then(|app| app.early_hints.clone()));
                }
                HandlerSettings::App(_) | HandlerSettings::Upstream(_) | HandlerSettings::Cgi(_) => {}
                _ => *hints = None,
            }
        }
    }

    /// `PORT`, then the default, where neither an option nor the file says where to listen.
    fn listen_by_platform(&mut self, environment: &Environment, report: &Report) {
        let port = environment.variable("PORT").and_then(|text| match units::whole(text, 0, 65_535) {
            Ok(port) => Some(port as u16),
            Err(message) => {
                report.fault(Place::named("PORT"), message);
                None
            }
        });
        let listeners = &mut self.server.listeners;
        let passed = environment.variable("LISTEN_FDS").and_then(|number| number.parse().ok()).unwrap_or(0);
        if listeners.is_empty() && passed > 0 {
            // systemd's socket activation: a socket unit has said where.
            let inherited = |number| ListenerSettings::at(Address::Inherited(number));
            listeners.extend((FIRST_PASSED..FIRST_PASSED + passed).map(inherited));
        } else if listeners.is_empty() && port.is_none() && self.listens_publicly {
            let at = |port, tls| {
                let address = Address::Tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
                ListenerSettings { tls, ..ListenerSettings::at(address) }
            };
            listeners.extend([at(80, false), at(443, true)]);
        } else if listeners.is_empty() {
            let address = match port {
                Some(port) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
                None => SocketAddr::from((Ipv4Addr::LOCALHOST, 8000)),
            };
            listeners
                .push(ListenerSettings { tls: self.listens_secure, ..ListenerSettings::at(Address::Tcp(address)) });
        } else if let Some(port) = port {
            let elsewhere = |listener: &ListenerSettings| !matches!(listener.address, Address::Tcp(address) if address.port() == port);
            if listeners.iter().all(elsewhere) {
                let told: Vec<String> = listeners.iter().map(|listener| listener.address.to_string()).collect();
                let told = told.join(", ");
                report.warn(format!("PORT is {port}, but the server listens on {told}: the platform may not reach it"));
            }
        }
    }

    /// Exactly one application and no route to it: it gets everything that no other route takes. Where another takes
    /// everything, a warning says that nothing leads to the application.
    fn route_the_only_app(&mut self, names: &[&str]) {
        let to_app = |route: &route::Draft| matches!(route.settings.handler, HandlerSettings::App(_));
        if let [name] = names
            && !self.routes.iter().any(to_app)
        {
            let handler = HandlerSettings::App((*name).to_owned());
            let added = route::Draft::found("/*", handler, "the only application");
            let rule = &added.settings.rule;
            let taken = |route: &route::Draft| {
                (&route.settings.rule.host, &route.settings.rule.path) == (&rule.host, &rule.path)
            };
            if !self.routes.iter().any(taken) {
                self.routes.push(added);
            }
        }
    }
}
