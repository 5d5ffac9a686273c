//! The environment of a request (RFC 3875, section 4.1; PEP 3333, "environ Variables") as names and values, each ended
//! by a NUL. The front decides every variable; a worker only adds the `wsgi.*` objects, a launcher nothing.

use std::borrow::Cow;

use bytes::BufMut;

use crate::http::{ClientCertificate, Request, RequestId, Scheme, TlsSession, TrustedProxies};

/// What a program that is a script of its own is told beyond the request (RFC 3875, sections 4.1.5, 4.1.6, 4.1.13).
#[derive(Clone, Copy, Debug)]
pub struct Script<'a> {
    /// The part of the path that leads to it, decoded.
    pub name: &'a [u8],
    /// What follows, decoded; empty where nothing does.
    pub path_info: &'a [u8],
    /// Whether it may see `Authorization`: a script's environment can be read by others of its user.
    pub authorization: bool,
}

/// Where variables are written to, each in the form that whoever reads them wants.
pub trait Variables {
    /// `name` ends with its NUL.
    fn variable<const LENGTH: usize>(&mut self, name: &[u8; LENGTH], value: &[u8]);

    /// A field of the request, which becomes `HTTP_*`.
    fn field(&mut self, name: &[u8], value: &[u8]);
}

/// Names and values, each ended by a NUL.
impl Variables for Vec<u8> {
    fn variable<const LENGTH: usize>(&mut self, name: &[u8; LENGTH], value: &[u8]) {
        const { assert!(LENGTH > 1) };
        debug_assert_eq!(name.last(), Some(&0), "a name ends with its NUL");
        self.reserve(LENGTH + value.len() + 1);
        self.extend_from_slice(name);
        self.extend_from_slice(value);
        self.push(0);
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        self.reserve(b"HTTP_".len() + name.len() + value.len() + 2);
        self.extend_from_slice(b"HTTP_");
        self.extend(name.iter().copied().map(of_name));
        self.push(0);
        self.extend_from_slice(value);
        self.push(0);
    }
}

/// A byte of a field's name as it stands in that of its variable.
pub fn of_name(byte: u8) -> u8 {
    if byte == b'-' { b'_' } else { byte.to_ascii_uppercase() }
}

/// Writes the environment of `request` for a WSGI application. Its body has `length` bytes; `None` for one that is
/// streamed without a length.
///
/// Left out: `Proxy` (httpoxy, CVE-2016-5385), names with an underscore, which would pass for their dashed twins
/// (CVE-2015-0219), and hop-by-hop fields (RFC 9110, section 7.6.1).
pub fn write_wsgi(out: &mut Vec<u8>, request: &Request, length: Option<u64>, trusted: &TrustedProxies) {
    out.variable(b"SCRIPT_NAME\0", &request.notes.script_name);
    out.put_slice(b"PATH_INFO\0");
    decode_path(out, request.head.raw_path());
    out.push(0);
    of_request(out, request, length);
    let scheme = forwarding(out, request, trusted);
    out.variable(b"wsgi.url_scheme\0", scheme.as_str().as_bytes());
    fields(out, request, true);
}

/// Writes the environment of `request` for a script. Left out is what is left out for an application, and credentials
/// where they are not wished for.
pub fn write_script(
    out: &mut impl Variables,
    request: &Request,
    length: u64,
    trusted: &TrustedProxies,
    script: &Script<'_>,
) {
    out.variable(b"SCRIPT_NAME\0", script.name);
    if !script.path_info.is_empty() {
        out.variable(b"PATH_INFO\0", script.path_info);
    }
    of_request(out, request, Some(length));
    // Looking a name up would let a client choose how long a request takes: RFC 3875, section 4.1.9, allows this.
    out.variable(b"REMOTE_HOST\0", request.endpoint.client().map_or("", |client| &client.ip).as_bytes());
    if let Some(server) = request.endpoint.server() {
        out.variable(b"SERVER_ADDR\0", server.ip.as_bytes());
    }
    let scheme = forwarding(out, request, trusted);
    out.variable(b"REQUEST_SCHEME\0", scheme.as_str().as_bytes());
    fields(out, request, script.authorization);
}

/// What is told of a request whoever answers it.
fn of_request(out: &mut impl Variables, request: &Request, length: Option<u64>) {
    let head = &request.head;
    out.variable(b"REQUEST_METHOD\0", head.method_name().as_bytes());
    out.variable(b"QUERY_STRING\0", head.query().unwrap_or_default());
    out.variable(b"REQUEST_URI\0", head.target());
    out.variable(b"SERVER_PROTOCOL\0", head.version().as_str().as_bytes());
    out.variable(b"SERVER_SOFTWARE\0", b"daemun");
    out.variable(b"GATEWAY_INTERFACE\0", b"CGI/1.1");
    addresses(out, request);
    if let Some(session) = request.endpoint.tls() {
        secured(out, session);
    }
    if let Some(length) = length
        && (length > 0 || head.field("content-length").is_some())
    {
        out.variable(b"CONTENT_LENGTH\0", itoa::Buffer::new().format(length).as_bytes());
    }
    if let Some(user) = &request.notes.user {
        out.variable(b"REMOTE_USER\0", user.as_bytes());
        out.variable(b"AUTH_TYPE\0", b"Basic");
    }
    if request.notes.id != RequestId::None {
        out.variable(b"HTTP_X_REQUEST_ID\0", request.notes.id.text(&mut [0; 16]));
    }
    if let Some(value) = head.field("content-type") {
        out.variable(b"CONTENT_TYPE\0", value);
    }
}

/// What TLS says of the connection, in the words of Apache's mod_ssl. The names cannot come from a field: those begin
/// with `HTTP_`.
fn secured(out: &mut impl Variables, session: &TlsSession) {
    out.variable(b"SSL_PROTOCOL\0", session.protocol.as_bytes());
    out.variable(b"SSL_CIPHER\0", session.cipher.as_bytes());
    if let Some(name) = &session.server_name {
        out.variable(b"SSL_TLS_SNI\0", name.as_bytes());
    }
    match &session.client {
        ClientCertificate::NotAsked => {}
        ClientCertificate::Absent => out.variable(b"SSL_CLIENT_VERIFY\0", b"NONE"),
        ClientCertificate::Verified(shown) => {
            out.variable(b"SSL_CLIENT_VERIFY\0", b"SUCCESS");
            out.variable(b"SSL_CLIENT_S_DN\0", shown.subject.as_bytes());
            out.variable(b"SSL_CLIENT_I_DN\0", shown.issuer.as_bytes());
            out.variable(b"SSL_CLIENT_M_SERIAL\0", shown.serial.as_bytes());
            out.variable(b"SSL_CLIENT_FINGERPRINT\0", shown.fingerprint.as_bytes());
            out.variable(b"SSL_CLIENT_CERT\0", shown.pem.as_bytes());
        }
    }
}

/// Decoded once, otherwise as it was sent. The codec has refused malformed encodings and NULs.
fn decode_path(out: &mut Vec<u8>, raw: &[u8]) {
    if memchr::memchr(b'%', raw).is_none() {
        return out.put_slice(raw);
    }
    let mut rest = raw;
    while let Some(percent) = memchr::memchr(b'%', rest) {
        out.put_slice(&rest[..percent]);
        let digits = rest.get(percent + 1..percent + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if byte != 0 => {
                out.push(byte);
                rest = &rest[percent + 3..];
            }
            _ => {
                out.push(b'%');
                rest = &rest[percent + 1..];
            }
        }
    }
    out.put_slice(rest);
}

/// `SERVER_*` and `REMOTE_*`. `SERVER_NAME` is the name the client used, else our address, so that it is never empty.
fn addresses(out: &mut impl Variables, request: &Request) {
    let endpoint = &*request.endpoint;
    let host = request.head.host();
    let name = match endpoint.server() {
        _ if !host.is_empty() => host,
        Some(server) => &server.ip,
        None => "localhost",
    };
    out.variable(b"SERVER_NAME\0", name.as_bytes());
    let usual = if endpoint.scheme() == Scheme::Https { "443" } else { "80" };
    out.variable(b"SERVER_PORT\0", endpoint.server().map_or(usual, |server| &server.port).as_bytes());
    out.variable(b"REMOTE_ADDR\0", endpoint.client().map_or("", |client| &client.ip).as_bytes());
    if let Some(client) = endpoint.client() {
        out.variable(b"REMOTE_PORT\0", client.port.as_bytes());
    }
}

/// Where a request came from, as whoever answers it is told.
#[derive(Debug)]
pub struct Forwarding<'a> {
    /// `X-Forwarded-For`.
    pub client: Cow<'a, [u8]>,
    /// `X-Forwarded-Proto`.
    pub scheme: Scheme,
    /// `X-Forwarded-Host`.
    pub host: &'a [u8],
}

impl<'a> Forwarding<'a> {
    /// From the fields of a trusted proxy, else from the connection.
    pub fn of(request: &'a Request, trusted: &TrustedProxies) -> Self {
        let head = &request.head;
        let peer = request.endpoint.client().map_or("", |client| &client.ip).as_bytes();
        let (scheme, host) = (request.endpoint.scheme(), head.authority().as_bytes());
        if !trusted.trusts(&request.endpoint) {
            return Self { client: Cow::Borrowed(peer), scheme, host };
        }
        let standard = trusted.standard(head);
        let mut client = match &standard {
            Some(standard) => standard.clients.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ").into(),
            None => head.field_values("x-forwarded-for").collect::<Vec<_>>().join(&b", "[..]),
        };
        if !client.is_empty() && !peer.is_empty() {
            client.extend_from_slice(b", ");
        }
        client.extend_from_slice(peer);
        let scheme = trusted.scheme(head).unwrap_or(scheme);
        let said = head.field("x-forwarded-host").or(standard.and_then(|standard| standard.host));
        Self { client: Cow::Owned(client), scheme, host: said.unwrap_or(host) }
    }
}

fn forwarding(out: &mut impl Variables, request: &Request, trusted: &TrustedProxies) -> Scheme {
    let Forwarding { client, scheme, host } = Forwarding::of(request, trusted);
    if scheme == Scheme::Https {
        out.variable(b"HTTPS\0", b"on");
    }
    out.variable(b"HTTP_X_FORWARDED_FOR\0", &client);
    out.variable(b"HTTP_X_FORWARDED_PROTO\0", scheme.as_str().as_bytes());
    out.variable(b"HTTP_X_FORWARDED_HOST\0", host);
    scheme
}

/// The fields as `HTTP_*`; a name that was sent several times becomes one value (RFC 9110, section 5.3).
fn fields(out: &mut impl Variables, request: &Request, authorization: bool) {
    let head = &request.head;
    for (index, (name, value)) in head.fields().enumerate() {
        if is_left_out(name)
            || (!authorization && name.eq_ignore_ascii_case(b"authorization"))
            || head.fields().take(index).any(|(earlier, _)| earlier.eq_ignore_ascii_case(name))
        {
            continue;
        }
        let mut later = head.fields().skip(index + 1).filter(|(later, _)| later.eq_ignore_ascii_case(name)).peekable();
        if later.peek().is_none() {
            out.field(name, value);
            continue;
        }
        // RFC 6265, section 5.4: cookies are joined by a semicolon.
        let separator: &[u8] = if name.eq_ignore_ascii_case(b"cookie") { b"; " } else { b", " };
        let mut joined = value.to_vec();
        for (_, more) in later {
            joined.put_slice(separator);
            joined.put_slice(more);
        }
        out.field(name, &joined);
    }
}

fn is_left_out(name: &[u8]) -> bool {
    if name.contains(&b'_') {
        return true;
    }
    let is_one_of = |names: &[&[u8]]| names.iter().any(|left_out| name.eq_ignore_ascii_case(left_out));
    // Most names are told apart by their length.
    match name.len() {
        2 => is_one_of(&[b"te"]),
        5 => is_one_of(&[b"proxy"]),
        7 => is_one_of(&[b"upgrade", b"trailer"]),
        9 => is_one_of(&[b"forwarded"]),
        10 => is_one_of(&[b"connection", b"keep-alive"]),
        12 => is_one_of(&[b"content-type", b"x-request-id"]),
        14 => is_one_of(&[b"content-length"]),
        15 => is_one_of(&[b"x-forwarded-for"]),
        16 => is_one_of(&[b"proxy-connection", b"x-forwarded-host"]),
        17 => is_one_of(&[b"transfer-encoding", b"x-forwarded-proto"]),
        19 => is_one_of(&[b"proxy-authorization"]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_left_out;

    #[test]
    fn what_is_left_out_is_known_by_its_name_in_any_case() {
        for name in [
            "Content-Length",
            "Content-Type",
            "Connection",
            "Keep-Alive",
            "Proxy",
            "Proxy-Connection",
            "Proxy-Authorization",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
            "Forwarded",
            "X-Request-ID",
            "X-Forwarded-For",
            "X-Forwarded-Proto",
            "X-Forwarded-Host",
            "X_Real",
        ] {
            assert!(is_left_out(name.as_bytes()), "{name}");
            assert!(is_left_out(name.to_ascii_lowercase().as_bytes()), "{name}");
        }
        for name in ["Host", "Cookie", "Accept", "X-Forwarded-Port", "Content-Range", "Proxies", "Upgraded"] {
            assert!(!is_left_out(name.as_bytes()), "{name}");
        }
    }
}
