//! TLS: which certificate for which name, found valid by the supervisor, shown to clients by the front.
//!
//! 1. [`Material::read`]: the supervisor, which may read keys, opens the files of a `[[tls]]` table and finds them
//!    valid, or says what is wrong with them.
//! 2. The text of it goes to the front over their channel: never through arguments, the environment or a log.
//! 3. [`Certificates`]: the front makes configurations for handshakes of it and chooses one by the name that a client
//!    asks for. Another set replaces it at run time; connections keep what they began with.
//! 4. Certificates that are made here: the self-made one of `daemun dev`, and those that show an authority that a name
//!    is ours ([`proof`]).
//!
//! Knows certificates and settings. Must not know sockets, and opens no path but in [`Material::read`] and [`Stamp`].

mod certificates;
mod facts;
mod made;
mod material;
mod session;
mod settings;

pub use certificates::{Certificates, Chosen, Tickets};
pub use facts::{Facts, RenewalId};
pub use made::{Made, MadeError, PROOF_PROTOCOL, proof, request, self_made};
pub use material::{Key, Material, Stamp, TlsError};
pub use session::describe;
pub use settings::{AcmeSettings, ChallengeWay, ClientCertificates, Source, TlsSettings, is_name};
