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
