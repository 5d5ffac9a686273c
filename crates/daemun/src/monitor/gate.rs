//! Who may see what on the monitor listener.

use crate::http::Request;

/// The rules of one listener.
pub(super) struct Gate {
    token: String,
}

/// How far a request came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Passed {
    /// Everything is open to it.
    Open,
    /// What needs no token.
    Refused,
}

impl Gate {
    pub(super) fn new(token: &str) -> Self {
        Self { token: token.to_owned() }
    }

    /// The host that was asked for must be an address or `localhost`: a page of another site reaches us only by a name of
    /// its own that was made to resolve to this machine. Health and metrics need no more; the rest needs the token, but
    /// from this machine.
    pub(super) fn pass(&self, request: &Request) -> Result<Passed, &'static str> {
        let host = request.head.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let named = bare.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok();
        if !named && request.endpoint.server().is_some() {
            return Err("ask by address or as localhost: a name could be anybody's");
        }
        let loopback = match (request.endpoint.client(), request.endpoint.server()) {
            (Some(client), Some(_)) => client.address.ip().to_canonical().is_loopback(),
            // A Unix socket's access bits say who may.
            _ => true,
        };
        let open = loopback || self.has_token(request);
        Ok(if open { Passed::Open } else { Passed::Refused })
    }

    /// Whether the token came along, in `Authorization: Bearer` or in the query.
    pub(super) fn has_token(&self, request: &Request) -> bool {
        let head = &request.head;
        let bearer = head.field("authorization").and_then(|value| value.strip_prefix(b"Bearer "));
        let mut query = head.query().unwrap_or_default().split(|&byte| byte == b'&');
        let given = bearer.or_else(|| query.find_map(|pair| pair.strip_prefix(b"token=")));
        given.is_some_and(|given| is_same(given, self.token.as_bytes()))
    }
}

/// In a time that does not tell how much was right. Nothing equals an empty token.
fn is_same(given: &[u8], token: &[u8]) -> bool {
    let difference = given.iter().zip(token).fold(0, |sum, (one, other)| sum | (one ^ other));
    !token.is_empty() && given.len() == token.len() && difference == 0
}
