//! A request as handlers see it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::{CanonicalPath, RequestBody, RequestHead};

/// How the client speaks to us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As it stands in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The two ends of a connection, the same for all its requests.
#[derive(Debug)]
pub struct Endpoint {
    /// The client's address; `None` on a Unix socket.
    pub client: Option<SocketAddr>,
    /// Our own address; `None` on a Unix socket.
    pub server: Option<SocketAddr>,
    /// How the client speaks to us.
    pub scheme: Scheme,
}

/// A request on its way through the filters to its handler.
#[derive(Debug)]
pub struct Request {
    /// What was asked.
    pub head: RequestHead,
    /// Where, canonical: what rules, routes and files are matched against.
    pub path: CanonicalPath,
    /// Bytes of `path` that the matched rule's prefix covers; what follows is the handler's own part.
    pub prefix_length: usize,
    /// The body.
    pub body: RequestBody,
    /// Who asked.
    pub endpoint: Arc<Endpoint>,
    /// When its head was complete.
    pub received: Instant,
}
