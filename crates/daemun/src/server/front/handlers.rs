//! Handlers and router of a configuration.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::app::{Application, Pool};
use crate::config::{Configuration, HandlerSettings};
use crate::filter::Filtered;
use crate::gateway::Spool;
use crate::handler::{Answering, Fault, Handler, HandlerError};
use crate::http::{Request, Status, TrustedProxies};
use crate::respond::{Redirect, Respond};
use crate::router::{HostPattern, Router, Rule};
use crate::static_files::StaticFiles;
use crate::telemetry::ErrorLogger;
use crate::telemetry::metrics::{self, Labels, RouteId};

/// Builds the router over all routes; `folders` are the opened roots of the static ones, in their order.
pub(super) fn build(
    configuration: &Configuration,
    mut folders: impl Iterator<Item = OwnedFd>,
    pools: &BTreeMap<String, Arc<Pool>>,
    spool: &Arc<Spool>,
    errors: &ErrorLogger,
) -> io::Result<Arc<dyn Handler>> {
    let trusted = TrustedProxies::new(configuration.server.trusted_proxies.clone());
    let mut routes = Vec::with_capacity(configuration.routes.len());
    for route in &configuration.routes {
        let handler: Arc<dyn Handler> = match &route.handler {
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
                Arc::new(Application::new(Arc::clone(pool), Arc::clone(spool), trusted.clone()))
            }
            HandlerSettings::Redirect { to, status } => Arc::new(Redirect::new(to, *status).map_err(io::Error::other)?),
            HandlerSettings::Respond { status, body, content_type } => {
                Arc::new(Respond::new(*status, body, content_type).map_err(io::Error::other)?)
            }
        };
        let app = if let HandlerSettings::App(name) = &route.handler { name.clone() } else { String::new() };
        let labels = Labels { route: pattern(&route.rule), app };
        let handler = Filtered::wrap(&route.filters, handler);
        let counted = Counted { route: metrics::intern(&labels), handler };
        routes.push((route.rule.clone(), Arc::new(counted) as Arc<dyn Handler>));
    }
    let ties = |ties: Vec<_>| io::Error::other(ties.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
    Ok(Arc::new(Router::new(routes).map_err(ties)?))
}

/// A route as it is counted: bounded by the configuration, never what a client sent.
fn pattern(rule: &Rule) -> String {
    let path = &rule.path;
    match &rule.host {
        HostPattern::Any => path.to_string(),
        host => format!("{host}{path}"),
    }
}

/// A handler whose requests are counted by route.
struct Counted {
    route: RouteId,
    handler: Arc<dyn Handler>,
}

impl Handler for Counted {
    fn handle(&self, request: Request) -> Answering<'_> {
        metrics::mark(self.route);
        self.handler.handle(request)
    }

    fn may_decline(&self) -> bool {
        self.handler.may_decline()
    }
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
