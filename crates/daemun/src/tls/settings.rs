//! What a `[[tls]]` table says.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One `[[tls]]` table, or `--tls-cert` and `--tls-key`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TlsSettings {
    /// The names that it is for: `example.com` or `*.example.com`, in lower case. Empty: all that no other table names.
    pub hosts: Vec<String>,
    /// The certificate, and behind it those that lead to its authority, in PEM.
    pub cert: PathBuf,
    /// Its key, in PEM; default: in the same file.
    pub key: PathBuf,
    /// A stapled answer of the authority (OCSP), in DER.
    pub ocsp: Option<PathBuf>,
    /// Authorities whose certificates clients may show, in PEM.
    pub client_ca: Option<PathBuf>,
    /// Whether clients are asked for a certificate. Default: `require` where there is a `client_ca`.
    pub client_certificates: ClientCertificates,
    /// Where it was written, for messages.
    pub origin: String,
}

/// Whether clients are asked for a certificate.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum ClientCertificates {
    /// No.
    Off,
    /// They may show one; a wrong one fails the handshake.
    Optional,
    /// Without one there is no connection.
    Require,
}

/// Whether this is a name that a client can ask for: a host name, or one below `*.`. Addresses are never asked for by
/// name (RFC 6066, section 3).
pub fn is_name(host: &str) -> bool {
    let bare = host.strip_prefix("*.").unwrap_or(host);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    !bare.is_empty() && bare.len() <= 253 && bare.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn a_name_is_one_that_clients_can_ask_for() {
        for good in ["localhost", "example.com", "*.example.com", "xn--bcher-kva.example", "a_b.example"] {
            assert!(is_name(good), "{good}");
        }
        for bad in
            ["", "*", "*.", "a..b", ".a", "a.", "a.*.b", "**.a", "b\u{fc}cher", "a b", "[::1]", "a:443", "http://a"]
        {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
