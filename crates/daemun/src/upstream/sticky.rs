//! The cookie that leads a client back to its server: the server's name as a digest, signed, so that nobody can choose
//! a server or learn its address from it.

use sha2::{Digest, Sha256};

/// Bytes of the digest and of the signature that are told.
const ID: usize = 8;
const SIGNATURE: usize = 16;

/// What a server is called in cookies.
pub(super) type Id = [u8; ID];

/// The name of the server with this URL.
pub(super) fn id(url: &str) -> Id {
    let digest = Sha256::digest(url.as_bytes());
    std::array::from_fn(|at| digest[at])
}

/// The cookie's value.
pub(super) fn sign(key: &[u8], id: Id) -> String {
    let mut value = String::with_capacity(2 * (ID + SIGNATURE) + 1);
    push_hex(&mut value, &id);
    value.push('.');
    push_hex(&mut value, &mac(key, &id)[..SIGNATURE]);
    value
}

/// The server that a value leads to, if we have signed it.
pub(super) fn verify(key: &[u8], value: &[u8]) -> Option<Id> {
    let (id, signature) = value.split_at_checked(2 * ID)?;
    let id: Id = unhex(id)?.try_into().ok()?;
    let said = unhex(signature.strip_prefix(b".")?)?;
    let own = mac(key, &id);
    // All bytes are compared, so that the time says nothing of where the first wrong one is.
    let differs = said.iter().zip(&own[..SIGNATURE]).fold(0, |differs, (one, other)| differs | (one ^ other));
    (said.len() == SIGNATURE && differs == 0).then_some(id)
}

/// HMAC-SHA-256 (RFC 2104).
fn mac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0_u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().into()
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_signed_leads_to_a_server() {
        let key = b"secret";
        let id = id("http://10.0.0.5:8080");
        let value = sign(key, id);
        assert_eq!(verify(key, value.as_bytes()), Some(id));
        assert_eq!(verify(b"other", value.as_bytes()), None);
        for at in 0..value.len() {
            let mut wrong = value.clone().into_bytes();
            wrong[at] = if wrong[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(verify(key, &wrong), None, "{at}");
        }
        for wrong in ["", ".", "0123456789abcdef", "0123456789abcdef.", &value[1..], &format!("{value}00")] {
            assert_eq!(verify(key, wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn the_signature_is_hmac_as_others_compute_it() {
        // RFC 4231, test case 2.
        let mut found = String::new();
        push_hex(&mut found, &mac(b"Jefe", b"what do ya want for nothing?"));
        assert_eq!(found, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
