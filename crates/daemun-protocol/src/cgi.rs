//! The head of a CGI program's output (RFC 3875, section 6): fields, each on a line of its own, up to an empty line.
//!
//! Lines end with LF or CR LF; anything else that a program might mean by a line, or hide in one, is refused: a CR
//! within a value, white space before the colon and folded lines are read differently by different servers.
//!
//! A first line such as `HTTP/1.1 299 Reason` gives the status too: programs whose name begins with `nph-` write their
//! whole response (section 5), and others copy the habit.

use std::ops::Range;

/// Bytes that a head may have: as many as that of a request.
pub const MAX_HEAD: usize = 64 * 1024;

/// Fields that a head may have.
const MAX_FIELDS: usize = 256;

/// A head that was read to its end. Ranges lie within the bytes that were parsed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OutputHead {
    /// Bytes of all of it, the empty line included: the body begins here.
    pub length: usize,
    /// Status code and reason phrase, where it has one.
    pub status: Option<(u16, Range<usize>)>,
    /// `Location`.
    pub location: Option<Range<usize>>,
    /// `Content-Length`.
    pub content_length: Option<u64>,
    /// All other fields in their order, as name and value without the white space around it.
    pub fields: Vec<(Range<usize>, Range<usize>)>,
}

/// Why it is no head.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HeadError {
    /// Not one line before the empty one.
    #[error("it begins with an empty line, and so has no header")]
    Empty,
    /// A line without a colon.
    #[error("a line is not `Name: value`")]
    NotAField,
    /// A name that RFC 9110, section 5.1, does not allow; white space before the colon too.
    #[error("the name of a header is not allowed by RFC 9110, section 5.1")]
    Name,
    /// A value that RFC 9110, section 5.5, does not allow.
    #[error("a header holds a control character")]
    Value,
    /// A line that goes on with the one before.
    #[error("a header is folded over two lines")]
    Folded,
    /// `Status` is not three digits and a reason.
    #[error("`Status` is not three digits and a reason")]
    Status,
    /// `Content-Length` is not one number.
    #[error("`Content-Length` is not one number")]
    Length,
    /// `Status` or `Location` more than once (RFC 3875, section 6.3).
    #[error("`Status` or `Location` stands there twice")]
    Twice,
    /// Longer than [`MAX_HEAD`].
    #[error("the headers have more than {MAX_HEAD} bytes")]
    TooLong,
    /// More fields than any program means to send.
    #[error("there are more than {MAX_FIELDS} headers")]
    TooMany,
}

/// Reads the head at the beginning of `bytes`; `None` where its end has not come yet.
///
/// A fault is told as soon as its line is there: a program that writes no header at all need not be waited for.
pub fn parse_head(bytes: &[u8]) -> Result<Option<OutputHead>, HeadError> {
    let mut head = OutputHead::default();
    let mut at = 0;
    while let Some(end) = memchr::memchr(b'\n', &bytes[at..]).map(|offset| at + offset) {
        if end > MAX_HEAD {
            return Err(HeadError::TooLong);
        }
        let line = at..if end > at && bytes[end - 1] == b'\r' { end - 1 } else { end };
        if line.is_empty() {
            if at == 0 {
                return Err(HeadError::Empty);
            }
            head.length = end + 1;
            return Ok(Some(head));
        }
        if at == 0 && bytes.starts_with(b"HTTP/") {
            head.status = Some(status_line(bytes, line)?);
        } else {
            head.add(bytes, line)?;
        }
        at = end + 1;
    }
    if bytes.len() > MAX_HEAD { Err(HeadError::TooLong) } else { Ok(None) }
}

impl OutputHead {
    fn add(&mut self, bytes: &[u8], line: Range<usize>) -> Result<(), HeadError> {
        let text = &bytes[line.clone()];
        if text.starts_with(b" ") || text.starts_with(b"\t") {
            return Err(HeadError::Folded);
        }
        let colon = memchr::memchr(b':', text).ok_or(HeadError::NotAField)?;
        let name = line.start..line.start + colon;
        let value = trim(bytes, line.start + colon + 1..line.end);
        if name.is_empty() || !bytes[name.clone()].iter().all(|&byte| is_token(byte)) {
            return Err(HeadError::Name);
        }
        if !bytes[value.clone()].iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f)) {
            return Err(HeadError::Value);
        }
        let is = |wanted: &[u8]| bytes[name.clone()].eq_ignore_ascii_case(wanted);
        if is(b"Status") {
            let status = status(bytes, value)?;
            return if self.status.replace(status).is_some() { Err(HeadError::Twice) } else { Ok(()) };
        }
        if is(b"Location") {
            return if self.location.replace(value).is_some() { Err(HeadError::Twice) } else { Ok(()) };
        }
        if is(b"Content-Length") {
            let length = number(&bytes[value]).ok_or(HeadError::Length)?;
            // Said twice it may be; said in two ways nobody knows where the body ends.
            let other = self.content_length.replace(length).is_some_and(|said| said != length);
            return if other { Err(HeadError::Length) } else { Ok(()) };
        }
        if self.fields.len() == MAX_FIELDS {
            return Err(HeadError::TooMany);
        }
        self.fields.push((name, value));
        Ok(())
    }
}

/// `HTTP/1.1 200 OK`.
fn status_line(bytes: &[u8], line: Range<usize>) -> Result<(u16, Range<usize>), HeadError> {
    let space = memchr::memchr(b' ', &bytes[line.clone()]).ok_or(HeadError::Status)?;
    status(bytes, trim(bytes, line.start + space..line.end))
}

/// `404 Not Found`, or the number alone.
fn status(bytes: &[u8], value: Range<usize>) -> Result<(u16, Range<usize>), HeadError> {
    let digits = bytes[value.clone()].get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit));
    let code = digits.ok_or(HeadError::Status)?.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    let rest = value.start + 3..value.end;
    let apart = bytes[rest.clone()].first().is_none_or(|&byte| byte == b' ');
    let reason = trim(bytes, rest);
    let clean = bytes[reason.clone()].iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
    if (100..600).contains(&code) && apart && clean { Ok((code, reason)) } else { Err(HeadError::Status) }
}

/// Digits and nothing else (RFC 9110, section 8.6).
fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

fn trim(bytes: &[u8], mut range: Range<usize>) -> Range<usize> {
    let is_space = |byte: u8| matches!(byte, b' ' | b'\t');
    while range.start < range.end && is_space(bytes[range.start]) {
        range.start += 1;
    }
    while range.start < range.end && is_space(bytes[range.end - 1]) {
        range.end -= 1;
    }
    range
}

/// `tchar` of RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &[u8]) -> OutputHead {
        parse_head(text).unwrap().unwrap()
    }

    #[test]
    fn a_head_is_read_with_either_line_end() {
        for text in [
            &b"Content-Type: text/plain\nStatus: 404 Nope\nX-A:b\n\nbody"[..],
            b"Content-Type: text/plain\r\nStatus: 404 Nope\r\nX-A:b\r\n\r\nbody",
            b"Content-Type: text/plain\r\nSTATUS:404 Nope \nX-A: b\t\n\r\nbody",
        ] {
            let head = whole(text);
            assert_eq!(&text[head.length..], b"body");
            let (code, reason) = head.status.unwrap();
            assert_eq!((code, &text[reason]), (404, &b"Nope"[..]));
            let fields: Vec<_> = head.fields.iter().map(|(n, v)| (&text[n.clone()], &text[v.clone()])).collect();
            assert_eq!(fields, [(&b"Content-Type"[..], &b"text/plain"[..]), (b"X-A", b"b")]);
        }
    }

    #[test]
    fn status_location_and_length_are_told_apart_and_repeated_fields_stay() {
        let text = b"Status: 302\nLocation: /x y\nContent-Length: 12\nSet-Cookie: a\nSet-Cookie: b\n\n";
        let head = whole(text);
        assert_eq!(head.status, Some((302, 11..11)));
        assert_eq!(&text[head.location.unwrap()], b"/x y");
        assert_eq!((head.content_length, head.fields.len()), (Some(12), 2));
    }

    #[test]
    fn a_status_line_is_a_status() {
        let text = b"HTTP/1.1 299 Nph by itself\r\nX: y\r\n\r\nbody";
        let (code, reason) = whole(text).status.unwrap();
        assert_eq!((code, &text[reason]), (299, &b"Nph by itself"[..]));
        assert_eq!(whole(b"HTTP/1.0 204\n\n").status.map(|(code, _)| code), Some(204));
        assert_eq!(parse_head(b"HTTP/1.1\n\n"), Err(HeadError::Status));
    }

    #[test]
    fn an_interim_head_ends_where_the_next_one_begins() {
        let text = b"Status: 103 Early Hints\nLink: </a.css>; rel=preload\n\nStatus: 200 OK\n\nbody";
        let first = whole(text);
        assert_eq!(first.status.map(|(code, _)| code), Some(103));
        assert_eq!(whole(&text[first.length..]).status.map(|(code, _)| code), Some(200));
    }

    #[test]
    fn what_is_no_head_is_refused_as_soon_as_it_is_there() {
        for (text, error) in [
            (&b"\nbody"[..], HeadError::Empty),
            (b"\r\nbody", HeadError::Empty),
            (b"hello world\n", HeadError::NotAField),
            (b"<html>\n", HeadError::NotAField),
            (b"X-A : b\n", HeadError::Name),
            (b": b\n", HeadError::Name),
            (b"X-A: b\rX-B: c\n", HeadError::Value),
            (b"X-A: b\0\n", HeadError::Value),
            (b"X-A: b\n c\n", HeadError::Folded),
            (b"Status: OK\n", HeadError::Status),
            (b"Status: 20\n", HeadError::Status),
            (b"Status: 2000\n", HeadError::Status),
            (b"Status: 999 x\n", HeadError::Status),
            (b"Status: 200\nStatus: 200\n", HeadError::Twice),
            (b"Location: /\nLocation: /\n", HeadError::Twice),
            (b"Content-Length: +1\n", HeadError::Length),
            (b"Content-Length: 1\nContent-Length: 2\n", HeadError::Length),
        ] {
            assert_eq!(parse_head(text), Err(error), "{}", text.escape_ascii());
        }
        assert_eq!(parse_head(&vec![b'a'; MAX_HEAD + 1]), Err(HeadError::TooLong));
        assert_eq!(parse_head("X: y\n".repeat(MAX_FIELDS + 1).as_bytes()), Err(HeadError::TooMany));
    }

    #[test]
    fn a_head_that_comes_in_pieces_is_the_same_head() {
        let text = b"Content-Type: text/html\r\nStatus: 201 Made\r\nSet-Cookie: a=b\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(parse_head(&text[..end]), Ok(None), "{end}");
        }
        assert_eq!(whole(text).length, text.len());
    }

    #[test]
    fn no_bytes_make_it_panic_or_reach_beyond_what_was_given() {
        // A small generator of our own: the same bytes each time, and nothing to depend on.
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let alphabet = b"aS:tus \t\r\n0129/HTP.\0\xff";
        for _ in 0..20_000 {
            let mut text = Vec::new();
            for _ in 0..40 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                text.push(alphabet[(seed % alphabet.len() as u64) as usize]);
            }
            if let Ok(Some(head)) = parse_head(&text) {
                assert!(head.length <= text.len());
                assert!(head.fields.iter().all(|(name, value)| name.end < head.length && value.end < head.length));
            }
        }
    }
}
