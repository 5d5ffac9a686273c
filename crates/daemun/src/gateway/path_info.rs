//! What follows a script in a path.

use crate::http::Request;

/// Decodes a part of a URL once; `None` where an encoding is malformed.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        decoded.push(u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?);
        rest = &rest[2..];
    }
    Some(decoded)
}

/// `PATH_INFO`: what follows `segments` segments of the path, decoded, its dots resolved. `None` where an encoded slash
/// would make a dot segment of it, so that no program is led out of its folder by one.
pub fn path_info(request: &Request, canonical: &[u8], segments: usize) -> Option<Vec<u8>> {
    if !request.path.has_encoded_slash() {
        return Some(canonical.to_vec());
    }
    let mut resolved: Vec<Vec<u8>> = Vec::new();
    let mut folder = false;
    for segment in request.head.raw_path().split(|&byte| byte == b'/').skip(1) {
        let segment = decode(segment)?;
        folder = matches!(&segment[..], b"" | b"." | b"..");
        match &segment[..] {
            b"" | b"." => {}
            b".." => drop(resolved.pop()?),
            _ => resolved.push(segment),
        }
    }
    let mut info = Vec::new();
    for segment in resolved.get(segments..)? {
        info.push(b'/');
        info.extend_from_slice(segment);
    }
    if folder {
        info.push(b'/');
    }
    let is_dots = |part: &[u8]| matches!(part, b"." | b"..");
    (!info.contains(&0) && !info.split(|&byte| byte == b'/').any(is_dots)).then_some(info)
}
