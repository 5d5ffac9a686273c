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
    /// Where certificate and key come from.
    pub source: Source,
    /// Where it was written, for messages.
    pub origin: String,
}

/// Where a certificate comes from.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Source {
    /// An operator puts the files there.
    Files,
    /// An authority is asked for it; one file holds it and its key.
    Authority(AcmeSettings),
    /// The server makes it itself, for whoever develops; one file holds it and its key.
    SelfMade,
}

/// `acme` in `[[tls]]`, or `--domain`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AcmeSettings {
    /// The address of the authority's directory.
    pub directory: String,
    /// Where the authority may write to.
    pub email: Option<String>,
    /// Authorities that the directory's own certificate is checked with, in PEM. Default: those that browsers trust.
    pub ca_file: Option<PathBuf>,
    /// How it is shown that the names lead here. Default: whichever way works.
    pub challenge: Option<ChallengeWay>,
    /// The port at which the authority asks by HTTP. Default 80, as RFC 8555 has it.
    pub http_port: u16,
    /// The port at which it asks by TLS. Default 443 (RFC 8737).
    pub tls_port: u16,
}

/// How it is shown that a name leads here.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum ChallengeWay {
    /// By an answer over plain HTTP (RFC 8555, section 8.3).
    Http,
    /// By a certificate in a handshake (RFC 8737).
    TlsAlpn,
}

impl AcmeSettings {
    /// The directory of Let's Encrypt.
    pub const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";
    /// The one that it has for trials: nobody trusts its certificates, and its limits are wide.
    pub const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

    /// What is used where nothing is written.
    pub fn new() -> Self {
        Self {
            directory: Self::DIRECTORY.to_owned(),
            email: None,
            ca_file: None,
            challenge: None,
            http_port: 80,
            tls_port: 443,
        }
    }

    /// The directory as a part of a file name: accounts and certificates of one authority are none of another's.
    pub fn folder(&self) -> String {
        let bare = self.directory.strip_prefix("https://").unwrap_or(&self.directory);
        let fit = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' };
        bare.chars().map(fit).collect::<String>().trim_matches('.').to_owned()
    }
}

impl Default for AcmeSettings {
    fn default() -> Self {
        Self::new()
    }
}

impl ChallengeWay {
    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http-01",
            Self::TlsAlpn => "tls-alpn-01",
        }
    }
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
    use super::{AcmeSettings, is_name};

    #[test]
    fn each_directory_has_a_folder_of_its_own_that_is_one() {
        let folder = |directory: &str| AcmeSettings { directory: directory.to_owned(), ..AcmeSettings::new() }.folder();
        assert_eq!(folder(AcmeSettings::DIRECTORY), "acme-v02.api.letsencrypt.org_directory");
        assert_eq!(folder("https://[::1]:14000/../dir"), "___1__14000_.._dir");
        assert_ne!(folder(AcmeSettings::DIRECTORY), folder(AcmeSettings::STAGING));
    }

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
