//! The live page: HTML, CSS and JavaScript that the program carries. It loads nothing from elsewhere and asks for
//! nothing but what is read.

use bytes::Bytes;

use crate::http::{Response, ResponseBody, Status};

/// The page itself.
pub(super) const PAGE: &str = include_str!("live.html");

/// What it loads, by path, with its type.
pub(super) fn part(path: &[u8]) -> Option<(&'static str, &'static str)> {
    match path {
        b"/live.css" => Some(("text/css; charset=utf-8", include_str!("live.css"))),
        b"/live.js" => Some(("text/javascript; charset=utf-8", include_str!("live.js"))),
        _ => None,
    }
}

/// A part of the page. The policy holds even if a name in it were not escaped: no script runs but ours, nothing is
/// loaded from elsewhere, nobody frames it, and the token in its URL goes nowhere.
pub(super) fn response(kind: &'static str, text: &'static str) -> Response {
    let mut response = Response::new(Status::OK).with_body(ResponseBody::Full(Bytes::from_static(text.as_bytes())));
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                  base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    for (name, value) in [
        ("Content-Type", kind),
        ("Content-Security-Policy", policy),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("X-Content-Type-Options", "nosniff"),
        ("Cache-Control", "no-store"),
    ] {
        response.fields.push(name, value);
    }
    response
}
