//! The router and all that stands behind it, with witnesses.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, PoisonError};

use super::report::{ApplicationTold, GatewayTold, ProgramTold, Told, UpstreamTold, text};
use crate::app::AppSettings;
use crate::cgi::{self, Choice, Way};
use crate::config::{Configuration, HandlerSettings, RouteSettings};
use crate::filter::{FilterSettings, Filtered, Kept};
use crate::gateway::write_wsgi;
use crate::handler::{Answering, Handler, Outcome};
use crate::http::{Request, Response, Status, TrustedProxies};
use crate::proxy::{self, Chooser, ScriptChoice, ScriptSettings};
use crate::respond::{Redirect, Respond};
use crate::router::{PathPattern, Router};
use crate::server::{front, master};
use crate::static_files::{StaticFiles, StaticSettings};

/// What was seen on the way of a request.
#[derive(Debug)]
pub(super) enum Event {
    /// It came to the router.
    Router,
    /// The route of this number was asked.
    Asked(usize),
    /// It came through the route's filters to its handler.
    Reached(usize, Box<Told>),
    /// The route declined.
    Declined(usize),
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Story(Mutex<Vec<Event>>);

impl Story {
    fn add(&self, event: Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    /// All of it; the next request begins anew.
    pub(super) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Builds what serves `configuration`.
pub(super) fn build(configuration: &Configuration, story: &Arc<Story>) -> io::Result<Arc<dyn Handler>> {
    let trusted = TrustedProxies::new(configuration.server.trusted_proxies.clone());
    let kept = Kept::default();
    let mut routes = Vec::with_capacity(configuration.routes.len());
    for (number, route) in configuration.routes.iter().enumerate() {
        let wrong = |message: String| io::Error::other(format!("{}: {message}", route.rule.origin));
        let leaf = leaf(configuration, route).map_err(|error| wrong(error.to_string()))?;
        let reached = Reached { number, leaf, trusted: trusted.clone(), story: Arc::clone(story) };
        let filters = asked_for_real(&front::filters(configuration, route));
        let name = format!("{number}");
        let next = Filtered::wrap(&filters, Arc::new(reached), &trusted, (&kept, &name)).map_err(wrong)?;
        let asked = Asked { number, next, story: Arc::clone(story) };
        routes.push((route.rule.clone(), Arc::new(asked) as Arc<dyn Handler>));
    }
    let ties = |ties: Vec<_>| io::Error::other(ties.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
    let next = Arc::new(Router::new(routes).map_err(ties)?);
    let front_door = Arc::new(Passed { next, story: Arc::clone(story) });
    let server = &configuration.server;
    Ok(front::behind_https_of(front_door, server, server.listeners.iter().map(|one| (one, &one.address)), None))
}

/// The filters whose word does not depend on what other requests did.
fn asked_for_real(filters: &FilterSettings) -> FilterSettings {
    FilterSettings { rate_limit: None, cache: None, ..filters.clone() }
}

/// What cannot be known of a route with these filters.
pub(super) fn unknowable(filters: &FilterSettings) -> Vec<String> {
    let mut unknown = Vec::new();
    if filters.rate_limit.is_some() {
        unknown.push("whether `rate_limit` lets this client in: that depends on what it asked before (429)".to_owned());
    }
    if filters.cache.is_some() {
        unknown.push("whether `cache` has the answer at hand: then the handler is not asked".to_owned());
    }
    unknown
}

/// What answers a route. A new kind of handler is told here, or this does not compile.
enum Leaf {
    Files(StaticFiles),
    Application(Box<AppSettings>),
    Program(Choice),
    Upstream(UpstreamTold),
    /// Servers behind FastCGI, SCGI or uwsgi.
    Gateway(UpstreamTold, Chooser),
    Fixed(Arc<dyn Handler>, Told),
}

fn leaf(configuration: &Configuration, route: &RouteSettings) -> io::Result<Leaf> {
    Ok(match &route.handler {
        HandlerSettings::Static(settings) => {
            let mut settings = settings.clone();
            let folders = open_roots(&mut settings);
            Leaf::Files(StaticFiles::new(settings, folders).map_err(io::Error::other)?)
        }
        HandlerSettings::App(name) => {
            let app = configuration.apps.iter().find(|app| app.name == *name);
            Leaf::Application(Box::new(
                app.cloned().ok_or_else(|| io::Error::other(format!("no application `{name}`")))?,
            ))
        }
        HandlerSettings::Upstream(name) => {
            upstream(configuration, ScriptSettings { upstream: name.clone(), ..ScriptSettings::default() })?
        }
        HandlerSettings::Scripts(settings) => upstream(configuration, (**settings).clone())?,
        HandlerSettings::Cgi(settings) => {
            let mut settings = (**settings).clone();
            let (user, group) = (configuration.server.user.as_deref(), configuration.server.group.as_deref());
            master::appoint(&mut settings, user, group).map_err(io::Error::other)?;
            let folder = settings.script_root().map(open_folder).transpose()?;
            Leaf::Program(Choice::new(settings, folder, matches!(route.rule.path, PathPattern::Exact(_))))
        }
        HandlerSettings::Redirect { to, status } => {
            let handler = Arc::new(Redirect::new(to, *status).map_err(io::Error::other)?);
            Leaf::Fixed(handler, Told::Redirect { to: to.clone(), status: *status })
        }
        HandlerSettings::Respond { status, body, content_type } => {
            let handler = Arc::new(Respond::new(*status, body, content_type).map_err(io::Error::other)?);
            Leaf::Fixed(handler, Told::Respond { status: *status, length: body.len() })
        }
    })
}

fn upstream(configuration: &Configuration, settings: ScriptSettings) -> io::Result<Leaf> {
    let upstream = configuration.upstreams.iter().find(|upstream| upstream.name == settings.upstream);
    let upstream = upstream.ok_or_else(|| io::Error::other(format!("no upstream `{}`", settings.upstream)))?;
    if upstream.servers.iter().all(|server| server.scheme.is_http()) {
        return Ok(Leaf::Upstream(UpstreamTold::of(upstream)));
    }
    let folder = settings.root.as_deref().map(open_folder).transpose()?;
    Ok(Leaf::Gateway(UpstreamTold::of(upstream), Chooser::new(settings, folder)))
}

/// As the server opens them: roots that are not there are left out.
fn open_roots(settings: &mut StaticSettings) -> Vec<OwnedFd> {
    let mut opened = Vec::new();
    settings.roots.retain(|root| {
        let folder = open_folder(&root.path);
        let is_there = folder.is_ok();
        opened.extend(folder);
        is_there
    });
    opened
}

fn open_folder(path: &std::path::Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    // Asked for in this way, a folder need not be readable, as for the front.
    let opened = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    opened.map_err(|error| io::Error::new(io::Error::from(error).kind(), format!("{}: {error}", path.display())))
}

/// Before the router.
struct Passed {
    next: Arc<dyn Handler>,
    story: Arc<Story>,
}

impl Handler for Passed {
    fn handle(&self, request: Request) -> Answering<'_> {
        self.story.add(Event::Router);
        self.next.handle(request)
    }
}

/// Before a route's filters.
struct Asked {
    number: usize,
    next: Arc<dyn Handler>,
    story: Arc<Story>,
}

impl Handler for Asked {
    fn handle(&self, request: Request) -> Answering<'_> {
        self.story.add(Event::Asked(self.number));
        Box::pin(async {
            let outcome = self.next.handle(request).await?;
            if let Outcome::Decline(_) = &outcome {
                self.story.add(Event::Declined(self.number));
            }
            Ok(outcome)
        })
    }
}

/// Behind them.
struct Reached {
    number: usize,
    leaf: Leaf,
    trusted: TrustedProxies,
    story: Arc<Story>,
}

impl Reached {
    fn tell(&self, told: Told) {
        self.story.add(Event::Reached(self.number, Box::new(told)));
    }
}

impl Handler for Reached {
    fn handle(&self, request: Request) -> Answering<'_> {
        match &self.leaf {
            Leaf::Files(files) => {
                self.tell(Told::File(files.trace(&request)));
                files.handle(request)
            }
            Leaf::Fixed(handler, told) => {
                self.tell(told.clone());
                handler.handle(request)
            }
            Leaf::Application(app) => {
                self.tell(Told::Application(application(app, &request, &self.trusted)));
                Box::pin(async { Ok(Outcome::Response(Response::new(Status::OK))) })
            }
            Leaf::Upstream(told) => {
                self.tell(Told::Upstream(asked(told, &request, None)));
                Box::pin(async { Ok(Outcome::Response(Response::new(Status::OK))) })
            }
            Leaf::Gateway(told, chooser) => Box::pin(async move {
                let root = chooser.settings.root.clone().unwrap_or_default();
                match chooser.aim(&request).await {
                    ScriptChoice::Ask(aim) => {
                        let variables = proxy::describe(&request, &aim, &chooser.settings, &self.trusted);
                        let gateway = GatewayTold::of(&aim, &variables);
                        self.tell(Told::Upstream(asked(told, &request, Some(gateway))));
                        Ok(Outcome::Response(Response::new(Status::OK)))
                    }
                    ScriptChoice::Decline => {
                        self.tell(Told::NoProgram { root });
                        Ok(Outcome::Decline(request))
                    }
                    ScriptChoice::Refuse(error) => {
                        self.tell(Told::NoProgram { root });
                        Err(error)
                    }
                }
            }),
            Leaf::Program(choice) => Box::pin(async move {
                match choice.way(&request).await {
                    Way::Run(invocation) => {
                        let settings = choice.settings();
                        let lines = cgi::describe(&invocation, settings, &request, &self.trusted);
                        self.tell(Told::Program(ProgramTold {
                            script: text(invocation.script.as_os_str().as_bytes()),
                            script_name: text(&invocation.name),
                            path_info: text(&invocation.path_info),
                            lines,
                        }));
                        Ok(Outcome::Response(Response::new(Status::OK)))
                    }
                    Way::Decline => {
                        self.tell(Told::NoProgram { root: settings_root(choice) });
                        Ok(Outcome::Decline(request))
                    }
                    Way::Refuse(error) => {
                        self.tell(Told::NoProgram { root: settings_root(choice) });
                        Err(error)
                    }
                }
            }),
        }
    }
}

/// What servers are asked.
fn asked(told: &UpstreamTold, request: &Request, gateway: Option<GatewayTold>) -> UpstreamTold {
    let (script_name, path) = (text(&request.notes.script_name), text(request.head.raw_path()));
    UpstreamTold { path, script_name, gateway, ..told.clone() }
}

fn settings_root(choice: &Choice) -> std::path::PathBuf {
    choice.settings().root.clone()
}

/// What an application is told, with the split that several mounts make of the path.
fn application(app: &AppSettings, request: &Request, trusted: &TrustedProxies) -> ApplicationTold {
    let mut environment = Vec::new();
    write_wsgi(&mut environment, request, request.body.length(), trusted);
    let mut parts = environment.split(|&byte| byte == 0);
    let mut pairs = Vec::new();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        pairs.push((text(name), text(value)));
    }
    let value = |name: &str| pairs.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone());
    let (mut script_name, mut path_info) =
        (value("SCRIPT_NAME").unwrap_or_default(), value("PATH_INFO").unwrap_or_default());
    // The longest first, as the worker does.
    let mut mounts: Vec<_> = app.mounts.iter().collect();
    mounts.sort_by_key(|mount| std::cmp::Reverse(mount.path.len()));
    let mount = mounts
        .into_iter()
        .find(|mount| path_info.strip_prefix(&mount.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    let callable = mount.map(|mount| mount.callable.clone());
    if let Some(mount) = mount {
        script_name.push_str(&mount.path);
        path_info = path_info.split_off(mount.path.len());
    }
    for (name, value) in &mut pairs {
        match name.as_str() {
            "SCRIPT_NAME" => value.clone_from(&script_name),
            "PATH_INFO" => value.clone_from(&path_info),
            _ => {}
        }
    }
    ApplicationTold {
        name: app.name.clone(),
        callable,
        script_name,
        path_info,
        python: app.python.clone(),
        python_reason: app.python_reason.clone(),
        directory: app.directory.clone(),
        environment: pairs,
    }
}
