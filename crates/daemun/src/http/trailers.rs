//! Fields behind a body (RFC 9110, section 6.5): kept apart from those of its head, and never read as if they stood there.

use ::http::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;

use super::Fields;

/// What no trailer may say, since it would come too late or change what was decided already: framing, routing, conditions
/// and other modifiers, authentication, cookies, control data of a response, and how content is to be read (RFC 9110,
/// section 6.5.1).
const NEVER: [&str; 38] = [
    "age",
    "alt-svc",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "location",
    "max-forwards",
    "pragma",
    "proxy",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "retry-after",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "www-authenticate",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

/// Whether a field of this name may stand behind a body. A name with an underscore would pass for its dashed twin where it
/// becomes a variable.
fn may_trail(name: &[u8]) -> bool {
    let is_condition = name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(b"if-"));
    !is_condition && !name.contains(&b'_') && !NEVER.iter().any(|never| name.eq_ignore_ascii_case(never.as_bytes()))
}

/// Those of `lines` that may be passed on, each of them `name: value` and its end; nothing where none is left.
pub(super) fn read(lines: &[u8]) -> Option<Fields> {
    let mut fields = Fields::new();
    for line in lines.split(|&byte| byte == b'\n') {
        let mut parts = line.splitn(2, |&byte| byte == b':');
        if let (Some(name), Some(value)) = (parts.next(), parts.next())
            && may_trail(name)
        {
            let _ = fields.try_push(Bytes::copy_from_slice(name), Bytes::copy_from_slice(value.trim_ascii()));
        }
    }
    (!fields.is_empty()).then_some(fields)
}

/// Those that may be passed on of what came over HTTP/2; nothing where none is left.
pub fn received(trailers: &HeaderMap) -> Option<Fields> {
    let mut fields = Fields::new();
    for (name, value) in trailers.iter().filter(|(name, _)| may_trail(name.as_str().as_bytes())) {
        let name = Bytes::copy_from_slice(name.as_str().as_bytes());
        let _ = fields.try_push(name, Bytes::copy_from_slice(value.as_bytes().trim_ascii()));
    }
    (!fields.is_empty()).then_some(fields)
}

/// The same for HTTP/2.
pub fn to_send(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::new();
    for field in fields.iter() {
        let value = HeaderValue::from_maybe_shared(field.shared_value().clone());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(field.name()), value) {
            map.append(name, value);
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(fields: Option<Fields>) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let pair = |field: &super::super::Field| (text(field.name()), text(field.value()));
        fields.map(|fields| fields.iter().map(pair).collect()).unwrap_or_default()
    }

    #[test]
    fn only_what_may_come_after_a_body_is_passed_on() {
        let lines =
            b"Grpc-Status: 0\r\nContent-Length: 5\r\nX_User: root\r\nIf-Match: *\r\nSET-COOKIE: a=b\r\nDigest:x:y\r\n";
        let want = [("Grpc-Status", "0"), ("Digest", "x:y")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(names(read(lines)), want);
        assert!(read(b"Host: a\r\n").is_none());
    }

    #[test]
    fn what_is_sent_over_http2_is_what_was_received() {
        let fields = Fields::new().with("grpc-status", "0").with("authorization", "x").with("grpc-message", "fine");
        let want = [("grpc-status", "0"), ("grpc-message", "fine")];
        assert_eq!(names(received(&to_send(&fields))), want.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
