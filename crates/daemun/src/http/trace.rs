//! Trace context: which trace a request belongs to, as W3C's `traceparent` and `tracestate` say it (Trace Context, level
//! 1), and where its time goes on its way.
//!
//! Bytes in, values out. What is done with a trace, the telemetry decides.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::RequestHead;

/// The name of a trace.
pub type TraceId = [u8; 16];

/// The name of a step in a trace.
pub type SpanId = [u8; 8];

/// Whose part of a trace a request is, by the word of whoever sent it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Parent {
    /// The trace.
    pub trace: TraceId,
    /// The step of the sender's that the request is.
    pub span: SpanId,
    /// Whether the sender keeps what it measures.
    pub is_sampled: bool,
}

/// A request's part of a trace. Whoever works on the request notes in it when he begins.
#[derive(Debug)]
pub struct Trace {
    /// The trace.
    pub id: TraceId,
    /// The whole of the request, as we see it.
    pub span: SpanId,
    /// What is done for it: the application, program or server that answers is told this one as its parent.
    pub work: SpanId,
    /// Whose part it is; `None` where the trace begins here.
    pub parent: Option<SpanId>,
    /// Whether it is kept.
    pub is_sampled: bool,
    steps: Mutex<Steps>,
}

/// What is known of a request's way.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    /// When its connection was accepted, where it is the first on it.
    pub accepted: Option<Instant>,
    /// When it began to wait for a worker, a process or a server.
    pub queued: Option<Instant>,
    /// When it was handed over to who answers.
    pub handed: Option<Instant>,
    /// When the head of the answer was there.
    pub answered: Option<Instant>,
    /// Whether the body was still coming by then.
    pub is_streamed: bool,
    /// The server that was asked last.
    pub server: Option<Box<str>>,
    /// How often servers were asked.
    pub tries: u32,
}

/// Members that a `tracestate` may have (section 3.3.1.1).
const MOST_MEMBERS: usize = 32;

// === impl Parent ===

impl Parent {
    /// What a head says, where that is valid: exactly one `traceparent` (section 3.2.2).
    pub fn of(head: &RequestHead) -> Option<Self> {
        let mut values = head.field_values("traceparent");
        let value = values.next()?;
        if values.next().is_some() { None } else { Self::parse(value) }
    }

    /// `00-TRACE-SPAN-FLAGS` in lower-case hexadecimal. Of a version that is not known yet the same beginning counts; ff is
    /// none, and neither is a name of zeros.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (version, rest) = (hexadecimal::<1>(value.get(..2)?)?, value.get(2..)?);
        let is_whole = rest.len() == 53 || (version[0] > 0 && rest.get(53) == Some(&b'-'));
        let has_dashes = [0, 33, 50].iter().all(|&at| rest.get(at) == Some(&b'-'));
        if version[0] == 0xff || !is_whole || !has_dashes {
            return None;
        }
        let (trace, span) = (hexadecimal(&rest[1..33])?, hexadecimal(&rest[34..50])?);
        let [flags] = hexadecimal(&rest[51..53])?;
        let is_named = trace != TraceId::default() && span != SpanId::default();
        is_named.then_some(Self { trace, span, is_sampled: flags & 1 == 1 })
    }
}

/// Lower case alone (section 3.2.2.1: upper case is invalid).
fn hexadecimal<const LENGTH: usize>(text: &[u8]) -> Option<[u8; LENGTH]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; LENGTH];
    if text.len() != 2 * LENGTH {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Appends a name as text.
pub fn push_hexadecimal(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend(bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]));
}

// === tracestate ===

/// Whether all `tracestate` fields of a head together are a valid list (section 3.3.1): what is not goes no further.
pub fn is_valid_state(head: &RequestHead) -> bool {
    let mut keys: Vec<&[u8]> = Vec::new();
    for member in head.field_values("tracestate").flat_map(|value| value.split(|&byte| byte == b',')) {
        let member = member.trim_ascii();
        if member.is_empty() {
            continue;
        }
        let Some(equals) = memchr::memchr(b'=', member) else { return false };
        let (key, value) = (&member[..equals], &member[equals + 1..]);
        if !is_key(key) || !is_value(value) || keys.contains(&key) || keys.len() == MOST_MEMBERS {
            return false;
        }
        keys.push(key);
    }
    true
}

/// `vendor` or `tenant@vendor`.
fn is_key(key: &[u8]) -> bool {
    let is_plain = |part: &[u8], begins: fn(u8) -> bool, most: usize| {
        let goes_on = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/".contains(byte);
        part.first().is_some_and(|&first| begins(first)) && part.len() <= most && part.iter().all(goes_on)
    };
    match memchr::memchr(b'@', key) {
        None => is_plain(key, |byte| byte.is_ascii_lowercase(), 256),
        Some(at) => {
            is_plain(&key[..at], |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit(), 241)
                && is_plain(&key[at + 1..], |byte| byte.is_ascii_lowercase(), 14)
        }
    }
}

fn is_value(value: &[u8]) -> bool {
    let is_printable = |byte: &u8| (b' '..=b'~').contains(byte) && !b",=".contains(byte);
    !value.is_empty() && value.len() <= 256 && value.iter().all(is_printable)
}

// === impl Trace ===

impl Trace {
    /// A request's part of the trace `id`, with names for what is ours.
    pub fn new(id: TraceId, (span, work): (SpanId, SpanId), parent: Option<SpanId>, is_sampled: bool) -> Self {
        Self { id, span, work, parent, is_sampled, steps: Mutex::default() }
    }

    /// What whoever answers is told: `traceparent`, version 00.
    pub fn parent_of_work(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(55);
        out.extend_from_slice(b"00-");
        push_hexadecimal(&mut out, &self.id);
        out.push(b'-');
        push_hexadecimal(&mut out, &self.work);
        out.extend_from_slice(if self.is_sampled { b"-01" } else { b"-00" });
        out
    }

    /// Notes something, where anybody will read it.
    pub fn note(&self, note: impl FnOnce(&mut Steps)) {
        if self.is_sampled {
            note(&mut self.lock());
        }
    }

    /// What has been noted.
    pub fn steps(&self) -> Steps {
        self.lock().clone()
    }

    /// Plain data: usable even if a thread panicked while it held the lock.
    fn lock(&self) -> MutexGuard<'_, Steps> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::http::h1::{HeadLimits, parse_head};

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn head(fields: &str) -> RequestHead {
        let limits = HeadLimits { max_head: 65_536, max_request_line: 16_384, max_fields: 100 };
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        parse_head(&Bytes::from(text), &limits).unwrap().head
    }

    #[test]
    fn a_parent_is_taken_as_the_recommendation_says() {
        for (value, sampled) in [
            (format!("00-{TRACE}-{SPAN}-01"), true),
            (format!("00-{TRACE}-{SPAN}-00"), false),
            // Flags that are not known yet say nothing.
            (format!("00-{TRACE}-{SPAN}-fe"), false),
            (format!("00-{TRACE}-{SPAN}-ff"), true),
            (format!("cc-{TRACE}-{SPAN}-01"), true),
            (format!("cc-{TRACE}-{SPAN}-01-what-comes-later"), true),
        ] {
            let parent = Parent::parse(value.as_bytes()).unwrap();
            assert_eq!((parent.trace[0], parent.span[7], parent.is_sampled), (0x0a, 0x31, sampled), "{value}");
        }
    }

    #[test]
    fn a_parent_that_is_not_valid_is_none() {
        let upper = TRACE.to_uppercase();
        let zeros = "0".repeat(32);
        for value in [
            String::new(),
            "00".to_owned(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("cc-{TRACE}-{SPAN}-01.more"),
            format!("00-{upper}-{SPAN}-01"),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-0x"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("00_{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}_{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}_01"),
            format!(".0-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", &TRACE[1..]),
        ] {
            assert_eq!(Parent::parse(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn one_that_stands_twice_is_none() {
        let one = format!("traceparent: 00-{TRACE}-{SPAN}-01\r\n");
        assert!(Parent::of(&head(&one)).is_some());
        assert_eq!(Parent::of(&head(&one.repeat(2))), None);
        assert_eq!(Parent::of(&head("")), None);
    }

    #[test]
    fn a_state_is_a_list_of_keys_and_values_or_goes_no_further() {
        let many: Vec<String> = (0..33).map(|at| format!("k{at}=v")).collect();
        for (state, valid) in [
            ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", true),
            ("foo=1 \t, \t bar=2, ,", true),
            ("fw529a3039@dt=FfAQ,0a@b=c d", true),
            (&many[..32].join(","), true),
            (&many.join(","), false),
            ("foo=1,foo=2", false),
            ("foo", false),
            ("foo=", false),
            ("FOO=1", false),
            ("0foo=1", false),
            ("foo@=1", false),
            ("@foo=1", false),
            ("foo=bar=baz", false),
            ("fo o=1", false),
            (&format!("{}=1", "a".repeat(257)), false),
            (&format!("a={}", "b".repeat(257)), false),
            (&format!("a@{}=1", "b".repeat(15)), false),
        ] {
            assert_eq!(is_valid_state(&head(&format!("tracestate: {state}\r\n"))), valid, "{state}");
        }
        assert!(is_valid_state(&head("tracestate: a=1\r\ntracestate: b=2\r\n")));
        assert!(!is_valid_state(&head("tracestate: a=1\r\ntracestate: a=2\r\n")));
    }

    #[test]
    fn whoever_answers_is_told_our_work_as_its_parent() {
        let trace = Trace::new([0x0a; 16], ([1; 8], [0xb7; 8]), None, true);
        let told = trace.parent_of_work();
        assert_eq!(told, format!("00-{}-{}-01", "0a".repeat(16), "b7".repeat(8)).as_bytes());
        assert_eq!(Parent::parse(&told).unwrap().span, [0xb7; 8]);
    }
}
