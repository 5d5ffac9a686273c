//! What a server's answer says to its client beyond what the server wrote: a cookie that leads back, a `Location` that
//! leads here.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::http::{BodyError, BodyStream, Fields, Request, Scheme};
use crate::upstream::Server;

/// The answer to HEAD that does not say how long the one to GET would be.
pub(super) struct Untold;

impl BodyStream for Untold {
    fn poll_chunk(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        Poll::Ready(None)
    }
}

/// The value of a cookie.
pub(super) fn cookie<'a>(request: &'a Request, name: &str) -> Option<&'a [u8]> {
    let pairs = request.head.field_values("cookie").flat_map(|line| line.split(|&byte| byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// Sets the cookie that leads back to a server.
pub(super) fn set_cookie(fields: &mut Fields, (name, value): &(String, String), scheme: Scheme) {
    let secure = if scheme == Scheme::Https { "; Secure" } else { "" };
    let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}");
    let _ = fields.try_push(Bytes::from_static(b"Set-Cookie"), Bytes::from(cookie));
}

/// Makes cookies that are for the server's name, or for paths of its own, cookies for ours.
pub(super) fn rewrite_cookies(fields: &mut Fields, server: &Server, request: &Request) {
    let prefix = &request.notes.script_name[..];
    let cookies = fields.iter().filter(|field| field.name().eq_ignore_ascii_case(b"set-cookie"));
    let cookies: Vec<Bytes> = cookies.map(|cookie| rewrite_cookie(cookie.value(), server.host(), prefix)).collect();
    fields.remove("set-cookie");
    for cookie in cookies {
        let _ = fields.try_push(Bytes::from_static(b"Set-Cookie"), cookie);
    }
}

/// Without a `Domain` that is the server's, which no browser takes from us: the cookie is for our host then. Below the
/// path that the request was mounted at.
fn rewrite_cookie(cookie: &[u8], host: &str, prefix: &[u8]) -> Bytes {
    let mut rewritten = Vec::with_capacity(cookie.len() + prefix.len());
    for (at, part) in cookie.split(|&byte| byte == b';').enumerate() {
        let (name, value) = match part.iter().position(|&byte| byte == b'=') {
            Some(middle) => (part[..middle].trim_ascii(), part[middle + 1..].trim_ascii()),
            None => (part.trim_ascii(), &b""[..]),
        };
        let is = |other: &str| at > 0 && name.eq_ignore_ascii_case(other.as_bytes());
        let domain = value.strip_prefix(b".").unwrap_or(value);
        if is("domain") && domain.eq_ignore_ascii_case(host.as_bytes()) {
            continue;
        }
        if at > 0 {
            rewritten.push(b';');
        }
        if is("path") && value.starts_with(b"/") {
            rewritten.extend_from_slice(b" Path=");
            rewritten.extend_from_slice(prefix);
            // Below `/shop` the root is `/shop` itself, which `/shop/` would not match.
            rewritten.extend_from_slice(if value == b"/" && !prefix.is_empty() { b"" } else { value });
        } else {
            rewritten.extend_from_slice(part);
        }
    }
    rewritten.into()
}

/// Makes a `Location` that names the server, or a path of its own, one that leads through us.
pub(super) fn rewrite_location(fields: &mut Fields, server: &Server, request: &Request, scheme: Scheme) {
    let prefix = &request.notes.script_name[..];
    let Some(location) = fields.get("location") else { return };
    let rest = ["http://", "https://"].iter().find_map(|scheme| {
        let rest = location.strip_prefix(scheme.as_bytes())?.strip_prefix(server.authority().as_bytes())?;
        (rest.is_empty() || rest.starts_with(b"/") || rest.starts_with(b"?")).then_some(rest)
    });
    let mut rewritten = Vec::new();
    match rest {
        Some(rest) => {
            rewritten.extend_from_slice(scheme.as_str().as_bytes());
            rewritten.extend_from_slice(b"://");
            rewritten.extend_from_slice(request.head.authority().as_bytes());
            rewritten.extend_from_slice(prefix);
            rewritten.extend_from_slice(rest);
        }
        None if location.starts_with(b"/") && !location.starts_with(b"//") && !prefix.is_empty() => {
            rewritten.extend_from_slice(prefix);
            rewritten.extend_from_slice(location);
        }
        None => return,
    }
    fields.remove("location");
    let _ = fields.try_push(Bytes::from_static(b"Location"), Bytes::from(rewritten));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_of_the_server_becomes_one_of_ours() {
        for (cookie, prefix, want) in [
            ("a=1; Domain=app.internal; Path=/; Secure", "", "a=1; Path=/; Secure"),
            ("a=1;domain=.APP.internal", "/shop", "a=1"),
            ("a=1; Domain=example.com", "/shop", "a=1; Domain=example.com"),
            ("a=1; Path=/", "/shop", "a=1; Path=/shop"),
            ("a=1; path=/cart; HttpOnly", "/shop", "a=1; Path=/shop/cart; HttpOnly"),
            ("path=/; Path=x", "/shop", "path=/; Path=x"),
            (
                "a=\"x=y\"; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
                "/s",
                "a=\"x=y\"; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
            ),
        ] {
            assert_eq!(rewrite_cookie(cookie.as_bytes(), "app.internal", prefix.as_bytes()), want, "{cookie}");
        }
    }
}
