//! The canonical path: decoded once, dots resolved, slashes merged.
//!
//! Access rules, routing and opening all use this one value, so that no encoding of `/admin/` passes a rule for
//! `/admin/*` and still reaches the application (the classes of CVE-2021-41773 and CVE-2024-38472).

use bytes::Bytes;

/// A path that starts with `/`, has no `.`, `..` or empty segment (but for a trailing slash), and no NUL.
///
/// `%2F` never separates: it stays as the three characters `%2F`, and [`CanonicalPath::has_encoded_slash`] says so.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CanonicalPath {
    bytes: Bytes,
    encoded_slash: bool,
}

/// Why a path cannot be made canonical; each is a 400.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PathError {
    /// It does not start with a slash.
    #[error("the path does not start with a slash")]
    Relative,
    /// `%` is not followed by two hexadecimal digits.
    #[error("the path has a malformed percent-encoding")]
    Encoding,
    /// It holds a NUL.
    #[error("the path holds a NUL")]
    Nul,
    /// `..` leads above the root.
    #[error("the path leads above the root")]
    AboveRoot,
}

impl CanonicalPath {
    /// Makes the path of a request target canonical. Where nothing has to change the result shares `raw`'s memory.
    pub fn parse(raw: &Bytes) -> Result<Self, PathError> {
        if raw.first() != Some(&b'/') {
            return Err(PathError::Relative);
        }
        if is_canonical(raw) {
            return Ok(Self { bytes: raw.clone(), encoded_slash: false });
        }
        let (decoded, encoded_slash) = decode(raw)?;
        let resolved = resolve(&decoded)?;
        // It may have stood in a segment that `..` took away.
        let encoded_slash = encoded_slash && memchr::memmem::find(&resolved, b"%2F").is_some();
        Ok(Self { bytes: Bytes::from(resolved), encoded_slash })
    }

    /// A canonical path, or a part of it, as it stands in a URL. `%2F` that stood in the request stays.
    pub fn encode(mut part: &[u8], has_encoded_slash: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(part.len() + 8);
        while let Some(percent) = part.iter().position(|&byte| byte == b'%').filter(|_| has_encoded_slash) {
            push_encoded(&mut out, &part[..percent], is_path_byte);
            let slash = part[percent..].starts_with(b"%2F");
            out.extend_from_slice(if slash { b"%2F" } else { b"%25" });
            part = &part[percent + if slash { 3 } else { 1 }..];
        }
        push_encoded(&mut out, part, is_path_byte);
        out
    }

    /// The path's bytes; any encoding but never a NUL.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether `%2F` stands in it.
    pub fn has_encoded_slash(&self) -> bool {
        self.encoded_slash
    }
}

/// Writes `bytes`, those that may not stand in a URL as they are percent-encoded.
pub(crate) fn push_encoded(location: &mut Vec<u8>, bytes: &[u8], keep: impl Fn(u8) -> bool) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if keep(byte) {
            location.push(byte);
        } else {
            location.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
}

/// `pchar` and the slash (RFC 3986, section 3.3). A backslash is not among them: browsers read it as a slash.
pub(crate) fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte)
}

/// Whether `raw` already is what [`CanonicalPath::parse`] would make of it, seen in one pass.
fn is_canonical(raw: &[u8]) -> bool {
    let mut previous = 0;
    for &byte in raw {
        // A dot after a slash may begin `.` or `..`; hidden files take the slow way too.
        if byte == b'%' || byte == 0 || (previous == b'/' && (byte == b'/' || byte == b'.')) {
            return false;
        }
        previous = byte;
    }
    true
}

fn decode(raw: &[u8]) -> Result<(Vec<u8>, bool), PathError> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut encoded_slash = false;
    let mut rest = raw;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = rest.get(..2).ok_or(PathError::Encoding)?;
        let value = hex(digits[0]).zip(hex(digits[1])).map(|(high, low)| high << 4 | low).ok_or(PathError::Encoding)?;
        rest = &rest[2..];
        if value == b'/' {
            encoded_slash = true;
            decoded.extend_from_slice(b"%2F");
        } else {
            decoded.push(value);
        }
    }
    if decoded.contains(&0) { Err(PathError::Nul) } else { Ok((decoded, encoded_slash)) }
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}

/// RFC 3986, section 5.2.4, but a `..` above the root is refused, and empty segments vanish.
fn resolve(decoded: &[u8]) -> Result<Vec<u8>, PathError> {
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut folder = true;
    for segment in decoded.split(|&byte| byte == b'/').skip(1) {
        folder = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop().ok_or(PathError::AboveRoot)?;
            }
            name => segments.push(name),
        }
    }
    let mut path = Vec::with_capacity(decoded.len());
    for segment in &segments {
        path.push(b'/');
        path.extend_from_slice(segment);
    }
    if folder {
        path.push(b'/');
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(raw: &'static str) -> Result<String, PathError> {
        let path = CanonicalPath::parse(&Bytes::from_static(raw.as_bytes()))?;
        Ok(String::from_utf8_lossy(path.as_bytes()).into_owned())
    }

    #[test]
    fn every_spelling_of_a_path_becomes_the_same_path() {
        for raw in ["/admin/", "//admin/", "/%61dmin/", "/x/../admin/", "/./admin//", "/admin/.", "/admin/x/.."] {
            assert_eq!(canonical(raw).as_deref(), Ok("/admin/"), "{raw}");
        }
        for (raw, want) in [("/", "/"), ("/a", "/a"), ("/a/.b", "/a/.b"), ("/a%20b", "/a b"), ("/a/b/../..", "/")] {
            assert_eq!(canonical(raw).as_deref(), Ok(want), "{raw}");
        }
    }

    #[test]
    fn an_encoded_slash_never_separates_and_a_percent_is_decoded_once() {
        let path = CanonicalPath::parse(&Bytes::from_static(b"/a%2fb/..%2Fc")).unwrap();
        assert_eq!(path.as_bytes(), b"/a%2Fb/..%2Fc");
        assert!(path.has_encoded_slash());
        let path = CanonicalPath::parse(&Bytes::from_static(b"/a%2f/../b%25")).unwrap();
        assert_eq!((path.as_bytes(), path.has_encoded_slash()), (&b"/b%"[..], false));
        assert_eq!(canonical("/%252e%252e/x").as_deref(), Ok("/%2e%2e/x"));
    }

    #[test]
    fn what_has_no_canonical_form_is_refused() {
        assert_eq!(canonical("/.."), Err(PathError::AboveRoot));
        assert_eq!(canonical("/%2e%2e/etc"), Err(PathError::AboveRoot));
        assert_eq!(canonical("/a%00"), Err(PathError::Nul));
        assert_eq!(canonical("/a%0"), Err(PathError::Encoding));
        assert_eq!(canonical("/a%zz"), Err(PathError::Encoding));
        assert_eq!(canonical("a"), Err(PathError::Relative));
    }
}
