//! What TLS says about a connection, as applications are told it.

/// A handshake that is done.
#[derive(Debug)]
pub struct TlsSession {
    /// `TLSv1.2` or `TLSv1.3`.
    pub protocol: &'static str,
    /// The cipher suite, by OpenSSL's name.
    pub cipher: &'static str,
    /// The name that the client asked for (SNI).
    pub server_name: Option<Box<str>>,
    /// What it showed of itself.
    pub client: ClientCertificate,
}

/// What a client showed of itself.
#[derive(Debug)]
pub enum ClientCertificate {
    /// It was not asked.
    NotAsked,
    /// It was asked and showed nothing.
    Absent,
    /// A certificate of one of our authorities.
    Verified(Box<ShownCertificate>),
}

/// A client's certificate.
#[derive(Debug)]
pub struct ShownCertificate {
    /// Whom it is for, as RFC 4514 writes names.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// The SHA-256 of all of it, hexadecimal.
    pub fingerprint: String,
    /// All of it in PEM.
    pub pem: String,
}
