//! The access log: one line for each request, when its answer has been sent or has failed.

use std::cell::RefCell;
use std::io;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use super::error::ErrorLogger;
use super::escape::{push_escaped, push_json, push_number, push_seconds};
use super::metrics;
use super::settings::Format;
use super::time::{push_common, rfc3339};
use super::writer::LogWriter;
use crate::http::{RequestHead, Status, Timing};

/// The access log. A clone writes to the same place.
#[derive(Clone)]
pub struct AccessLogger {
    writer: Option<LogWriter>,
    format: Format,
}

/// What is told of a request.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Who asked; `None` on a Unix socket.
    pub client: Option<SocketAddr>,
    /// What was asked.
    pub request: RequestLine<'a>,
    /// How it was answered.
    pub status: Status,
    /// Bytes of the body that were sent, without framing.
    pub bytes: u64,
    /// From the complete head to the last byte of the answer.
    pub duration: Duration,
    /// Where the time went.
    pub timing: Timing,
}

/// The request of an [`Entry`].
#[derive(Clone, Copy, Debug)]
pub enum RequestLine<'a> {
    /// A head that was read.
    Head(&'a RequestHead),
    /// The first line of what was refused.
    Refused(&'a [u8]),
}

/// Bytes of a refused request that are logged: enough to recognize it.
const MAX_REFUSED: usize = 200;

thread_local! {
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl AccessLogger {
    /// A log that writes to `sink`. Lost lines are counted in `errors`.
    pub fn start(sink: OwnedFd, format: Format, errors: ErrorLogger) -> io::Result<Self> {
        let report = move |lost| {
            metrics::lost_lines(lost);
            errors.error(format_args!("{lost} lines of the access log were lost: nobody took them"));
            None
        };
        Ok(Self { writer: Some(LogWriter::start("access-log", sink, report)?), format })
    }

    /// A log that writes nothing.
    pub fn off() -> Self {
        Self { writer: None, format: Format::Combined }
    }

    /// Whether anything is written at all: who would look at the clock for a line need not.
    pub fn is_on(&self) -> bool {
        self.writer.is_some()
    }

    /// Writes a line.
    pub fn log(&self, entry: &Entry<'_>) {
        let Some(writer) = &self.writer else { return };
        LINE.with_borrow_mut(|line| {
            line.clear();
            format_entry(line, self.format, entry, SystemTime::now());
            writer.push(line);
        });
    }

    /// Writes to another descriptor from now on.
    pub fn reopen(&self, sink: OwnedFd) {
        if let Some(writer) = &self.writer {
            writer.reopen(sink);
        }
    }

    /// Waits until everything is written, at most this long. True if nothing was left.
    pub fn close(&self, within: Duration) -> bool {
        self.writer.as_ref().is_none_or(|writer| writer.close(within))
    }
}

fn format_entry(line: &mut Vec<u8>, format: Format, entry: &Entry<'_>, now: SystemTime) {
    match format {
        Format::Combined => push_combined(line, entry, now),
        Format::Json => push_object(line, entry, now),
    }
    line.push(b'\n');
}

/// Apache's `"%h %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-agent}i\""`, then our three times.
fn push_combined(line: &mut Vec<u8>, entry: &Entry<'_>, now: SystemTime) {
    push_client(line, entry.client);
    line.extend_from_slice(b" - - ");
    push_common(line, now);
    line.extend_from_slice(b" \"");
    let head = match entry.request {
        RequestLine::Head(head) => {
            line.extend_from_slice(head.method_name().as_bytes());
            line.push(b' ');
            push_escaped(line, head.target());
            line.push(b' ');
            line.extend_from_slice(head.version().as_str().as_bytes());
            Some(head)
        }
        RequestLine::Refused(bytes) => {
            push_escaped(line, first_line(bytes));
            None
        }
    };
    line.extend_from_slice(b"\" ");
    push_number(line, entry.status.code().into());
    line.push(b' ');
    if entry.bytes == 0 {
        line.push(b'-');
    } else {
        push_number(line, entry.bytes);
    }
    for name in ["referer", "user-agent"] {
        line.extend_from_slice(b" \"");
        match head.and_then(|head| head.field(name)) {
            Some(value) => push_escaped(line, value),
            None => line.push(b'-'),
        }
        line.push(b'"');
    }
    line.extend_from_slice(b" rt=");
    push_seconds(line, Some(entry.duration));
    line.extend_from_slice(b" queue=");
    push_seconds(line, entry.timing.queue);
    line.extend_from_slice(b" app=");
    push_seconds(line, entry.timing.application);
}

fn push_object(line: &mut Vec<u8>, entry: &Entry<'_>, now: SystemTime) {
    line.extend_from_slice(b"{\"time\":\"");
    line.extend_from_slice(rfc3339(now).as_bytes());
    line.extend_from_slice(b"\",\"client\":\"");
    push_client(line, entry.client);
    line.push(b'"');
    match entry.request {
        RequestLine::Head(head) => {
            push_member(line, "method", Some(head.method_name().as_bytes()));
            push_member(line, "target", Some(head.target()));
            push_member(line, "protocol", Some(head.version().as_str().as_bytes()));
            push_member(line, "host", Some(head.authority().as_bytes()).filter(|host| !host.is_empty()));
            push_member(line, "referer", head.field("referer"));
            push_member(line, "user_agent", head.field("user-agent"));
        }
        RequestLine::Refused(bytes) => push_member(line, "refused", Some(first_line(bytes))),
    }
    line.extend_from_slice(b",\"status\":");
    push_number(line, entry.status.code().into());
    line.extend_from_slice(b",\"bytes\":");
    push_number(line, entry.bytes);
    let times =
        [("duration", Some(entry.duration)), ("queue", entry.timing.queue), ("application", entry.timing.application)];
    for (name, time) in times {
        push_name(line, name);
        match time {
            Some(time) => push_seconds(line, Some(time)),
            None => line.extend_from_slice(b"null"),
        }
    }
    line.push(b'}');
}

fn push_member(line: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    push_name(line, name);
    match value {
        Some(value) => push_json(line, value),
        None => line.extend_from_slice(b"null"),
    }
}

fn push_name(line: &mut Vec<u8>, name: &str) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
}

/// The address alone. An IPv4 client of an IPv6 socket is written as what it is; one on a Unix socket as nginx does.
fn push_client(line: &mut Vec<u8>, client: Option<SocketAddr>) {
    match client.map(|client| client.ip().to_canonical()) {
        Some(IpAddr::V4(address)) => {
            for (at, octet) in address.octets().into_iter().enumerate() {
                if at > 0 {
                    line.push(b'.');
                }
                push_number(line, octet.into());
            }
        }
        Some(IpAddr::V6(address)) => {
            // Writing into memory cannot fail.
            let _ = write!(line, "{address}");
        }
        None => line.extend_from_slice(b"unix:"),
    }
}

fn first_line(bytes: &[u8]) -> &[u8] {
    let begin = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    let line = &bytes[begin..bytes.len().min(begin + MAX_REFUSED)];
    &line[..line.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(line.len())]
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::http::h1::{HeadLimits, parse_head};

    const LIMITS: HeadLimits = HeadLimits { max_head: 65_536, max_request_line: 16_384, max_fields: 100 };

    fn line(format: Format, head: &'static [u8], client: Option<&str>) -> String {
        let head = parse_head(&Bytes::from_static(head), &LIMITS).unwrap().head;
        let entry = Entry {
            client: client.map(|client| client.parse().unwrap()),
            request: RequestLine::Head(&head),
            status: Status::OK,
            bytes: 1234,
            duration: Duration::from_micros(1_500),
            timing: Timing { queue: Some(Duration::from_micros(20)), application: None },
        };
        let mut line = Vec::new();
        format_entry(&mut line, format, &entry, std::time::UNIX_EPOCH + Duration::from_millis(1_795_348_805_007));
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn combined_is_apaches_and_three_times() {
        let head = b"GET /a?b HTTP/1.1\r\nHost: a\r\nReferer: http://x/\r\nUser-Agent: y \"z\r\n\r\n";
        assert_eq!(
            line(Format::Combined, head, Some("[::ffff:10.0.0.7]:5000")),
            "10.0.0.7 - - [22/Nov/2026:12:00:05 +0000] \"GET /a?b HTTP/1.1\" 200 1234 \"http://x/\" \"y \\x22z\" \
             rt=0.001500 queue=0.000020 app=-\n"
        );
        let bare = line(Format::Combined, b"GET / HTTP/1.0\r\n\r\n", Some("[2001:db8::1]:5000"));
        assert!(bare.starts_with("2001:db8::1 - - ") && bare.contains("\"GET / HTTP/1.0\" 200 1234 \"-\" \"-\" rt="));
    }

    #[test]
    fn json_is_one_object_a_line() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: \"y\\\xff\r\n\r\n";
        let line = line(Format::Json, head, None);
        assert_eq!(line.matches('\n').count(), 1);
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        let want = serde_json::json!({
            "time": "2026-11-22T12:00:05.007Z", "client": "unix:", "method": "GET", "target": "/",
            "protocol": "HTTP/1.1", "host": "a", "referer": null, "user_agent": "\"y\\\u{fffd}", "status": 200, "bytes": 1234,
            "duration": 0.0015, "queue": 0.00002, "application": null,
        });
        assert_eq!(object, want);
    }
}
