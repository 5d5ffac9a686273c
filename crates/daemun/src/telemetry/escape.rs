//! Bytes from outside in a log line: no line break, quote or control character gets through as itself.

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends `bytes` for a quoted part of a line: control characters, quotes, backslashes and everything above ASCII
/// become `\xHH`, as nginx writes them.
pub(super) fn push_escaped(line: &mut Vec<u8>, bytes: &[u8]) {
    let is_plain = |&byte: &u8| (b' '..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| !is_plain(byte)) {
        line.extend_from_slice(&rest[..at]);
        let byte = rest[at];
        line.extend([b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        rest = &rest[at + 1..];
    }
    line.extend_from_slice(rest);
}

/// Appends `bytes` as a JSON string. What is not UTF-8 becomes U+FFFD.
pub(super) fn push_json(line: &mut Vec<u8>, bytes: &[u8]) {
    line.push(b'"');
    for chunk in bytes.utf8_chunks() {
        push_json_text(line, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            line.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    line.push(b'"');
}

fn push_json_text(line: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| byte < b' ' || byte == b'"' || byte == b'\\' || byte == 0x7f) {
        line.extend_from_slice(&rest[..at]);
        match rest[at] {
            byte @ (b'"' | b'\\') => line.extend([b'\\', byte]),
            byte => {
                line.extend_from_slice(b"\\u00");
                line.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
        rest = &rest[at + 1..];
    }
    line.extend_from_slice(rest);
}

/// Appends a number.
pub(super) fn push_number(line: &mut Vec<u8>, number: u64) {
    line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends seconds with six decimals, or `-`.
pub(super) fn push_seconds(line: &mut Vec<u8>, duration: Option<std::time::Duration>) {
    let Some(duration) = duration else {
        line.push(b'-');
        return;
    };
    push_number(line, duration.as_secs());
    line.push(b'.');
    let mut micros = duration.subsec_micros();
    let mut digits = [0; 6];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (micros % 10) as u8;
        micros /= 10;
    }
    line.extend_from_slice(&digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_ends_a_line_or_a_quote() {
        let mut line = Vec::new();
        push_escaped(&mut line, b"a\r\n\"b\\\x1b[2J\xff\x7f");
        assert_eq!(line, br"a\x0d\x0a\x22b\x5c\x1b[2J\xff\x7f");
        for byte in 0..=255_u8 {
            let mut line = Vec::new();
            push_json(&mut line, &[b'a', byte, b'z']);
            let read: String = serde_json::from_slice(&line).unwrap();
            assert_eq!(read, String::from_utf8_lossy(&[b'a', byte, b'z']));
        }
    }

    #[test]
    fn seconds_have_six_decimals() {
        for (micros, want) in [(0, "0.000000"), (1, "0.000001"), (1_234_567, "1.234567"), (60_000_000, "60.000000")] {
            let mut line = Vec::new();
            push_seconds(&mut line, Some(std::time::Duration::from_micros(micros)));
            assert_eq!(line, want.as_bytes());
        }
    }
}
