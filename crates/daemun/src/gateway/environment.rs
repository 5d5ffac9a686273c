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

/// Writes the environment of `request` for a WSGI application. Its body has `length` bytes; `None` for one that is
/// streamed without a length.
///
/// Left out: `Proxy` (httpoxy, CVE-2016-5385), names with an underscore, which would pass for their dashed twins
/// (CVE-2015-0219), and hop-by-hop fields (RFC 9110, section 7.6.1).
pub fn write_wsgi(out: &mut Vec<u8>, request: &Request, length: Option<u64>, trusted: &TrustedProxies) {
    variable(out, b"SCRIPT_NAME\0", &request.notes.script_name);
    out.put_slice(b"PATH_INFO\0");
    decode_path(out, request.head.raw_path());
    out.push(0);
    of_request(out, request, length);
    let scheme = forwarding(out, request, trusted);
    variable(out, b"wsgi.url_scheme\0", scheme.as_str().as_bytes());
    fields(out, request, true);
}

/// Writes the environment of `request` for a script. Left out is what is left out for an application, and credentials
/// where they are not wished for.
pub fn write_script(out: &mut Vec<u8>, request: &Request, length: u64, trusted: &TrustedProxies, script: &Script<'_>) {
    variable(out, b"SCRIPT_NAME\0", script.name);
    if !script.path_info.is_empty() {
        variable(out, b"PATH_INFO\0", script.path_info);
    }
    of_request(out, request, Some(length));
    // Looking a name up would let a client choose how long a request takes: RFC 3875, section 4.1.9, allows this.
    variable(out, b"REMOTE_HOST\0", request.endpoint.client().map_or("", |client| &client.ip).as_bytes());
    if let Some(server) = request.endpoint.server() {
        variable(out, b"SERVER_ADDR\0", server.ip.as_bytes());
    }
    let scheme = forwarding(out, request, trusted);
    variable(out, b"REQUEST_SCHEME\0", scheme.as_str().as_bytes());
    fields(out, request, script.authorization);
}

/// What is told of a request whoever answers it.
fn of_request(out: &mut Vec<u8>, request: &Request, length: Option<u64>) {
    let head = &request.head;
    variable(out, b"REQUEST_METHOD\0", head.method_name().as_bytes());
    variable(out, b"QUERY_STRING\0", head.query().unwrap_or_default());
    variable(out, b"REQUEST_URI\0", head.target());
    variable(out, b"SERVER_PROTOCOL\0", head.version().as_str().as_bytes());
    out.extend_from_slice(b"SERVER_SOFTWARE\0daemun\0GATEWAY_INTERFACE\0CGI/1.1\0");
    addresses(out, request);
    if let Some(session) = request.endpoint.tls() {
        secured(out, session);
    }
    if let Some(length) = length
        && (length > 0 || head.field("content-length").is_some())
    {
        variable(out, b"CONTENT_LENGTH\0", itoa::Buffer::new().format(length).as_bytes());
    }
    if let Some(user) = &request.notes.user {
        variable(out, b"REMOTE_USER\0", user.as_bytes());
        variable(out, b"AUTH_TYPE\0", b"Basic");
    }
    if request.notes.id != RequestId::None {
        out.put_slice(b"HTTP_X_REQUEST_ID\0");
        request.notes.id.push(out);
        out.push(0);
    }
    if let Some(value) = head.field("content-type") {
        variable(out, b"CONTENT_TYPE\0", value);
    }
}

/// What TLS says of the connection, in the words of Apache's mod_ssl. The names cannot come from a field: those begin
/// with `HTTP_`.
fn secured(out: &mut Vec<u8>, session: &TlsSession) {
    variable(out, b"SSL_PROTOCOL\0", session.protocol.as_bytes());
    variable(out, b"SSL_CIPHER\0", session.cipher.as_bytes());
    if let Some(name) = &session.server_name {
        variable(out, b"SSL_TLS_SNI\0", name.as_bytes());
    }
    match &session.client {
        ClientCertificate::NotAsked => {}
        ClientCertificate::Absent => variable(out, b"SSL_CLIENT_VERIFY\0", b"NONE"),
        ClientCertificate::Verified(shown) => {
            variable(out, b"SSL_CLIENT_VERIFY\0", b"SUCCESS");
            variable(out, b"SSL_CLIENT_S_DN\0", shown.subject.as_bytes());
            variable(out, b"SSL_CLIENT_I_DN\0", shown.issuer.as_bytes());
            variable(out, b"SSL_CLIENT_M_SERIAL\0", shown.serial.as_bytes());
            variable(out, b"SSL_CLIENT_FINGERPRINT\0", shown.fingerprint.as_bytes());
            variable(out, b"SSL_CLIENT_CERT\0", shown.pem.as_bytes());
        }
    }
}

/// `name` ends with its NUL.
fn variable<const LENGTH: usize>(out: &mut Vec<u8>, name: &[u8; LENGTH], value: &[u8]) {
    const { assert!(LENGTH > 1) };
    debug_assert_eq!(name.last(), Some(&0), "a name ends with its NUL");
    out.reserve(LENGTH + value.len() + 1);
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.push(0);
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
fn addresses(out: &mut Vec<u8>, request: &Request) {
    let endpoint = &*request.endpoint;
    let host = request.head.host();
    let name = match endpoint.server() {
        _ if !host.is_empty() => host,
        Some(server) => &server.ip,
        None => "localhost",
    };
    variable(out, b"SERVER_NAME\0", name.as_bytes());
    let usual = if endpoint.scheme() == Scheme::Https { "443" } else { "80" };
    variable(out, b"SERVER_PORT\0", endpoint.server().map_or(usual, |server| &server.port).as_bytes());
    variable(out, b"REMOTE_ADDR\0", endpoint.client().map_or("", |client| &client.ip).as_bytes());
    if let Some(client) = endpoint.client() {
        variable(out, b"REMOTE_PORT\0", client.port.as_bytes());
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

fn forwarding(out: &mut Vec<u8>, request: &Request, trusted: &TrustedProxies) -> Scheme {
    let Forwarding { client, scheme, host } = Forwarding::of(request, trusted);
    if scheme == Scheme::Https {
        variable(out, b"HTTPS\0", b"on");
    }
    variable(out, b"HTTP_X_FORWARDED_FOR\0", &client);
    variable(out, b"HTTP_X_FORWARDED_PROTO\0", scheme.as_str().as_bytes());
    variable(out, b"HTTP_X_FORWARDED_HOST\0", host);
    scheme
}

/// The fields as `HTTP_*`; a name that was sent several times becomes one value (RFC 9110, section 5.3).
fn fields(out: &mut Vec<u8>, request: &Request, authorization: bool) {
    let head = &request.head;
    for (index, (name, value)) in head.fields().enumerate() {
        if is_left_out(name)
            || (!authorization && name.eq_ignore_ascii_case(b"authorization"))
            || head.fields().take(index).any(|(earlier, _)| earlier.eq_ignore_ascii_case(name))
        {
            continue;
        }
        out.reserve(b"HTTP_".len() + name.len() + value.len() + 2);
        out.extend_from_slice(b"HTTP_");
        out.extend(name.iter().map(|&byte| if byte == b'-' { b'_' } else { byte.to_ascii_uppercase() }));
        out.push(0);
        out.extend_from_slice(value);
        // RFC 6265, section 5.4: cookies are joined by a semicolon.
        let separator: &[u8] = if name.eq_ignore_ascii_case(b"cookie") { b"; " } else { b", " };
        for (_, more) in head.fields().skip(index + 1).filter(|(later, _)| later.eq_ignore_ascii_case(name)) {
            out.put_slice(separator);
            out.put_slice(more);
        }
        out.push(0);
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
