//! Proxies whose word about a request counts.

use std::net::IpAddr;

use super::{Endpoint, RequestHead, Scheme};

/// Who may say where a request came from.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<(IpAddr, u8)>);

impl TrustedProxies {
    /// Networks as address and prefix length.
    pub fn new(networks: Vec<(IpAddr, u8)>) -> Self {
        Self(networks)
    }

    /// Where a request came from: the client, or behind trusted proxies the last address in `X-Forwarded-For` that is
    /// not one of them; whatever stands before it, anybody could have written. `None` for a Unix socket whose peer says
    /// nothing.
    pub fn client(&self, head: &RequestHead, endpoint: &Endpoint) -> Option<IpAddr> {
        let peer = endpoint.client().map(|client| client.address.ip().to_canonical());
        if peer.is_some() && self.0.is_empty() || !self.trusts(endpoint) {
            return peer;
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

    /// How the client speaks to a trusted proxy, where that says so (`X-Forwarded-Proto`).
    pub fn scheme(&self, head: &RequestHead) -> Option<Scheme> {
        match head.field("x-forwarded-proto")? {
            said if said.eq_ignore_ascii_case(b"https") => Some(Scheme::Https),
            said if said.eq_ignore_ascii_case(b"http") => Some(Scheme::Http),
            _ => None,
        }
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
