//! Small answers that need no file and no application: redirects, fixed responses and our own pages.
//!
//! Knows templates and how to encode what a client sent before it goes into `Location`: no inserted byte can end the
//! field, and no inserted path can turn into a host (`//example.com`, `/\example.com`).

pub mod page;

use bytes::Bytes;

use crate::handler::{Answering, Fault, Handler, HandlerError, Outcome};
use crate::http::{CanonicalPath, Fields, Method, Request, Response, ResponseBody, Status, push_encoded};

/// `redirect = { to, status }`.
#[derive(Debug)]
pub struct Redirect {
    pieces: Vec<Piece>,
    fragment: String,
    /// Whether `{query}` stands in the template; otherwise the query is kept.
    places_query: bool,
    status: Status,
}

/// `respond = { status, body, content_type }`.
#[derive(Debug)]
pub struct Respond {
    status: Status,
    body: Bytes,
    content_type: Bytes,
}

/// Part of a template.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Piece {
    Text(String),
    Path,
    Rest,
    Query,
    Host,
    Scheme,
}

// === impl Redirect ===

impl Redirect {
    /// Reads the template. The error says what was expected.
    pub fn new(to: &str, status: u16) -> Result<Self, String> {
        let status = match status {
            301 | 302 | 303 | 307 | 308 => Status::from_code(status),
            _ => None,
        }
        .ok_or_else(|| format!("expected the status 301, 302, 303, 307 or 308, found {status}"))?;
        if let Some(bad) = to.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(format!("expected visible ASCII only, found {bad:?}; write it percent-encoded"));
        }
        let (template, fragment) = match to.find('#') {
            Some(hash) => to.split_at(hash),
            None => (to, ""),
        };
        if fragment.contains(['{', '}']) {
            return Err("nothing can be inserted after `#`".to_owned());
        }
        let pieces = pieces(template)?;
        is_safe(&pieces)?;
        let places_query = pieces.contains(&Piece::Query);
        Ok(Self { pieces, fragment: fragment.to_owned(), places_query, status })
    }

    fn location(&self, request: &Request) -> Result<Vec<u8>, HandlerError> {
        let mut location = Vec::with_capacity(64);
        let path = request.path.as_bytes();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => location.extend_from_slice(text.as_bytes()),
                Piece::Path => push_path(&mut location, &request.path, path),
                Piece::Rest => {
                    let rest = path.get(request.prefix_length..).unwrap_or_default();
                    // `/new{rest}` and `/new/{rest}` alike: a rest that brings a slash does not double it.
                    let rest = if location.ends_with(b"/") { trim_slashes(rest) } else { rest };
                    push_path(&mut location, &request.path, rest);
                }
                Piece::Query => push_query(&mut location, request.head.query().unwrap_or_default()),
                Piece::Host => {
                    let host = request.head.host();
                    if host.is_empty() {
                        let message = "the redirect needs the host, and the request names none";
                        return Err(HandlerError::new(Status::BAD_REQUEST, Fault::Client, message));
                    }
                    push_encoded(&mut location, host.as_bytes(), |byte| {
                        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'[' | b']' | b':')
                    });
                }
                Piece::Scheme => location.extend_from_slice(request.endpoint.scheme().as_str().as_bytes()),
            }
        }
        if !self.places_query
            && let Some(query) = request.head.query()
        {
            location.push(if location.contains(&b'?') { b'&' } else { b'?' });
            push_query(&mut location, query);
        }
        if location.starts_with(b"//") {
            let slashes = location.len() - trim_slashes(&location).len();
            location.drain(..slashes - 1);
        }
        location.extend_from_slice(self.fragment.as_bytes());
        Ok(location)
    }
}

impl Handler for Redirect {
    fn handle(&self, request: Request) -> Answering<'_> {
        let answer = self.location(&request).map(|location| Outcome::Response(redirection(self.status, location)));
        Box::pin(std::future::ready(answer))
    }

    fn may_decline(&self) -> bool {
        false
    }
}

// === impl Respond ===

impl Respond {
    /// A response that is always the same. The error says what was expected.
    pub fn new(status: u16, body: &str, content_type: &str) -> Result<Self, String> {
        let valid = Status::from_code(status).filter(|_| (200..=599).contains(&status));
        let status = valid.ok_or_else(|| format!("expected a status from 200 to 599, found {status}"))?;
        if status.is_bodiless() && !body.is_empty() {
            return Err(format!("a response with the status {} has no body", status.code()));
        }
        let content_type = Bytes::copy_from_slice(content_type.as_bytes());
        if !Fields::new().try_push(Bytes::from_static(b"Content-Type"), content_type.clone()) {
            return Err("expected a content type without control characters".to_owned());
        }
        Ok(Self { status, body: Bytes::copy_from_slice(body.as_bytes()), content_type })
    }
}

impl Handler for Respond {
    fn handle(&self, request: Request) -> Answering<'_> {
        let mut response = Response::new(self.status);
        if !self.status.is_bodiless() && !self.body.is_empty() {
            response.fields = Fields::new().with("Content-Type", self.content_type.clone());
            response.body = match request.head.method() {
                Method::Head => ResponseBody::LengthOnly(self.body.len() as u64),
                _ => ResponseBody::Full(self.body.clone()),
            };
        }
        Box::pin(std::future::ready(Ok(Outcome::Response(response))))
    }

    fn may_decline(&self) -> bool {
        false
    }
}

/// The answer to `/static` where `/static/*` is the rule: the same with a slash, query kept. 301 for GET and HEAD,
/// which every client and cache understands; 308 for the rest, which then keep method and body (RFC 9110,
/// section 15.4.9). A canonical path has no empty segment, so the location never starts with two slashes.
pub(crate) fn with_slash(request: &Request) -> Response {
    let mut location = Vec::with_capacity(64);
    push_path(&mut location, &request.path, request.path.as_bytes());
    location.push(b'/');
    if let Some(query) = request.head.query() {
        location.push(b'?');
        push_query(&mut location, query);
    }
    let status = match request.head.method() {
        Method::Get | Method::Head => Status::MOVED_PERMANENTLY,
        _ => Status::PERMANENT_REDIRECT,
    };
    redirection(status, location)
}

fn redirection(status: Status, location: Vec<u8>) -> Response {
    Response::new(status).with_fields(Fields::new().with("Location", location))
}

fn pieces(template: &str) -> Result<Vec<Piece>, String> {
    const NAMES: &str = "`{path}`, `{rest}`, `{query}`, `{host}` or `{scheme}`";
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some(brace) = rest.find(['{', '}']) {
        let (text, after) = rest.split_at(brace);
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
        let end = after.find('}').filter(|_| after.starts_with('{'));
        let end = end.ok_or_else(|| format!("a brace has no partner; expected {NAMES}"))?;
        pieces.push(match &after[..=end] {
            "{path}" => Piece::Path,
            "{rest}" => Piece::Rest,
            "{query}" => Piece::Query,
            "{host}" => Piece::Host,
            "{scheme}" => Piece::Scheme,
            other => return Err(format!("`{other}` cannot be inserted; expected {NAMES}")),
        });
        rest = &after[end + 1..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}

/// Whether nothing that a client sends can choose the host that it is sent to.
fn is_safe(pieces: &[Piece]) -> Result<(), String> {
    let mut shape = String::new();
    for piece in pieces {
        shape.push_str(match piece {
            Piece::Text(text) => text,
            Piece::Path => "/\u{1}",
            Piece::Rest => "\u{1}",
            Piece::Query => "\u{2}",
            Piece::Host => "host",
            Piece::Scheme => "scheme",
        });
    }
    let absolute = ["http://", "https://", "scheme://"].iter().find_map(|scheme| shape.strip_prefix(scheme));
    let scheme_placed = pieces.iter().skip(1).any(|piece| *piece == Piece::Scheme);
    match absolute {
        Some(_) if scheme_placed => Err("`{scheme}` can only stand at the beginning".to_owned()),
        Some(authority) => {
            let end = authority.find(['/', '?']).unwrap_or(authority.len());
            if authority[..end].contains(['\u{1}', '\u{2}']) {
                return Err("a `/` is missing between the host and what is inserted after it".to_owned());
            }
            if end == 0 { Err("the host is missing".to_owned()) } else { Ok(()) }
        }
        None if shape.starts_with('/') && !shape.starts_with("//") => Ok(()),
        None => {
            Err("expected a location that starts with `/`, `{path}`, `http://`, `https://` or `{scheme}://`".to_owned())
        }
    }
}

fn push_path(location: &mut Vec<u8>, path: &CanonicalPath, part: &[u8]) {
    location.extend_from_slice(&CanonicalPath::encode(part, path.has_encoded_slash()));
}

/// A query is already encoded: only what must not stand in a URL at all is.
fn push_query(location: &mut Vec<u8>, query: &[u8]) {
    push_encoded(location, query, |byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'#'));
}

fn trim_slashes(mut bytes: &[u8]) -> &[u8] {
    while let [b'/', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::http::{Endpoint, HeadBuilder, Interim, RequestBody, Scheme, Version};

    fn request(method: &'static str, target: &'static str, prefix_length: usize) -> Request {
        let text = Bytes::from(format!("{method} {target} HTTP/1.1\r\nHost: Example.com:8000\r\n\r\n"));
        let start = method.len() + 1;
        let whole = &text[start..start + target.len()];
        let (path, query) = match whole.iter().position(|&byte| byte == b'?') {
            Some(mark) => (&whole[..mark], Some(&whole[mark + 1..])),
            None => (whole, None),
        };
        let host = memchr::memmem::find(&text, b"Example.com:8000").unwrap();
        let mut builder = HeadBuilder::new(text.clone(), Version::Http11, &text[..method.len()], whole);
        builder.path(path, query);
        builder.authority(&text[host..host + 16]);
        let head = builder.finish();
        let path = CanonicalPath::parse(&head.raw_path_bytes()).unwrap();
        let endpoint = Arc::new(Endpoint::new(None, None, Scheme::Http));
        Request {
            head,
            path,
            prefix_length,
            body: RequestBody::Empty,
            endpoint,
            received: Instant::now(),
            timeout: None,
            interim: Interim::none(),
            notes: crate::http::Notes::default(),
        }
    }

    fn location(to: &str, target: &'static str, prefix_length: usize) -> String {
        let redirect = Redirect::new(to, 308).unwrap();
        String::from_utf8(redirect.location(&request("GET", target, prefix_length)).unwrap()).unwrap()
    }

    #[test]
    fn a_redirect_fills_its_template_and_keeps_the_query() {
        for (to, target, prefix, want) in [
            ("/new/{rest}", "/old/a/b", 5, "/new/a/b"),
            ("/new/{rest}", "/old/a?x=1&y=%20", 5, "/new/a?x=1&y=%20"),
            ("/new{path}", "/old", 1, "/new/old"),
            ("/search?q=a", "/old?x=1", 5, "/search?q=a&x=1"),
            ("/new?old={query}", "/old?x=1", 5, "/new?old=x=1"),
            ("https://{host}{path}", "/a%20b?q", 1, "https://Example.com/a%20b?q"),
            ("{scheme}://www.{host}/{rest}", "/a", 1, "http://www.Example.com/a"),
            ("https://example.org/", "/a?q", 1, "https://example.org/?q"),
            ("/page#part", "/a?q", 1, "/page?q#part"),
            ("/new{path}", "/caf%C3%A9/%252e/a%2Fb", 1, "/new/caf%C3%A9/%252e/a%2Fb"),
        ] {
            assert_eq!(location(to, target, prefix), want, "{to} {target}");
        }
    }

    #[test]
    fn no_path_turns_into_another_host_or_a_second_field() {
        for (to, target, prefix, want) in [
            ("/{rest}", "/old/evil.example", 4, "/evil.example"),
            ("/{rest}", "/old%2F%2Fevil.example", 4, "/%2F%2Fevil.example"),
            ("{path}", "//evil.example", 0, "/evil.example"),
            ("{path}", "/%5Cevil.example", 0, "/%5Cevil.example"),
            ("{path}", "/a%0d%0aSet-Cookie:x", 0, "/a%0D%0ASet-Cookie:x"),
            ("https://example.org/{rest}", "/old/@evil.example", 5, "https://example.org/@evil.example"),
        ] {
            assert_eq!(location(to, target, prefix), want, "{to} {target}");
        }
    }

    #[test]
    fn a_template_in_which_a_client_could_choose_the_host_is_refused() {
        for (to, want) in [
            ("https://example.org{rest}", "a `/` is missing between the host and what is inserted after it"),
            ("https://example.org{query}", "a `/` is missing between the host and what is inserted after it"),
            ("https:///{rest}", "the host is missing"),
            ("https://a/{scheme}", "`{scheme}` can only stand at the beginning"),
            ("/{user}", "`{user}` cannot be inserted; expected `{path}`, `{rest}`, `{query}`, `{host}` or `{scheme}`"),
            ("/{rest", "a brace has no partner; expected `{path}`, `{rest}`, `{query}`, `{host}` or `{scheme}`"),
            ("/a b", "expected visible ASCII only, found ' '; write it percent-encoded"),
            ("/a\r\nX: y", "expected visible ASCII only, found '\\r'; write it percent-encoded"),
            ("/a#{rest}", "nothing can be inserted after `#`"),
        ] {
            assert_eq!(Redirect::new(to, 302).unwrap_err(), want, "{to}");
        }
        let start = "expected a location that starts with `/`, `{path}`, `http://`, `https://` or `{scheme}://`";
        for to in [
            "//evil.example/",
            "new",
            "{rest}",
            "javascript:alert(1)",
            "{host}/x",
            "",
            "/{scheme}x:".trim_start_matches('/'),
        ] {
            assert_eq!(Redirect::new(to, 302).unwrap_err(), start, "{to}");
        }
        assert!(Redirect::new("/", 300).is_err());
    }

    #[test]
    fn a_missing_slash_is_added_and_a_post_keeps_its_method() {
        for (method, target, status, want) in [
            ("GET", "/static?v=1", 301, "/static/?v=1"),
            ("HEAD", "/static", 301, "/static/"),
            ("POST", "//static", 308, "/static/"),
        ] {
            let response = with_slash(&request(method, target, 0));
            assert_eq!(response.status.code(), status);
            assert_eq!(response.fields.get("location"), Some(want.as_bytes()));
        }
    }

    #[test]
    fn a_fixed_response_is_found_valid_when_it_is_made() {
        assert!(Respond::new(404, "gone", "text/plain").is_ok());
        assert_eq!(Respond::new(204, "x", "text/plain").unwrap_err(), "a response with the status 204 has no body");
        assert_eq!(Respond::new(100, "", "a/b").unwrap_err(), "expected a status from 200 to 599, found 100");
        assert!(Respond::new(200, "x", "a/b\r\nX: y").is_err());
    }
}
