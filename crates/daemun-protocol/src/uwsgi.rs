//! uwsgi, the protocol: a packet of names and values, and the body of the request behind it. Both sides.
//!
//! <https://uwsgi-docs.readthedocs.io/en/latest/Protocol.html>. The answer is an HTTP answer up to the end of the
//! connection.

use bytes::{Buf, BufMut};

use crate::pairs::Pair;

/// Bytes before the pairs.
pub const HEADER: usize = 4;

/// Bytes of pairs that a packet can have.
pub const MAX_PAIRS: usize = 65_535;

/// `modifier1` of a request for an application (`WSGI`, and what nginx says unless told otherwise).
pub const REQUEST: u8 = 0;

/// `modifier1` of a question whether anybody is there, and of its answer.
pub const PING: u8 = 100;

/// A packet whose pairs are all there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Packet<'a> {
    /// What is asked for.
    pub modifier1: u8,
    /// More of it.
    pub modifier2: u8,
    /// Bytes of all of it: the body begins here.
    pub length: usize,
    /// The pairs, as they came.
    pub content: &'a [u8],
}

/// Pairs that end within a name or value.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("variables end before their time")]
pub struct Malformed;

/// The pairs are longer than a packet can be.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the variables of the request have more than {MAX_PAIRS} bytes, which no uwsgi packet can hold")]
pub struct TooLong;

/// Reads the packet at the beginning of `bytes`; `None` where its end has not come yet.
pub fn parse_packet(bytes: &[u8]) -> Option<Packet<'_>> {
    let &[modifier1, size0, size1, modifier2] = bytes.first_chunk::<HEADER>()?;
    let length = HEADER + usize::from(u16::from_le_bytes([size0, size1]));
    Some(Packet { modifier1, modifier2, length, content: bytes.get(HEADER..length)? })
}

/// The names and values in the content of a packet.
pub fn parse_pairs(mut content: &[u8]) -> Result<Vec<Pair<'_>>, Malformed> {
    let mut pairs = Vec::new();
    while !content.is_empty() {
        let name = take(&mut content)?;
        pairs.push((name, take(&mut content)?));
    }
    Ok(pairs)
}

/// Appends a packet.
pub fn put_packet<'a>(
    out: &mut impl BufMut,
    modifier1: u8,
    pairs: impl Iterator<Item = Pair<'a>>,
) -> Result<(), TooLong> {
    let mut content = Vec::with_capacity(2048);
    for part in pairs.flat_map(|(name, value)| [name, value]) {
        content.put_u16_le(u16::try_from(part.len()).map_err(|_| TooLong)?);
        content.put_slice(part);
    }
    let length = u16::try_from(content.len()).map_err(|_| TooLong)?;
    out.put_u8(modifier1);
    out.put_u16_le(length);
    out.put_u8(0);
    out.put_slice(&content);
    Ok(())
}

fn take<'a>(content: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = content.try_get_u16_le().map_err(|_| Malformed)?;
    let (taken, rest) = content.split_at_checked(length.into()).ok_or(Malformed)?;
    *content = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairs::pairs;

    #[test]
    fn a_packet_arrives_as_it_was_written() {
        let mut out = Vec::new();
        put_packet(&mut out, REQUEST, pairs(b"A\0b\0EMPTY\0\0")).unwrap();
        assert_eq!(out, b"\x00\x0f\x00\x00\x01\x00A\x01\x00b\x05\x00EMPTY\x00\x00");
        let packet = parse_packet(&out).unwrap();
        assert_eq!((packet.modifier1, packet.modifier2, packet.length), (REQUEST, 0, out.len()));
        assert_eq!(parse_pairs(packet.content).unwrap(), [(&b"A"[..], &b"b"[..]), (b"EMPTY", b"")]);
        for end in 0..out.len() {
            assert_eq!(parse_packet(&out[..end]), None, "{end}");
        }
    }

    #[test]
    fn variables_that_are_cut_are_refused_and_too_many_are_not_sent() {
        for cut in [&b"\x01"[..], b"\x02\x00a", b"\x01\x00a", b"\x01\x00a\x01", b"\x01\x00a\xff\xff"] {
            assert_eq!(parse_pairs(cut), Err(Malformed), "{}", cut.escape_ascii());
        }
        let long = vec![b'x'; MAX_PAIRS];
        for value in [&long[..], &long[..MAX_PAIRS - 4]] {
            assert_eq!(put_packet(&mut Vec::new(), REQUEST, [(&b"A"[..], value)].into_iter()), Err(TooLong));
        }
        assert_eq!(put_packet(&mut Vec::new(), REQUEST, [(&b"A"[..], &long[..MAX_PAIRS - 5])].into_iter()), Ok(()));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..30 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                bytes.push(if seed.is_multiple_of(4) { seed as u8 } else { (seed >> 8) as u8 % 5 });
            }
            if let Some(packet) = parse_packet(&bytes) {
                assert!(packet.length <= bytes.len());
                let _ = parse_pairs(packet.content);
            }
        }
    }
}
