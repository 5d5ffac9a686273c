//! Which handler answers: the most specific rule wins, whatever the order in the file.
//!
//! The way of a request through here:
//! 1. Tables for its host: the exact one, wildcards from the longest to the shortest, then the one for any host.
//! 2. In each: the exact path, then prefixes from the longest to the shortest, one with a suffix before one without.
//! 3. The handler answers, or declines, and the walk goes on where it stopped.
//! 4. A local redirect begins at 1 with the other path, at most ten times.
//! 5. Nothing left: 404, or 421 (RFC 9110, section 15.5.20) where no table is for this host.
//!
//! Knows hosts and canonical paths. Must not know what handlers do, nor settings files.

mod pattern;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::handler::{Answering, Fault, Handler, HandlerError, MAX_REDIRECTS, Outcome};
use crate::http::{Request, Status};
use crate::respond;

pub use pattern::{HostPattern, PathPattern};

/// When a route answers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Rule {
    /// Which hosts.
    pub host: HostPattern,
    /// Which paths.
    pub path: PathPattern,
    /// Where the rule was written, for instance `daemun.toml:12:1` or `from Django: STATIC_URL`.
    pub origin: String,
}

/// Two rules of which neither is more specific.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{path}` on host `{host}` stands at {first} and at {second}; which of them answers?")]
pub struct Tie {
    /// Their hosts.
    pub host: HostPattern,
    /// Their paths.
    pub path: PathPattern,
    /// Where the first was written.
    pub first: String,
    /// Where the second was written.
    pub second: String,
}

/// Chooses among handlers; itself one.
pub struct Router {
    handlers: Vec<Arc<dyn Handler>>,
    tables: Vec<Table>,
    exact: HashMap<Box<[u8]>, usize>,
    below: Vec<(Box<[u8]>, usize)>,
    any: Option<usize>,
}

// === impl Router ===

impl Router {
    /// Builds the tables. Rules that tie are told all at once.
    pub fn new(routes: Vec<(Rule, Arc<dyn Handler>)>) -> Result<Self, Vec<Tie>> {
        let ties = ties(routes.iter().map(|(rule, _)| rule));
        if !ties.is_empty() {
            return Err(ties);
        }
        let mut built = Self {
            handlers: Vec::with_capacity(routes.len()),
            tables: Vec::new(),
            exact: HashMap::new(),
            below: Vec::new(),
            any: None,
        };
        for (rule, handler) in routes {
            let table = built.table_for(&rule.host);
            built.tables[table].add(&rule.path, built.handlers.len());
            built.handlers.push(handler);
        }
        built.below.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        for table in &mut built.tables {
            table.sort();
        }
        Ok(built)
    }

    fn table_for(&mut self, host: &HostPattern) -> usize {
        let next = self.tables.len();
        let table = match host {
            HostPattern::Any => *self.any.get_or_insert(next),
            HostPattern::Exact(name) => *self.exact.entry(name.as_bytes().into()).or_insert(next),
            HostPattern::Below(suffix) => {
                let known = self.below.iter().find(|(known, _)| known.as_ref() == suffix.as_bytes());
                let table = known.map_or(next, |&(_, table)| table);
                if table == next {
                    self.below.push((suffix.as_bytes().into(), next));
                }
                table
            }
        };
        if table == next {
            self.tables.push(Table::default());
        }
        table
    }

    /// The next best match after those that `walk` has already given.
    fn next(&self, walk: &mut Walk, request: &Request) -> Option<Match> {
        let path = request.path.as_bytes();
        loop {
            if let Some(table) = walk.table {
                if let Some(found) = self.tables[table].next(&mut walk.step, path) {
                    return Some(found);
                }
                walk.table = None;
            }
            walk.table = Some(self.next_table(walk, request.head.host())?);
            walk.step = 0;
            walk.known_host = true;
        }
    }

    fn next_table(&self, walk: &mut Walk, host: &str) -> Option<usize> {
        let any = self.below.len() + 1;
        let mut buffer = [0; MAX_HOST];
        // Without rules for hosts, or with a name too long for any of them, only the table for any host is left.
        let host = match lower_case(host, &mut buffer) {
            Some(host) if !(self.exact.is_empty() && self.below.is_empty()) => host,
            _ => {
                walk.host = walk.host.max(any);
                &[]
            }
        };
        while walk.host <= any {
            let step = walk.host;
            walk.host += 1;
            let table = match step {
                0 => self.exact.get(host).copied(),
                step if step == any => self.any,
                step => {
                    let (suffix, table) = &self.below[step - 1];
                    (host.len() > suffix.len() && host.ends_with(suffix)).then_some(*table)
                }
            };
            if table.is_some() {
                return table;
            }
        }
        None
    }

    /// Walks from route to route. A local redirect begins anew, so that whatever stands before the other route's
    /// handler holds for it too.
    async fn answer(&self, mut request: Request) -> Result<Outcome, HandlerError> {
        let mut redirects = 0;
        loop {
            match self.walk(request).await? {
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

    async fn walk(&self, mut request: Request) -> Result<Outcome, HandlerError> {
        let mut walk = Walk::default();
        while let Some(found) = self.next(&mut walk, &request) {
            let Match::Handler { handler, prefix_length } = found else {
                return Ok(Outcome::Response(respond::with_slash(&request)));
            };
            request.prefix_length = prefix_length;
            match self.handlers[handler].handle(request).await? {
                Outcome::Decline(returned) => request = returned,
                answered => return Ok(answered),
            }
        }
        let path = request.path.as_bytes().escape_ascii();
        Err(if walk.known_host || self.tables.is_empty() {
            HandlerError::new(Status::NOT_FOUND, Fault::Client, format!("nothing answers `{path}`"))
        } else {
            let message = format!("no route is for the host `{}`", request.head.host());
            HandlerError::new(Status::MISDIRECTED_REQUEST, Fault::Client, message)
        })
    }
}

impl Handler for Router {
    fn handle(&self, mut request: Request) -> Answering<'_> {
        if let Some(Match::Handler { handler, prefix_length }) = self.next(&mut Walk::default(), &request)
            && !self.handlers[handler].may_decline()
        {
            request.prefix_length = prefix_length;
            return self.handlers[handler].handle(request);
        }
        Box::pin(self.answer(request))
    }
}

/// Every pair of rules of which neither is more specific. Two patterns that can match the same path with the same
/// specificity are the same pattern: prefixes of one length that match one path are equal, and so are suffixes.
pub fn ties<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Vec<Tie> {
    let mut seen: HashMap<(&HostPattern, &PathPattern), &Rule> = HashMap::new();
    let mut ties = Vec::new();
    for rule in rules {
        match seen.entry((&rule.host, &rule.path)) {
            Entry::Vacant(vacant) => {
                vacant.insert(rule);
            }
            Entry::Occupied(first) => ties.push(Tie {
                host: rule.host.clone(),
                path: rule.path.clone(),
                first: first.get().origin.clone(),
                second: rule.origin.clone(),
            }),
        }
    }
    ties
}

/// The rules for one host pattern.
#[derive(Default)]
struct Table {
    exact: HashMap<Box<[u8]>, usize>,
    prefixes: Vec<Prefix>,
}

struct Prefix {
    start: Box<[u8]>,
    suffix: Box<[u8]>,
    handler: usize,
}

/// What the next best match is.
#[derive(Debug, Eq, PartialEq)]
enum Match {
    Handler {
        handler: usize,
        prefix_length: usize,
    },
    /// `/static` where `/static/*` is the rule.
    Slash,
}

/// How far the search has come, so that it goes on after a decline.
#[derive(Default)]
struct Walk {
    /// The next host to try: 0 the exact one, then the wildcards, then any.
    host: usize,
    /// The table that is being looked through.
    table: Option<usize>,
    /// The next rule in it: 0 the exact path, then the prefixes.
    step: usize,
    /// Whether any table was for this host.
    known_host: bool,
}

// === impl Table ===

impl Table {
    fn add(&mut self, path: &PathPattern, handler: usize) {
        match path {
            PathPattern::Exact(path) => {
                self.exact.insert(path.as_bytes().into(), handler);
            }
            PathPattern::Prefix { prefix, suffix } => {
                let (start, suffix) = (prefix.as_bytes().into(), suffix.as_bytes().into());
                self.prefixes.push(Prefix { start, suffix, handler });
            }
        }
    }

    fn sort(&mut self) {
        self.prefixes.sort_by_key(|entry| std::cmp::Reverse((entry.start.len(), entry.suffix.len())));
    }

    fn next(&self, step: &mut usize, path: &[u8]) -> Option<Match> {
        if *step == 0 {
            *step = 1;
            if let Some(&handler) = self.exact.get(path) {
                // Without a `*` nothing is stripped but the slash: `/favicon.ico` is `root/favicon.ico`.
                return Some(Match::Handler { handler, prefix_length: 1 });
            }
        }
        while let Some(entry) = self.prefixes.get(*step - 1) {
            *step += 1;
            if entry.matches(path) {
                return Some(Match::Handler { handler: entry.handler, prefix_length: entry.start.len() });
            }
            if entry.is_folder(path) {
                return Some(Match::Slash);
            }
        }
        None
    }
}

// === impl Prefix ===

impl Prefix {
    fn matches(&self, path: &[u8]) -> bool {
        path.len() >= self.start.len() + self.suffix.len()
            && path.starts_with(&self.start)
            && path.ends_with(&self.suffix)
    }

    /// Whether `path` is this prefix but for its last slash.
    fn is_folder(&self, path: &[u8]) -> bool {
        self.suffix.is_empty() && self.start.strip_suffix(b"/") == Some(path)
    }
}

/// The host in lower case and without the dot that a fully qualified name may end in; `None` where it is longer than
/// a name can be.
fn lower_case<'a>(host: &str, buffer: &'a mut [u8; MAX_HOST]) -> Option<&'a [u8]> {
    let host = host.strip_suffix('.').unwrap_or(host).as_bytes();
    let lower = buffer.get_mut(..host.len())?;
    lower.copy_from_slice(host);
    lower.make_ascii_lowercase();
    Some(lower)
}

/// Names in the DNS have at most 253 characters (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 256;

#[cfg(test)]
mod tests;
