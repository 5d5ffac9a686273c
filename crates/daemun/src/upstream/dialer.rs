//! Connections to one server, for who speaks a protocol of his own over them and keeps them himself.

use std::io;

use super::settings::{Address, ClientTls, Scheme, ServerSettings};
use super::socket::{Connection, Secured};
use super::tls;

/// Connects to one server, plain or through TLS.
pub struct Dialer {
    address: Address,
    secured: Option<Secured>,
}

impl Dialer {
    /// To `server`; over https it is to speak `protocol` (ALPN).
    pub fn new(server: &ServerSettings, settings: &ClientTls, protocol: &[u8]) -> Result<Self, String> {
        let secured = if server.scheme == Scheme::Https {
            let host = match &server.address {
                Address::Tcp(host, _) => host.trim_start_matches('[').trim_end_matches(']'),
                Address::Unix(_) => "localhost",
            };
            let name = settings.server_name.as_deref().unwrap_or(host);
            let name = tls::server_name(name).map_err(|error| error.to_string())?;
            Some(Secured { connector: tls::connector(settings, protocol)?, name })
        } else {
            None
        };
        Ok(Self { address: server.address.clone(), secured })
    }

    /// Connects. The caller sets the deadline.
    pub async fn connect(&self) -> io::Result<Connection> {
        Connection::open(&self.address, self.secured.as_ref()).await
    }
}
