//! What is told to applications of a handshake.

use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, ProtocolVersion, ServerConnection};

use super::facts::hexadecimal;
use super::{ClientCertificates, Facts};
use crate::http::{ClientCertificate, ShownCertificate, TlsSession};

/// What is told to applications of a handshake that is done.
pub fn describe(session: &ServerConnection, asked: ClientCertificates) -> TlsSession {
    let shown = session.peer_certificates().and_then(<[_]>::first);
    let client = match (asked, shown) {
        (ClientCertificates::Off, _) => ClientCertificate::NotAsked,
        (_, Some(shown)) => certificate(shown).map_or(ClientCertificate::Absent, ClientCertificate::Verified),
        (_, None) => ClientCertificate::Absent,
    };
    let suite = session.negotiated_cipher_suite().map(|suite| suite.suite());
    TlsSession {
        protocol: if session.protocol_version() == Some(ProtocolVersion::TLSv1_3) { "TLSv1.3" } else { "TLSv1.2" },
        cipher: suite.map_or("", cipher),
        server_name: session.server_name().map(Into::into),
        client,
    }
}

/// The name that OpenSSL gives a suite, as every server before us has told it.
fn cipher(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        other => other.as_str().unwrap_or(""),
    }
}

fn certificate(der: &CertificateDer<'_>) -> Option<Box<ShownCertificate>> {
    let facts = Facts::read(der)?;
    let digest = TLS13_AES_128_GCM_SHA256.tls13()?.common.hash_provider.hash(der);
    let fingerprint = hexadecimal(digest.as_ref()).to_ascii_lowercase();
    Some(Box::new(ShownCertificate {
        subject: facts.subject,
        issuer: facts.issuer,
        serial: facts.serial,
        fingerprint,
        pem: pem("CERTIFICATE", der),
    }))
}

/// RFC 7468: lines of 64 characters.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(der.len() * 3 / 2 + 64);
    text.extend(["-----BEGIN ", label, "-----"]);
    for (number, triple) in der.chunks(3).enumerate() {
        if number % 16 == 0 {
            text.push('\n');
        }
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(triple.get(at).copied().unwrap_or(0)));
        for digit in 0..4 {
            let is_there = digit <= triple.len();
            let index = bits >> (18 - 6 * digit) & 63;
            text.push(if is_there { char::from(DIGITS[index as usize]) } else { '=' });
        }
    }
    text.extend(["\n-----END ", label, "-----\n"]);
    text
}

#[cfg(test)]
mod tests {
    use super::pem;

    #[test]
    fn a_certificate_is_written_in_lines_of_64() {
        let body = |der: &[u8]| {
            pem("CERTIFICATE", der).lines().filter(|line| !line.starts_with('-')).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(body(b"f"), "Zg==");
        assert_eq!(body(b"fo"), "Zm8=");
        assert_eq!(body(b"foo"), "Zm9v");
        assert_eq!(body(&[0xff; 49]), format!("{} /w==", "/".repeat(64)));
    }
}
