//! Heads, bodies and paths of HTTP/1.1.

use bytes::{Bytes, BytesMut};
use daemun::http::h1::{
    AnswerFraming, ChunkedDecoder, Decoded, Framing, HeadLimits, HeadScan, ParsedHead, Scanned, encode_chunk_size,
    parse_answer, parse_head, scan_answer,
};
use daemun::http::{CanonicalPath, Method, PathError};

const LIMITS: HeadLimits = HeadLimits { max_head: 8192, max_request_line: 4096, max_fields: 64 };

/// Whether a byte may stand in a field's name.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a byte may stand in a field's value.
fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// The head at the beginning of these bytes, where it has a reading, and what follows it.
pub(crate) fn read(data: &[u8]) -> Option<(ParsedHead, &[u8])> {
    let Ok(Scanned::Complete { start, end }) = HeadScan::default().advance(data, &LIMITS) else { return None };
    let head = parse_head(&Bytes::copy_from_slice(&data[start..end]), &LIMITS).ok()?;
    Some((head, &data[end..]))
}

/// The end of a head is the same however its bytes come in, and a head that is read has one reading.
pub(crate) fn request_head(data: &[u8]) {
    let whole = HeadScan::default().advance(data, &LIMITS);
    let mut scan = HeadScan::default();
    let mut stepped = Ok(Scanned::Partial);
    for end in 1..=data.len() {
        stepped = scan.advance(&data[..end], &LIMITS);
        if !matches!(stepped, Ok(Scanned::Partial)) {
            break;
        }
    }
    match (whole, stepped) {
        (Ok(whole), Ok(stepped)) => assert_eq!(whole, stepped, "the end of a head depends on how it comes in"),
        (Err(_), Err(_)) => {}
        // Refused early, while the rest was still to come; or by a limit that the whole passes with its end in sight.
        (Ok(Scanned::Partial), Err(_)) | (Err(_), Ok(Scanned::Partial)) if data.len() > LIMITS.max_request_line => {}
        // What can no longer become a request line is refused as soon as it begins; at once, when it is read.
        (Ok(Scanned::Complete { .. }), Err(_)) => assert!(read(data).is_none(), "refused in pieces, read at once"),
        (whole, stepped) => panic!("{whole:?} at once, but {stepped:?} byte by byte"),
    }
    let Some((parsed, _)) = read(data) else { return };
    check(&parsed);
}

fn check(parsed: &ParsedHead) {
    let head = &parsed.head;
    assert!(!head.method_name().is_empty() && head.method_name().bytes().all(is_token));
    assert!(head.target().iter().all(|&byte| byte > b' ' && byte != 0x7f), "white space or control in a target");
    assert!(!head.target().contains(&b'#') && !head.raw_path().contains(&b'?'));
    assert!(head.raw_path().starts_with(b"/") || head.raw_path() == b"*");
    let count = |name: &str| head.field_values(name).count();
    assert!(count("host") <= 1 && count("content-length") <= 1 && count("transfer-encoding") <= 1);
    for (name, value) in head.fields() {
        assert!(!name.is_empty() && name.iter().copied().all(is_token), "{name:?}");
        assert!(value.iter().copied().all(is_value), "{value:?}");
        assert!(value.trim_ascii() == value, "white space around {value:?}");
    }
    let (length, coding) = (head.field("content-length"), head.field("transfer-encoding"));
    match parsed.framing {
        Framing::Chunked => {
            assert!(length.is_none() && coding.is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked")));
        }
        Framing::Length(said) => {
            let digits = length.expect("a length was said");
            assert!(coding.is_none() && digits.iter().all(u8::is_ascii_digit) && said > 0);
            let value = digits.iter().fold(0_u128, |value, digit| value * 10 + u128::from(digit - b'0'));
            assert_eq!(value, u128::from(said));
        }
        Framing::None => assert!(coding.is_none() && length.is_none_or(|zero| zero.iter().all(|&byte| byte == b'0'))),
    }
    if let Some(host) = head.field("host") {
        assert_eq!(head.authority().as_bytes(), host, "one authority for whoever looks");
        authority(host);
    }
}

/// An authority that is taken can be read in one way.
pub(crate) fn authority(data: &[u8]) {
    let request = [&b"GET / HTTP/1.1\r\nHost: "[..], data, b"\r\n\r\n"].concat();
    let Some((parsed, rest)) = read(&request) else { return };
    if !rest.is_empty() {
        return;
    }
    let Some(host) = parsed.head.field("host") else { return };
    assert!(!host.iter().any(|byte| b"@/\\?#, \t\"<>^`{|}".contains(byte)), "{host:?}");
    assert!(host.is_ascii() && !host.is_empty() && !parsed.head.host().is_empty());
    let colons = host.iter().rev().take_while(|&&byte| byte != b']').filter(|&&byte| byte == b':').count();
    assert!(colons <= 1, "two ports in {host:?}");
}

/// Chunks decode to the same bytes under every split; what follows them is left alone.
pub(crate) fn chunked(data: &[u8]) {
    let whole = decode(data, data.len().max(1));
    let stepped = decode(data, 1);
    let by_seven = decode(data, 7);
    match (&whole, &stepped, &by_seven) {
        (Ok(whole), Ok(stepped), Ok(by_seven)) => assert!(whole == stepped && whole == by_seven),
        (Err(_), Err(_), Err(_)) => {}
        _ => panic!("a split changes what chunks say: {whole:?}, {stepped:?}, {by_seven:?}"),
    }
    let Ok((body, Some(used))) = whole else { return };
    assert!(data[..used].ends_with(b"\n"), "the end of chunks is a line's end");
    // What we would write for it is read back as the same.
    let mut written = Vec::new();
    for part in body.chunks(5) {
        encode_chunk_size(&mut written, part.len());
        written.extend_from_slice(part);
        written.extend_from_slice(b"\r\n");
    }
    written.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(decode(&written, written.len()).expect("our own chunks"), (body, Some(written.len())));
}

/// The body and, where its end was seen, how many bytes it took.
fn decode(data: &[u8], step: usize) -> Result<(Vec<u8>, Option<usize>), String> {
    let (mut decoder, mut input, mut body) = (ChunkedDecoder::new(LIMITS), BytesMut::new(), Vec::new());
    let mut fed = 0;
    for part in data.chunks(step) {
        input.extend_from_slice(part);
        fed += part.len();
        loop {
            match decoder.decode(&mut input).map_err(|refusal| refusal.to_string())? {
                Decoded::Data(bytes) => body.extend_from_slice(&bytes),
                Decoded::Partial => break,
                Decoded::End => return Ok((body, Some(fed - input.len()))),
            }
        }
    }
    Ok((body, None))
}

/// A canonical path is canonical: it stays what it is, holds no dots and no NUL, and comes back from a URL.
pub(crate) fn path(data: &[u8]) {
    let raw = Bytes::copy_from_slice(data);
    let canonical = match CanonicalPath::parse(&raw) {
        Ok(canonical) => canonical,
        Err(PathError::Relative) => return assert!(!data.starts_with(b"/")),
        Err(PathError::Nul) => return assert!(data.contains(&0) || data.windows(3).any(|escape| escape == b"%00")),
        Err(_) => return,
    };
    let bytes = canonical.as_bytes();
    assert!(bytes.starts_with(b"/") && !bytes.contains(&0));
    let mut segments = bytes[1..].split(|&byte| byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        assert!(segment != b"." && segment != b"..", "{bytes:?}");
        assert!(!segment.is_empty() || segments.peek().is_none(), "an empty segment in {bytes:?}");
    }
    let url = CanonicalPath::encode(bytes, canonical.has_encoded_slash());
    assert!(url.iter().all(u8::is_ascii_graphic), "{url:?} in a URL");
    let again = CanonicalPath::parse(&Bytes::from(url)).expect("our own URL");
    assert_eq!((again.as_bytes(), again.has_encoded_slash()), (bytes, canonical.has_encoded_slash()));
}

/// An upstream's answer has one end, and no field of it can split ours.
pub(crate) fn answer_head(data: &[u8]) {
    let mut from = 0;
    let Ok(Some(end)) = scan_answer(data, &mut from) else { return };
    let mut stepped = 0;
    let found = (1..=end).find_map(|until| scan_answer(&data[..until], &mut stepped).transpose());
    assert_eq!(found, Some(Ok(end)), "the end of an answer's head depends on how it comes in");
    let bytes = Bytes::copy_from_slice(&data[..end]);
    for method in [Method::Get, Method::Head] {
        let Ok(head) = parse_answer(&bytes, method) else { continue };
        assert!((100..1000).contains(&head.status.code()));
        for field in head.fields.iter() {
            assert!(!field.name().is_empty() && field.name().iter().copied().all(is_token));
            assert!(field.value().iter().copied().all(is_value));
        }
        if method == Method::Head || matches!(head.status.code(), 100..200 | 204 | 304) {
            assert_eq!(head.framing, AnswerFraming::None, "content where there is none");
        }
    }
}
