//! A request as handlers see it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::{CanonicalPath, RequestBody, RequestHead, TlsSession};

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

/// The two ends of a connection, the same for all its requests. Their texts are made once.
#[derive(Debug)]
pub struct Endpoint {
    client: Option<Peer>,
    server: Option<Peer>,
    scheme: Scheme,
    tls: Option<Box<TlsSession>>,
}

/// One end of a TCP connection.
#[derive(Debug)]
pub struct Peer {
    /// As a socket address.
    pub address: SocketAddr,
    /// The IP address as text; an IPv4 address that came through an IPv6 socket as IPv4.
    pub ip: Box<str>,
    /// The port as text.
    pub port: Box<str>,
}

impl Endpoint {
    /// The two ends; `None` on a Unix socket.
    pub fn new(client: Option<SocketAddr>, server: Option<SocketAddr>, scheme: Scheme) -> Self {
        Self { client: client.map(Peer::new), server: server.map(Peer::new), scheme, tls: None }
    }

    /// The same behind TLS.
    #[must_use]
    pub fn with_tls(mut self, session: TlsSession) -> Self {
        self.scheme = Scheme::Https;
        self.tls = Some(Box::new(session));
        self
    }

    /// The client.
    pub fn client(&self) -> Option<&Peer> {
        self.client.as_ref()
    }

    /// Ourselves.
    pub fn server(&self) -> Option<&Peer> {
        self.server.as_ref()
    }

    /// How the client speaks to us.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// What TLS says, where the client came through it.
    pub fn tls(&self) -> Option<&TlsSession> {
        self.tls.as_deref()
    }
}

impl Peer {
    fn new(address: SocketAddr) -> Self {
        let (ip, port) = (address.ip().to_canonical().to_string(), address.port().to_string());
        Self { address, ip: ip.into(), port: port.into() }
    }
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
