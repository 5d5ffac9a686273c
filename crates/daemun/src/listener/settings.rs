//! Where the server listens.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One listener of `[server] listen`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ListenerSettings {
    /// Where.
    pub address: Address,
    /// Whether clients speak TLS on it.
    pub tls: bool,
    /// Access bits of a Unix socket, for instance `0o660`; default: as the umask says.
    pub mode: Option<u32>,
    /// Group of a Unix socket.
    pub group: Option<String>,
    /// What is answered there.
    #[serde(default)]
    pub role: Role,
    /// Whether trusted proxies say in a PROXY header who the client is. Only theirs is read.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// What clients speak on it.
    #[serde(default)]
    pub protocol: Protocol,
}

impl ListenerSettings {
    /// A listener for clients, with nothing else said of it.
    pub fn at(address: Address) -> Self {
        Self {
            address,
            tls: false,
            mode: None,
            group: None,
            role: Role::Clients,
            proxy_protocol: false,
            protocol: Protocol::Http,
        }
    }
}

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Protocol {
    /// HTTP.
    #[default]
    Http,
    /// FastCGI, by another web server.
    Fastcgi,
    /// SCGI, the same.
    Scgi,
    /// uwsgi, the same.
    Uwsgi,
}

impl fmt::Display for Protocol {
    /// As it is written in `protocol`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Fastcgi => "fastcgi",
            Self::Scgi => "scgi",
            Self::Uwsgi => "uwsgi",
        })
    }
}

/// What a listener is for.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Role {
    /// What is being served.
    #[default]
    Clients,
    /// Health and metrics.
    Health,
    /// Health, metrics and how everything is.
    Monitor,
}

/// An address to listen on.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Address {
    /// `HOST:PORT`.
    Tcp(SocketAddr),
    /// `unix:PATH`.
    Unix(PathBuf),
    /// `fd:N`: a socket that was bound and listened on by whoever started us.
    Inherited(i32),
}

impl fmt::Display for Address {
    /// As it is written in `listen`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Inherited(number) => write!(f, "fd:{number}"),
        }
    }
}
