//! Keys and certificates that are made here.

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use super::session::pem;
use super::{ClientCertificates, Key, Material};

/// The protocol by which an authority asks whether a name is ours (RFC 8737).
pub const PROOF_PROTOCOL: &[u8] = b"acme-tls/1";

/// How long a self-made certificate is valid: what devices of Apple accept at the most.
const SELF_MADE_DAYS: i64 = 825;

/// Why nothing could be made: a name that no certificate can hold, or no randomness.
#[derive(Debug, thiserror::Error)]
#[error("a certificate cannot be made: {0}")]
pub struct MadeError(#[from] rcgen::Error);

/// Something that was made, and its key.
#[derive(Clone, Debug)]
pub struct Made {
    /// What was made, in DER.
    pub der: Vec<u8>,
    /// Its key, in PEM.
    pub key: Key,
}

/// A key, and the request for a certificate of it for these names (RFC 2986).
pub fn request(names: &[String]) -> Result<Made, MadeError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.to_vec())?;
    // Names stand where browsers look for them; nothing else is asked for.
    params.distinguished_name = DistinguishedName::new();
    let made = params.serialize_request(&key)?;
    Ok(Made { der: made.der().to_vec(), key: key_in_pem(&key) })
}

/// The certificate by which an authority sees that `name` leads here (RFC 8737, section 3). `digest` is the SHA-256 of
/// what it wants to see.
pub fn proof(name: &str, digest: &[u8]) -> Result<Material, MadeError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let made = params.self_signed(&key)?;
    Ok(Material {
        hosts: vec![name.to_owned()],
        chain: pem("CERTIFICATE", made.der()),
        key: key_in_pem(&key),
        ocsp: Vec::new(),
        client_authorities: String::new(),
        client_certificates: ClientCertificates::Off,
        is_challenge: true,
        origin: format!("proof for {name}"),
    })
}

/// A certificate for these names and addresses that nobody but itself vouches for, and its key: the text of a file.
pub fn self_made(names: &[String]) -> Result<String, MadeError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "daemun, self-made");
    params.distinguished_name.push(DnType::CommonName, names.first().map_or("localhost", String::as_str));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = time_now();
    // A clock that is a little behind is no reason to refuse it.
    params.not_before = now - time::Duration::days(1);
    params.not_after = now + time::Duration::days(SELF_MADE_DAYS - 1);
    let made = params.self_signed(&key)?;
    Ok(pem("CERTIFICATE", made.der()) + &key_in_pem(&key).0)
}

fn time_now() -> time::OffsetDateTime {
    time::OffsetDateTime::from(std::time::SystemTime::now())
}

fn key_in_pem(key: &KeyPair) -> Key {
    Key(pem("PRIVATE KEY", &key.serialize_der()))
}
