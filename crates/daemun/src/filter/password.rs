//! Passwords as `htpasswd` and others keep them: bcrypt, argon2 and apr1.

use argon2::{Algorithm, Argon2, Params, Version};
use md5::{Digest, Md5};

/// A kept password, found valid when the configuration was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Password(Kind);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Kind {
    Bcrypt { cost: u32, salt: [u8; 16], digest: [u8; 23] },
    Argon2 { algorithm: Algorithm, version: Version, params: Params, salt: Vec<u8>, digest: Vec<u8> },
    Apr1 { salt: Vec<u8>, digest: [u8; 16] },
}

/// Memory that one check of a password may take, in KiB: a line of a file must not take all there is.
const MOST_ARGON2_MEMORY: u32 = 256 * 1024;

/// A check at cost 14 takes about a second.
const MOST_BCRYPT_COST: u32 = 14;

impl Password {
    /// Reads `$2y$…`, `$argon2id$…` or `$apr1$…`. The error says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let kind = if text.starts_with("$2") {
            bcrypt_kind(text)?
        } else if text.starts_with("$argon2") {
            argon2_kind(text)?
        } else if text.starts_with("$apr1$") {
            apr1_kind(text)?
        } else {
            return Err("expected a hash by bcrypt ($2y$…), argon2 ($argon2id$…) or apr1 ($apr1$…); make one with \
                        `htpasswd -nB NAME`"
                .to_owned());
        };
        Ok(Self(kind))
    }

    /// Whether this is the password. Takes as long as the hash is worth: some 50 ms and more.
    pub fn verify(&self, password: &[u8]) -> bool {
        match &self.0 {
            Kind::Bcrypt { cost, salt, digest } => {
                // bcrypt reads up to a NUL and 72 bytes.
                let mut key = password[..password.len().min(72)].to_vec();
                key.push(0);
                key.truncate(72);
                is_same(&bcrypt::bcrypt(*cost, *salt, &key)[..23], digest)
            }
            Kind::Argon2 { algorithm, version, params, salt, digest } => {
                let mut found = vec![0; digest.len()];
                let argon2 = Argon2::new(*algorithm, *version, params.clone());
                argon2.hash_password_into(password, salt, &mut found).is_ok() && is_same(&found, digest)
            }
            Kind::Apr1 { salt, digest } => is_same(&apr1(password, salt), digest),
        }
    }
}

fn bcrypt_kind(text: &str) -> Result<Kind, String> {
    let wrong = || "not a whole bcrypt hash: expected `$2y$`, a cost of two digits, `$` and 53 characters".to_owned();
    let (head, rest) = text.split_at_checked(7).ok_or_else(wrong)?;
    if !["$2a$", "$2b$", "$2y$"].iter().any(|kind| head.starts_with(kind)) || !head.ends_with('$') || rest.len() != 53 {
        return Err(wrong());
    }
    let cost: u32 = head[4..6].parse().map_err(|_| wrong())?;
    if !(4..=MOST_BCRYPT_COST).contains(&cost) {
        return Err(format!("expected a bcrypt cost from 4 to {MOST_BCRYPT_COST}, found {cost}"));
    }
    let (salt, digest) = rest.split_at_checked(22).ok_or_else(wrong)?;
    let salt = unpack(salt).and_then(|salt| salt.try_into().ok()).ok_or_else(wrong)?;
    let digest = unpack(digest).and_then(|digest| digest.try_into().ok()).ok_or_else(wrong)?;
    Ok(Kind::Bcrypt { cost, salt, digest })
}

/// bcrypt's own alphabet of base 64, highest bits first, without padding.
fn unpack(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut held, mut bits) = (0_u32, 0);
    for byte in text.bytes() {
        held = held << 6 | ALPHABET.iter().position(|&known| known == byte)? as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    Some(bytes)
}

fn argon2_kind(text: &str) -> Result<Kind, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("not a whole argon2 hash: {error}");
    let hash = argon2::PasswordHash::new(text).map_err(|error| wrong(&error))?;
    let algorithm = Algorithm::try_from(hash.algorithm).map_err(|error| wrong(&error))?;
    let version = hash.version.map_or(Ok(Version::V0x13), Version::try_from).map_err(|error| wrong(&error))?;
    let params = Params::try_from(&hash).map_err(|error| wrong(&error))?;
    if params.m_cost() > MOST_ARGON2_MEMORY {
        return Err(format!("expected at most m={MOST_ARGON2_MEMORY}, found m={}", params.m_cost()));
    }
    let mut buffer = [0; 64];
    let salt = hash.salt.ok_or_else(|| wrong(&"the salt is missing"))?;
    let salt = salt.decode_b64(&mut buffer).map_err(|error| wrong(&error))?.to_vec();
    let digest = hash.hash.ok_or_else(|| wrong(&"the digest is missing"))?.as_bytes().to_vec();
    Ok(Kind::Argon2 { algorithm, version, params, salt, digest })
}

fn apr1_kind(text: &str) -> Result<Kind, String> {
    let wrong = || "not a whole apr1 hash: expected `$apr1$`, up to 8 characters, `$` and 22 characters".to_owned();
    let (salt, digest) = text.strip_prefix("$apr1$").and_then(|rest| rest.split_once('$')).ok_or_else(wrong)?;
    if salt.len() > 8 || digest.len() != 22 {
        return Err(wrong());
    }
    let digest = apr1_digest(digest).ok_or_else(wrong)?;
    Ok(Kind::Apr1 { salt: salt.as_bytes().to_vec(), digest })
}

/// The order in which the bytes of the digest are written, three in four characters, lowest bits first.
const APR1_ORDER: [[usize; 3]; 5] = [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]];

fn apr1_digest(text: &str) -> Option<[u8; 16]> {
    const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut values = text.bytes().map(|byte| ALPHABET.iter().position(|&known| known == byte));
    let mut digest = [0; 16];
    for order in APR1_ORDER {
        let mut word = 0;
        for shift in [0, 6, 12, 18] {
            word |= values.next()?? << shift;
        }
        for (place, shift) in order.into_iter().zip([16, 8, 0]) {
            digest[place] = (word >> shift) as u8;
        }
    }
    digest[11] = (values.next()?? | values.next()?? << 6) as u8;
    Some(digest)
}

/// Apache's variant of the MD5 crypt of FreeBSD: a thousand rounds.
fn apr1(password: &[u8], salt: &[u8]) -> [u8; 16] {
    let first: [u8; 16] = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize().into();
    let mut context = Md5::new().chain_update(password).chain_update(b"$apr1$").chain_update(salt);
    let mut left = password.len();
    while left > 0 {
        context.update(&first[..left.min(16)]);
        left = left.saturating_sub(16);
    }
    let mut length = password.len();
    while length > 0 {
        context.update(if length & 1 == 1 { [0] } else { [password[0]] });
        length >>= 1;
    }
    let mut digest: [u8; 16] = context.finalize().into();
    for round in 0..1000 {
        let odd = round & 1 == 1;
        let mut context = Md5::new();
        context.update(if odd { password } else { &digest });
        if round % 3 != 0 {
            context.update(salt);
        }
        if round % 7 != 0 {
            context.update(password);
        }
        context.update(if odd { &digest[..] } else { password });
        digest = context.finalize().into();
    }
    digest
}

/// In a time that does not tell where they differ.
pub(super) fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_every_kind_are_known_again() {
        for (kept, password) in [
            ("$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"),
            ("$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK", "U*U*"),
            ("$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/", "myPassword"),
            ("$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "password"),
        ] {
            let kept = Password::parse(kept).unwrap();
            assert!(kept.verify(password.as_bytes()), "{kept:?}");
            assert!(!kept.verify(b"other") && !kept.verify(b"") && !kept.verify(format!("{password} ").as_bytes()));
        }
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        for text in [
            "secret",
            "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
            "$2y$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
            "$2y$05$short",
            "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOe!",
            "$2é$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
            "$apr1$r31.....$short",
            "$argon2id$v=19$m=2097152,t=1,p=1$c29tZXNhbHQ$ENLG6PbGFGUS9qCj3gO5ETNkP6yGHoAzcRyuPoxuBN8",
            "$argon2id$v=19",
            "",
        ] {
            assert!(Password::parse(text).is_err(), "{text}");
        }
    }
}
