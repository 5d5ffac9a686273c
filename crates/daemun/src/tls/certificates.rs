//! The certificates that the front shows, and which of them to whom.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;

use super::{ClientCertificates, Material};

/// The protocol by which an authority asks whether a name is ours (RFC 8737).
const CHALLENGE: &[u8] = super::PROOF_PROTOCOL;

/// The protocols that are spoken behind TLS, best first (RFC 7301).
const PROTOCOLS: [&[u8]; 3] = [b"h2", b"http/1.1", b"http/1.0"];

/// All certificates of now.
#[derive(Debug, Default)]
pub struct Certificates {
    entries: Vec<Entry>,
    exact: HashMap<String, usize>,
    /// By what stands behind `*.`.
    below: HashMap<String, usize>,
    default: usize,
    challenges: HashMap<String, Arc<ServerConfig>>,
    asks_clients: bool,
}

#[derive(Debug)]
struct Entry {
    config: Arc<ServerConfig>,
    client_certificates: ClientCertificates,
}

/// What a client gets.
#[derive(Debug)]
pub struct Chosen {
    /// How the handshake goes on.
    pub config: Arc<ServerConfig>,
    /// Which of the certificates it is; `None` where it only answers an authority, and no request follows.
    pub entry: Option<usize>,
}

impl Certificates {
    /// Makes configurations of all material; a fault of one is a fault of all, for the old ones are still there.
    pub fn new(materials: &[Material], tickets: &Tickets) -> Result<Self, String> {
        let provider = provider();
        let mut made = Self::default();
        for material in materials {
            let fault = |error: &dyn fmt::Display| format!("{}: {error}", material.origin);
            let config = configuration(material, &provider, tickets).map_err(|error| fault(&error))?;
            if material.is_challenge {
                made.challenges.extend(material.hosts.iter().map(|host| (host.clone(), Arc::clone(&config))));
                continue;
            }
            let number = made.entries.len();
            for host in &material.hosts {
                match host.strip_prefix("*.") {
                    Some(domain) => made.below.entry(domain.to_owned()).or_insert(number),
                    None => made.exact.entry(host.clone()).or_insert(number),
                };
            }
            let asks = material.client_certificates != ClientCertificates::Off;
            made.asks_clients |= asks;
            made.entries.push(Entry { config, client_certificates: material.client_certificates });
        }
        let is_default = |material: &&Material| !material.is_challenge && material.hosts.is_empty();
        let shown = materials.iter().filter(|material| !material.is_challenge);
        // Without a default the first one: its name will not fit, and the client can say so to its user.
        made.default = shown.clone().position(|material| is_default(&material)).unwrap_or(0);
        Ok(made)
    }

    /// What a client gets that has begun like this; `None` where there is nothing for it.
    pub fn choose(&self, hello: &ClientHello<'_>) -> Option<Chosen> {
        let name = hello.server_name();
        if hello.alpn().is_some_and(|mut offered| offered.any(|protocol| protocol == CHALLENGE)) {
            let config = self.challenges.get(&name?.to_ascii_lowercase())?;
            return Some(Chosen { config: Arc::clone(config), entry: None });
        }
        let number = self.entry(name.unwrap_or_default());
        let entry = self.entries.get(number)?;
        Some(Chosen { config: Arc::clone(&entry.config), entry: Some(number) })
    }

    /// Which certificate is for this name: its own, that of the domain above it, or the default.
    pub fn entry(&self, name: &str) -> usize {
        let lower =
            if name.bytes().any(|byte| byte.is_ascii_uppercase()) { name.to_ascii_lowercase() } else { String::new() };
        let name = if lower.is_empty() { name } else { &lower };
        let name = name.strip_suffix('.').unwrap_or(name);
        let below = || self.below.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(below).copied().unwrap_or(self.default)
    }

    /// Whether there is a certificate for this very name.
    pub fn has(&self, name: &str) -> bool {
        let below = || name.split_once('.').is_some_and(|(_, domain)| self.below.contains_key(domain));
        self.exact.contains_key(name) || below()
    }

    /// Whether clients of this certificate are asked for theirs.
    pub fn client_certificates(&self, entry: usize) -> ClientCertificates {
        self.entries.get(entry).map_or(ClientCertificates::Off, |entry| entry.client_certificates)
    }

    /// Whether a connection that began with certificate `entry` may carry requests for `host`: not where either of them
    /// asks for client certificates and the other is another one. Else whoever has none would name a public host in the
    /// handshake and the protected one in the request.
    pub fn covers(&self, entry: usize, host: &str) -> bool {
        if !self.asks_clients {
            return true;
        }
        let asked = self.entry(host);
        let open = |entry| self.client_certificates(entry) == ClientCertificates::Off;
        asked == entry || (open(asked) && open(entry))
    }

    /// Whether any clients are asked for certificates at all.
    pub fn asks_clients(&self) -> bool {
        self.asks_clients
    }

    /// Whether there is no certificate.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn configuration(
    material: &Material,
    provider: &Arc<CryptoProvider>,
    tickets: &Tickets,
) -> Result<Arc<ServerConfig>, String> {
    let text = |error: rustls::Error| error.to_string();
    let certified = material.certified(provider).map_err(text)?;
    let versions = ServerConfig::builder_with_provider(Arc::clone(provider)).with_safe_default_protocol_versions();
    let verifier = client_verifier(material, provider)?;
    let builder = versions.map_err(text)?.with_client_cert_verifier(verifier);
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    if material.is_challenge {
        config.alpn_protocols = vec![CHALLENGE.to_vec()];
        return Ok(Arc::new(config));
    }
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = tickets.of(material)?;
    Ok(Arc::new(config))
}

/// Who checks clients' certificates.
pub(super) fn client_verifier(
    material: &Material,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    if material.client_certificates == ClientCertificates::Off {
        return Ok(WebPkiClientVerifier::no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    for authority in material.authorities().unwrap_or_default() {
        roots.add(authority).map_err(|error| error.to_string())?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = match material.client_certificates {
        ClientCertificates::Optional => builder.allow_unauthenticated(),
        ClientCertificates::Off | ClientCertificates::Require => builder,
    };
    builder.build().map_err(|error| error.to_string())
}

/// The cryptography: one table for the whole process.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// Keys of session tickets (RFC 5077; RFC 8446, section 4.6.1): all event loops share them, they are made anew every
/// few hours, and a reload keeps them, so that clients go on resuming.
///
/// A ticket carries what a client has shown, so certificates whose clients are asked have keys of their own: nobody
/// resumes into another set of authorities.
#[derive(Default)]
pub struct Tickets(Mutex<HashMap<String, Arc<dyn ProducesTickets>>>);

impl Tickets {
    fn of(&self, material: &Material) -> Result<Arc<dyn ProducesTickets>, String> {
        let policy = match material.client_certificates {
            ClientCertificates::Off => String::new(),
            asked => format!("{asked:?} {:?} {}", material.hosts, material.client_authorities),
        };
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tickets) = made.get(&policy) {
            return Ok(Arc::clone(tickets));
        }
        let tickets = aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?;
        made.insert(policy, Arc::clone(&tickets));
        Ok(tickets)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets(…)")
    }
}
