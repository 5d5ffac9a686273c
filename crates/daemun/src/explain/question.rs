//! From words to the request that a client would send.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde::Deserialize;

use crate::config::Configuration;
use crate::http::h1::{Framing, HeadLimits, parse_head};
use crate::http::{
    BodyFeed, CanonicalPath, Endpoint, Interim, Notes, Request, RequestBody, Scheme, Status, TrustedProxies,
    push_encoded,
};
use crate::listener::{Address, ListenerSettings, Role};
use crate::router::HostPattern;
use crate::server::front;

/// What is asked.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Question {
    /// A whole URL, `HOST/PATH` or `/PATH`.
    pub url: String,
    /// The method; empty for GET.
    pub method: String,
    /// Fields, each as `Name: value`.
    pub headers: Vec<String>,
    /// The client's address; this machine's own if none is given.
    pub client: Option<IpAddr>,
}

/// A question, understood.
pub(super) struct Prepared {
    pub(super) method: String,
    pub(super) scheme: Scheme,
    pub(super) host: String,
    pub(super) target: String,
    pub(super) client: IpAddr,
    /// The listener that it comes in by, as a place in the settings' list of all.
    pub(super) listener: Option<ListenerSettings>,
    /// The request, or what it is refused with before it is one.
    pub(super) request: Result<Box<Request>, (Status, String)>,
    /// What was taken for granted.
    pub(super) notes: Vec<String>,
    /// While this is here the body is still coming.
    pub(super) _feed: Option<BodyFeed>,
}

/// The parts of a URL.
struct Url {
    scheme: Option<Scheme>,
    authority: Option<String>,
    target: String,
}

/// Makes the request. The error says what is wrong with the question itself.
pub(super) fn prepare(question: &Question, configuration: &Configuration) -> Result<Prepared, String> {
    let url = parse(&question.url)?;
    let method = if question.method.is_empty() { "GET" } else { &question.method };
    let mut notes = Vec::new();
    let given = question.headers.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("host").then(|| value.trim().to_owned())
    });
    let host = given.or(url.authority).unwrap_or_else(|| usual_host(configuration, &mut notes));
    let listener = listener(configuration, url.scheme, &host, &mut notes);
    let speaks_tls = listener.as_ref().is_some_and(|listener| listener.tls);
    let scheme = url.scheme.unwrap_or(if speaks_tls { Scheme::Https } else { Scheme::Http });
    let client = question.client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let (request, feed) = if listener.as_ref().is_some_and(|listener| listener.role != Role::Clients) {
        (Err((Status::OK, "this listener is for health and metrics; no route is asked".to_owned())), None)
    } else {
        let head = head(method, &url.target, &host, &question.headers)?;
        request(&head, configuration, endpoint(listener.as_ref(), client, scheme))
    };
    let (method, target) = (method.to_owned(), url.target);
    Ok(Prepared { method, scheme, host, target, client, listener, request, notes, _feed: feed })
}

fn parse(text: &str) -> Result<Url, String> {
    let text = text.split('#').next().unwrap_or_default();
    if text.is_empty() {
        return Err("expected a URL such as https://example.com/a or a path such as /a".to_owned());
    }
    if text == "*" || text.starts_with('/') {
        return Ok(Url { scheme: None, authority: None, target: encoded(text) });
    }
    let (scheme, rest) = match text.split_once("://") {
        Some(("http", rest)) => (Some(Scheme::Http), rest),
        Some(("https", rest)) => (Some(Scheme::Https), rest),
        Some((other, _)) => return Err(format!("`{other}://` is no scheme of ours: http or https")),
        None => (None, text),
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    if authority.is_empty() {
        return Err(format!("`{text}` names no host"));
    }
    let slash = if target.starts_with('/') { "" } else { "/" };
    Ok(Url { scheme, authority: Some(authority.to_owned()), target: encoded(&format!("{slash}{target}")) })
}

/// As a browser would send it: what is no ASCII, and spaces, percent-encoded.
fn encoded(target: &str) -> String {
    let mut out = Vec::with_capacity(target.len());
    push_encoded(&mut out, target.as_bytes(), |byte| byte.is_ascii_graphic());
    String::from_utf8(out).unwrap_or_default()
}

/// The host of a path without one: the first that the routes name.
fn usual_host(configuration: &Configuration, notes: &mut Vec<String>) -> String {
    let named = configuration.routes.iter().find_map(|route| match &route.rule.host {
        HostPattern::Exact(name) => Some(name.clone()),
        HostPattern::Any | HostPattern::Below(_) => None,
    });
    let any = configuration.routes.iter().any(|route| route.rule.host == HostPattern::Any);
    match named {
        Some(name) if !any => {
            notes.push(format!("for which host you ask: taken was {name}; write the whole URL for another"));
            name
        }
        _ => "localhost".to_owned(),
    }
}

/// The listener that a client would come to.
fn listener(
    configuration: &Configuration,
    scheme: Option<Scheme>,
    host: &str,
    notes: &mut Vec<String>,
) -> Option<ListenerSettings> {
    let server = &configuration.server;
    let port = host.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let port_of = |listener: &ListenerSettings| match &listener.address {
        Address::Tcp(address) => Some(address.port()),
        Address::Unix(_) | Address::Inherited(_) => None,
    };
    let speaks = |listener: &&ListenerSettings| scheme.is_none_or(|scheme| listener.tls == (scheme == Scheme::Https));
    let exact = server.all_listeners().filter(speaks).find(|one| port.is_some() && port_of(one) == port);
    if exact.is_some() {
        return exact.cloned();
    }
    if let Some(port) = port.filter(|_| !server.listeners.is_empty()) {
        notes.push(format!("who listens on port {port}: no listener of this configuration does"));
    }
    let fitting = server.listeners.iter().find(speaks);
    if fitting.is_none() && scheme == Some(Scheme::Https) {
        notes.push("who speaks https: no listener of this configuration does; taken as if one did".to_owned());
    }
    fitting.or(server.listeners.first()).cloned()
}

fn endpoint(listener: Option<&ListenerSettings>, client: IpAddr, scheme: Scheme) -> Endpoint {
    match listener.map(|listener| &listener.address) {
        Some(Address::Unix(_)) => Endpoint::new(None, None, scheme),
        Some(Address::Tcp(address)) => Endpoint::new(Some(SocketAddr::new(client, 0)), Some(*address), scheme),
        Some(Address::Inherited(_)) | None => Endpoint::new(Some(SocketAddr::new(client, 0)), None, scheme),
    }
}

/// The bytes of the head.
fn head(method: &str, target: &str, host: &str, headers: &[String]) -> Result<Bytes, String> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
    for line in headers {
        let (name, value) = line.split_once(':').ok_or_else(|| format!("expected -H 'Name: value', found {line:?}"))?;
        if !name.trim().eq_ignore_ascii_case("host") {
            text.extend([name.trim(), ": ", value.trim(), "\r\n"]);
        }
    }
    let lines = headers.iter().map(String::as_str);
    if lines.chain([method, host]).any(|part| part.contains(['\r', '\n'])) {
        return Err("a line break cannot stand in a method, host or header".to_owned());
    }
    Ok(Bytes::from(text + "\r\n"))
}

type Made = (Result<Box<Request>, (Status, String)>, Option<BodyFeed>);

/// What the connection makes of these bytes.
fn request(head: &Bytes, configuration: &Configuration, endpoint: Endpoint) -> Made {
    let limits = front::limits(configuration);
    let caps = HeadLimits {
        max_head: limits.max_head,
        max_request_line: limits.max_request_line,
        max_fields: limits.max_fields,
    };
    let refused = |status, message: &str| (Err((status, message.to_owned())), None);
    let parsed = match parse_head(head, &caps) {
        Ok(parsed) => parsed,
        Err(refusal) => return refused(refusal.status, refusal.reason),
    };
    if parsed.head.raw_path() == b"*" {
        return refused(Status::OK, "a ping of the server itself; no route is asked");
    }
    let path = match CanonicalPath::parse(&parsed.head.raw_path_bytes()) {
        Ok(path) => path,
        Err(error) => return refused(Status::BAD_REQUEST, &error.to_string()),
    };
    let (feed, body) = match parsed.framing {
        Framing::None => (None, RequestBody::Empty),
        Framing::Length(length) if length > limits.max_body => {
            return refused(Status::CONTENT_TOO_LARGE, "the body is longer than `max_body` of [server] allows");
        }
        Framing::Length(length) => coming(Some(length)),
        Framing::Chunked => coming(None),
    };
    let trusted = TrustedProxies::new(configuration.server.trusted_proxies.clone());
    let scheme = trusted.scheme(&parsed.head).filter(|_| trusted.trusts(&endpoint));
    let request = Request {
        head: parsed.head,
        path,
        prefix_length: 0,
        body,
        endpoint: Arc::new(endpoint),
        received: Instant::now(),
        timeout: None,
        interim: Interim::none(),
        notes: Notes { scheme, ..Notes::default() },
    };
    (Ok(Box::new(request)), feed)
}

fn coming(length: Option<u64>) -> (Option<BodyFeed>, RequestBody) {
    let (feed, body) = RequestBody::coming(length);
    (Some(feed), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_as_people_write_it() {
        let read = |text: &str| parse(text).map(|url| (url.scheme, url.authority, url.target));
        let host = |name: &str| Some(name.to_owned());
        assert_eq!(read("/a b/é?q#f"), Ok((None, None, "/a%20b/%C3%A9?q".to_owned())));
        assert_eq!(read("https://a.example"), Ok((Some(Scheme::Https), host("a.example"), "/".to_owned())));
        assert_eq!(read("http://[::1]:80?x"), Ok((Some(Scheme::Http), host("[::1]:80"), "/?x".to_owned())));
        assert_eq!(read("a.example/b"), Ok((None, host("a.example"), "/b".to_owned())));
        assert_eq!(read("*"), Ok((None, None, "*".to_owned())));
        for wrong in ["", "#f", "ftp://a/b", "http:///b"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_line_break_cannot_be_smuggled_in() {
        assert!(head("GET", "/", "a", &["X: y\r\nHost: b".to_owned()]).is_err());
        assert!(head("GET /x", "/", "a\n", &[]).is_err());
        assert!(head("GET", "/", "a", &["no colon".to_owned()]).is_err());
        let good = head("GET", "/x", "a", &["Host: b".to_owned(), "X:  y ".to_owned()]);
        assert_eq!(good, Ok(Bytes::from_static(b"GET /x HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n")));
    }
}
