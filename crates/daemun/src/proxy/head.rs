//! Writing the head of a request for a server (RFC 9110, section 7.6): from what was understood, field by field.

use bytes::{BufMut, BytesMut};

use super::exchange::Outbound;
use crate::gateway::Forwarding;
use crate::http::{Method, RequestId};
use crate::upstream::{HostField, Place};

/// Whether a field is never passed on: of the connection (RFC 9110, section 7.6.1) or of framing; one that we say
/// ourselves; `Expect`, which was answered; and `Proxy` (httpoxy, CVE-2016-5385).
fn is_left_out(name: &[u8]) -> bool {
    let is_one_of = |names: &[&[u8]]| names.iter().any(|left_out| name.eq_ignore_ascii_case(left_out));
    // Most names are told apart by their length.
    match name.len() {
        2 => is_one_of(&[b"te"]),
        4 => is_one_of(&[b"host"]),
        5 => is_one_of(&[b"proxy"]),
        6 => is_one_of(&[b"expect"]),
        7 => is_one_of(&[b"upgrade", b"trailer"]),
        9 => is_one_of(&[b"forwarded", b"x-real-ip"]),
        10 => is_one_of(&[b"connection", b"keep-alive"]),
        12 => is_one_of(&[b"x-request-id"]),
        14 => is_one_of(&[b"content-length", b"http2-settings"]),
        15 => is_one_of(&[b"x-forwarded-for"]),
        16 => is_one_of(&[b"proxy-connection", b"x-forwarded-host"]),
        17 => is_one_of(&[b"transfer-encoding", b"x-forwarded-proto"]),
        19 => is_one_of(&[b"proxy-authorization"]),
        _ => false,
    }
}

/// What the server is to be called.
pub(super) fn host<'a>(place: &'a Place, outbound: &Outbound<'a>) -> &'a str {
    let head = &outbound.request.head;
    match &place.serving().settings.host {
        HostField::Client if !head.authority().is_empty() => head.authority(),
        HostField::Client | HostField::Server => place.server().authority(),
        HostField::Fixed(host) => host,
    }
}

/// Appends the head of a request.
pub(super) fn write(out: &mut BytesMut, place: &Place, outbound: &Outbound<'_>) {
    let head = &outbound.request.head;
    out.put_slice(head.method_name().as_bytes());
    out.put_u8(b' ');
    out.put_slice(head.raw_path());
    if let Some(query) = head.query() {
        out.put_u8(b'?');
        out.put_slice(query);
    }
    out.put_slice(b" HTTP/1.1\r\n");
    field(out, b"Host", host(place, outbound).as_bytes());
    fields(outbound, |name, value| field(out, name, value));
    if outbound.length().is_none() {
        field(out, b"Transfer-Encoding", b"chunked");
        // What it will send behind the body (RFC 9110, section 6.6.2).
        outbound.request.head.field_values("trailer").for_each(|names| field(out, b"Trailer", names));
    }
    if let Some(protocol) = outbound.upgrade {
        field(out, b"Upgrade", protocol);
        field(out, b"Connection", b"Upgrade");
    } else if outbound.takes_trailers() {
        field(out, b"TE", b"trailers");
        field(out, b"Connection", b"TE");
    }
    out.put_slice(b"\r\n");
}

/// Tells the fields that every version of the protocol has: those of the client that are not of its connection, and what
/// we say of it and of the body's length.
pub(super) fn fields(outbound: &Outbound<'_>, mut tell: impl FnMut(&[u8], &[u8])) {
    let head = &outbound.request.head;
    let named: Vec<&[u8]> = head
        .field_values("connection")
        .flat_map(|value| value.split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .collect();
    for (name, value) in head.fields() {
        let is = |other: &&[u8]| name.eq_ignore_ascii_case(other);
        // A name with an underscore would pass for its dashed twin where it becomes a variable (CVE-2015-0219).
        if !is_left_out(name) && !named.iter().any(is) && !name.contains(&b'_') {
            tell(name, value);
        }
    }
    let Forwarding { client, scheme, host } = Forwarding::of(outbound.request, outbound.trusted);
    tell(b"X-Forwarded-For", &client);
    tell(b"X-Forwarded-Proto", scheme.as_str().as_bytes());
    tell(b"X-Forwarded-Host", host);
    let id = &outbound.request.notes.id;
    if *id != RequestId::None {
        tell(b"X-Request-ID", id.text(&mut [0; 16]));
    }
    match outbound.length() {
        Some(0) if matches!(head.method(), Method::Get | Method::Head | Method::Options | Method::Trace) => {}
        // A method that usually has a body says that there is none (RFC 9110, section 8.6).
        Some(0) if head.field("content-length").is_none() && head.method() != Method::Post => {}
        Some(length) => tell(b"Content-Length", itoa::Buffer::new().format(length).as_bytes()),
        None => {}
    }
}

fn field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    // Once for all four.
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::is_left_out;

    #[test]
    fn what_is_left_out_is_known_by_its_name_in_any_case() {
        for name in [
            "Connection",
            "Content-Length",
            "Expect",
            "Forwarded",
            "Host",
            "HTTP2-Settings",
            "Keep-Alive",
            "Proxy",
            "Proxy-Authorization",
            "Proxy-Connection",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
            "X-Forwarded-For",
            "X-Forwarded-Host",
            "X-Forwarded-Proto",
            "X-Real-IP",
            "X-Request-ID",
        ] {
            assert!(is_left_out(name.as_bytes()), "{name}");
            assert!(is_left_out(name.to_ascii_lowercase().as_bytes()), "{name}");
        }
        for name in ["Cookie", "Accept", "X-Forwarded-Port", "Authorization", "Content-Type", "Range", "Proxies"] {
            assert!(!is_left_out(name.as_bytes()), "{name}");
        }
    }
}
