//! A request as handlers see it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::trace::Trace;
use super::{CanonicalPath, HeadEdit, Interim, Method, PathError, RequestBody, RequestHead, RequestId, TlsSession};

/// How the client speaks to us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// The one of this name, in any case.
    pub fn named(name: &[u8]) -> Option<Self> {
        [Self::Http, Self::Https].into_iter().find(|scheme| name.eq_ignore_ascii_case(scheme.as_str().as_bytes()))
    }

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
    /// From hand-over to the first byte of the answer, where its route says it; then 504.
    pub timeout: Option<Duration>,
    /// Sends 1xx ahead of the answer.
    pub interim: Interim,
    /// What was found out about it on its way.
    pub notes: Notes,
}

/// What filters and the connection have found out about a request, beyond what stands in it.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// What it is called in logs, on error pages and by applications (`X-Request-ID`).
    pub id: RequestId,
    /// How the client speaks to the trusted proxy that brought it.
    pub scheme: Option<Scheme>,
    /// Who was authenticated (`REMOTE_USER`).
    pub user: Option<Box<str>>,
    /// The part of the path that was moved into `SCRIPT_NAME`; an application sees only what follows it.
    pub script_name: Bytes,
    /// Whether the handler should begin before the body is there (`request_buffering = false`).
    pub streams_body: bool,
    /// Its part of a trace, where there are traces.
    pub trace: Option<Arc<Trace>>,
}

impl Request {
    /// How the client speaks: to a trusted proxy, where there is one that says so, else to us.
    pub fn scheme(&self) -> Scheme {
        self.notes.scheme.unwrap_or(self.endpoint.scheme())
    }

    /// The same request for another path, which is canonical: with its method, query, fields, body and target, as a front
    /// controller wants it that answers for names that are not there.
    #[must_use]
    pub fn handed_on(mut self, path: &[u8]) -> Self {
        let raw = Bytes::from(CanonicalPath::encode(path, false));
        if let Ok(path) = CanonicalPath::parse(&raw) {
            let query = self.head.query().map(<[u8]>::to_vec);
            self.head = self.head.edited(&HeadEdit { path: Some((&raw, query.as_deref())), ..HeadEdit::default() });
            self.path = path;
        }
        let Notes { id, scheme, trace, .. } = self.notes;
        self.notes = Notes { id, scheme, trace, ..Notes::default() };
        (self.prefix_length, self.timeout) = (0, None);
        self
    }

    /// The request that is answered instead of this one after a local redirect to `path`, as it stands in a URL:
    /// `HEAD` for `HEAD`, else `GET`, from the same client with the same fields but those of a body, without a body
    /// (RFC 3875, section 6.2.2).
    pub fn redirected(&self, path: &[u8], query: Option<&[u8]>) -> Result<Self, PathError> {
        let method = if self.head.method() == Method::Head { Method::Head } else { Method::Get };
        Ok(Self {
            path: CanonicalPath::parse(&Bytes::copy_from_slice(path))?,
            head: self.head.redirected(method, path, query),
            prefix_length: 0,
            body: RequestBody::Empty,
            endpoint: Arc::clone(&self.endpoint),
            received: self.received,
            timeout: None,
            interim: self.interim.clone(),
            notes: Notes {
                id: self.notes.id.clone(),
                scheme: self.notes.scheme,
                trace: self.notes.trace.clone(),
                ..Notes::default()
            },
        })
    }
}
