//! HTTP in the words of CGI (RFC 3875): the variables that a web server says of a request over FastCGI, SCGI or uwsgi in,
//! the same [`RequestHead`] out that HTTP/1.1 makes; and the head of an answer back.
//!
//! As strict as the reading of HTTP: what two servers could read differently is refused. What only a trusted peer may
//! say (who the client is, how it speaks, who it was found to be, what is cut off the path) is not taken from others.

use std::net::{IpAddr, SocketAddr};

use bytes::{Bytes, BytesMut};
use daemun_protocol::pairs::Pair;

use super::h1::{HeadLimits, Kind, Length, MAX_METHOD, Refusal, is_authority, kind};
use super::{CanonicalPath, Endpoint, Fields, HeadBuilder, RequestHead, Scheme, Status, Version};

/// A request as a web server told it.
#[derive(Debug)]
pub struct ReadVariables {
    /// Method, target and fields.
    pub head: RequestHead,
    /// The length of the body, where it is said.
    pub length: Option<u64>,
    /// The two ends of the client's connection, by a trusted peer's word.
    pub endpoint: Option<Endpoint>,
    /// What a trusted peer has cut off the path.
    pub script_name: Bytes,
    /// Who the client is, by a trusted peer's word.
    pub user: Option<Box<str>>,
}

/// Fields of the peer's connection with its client, and those that CGI says in another place.
const LEFT_OUT: [&str; 11] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Reads what was said, in names and values.
pub fn read_variables(said: &[Pair<'_>], is_trusted: bool, limits: &HeadLimits) -> Result<ReadVariables, Refusal> {
    let facts = Facts { said, is_trusted };
    facts.check(limits)?;
    let method = facts.method()?;
    let [script_name, path, target] = facts.path(limits)?;
    let query = facts.query(&target)?;
    let authority = facts.authority()?;
    let length = facts.length()?;
    let version = match facts.get("SERVER_PROTOCOL") {
        Some(b"HTTP/1.0" | b"HTTP/0.9") => Version::Http10,
        Some(b"HTTP/2" | b"HTTP/2.0") => Version::Http2,
        _ => Version::Http11,
    };
    let mut text = BytesMut::with_capacity(1024);
    let mut add = |part: &[u8]| {
        let start = text.len();
        text.extend_from_slice(part);
        start..text.len()
    };
    let (method, target, path) = (add(method), add(&target), add(&path));
    let query = query.map(|query| add(&query));
    let authority = add(&authority);
    let mut spans = Vec::new();
    if !authority.is_empty() {
        spans.push((add(b"Host"), authority.clone()));
    }
    for (name, of) in [("Content-Type", "CONTENT_TYPE"), ("Content-Length", "CONTENT_LENGTH")] {
        if let Some(value) = facts.get(of).filter(|value| !value.is_empty()) {
            spans.push((add(name.as_bytes()), add(value.trim_ascii())));
        }
    }
    for (name, value) in facts.fields() {
        spans.push((add(&name), add(value.trim_ascii())));
    }
    if spans.len() > limits.max_fields {
        return Err(Refusal::over(Status::FIELDS_TOO_LARGE, "there are too many fields", "max_fields"));
    }
    let text = text.freeze();
    let mut builder = HeadBuilder::new(text.clone(), version, &text[method], &text[target]);
    builder.path(&text[path], query.map(|query| &text[query]));
    builder.authority(&text[authority]);
    for (name, value) in spans {
        builder.field(&text[name], &text[value]);
    }
    let user = facts.trusted("REMOTE_USER").and_then(|user| std::str::from_utf8(user).ok());
    Ok(ReadVariables {
        head: builder.finish(),
        length,
        endpoint: facts.endpoint(),
        script_name: Bytes::from(script_name),
        user: user.filter(|user| !user.is_empty()).map(Into::into),
    })
}

/// Appends the head of an answer: as CGI programs begin theirs, or with a status line where `is_http`. What is said of
/// the connection is the peer's own, and so are `Date` and `Server`, which it adds.
pub fn write_response(
    out: &mut Vec<u8>,
    is_http: bool,
    (status, reason): (Status, Option<&Bytes>),
    fields: &Fields,
    length: Length,
) {
    let reason = reason.map_or(status.reason().as_bytes(), |reason| reason);
    out.extend_from_slice(if is_http { b"HTTP/1.1 " } else { b"Status: " });
    out.extend_from_slice(itoa::Buffer::new().format(status.code()).as_bytes());
    out.push(b' ');
    out.extend_from_slice(if is_value(reason) { reason } else { b"" });
    out.extend_from_slice(b"\r\n");
    let mut put = |name: &[u8], value: &[u8]| {
        for part in [name, b": ", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    };
    for field in fields.iter().filter(|field| !matches!(kind(field), Kind::Ours)) {
        put(field.name(), field.value());
    }
    if let Length::Known(length) = length {
        put(b"Content-Length", itoa::Buffer::new().format(length).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// What was said.
struct Facts<'a> {
    said: &'a [Pair<'a>],
    is_trusted: bool,
}

impl<'a> Facts<'a> {
    /// Values that could end a line, and variables that stand there twice, have no reading.
    fn check(&self, limits: &HeadLimits) -> Result<(), Refusal> {
        let mut size = 0;
        for (at, (name, value)) in self.said.iter().enumerate() {
            size += name.len() + value.len();
            if !is_value(value) {
                return Err(Refusal::bad("a variable holds a control character"));
            }
            let is_field = name.starts_with(b"HTTP_") && *name != b"HTTP_HOST";
            if !is_field && self.said[..at].iter().any(|(other, _)| other == name) {
                return Err(Refusal::bad("a variable stands there twice"));
            }
        }
        if size > limits.max_head {
            return Err(Refusal::over(Status::FIELDS_TOO_LARGE, "the variables are too long", "max_head"));
        }
        Ok(())
    }

    fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.said.iter().find(|(other, _)| *other == name.as_bytes()).map(|(_, value)| *value)
    }

    /// What only a trusted peer may say.
    fn trusted(&self, name: &str) -> Option<&'a [u8]> {
        if self.is_trusted { self.get(name) } else { None }
    }

    fn method(&self) -> Result<&'a [u8], Refusal> {
        let method = self.get("REQUEST_METHOD").unwrap_or_default();
        if method.is_empty() || !method.iter().all(|&byte| is_token(byte)) {
            return Err(Refusal::bad("REQUEST_METHOD is no method"));
        }
        if method.len() > MAX_METHOD || method == b"CONNECT" {
            return Err(Refusal::new(Status::NOT_IMPLEMENTED, "the method is not implemented"));
        }
        Ok(method)
    }

    /// `SCRIPT_NAME`, the path below it, and the target: all as they stand in a URL but the first.
    ///
    /// With `PATH_INFO` the two say what the application is to see. nginx's own lists of variables have none for FastCGI
    /// and SCGI, and the whole path in `SCRIPT_NAME` or `DOCUMENT_URI`.
    fn path(&self, limits: &HeadLimits) -> Result<[Vec<u8>; 3], Refusal> {
        let sent = self.get("REQUEST_URI").filter(|target| !target.is_empty());
        if let Some(target) = sent {
            let is_path = target.starts_with(b"/") || *target == *b"*";
            if !is_path || target.iter().any(|&byte| byte <= b' ' || byte == 0x7f || byte == b'#') {
                return Err(Refusal::bad("REQUEST_URI is no path"));
            }
            if target.len() > limits.max_request_line {
                return Err(Refusal::over(Status::URI_TOO_LONG, "the path is too long", "max_request_line"));
            }
        }
        let sent_path = sent.map(|target| &target[..memchr::memchr(b'?', target).unwrap_or(target.len())]);
        let (script, path) = match (self.get("PATH_INFO"), sent_path) {
            (Some(info), _) if self.is_trusted => {
                let script = self.get("SCRIPT_NAME").unwrap_or_default();
                (script.strip_suffix(b"/").unwrap_or(script), info)
            }
            (_, Some(sent)) => {
                let target = sent.to_vec();
                return Ok([Vec::new(), target, sent_or(sent_path, self.get("REQUEST_URI"))]);
            }
            (Some(info), None) => (&b""[..], info),
            (None, None) => (&b""[..], self.get("DOCUMENT_URI").or(self.get("SCRIPT_NAME")).unwrap_or_default()),
        };
        let starts = |part: &[u8]| part.is_empty() || part.starts_with(b"/");
        if !starts(script) || !starts(path) || script.len() + path.len() == 0 && sent.is_none() {
            return Err(Refusal::bad("SCRIPT_NAME or PATH_INFO does not begin with a slash"));
        }
        let path = if path.is_empty() { b"/" } else { path };
        let encoded = CanonicalPath::encode(path, false);
        // As the client sent it, where that is the same path: `%2F` is no slash.
        let canonical = |raw: &[u8]| CanonicalPath::parse(&Bytes::copy_from_slice(raw)).ok();
        let as_sent = sent_path.and_then(|sent| sent.strip_prefix(script)).filter(|sent| {
            let (one, other) = (canonical(sent), canonical(&encoded));
            sent.starts_with(b"/")
                && one.is_some_and(|one| other.is_some_and(|other| one.as_bytes() == other.as_bytes()))
        });
        let raw = as_sent.map_or(encoded, <[u8]>::to_vec);
        let target = sent.map_or_else(
            || {
                let query = self.get("QUERY_STRING").filter(|query| !query.is_empty());
                let query = query.map_or(Vec::new(), |query| [b"?", query].concat());
                [&CanonicalPath::encode(script, false)[..], &raw, &query].concat()
            },
            <[u8]>::to_vec,
        );
        Ok([script.to_vec(), raw, target])
    }

    fn query(&self, target: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        let sent = memchr::memchr(b'?', target).map(|mark| &target[mark + 1..]);
        let query = match self.get("QUERY_STRING") {
            Some(b"") => sent.filter(|sent| sent.is_empty()),
            Some(query) => Some(query),
            None => sent,
        };
        if query.unwrap_or_default().iter().any(|&byte| byte <= b' ' || byte == 0x7f || byte == b'#') {
            return Err(Refusal::bad("QUERY_STRING holds a character that cannot stand there"));
        }
        Ok(query.map(<[u8]>::to_vec))
    }

    fn authority(&self) -> Result<Vec<u8>, Refusal> {
        if let Some(host) = self.get("HTTP_HOST").filter(|host| !host.is_empty()) {
            return if is_authority(host) { Ok(host.to_vec()) } else { Err(Refusal::bad("HTTP_HOST is no host")) };
        }
        let name = self.get("SERVER_NAME").unwrap_or_default();
        Ok(if is_authority(name) { name.to_vec() } else { Vec::new() })
    }

    fn length(&self) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.get("CONTENT_LENGTH").filter(|value| !value.is_empty()) else { return Ok(None) };
        let digits = value.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(value).ok()).flatten();
        let length = digits.and_then(|digits| digits.parse().ok());
        length.map(Some).ok_or(Refusal::bad("CONTENT_LENGTH is no number"))
    }

    /// Fields of HTTP: `HTTP_X_A` is `x-a`. Names that are none are left out.
    fn fields(&self) -> impl Iterator<Item = (Vec<u8>, &'a [u8])> {
        self.said.iter().filter_map(|(name, value)| {
            let name = name.strip_prefix(b"HTTP_").filter(|name| !name.is_empty())?;
            let of = |&byte: &u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
            let name: Vec<u8> = name.iter().map(of).collect();
            let is_one = name.iter().all(|&byte| is_token(byte)) && !LEFT_OUT.iter().any(|out| out.as_bytes() == name);
            is_one.then_some((name, *value))
        })
    }

    fn endpoint(&self) -> Option<Endpoint> {
        let text = |name| self.trusted(name).and_then(|value| std::str::from_utf8(value).ok());
        let client: IpAddr = text("REMOTE_ADDR")?.parse().ok()?;
        let port = |name| text(name).and_then(|port| port.parse::<u16>().ok());
        let server = text("SERVER_ADDR").and_then(|address| address.parse::<IpAddr>().ok());
        let is_secure = text("HTTPS").is_some_and(|said| ["on", "1", "https"].contains(&&*said.to_ascii_lowercase()))
            || text("REQUEST_SCHEME").is_some_and(|said| said.eq_ignore_ascii_case("https"));
        let scheme = if is_secure { Scheme::Https } else { Scheme::Http };
        let server = match (server, port("SERVER_PORT")) {
            (Some(server), Some(port)) => Some(SocketAddr::new(server, port)),
            _ => None,
        };
        Some(Endpoint::new(Some(SocketAddr::new(client, port("REMOTE_PORT").unwrap_or_default())), server, scheme))
    }
}

fn sent_or(path: Option<&[u8]>, target: Option<&[u8]>) -> Vec<u8> {
    target.or(path).unwrap_or_default().to_vec()
}

/// `field-value` of RFC 9110, section 5.5.
fn is_value(value: &[u8]) -> bool {
    value.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
}

/// `tchar` of RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { max_head: 65_536, max_request_line: 16_384, max_fields: 100 };

    fn read(said: &[(&str, &str)], is_trusted: bool) -> Result<ReadVariables, u16> {
        let mut all = vec![(&b"REQUEST_METHOD"[..], &b"GET"[..])];
        all.extend(said.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        read_variables(&all, is_trusted, &LIMITS).map_err(|refusal| refusal.status.code())
    }

    /// Script name, path, query and target.
    fn place(said: &[(&str, &str)], is_trusted: bool) -> [String; 4] {
        let read = read(said, is_trusted).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let query = read.head.query().map_or("-".to_owned(), text);
        [text(&read.script_name), text(read.head.raw_path()), query, text(read.head.target())]
    }

    #[test]
    fn the_path_is_what_the_peer_says_as_the_client_sent_it_where_that_is_the_same() {
        // nginx's uwsgi_params: PATH_INFO is the whole path, decoded and normal.
        let nginx = [("REQUEST_URI", "/a%20b//c%2Fd?x=%31"), ("PATH_INFO", "/a b/c/d"), ("QUERY_STRING", "x=%31")];
        assert_eq!(place(&nginx, true), ["", "/a%20b/c/d", "x=%31", "/a%20b//c%2Fd?x=%31"]);
        let same = [("REQUEST_URI", "/a%20b/c?"), ("PATH_INFO", "/a b/c"), ("QUERY_STRING", "")];
        assert_eq!(place(&same, true), ["", "/a%20b/c", "", "/a%20b/c?"]);
        // fastcgi_params: the whole path in SCRIPT_NAME, and no PATH_INFO.
        let fastcgi = [("REQUEST_URI", "/a/b?q"), ("SCRIPT_NAME", "/a/b"), ("QUERY_STRING", "q")];
        assert_eq!(place(&fastcgi, true), ["", "/a/b", "q", "/a/b?q"]);
        // Mounted below a path.
        let mounted = [("REQUEST_URI", "/wiki/a%2Fb"), ("SCRIPT_NAME", "/wiki"), ("PATH_INFO", "/a/b")];
        assert_eq!(place(&mounted, true), ["/wiki", "/a/b", "-", "/wiki/a%2Fb"]);
        let root = [("REQUEST_URI", "/wiki"), ("SCRIPT_NAME", "/wiki"), ("PATH_INFO", "")];
        assert_eq!(place(&root, true), ["/wiki", "/", "-", "/wiki"]);
        // Rewritten on the way.
        let rewritten = [("REQUEST_URI", "/old"), ("PATH_INFO", "/new"), ("QUERY_STRING", "a=b")];
        assert_eq!(place(&rewritten, true), ["", "/new", "a=b", "/old"]);
        assert_eq!(place(&[("PATH_INFO", "/x"), ("QUERY_STRING", "y")], true), ["", "/x", "y", "/x?y"]);
        // Nobody who is not trusted moves the path.
        assert_eq!(place(&mounted, false), ["", "/wiki/a%2Fb", "-", "/wiki/a%2Fb"]);
    }

    #[test]
    fn only_a_trusted_peer_says_who_the_client_is() {
        let said = [
            ("REQUEST_URI", "/"),
            ("REMOTE_ADDR", "192.0.2.7"),
            ("REMOTE_PORT", "1234"),
            ("SERVER_ADDR", "198.51.100.1"),
            ("SERVER_PORT", "443"),
            ("HTTPS", "on"),
            ("REMOTE_USER", "ada"),
        ];
        let trusted = read(&said, true).unwrap();
        let endpoint = trusted.endpoint.unwrap();
        assert_eq!(endpoint.client().map(|client| client.address.to_string()).as_deref(), Some("192.0.2.7:1234"));
        assert_eq!(endpoint.server().map(|server| server.address.to_string()).as_deref(), Some("198.51.100.1:443"));
        assert_eq!((endpoint.scheme(), trusted.user.as_deref()), (Scheme::Https, Some("ada")));
        let other = read(&said, false).unwrap();
        assert!(other.endpoint.is_none() && other.user.is_none());
    }

    #[test]
    fn fields_are_those_of_http_and_framing_is_said_once() {
        let said = [
            ("REQUEST_URI", "/"),
            ("HTTP_HOST", "a.example:81"),
            ("HTTP_X_A", "1"),
            ("HTTP_X_A", "2"),
            ("HTTP_CONTENT_LENGTH", "9"),
            ("HTTP_TRANSFER_ENCODING", "chunked"),
            ("CONTENT_LENGTH", "3"),
            ("CONTENT_TYPE", "text/plain"),
        ];
        let read = read(&said, true).unwrap();
        let fields: Vec<_> = read.head.fields().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        let text = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        let want = [
            text("Host", "a.example:81"),
            text("Content-Type", "text/plain"),
            text("Content-Length", "3"),
            text("x-a", "1"),
            text("x-a", "2"),
        ];
        assert_eq!(fields, want);
        assert_eq!((read.length, read.head.authority()), (Some(3), "a.example:81"));
    }

    #[test]
    fn what_has_two_readings_has_none() {
        for said in [
            &[("REQUEST_URI", "a")][..],
            &[("REQUEST_URI", "/a b")],
            &[("REQUEST_URI", "/a#b")],
            &[("PATH_INFO", "a")],
            &[],
            &[("REQUEST_URI", "/"), ("HTTP_HOST", "a b")],
            &[("REQUEST_URI", "/"), ("HTTP_HOST", "a"), ("HTTP_HOST", "a")],
            &[("REQUEST_URI", "/"), ("REQUEST_URI", "/")],
            &[("REQUEST_URI", "/"), ("CONTENT_LENGTH", "+1")],
            &[("REQUEST_URI", "/"), ("HTTP_X", "a\nb")],
            &[("REQUEST_URI", "/"), ("QUERY_STRING", "a b")],
        ] {
            assert_eq!(read(said, true).err(), Some(400), "{said:?}");
        }
        assert_eq!(read(&[("REQUEST_URI", &format!("/{}", "a".repeat(20_000)))], true).err(), Some(414));
        assert_eq!(read(&[("REQUEST_URI", "/"), ("HTTP_X", &"a".repeat(70_000))], true).err(), Some(431));
    }

    #[test]
    fn an_answer_has_no_fields_of_the_connection() {
        let fields = Fields::new().with("Connection", "close").with("Content-Length", "9").with("X-A", "b");
        let mut out = Vec::new();
        write_response(&mut out, false, (Status::OK, None), &fields, Length::Known(3));
        assert_eq!(out, b"Status: 200 OK\r\nX-A: b\r\nContent-Length: 3\r\n\r\n");
        out.clear();
        write_response(&mut out, true, (Status::NOT_FOUND, None), &Fields::new(), Length::Chunked);
        assert_eq!(out, b"HTTP/1.1 404 Not Found\r\n\r\n");
    }
}
