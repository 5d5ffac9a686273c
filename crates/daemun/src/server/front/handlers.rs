//! Handlers and router of a configuration.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::app::{Application, Pool};
use crate::cgi::{self, Cgi};
use crate::config::{Configuration, HandlerSettings};
use crate::filter::Filtered;
use crate::gateway::Spool;
use crate::handler::{Answering, Fault, Handler, HandlerError};
use crate::http::{Request, Status, TrustedProxies};
use crate::launcher::Client;
use crate::respond::{Redirect, Respond};
use crate::router::{PathPattern, Router};
use crate::static_files::StaticFiles;
use crate::telemetry::ErrorLogger;

/// Builds the router over all routes; `folders` are the opened roots of the static ones and those of the CGI ones, in their order.
pub(super) fn build(
    configuration: &Configuration,
    mut folders: impl Iterator<Item = OwnedFd>,
    pools: &BTreeMap<String, Arc<Pool>>,
    spool: &Arc<Spool>,
    (errors, launcher): (&ErrorLogger, &Arc<Client>),
) -> io::Result<Arc<dyn Handler>> {
    let trusted = TrustedProxies::new(configuration.server.trusted_proxies.clone());
    let programs = cgi::Shared {
        client: Arc::clone(launcher),
        spool: Arc::clone(spool),
        trusted: trusted.clone(),
        errors: errors.clone(),
        places: Arc::new(Semaphore::new(configuration.server.max_cgi_processes.max(1) as usize)),
    };
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
            HandlerSettings::Cgi(settings) => {
                let folder = settings.script_root().and_then(|_| folders.next());
                let is_exact = matches!(route.rule.path, PathPattern::Exact(_));
                Arc::new(Cgi::new((**settings).clone(), folder, is_exact, programs.clone())?)
            }
            HandlerSettings::Redirect { to, status } => Arc::new(Redirect::new(to, *status).map_err(io::Error::other)?),
            HandlerSettings::Respond { status, body, content_type } => {
                Arc::new(Respond::new(*status, body, content_type).map_err(io::Error::other)?)
            }
        };
        routes.push((route.rule.clone(), Filtered::wrap(&route.filters, handler)));
    }
    let ties = |ties: Vec<_>| io::Error::other(ties.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
    Ok(Arc::new(Router::new(routes).map_err(ties)?))
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
