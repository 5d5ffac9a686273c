//! `basic_auth`: names and passwords (RFC 7617).
//!
//! A check of a password is slow by intention. It runs on the blocking pool, a few at a time, and what was found right
//! is remembered by a keyed digest, so that a browser pays once and not for every picture.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use md5::Digest;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::password::Password;
use crate::handler::{Dress, Fault, HandlerError};
use crate::http::{RequestHead, Status};

/// Checks that may run at a time: more would take the cores from those who are already in.
static CHECKS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))));

/// How long a request may wait for its check.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pairs that are remembered; then all are forgotten.
const REMEMBERED: usize = 4096;

/// Bytes of a password: longer ones are no passwords.
const MOST_PASSWORD: usize = 1024;

/// Who may, and what browsers ask for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AuthSettings {
    /// What browsers show.
    pub realm: String,
    /// Names and kept passwords.
    pub users: BTreeMap<String, String>,
    /// The file that the users stand in.
    pub file: Option<String>,
}

/// Checks names and passwords.
pub(super) struct BasicAuth {
    challenge: Bytes,
    users: BTreeMap<String, Arc<Password>>,
    /// Checked for names that nobody has, so that they take as long as those that somebody has.
    decoy: Option<Arc<Password>>,
    key: [u8; 32],
    known: Mutex<HashSet<[u8; 32]>>,
}

// === impl BasicAuth ===

impl BasicAuth {
    /// The error says which password cannot be read.
    pub(super) fn new(settings: &AuthSettings) -> Result<Self, String> {
        let mut users = BTreeMap::new();
        for (name, kept) in &settings.users {
            users.insert(name.clone(), Arc::new(Password::parse(kept).map_err(|error| format!("`{name}`: {error}"))?));
        }
        let mut key = [0; 32];
        rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| format!("no random numbers: {error}"))?;
        let realm = settings.realm.replace('\\', "\\\\").replace('"', "\\\"");
        Ok(Self {
            challenge: Bytes::from(format!("Basic realm=\"{realm}\", charset=\"UTF-8\"")),
            decoy: users.values().next().cloned(),
            users,
            key,
            known: Mutex::default(),
        })
    }

    /// Who asks; or a 401, or a 503 where too many others ask to be checked.
    pub(super) async fn authenticate(&self, head: &RequestHead) -> Result<Box<str>, HandlerError> {
        let Some((name, password)) = head.field("authorization").and_then(credentials) else {
            return Err(self.unauthorized("a name and password are asked for"));
        };
        let digest = self.digest(&name, &password);
        if self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(&digest) {
            return Ok(name.into());
        }
        let user = self.users.get(&name).cloned();
        let exists = user.is_some();
        let Some(kept) = user.or_else(|| self.decoy.clone()) else {
            return Err(self.unauthorized("there are no users"));
        };
        let busy = || {
            let message = "too many passwords wait to be checked";
            let error = HandlerError::new(Status::SERVICE_UNAVAILABLE, Fault::Server, message);
            HandlerError { retry_after: Some(1), ..error }
        };
        let permit = tokio::time::timeout(PATIENCE, CHECKS.acquire()).await;
        let permit = permit.ok().and_then(Result::ok).ok_or_else(busy)?;
        let checking = tokio::task::spawn_blocking(move || {
            // The permit ends with the check, also where nobody waits for it any more.
            let _permit = permit;
            kept.verify(&password)
        });
        if !(checking.await.unwrap_or(false) && exists) {
            return Err(self.unauthorized("the name or the password is wrong"));
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(digest);
        Ok(name.into())
    }

    fn unauthorized(&self, message: &str) -> HandlerError {
        let challenge = self.challenge.clone();
        HandlerError::new(Status::UNAUTHORIZED, Fault::Client, message)
            .dressed(Dress::new(move |page| page.fields.push(&b"WWW-Authenticate"[..], challenge)))
    }

    fn digest(&self, name: &str, password: &[u8]) -> [u8; 32] {
        // Keyed with what nobody outside knows: the set of digests tells nothing without it.
        let length = (name.len() as u64).to_le_bytes();
        let digest = sha2::Sha256::new().chain_update(self.key).chain_update(length);
        digest.chain_update(name).chain_update(password).finalize().into()
    }
}

impl AuthSettings {
    pub(super) fn describe(&self) -> String {
        let users = self.users.len();
        let plural = if users == 1 { "" } else { "s" };
        let from = self.file.as_ref().map(|file| format!(" of {file}")).unwrap_or_default();
        format!("{users} user{plural}{from}, realm {:?}", self.realm)
    }
}

/// Name and password of `Basic …`.
fn credentials(value: &[u8]) -> Option<(String, Vec<u8>)> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = base64(rest.trim_ascii())?;
    let colon = decoded.iter().position(|&byte| byte == b':')?;
    let (name, password) = decoded.split_at(colon);
    let name = String::from_utf8(name.to_vec()).ok().filter(|name| !name.chars().any(char::is_control))?;
    (password.len() <= MOST_PASSWORD).then(|| (name, password[1..].to_vec()))
}

/// RFC 4648, section 4; the padding may be missing.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut held, mut bits) = (0_u32, 0);
    for &byte in text {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = held << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_a_name_and_whatever_follows_the_colon() {
        let pair = |name: &str, password: &str| Some((name.to_owned(), password.as_bytes().to_vec()));
        for (value, want) in [
            ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", pair("Aladdin", "open sesame")),
            ("basic  YTo6Og", pair("a", "::")),
            ("Basic Og==", pair("", "")),
            ("Basic YQ==", None),
            ("Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==", None),
            ("Basic", None),
            ("Basic !!!!", None),
            ("Basic YQ06Yg==", None),
        ] {
            assert_eq!(credentials(value.as_bytes()), want, "{value}");
        }
    }
}
