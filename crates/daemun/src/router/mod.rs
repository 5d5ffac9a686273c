//! Which handler answers: the most specific rule wins, whatever the order in the file.
//!
//! The way of a request through here:
//! 1. Tables for its host: the exact one, wildcards from the longest to the shortest, then the one for any host.
//! 2. In each: the exact path, then prefixes from the longest to the shortest, one with a suffix before one without;
//!    of those with the same path the one with more conditions first ([`rules`]).
//! 3. The handler answers, or declines, and the walk goes on where it stopped.
//! 4. A local redirect begins at 1 with the other path, at most ten times.
//! 5. Nothing left: 405 with `Allow` where only the method was wrong, else 404, or 421 (RFC 9110, section 15.5.20) where
//!    no table is for this host.
//!
//! [`Rules::explain`] is the same walk, watched. Knows hosts, canonical paths and conditions. Must not know what
//! handlers do, nor settings files.

mod condition;
mod pattern;
mod rules;
mod tie;

use std::sync::Arc;

use bytes::Bytes;

use crate::handler::{Answering, Dress, Fault, Handler, HandlerError, MAX_REDIRECTS, Outcome};
use crate::http::{Request, Status};
use crate::respond;

pub use condition::{Conditions, HeaderCondition, Wanted};
pub use pattern::{HostPattern, PathPattern};
pub use rules::{Candidate, Rule, Rules, Verdict};
pub use tie::{Shadow, Tie, shadows, ties};

use rules::{Match, Walk};

/// Chooses among handlers; itself one.
pub struct Router {
    rules: Rules,
    handlers: Vec<Arc<dyn Handler>>,
}

/// A walk that has made its first step.
struct Begun {
    walk: Walk,
    /// Rules that only the method kept from matching.
    wrong_method: Vec<usize>,
    found: Option<Match>,
}

/// Notes rules that only the method keeps from matching.
fn watch(wrong_method: &mut Vec<usize>) -> impl FnMut(usize, Verdict) {
    |rule, verdict| {
        if verdict == Verdict::Method {
            wrong_method.push(rule);
        }
    }
}

impl Router {
    /// Builds the tables. Rules that tie are told all at once.
    pub fn new(routes: Vec<(Rule, Arc<dyn Handler>)>) -> Result<Self, Vec<Tie>> {
        let (rules, handlers) = routes.into_iter().unzip();
        Ok(Self { rules: Rules::new(rules)?, handlers })
    }

    /// The rules that this router chooses by.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Walks from route to route. A local redirect begins anew, so that whatever stands before the other route's
    /// handler holds for it too.
    async fn answer(&self, mut request: Request, mut begun: Option<Begun>) -> Result<Outcome, HandlerError> {
        let mut redirects = 0;
        loop {
            match self.walk(request, begun.take()).await? {
                Outcome::Redirect(other) if redirects < MAX_REDIRECTS => {
                    redirects += 1;
                    request = *other;
                }
                Outcome::Redirect(other) => {
                    let path = other.path.as_bytes().escape_ascii();
                    let message = format!("more than {MAX_REDIRECTS} local redirects, the last to `{path}`");
                    return Err(HandlerError::new(Status::INTERNAL_SERVER_ERROR, Fault::Server, message));
                }
                answered => return Ok(answered),
            }
        }
    }

    async fn walk(&self, mut request: Request, begun: Option<Begun>) -> Result<Outcome, HandlerError> {
        let Begun { mut walk, mut wrong_method, mut found } = begun.unwrap_or_else(|| self.begin(&request));
        while let Some(best) = found {
            let Match::Handler { handler, prefix_length } = best else {
                return Ok(Outcome::Response(respond::with_slash(&request)));
            };
            request.prefix_length = prefix_length;
            match self.handlers[handler].handle(request).await? {
                Outcome::Decline(returned) => request = returned,
                answered => return Ok(answered),
            }
            found = self.rules.next(&mut walk, &request, &mut watch(&mut wrong_method));
        }
        Err(self.unanswered(&walk, &wrong_method, &request))
    }

    /// The first step of a walk.
    fn begin(&self, request: &Request) -> Begun {
        let (mut walk, mut wrong_method) = (Walk::default(), Vec::new());
        let found = self.rules.next(&mut walk, request, &mut watch(&mut wrong_method));
        Begun { walk, wrong_method, found }
    }

    fn unanswered(&self, walk: &Walk, wrong_method: &[usize], request: &Request) -> HandlerError {
        let path = request.path.as_bytes().escape_ascii();
        if !wrong_method.is_empty() {
            let allow = self.rules.allowed(wrong_method);
            let message = format!("the method of `{path}` is not allowed; allowed is {allow}");
            let mut error = HandlerError::new(Status::METHOD_NOT_ALLOWED, Fault::Client, message);
            error.dress = Some(Dress::new(move |response| response.fields.push(&b"Allow"[..], Bytes::from(allow))));
            return error;
        }
        if walk.knows_host() || self.rules.is_empty() {
            return HandlerError::new(Status::NOT_FOUND, Fault::Client, format!("nothing answers `{path}`"));
        }
        let message = format!("no route is for the host `{}`", request.head.host());
        HandlerError::new(Status::MISDIRECTED_REQUEST, Fault::Client, message)
    }
}

impl Handler for Router {
    fn handle(&self, mut request: Request) -> Answering<'_> {
        let begun = self.begin(&request);
        if let Some(Match::Handler { handler, prefix_length }) = begun.found
            && !self.handlers[handler].may_decline()
        {
            request.prefix_length = prefix_length;
            return self.handlers[handler].handle(request);
        }
        Box::pin(self.answer(request, Some(begun)))
    }
}

#[cfg(test)]
mod tests;
