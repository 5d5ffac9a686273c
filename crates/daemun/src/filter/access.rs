//! `allow` and `deny`: who may, by address.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::http::within;

/// Networks that may and that may not, as address and bits.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct AccessSettings {
    /// Who may. If there is any, nobody else may.
    pub allow: Vec<(IpAddr, u8)>,
    /// Who may not.
    pub deny: Vec<(IpAddr, u8)>,
}

impl AccessSettings {
    /// Whether a client may. The narrowest network that it is in decides; of two alike `deny`. Without an address (a
    /// Unix socket) it is in none.
    pub(super) fn lets_in(&self, client: Option<IpAddr>) -> bool {
        let allowed = narrowest(&self.allow, client);
        let denied = narrowest(&self.deny, client);
        match (allowed, denied) {
            (Some(allowed), Some(denied)) => allowed > denied,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => self.allow.is_empty(),
        }
    }

    pub(super) fn describe(&self) -> String {
        let list = |networks: &[(IpAddr, u8)]| {
            let texts: Vec<String> = networks.iter().map(|(address, bits)| format!("{address}/{bits}")).collect();
            texts.join(", ")
        };
        match (&self.allow[..], &self.deny[..]) {
            (allow, []) => format!("only {}", list(allow)),
            ([], deny) => format!("all but {}", list(deny)),
            (allow, deny) => format!("only {}, but not {}; the narrowest decides", list(allow), list(deny)),
        }
    }
}

fn narrowest(networks: &[(IpAddr, u8)], client: Option<IpAddr>) -> Option<u8> {
    let client = client?;
    networks.iter().filter(|&&(network, bits)| within(client, network, bits)).map(|&(_, bits)| bits).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_network_decides() {
        let net = |text: &str| {
            let (address, bits) = text.split_once('/').unwrap();
            (address.parse().unwrap(), bits.parse().unwrap())
        };
        for (allow, deny, client, want) in [
            (&["10.0.0.0/8"][..], &[][..], Some("10.1.2.3"), true),
            (&["10.0.0.0/8"], &[], Some("11.1.2.3"), false),
            (&["10.0.0.0/8"], &[], None, false),
            (&[], &["10.0.0.0/8"], Some("10.1.2.3"), false),
            (&[], &["10.0.0.0/8"], Some("2001:db8::1"), true),
            (&[], &["10.0.0.0/8"], None, true),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], Some("10.1.2.3"), false),
            (&["10.1.0.0/16"], &["10.0.0.0/8"], Some("10.1.2.3"), true),
            (&["10.0.0.0/8"], &["10.0.0.0/8"], Some("10.1.2.3"), false),
            (&[], &["0.0.0.0/0", "::/0"], Some("2001:db8::1"), false),
        ] {
            let access = AccessSettings {
                allow: allow.iter().map(|text| net(text)).collect(),
                deny: deny.iter().map(|text| net(text)).collect(),
            };
            assert_eq!(access.lets_in(client.map(|text| text.parse().unwrap())), want, "{access:?} {client:?}");
        }
    }
}
