//! What a certificate says of itself (RFC 5280, section 4.1): serial number, names, until when it is valid.
//!
//! Only what an operator or an application is told. Whether a certificate is to be trusted is decided by rustls, before
//! anybody looks here; bytes that are no certificate give nothing.

use std::fmt::Write;

/// What a certificate says of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Facts {
    /// The serial number in hexadecimal digits, upper case, as OpenSSL and mod_ssl write it.
    pub serial: String,
    /// Who signed it, as RFC 4514 writes names: `CN=Example CA,O=Example`.
    pub issuer: String,
    /// Whom it is for.
    pub subject: String,
    /// From when it is valid, in seconds since 1970.
    pub not_before: i64,
    /// Until when.
    pub not_after: i64,
}

const INTEGER: u8 = 0x02;
const OBJECT: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const OCTETS: u8 = 0x04;
const KEY_IDENTIFIER: u8 = 0x80;

/// The extension that names the authority's key: 2.5.29.35.
const AUTHORITY_KEY: &[u8] = &[0x55, 0x1d, 0x23];

impl Facts {
    /// Reads a certificate in DER; `None` where it is none.
    pub fn read(der: &[u8]) -> Option<Self> {
        let mut certificate = Der(Der(der).take(SEQUENCE)?);
        let mut signed = Der(certificate.take(SEQUENCE)?);
        if signed.0.first() == Some(&VERSION) {
            signed.take(VERSION)?;
        }
        let serial = signed.take(INTEGER)?;
        // It is positive; the zero before a first bit that is set says so, and is no digit of it.
        let serial = hexadecimal(if let [0, rest @ ..] = serial { rest } else { serial });
        signed.take(SEQUENCE)?;
        let issuer = name(signed.take(SEQUENCE)?)?;
        let mut validity = Der(signed.take(SEQUENCE)?);
        let (not_before, not_after) = (time(validity.next()?)?, time(validity.next()?)?);
        let subject = name(signed.take(SEQUENCE)?)?;
        Some(Self { serial, issuer, subject, not_before, not_after })
    }
}

/// What an authority calls a certificate by when it is asked when to renew it (RFC 9773, section 4.1).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RenewalId {
    /// The identifier of the authority's key.
    pub authority_key: Vec<u8>,
    /// The serial number as it is encoded.
    pub serial: Vec<u8>,
}

impl RenewalId {
    /// Reads a certificate in DER; `None` where it is none, or does not name its authority's key.
    pub fn read(der: &[u8]) -> Option<Self> {
        let mut certificate = Der(Der(der).take(SEQUENCE)?);
        let mut signed = Der(certificate.take(SEQUENCE)?);
        if signed.0.first() == Some(&VERSION) {
            signed.take(VERSION)?;
        }
        let serial = signed.take(INTEGER)?.to_vec();
        // Algorithm, issuer, validity, subject, key; then what is marked as extensions.
        for _ in 0..5 {
            signed.take(SEQUENCE)?;
        }
        let mut extensions = loop {
            let (tag, content) = signed.next()?;
            if tag == EXTENSIONS {
                break Der(Der(content).take(SEQUENCE)?);
            }
        };
        loop {
            let mut extension = Der(extensions.take(SEQUENCE)?);
            if extension.take(OBJECT)? != AUTHORITY_KEY {
                continue;
            }
            let mut value = extension.next()?;
            if value.0 != OCTETS {
                value = extension.next()?;
            }
            let authority_key = Der(Der(value.1).take(SEQUENCE)?).take(KEY_IDENTIFIER)?.to_vec();
            return Some(Self { authority_key, serial });
        }
    }
}

/// What is left of a sequence of values in DER.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The content of the next value, which must have this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, content) = self.next()?;
        (found == tag).then_some(content)
    }

    /// The next value: tag and content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }
}

/// Digits in upper case.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing into a string cannot fail, here and below.
        let _ = write!(text, "{byte:02X}");
    }
    text
}

/// RFC 4514: the last part first.
fn name(parts: &[u8]) -> Option<String> {
    let mut parts = Der(parts);
    let mut texts = Vec::new();
    while !parts.0.is_empty() {
        let mut attributes = Der(parts.take(SET)?);
        let mut text = String::new();
        while !attributes.0.is_empty() {
            let mut attribute = Der(attributes.take(SEQUENCE)?);
            if !text.is_empty() {
                text.push('+');
            }
            push_attribute(&mut text, attribute.take(OBJECT)?, attribute.next()?);
        }
        texts.push(text);
    }
    texts.reverse();
    Some(texts.join(","))
}

fn push_attribute(text: &mut String, kind: &[u8], (tag, value): (u8, &[u8])) {
    let known = match kind {
        [0x55, 4, 3] => Some("CN"),
        [0x55, 4, 4] => Some("SN"),
        [0x55, 4, 5] => Some("serialNumber"),
        [0x55, 4, 6] => Some("C"),
        [0x55, 4, 7] => Some("L"),
        [0x55, 4, 8] => Some("ST"),
        [0x55, 4, 9] => Some("street"),
        [0x55, 4, 10] => Some("O"),
        [0x55, 4, 11] => Some("OU"),
        [0x55, 4, 12] => Some("title"),
        [0x55, 4, 42] => Some("GN"),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1] => Some("emailAddress"),
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1] => Some("UID"),
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => Some("DC"),
        _ => None,
    };
    match known {
        Some(known) => text.push_str(known),
        None => push_object(text, kind),
    }
    text.push('=');
    // UTF8String, PrintableString, IA5String and what else is text of one byte for each character; BMPString.
    match (known, tag) {
        (Some(_), 0x0c | 0x12..=0x14 | 0x16 | 0x1a) => push_escaped(text, value),
        (Some(_), 0x1e) => {
            let units = value.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            let decoded: String = char::decode_utf16(units).map(|unit| unit.unwrap_or('\u{fffd}')).collect();
            push_escaped(text, decoded.as_bytes());
        }
        _ => {
            text.push('#');
            text.push_str(&hexadecimal(&[&[tag, value.len() as u8], value].concat()));
        }
    }
}

/// An object identifier as its numbers.
fn push_object(text: &mut String, kind: &[u8]) {
    let mut number = 0_u64;
    let mut is_first = true;
    for &byte in kind {
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        if is_first {
            let top = (number / 40).min(2);
            let _ = write!(text, "{top}.{}", number - top * 40);
        } else {
            let _ = write!(text, ".{number}");
        }
        (number, is_first) = (0, false);
    }
}

/// Nothing but printable ASCII comes out: what is told to applications and logs must not hold a line end or more.
fn push_escaped(text: &mut String, value: &[u8]) {
    for (at, &byte) in value.iter().enumerate() {
        let is_edge = at == 0 || at + 1 == value.len();
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' | b'=' => text.extend(['\\', char::from(byte)]),
            b'#' if at == 0 => text.push_str("\\#"),
            b' ' if is_edge => text.push_str("\\ "),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\{byte:02X}");
            }
        }
    }
}

/// `UTCTime` or `GeneralizedTime` (RFC 5280, section 4.1.2.5), always in UTC and with seconds.
fn time((tag, text): (u8, &[u8])) -> Option<i64> {
    let (year, rest) = match tag {
        0x17 => (two(text)?, text.get(2..)?),
        0x18 => (two(text)? * 100 + two(text.get(2..)?)?, text.get(4..)?),
        _ => return None,
    };
    // Years of two digits are from 1950 to 2049.
    let year = if tag == 0x18 { year } else { year + if year < 50 { 2000 } else { 1900 } };
    let [month, day, hour, minute, second] = [0, 2, 4, 6, 8].map(|at| rest.get(at..).and_then(two));
    if rest.get(10..)? != b"Z" {
        return None;
    }
    Some(days(year, month?, day?)? * 86_400 + hour? * 3600 + minute? * 60 + second?)
}

fn two(text: &[u8]) -> Option<i64> {
    match text {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9', ..] => Some(i64::from(tens - b'0') * 10 + i64::from(ones - b'0')),
        _ => None,
    }
}

/// Days since 1970. A year begins in March here, so that the day which only some have is its last.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_both_forms_are_read() {
        assert_eq!(time((0x17, b"700101000000Z")), Some(0));
        assert_eq!(time((0x17, b"491231235959Z")), Some(2_524_607_999));
        assert_eq!(time((0x18, b"20500101000000Z")), Some(2_524_608_000));
        assert_eq!(time((0x18, b"20240229120000Z")), Some(1_709_208_000));
        for wrong in [&b""[..], b"7001010000", b"701301000000Z", b"700101000000+0100", b"70010100000xZ"] {
            assert_eq!(time((0x17, wrong)), None, "{wrong:?}");
        }
    }

    #[test]
    fn names_are_told_in_printable_ascii_alone() {
        let mut text = String::new();
        push_escaped(&mut text, "# a,b\r\n\u{e9}=\0 ".as_bytes());
        assert_eq!(text, "\\# a\\,b\\0D\\0A\\C3\\A9\\=\\00\\ ");
        text.clear();
        push_attribute(&mut text, &[0x55, 4, 3], (0x1e, &[0, b'a', 0x20, 0xac]));
        push_attribute(&mut text, &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 1], (0x0c, b"x"));
        assert_eq!(text, "CN=a\\E2\\82\\AC1.3.6.1.4.1.311.1=#0C0178");
    }

    #[test]
    fn what_is_no_certificate_gives_nothing_under_every_length() {
        let bytes = [0x30, 0x82, 0x01, 0x00, 0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0xa0, 0x03, 2, 1, 2, 2, 1, 5];
        for end in 0..bytes.len() {
            assert_eq!(Facts::read(&bytes[..end]), None);
        }
        assert_eq!(Facts::read(&[0x30, 0x80, 0, 0]), None);
    }
}
