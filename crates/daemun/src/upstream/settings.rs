//! What an upstream is: its servers, how one is chosen, and when one is left alone.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::resolver::NameServer;

/// `[upstream.NAME]`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct UpstreamSettings {
    /// Its name in the file.
    pub name: String,
    /// The servers.
    pub servers: Vec<ServerSettings>,
    /// How one is chosen.
    pub balance: Balance,
    /// Whether a client stays with the server that it came to first.
    pub sticky: Option<Sticky>,
    /// Asking servers whether they are well.
    pub health: Option<HealthSettings>,
    /// Failures in a row after which a server gets nothing for a while. Default 3.
    pub failures: u32,
    /// For how long; each further time it is twice as long, up to [`MOST_EJECTIONS`] times. Default 10 s.
    pub eject: Duration,
    /// Percent of the servers: with fewer well than this, health is not looked at, since those that are left would be
    /// overrun. Default 0: only when none is left.
    pub panic_threshold: u32,
    /// Further servers that a request may be sent to where that is safe. Default 2.
    pub retries: u32,
    /// Retries in percent of the requests: a failing upstream is not asked three times as much. Default 20.
    pub retry_budget: u32,
    /// How long a server takes to get its full share after it came back. Default 0.
    pub slow_start: Duration,
    /// Requests that may wait for a place among `max_connections`. Default 1000.
    pub queue_max: usize,
    /// How long one may wait. Default 10 s.
    pub queue_timeout: Duration,
    /// To an established connection, TLS included. Default 5 s.
    pub connect_timeout: Duration,
    /// How long a server may bring nothing while an answer is expected. Default 60 s.
    pub read_timeout: Duration,
    /// How long a server may take nothing of a request. Default 60 s.
    pub send_timeout: Duration,
    /// How long both sides of a tunnel may be silent. Default 1 h.
    pub tunnel_timeout: Duration,
    /// Connections that are kept to each server while nothing is asked. Default 64.
    pub keep_alive: usize,
    /// How long. Default 55 s: most servers close after 60 s or more.
    pub keep_alive_timeout: Duration,
    /// What servers see as `Host`.
    pub host: HostField,
    /// Whether a `Location` that names the server is made to name us.
    pub rewrite_location: bool,
    /// Whether a `Set-Cookie` for the server's own name and paths is made to be for ours.
    pub rewrite_cookies: bool,
    /// Whether answers are read ahead of slow clients, and how far. Default 1 MiB in memory and 1 GiB on disk each.
    pub response_buffering: Option<ResponseBuffering>,
    /// Whether servers that are slower than the others get nothing for a while. Default no.
    pub slow: Option<SlowSettings>,
    /// After which time without an answer another server is asked as well, where that is safe. Default never.
    pub hedge: Option<Duration>,
    /// How `https` servers are verified, and what they are shown.
    pub tls: ClientTls,
    /// The program that is the only server, where the supervisor starts it.
    pub spawn: Option<SpawnSettings>,
    /// Who is asked for names that are followed; empty: whom the system asks.
    pub resolver: Vec<NameServer>,
}

/// One server.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ServerSettings {
    /// As it was written; its name in logs.
    pub url: String,
    /// How it is spoken to.
    pub scheme: Scheme,
    /// Where it is.
    pub address: Address,
    /// Whether it stands for as many servers as its name has records, now and later.
    pub follows: Option<Follows>,
    /// Its share. Default 1.
    pub weight: u32,
    /// Whether it is asked only when no other is left.
    pub backup: bool,
    /// Requests at a time; `None`: as many as there are.
    pub max_connections: Option<usize>,
}

/// `spawn`: a FastCGI program that the supervisor starts, with a listening socket as its standard input (FastCGI, section
/// 2.2), and starts again when it ends.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct SpawnSettings {
    /// The program with its arguments.
    pub command: Vec<String>,
    /// How many of it; each answers one request at a time. Default 4.
    pub processes: u32,
    /// Environment beyond `PATH`.
    pub env: Vec<(String, String)>,
    /// Its working folder.
    pub directory: PathBuf,
    /// User that it runs as, where the server was started as root.
    pub user: Option<String>,
    /// Its group.
    pub group: Option<String>,
}

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Scheme {
    /// HTTP/1.1.
    Http,
    /// HTTP/1.1 through TLS.
    Https,
    /// HTTP/2 without TLS.
    H2c,
    /// HTTP/2 through TLS.
    H2,
    /// FastCGI.
    Fastcgi,
    /// SCGI.
    Scgi,
    /// uwsgi, the protocol.
    Uwsgi,
}

/// Where a server is.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Address {
    /// Name or address, and port. A name is looked up for each connection.
    Tcp(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

/// The records that a name is followed by.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Follows {
    /// A and AAAA.
    Addresses,
    /// SRV, with the ports, priorities and weights.
    Services,
}

/// How a server is chosen among those that are well.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Balance {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// The one with the fewest requests for its weight.
    LeastConnections,
    /// The better of two that are drawn by weight: nearly as even, and several fronts do not run to the same one.
    RandomTwo,
    /// The same for the same key, also when others come and go.
    Hash(HashKey),
}

/// What requests with the same server have in common.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum HashKey {
    /// Their client's address.
    Client,
    /// The value of this field.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
}

/// `sticky`.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub struct Sticky {
    /// The name of the cookie.
    pub cookie: String,
    /// What the cookie is signed with; `None`: a key of this front's own, gone when it ends.
    pub key: Option<String>,
}

/// `health`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct HealthSettings {
    /// What is asked.
    pub path: String,
    /// `Host` of the question; `None`: the server's own name.
    pub host: Option<String>,
    /// The status that is expected; `None`: any from 200 to 399.
    pub status: Option<u16>,
    /// What must stand in the first 64 KiB of the body.
    pub body: Option<String>,
    /// From one question to the next. Default 5 s.
    pub interval: Duration,
    /// How long an answer may take. Default 2 s.
    pub timeout: Duration,
    /// Wrong answers in a row after which a server gets nothing. Default 3.
    pub unhealthy: u32,
    /// Right ones after which it is asked again. Default 2.
    pub healthy: u32,
}

/// `response_buffering`: bytes of one answer that are read ahead of its client.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ResponseBuffering {
    /// In memory.
    pub memory: usize,
    /// In a file.
    pub disk: u64,
}

impl Default for ResponseBuffering {
    /// Most pages in memory; on disk as much as nginx takes.
    fn default() -> Self {
        Self { memory: 1 << 20, disk: 1 << 30 }
    }
}

/// `slow`: when a server counts as slower than the others.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SlowSettings {
    /// Times the median of the others.
    pub times: u32,
    /// What is never slow, whatever the others take. Default 100 ms.
    pub over: Duration,
    /// Answers that are looked at together. Default 20.
    pub answers: u32,
}

/// What servers see as `Host`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum HostField {
    /// What the client sent.
    #[default]
    Client,
    /// The server's own name.
    Server,
    /// This.
    Fixed(String),
}

/// TLS towards servers. Files are read by whoever reads the settings: the front opens no paths.
#[derive(Clone, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ClientTls {
    /// Authorities in PEM; `None`: those that browsers trust.
    pub authorities: Option<String>,
    /// The name in their certificates; `None`: the one in the URL.
    pub server_name: Option<String>,
    /// Our own chain and key in PEM.
    pub certificate: Option<(String, String)>,
    /// Whether nothing is verified.
    pub unverified: bool,
}

/// How often the time of an ejection doubles.
pub const MOST_EJECTIONS: u32 = 5;

impl UpstreamSettings {
    /// An upstream of these servers with everything else as it usually is.
    pub fn new(name: impl Into<String>, servers: Vec<ServerSettings>) -> Self {
        Self {
            name: name.into(),
            servers,
            balance: Balance::default(),
            sticky: None,
            health: None,
            failures: 3,
            eject: Duration::from_secs(10),
            panic_threshold: 0,
            retries: 2,
            retry_budget: 20,
            slow_start: Duration::ZERO,
            queue_max: 1000,
            queue_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(60),
            tunnel_timeout: Duration::from_secs(3600),
            keep_alive: 64,
            keep_alive_timeout: Duration::from_secs(55),
            host: HostField::default(),
            rewrite_location: false,
            rewrite_cookies: false,
            response_buffering: Some(ResponseBuffering::default()),
            slow: None,
            hedge: None,
            tls: ClientTls::default(),
            spawn: None,
            resolver: Vec::new(),
        }
    }
}

impl ServerSettings {
    /// Reads a URL such as `http://10.0.0.5:8080`, `https://app.internal`, `http://unix:/run/app.sock` or
    /// `dns+http://app.internal:8080`.
    pub fn parse(url: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "expected a server such as \"http://10.0.0.5:8080\" or \"http://unix:/run/app.sock\", found {url:?}"
            )
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let scheme = scheme.to_ascii_lowercase();
        let (is_followed, scheme) = scheme.strip_prefix("dns+").map_or((false, &*scheme), |scheme| (true, scheme));
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "h2c" => Scheme::H2c,
            "h2" => Scheme::H2,
            "fastcgi" => Scheme::Fastcgi,
            "scgi" => Scheme::Scgi,
            "uwsgi" => Scheme::Uwsgi,
            other => {
                return Err(format!(
                    "the scheme {other:?} is none of `http`, `https`, `h2c`, `h2`, `fastcgi`, `scgi` and `uwsgi`, each also \
                     behind `dns+`, in {url:?}"
                ));
            }
        };
        let address = if let Some(path) = rest.strip_prefix("unix:") {
            if is_followed {
                return Err(format!("a Unix socket has no name to look up, in {url:?}"));
            }
            if !path.starts_with('/') {
                return Err(format!("the path of a Unix socket begins with a slash, in {url:?}"));
            }
            Address::Unix(path.into())
        } else {
            let authority = rest.strip_suffix('/').unwrap_or(rest);
            if authority.contains(['/', '?', '#']) {
                return Err(format!("a server has no path (`rewrite` changes paths), found {url:?}"));
            }
            authority_of(authority, scheme).ok_or_else(wrong)?
        };
        let follows = if is_followed { Some(Follows::of(&address, rest, url)?) } else { None };
        Ok(Self { url: url.to_owned(), scheme, address, follows, weight: 1, backup: false, max_connections: None })
    }

    /// What stands in `Host` for the server itself: without the port that is usual.
    pub fn authority(&self) -> String {
        match &self.address {
            Address::Tcp(..) if self.follows == Some(Follows::Services) => self.host().to_owned(),
            Address::Tcp(host, port) if *port == self.scheme.port() => host.clone(),
            Address::Tcp(host, port) => format!("{host}:{port}"),
            Address::Unix(_) => "localhost".to_owned(),
        }
    }

    /// Whether an operator may mean it by this: its URL, host and port, or host.
    pub fn is_called(&self, name: &str) -> bool {
        name == self.url || name == self.authority() || name == self.host()
    }

    /// Its name for TLS, without brackets. Of a service it is the domain (RFC 6125, section 6.2.1): the names of its hosts
    /// come from whoever answers the question.
    pub fn host(&self) -> &str {
        match &self.address {
            Address::Tcp(host, _) if self.follows == Some(Follows::Services) => {
                let domain = host.splitn(3, '.').nth(2).unwrap_or(host);
                domain.trim_end_matches('.')
            }
            Address::Tcp(host, _) => host.trim_start_matches('[').trim_end_matches(']'),
            Address::Unix(_) => "localhost",
        }
    }
}

impl Follows {
    /// The records that the name in `address` is followed by: those of a service where it is that of one.
    fn of(address: &Address, authority: &str, url: &str) -> Result<Self, String> {
        let Address::Tcp(name, _) = address else { return Err(format!("{url:?} has no name to look up")) };
        if name.starts_with('[') || name.parse::<IpAddr>().is_ok() {
            return Err(format!("an address needs no look-up: leave `dns+` out of {url:?}"));
        }
        if !name.starts_with('_') {
            return Ok(Self::Addresses);
        }
        if name.splitn(3, '.').nth(2).is_none_or(str::is_empty) {
            return Err(format!("a service is written as \"dns+http://_http._tcp.app.internal\", found {url:?}"));
        }
        if authority.contains(':') {
            return Err(format!("the records of a service say its ports: leave the one out of {url:?}"));
        }
        Ok(Self::Services)
    }
}

impl Scheme {
    /// What stands in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
            Self::H2 => "h2",
            Self::Fastcgi => "fastcgi",
            Self::Scgi => "scgi",
            Self::Uwsgi => "uwsgi",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Http | Self::H2c => 80,
            Self::Https | Self::H2 => 443,
            // What php-fpm, the SCGI of Python and the documents of uWSGI listen on.
            Self::Fastcgi => 9000,
            Self::Scgi => 4000,
            Self::Uwsgi => 3031,
        }
    }

    /// Whether HTTP is spoken.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Https | Self::H2c | Self::H2)
    }

    /// Whether that is HTTP/2.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::H2c | Self::H2)
    }

    /// Whether it is spoken through TLS.
    pub fn is_secure(self) -> bool {
        matches!(self, Self::Https | Self::H2)
    }
}

fn authority_of(text: &str, scheme: Scheme) -> Option<Address> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok().filter(|&port| port > 0)?),
        _ => (text, scheme.port()),
    };
    let is_name = |host: &str| {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
    };
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_valid = match inner {
        Some(inner) => matches!(inner.parse(), Ok(IpAddr::V6(_))),
        None => is_name(host),
    };
    is_valid.then(|| Address::Tcp(host.to_ascii_lowercase(), port))
}

impl Balance {
    /// Reads `round-robin`, `least-connections`, `random-two`, `hash(client)`, `hash(header NAME)` or
    /// `hash(cookie NAME)`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let key = text.strip_prefix("hash(").and_then(|rest| rest.strip_suffix(')'));
        let found = match (text, key.map(|key| key.split_once([' ', ':']).unwrap_or((key, "")))) {
            ("round-robin", _) => Some(Self::RoundRobin),
            ("least-connections", _) => Some(Self::LeastConnections),
            ("random-two", _) => Some(Self::RandomTwo),
            (_, Some(("client", ""))) => Some(Self::Hash(HashKey::Client)),
            (_, Some(("header", name))) if is_token(name.trim()) => {
                Some(Self::Hash(HashKey::Header(name.trim().to_owned())))
            }
            (_, Some(("cookie", name))) if is_token(name.trim()) => {
                Some(Self::Hash(HashKey::Cookie(name.trim().to_owned())))
            }
            _ => None,
        };
        found.ok_or_else(|| {
            format!(
                "expected `round-robin`, `least-connections`, `random-two`, `hash(client)`, `hash(header NAME)` or \
                 `hash(cookie NAME)`, found {text:?}"
            )
        })
    }
}

/// Whether this can be the name of a field or a cookie.
pub fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

impl fmt::Debug for Sticky {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sticky({})", self.cookie)
    }
}

impl fmt::Debug for ClientTls {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("authorities", &self.authorities.is_some())
            .field("server_name", &self.server_name)
            .field("certificate", &self.certificate.is_some())
            .field("unverified", &self.unverified)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_scheme_and_a_place() {
        let tcp = |host: &str, port| Some(Address::Tcp(host.to_owned(), port));
        for (url, want, authority) in [
            ("http://10.0.0.5:8080", tcp("10.0.0.5", 8080), "10.0.0.5:8080"),
            ("http://app/", tcp("app", 80), "app"),
            ("https://App.Internal", tcp("app.internal", 443), "app.internal"),
            ("http://[::1]:81", tcp("[::1]", 81), "[::1]:81"),
            ("http://unix:/run/a.sock", Some(Address::Unix("/run/a.sock".into())), "localhost"),
            ("fastcgi://127.0.0.1", tcp("127.0.0.1", 9000), "127.0.0.1"),
            ("scgi://unix:/run/a.sock", Some(Address::Unix("/run/a.sock".into())), "localhost"),
            ("uwsgi://app:3032", tcp("app", 3032), "app:3032"),
            ("http://", None, ""),
            ("http://a:0", None, ""),
            ("http://a:99999", None, ""),
            ("http://a/b", None, ""),
            ("http://a b", None, ""),
            ("http://u@a", None, ""),
            ("http://unix:run", None, ""),
            ("ftp://a", None, ""),
            ("a:80", None, ""),
        ] {
            let found = ServerSettings::parse(url).ok();
            assert_eq!(found.as_ref().map(|server| server.address.clone()), want, "{url}");
            assert_eq!(found.map(|server| server.authority()).unwrap_or_default(), authority, "{url}");
        }
    }

    #[test]
    fn a_name_that_is_followed_has_addresses_or_is_that_of_a_service() {
        for (url, want) in [
            ("dns+http://app:8080", Some((Follows::Addresses, "app:8080", "app"))),
            ("DNS+HTTPS://App.internal", Some((Follows::Addresses, "app.internal", "app.internal"))),
            ("dns+fastcgi://php", Some((Follows::Addresses, "php", "php"))),
            ("dns+https://_https._tcp.app.internal", Some((Follows::Services, "app.internal", "app.internal"))),
            ("dns+http://_http._tcp.app.internal:80", None),
            ("dns+http://_http._tcp", None),
            ("dns+http://10.0.0.5:80", None),
            ("dns+http://[::1]:80", None),
            ("dns+http://unix:/run/a.sock", None),
            ("dns+ftp://app", None),
        ] {
            let found = ServerSettings::parse(url).ok();
            let found = found.as_ref().map(|found| (found.follows, found.authority(), found.host().to_owned()));
            let want = want.map(|(follows, authority, host)| (Some(follows), authority.to_owned(), host.to_owned()));
            assert_eq!(found, want, "{url}");
        }
    }

    #[test]
    fn a_balance_has_one_of_the_known_names() {
        assert_eq!(Balance::parse("hash(client)"), Ok(Balance::Hash(HashKey::Client)));
        assert_eq!(Balance::parse("hash(cookie sid)"), Ok(Balance::Hash(HashKey::Cookie("sid".into()))));
        assert_eq!(Balance::parse("hash(header:X-User)"), Ok(Balance::Hash(HashKey::Header("X-User".into()))));
        for wrong in ["", "hash", "hash()", "hash(header)", "hash(client x)", "fastest"] {
            assert!(Balance::parse(wrong).is_err(), "{wrong}");
        }
    }
}
