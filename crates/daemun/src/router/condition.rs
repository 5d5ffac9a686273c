//! What else a rule asks for: methods and headers.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::rules::Verdict;
use crate::http::RequestHead;

/// Conditions beside host and path; none for most rules.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Conditions {
    /// Only these methods; empty for all. `GET` stands for `HEAD` too (RFC 9110, section 9.3.2).
    pub methods: Vec<String>,
    /// All of these.
    pub headers: Vec<HeaderCondition>,
}

/// What a header of the request has to be.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct HeaderCondition {
    /// Its name, in lower case.
    pub name: String,
    /// Its value.
    pub wanted: Wanted,
}

/// The value that a [`HeaderCondition`] wants.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Wanted {
    /// Any.
    Present,
    /// None at all.
    Absent,
    /// Exactly this.
    Exact(String),
    /// `start*`, `*end`, `start*end`: what stands before and after the `*`.
    Around(String, String),
    /// `*text*`.
    Within(String),
}

// === impl Conditions ===

impl Conditions {
    /// How many there are: the more, the more specific is a rule.
    pub fn count(&self) -> usize {
        usize::from(!self.methods.is_empty()) + self.headers.len()
    }

    /// Headers first, so that a wrong method is told only where it is all that is wrong.
    pub(super) fn check(&self, head: &RequestHead) -> Verdict {
        if let Some(number) = self.headers.iter().position(|header| !header.holds(head)) {
            return Verdict::Header(number);
        }
        if self.methods.is_empty() || self.takes(head.method_name()) {
            return Verdict::Matches;
        }
        Verdict::Method
    }

    /// The methods that it is for, as `Allow` lists them.
    pub(super) fn allowed(&self) -> impl Iterator<Item = &str> {
        let head = self.methods.iter().any(|method| method == "GET").then_some("HEAD");
        self.methods.iter().map(String::as_str).chain(head)
    }

    /// Whether no request fulfils both.
    pub(super) fn excludes(&self, other: &Self) -> bool {
        let methods = !self.methods.is_empty()
            && !other.methods.is_empty()
            && !self.allowed().any(|method| other.allowed().any(|theirs| theirs == method));
        methods || self.headers.iter().any(|one| other.headers.iter().any(|theirs| one.excludes(theirs)))
    }

    fn takes(&self, method: &str) -> bool {
        self.methods.iter().any(|one| one == method || (one == "GET" && method == "HEAD"))
    }
}

impl fmt::Display for Conditions {
    /// For instance `method GET or POST, header x-beta = 1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.methods.is_empty() {
            write!(f, "method {}", self.methods.join(" or "))?;
        }
        for (number, header) in self.headers.iter().enumerate() {
            let comma = if number > 0 || !self.methods.is_empty() { ", " } else { "" };
            write!(f, "{comma}{header}")?;
        }
        Ok(())
    }
}

// === impl HeaderCondition ===

impl HeaderCondition {
    /// Reads the text of a condition: an exact value, or one with a `*` before, after or within, or around it.
    pub fn new(name: &str, text: &str) -> Result<Self, String> {
        let pieces: Vec<&str> = text.split('*').collect();
        let wanted = match pieces[..] {
            [exact] => Wanted::Exact(exact.to_owned()),
            ["", ""] => Wanted::Present,
            [start, end] => Wanted::Around(start.to_owned(), end.to_owned()),
            ["", part, ""] if !part.is_empty() => Wanted::Within(part.to_owned()),
            _ => {
                return Err(format!(
                    "expected a value such as \"beta\", \"beta*\", \"*beta\" or \"*beta*\", found {text:?}"
                ));
            }
        };
        Ok(Self { name: name.to_ascii_lowercase(), wanted })
    }

    /// Any of several lines of that name may hold it.
    fn holds(&self, head: &RequestHead) -> bool {
        let mut values = head.field_values(&self.name);
        match &self.wanted {
            Wanted::Present => values.next().is_some(),
            Wanted::Absent => values.next().is_none(),
            Wanted::Exact(text) => values.any(|value| value == text.as_bytes()),
            Wanted::Around(start, end) => values.any(|value| {
                value.len() >= start.len() + end.len()
                    && value.starts_with(start.as_bytes())
                    && value.ends_with(end.as_bytes())
            }),
            Wanted::Within(part) => values.any(|value| memchr::memmem::find(value, part.as_bytes()).is_some()),
        }
    }

    /// Whether no request fulfils both. Two exact values do exclude each other only where the header is sent once;
    /// sent twice with both, the request would be for both rules: such a header decides nothing, so that is no tie.
    fn excludes(&self, other: &Self) -> bool {
        self.name == other.name
            && match (&self.wanted, &other.wanted) {
                (Wanted::Exact(one), Wanted::Exact(two)) => one != two,
                (Wanted::Absent, Wanted::Absent) => false,
                (Wanted::Absent, _) | (_, Wanted::Absent) => true,
                _ => false,
            }
    }
}

impl fmt::Display for HeaderCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.wanted {
            Wanted::Present => write!(f, "header {name} is there"),
            Wanted::Absent => write!(f, "header {name} is not there"),
            Wanted::Exact(text) => write!(f, "header {name} = {text}"),
            Wanted::Around(start, end) => write!(f, "header {name} = {start}*{end}"),
            Wanted::Within(part) => write!(f, "header {name} = *{part}*"),
        }
    }
}
