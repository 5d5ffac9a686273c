//! The head of an answer as a worker sends it: `200 OK`, then names and values, separated by NULs.

use bytes::Bytes;

use crate::http::{Fields, Status};

/// Status and fields of an answer.
#[derive(Debug)]
pub(super) struct AnswerHead {
    /// The status.
    pub(super) status: Status,
    /// The reason phrase where it is not the registered one.
    pub(super) reason: Option<Bytes>,
    /// The fields.
    pub(super) fields: Fields,
    /// What the application said the length of the body is.
    pub(super) content_length: Option<u64>,
    /// Whether a server in front is asked to send a file: `X-Accel-Redirect` or `X-Sendfile`.
    pub(super) names_file: bool,
}

/// What an application may not send. The shim has looked already; the front does not rely on it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum AnswerError {
    /// The status line is not `ddd reason`.
    #[error("the status is not three digits and a reason")]
    Status,
    /// A name without its value.
    #[error("the fields are not pairs")]
    Pairs,
    /// A name or value that RFC 9110 does not allow.
    #[error("a header is not allowed by RFC 9110, section 5")]
    Field,
    /// `Content-Length` is not a number, or two.
    #[error("Content-Length is not one number")]
    Length,
}

impl AnswerHead {
    /// Reads a head; fields share its memory.
    pub(super) fn parse(head: &Bytes) -> Result<Self, AnswerError> {
        let mut parts = Parts(Some(head));
        let line = parts.next().ok_or(AnswerError::Status)?;
        let (status, reason) = status_line(line)?;
        let reason = reason.map(|reason| head.slice_ref(reason));
        let mut fields = Fields::new();
        let mut content_length = None;
        let mut names_file = false;
        while let Some(name) = parts.next() {
            // White space around a value is not part of it (RFC 9110, section 5.5); Django's cookies begin with a space.
            let value = trim(parts.next().ok_or(AnswerError::Pairs)?);
            // Most names are told apart by their length.
            match name.len() {
                14 if name.eq_ignore_ascii_case(b"content-length") => {
                    let length = self::content_length(value).ok_or(AnswerError::Length)?;
                    // Said twice it may be; said in two ways nobody knows where the answer ends.
                    if content_length.replace(length).is_some_and(|said| said != length) {
                        return Err(AnswerError::Length);
                    }
                    continue;
                }
                10 => names_file |= name.eq_ignore_ascii_case(b"x-sendfile"),
                16 => names_file |= name.eq_ignore_ascii_case(b"x-accel-redirect"),
                _ => {}
            }
            if !fields.try_push(head.slice_ref(name), head.slice_ref(value)) {
                return Err(AnswerError::Field);
            }
        }
        Ok(Self { status, reason, fields, content_length, names_file })
    }
}

/// Digits and nothing else (RFC 9110, section 8.6): the parser of the language would take a sign.
fn content_length(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

/// The status, and its reason where it is not the registered one.
fn status_line(line: &[u8]) -> Result<(Status, Option<&[u8]>), AnswerError> {
    let digits = line.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit)).ok_or(AnswerError::Status)?;
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    let status = Status::from_code(code).ok_or(AnswerError::Status)?;
    let reason = match line.get(3) {
        None => &[],
        Some(b' ') => &line[4..],
        Some(_) => return Err(AnswerError::Status),
    };
    if reason.is_empty() || reason == status.reason().as_bytes() {
        return Ok((status, None));
    }
    if reason.iter().any(|&byte| byte < b' ' && byte != b'\t' || byte == 0x7f) {
        return Err(AnswerError::Status);
    }
    Ok((status, Some(reason)))
}

fn trim(value: &[u8]) -> &[u8] {
    let outer = |byte: &u8| matches!(byte, b' ' | b'\t');
    match (value.first(), value.last()) {
        (Some(first), Some(last)) if outer(first) || outer(last) => value.trim_ascii(),
        _ => value,
    }
}

/// The parts between the NULs; what is left, and nothing after the last.
struct Parts<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.0?;
        let (part, behind) = match memchr::memchr(0, rest) {
            Some(end) => (&rest[..end], Some(&rest[end + 1..])),
            None => (rest, None),
        };
        self.0 = behind;
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_with_its_own_reason_and_length() {
        let head = Bytes::from_static(b"299 My Own Reason\0X-A\0 b\t\0content-length\x0012\0X-Empty\0");
        let head = AnswerHead::parse(&head).unwrap();
        assert_eq!((head.status.code(), head.reason.as_deref()), (299, Some(&b"My Own Reason"[..])));
        assert_eq!((head.content_length, head.fields.get("x-a")), (Some(12), Some(&b"b"[..])));
        assert_eq!(head.fields.get("X-Empty"), Some(&b""[..]));
        assert_eq!(AnswerHead::parse(&Bytes::from_static(b"200 OK")).unwrap().reason, None);
    }

    #[test]
    fn what_would_split_a_response_is_refused() {
        for (head, error) in [
            (&b""[..], AnswerError::Status),
            (b"20 OK", AnswerError::Status),
            (b"200OK", AnswerError::Status),
            (b"200 OK\r\nX: y", AnswerError::Status),
            (b"200 OK\0X", AnswerError::Pairs),
            (b"200 OK\0X\0a\r\nY: z", AnswerError::Field),
            (b"200 OK\0X Y\0a", AnswerError::Field),
            (b"200 OK\0Content-Length\0-1", AnswerError::Length),
            (b"200 OK\0Content-Length\0+1", AnswerError::Length),
            (b"200 OK\0Content-Length\x001\0Content-Length\x002", AnswerError::Length),
        ] {
            assert_eq!(AnswerHead::parse(&Bytes::copy_from_slice(head)).unwrap_err(), error, "{}", head.escape_ascii());
        }
    }
}
