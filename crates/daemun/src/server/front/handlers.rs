//! Handlers and router of a configuration.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

use super::challenges::{Challenges, Tokens};
use super::https::{Coming, Https};
use super::late::{Late, Lookout};
use super::upstreams::Groups;
use crate::app::{Application, Pool};
use crate::cgi::{self, Cgi};
use crate::config::{Configuration, HandlerSettings, RouteSettings, ServerSettings};
use crate::connection::Limits;
use crate::filter::{FilterSettings, Filtered, Kept, Placed, Transforming};
use crate::gateway::Spool;
use crate::handler::{Answering, Fault, Handler, HandlerError};
use crate::http::{Request, Status, TrustedProxies};
use crate::launcher::Client;
use crate::listener::{Address, ListenerSettings};
use crate::proxy::{self, Proxy};
use crate::respond::{Redirect, Respond};
use crate::router::{HostPattern, PathPattern, Router, Rule};
use crate::server::plan::Plan;
use crate::static_files::{Root, SendFiles, SendRoots, StaticFiles, StaticSettings};
use crate::telemetry::ErrorLogger;
use crate::telemetry::metrics::{self, Labels, Place, PlaceId, RouteId};
use crate::tls::{Certificates, Source};
use crate::transformer;
use crate::upstream::Group;

/// What handlers use that outlives a configuration.
pub(super) struct Means<'a> {
    pub(super) pools: BTreeMap<String, Arc<Pool>>,
    pub(super) groups: Groups,
    pub(super) spool: Arc<Spool>,
    /// Caches and counters of filters.
    pub(super) kept: &'a Kept,
    pub(super) errors: &'a ErrorLogger,
    pub(super) launcher: &'a Arc<Client>,
    pub(super) transformers: &'a Arc<transformer::Client>,
    /// The roots of static routes that have none, by the route's number.
    pub(super) late: &'a BTreeMap<usize, Vec<Root>>,
    pub(super) lookout: &'a Arc<Lookout>,
}

/// Builds the router over all routes; `folders` are those that applications may have files sent from, then, route by
/// route, the roots of a static one, or the root of a CGI one and those that its programs may have files sent from,
/// and the root of `xslt`.
pub(super) fn build(
    configuration: &Configuration,
    mut folders: impl Iterator<Item = OwnedFd>,
    means: &Means<'_>,
) -> io::Result<Arc<dyn Handler>> {
    let Means { pools, groups, spool, kept, errors, launcher, transformers, late, lookout } = means;
    let trusted = TrustedProxies::new(configuration.server.trusted_proxies.clone());
    let mut senders = BTreeMap::new();
    for app in &configuration.apps {
        let opened = folders.by_ref().take(app.sendfile.len()).collect();
        let roots = SendRoots::new(&app.sendfile, opened).map_err(io::Error::other)?;
        senders.insert(app.name.as_str(), (!app.sendfile.is_empty()).then(|| Arc::new(roots)));
    }
    let programs = cgi::Shared {
        client: Arc::clone(launcher),
        spool: Arc::clone(spool),
        trusted: trusted.clone(),
        errors: (*errors).clone(),
        places: Arc::new(Semaphore::new(configuration.server.max_cgi_processes.max(1) as usize)),
    };
    let proxying = || proxy::Means { spool: Arc::clone(spool), trusted: trusted.clone(), errors: (*errors).clone() };
    let mut routes = Vec::with_capacity(configuration.routes.len());
    for (number, route) in configuration.routes.iter().enumerate() {
        let handler: Arc<dyn Handler> = match &route.handler {
            HandlerSettings::Static(settings) if let Some(roots) = late.get(&number) => {
                let settings = StaticSettings { roots: roots.clone(), ..settings.clone() };
                Arc::new(Late::new(settings, Arc::clone(lookout)).map_err(io::Error::other)?)
            }
            HandlerSettings::Static(settings) => {
                let folders = folders.by_ref().take(settings.roots.len()).collect();
                let files = StaticFiles::new(settings.clone(), folders).map_err(io::Error::other)?;
                if let Some(fault) = files.manifest_fault() {
                    errors.warning(format_args!("{}: {fault}", route.rule.origin));
                }
                Arc::new(files)
            }
            HandlerSettings::App(name) => {
                let pool = pools.get(name).ok_or_else(|| io::Error::other(format!("no application `{name}`")))?;
                let roots = senders.get(name.as_str()).cloned().flatten();
                let (pool, spool) = (Arc::clone(pool), Arc::clone(spool));
                let application = Arc::new(Application::new(pool, spool, trusted.clone(), roots.is_some()));
                match roots {
                    Some(roots) => Arc::new(SendFiles::new(application, roots)),
                    None => application,
                }
            }
            HandlerSettings::Upstream(name) => Arc::new(Proxy::new(group(groups, name)?, proxying())),
            HandlerSettings::Scripts(settings) => {
                let folder = settings.root.as_ref().and_then(|_| folders.next());
                let proxy = Proxy::new(group(groups, &settings.upstream)?, proxying());
                Arc::new(proxy.with_scripts((**settings).clone(), folder))
            }
            HandlerSettings::Cgi(settings) => {
                let folder = settings.script_root().and_then(|_| folders.next());
                let is_exact = matches!(route.rule.path, PathPattern::Exact(_));
                let opened = folders.by_ref().take(settings.sendfile.len()).collect();
                let roots = SendRoots::new(&settings.sendfile, opened).map_err(io::Error::other)?;
                let program = Arc::new(Cgi::new((**settings).clone(), folder, is_exact, programs.clone())?);
                if settings.sendfile.is_empty() { program } else { Arc::new(SendFiles::new(program, Arc::new(roots))) }
            }
            HandlerSettings::Redirect { to, status } => Arc::new(Redirect::new(to, *status).map_err(io::Error::other)?),
            HandlerSettings::Respond { status, body, content_type } => {
                Arc::new(Respond::new(*status, body, content_type).map_err(io::Error::other)?)
            }
        };
        let name = format!("{} {} {}", route.rule.host, route.rule.path, route.rule.conditions);
        let wrong = |message| io::Error::other(format!("{}: {message}", route.rule.origin));
        let mut filters = filters(configuration, route);
        let handler = match filters.xslt.take() {
            Some(xslt) => {
                let root = folders.next().ok_or(io::ErrorKind::UnexpectedEof)?;
                Transforming::wrap(xslt.value, root, transformers, errors, handler)
            }
            None => handler,
        };
        let handler = Filtered::wrap(&filters, handler, &trusted, (kept, &name)).map_err(wrong)?;
        let app = if let HandlerSettings::App(name) = &route.handler { name.clone() } else { String::new() };
        let labels = Labels { route: pattern(&route.rule), app };
        let place = Place { origin: route.rule.origin.clone(), handler: route.handler.kind() };
        let counted = Counted { route: metrics::intern(&labels), place: metrics::intern_place(place), handler };
        routes.push((route.rule.clone(), Arc::new(counted) as Arc<dyn Handler>));
    }
    let ties = |ties: Vec<_>| io::Error::other(ties.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
    Ok(Arc::new(Router::new(routes).map_err(ties)?))
}

fn group(groups: &Groups, name: &str) -> io::Result<Arc<Group>> {
    groups.get(name).cloned().ok_or_else(|| io::Error::other(format!("no upstream `{name}`")))
}

/// What connections are held to: a route that allows larger bodies than the server raises what is read at all, and the
/// others are held to the server's own limit by a filter.
pub(crate) fn limits(configuration: &Configuration) -> Limits {
    let mut limits = configuration.server.limits.clone();
    let most = configuration.routes.iter().filter_map(|route| route.filters.max_body.as_ref()).map(|max| max.value);
    limits.max_body = most.fold(limits.max_body, u64::max);
    limits
}

/// The filters of a route, with the server's `max_body` where another route has raised it.
pub(crate) fn filters(configuration: &Configuration, route: &RouteSettings) -> FilterSettings {
    let mut filters = route.filters.clone();
    let own = configuration.server.limits.max_body;
    if filters.max_body.is_none() && limits(configuration).max_body > own {
        filters.max_body = Some(Placed { value: own, origin: "[server] max_body".to_owned() });
    }
    filters
}

/// A route as it is counted: bounded by the configuration, never what a client sent.
pub(super) fn pattern(rule: &Rule) -> String {
    let path = &rule.path;
    match &rule.host {
        HostPattern::Any => path.to_string(),
        host => format!("{host}{path}"),
    }
}

/// A handler whose requests are counted by route.
struct Counted {
    route: RouteId,
    place: PlaceId,
    handler: Arc<dyn Handler>,
}

impl Handler for Counted {
    fn handle(&self, request: Request) -> Answering<'_> {
        metrics::mark(self.route, self.place);
        self.handler.handle(request)
    }

    fn may_decline(&self) -> bool {
        self.handler.may_decline()
    }
}

/// The same behind what `redirect_https` and `hsts` ask for.
pub(super) fn behind_https(
    handler: Arc<dyn Handler>,
    plan: &Plan,
    (certificates, challenges): (&Arc<ArcSwap<Certificates>>, &Tokens),
) -> Arc<dyn Handler> {
    let ports = plan.listeners.iter().map(|(settings, address, _)| (settings, address));
    let asked = plan.configuration.tls.iter().filter(|tls| matches!(tls.source, Source::Authority(_)));
    let names: HashSet<String> = asked.flat_map(|tls| tls.hosts.iter().cloned()).collect();
    if names.is_empty() {
        return behind_https_of(handler, &plan.configuration.server, ports, None);
    }
    let coming = Coming { names, certificates: Arc::clone(certificates) };
    let handler = behind_https_of(handler, &plan.configuration.server, ports, Some(coming));
    Challenges::wrap(handler, Arc::clone(challenges))
}

/// The same for listeners with the addresses that they came to be at.
pub(crate) fn behind_https_of<'a>(
    handler: Arc<dyn Handler>,
    server: &ServerSettings,
    listeners: impl Iterator<Item = (&'a ListenerSettings, &'a Address)>,
    coming: Option<Coming>,
) -> Arc<dyn Handler> {
    let ports = listeners.filter(|(settings, _)| settings.tls);
    let mut ports = ports.filter_map(|(_, address)| match address {
        Address::Tcp(address) => Some(address.port()),
        _ => None,
    });
    // The usual port where anybody listens there; without a listener of ours a proxy speaks https before us.
    let first = ports.next().unwrap_or(443);
    let port = if first == 443 || ports.any(|port| port == 443) { 0 } else { first };
    let redirect = server.redirect_https.then_some(port).map(|port| (port, coming));
    Https::wrap(handler, redirect, server.hsts.as_deref())
}

/// What answers before the first plan is served; nothing is accepted by then.
pub(super) struct NotYet;

impl Handler for NotYet {
    fn handle(&self, _: Request) -> Answering<'_> {
        Box::pin(async {
            Err(HandlerError::new(Status::SERVICE_UNAVAILABLE, Fault::Server, "a request before there was a plan"))
        })
    }
}
