//! The whole routing table.

use serde::Serialize;

use super::report::{FilterTold, RouteTold};
use crate::config::{Configuration, HandlerSettings};
use crate::router::{Rules, shadows};
use crate::server::front;
use crate::static_files::Missing;

/// All routes of a configuration.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// The listeners.
    pub listeners: Vec<String>,
    /// The routes, in the order in which they are asked: the most specific host first, then the most specific path.
    pub routes: Vec<TableRoute>,
    /// What cannot be known.
    pub unknown: Vec<String>,
}

/// A route of a [`Table`].
#[derive(Clone, Debug, Serialize)]
pub struct TableRoute {
    /// The route.
    #[serde(flatten)]
    pub route: RouteTold,
    /// The key of its handler.
    pub handler: &'static str,
    /// What that is, in a line.
    pub target: String,
    /// Its filters, in their order.
    pub filters: Vec<FilterTold>,
    /// Hosts on which another route answers everything first, with that route's origin.
    pub shadowed: Vec<String>,
}

/// The table of a configuration.
pub(super) fn of(configuration: &Configuration, rules: &Rules, unknown: &[String]) -> Table {
    let routes = &configuration.routes;
    let all: Vec<_> = routes.iter().map(|route| &route.rule).collect();
    let hidden = shadows(&all, |number| may_decline(&routes[number].handler));
    let of_route = |number: usize| {
        let route = &routes[number];
        let by = hidden.iter().filter(|shadow| shadow.hidden == number).map(|shadow| &routes[shadow.by].rule);
        TableRoute {
            route: RouteTold::of(&route.rule),
            handler: route.handler.kind(),
            target: target(&route.handler),
            filters: front::filters(configuration, route).describe().into_iter().map(FilterTold::of).collect(),
            shadowed: by.map(|rule| format!("{}: {} at {}", rule.host, rule.path, rule.origin)).collect(),
        }
    };
    Table {
        listeners: configuration
            .server
            .all_listeners()
            .map(|listener| format!("{}{}", if listener.tls { "https://" } else { "" }, listener.address))
            .collect(),
        routes: rules.in_order().into_iter().map(of_route).collect(),
        unknown: unknown.to_vec(),
    }
}

/// Whether a handler may let the next route answer. A new kind says it here.
fn may_decline(handler: &HandlerSettings) -> bool {
    match handler {
        HandlerSettings::Static(settings) => settings.missing == Missing::Next,
        HandlerSettings::Cgi(settings) => settings.script_root().is_some(),
        HandlerSettings::Scripts(settings) => settings.root.is_some() && settings.missing.is_none(),
        HandlerSettings::App(_)
        | HandlerSettings::Upstream(_)
        | HandlerSettings::Redirect { .. }
        | HandlerSettings::Respond { .. } => false,
    }
}

/// A handler in a line.
fn target(handler: &HandlerSettings) -> String {
    match handler {
        HandlerSettings::Static(settings) => {
            let roots: Vec<String> = settings.roots.iter().map(|root| root.path.display().to_string()).collect();
            match roots.as_slice() {
                [] => "no folder".to_owned(),
                [one] => one.clone(),
                [first, rest @ ..] => format!("{first} and {} more", rest.len()),
            }
        }
        HandlerSettings::App(name) | HandlerSettings::Upstream(name) => name.clone(),
        HandlerSettings::Scripts(settings) => settings.upstream.clone(),
        HandlerSettings::Cgi(settings) => match settings.script_root() {
            Some(root) => root.display().to_string(),
            None => settings.program.join(" "),
        },
        HandlerSettings::Redirect { to, status } => format!("{status} to {to}"),
        HandlerSettings::Respond { status, .. } => status.to_string(),
    }
}
