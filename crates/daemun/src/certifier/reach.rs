//! Whether a name leads here: what it resolves to is asked for something that only this server has been told.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::exchange::plain;
use crate::tls::{Material, PROOF_PROTOCOL};

/// How long an address may take: authorities give up after ten seconds.
const DEADLINE: Duration = Duration::from_secs(8);

/// Addresses of a name that are asked.
const MOST_ADDRESSES: usize = 8;

/// What is to be seen.
pub(super) enum Sign<'a> {
    /// This answer below this path.
    Http {
        /// Where it is.
        path: &'a str,
        /// What it is.
        text: &'a str,
    },
    /// This certificate in a handshake.
    Tls(&'a Material),
}

/// Whether a name leads here.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// It does.
    Here,
    /// It cannot be told from here, and this is why.
    Unsure(String),
    /// It does not, and this is why.
    Elsewhere(String),
}

/// What one address came to.
enum Seen {
    /// The sign.
    Sign,
    /// Something else.
    Other(String),
    /// Nothing, and not for a reason of ours.
    Nothing(io::Error),
}

/// Asks every address that `name` resolves to.
pub(super) async fn reach(name: &str, port: u16, sign: Sign<'_>) -> Verdict {
    let found = match timeout(DEADLINE, lookup_host((name, port))).await {
        Err(_) => return Verdict::Elsewhere(format!("{name} was not resolved within {} s", DEADLINE.as_secs())),
        Ok(Err(error)) => {
            let why = error.to_string();
            let why = why.strip_prefix("failed to lookup address information: ").unwrap_or(&why);
            return Verdict::Elsewhere(format!("{name} does not resolve ({why}): is its DNS record there yet?"));
        }
        Ok(Ok(found)) => found.collect::<BTreeSet<SocketAddr>>(),
    };
    if found.is_empty() {
        return Verdict::Elsewhere(format!("{name} resolves to no address: is its DNS record there yet?"));
    }
    let mut seen = Vec::new();
    for address in found.into_iter().take(MOST_ADDRESSES) {
        let looked = timeout(DEADLINE, look(address, name, &sign)).await;
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", DEADLINE.as_secs()));
        seen.push((address, looked.unwrap_or_else(|_| Seen::Nothing(late()))));
    }
    judge(name, &seen, is_ours)
}

/// One address that answers something else is one too many: authorities ask it as well. One that does not answer at all
/// may be ours, behind a router that does not lead its own network back in.
fn judge(name: &str, seen: &[(SocketAddr, Seen)], is_ours: impl Fn(IpAddr) -> bool) -> Verdict {
    let other = seen.iter().find_map(|(address, seen)| match seen {
        Seen::Other(what) => Some(format!("{name} leads elsewhere: {address} {what}")),
        _ => None,
    });
    if let Some(why) = other {
        return Verdict::Elsewhere(why);
    }
    if seen.iter().any(|(_, seen)| matches!(seen, Seen::Sign)) {
        return Verdict::Here;
    }
    let Some((address, error)) = seen.iter().find_map(|(address, seen)| match seen {
        Seen::Nothing(error) => Some((address, error)),
        _ => None,
    }) else {
        return Verdict::Unsure(format!("{name} was not asked"));
    };
    let why = format!("{name} cannot be reached at {address}: {error}");
    if is_ours(address.ip()) { Verdict::Elsewhere(why) } else { Verdict::Unsure(why) }
}

async fn look(address: SocketAddr, name: &str, sign: &Sign<'_>) -> Seen {
    match sign {
        Sign::Http { path, text } => match plain(address, name, path).await {
            Ok((head, body)) if head.status.code() == 200 && body.trim_ascii_end() == text.as_bytes() => Seen::Sign,
            Ok((head, _)) if matches!(head.status.code(), 301 | 302 | 303 | 307 | 308) => {
                let to = head.fields.get("location").map(String::from_utf8_lossy).unwrap_or_default();
                // An authority follows; where to is not for us to judge.
                Seen::Nothing(io::Error::other(format!("it redirects to {to}")))
            }
            Ok((head, _)) => {
                let (status, reason) = (head.status.code(), head.status.reason());
                Seen::Other(format!("answers {status} {reason} for what this server was just given"))
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Seen::Other(format!("speaks no HTTP: {error}")),
            Err(error) => Seen::Nothing(error),
        },
        Sign::Tls(material) => match handshake(address, name, material).await {
            Ok(()) => Seen::Sign,
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
                Seen::Other(format!("does not show what this server was just given: {error}"))
            }
            Err(error) => Seen::Nothing(error),
        },
    }
}

async fn handshake(address: SocketAddr, name: &str, material: &Material) -> io::Result<()> {
    let expected = CertificateDer::from_pem_slice(material.chain.as_bytes()).map_err(io::Error::other)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Expected { certificate: expected, provider: Arc::clone(&provider) });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![PROOF_PROTOCOL.to_vec()];
    let server = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(server, stream).await.map(drop)
}

/// Takes one certificate alone.
struct Expected {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Expected(…)")
    }
}

impl ServerCertVerifier for Expected {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *shown == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General("it shows another certificate".to_owned()))
    }

    // Its critical extension keeps the usual check from reading the key in it. Nothing secret goes over this connection,
    // and nobody else has the certificate: it was made a moment ago.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether an address is one of this machine's: only then can a socket be bound to it.
fn is_ours(address: IpAddr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn refused() -> Seen {
        Seen::Nothing(io::ErrorKind::ConnectionRefused.into())
    }

    #[test]
    fn one_address_that_leads_elsewhere_is_one_too_many() {
        let seen = [(at("192.0.2.1:80"), Seen::Sign), (at("[2001:db8::1]:80"), Seen::Other("answers 404".into()))];
        let why = "a.example leads elsewhere: [2001:db8::1]:80 answers 404";
        assert_eq!(judge("a.example", &seen, |_| false), Verdict::Elsewhere(why.into()));
    }

    #[test]
    fn an_address_that_does_not_answer_is_no_matter_where_another_does() {
        let seen = [(at("[2001:db8::1]:80"), refused()), (at("192.0.2.1:80"), Seen::Sign)];
        assert_eq!(judge("a.example", &seen, |_| false), Verdict::Here);
    }

    #[test]
    fn silence_is_a_fault_on_this_machine_and_a_doubt_behind_a_router() {
        let seen = [(at("192.0.2.1:80"), refused())];
        assert!(matches!(judge("a.example", &seen, |_| false), Verdict::Unsure(_)));
        assert!(matches!(judge("a.example", &seen, |_| true), Verdict::Elsewhere(_)));
    }

    #[test]
    fn addresses_of_this_machine_are_known() {
        assert!(is_ours("127.0.0.1".parse().unwrap()));
        // Set aside for documentation (RFC 5737).
        assert!(!is_ours("192.0.2.1".parse().unwrap()));
    }
}
