//! The responses of a static route, once it is known what the name leads to.

use std::time::SystemTime;

use bytes::Bytes;

use super::conditional::{Conditions, Decision};
use super::entry::{Entry, Keeping};
use super::multipart;
use super::range::{self, Part, Selected};
use crate::http::{Fields, Method, RequestHead, Response, ResponseBody, Status};
use crate::respond::page;

/// The methods of a file (RFC 9110, section 9.3); the value of `Allow`.
const ALLOW: &str = "GET, HEAD, OPTIONS";

/// The file, a part of it, or that the client has it: the answer to a GET or HEAD.
pub(super) fn file(head: &RequestHead, entry: &Entry) -> Response {
    let is_head = head.method() == Method::Head;
    let conditions = Conditions::of(head);
    let chosen = if entry.varies() { entry.choose(conditions.accepted()) } else { entry.plain() };
    match conditions.decide(chosen.validators()) {
        Decision::Proceed => {}
        Decision::NotModified => return Response::new(Status::NOT_MODIFIED).with_fields(chosen.unchanged()),
        Decision::Failed => return plain(Status::PRECONDITION_FAILED, head),
    }
    let length = chosen.length();
    if is_head {
        // Ranges are only defined for GET (RFC 9110, section 14.2).
        return Response::new(Status::OK).with_fields(chosen.whole()).with_body(ResponseBody::LengthOnly(length));
    }
    let selected = match conditions.range(chosen.validators(), SystemTime::now) {
        Some(value) => range::select(value, length),
        None => Selected::Whole,
    };
    match selected {
        Selected::Part(part) => {
            let (first, last) = (part.first, part.first + part.length - 1);
            Response::new(Status::PARTIAL_CONTENT)
                .with_fields(chosen.whole().with("Content-Range", format!("bytes {first}-{last}/{length}")))
                .with_body(chosen.part(part))
        }
        // Parts of something compressed, framed by something that is not, have no coding that could be told.
        Selected::Parts(parts) if !chosen.is_coded() => {
            let mut fields = chosen.whole();
            let content_type = fields.get("Content-Type").unwrap_or_default();
            let (content_type, body) = multipart::body(&parts, length, content_type, |part| chosen.part(part));
            fields.remove("Content-Type");
            Response::new(Status::PARTIAL_CONTENT)
                .with_fields(fields.with("Content-Type", content_type))
                .with_body(body)
        }
        Selected::Unsatisfiable => {
            let mut response = plain(Status::RANGE_NOT_SATISFIABLE, head);
            response.fields.push(Bytes::from_static(b"Content-Range"), format!("bytes */{length}"));
            response
        }
        Selected::Whole | Selected::Parts(_) => {
            Response::new(Status::OK).with_fields(chosen.whole()).with_body(chosen.part(Part { first: 0, length }))
        }
    }
}

/// To the same path with a slash at its end, so that relative references in the folder's page work.
pub(super) fn to_folder(path: &[u8], query: Option<&[u8]>, keeping: Keeping) -> Response {
    let mut location = Vec::with_capacity(path.len() + 2);
    // Exactly one slash in front: two would name another host (RFC 3986, section 4.2; CVE-2021-28861).
    location.push(b'/');
    let start = path.iter().position(|&byte| byte != b'/').unwrap_or(path.len());
    encode(&path[start..], b"/:@", &mut location);
    if location.last() != Some(&b'/') {
        location.push(b'/');
    }
    if let Some(query) = query {
        location.push(b'?');
        encode(query, b"/:@?%", &mut location);
    }
    let mut fields = Fields::new().with("Location", location);
    if let Some(value) = keeping.value() {
        fields.push(Bytes::from_static(b"Cache-Control"), value);
    }
    Response::new(Status::MOVED_PERMANENTLY).with_fields(fields)
}

/// The answer to a method other than GET and HEAD.
pub(super) fn other_method(head: &RequestHead) -> Response {
    match head.method() {
        Method::Options => Response::new(Status::NO_CONTENT).with_fields(Fields::new().with("Allow", ALLOW)),
        _ => method_not_allowed(head),
    }
}

/// A method that files do not have.
fn method_not_allowed(head: &RequestHead) -> Response {
    let mut response = plain(Status::METHOD_NOT_ALLOWED, head);
    response.fields.push(Bytes::from_static(b"Allow"), Bytes::from_static(ALLOW.as_bytes()));
    response
}

/// An answer that is its status.
pub(super) fn plain(status: Status, head: &RequestHead) -> Response {
    page::of_status(&page::Facts::of(status), Some(head))
}

/// Percent-encodes what may not stand in a path or query as it is (RFC 3986, section 3.3). The backslash, which
/// browsers take for a slash, is among it.
pub(super) fn encode(bytes: &[u8], also: &[u8], encoded: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte) || also.contains(&byte) {
            encoded.push(byte);
        } else {
            encoded.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(path: &str, query: Option<&str>) -> String {
        let response = to_folder(path.as_bytes(), query.map(str::as_bytes), Keeping::Unsaid);
        String::from_utf8(response.fields.get("Location").unwrap().to_vec()).unwrap()
    }

    #[test]
    fn a_redirect_never_leaves_the_host_and_keeps_the_query() {
        for (path, query, want) in [
            ("/css", None, "/css/"),
            ("/css", Some("a=1&b=%20"), "/css/?a=1&b=%20"),
            ("/css", Some(""), "/css/?"),
            ("//evil.example", None, "/evil.example/"),
            ("/\\evil.example", None, "/%5Cevil.example/"),
            ("/a b/\u{e9}", None, "/a%20b/%C3%A9/"),
            ("/a\r\nX: y", None, "/a%0D%0AX:%20y/"),
            ("/100%", None, "/100%25/"),
            ("/a?b#c", None, "/a%3Fb%23c/"),
            ("/a", Some("<\u{e9}>"), "/a/?%3C%C3%A9%3E"),
        ] {
            assert_eq!(location(path, query), want, "{path} {query:?}");
        }
    }
}
