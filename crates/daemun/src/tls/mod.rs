//! TLS: which certificate for which name, found valid by the supervisor, shown to clients by the front.
//!
//! 1. [`Material::read`]: the supervisor, which may read keys, opens the files of a `[[tls]]` table and finds them
//!    valid, or says what is wrong with them.
//! 2. The text of it goes to the front over their channel: never through arguments, the environment or a log.
//! 3. [`Certificates`]: the front makes configurations for handshakes of it and chooses one by the name that a client
//!    asks for. Another set replaces it at run time; connections keep what they began with.
//!
//! Knows certificates and settings. Must not know sockets, and opens no path but in [`Material::read`] and [`Stamp`].

mod certificates;
mod facts;
mod material;
mod session;
mod settings;

pub use certificates::{Certificates, Chosen, Tickets};
pub use facts::Facts;
pub use material::{Key, Material, Stamp, TlsError};
pub use session::describe;
pub use settings::{ClientCertificates, TlsSettings, is_name};
