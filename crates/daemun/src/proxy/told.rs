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
