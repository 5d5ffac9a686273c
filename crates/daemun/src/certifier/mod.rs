//! Certificates from an authority (ACME, RFC 8555): asked for, shown to be deserved, renewed in time.
//!
//! 1. The supervisor knows when something is due ([`schedule`]) and starts a certifier for it: a process of its own user
//!    that opens no file, for one [`Errand`], with one channel. So the supervisor reads no byte from the network, and what
//!    an authority sends meets neither the keys of other certificates nor clients' connections.
//! 2. Before anything is asked, [`reach`] finds out whether the names lead here: they are resolved, and what they resolve
//!    to is asked for something that only this server has been told. A name that leads elsewhere would cost one of the few
//!    failures that an authority allows.
//! 3. [`order`] talks to the authority. What it wants to see goes to the supervisor, which hands it to the front and says
//!    when it is shown.
//! 4. Account and certificate go back to the supervisor, which keeps them and shows the certificate.
//!
//! One that ends without a word has failed; nothing is lost but the errand.

mod exchange;
mod order;
mod process;
mod reach;
pub mod schedule;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::tls::{ChallengeWay, Key, Material};

pub use process::run;

/// The argument with which the program is started to be a certifier, on the channel that it inherits as descriptor 3.
pub const CERTIFIER_ROLE: &str = "--role=certifier";

/// How long an errand may take in all: some authorities take a minute to look at each name, and one to sign.
pub const ERRAND_DEADLINE: Duration = Duration::from_secs(10 * 60);

/// What a certifier is started for.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Errand {
    /// The names that the certificate is to be for.
    pub names: Vec<String>,
    /// The address of the authority's directory.
    pub directory: String,
    /// Where the authority may write to.
    pub email: Option<String>,
    /// Authorities that the directory's own certificate is checked with, in PEM; `None`: those that browsers trust.
    pub authorities: Option<String>,
    /// How it can be shown that the names lead here, and at which port the authority looks; the best first.
    pub ways: Vec<(ChallengeWay, u16)>,
    /// What was kept of the account.
    pub account: Option<Account>,
    /// The certificate that is shown now, in PEM, and the one that its authority is asked about.
    pub current: Option<String>,
    /// Whether a certificate is to be asked for in any case; else only where the authority wants it renewed by now.
    pub is_due: bool,
}

/// An account at an authority.
#[derive(Clone, Deserialize, Serialize)]
pub struct Account {
    /// Its address and its key.
    pub credentials: serde_json::Value,
    /// The address for mail that the authority was told.
    pub email: Option<String>,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Account(…)")
    }
}

/// The supervisor's word.
#[derive(Debug, Deserialize, Serialize)]
pub enum ToCertifier {
    /// Do this.
    Errand(Box<Errand>),
    /// The last [`FromCertifier::Show`] is shown.
    Shown,
}

/// The certifier's word.
#[derive(Debug, Deserialize, Serialize)]
pub enum FromCertifier {
    /// Show these from now on, in place of those before.
    Show(Vec<Proof>),
    /// Keep this.
    Keep(Account),
    /// Something for the log that ends nothing.
    Tell(String),
    /// The end.
    Done(Outcome),
}

/// Something by which others see that a name leads here.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Proof {
    /// An answer over plain HTTP.
    Http {
        /// The last part of the path.
        token: String,
        /// The answer.
        text: String,
    },
    /// A certificate in a handshake.
    Tls(Box<Material>),
}

/// What came of an errand.
#[derive(Debug, Deserialize, Serialize)]
pub enum Outcome {
    /// A certificate.
    Issued {
        /// With those that lead to its authority, in PEM.
        chain: String,
        /// Its key.
        key: Key,
    },
    /// Nothing is due yet.
    NotYet {
        /// When the authority wants the certificate renewed, in seconds since 1970; `None` where it does not say.
        renew_at: Option<i64>,
        /// After which time it wants to be asked again.
        ask_after: Duration,
    },
    /// It did not come to one.
    Failed {
        /// Why.
        reason: String,
        /// Whether the authority was not even asked.
        is_ours: bool,
        /// When the authority wants to be asked again.
        retry_after: Option<Duration>,
    },
}
