//! Proxies whose word about a request counts.

use std::net::IpAddr;

use super::forwarded::hops;
use super::{Endpoint, RequestHead, Scheme};

/// Who may say where a request came from.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<(IpAddr, u8)>);

impl TrustedProxies {
    /// Networks as address and prefix length.
    pub fn new(networks: Vec<(IpAddr, u8)>) -> Self {
        Self(networks)
    }

    /// Where a request came from: the client, or behind trusted proxies the last address in `X-Forwarded-For` or
    /// [`Forwarded`](Self::standard) that is not one of them; whatever stands before it, anybody could have written.
    /// `None` for a Unix socket whose peer says nothing.
    pub fn client(&self, head: &RequestHead, endpoint: &Endpoint) -> Option<IpAddr> {
        let peer = endpoint.client().map(|client| client.address.ip().to_canonical());
        if peer.is_some() && self.0.is_empty() || !self.trusts(endpoint) {
            return peer;
        }
        if let Some(standard) = self.standard(head) {
            return standard.clients.first().copied().or(peer);
        }
        let mut found = peer;
        let lines: Vec<&[u8]> = head.field_values("x-forwarded-for").collect();
        for said in lines.iter().rev().flat_map(|line| line.rsplit(|&byte| byte == b',')) {
            let Some(address) = address(said) else { break };
            found = Some(address);
            if !self.contains(address) {
                break;
            }
        }
        found
    }

    /// How the client speaks to a trusted proxy, where that says so (`X-Forwarded-Proto`, `Forwarded`).
    pub fn scheme(&self, head: &RequestHead) -> Option<Scheme> {
        match head.field("x-forwarded-proto") {
            Some(said) => Scheme::named(said),
            None => self.standard(head)?.scheme,
        }
    }

    /// What trusted proxies say in `Forwarded` (RFC 7239). It counts only where none of `X-Forwarded-For`, `-Proto` and
    /// `-Host` is there: most proxies write these and let a client's `Forwarded` through as it is.
    pub fn standard<'a>(&self, head: &'a RequestHead) -> Option<Standard<'a>> {
        head.field("forwarded")?;
        if ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"].iter().any(|name| head.field(name).is_some()) {
            return None;
        }
        let mut standard = Standard::default();
        for hop in hops(head) {
            let Some(hop) = hop else { break };
            standard.scheme = hop.scheme.or(standard.scheme);
            standard.host = hop.host.or(standard.host);
            let Some(client) = hop.client else { break };
            standard.clients.insert(0, client);
            if !self.contains(client) {
                break;
            }
        }
        Some(standard)
    }

    /// Whether this is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|&(network, bits)| within(address, network, bits))
    }

    /// Whether forwarded fields of this client count. Peers on Unix sockets are trusted.
    pub fn trusts(&self, endpoint: &Endpoint) -> bool {
        endpoint.client().is_none_or(|client| self.contains(client.address.ip().to_canonical()))
    }
}

/// What `Forwarded` says, as far as it is believed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Standard<'a> {
    /// The client, then the proxies between it and the one that we speak with.
    pub clients: Vec<IpAddr>,
    /// How the client speaks to the first of them.
    pub scheme: Option<Scheme>,
    /// Which host it asked for.
    pub host: Option<&'a [u8]>,
}

/// An address as proxies write it: bare, with a port, or in brackets.
fn address(said: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(said).ok()?.trim();
    let bare = text.parse::<IpAddr>().ok().or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|at| at.ip()));
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    bare.or_else(bracketed).map(|address| address.to_canonical())
}

/// Whether `address` lies in a network.
pub(crate) fn within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            address.to_bits() & mask == network.to_bits() & mask
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            address.to_bits() & mask == network.to_bits() & mask
        }
        _ => false,
    }
}
