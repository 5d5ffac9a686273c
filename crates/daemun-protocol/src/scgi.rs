//! SCGI: a request as one netstring of names and values, and its body behind it. Both sides.
//!
//! <https://python.ca/scgi/protocol.txt>. The answer is a CGI answer ([`cgi`](crate::cgi)) up to the end of the
//! connection.

use bytes::BufMut;

use crate::pairs::{Pair, pairs};

/// A head that was read to its end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Head<'a> {
    /// Bytes of all of it: the body begins here.
    pub length: usize,
    /// Names and values, each ended by a NUL.
    pub pairs: &'a [u8],
    /// Bytes of the body.
    pub content_length: u64,
}

/// Why bytes are no head.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// It does not begin with a netstring.
    #[error("it does not begin with a netstring")]
    Netstring,
    /// It is longer than allowed.
    #[error("the headers are longer than allowed")]
    TooLong,
    /// Names and values are not in pairs.
    #[error("a header has no value")]
    Pairs,
    /// `CONTENT_LENGTH` does not come first, or is no number.
    #[error("CONTENT_LENGTH does not come first, or is no number")]
    Length,
    /// `SCGI` is not `1`.
    #[error("the header SCGI is not 1")]
    Version,
}

/// Reads the head at the beginning of `bytes`, of at most `most` bytes; `None` where its end has not come yet.
pub fn parse_head(bytes: &[u8], most: usize) -> Result<Option<Head<'_>>, Malformed> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    // A number of more digits is larger than anything that is allowed; and "0:" would have no pairs.
    if digits > 9 {
        return Err(Malformed::TooLong);
    }
    match bytes.get(digits) {
        None => return Ok(None),
        Some(b':') if digits > 0 && (bytes[0] != b'0' || digits == 1) => {}
        Some(_) => return Err(Malformed::Netstring),
    }
    let number = std::str::from_utf8(&bytes[..digits]).ok().and_then(|digits| digits.parse::<usize>().ok());
    let size = number.ok_or(Malformed::Netstring)?;
    if size > most {
        return Err(Malformed::TooLong);
    }
    let end = digits + 1 + size;
    let Some(&comma) = bytes.get(end) else { return Ok(None) };
    if comma != b',' {
        return Err(Malformed::Netstring);
    }
    let text = &bytes[digits + 1..end];
    let read: usize = pairs(text).map(|(name, value)| name.len() + value.len() + 2).sum();
    if read != text.len() {
        return Err(Malformed::Pairs);
    }
    let content_length = match pairs(text).next() {
        Some((b"CONTENT_LENGTH", value)) => number_of(value).ok_or(Malformed::Length)?,
        _ => return Err(Malformed::Length),
    };
    if !pairs(text).any(|(name, value)| name == b"SCGI" && value == b"1") {
        return Err(Malformed::Version);
    }
    Ok(Some(Head { length: end + 1, pairs: text, content_length }))
}

/// Appends the head of a request with a body of `length` bytes and these pairs; what they say of `CONTENT_LENGTH` and
/// `SCGI` is left out.
pub fn put_head<'a>(out: &mut impl BufMut, length: u64, others: impl Iterator<Item = Pair<'a>>) {
    let mut text = Vec::with_capacity(2048);
    text.extend_from_slice(format!("CONTENT_LENGTH\0{length}\0SCGI\x001\0").as_bytes());
    for (name, value) in others.filter(|(name, _)| !matches!(*name, b"CONTENT_LENGTH" | b"SCGI")) {
        text.extend_from_slice(name);
        text.push(0);
        text.extend_from_slice(value);
        text.push(0);
    }
    out.put_slice(text.len().to_string().as_bytes());
    out.put_u8(b':');
    out.put_slice(&text);
    out.put_u8(b',');
}

fn number_of(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 1000;

    #[test]
    fn the_example_of_the_specification_is_read() {
        let text = b"70:CONTENT_LENGTH\x0027\0SCGI\x001\0REQUEST_METHOD\0POST\0REQUEST_URI\0/deepthought\0,What is";
        let head = parse_head(text, MOST).unwrap().unwrap();
        assert_eq!((&text[head.length..], head.content_length), (&b"What is"[..], 27));
        assert_eq!(pairs(head.pairs).nth(3), Some((&b"REQUEST_URI"[..], &b"/deepthought"[..])));
        for end in 0..head.length {
            assert_eq!(parse_head(&text[..end], MOST), Ok(None), "{end}");
        }
    }

    #[test]
    fn a_head_arrives_as_it_was_written_and_says_its_length_once() {
        let mut out = Vec::new();
        put_head(&mut out, 5, pairs(b"CONTENT_LENGTH\x009\0PATH_INFO\0/a\0SCGI\x002\0EMPTY\0\0"));
        let head = parse_head(&out, MOST).unwrap().unwrap();
        assert_eq!((head.content_length, head.length), (5, out.len()));
        let found: Vec<_> = pairs(head.pairs).map(|(name, _)| name).collect();
        assert_eq!(found, [&b"CONTENT_LENGTH"[..], b"SCGI", b"PATH_INFO", b"EMPTY"]);
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for (text, why) in [
            (&b"GET / HTTP/1.1"[..], Malformed::Netstring),
            (b":", Malformed::Netstring),
            (b"07:", Malformed::Netstring),
            (b"9999999999", Malformed::TooLong),
            (b"1001:", Malformed::TooLong),
            (b"0:,", Malformed::Length),
            (b"24:CONTENT_LENGTH\x000\0SCGI\x001\0;", Malformed::Netstring),
            (b"23:CONTENT_LENGTH\x000\0SCGI\x001,", Malformed::Pairs),
            (b"24:SCGI\x001\0CONTENT_LENGTH\x000\0,", Malformed::Length),
            (b"24:CONTENT_LENGTH\0x\0SCGI\x001\0,", Malformed::Length),
            (b"24:CONTENT_LENGTH\x000\0SCGI\x002\0,", Malformed::Version),
            (b"17:CONTENT_LENGTH\x000\0,", Malformed::Version),
        ] {
            assert_eq!(parse_head(text, MOST), Err(why), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let alphabet = b"0123:,CONTENT_LENGTH\0SCGI\x001\0";
        for _ in 0..20_000 {
            let mut text = Vec::new();
            for _ in 0..30 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                text.push(alphabet[(seed % alphabet.len() as u64) as usize]);
            }
            if let Ok(Some(head)) = parse_head(&text, MOST) {
                assert!(head.length <= text.len());
            }
        }
    }
}
