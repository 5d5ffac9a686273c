//! What names stand for and for how long: A, AAAA and SRV records, asked as a stub asks (RFC 1035, 2782, 7766).
//!
//! 1. `system` reads `/etc/hosts`, which answers first, and `/etc/resolv.conf`, which says whom to ask and what else a name
//!    may mean. Both anew for each look-up: it happens once in the life of a record, and what changes there holds at once.
//! 2. `ask` sends a question to one name server after the other, over UDP, and over TCP where an answer is too long.
//! 3. `message` is the bytes of both.
//!
//! Keeps nothing: who looks a name up knows what the last answer was. Must not know what a name is looked up for.

mod ask;
mod message;
mod system;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use ask::Asked;
use message::{Data, Kind};
use system::System;

/// How long one look-up may take, whatever `/etc/resolv.conf` says of each question.
const DEADLINE: Duration = Duration::from_secs(15);

/// How long what stands in `/etc/hosts` holds: nothing tells when the file changes.
const HOSTS_TTL: Duration = Duration::from_secs(5);

/// The port of name servers.
const PORT: u16 = 53;

/// Looks names up.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Resolver {
    /// Whom to ask; none: as the system does.
    servers: Vec<NameServer>,
}

/// A name server.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct NameServer {
    /// Where it is.
    pub address: SocketAddr,
    /// Whether it is asked over TCP from the first: some leave records out over UDP and do not say so.
    pub is_tcp: bool,
}

/// What was found, and for how long it holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Records<T> {
    /// In the order of the answer.
    pub found: Vec<T>,
    /// The shortest time of those that led here.
    pub ttl: Duration,
}

/// The addresses of a name: each family may be known without the other.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// A records.
    pub v4: Result<Records<Ipv4Addr>, ResolveError>,
    /// AAAA records.
    pub v6: Result<Records<Ipv6Addr>, ResolveError>,
}

/// An SRV record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Service {
    /// Those with the lowest are asked first.
    pub priority: u16,
    /// The share among those with the same priority.
    pub weight: u16,
    /// Its port.
    pub port: u16,
    /// The name of its host.
    pub target: String,
}

/// Why a name's records are not known.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ResolveError {
    /// The name servers know that there is none.
    #[error("there is no such name")]
    NoName,
    /// The name is there without a record of this kind.
    #[error("it has no record of that kind")]
    NoRecord,
    /// A name server would not or could not say.
    #[error("{0} {1}")]
    Refused(NameServer, &'static str),
    /// None has answered.
    #[error("{0} does not answer")]
    Silent(NameServer),
    /// It cannot be reached, or what it says is no answer.
    #[error("{0}: {1}")]
    Broken(NameServer, Arc<io::Error>),
    /// There is nobody to ask.
    #[error("/etc/resolv.conf names no server")]
    NoServer,
    /// It all took too long.
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Late,
}

impl ResolveError {
    /// Whether it is certain that there are no records.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::NoName | Self::NoRecord)
    }
}

impl Resolver {
    /// One that asks these, and them alone; none: as the system does.
    pub fn new(servers: Vec<NameServer>) -> Self {
        Self { servers }
    }

    /// The addresses of a name.
    pub async fn addresses(&self, name: &str) -> Addresses {
        let late = || Addresses { v4: Err(ResolveError::Late), v6: Err(ResolveError::Late) };
        tokio::time::timeout(DEADLINE, self.find_addresses(name)).await.unwrap_or_else(|_| late())
    }

    /// The hosts and ports of a service such as `_http._tcp.app.internal`.
    pub async fn services(&self, name: &str) -> Result<Records<Service>, ResolveError> {
        tokio::time::timeout(DEADLINE, self.find_services(name)).await.unwrap_or(Err(ResolveError::Late))
    }

    async fn find_addresses(&self, name: &str) -> Addresses {
        let system = self.system().await;
        if let Some((v4, v6)) = system.hosts(name) {
            return Addresses { v4: of_hosts(v4), v6: of_hosts(v6) };
        }
        let mut last = Addresses { v4: Err(ResolveError::NoName), v6: Err(ResolveError::NoName) };
        for candidate in system.names(name) {
            let (v4, v6) =
                tokio::join!(ask::ask(&system, &candidate, Kind::V4), ask::ask(&system, &candidate, Kind::V6));
            last = Addresses {
                v4: only(v4, |data| if let Data::V4(address) = data { Some(address) } else { None }),
                v6: only(v6, |data| if let Data::V6(address) = data { Some(address) } else { None }),
            };
            let is_missing = last.v4.as_ref().is_err_and(ResolveError::is_final)
                && last.v6.as_ref().is_err_and(ResolveError::is_final);
            if !is_missing {
                break;
            }
        }
        last
    }

    async fn find_services(&self, name: &str) -> Result<Records<Service>, ResolveError> {
        let system = self.system().await;
        let mut last = Err(ResolveError::NoName);
        for candidate in system.names(name) {
            let asked = ask::ask(&system, &candidate, Kind::Service).await;
            last = only(asked, |data| if let Data::Service(service) = data { Some(service) } else { None });
            if !last.as_ref().is_err_and(ResolveError::is_final) {
                break;
            }
        }
        last
    }

    async fn system(&self) -> System {
        if !self.servers.is_empty() {
            return System::of_servers(self.servers.clone());
        }
        // Files may lie on a disk that sleeps.
        tokio::task::spawn_blocking(System::read).await.unwrap_or_default()
    }
}

fn of_hosts<T>(found: Vec<T>) -> Result<Records<T>, ResolveError> {
    if found.is_empty() { Err(ResolveError::NoRecord) } else { Ok(Records { found, ttl: HOSTS_TTL }) }
}

/// The records of one kind.
fn only<T>(asked: Asked, of: impl Fn(Data) -> Option<T>) -> Result<Records<T>, ResolveError> {
    let Records { found, ttl } = asked?;
    let found: Vec<T> = found.into_iter().filter_map(of).collect();
    if found.is_empty() { Err(ResolveError::NoRecord) } else { Ok(Records { found, ttl }) }
}

// === impl NameServer ===

impl FromStr for NameServer {
    type Err = String;

    /// Reads `127.0.0.1`, `127.0.0.1:5353`, `[::1]:5353`, each also behind `tcp://` or `udp://`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (is_tcp, rest) = match text.split_once("://") {
            None => (false, text),
            Some(("udp", rest)) => (false, rest),
            Some(("tcp", rest)) => (true, rest),
            Some(_) => (false, ""),
        };
        let bare = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(rest);
        let address = bare.parse::<IpAddr>().map(|address| SocketAddr::new(address, PORT));
        let address = address.or_else(|_| rest.parse::<SocketAddr>());
        let address = address.ok().filter(|address| address.port() > 0);
        address.map(|address| Self { address, is_tcp }).ok_or_else(|| {
            format!("expected the address of a name server such as \"127.0.0.1:5353\" or \"tcp://127.0.0.1\", found {text:?}")
        })
    }
}

impl fmt::Display for NameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the name server {}", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_server_is_an_address() {
        let of = |address: &str, is_tcp| Some(NameServer { address: address.parse().unwrap(), is_tcp });
        for (text, want) in [
            ("127.0.0.1", of("127.0.0.1:53", false)),
            ("127.0.0.1:5353", of("127.0.0.1:5353", false)),
            ("::1", of("[::1]:53", false)),
            ("[::1]", of("[::1]:53", false)),
            ("tcp://[::1]:8600", of("[::1]:8600", true)),
            ("udp://10.0.0.1", of("10.0.0.1:53", false)),
            ("dns.internal", None),
            ("127.0.0.1:0", None),
            ("https://1.1.1.1", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), want, "{text}");
        }
    }
}
