//! What a request is called.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;

/// Bytes of an accepted name: those of proxies have at most 64.
const MAX_GIVEN: usize = 128;

thread_local! {
    /// Each event loop counts from a place of its own that nobody can guess.
    static NEXT: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
}

/// What a request is called in logs, on error pages and by applications (`X-Request-ID`).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum RequestId {
    /// It has no name.
    #[default]
    None,
    /// A number of ours.
    Made(u64),
    /// A trusted proxy's name for it.
    Given(Bytes),
}

impl RequestId {
    /// A number that no other request has. Made without a system call and written out only where somebody reads it.
    pub fn next() -> Self {
        let number = NEXT.get();
        NEXT.set(number.wrapping_add(1));
        // An odd factor keeps numbers apart and makes neighbours look different.
        Self::Made(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The name that a trusted proxy gave, if it can stand in logs and headers as it is.
    pub fn given(name: &[u8]) -> Option<Self> {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:=+/@".contains(byte);
        let valid = !name.is_empty() && name.len() <= MAX_GIVEN && name.iter().all(plain);
        valid.then(|| Self::Given(Bytes::copy_from_slice(name)))
    }

    /// Appends it as text.
    pub fn push(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.text(&mut [0; 16]));
    }

    /// It as text, which may be made in `room`.
    pub fn text<'a>(&'a self, room: &'a mut [u8; 16]) -> &'a [u8] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        match self {
            Self::None => b"-",
            Self::Made(number) => {
                for (byte, at) in room.iter_mut().zip((0..16).rev()) {
                    *byte = DIGITS[(number >> (4 * at)) as usize & 15];
                }
                room
            }
            Self::Given(name) => name,
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.text(&mut [0; 16])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_only_plain_ones_are_taken_over() {
        let (one, two) = (RequestId::next(), RequestId::next());
        assert_ne!(one, two);
        assert_eq!(one.to_string().len(), 16);
        assert_eq!(RequestId::given(b"abc-1").unwrap().to_string(), "abc-1");
        for name in [&b""[..], b"a b", b"a\"b", b"\xff", &[b'a'; 129]] {
            assert_eq!(RequestId::given(name), None);
        }
    }
}
