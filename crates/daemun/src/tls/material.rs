//! Certificates and keys as the supervisor reads them.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

use super::certificates::provider;
use super::{ClientCertificates, Facts, TlsSettings};

/// Bytes of a file: a bundle of all public authorities has a quarter of it.
const MAX_FILE: u64 = 1 << 20;

/// How long before its end a certificate is warned of: what renews itself has done so by then.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// What a handshake needs of one `[[tls]]` table, found valid.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Material {
    /// The names that it is for; empty: all that no other is for.
    pub hosts: Vec<String>,
    /// The certificate and those that lead to its authority, in PEM.
    pub chain: String,
    /// Its key.
    pub key: Key,
    /// A stapled answer of the authority; empty where there is none.
    pub ocsp: Vec<u8>,
    /// Authorities of clients, in PEM; empty where clients are not asked.
    pub client_authorities: String,
    /// Whether clients are asked for a certificate.
    pub client_certificates: ClientCertificates,
    /// Whether it answers only an authority that asks whether a name is ours (TLS-ALPN-01, RFC 8737).
    pub is_challenge: bool,
    /// Where it was written, for messages.
    pub origin: String,
}

/// A key in PEM. It is never shown.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub struct Key(pub String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Why a table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A file holds something else.
    #[error("{} holds no {what} in PEM", path.display())]
    Holds {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// Key and certificate do not belong together.
    #[error("the key in {} does not belong to the certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificate.
        cert: PathBuf,
    },
    /// The certificate is no longer valid.
    #[error("the certificate in {} was valid until {until}; put a new one in its place", cert.display())]
    Expired {
        /// Its file.
        cert: PathBuf,
        /// The end.
        until: String,
    },
    /// Anything else that is wrong with it.
    #[error("{}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

impl Material {
    /// Reads the files of a table and finds them valid.
    pub fn read(settings: &TlsSettings) -> Result<Self, TlsError> {
        let material = Self {
            hosts: settings.hosts.clone(),
            chain: text(&settings.cert)?,
            key: Key(text(&settings.key)?),
            ocsp: settings.ocsp.as_deref().map(bytes).transpose()?.unwrap_or_default(),
            client_authorities: settings.client_ca.as_deref().map(text).transpose()?.unwrap_or_default(),
            client_certificates: settings.client_certificates,
            is_challenge: false,
            origin: settings.origin.clone(),
        };
        let holds = |path: &Path, what| TlsError::Holds { path: path.to_path_buf(), what };
        let chain = material.certificates().ok_or_else(|| holds(&settings.cert, "certificate"))?;
        material.private_key().ok_or_else(|| holds(&settings.key, "key"))?;
        material.certified(&provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::Mismatch { key: settings.key.clone(), cert: settings.cert.clone() }
            }
            other => TlsError::Invalid { path: settings.key.clone(), message: other.to_string() },
        })?;
        let facts = chain.first().and_then(|first| Facts::read(first));
        if let Some(until) = facts.and_then(|facts| moment(facts.not_after)).filter(|until| *until < SystemTime::now())
        {
            let until = httpdate::fmt_http_date(until);
            return Err(TlsError::Expired { cert: settings.cert.clone(), until });
        }
        if let Some(path) = &settings.client_ca {
            material.authorities().ok_or_else(|| holds(path, "certificate"))?;
            super::certificates::client_verifier(&material, &provider())
                .map_err(|message| TlsError::Invalid { path: path.clone(), message })?;
        }
        Ok(material)
    }

    /// What an operator should know: a certificate that ends soon, names that it does not hold.
    pub fn warnings(&self) -> Vec<String> {
        let Some(first) = self.certificates().and_then(|chain| chain.into_iter().next()) else { return Vec::new() };
        let mut warnings = Vec::new();
        let until = Facts::read(&first).and_then(|facts| moment(facts.not_after));
        if let Some(until) = until.filter(|until| *until < SystemTime::now() + SOON) {
            let is_over = until < SystemTime::now();
            let until = httpdate::fmt_http_date(until);
            let told = if is_over { "has expired: it was valid until" } else { "is valid until" };
            warnings.push(format!("{}: the certificate {told} {until} only [D403]", self.origin));
        }
        for host in self.uncovered() {
            warnings
                .push(format!("{}: the certificate does not name {host}: browsers will refuse it [D411]", self.origin));
        }
        warnings
    }

    /// Names that the certificate should hold and does not.
    pub fn uncovered(&self) -> Vec<&str> {
        let Some(first) = self.certificates().and_then(|chain| chain.into_iter().next()) else { return Vec::new() };
        let Ok(parsed) = ParsedCertificate::try_from(&first) else { return Vec::new() };
        let is_covered = |host: &str| {
            // A wildcard covers one label.
            let asked = host.replacen('*', "any", 1);
            ServerName::try_from(asked.as_str())
                .is_ok_and(|name| rustls::client::verify_server_name(&parsed, &name).is_ok())
        };
        self.hosts.iter().map(String::as_str).filter(|host| !is_covered(host)).collect()
    }

    /// What the certificate says of itself.
    pub fn facts(&self) -> Option<Facts> {
        Facts::read(self.certificates()?.first()?)
    }

    /// Certificate and key together, found to belong together.
    pub(super) fn certified(&self, provider: &Arc<CryptoProvider>) -> Result<CertifiedKey, rustls::Error> {
        let chain = self.certificates().unwrap_or_default();
        let key = self.private_key().ok_or_else(|| rustls::Error::General("no key".to_owned()))?;
        let mut certified = if self.is_challenge {
            // Its critical extension (RFC 8737) is one that nobody but an authority reads: it is not looked into.
            CertifiedKey::new(chain, provider.key_provider.load_private_key(key)?)
        } else {
            // Checks that they belong together.
            CertifiedKey::from_der(chain, key, provider)?
        };
        certified.ocsp = Some(self.ocsp.clone()).filter(|ocsp| !ocsp.is_empty());
        Ok(certified)
    }

    /// The chain; `None` where there is no certificate in it.
    pub(super) fn certificates(&self) -> Option<Vec<CertificateDer<'static>>> {
        certificates(&self.chain)
    }

    /// Authorities of clients; `None` where there are none.
    pub(super) fn authorities(&self) -> Option<Vec<CertificateDer<'static>>> {
        certificates(&self.client_authorities)
    }

    fn private_key(&self) -> Option<PrivateKeyDer<'static>> {
        PrivateKeyDer::from_pem_slice(self.key.0.as_bytes()).ok()
    }
}

fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    chain.ok().filter(|chain| !chain.is_empty())
}

fn moment(seconds: i64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

fn text(path: &Path) -> Result<String, TlsError> {
    let bytes = bytes(path)?;
    String::from_utf8(bytes).map_err(|_| TlsError::Invalid {
        path: path.to_path_buf(),
        message: "it is no text; convert DER with `openssl x509 -inform der` or `openssl pkey -inform der`".to_owned(),
    })
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error| TlsError::Unreadable { path: path.to_path_buf(), error })
}

/// What tells one state of a table's files from another.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stamp(Vec<Option<FileStamp>>);

/// What tells one state of a file from another.
#[derive(Clone, Debug, Eq, PartialEq)]
struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// The state of now. Follows links: what renews certificates often only moves one.
    pub fn of(settings: &TlsSettings) -> Self {
        let others = [&settings.ocsp, &settings.client_ca].into_iter().flatten();
        let paths = [&settings.cert, &settings.key].into_iter().chain(others);
        Self(paths.map(|path| FileStamp::of(path)).collect())
    }
}

impl FileStamp {
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        let modified = (found.mtime(), found.mtime_nsec());
        Some(Self { device: found.dev(), inode: found.ino(), size: found.size(), modified })
    }
}
