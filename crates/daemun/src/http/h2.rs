//! HTTP/2's way of saying a request and an answer (RFC 9113, section 8): pseudo-fields and fields in, the same
//! [`RequestHead`] out that HTTP/1.1 makes, found valid by the same rules; and a [`Response`](super::Response)'s head back.
//!
//! The `h2` crate reads frames and HPACK and refuses what is malformed on that level: upper case in names, pseudo-fields
//! that are missing, doubled, unknown or late, fields of the connection, a body that is not as long as it said. What
//! two servers could read differently is decided here. No socket and no clock.

use ::http::header::{HeaderMap, HeaderName, HeaderValue};
use ::http::request::Parts;
use ::http::{Response as WireResponse, StatusCode};
use bytes::{Bytes, BytesMut};

use super::h1::{HeadLimits, Kind, Length, MAX_METHOD, Refusal, is_authority, kind};
use super::{Fields, HeadBuilder, RequestHead, Status, Version, date};

/// What a client sends first (RFC 9113, section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A head and what it says about the body.
#[derive(Debug)]
pub struct ReadHead {
    /// Method, target and fields.
    pub head: RequestHead,
    /// The length of the body, where the client said one.
    pub length: Option<u64>,
    /// Whether the client waits for a 100 before it sends the body (RFC 9110, section 10.1.1).
    pub expect_continue: bool,
}

/// Reads the head of a request.
pub fn read_head(request: &Parts, limits: &HeadLimits) -> Result<ReadHead, Refusal> {
    let method = request.method.as_str();
    if method == "CONNECT" {
        return Err(Refusal::new(Status::NOT_IMPLEMENTED, "CONNECT is not implemented"));
    }
    if method.len() > MAX_METHOD {
        return Err(Refusal::new(Status::NOT_IMPLEMENTED, "the method is too long"));
    }
    let target = request.uri.path_and_query().map_or("", |target| target.as_str());
    check_target(method, target.as_bytes(), limits)?;
    let facts = Facts::gather(&request.headers)?;
    let authority = facts.authority(request.uri.authority().map(|authority| authority.as_str().as_bytes()))?;
    let head = build(request, [method.as_bytes(), target.as_bytes(), authority], limits)?;
    Ok(ReadHead { head, length: facts.length, expect_continue: facts.expect_continue })
}

/// The first line as HTTP/1.1 would have it, for the log of what is refused.
pub fn request_line(request: &Parts) -> Vec<u8> {
    let target = request.uri.path_and_query().map_or("", |target| target.as_str());
    [request.method.as_str(), target, "HTTP/2.0"].join(" ").into_bytes()
}

/// Section 8.3.1: a path, or `*` with OPTIONS alone.
fn check_target(method: &str, target: &[u8], limits: &HeadLimits) -> Result<(), Refusal> {
    if target.len() > limits.max_request_line {
        return Err(Refusal::over(Status::URI_TOO_LONG, "the path is too long", "max_request_line"));
    }
    let is_path = target.first() == Some(&b'/') || (target == b"*" && method == "OPTIONS");
    if !is_path {
        return Err(Refusal::bad("the :path is not a path"));
    }
    if target.iter().any(|&byte| byte <= b' ' || byte == 0x7f || byte == b'#') {
        return Err(Refusal::bad("the :path holds a character that cannot stand there"));
    }
    Ok(())
}

/// What the fields say beside their text.
#[derive(Default)]
struct Facts<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    expect_continue: bool,
}

impl<'a> Facts<'a> {
    fn gather(fields: &'a HeaderMap) -> Result<Self, Refusal> {
        let mut facts = Self::default();
        for (name, value) in fields {
            let (name, value) = (name.as_str(), value.as_bytes());
            // Section 8.2.1; the h2 crate takes them.
            if let ([b' ' | b'\t', ..], _) | (_, [.., b' ' | b'\t']) = (value, value) {
                return Err(Refusal::bad("a field value begins or ends with white space"));
            }
            match name {
                "host" if facts.host.replace(value).is_some() => {
                    return Err(Refusal::bad("there is more than one Host field"));
                }
                "content-length" => facts.take_length(value)?,
                "expect" if !value.eq_ignore_ascii_case(b"100-continue") => {
                    return Err(Refusal::new(Status::EXPECTATION_FAILED, "the expectation is not known"));
                }
                "expect" => facts.expect_continue = true,
                // Section 8.2.2.
                "connection" | "proxy-connection" | "keep-alive" | "transfer-encoding" | "upgrade" => {
                    return Err(Refusal::bad("a field of the connection stands in an HTTP/2 request"));
                }
                "te" if !value.eq_ignore_ascii_case(b"trailers") => {
                    return Err(Refusal::bad("TE says something else than `trailers`"));
                }
                _ => {}
            }
        }
        Ok(facts)
    }

    /// `1*DIGIT`, once.
    fn take_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let digits = value.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(value).ok()).flatten();
        let length = digits.and_then(|digits| digits.parse().ok());
        let length = length.ok_or(Refusal::bad("the Content-Length is not a number"))?;
        match self.length.replace(length) {
            Some(_) => Err(Refusal::bad("there is more than one Content-Length")),
            None => Ok(()),
        }
    }

    /// Section 8.3.1: `:authority`, else Host; never two that differ.
    fn authority(&self, pseudo: Option<&'a [u8]>) -> Result<&'a [u8], Refusal> {
        let authority = match (pseudo, self.host) {
            (Some(pseudo), Some(host)) if !pseudo.eq_ignore_ascii_case(host) => {
                return Err(Refusal::bad("the Host field differs from :authority"));
            }
            (Some(authority), _) | (None, Some(authority)) => authority,
            (None, None) => return Err(Refusal::bad("there is neither :authority nor Host")),
        };
        if is_authority(authority) { Ok(authority) } else { Err(Refusal::bad("the authority is not valid")) }
    }
}

/// Lays the parts out behind one another, as handlers want them: `Host` first, and the crumbs of a cookie as the one
/// field that they were (section 8.2.3).
fn build(request: &Parts, line: [&[u8]; 3], limits: &HeadLimits) -> Result<RequestHead, Refusal> {
    let fields = &request.headers;
    let size: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 2).sum();
    let mut text = BytesMut::with_capacity(line.iter().map(|part| part.len()).sum::<usize>() + size + b"host".len());
    let mut add = |part: &[u8]| {
        let start = text.len();
        text.extend_from_slice(part);
        start..text.len()
    };
    let [method, target, authority] = line.map(&mut add);
    let mut spans = Vec::with_capacity(fields.len() + 1);
    spans.push((add(b"host"), authority.clone()));
    for name in fields.keys().filter(|name| *name != ::http::header::HOST) {
        let mut values = fields.get_all(name).iter();
        if name == ::http::header::COOKIE {
            let crumbs: Vec<&[u8]> = values.map(HeaderValue::as_bytes).collect();
            spans.push((add(b"cookie"), add(&crumbs.join(&b"; "[..]))));
            continue;
        }
        let name = add(name.as_str().as_bytes());
        spans.extend(values.by_ref().map(|value| (name.clone(), add(value.as_bytes()))));
    }
    if spans.len() > limits.max_fields {
        return Err(Refusal::over(Status::FIELDS_TOO_LARGE, "there are too many fields", "max_fields"));
    }
    if text.len() > limits.max_head {
        return Err(Refusal::over(Status::FIELDS_TOO_LARGE, "the head is too long", "max_head"));
    }
    let text = text.freeze();
    let mut builder = HeadBuilder::new(text.clone(), Version::Http2, &text[method], &text[target.clone()]);
    let target = &text[target];
    match memchr::memchr(b'?', target) {
        Some(mark) => builder.path(&target[..mark], Some(&target[mark + 1..])),
        None => builder.path(target, None),
    }
    builder.authority(&text[authority]);
    for (name, value) in spans {
        builder.field(&text[name], &text[value]);
    }
    Ok(builder.finish())
}

/// The head of an answer. Fields of the connection do not exist here (section 8.2.2), and the reason phrase neither.
pub fn response_head(status: Status, fields: &Fields, length: Length, date: &[u8; date::LENGTH]) -> WireResponse<()> {
    let mut response = WireResponse::new(());
    *response.status_mut() = StatusCode::from_u16(status.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let map = response.headers_mut();
    map.reserve(fields.iter().count() + 3);
    for field in fields.iter().filter(|field| !matches!(kind(field), Kind::Ours)) {
        append(map, field.name(), field.shared_value());
    }
    if !map.contains_key(::http::header::SERVER) {
        map.insert(::http::header::SERVER, HeaderValue::from_static("daemun"));
    }
    if !map.contains_key(::http::header::DATE)
        && let Ok(date) = HeaderValue::from_bytes(date)
    {
        map.insert(::http::header::DATE, date);
    }
    if let Length::Known(length) = length {
        map.insert(::http::header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

/// The head of an interim response (1xx), which has the fields it was given and no others.
pub fn interim_head(status: Status, fields: &Fields) -> WireResponse<()> {
    let mut response = WireResponse::new(());
    *response.status_mut() = StatusCode::from_u16(status.code()).unwrap_or(StatusCode::PROCESSING);
    for field in fields.iter().filter(|field| !matches!(kind(field), Kind::Ours)) {
        append(response.headers_mut(), field.name(), field.shared_value());
    }
    response
}

/// Names and values are valid by their type, with one exception: a value may not have white space around it.
fn append(map: &mut HeaderMap, name: &[u8], value: &Bytes) {
    let value = value.slice_ref(value.trim_ascii());
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_maybe_shared(value)) {
        map.append(name, value);
    }
}

#[cfg(test)]
mod tests {
    use ::http::Request;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { max_head: 65_536, max_request_line: 16_384, max_fields: 100 };

    fn parts(method: &str, uri: &str, fields: &[(&'static str, &str)]) -> Parts {
        let request = fields.iter().fold(Request::builder().method(method).uri(uri), |request, (name, value)| {
            request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
        });
        request.body(()).unwrap().into_parts().0
    }

    fn status(method: &str, uri: &str, fields: &[(&'static str, &str)]) -> Option<u16> {
        read_head(&parts(method, uri, fields), &LIMITS).err().map(|refusal| refusal.status.code())
    }

    #[test]
    fn a_request_becomes_the_head_that_http_1_1_would_give() {
        let fields = [("cookie", "a=1"), ("x-a", "1"), ("cookie", "b=2"), ("x-a", "2"), ("content-length", "3")];
        let read = read_head(&parts("POST", "https://a.example:8443/p%20q?x=/?y", &fields), &LIMITS).unwrap();
        let head = &read.head;
        assert_eq!((head.method_name(), head.target()), ("POST", &b"/p%20q?x=/?y"[..]));
        assert_eq!((head.raw_path(), head.query()), (&b"/p%20q"[..], Some(&b"x=/?y"[..])));
        assert_eq!((head.authority(), head.host(), head.version()), ("a.example:8443", "a.example", Version::Http2));
        assert_eq!(head.field("host"), Some(&b"a.example:8443"[..]));
        assert_eq!(head.field_values("cookie").collect::<Vec<_>>(), [b"a=1; b=2"]);
        assert_eq!(head.field_values("x-a").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!((read.length, read.expect_continue), (Some(3), false));
    }

    #[test]
    fn a_host_says_what_the_authority_says_or_stands_alone() {
        let same = read_head(&parts("GET", "https://a.example/", &[("host", "A.example")]), &LIMITS).unwrap();
        assert_eq!(same.head.authority(), "a.example");
        let alone = read_head(&parts("GET", "/", &[("host", "b.example")]), &LIMITS).unwrap();
        assert_eq!(alone.head.authority(), "b.example");
        for (uri, fields) in [
            ("https://a.example/", &[("host", "b.example")][..]),
            ("/", &[]),
            ("/", &[("host", "a"), ("host", "a")]),
            ("/", &[("host", "a b")]),
            ("/", &[("host", "")]),
            ("https://u@a.example/", &[]),
            ("https://a,b/", &[]),
        ] {
            assert_eq!(status("GET", uri, fields), Some(400), "{uri} {fields:?}");
        }
    }

    #[test]
    fn fields_of_the_connection_and_values_in_white_space_are_malformed() {
        for field in [
            ("connection", "close"),
            ("proxy-connection", "close"),
            ("keep-alive", "1"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip"),
            ("x-a", " b"),
            ("x-a", "b\t"),
            ("content-length", "+1"),
            ("content-length", ""),
            ("content-length", "18446744073709551616"),
        ] {
            assert_eq!(status("GET", "https://a/", &[field]), Some(400), "{field:?}");
        }
        assert_eq!(status("GET", "https://a/", &[("te", "trailers"), ("x-a", "b c")]), None);
        assert_eq!(status("GET", "https://a/", &[("content-length", "1"), ("content-length", "1")]), Some(400));
    }

    #[test]
    fn what_is_too_large_or_not_known_has_its_own_status() {
        assert_eq!(status("CONNECT", "a:443", &[]), Some(501));
        assert_eq!(status(&"A".repeat(33), "https://a/", &[]), Some(501));
        assert_eq!(status("GET", &format!("https://a/{}", "a".repeat(16_384)), &[]), Some(414));
        assert_eq!(status("GET", "https://a/", &[("x-a", "b"); 101]), Some(431));
        assert_eq!(status("GET", "https://a/", &[("x-a", &"b".repeat(65_536))]), Some(431));
        assert_eq!(status("GET", "https://a/", &[("expect", "200-ok")]), Some(417));
        assert_eq!(status("GET", "*", &[("host", "a")]), Some(400));
        assert_eq!(status("OPTIONS", "*", &[("host", "a")]), None);
    }

    #[test]
    fn a_head_has_no_fields_of_the_connection_and_no_white_space_around_values() {
        let fields = Fields::new()
            .with("Connection", "close")
            .with("Transfer-Encoding", "chunked")
            .with("Content-Length", "9")
            .with("X-Padded", " b ")
            .with("Server", "other");
        let head = response_head(Status::OK, &fields, Length::Known(3), b"Sun, 06 Nov 1994 08:49:37 GMT");
        let mut said: Vec<_> = head.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        said.sort_unstable();
        assert_eq!(
            said,
            [
                ("content-length", &b"3"[..]),
                ("date", b"Sun, 06 Nov 1994 08:49:37 GMT"),
                ("server", b"other"),
                ("x-padded", b"b")
            ]
        );
    }
}
