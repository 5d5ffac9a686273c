//! Rules in the order in which they are asked.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::condition::Conditions;
use super::pattern::{HostPattern, PathPattern};
use super::tie::{Tie, ties};
use crate::http::Request;

/// When a route answers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Rule {
    /// Which hosts.
    pub host: HostPattern,
    /// Which paths.
    pub path: PathPattern,
    /// What else has to be so.
    #[serde(default)]
    pub conditions: Conditions,
    /// Where the rule was written, for instance `daemun.toml:12:1` or `from Django: STATIC_URL`.
    pub origin: String,
}

/// All rules, in tables that are asked from the most specific on.
#[derive(Debug)]
pub struct Rules {
    all: Vec<Rule>,
    tables: Vec<Table>,
    exact: HashMap<Box<[u8]>, usize>,
    below: Vec<(Box<[u8]>, usize)>,
    any: Option<usize>,
}

/// What a rule says to a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It matches.
    Matches,
    /// The path is its prefix without the slash at the end: a redirect.
    Slash,
    /// It is for another host.
    Host,
    /// It is for another path.
    Path,
    /// Only the method is another.
    Method,
    /// The header condition of this number does not hold.
    Header(usize),
}

/// A rule and what it said, as [`Rules::explain`] tells it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Candidate<'a> {
    /// Its place in the list that the rules were made of.
    pub index: usize,
    /// The rule.
    pub rule: &'a Rule,
    /// What it said.
    pub verdict: Verdict,
}

// === impl Rules ===

impl Rules {
    /// Builds the tables. Rules that tie are told all at once.
    pub fn new(rules: Vec<Rule>) -> Result<Self, Vec<Tie>> {
        let ties = ties(&rules);
        if !ties.is_empty() {
            return Err(ties);
        }
        let mut built =
            Self { all: Vec::new(), tables: Vec::new(), exact: HashMap::new(), below: Vec::new(), any: None };
        for (number, rule) in rules.iter().enumerate() {
            let table = built.table_for(&rule.host);
            built.tables[table].add(&rule.path, number);
        }
        built.below.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        for table in &mut built.tables {
            table.sort(&rules);
        }
        built.all = rules;
        Ok(built)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Every rule with what it says to `request`: first those that were asked, in that order, then the others. The
    /// first that [matches](Verdict::Matches) answers; those after it would if it declined.
    pub fn explain(&self, request: &Request) -> Vec<Candidate<'_>> {
        let mut asked: Vec<(usize, Verdict)> = Vec::new();
        let mut walk = Walk::default();
        while self.next(&mut walk, request, &mut |rule, verdict| asked.push((rule, verdict))).is_some() {}
        let mut at = 0;
        let tables: Vec<usize> = std::iter::from_fn(|| self.next_table(&mut at, request.head.host())).collect();
        let mut is_told = vec![false; self.all.len()];
        for &(rule, _) in &asked {
            is_told[rule] = true;
        }
        // An exact path is looked up, not compared: in a table that was asked, whatever was not found is for another.
        for rule in (0..self.all.len()).filter(|&rule| !is_told[rule]) {
            let is_asked = tables.iter().any(|&table| self.tables[table].holds(rule));
            asked.push((rule, if is_asked { Verdict::Path } else { Verdict::Host }));
        }
        asked.into_iter().map(|(index, verdict)| Candidate { index, rule: &self.all[index], verdict }).collect()
    }

    /// Every rule in the order in which requests ask them: the tables of exact hosts by name, those of wildcards, the one
    /// for any host; in each the exact paths by name, then the prefixes.
    pub fn in_order(&self) -> Vec<usize> {
        let mut hosts: Vec<(&[u8], usize)> = self.exact.iter().map(|(host, &table)| (&**host, table)).collect();
        hosts.sort_unstable();
        let tables = hosts.into_iter().map(|(_, table)| table);
        let tables = tables.chain(self.below.iter().map(|&(_, table)| table)).chain(self.any);
        let mut order = Vec::with_capacity(self.all.len());
        for table in tables.map(|table| &self.tables[table]) {
            let mut exact: Vec<_> = table.exact.iter().collect();
            exact.sort_unstable();
            order.extend(exact.into_iter().flat_map(|(_, rules)| rules.iter().copied()));
            order.extend(table.prefixes.iter().map(|entry| entry.rule));
        }
        order
    }

    /// The methods that these rules are for, as `Allow` lists them.
    pub(super) fn allowed(&self, rules: &[usize]) -> String {
        let mut methods: Vec<&str> = Vec::new();
        for method in rules.iter().flat_map(|&rule| self.all[rule].conditions.allowed()) {
            if !methods.contains(&method) {
                methods.push(method);
            }
        }
        methods.join(", ")
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

    /// The next best match after those that `walk` has already given. `watch` is told what each rule says.
    pub(super) fn next(
        &self,
        walk: &mut Walk,
        request: &Request,
        watch: &mut impl FnMut(usize, Verdict),
    ) -> Option<Match> {
        loop {
            if let Some(table) = walk.table {
                if let Some(found) = self.tables[table].next(walk, &self.all, request, watch) {
                    return Some(found);
                }
                walk.table = None;
            }
            walk.table = Some(self.next_table(&mut walk.host, request.head.host())?);
            (walk.exact, walk.prefix, walk.known_host) = (0, 0, true);
        }
    }

    fn next_table(&self, at: &mut usize, host: &str) -> Option<usize> {
        let any = self.below.len() + 1;
        let mut buffer = [0; MAX_HOST];
        // Without rules for hosts, or with a name too long for any of them, only the table for any host is left.
        let host = match lower_case(host, &mut buffer) {
            Some(host) if !(self.exact.is_empty() && self.below.is_empty()) => host,
            _ => {
                *at = (*at).max(any);
                &[]
            }
        };
        while *at <= any {
            let step = *at;
            *at += 1;
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
}

/// The rules for one host pattern.
#[derive(Debug, Default)]
struct Table {
    /// Rules for one exact path, those with more conditions first.
    exact: HashMap<Box<[u8]>, Vec<usize>>,
    prefixes: Vec<Prefix>,
}

#[derive(Debug)]
struct Prefix {
    start: Box<[u8]>,
    suffix: Box<[u8]>,
    rule: usize,
}

/// What the next best match is.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Match {
    Handler {
        handler: usize,
        prefix_length: usize,
    },
    /// `/static` where `/static/*` is the rule.
    Slash,
}

/// How far the search has come, so that it goes on after a decline.
#[derive(Default)]
pub(super) struct Walk {
    /// The next host to try: 0 the exact one, then the wildcards, then any.
    host: usize,
    /// The table that is being looked through.
    table: Option<usize>,
    /// The next of its rules for the exact path.
    exact: usize,
    /// The next of its prefixes.
    prefix: usize,
    /// Whether any table was for this host.
    known_host: bool,
}

// === impl Walk ===

impl Walk {
    /// Whether any table was for this host.
    pub(super) fn knows_host(&self) -> bool {
        self.known_host
    }
}

// === impl Table ===

impl Table {
    fn add(&mut self, path: &PathPattern, rule: usize) {
        match path {
            PathPattern::Exact(path) => self.exact.entry(path.as_bytes().into()).or_default().push(rule),
            PathPattern::Prefix { prefix, suffix } => {
                let (start, suffix) = (prefix.as_bytes().into(), suffix.as_bytes().into());
                self.prefixes.push(Prefix { start, suffix, rule });
            }
        }
    }

    fn sort(&mut self, rules: &[Rule]) {
        let conditions = |rule: usize| rules[rule].conditions.count();
        for exact in self.exact.values_mut() {
            exact.sort_by_key(|&rule| std::cmp::Reverse(conditions(rule)));
        }
        self.prefixes
            .sort_by_key(|entry| std::cmp::Reverse((entry.start.len(), entry.suffix.len(), conditions(entry.rule))));
    }

    fn holds(&self, rule: usize) -> bool {
        self.prefixes.iter().any(|entry| entry.rule == rule) || self.exact.values().flatten().any(|&one| one == rule)
    }

    fn next(
        &self,
        walk: &mut Walk,
        rules: &[Rule],
        request: &Request,
        watch: &mut impl FnMut(usize, Verdict),
    ) -> Option<Match> {
        let path = request.path.as_bytes();
        if walk.prefix == 0 {
            while let Some(&rule) = self.exact.get(path).and_then(|exact| exact.get(walk.exact)) {
                walk.exact += 1;
                let verdict = rules[rule].conditions.check(&request.head);
                watch(rule, verdict);
                if verdict == Verdict::Matches {
                    // Without a `*` nothing is stripped but the slash: `/favicon.ico` is `root/favicon.ico`.
                    return Some(Match::Handler { handler: rule, prefix_length: 1 });
                }
            }
        }
        while let Some(entry) = self.prefixes.get(walk.prefix) {
            walk.prefix += 1;
            let verdict = match entry.compare(path) {
                Verdict::Path => Verdict::Path,
                // A redirect holds for every method, so that a form posted without the slash is told too.
                found => match rules[entry.rule].conditions.check(&request.head) {
                    Verdict::Matches => found,
                    unfulfilled => unfulfilled,
                },
            };
            watch(entry.rule, verdict);
            match verdict {
                Verdict::Matches => {
                    return Some(Match::Handler { handler: entry.rule, prefix_length: entry.start.len() });
                }
                Verdict::Slash => return Some(Match::Slash),
                _ => {}
            }
        }
        None
    }
}

// === impl Prefix ===

impl Prefix {
    fn compare(&self, path: &[u8]) -> Verdict {
        if path.len() >= self.start.len() + self.suffix.len()
            && path.starts_with(&self.start)
            && path.ends_with(&self.suffix)
        {
            Verdict::Matches
        } else if self.suffix.is_empty() && self.start.strip_suffix(b"/") == Some(path) {
            Verdict::Slash
        } else {
            Verdict::Path
        }
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
