//! Reading the head of an answer from an upstream (RFC 9112, sections 4 and 6.3).
//!
//! As strict as the reading of requests: an answer that two readers could end at different places has no reading here,
//! and its connection is dropped, so that nobody is ever given the rest of somebody else's answer.

use std::mem::MaybeUninit;

use bytes::Bytes;
use memchr::memchr;

use super::super::{Fields, Method, Status};
use super::head::Asked;

/// Fields that an answer can have at the most.
const MAX_FIELDS: usize = 256;

/// Where the body of an answer ends (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AnswerFraming {
    /// There is no body.
    None,
    /// After this many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// Where the connection does.
    UntilClose,
}

/// The head of an answer.
#[derive(Debug)]
pub struct AnswerHead {
    /// The status.
    pub status: Status,
    /// The reason phrase where it is not the registered one.
    pub reason: Option<Bytes>,
    /// The end-to-end fields: those of framing and of the connection are read here and left out.
    pub fields: Fields,
    /// Where the body ends.
    pub framing: AnswerFraming,
    /// What `Content-Length` said, also where no body follows, as for `HEAD`.
    pub length: Option<u64>,
    /// Whether the connection may be used again once the body is read.
    pub keep_alive: bool,
    /// What protocol is spoken from now on (`Upgrade` of a 101).
    pub upgrade: Option<Bytes>,
}

/// Finds the end of a head that begins with `bytes`; `from` is how far an earlier call has looked. A line that does not
/// end with CRLF has two readings, and so none.
pub fn scan_answer(bytes: &[u8], from: &mut usize) -> Result<Option<usize>, &'static str> {
    const BEGIN: &[u8] = b"HTTP/1.";
    let begun = bytes.len().min(BEGIN.len());
    if bytes[..begun] != BEGIN[..begun] {
        return Err("it is no HTTP/1 answer");
    }
    while let Some(found) = memchr(b'\n', &bytes[*from..]) {
        let newline = *from + found;
        if newline == 0 || bytes[newline - 1] != b'\r' {
            return Err("a line of its head ends in a bare LF");
        }
        *from = newline + 1;
        if bytes[..newline].ends_with(b"\r\n\r") {
            return Ok(Some(newline + 1));
        }
    }
    *from = bytes.len();
    Ok(None)
}

/// Reads a whole head, the answer to a request with this method.
pub fn parse_answer(bytes: &Bytes, method: Method) -> Result<AnswerHead, &'static str> {
    let mut room = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
    let mut answer = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut answer, bytes, &mut room) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err("its head does not end where its lines do"),
        Err(httparse::Error::TooManyHeaders) => return Err("its head has too many fields"),
        Err(_) => return Err("its head is malformed"),
    }
    let (Some(code), Some(minor)) = (answer.code, answer.version) else { return Err("its status line is malformed") };
    let status = Status::from_code(code).ok_or("its status is none")?;
    let mut facts = Facts { http11: minor >= 1, ..Facts::default() };
    for field in answer.headers.iter() {
        facts.take(field.name, field.value)?;
    }
    let mut fields = Fields::with_capacity(answer.headers.len());
    for field in answer.headers.iter().filter(|field| !facts.is_of_connection(field.name)) {
        fields.push_read(bytes.slice_ref(field.name.as_bytes()), bytes.slice_ref(field.value));
    }
    let reason = answer.reason.unwrap_or_default().as_bytes();
    let is_own = !reason.is_empty() && reason != status.reason().as_bytes();
    let framing = facts.framing(method, status)?;
    Ok(AnswerHead {
        status,
        reason: is_own.then(|| bytes.slice_ref(reason)),
        fields,
        framing,
        length: facts.length,
        keep_alive: facts.connection.goes_on(facts.http11) && framing != AnswerFraming::UntilClose,
        upgrade: facts.upgrade.map(Bytes::copy_from_slice),
    })
}

/// What the fields say about framing and the connection.
#[derive(Default)]
struct Facts<'a> {
    http11: bool,
    length: Option<u64>,
    chunked: bool,
    connection: Asked,
    /// Fields that `Connection` names (RFC 9110, section 7.6.1).
    named: Vec<&'a [u8]>,
    upgrade: Option<&'a [u8]>,
}

impl<'a> Facts<'a> {
    fn take(&mut self, name: &str, value: &'a [u8]) -> Result<(), &'static str> {
        if !matches!(name.len(), 7 | 10 | 14 | 17) {
            // None of those that are looked for.
        } else if name.eq_ignore_ascii_case("content-length") {
            if self.length.replace(number(value).ok_or("its Content-Length is no number")?).is_some() {
                return Err("it has more than one Content-Length");
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err("its Transfer-Encoding is not exactly `chunked`");
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case("connection") {
            for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                match Asked::by(option) {
                    Asked::Nothing => self.named.push(option),
                    asked => self.connection = self.connection.max(asked),
                }
            }
        } else if name.eq_ignore_ascii_case("upgrade") {
            self.upgrade = Some(value);
        }
        Ok(())
    }

    /// Whether a field is for this connection only. Those that say what a body is are never taken away by being named.
    fn is_of_connection(&self, name: &str) -> bool {
        const NEVER: [&str; 5] = ["content-type", "content-encoding", "content-range", "set-cookie", "cache-control"];
        let is = |other: &&str| name.eq_ignore_ascii_case(other);
        // Most names are told apart by their length.
        let always: &[&str] = match name.len() {
            2 => &["te"],
            7 => &["trailer", "upgrade", "alt-svc"],
            10 => &["connection", "keep-alive"],
            14 => &["content-length"],
            16 => &["proxy-connection"],
            17 => &["transfer-encoding"],
            _ => &[],
        };
        always.iter().any(is)
            || self.named.iter().any(|named| name.as_bytes().eq_ignore_ascii_case(named)) && !NEVER.iter().any(is)
    }

    fn framing(&self, method: Method, status: Status) -> Result<AnswerFraming, &'static str> {
        if self.chunked && self.length.is_some() {
            return Err("it has both a Content-Length and a Transfer-Encoding");
        }
        if self.chunked && !self.http11 {
            return Err("HTTP/1.0 has no Transfer-Encoding");
        }
        Ok(match self.length {
            _ if method == Method::Head || status.is_bodiless() => AnswerFraming::None,
            _ if self.chunked => AnswerFraming::Chunked,
            Some(0) => AnswerFraming::None,
            Some(length) => AnswerFraming::Length(length),
            None => AnswerFraming::UntilClose,
        })
    }
}

fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|&digit| digit <= 9)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fields::{is_token, is_value};

    fn read(text: &'static str, method: Method) -> Result<AnswerHead, &'static str> {
        parse_answer(&Bytes::from_static(text.as_bytes()), method)
    }

    #[test]
    fn an_answer_ends_where_its_framing_says_or_has_no_reading() {
        for (fields, want) in [
            ("Content-Length: 5", Ok(AnswerFraming::Length(5))),
            ("Content-Length: 0", Ok(AnswerFraming::None)),
            ("Transfer-Encoding: chunked", Ok(AnswerFraming::Chunked)),
            ("X: y", Ok(AnswerFraming::UntilClose)),
            ("Content-Length: 5\r\nContent-Length: 5", Err(())),
            ("Content-Length: 5, 5", Err(())),
            ("Content-Length: +5", Err(())),
            ("Content-Length: 99999999999999999999", Err(())),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked", Err(())),
            ("Transfer-Encoding: gzip, chunked", Err(())),
            ("Transfer-Encoding: identity", Err(())),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Err(())),
            ("X : y", Err(())),
            ("X: a\r\n b", Err(())),
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
            let found = parse_answer(&Bytes::from(text), Method::Get).map(|head| head.framing).map_err(drop);
            assert_eq!(found, want, "{fields}");
        }
    }

    #[test]
    fn names_and_values_hold_what_fields_may_hold_and_nothing_else() {
        let whole = |name: &[u8], value: &[u8]| {
            Bytes::from([b"HTTP/1.1 200 OK\r\nX", name, b": v", value, b"w\r\n\r\n"].concat())
        };
        for byte in 0..=u8::MAX {
            let is_read = |bytes| parse_answer(&bytes, Method::Get).is_ok();
            // Behind a colon stands the value.
            assert_eq!(is_read(whole(&[byte], b"")), is_token(byte) || byte == b':', "{byte:#x} in a name");
            assert_eq!(is_read(whole(b"", &[byte])), is_value(byte), "{byte:#x} in a value");
        }
        assert!(read("HTTP/1.1 200 OK\r\n: v\r\n\r\n", Method::Get).is_err(), "no name");
    }

    #[test]
    fn an_answer_to_head_and_a_304_have_a_length_and_no_body() {
        for (status, method) in [("200 OK", Method::Head), ("304 Not Modified", Method::Get)] {
            let text = format!("HTTP/1.1 {status}\r\nContent-Length: 7\r\n\r\n");
            let head = parse_answer(&Bytes::from(text), method).unwrap();
            assert_eq!((head.framing, head.length, head.keep_alive), (AnswerFraming::None, Some(7), true));
        }
    }

    #[test]
    fn what_is_for_this_connection_only_goes_no_further() {
        let text = "HTTP/1.1 200 Fine\r\nConnection: X-Hop, keep-alive, Set-Cookie\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
                    Set-Cookie: a=b\r\nProxy-Connection: x\r\nContent-Length: 0\r\nX-End: 2\r\n\r\n";
        let head = read(text, Method::Get).unwrap();
        let names: Vec<_> =
            head.fields.iter().map(|field| String::from_utf8_lossy(field.name()).into_owned()).collect();
        assert_eq!(names, ["Set-Cookie", "X-End"]);
        assert_eq!(head.reason.as_deref(), Some(&b"Fine"[..]));
    }

    #[test]
    fn a_connection_goes_on_only_where_both_sides_know_where_the_answer_ended() {
        for (text, want) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\n\r\n", false),
        ] {
            assert_eq!(read(text, Method::Get).unwrap().keep_alive, want, "{text}");
        }
        assert!(read("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Method::Get).is_err());
    }

    #[test]
    fn the_end_of_a_head_is_found_however_it_comes_in() {
        let text = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody";
        let mut from = 0;
        for end in 0..text.len() - 4 {
            assert_eq!(scan_answer(&text[..end], &mut from), Ok(None), "{end}");
        }
        assert_eq!(scan_answer(text, &mut from), Ok(Some(text.len() - 4)));
        for wrong in [&b"SSH-2.0-x\r\n"[..], b"HTTP/2 200\r\n", b"\r\nHTTP/1.1 200\r\n", b"HTTP/1.1 200 OK\nA: b\n\n"] {
            assert!(scan_answer(wrong, &mut 0).is_err());
        }
    }
}
