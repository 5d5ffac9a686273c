//! `daemun explain`: which way a request takes, and why.
//!
//! The way is not worked out a second time: the router, the filters and the handlers for files, redirects and fixed
//! answers are those that serve, built from the same settings and asked for real, with a witness before and behind each
//! ([`witness`]). Only what would start something stands in another's place: an application and a CGI program are told,
//! not run. What depends on what other requests did (`rate_limit`, `cache`) is left out and named.
//!
//! 1. [`project`]: what Django's settings add, asked as `serve` asks, where there is a Django project.
//! 2. [`question`]: words become the request that a client would send, read by the codec that reads those.
//! 3. [`witness`]: it takes its way; what is seen becomes a [`report`](Explanation).
//! 4. [`mod@text`] shows it; [`table`] shows all routes.
//!
//! Binds nothing and starts nothing but the question to the project's Python.

mod project;
mod question;
mod report;
mod table;
mod text;
mod witness;

use std::io;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};

use crate::config::Configuration;
use crate::control::message::Status;
use crate::filter::is_transformed;
use crate::handler::{Handler, HandlerError, Outcome};
use crate::http::{Method, Status as Code};
use crate::router::{Rule, Rules, Verdict};
use crate::server::front;
use report::{Answer, Asked, EndedBy, FilterTold, ListenerTold, Other, RouteTold, SeenTold, Told};
use witness::{Event, Story};

pub use project::ask as ask_projects;
pub use question::Question;
pub use report::Explanation;
pub use table::{Table, TableRoute};
pub use text::{Style, table as table_text, text};

/// A configuration that can be asked.
pub struct Explainer {
    configuration: Configuration,
    rules: Rules,
    handler: Arc<dyn Handler>,
    story: Arc<Story>,
    runtime: Runtime,
    /// What holds for every request.
    unknown: Vec<String>,
    running: Running,
}

/// The server that runs with this configuration, as it tells of itself; or why there is nothing to be told.
pub type Running = Result<Box<Status>, String>;

impl Explainer {
    /// Builds what serves this configuration, with witnesses. `unknown` is what could not be found out.
    pub fn new(configuration: Configuration, unknown: Vec<String>, running: Running) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let story = Arc::new(Story::default());
        let rules: Vec<Rule> = configuration.routes.iter().map(|route| route.rule.clone()).collect();
        let ties = |ties: Vec<crate::router::Tie>| {
            io::Error::other(ties.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        };
        let rules = Rules::new(rules).map_err(ties)?;
        let handler = {
            let _inside = runtime.enter();
            witness::build(&configuration, &story)?
        };
        Ok(Self { configuration, rules, handler, story, runtime, unknown, running })
    }

    /// Every route, in the order in which they are asked.
    pub fn table(&self) -> Table {
        table::of(&self.configuration, &self.rules, &self.unknown)
    }

    /// The way of one request. The error says what is wrong with the question.
    pub fn explain(&self, question: &Question) -> Result<Explanation, String> {
        let prepared = question::prepare(question, &self.configuration)?;
        let mut told = Explanation {
            request: Asked::of(&prepared),
            listener: ListenerTold::of(&prepared, &self.configuration),
            unknown: self.unknown.clone(),
            ..Explanation::default()
        };
        told.unknown.extend(prepared.notes.iter().cloned());
        let request = match prepared.request {
            Ok(request) => *request,
            Err((status, message)) => {
                told.answer = Answer::of_status(status, message);
                return Ok(told);
            }
        };
        told.request.path = Some(report::text(request.path.as_bytes()));
        let candidates: Vec<(usize, Verdict)> =
            self.rules.explain(&request).iter().map(|candidate| (candidate.index, candidate.verdict)).collect();
        let location_of_slash = report::text(request.path.as_bytes()) + "/";
        let outcome = self.runtime.block_on(self.handler.handle(request));
        let events = self.story.take();
        self.retell(&mut told, &events, outcome);
        self.tell_others(&mut told, &events, &candidates, &location_of_slash);
        Ok(told)
    }

    /// What the witnesses saw.
    fn retell(&self, told: &mut Explanation, events: &[Event], outcome: Result<Outcome, HandlerError>) {
        let asked = events.iter().rev().find_map(|event| match event {
            Event::Asked(number) => Some(*number),
            _ => None,
        });
        let mut reached = events.iter().rev().find_map(|event| match (event, asked) {
            (Event::Reached(number, what), Some(asked)) if *number == asked => Some((**what).clone()),
            _ => None,
        });
        if let Some(route) = asked.and_then(|number| self.configuration.routes.get(number)) {
            told.route = Some(RouteTold::of(&route.rule));
            told.site = Some(route.rule.host.to_string());
            told.handler = Some(route.handler.kind());
            let described = front::filters(&self.configuration, route).describe();
            told.filters = described.into_iter().map(FilterTold::of).collect();
            told.unknown.extend(witness::unknowable(&route.filters));
        }
        told.ended_by = match events.last() {
            None => EndedBy::Server,
            Some(Event::Router | Event::Declined(_)) => EndedBy::Router,
            Some(Event::Asked(_)) => EndedBy::Filter,
            Some(Event::Reached(..)) => EndedBy::Handler,
        };
        let is_known = !matches!(reached, Some(Told::Application(_) | Told::Program(_) | Told::Upstream(_)));
        let is_xml = told.ended_by == EndedBy::Handler && self.is_transformed(asked, is_known, &outcome, told);
        told.answer = match outcome {
            Ok(Outcome::Response(_)) if is_xml => Answer::default(),
            Ok(Outcome::Response(response)) if is_known || told.ended_by != EndedBy::Handler => Answer::of(&response),
            Ok(Outcome::Response(_)) => Answer::default(),
            Ok(Outcome::Decline(_) | Outcome::Redirect(_)) => Answer::of_status(Code::NOT_FOUND, String::new()),
            Err(error) => Answer::of_status(error.status, error.message),
        };
        if told.ended_by == EndedBy::Server && told.answer.message.is_none() {
            told.answer.message = Some("`redirect_https` of [server]: plain requests are sent to https".to_owned());
        }
        if told.ended_by == EndedBy::Filter {
            report::name_the_filter(told);
        }
        if let Some(Told::Upstream(upstream)) = &mut reached {
            match self.seen(&upstream.name) {
                Ok(seen) => upstream.seen = Some(seen),
                Err(why) => told.unknown.push(format!("whether the servers of the upstream are well: {why}")),
            }
        }
        if is_xml {
            told.unknown.push("whether `xslt` can transform it, and what comes of that: it was not tried".to_owned());
        }
        if told.ended_by == EndedBy::Handler && told.answer.status.is_none() && !is_xml {
            told.unknown.push(match &reached {
                Some(Told::Program(_)) => "what the program answers: it was not run".to_owned(),
                Some(Told::Upstream(_)) => {
                    "which server of the upstream answers, and what it says: none was asked".to_owned()
                }
                _ => "what the application answers: it was not asked".to_owned(),
            });
        }
        told.target = reached;
    }

    /// Whether `xslt` of the route that was asked makes another answer of this one, which is a handler's own.
    fn is_transformed(
        &self,
        asked: Option<usize>,
        is_known: bool,
        outcome: &Result<Outcome, HandlerError>,
        told: &Explanation,
    ) -> bool {
        let Some(route) = asked.and_then(|number| self.configuration.routes.get(number)) else { return false };
        let Ok(Outcome::Response(response)) = outcome else { return false };
        let method = Method::from_name(told.request.method.as_bytes());
        is_known && front::filters(&self.configuration, route).xslt.is_some() && is_transformed(response, method)
    }

    /// What is known of the servers of an upstream.
    fn seen(&self, name: &str) -> Result<SeenTold, String> {
        let status = self.running.as_ref().map_err(Clone::clone)?;
        let servers = status.upstreams.get(name);
        let servers =
            servers.ok_or_else(|| format!("the server that is running (pid {}) does not know it", status.pid))?;
        Ok(SeenTold { pid: status.pid, servers: servers.clone() })
    }

    /// Why each other route does not answer.
    fn tell_others(&self, told: &mut Explanation, events: &[Event], candidates: &[(usize, Verdict)], slash: &str) {
        let asked: Vec<usize> =
            events.iter().filter_map(|event| if let Event::Asked(n) = event { Some(*n) } else { None }).collect();
        let answered = asked.last().copied().filter(|number| !events.contains_decline(*number));
        let mut is_over = !events.iter().any(|event| matches!(event, Event::Router));
        for &(number, verdict) in candidates {
            if answered == Some(number) {
                is_over = true;
                continue;
            }
            let Some(route) = self.configuration.routes.get(number) else { continue };
            let why = report::why_not(&route.rule, verdict, asked.contains(&number), is_over, slash);
            if verdict == Verdict::Slash && !is_over {
                is_over = true;
                told.answer.message =
                    Some(format!("{}: the path is the route's own without its slash", route.rule.origin));
            }
            told.others.push(Other::of(&route.rule, verdict, why));
        }
    }
}

/// What a list of events says of declines.
trait Declines {
    fn contains_decline(&self, number: usize) -> bool;
}

impl Declines for [Event] {
    fn contains_decline(&self, number: usize) -> bool {
        self.iter().any(|event| matches!(event, Event::Declined(other) if *other == number))
    }
}
