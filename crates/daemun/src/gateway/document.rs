//! What the head of a CGI answer means (RFC 3875, section 6.2), whoever wrote it: a program of ours, or an application
//! behind a gateway protocol. A document, a redirect of the client, or a local one.

use bytes::Bytes;
use daemun_protocol::cgi::OutputHead;

use crate::http::{Fields, Status};

/// What a `Location` without a status means (section 6.2.3).
const FOUND: u16 = 302;

/// What the head of the output asks for.
#[derive(Debug)]
pub enum Head {
    /// A document or a redirect of the client.
    Document(Document),
    /// This path and query are to be answered instead (section 6.2.2).
    Local {
        /// As it stands in a URL.
        path: Bytes,
        /// What stands after the `?`.
        query: Option<Bytes>,
    },
}

/// A response as the program wrote it.
#[derive(Debug)]
pub struct Document {
    /// The status.
    pub status: Status,
    /// The reason phrase where it is not the registered one.
    pub reason: Option<Bytes>,
    /// Everything else.
    pub fields: Fields,
    /// The length of the body, where it is said.
    pub content_length: Option<u64>,
    /// Whether its body is in chunks; only a program that writes its whole response can mean that.
    pub is_chunked: bool,
}

impl Head {
    /// What `head`, which was read at the beginning of `bytes`, means; `is_nph`, from somebody who writes whole
    /// responses.
    pub fn of(bytes: &Bytes, head: &OutputHead, is_nph: bool) -> Self {
        understand(bytes, head, is_nph)
    }
}

fn understand(bytes: &Bytes, head: &OutputHead, is_nph: bool) -> Head {
    let location = head.location.clone().map(|range| bytes.slice(range));
    if let Some(location) = &location
        && !is_nph
        && is_local(bytes, head, location)
    {
        let fragment = memchr::memchr(b'#', location).unwrap_or(location.len());
        let location = location.slice(..fragment);
        let mark = memchr::memchr(b'?', &location);
        let path = location.slice(..mark.unwrap_or(location.len()));
        return Head::Local { path, query: mark.map(|mark| location.slice(mark + 1..)) };
    }
    let mut fields = fields(bytes, head);
    let is_chunked = is_nph
        && fields.get("Transfer-Encoding").is_some_and(|value| value.trim_ascii().eq_ignore_ascii_case(b"chunked"));
    let redirect = location.as_ref().and_then(|_| Status::from_code(FOUND));
    let default = redirect.unwrap_or(Status::OK);
    if let Some(location) = location {
        // Read as a value already, so that it can be sent as one.
        let _ = fields.try_push(Bytes::from_static(b"Location"), location);
    }
    let (status, reason) = match &head.status {
        Some((code, reason)) => {
            let status = Status::from_code(*code).unwrap_or(default);
            let reason = bytes.slice(reason.clone());
            (status, Some(reason).filter(|reason| !reason.is_empty() && reason != status.reason()))
        }
        None => (default, None),
    };
    let content_length = head.content_length.filter(|_| !is_chunked);
    Head::Document(Document { status, reason, fields, content_length, is_chunked })
}

/// A path and nothing else: with a status, a cookie or anything more the client is to see it, and many programs mean
/// just that by a path (section 6.2.2 allows no other field in a local redirect).
fn is_local(bytes: &Bytes, head: &OutputHead, location: &Bytes) -> bool {
    let alone = head.status.is_none()
        && head.fields.iter().all(|(name, _)| bytes[name.clone()].eq_ignore_ascii_case(b"Content-Type"));
    alone && location.starts_with(b"/") && !location.starts_with(b"//")
}

/// The fields of a head but `Status`, `Location` and `Content-Length`.
pub fn fields(bytes: &Bytes, head: &OutputHead) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in &head.fields {
        // The parser has held names and values to the same grammar.
        let _ = fields.try_push(bytes.slice(name.clone()), bytes.slice(value.clone()));
    }
    fields
}

#[cfg(test)]
mod tests {
    use daemun_protocol::cgi::parse_head;

    use super::*;

    fn head(text: &'static str, is_nph: bool) -> Head {
        let bytes = Bytes::from_static(text.as_bytes());
        let head = parse_head(&bytes).unwrap().unwrap();
        understand(&bytes, &head, is_nph)
    }

    #[test]
    fn only_a_path_alone_is_a_local_redirect() {
        for (text, want) in [
            ("Location: /a/b?x=1\n\n", Some(("/a/b", Some("x=1")))),
            ("Location: /a#part\n\n", Some(("/a", None))),
            ("Content-Type: text/html\nLocation: /a\n\n", Some(("/a", None))),
            ("Location: /a\nStatus: 302\n\n", None),
            ("Location: /a\nSet-Cookie: a=b\n\n", None),
            ("Location: //other.example/a\n\n", None),
            ("Location: http://other.example/a\n\n", None),
            ("Location: a.html\n\n", None),
        ] {
            let text_of = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
            match (head(text, false), want) {
                (Head::Local { path, query }, Some((want_path, want_query))) => {
                    assert_eq!(
                        (text_of(&path).as_str(), query.as_ref().map(text_of).as_deref()),
                        (want_path, want_query)
                    );
                }
                (Head::Document(document), None) => {
                    assert_eq!(document.status.code(), FOUND, "{text}");
                    assert!(document.fields.get("Location").is_some());
                }
                (other, _) => unreachable!("{text}: {other:?}"),
            }
        }
        assert!(matches!(head("HTTP/1.1 302 Found\nLocation: /a\n\n", true), Head::Document(_)));
    }

    #[test]
    fn a_document_has_the_status_that_it_says() {
        let status = |text| match head(text, false) {
            Head::Document(document) => (document.status.code(), document.reason, document.content_length),
            Head::Local { .. } => unreachable!("a document"),
        };
        assert_eq!(status("Content-Type: text/plain\n\n"), (200, None, None));
        assert_eq!(status("Status: 404 Nope\n\n"), (404, Some(Bytes::from_static(b"Nope")), None));
        assert_eq!(status("Status: 404 Not Found\nContent-Length: 3\n\n"), (404, None, Some(3)));
        assert_eq!(status("Status: 301\nLocation: http://a.example/\n\n").0, 301);
        assert_eq!(status("Status: 200\nLocation: http://a.example/\n\n").0, 200);
    }
}
