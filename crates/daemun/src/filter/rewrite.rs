//! `rewrite`: another path and query for the handler.

use bytes::Bytes;
use regex::bytes::{Captures, Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::handler::{Fault, HandlerError};
use crate::http::{CanonicalPath, HeadEdit, Request, Status, push_encoded};

/// A pattern and what is made of it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RewriteSettings {
    /// A regular expression over the canonical path; all paths without one.
    pub pattern: Option<String>,
    /// The new path and query, with `{path}`, `{rest}`, `{query}`, `{1}` and `{name}`.
    pub to: String,
}

/// Rewrites paths, in time that grows with the path alone.
#[derive(Debug)]
pub struct Rewrite {
    pattern: Option<Regex>,
    path: Vec<Piece>,
    query: Option<Vec<Piece>>,
}

#[derive(Debug, Eq, PartialEq)]
enum Piece {
    Text(String),
    Path,
    Rest,
    Query,
    Capture(usize),
}

/// Memory of a compiled pattern.
const MOST_PATTERN: usize = 1 << 20;

impl Rewrite {
    /// Compiles pattern and template. The error says what was expected.
    pub fn new(settings: &RewriteSettings) -> Result<Self, String> {
        let compile = |text: &String| {
            RegexBuilder::new(text).size_limit(MOST_PATTERN).build().map_err(|error| {
                let text = error.to_string();
                format!(
                    "not a regular expression: {}",
                    text.lines().last().unwrap_or_default().trim_start_matches("error: ")
                )
            })
        };
        let pattern = settings.pattern.as_ref().map(compile).transpose()?;
        if !settings.to.starts_with('/') && !settings.to.starts_with("{path}") {
            return Err("expected a path that starts with `/` or `{path}`".to_owned());
        }
        if let Some(bad) = settings.to.chars().find(|c| !c.is_ascii_graphic() || *c == '#') {
            return Err(format!("expected visible ASCII only, found {bad:?}; write it percent-encoded"));
        }
        let (path, query) = match settings.to.split_once('?') {
            Some((path, query)) => (path, Some(pieces(query, pattern.as_ref())?)),
            None => (settings.to.as_str(), None),
        };
        let path = pieces(path, pattern.as_ref())?;
        if path.contains(&Piece::Query) {
            return Err("`{query}` can only stand behind the `?`".to_owned());
        }
        Ok(Self { pattern, path, query })
    }

    /// Changes path and query of `request` where the pattern matches. `prefix` is how much of the path the route's
    /// prefix covers: where the new path begins with it too, a handler goes on stripping it.
    pub(super) fn apply(&self, request: &mut Request) -> Result<(), HandlerError> {
        let old = request.path.clone();
        let captures = match &self.pattern {
            None => None,
            Some(pattern) => match pattern.captures(old.as_bytes()) {
                None => return Ok(()),
                found => found,
            },
        };
        let rest = old.as_bytes().get(request.prefix_length..).unwrap_or_default();
        let sources = Sources { path: &old, rest, query: request.head.query(), captures: captures.as_ref() };
        let mut raw = Vec::with_capacity(64);
        sources.fill(&mut raw, &self.path, false);
        let mut query = self.query.as_ref().map(|pieces| {
            let mut query = Vec::new();
            sources.fill(&mut query, pieces, true);
            query
        });
        // As with a redirect: a query that the template does not place is kept.
        if let Some(sent) = request.head.query()
            && !self.query.as_ref().is_some_and(|pieces| pieces.contains(&Piece::Query))
        {
            let query = query.get_or_insert_default();
            if !query.is_empty() && !sent.is_empty() {
                query.push(b'&');
            }
            query.extend_from_slice(sent);
        }
        let path = CanonicalPath::parse(&Bytes::copy_from_slice(&raw)).map_err(|error| {
            HandlerError::new(Status::BAD_REQUEST, Fault::Client, format!("the path cannot be rewritten: {error}"))
        })?;
        let prefix = old.as_bytes().get(..request.prefix_length).unwrap_or_default();
        if !path.as_bytes().starts_with(prefix) {
            request.prefix_length = 1;
        }
        request.head = request.head.edited(&HeadEdit { path: Some((&raw, query.as_deref())), ..HeadEdit::default() });
        request.path = path;
        Ok(())
    }
}

impl RewriteSettings {
    pub(super) fn describe(&self) -> String {
        match &self.pattern {
            Some(pattern) => format!("{pattern} becomes {}", self.to),
            None => format!("becomes {}", self.to),
        }
    }
}

/// What can be inserted.
struct Sources<'a> {
    path: &'a CanonicalPath,
    rest: &'a [u8],
    query: Option<&'a [u8]>,
    captures: Option<&'a Captures<'a>>,
}

impl Sources<'_> {
    fn fill(&self, out: &mut Vec<u8>, pieces: &[Piece], in_query: bool) {
        for piece in pieces {
            let bytes = match piece {
                Piece::Text(text) => {
                    out.extend_from_slice(text.as_bytes());
                    continue;
                }
                Piece::Query => {
                    out.extend_from_slice(self.query.unwrap_or_default());
                    continue;
                }
                Piece::Path => self.path.as_bytes(),
                Piece::Rest => self.rest,
                Piece::Capture(number) => {
                    let capture = self.captures.and_then(|captures| captures.get(*number));
                    capture.map_or(&b""[..], |capture| capture.as_bytes())
                }
            };
            if in_query {
                // What a client wrote into the path must not end a value or begin another.
                push_encoded(out, bytes, |byte| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte));
            } else {
                out.extend_from_slice(&CanonicalPath::encode(bytes, self.path.has_encoded_slash()));
            }
        }
    }
}

fn pieces(template: &str, pattern: Option<&Regex>) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some(brace) = rest.find(['{', '}']) {
        let (text, after) = rest.split_at(brace);
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
        let end = after.find('}').filter(|_| after.starts_with('{')).ok_or("a brace has no partner")?;
        let name = &after[1..end];
        let named = || pattern?.capture_names().position(|known| known == Some(name));
        let numbered = || {
            let number: usize = name.parse().ok()?;
            (number < pattern?.captures_len()).then_some(number)
        };
        pieces.push(match name {
            "path" => Piece::Path,
            "rest" => Piece::Rest,
            "query" => Piece::Query,
            _ => Piece::Capture(named().or_else(numbered).ok_or_else(|| {
                format!("`{{{name}}}` cannot be inserted; expected `{{path}}`, `{{rest}}`, `{{query}}` or a group of the pattern")
            })?),
        });
        rest = &after[end + 1..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}
