//! The access log: one line for each request, when its answer has been sent or has failed.

mod readable;

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::error::ErrorLogger;
use super::escape::{push_escaped, push_json, push_number, push_seconds};
use super::mask::Mask;
use super::metrics::{self, PlaceId};
use super::settings::Format;
use super::template::Template;
use super::time::{push_common, rfc3339};
use super::writer::LogWriter;
use crate::http::trace::{Parent, TraceId, push_hexadecimal};
use crate::http::{RequestHead, RequestId, Scheme, Status, Timing};

/// The access log. A clone writes to the same place.
#[derive(Clone)]
pub struct AccessLogger {
    writer: Option<LogWriter>,
    line: Arc<Line>,
}

/// How a line is made.
#[derive(Debug, Default)]
struct Line {
    kind: Kind,
    mask: Mask,
}

#[derive(Debug, Default)]
enum Kind {
    #[default]
    Combined,
    Json,
    Template(Template),
    Readable {
        colours: bool,
    },
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
    /// What it is called.
    pub id: Option<&'a RequestId>,
    /// The trace that it is a part of; where there are no traces, the one that its client names.
    pub trace: Option<TraceId>,
    /// Who asked, by the word of a trusted proxy.
    pub forwarded: Option<IpAddr>,
    /// How the client spoke.
    pub scheme: Scheme,
    /// The route that answered, or was asked last.
    pub place: PlaceId,
}

impl<'a> Entry<'a> {
    /// Who asked: behind trusted proxies what they say.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.forwarded.or(self.client.map(|client| client.ip())).map(|address| address.to_canonical())
    }

    /// The name of its trace, as text.
    pub(super) fn trace(&self) -> Option<Vec<u8>> {
        let id = self.trace.or_else(|| Some(Parent::of(self.head()?)?.trace))?;
        let mut text = Vec::with_capacity(2 * id.len());
        push_hexadecimal(&mut text, &id);
        Some(text)
    }

    pub(super) fn head(&self) -> Option<&'a RequestHead> {
        match self.request {
            RequestLine::Head(head) => Some(head),
            RequestLine::Refused(_) => None,
        }
    }
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
        let kind = match format {
            Format::Combined => Kind::Combined,
            Format::Json => Kind::Json,
            Format::Readable { colours } => Kind::Readable { colours },
            Format::Template(text) => Kind::Template(Template::parse(&text).map_err(io::Error::other)?),
        };
        let line = Arc::new(Line { kind, mask: Mask::default() });
        Ok(Self { writer: Some(LogWriter::start("access-log", sink, report)?), line })
    }

    /// The same, but values of these parameters of queries are not written down.
    #[must_use]
    pub fn masking(mut self, names: &[String]) -> Self {
        if let Some(line) = Arc::get_mut(&mut self.line) {
            line.mask = Mask::new(names);
        }
        self
    }

    /// A target as logs may hold it.
    pub fn masked<'a>(&self, target: &'a [u8]) -> Cow<'a, [u8]> {
        self.line.mask.apply(target)
    }

    /// A log that writes nothing.
    pub fn off() -> Self {
        Self { writer: None, line: Arc::default() }
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
            format_entry(line, &self.line, entry, SystemTime::now());
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

fn format_entry(out: &mut Vec<u8>, line: &Line, entry: &Entry<'_>, now: SystemTime) {
    match &line.kind {
        Kind::Combined => push_combined(out, entry, &line.mask, now),
        Kind::Json => push_object(out, entry, &line.mask, now),
        Kind::Readable { colours } => readable::push(out, entry, &line.mask, (now, *colours)),
        Kind::Template(template) => template.push(out, entry, &line.mask, now),
    }
    out.push(b'\n');
}

/// Apache's `"%h %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-agent}i\""`, then our three times.
fn push_combined(line: &mut Vec<u8>, entry: &Entry<'_>, mask: &Mask, now: SystemTime) {
    push_client(line, entry.address());
    line.extend_from_slice(b" - - ");
    push_common(line, now);
    line.extend_from_slice(b" \"");
    push_request_line(line, entry, mask);
    let head = entry.head();
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
            Some(value) => push_escaped(line, &mask.apply(value)),
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

/// `GET /path HTTP/1.1`, or the first line of what was refused.
pub(super) fn push_request_line(line: &mut Vec<u8>, entry: &Entry<'_>, mask: &Mask) {
    match entry.request {
        RequestLine::Head(head) => {
            line.extend_from_slice(head.method_name().as_bytes());
            line.push(b' ');
            push_escaped(line, &mask.apply(head.target()));
            line.push(b' ');
            line.extend_from_slice(head.version().as_str().as_bytes());
        }
        RequestLine::Refused(bytes) => push_escaped(line, first_line(bytes)),
    }
}

fn push_object(line: &mut Vec<u8>, entry: &Entry<'_>, mask: &Mask, now: SystemTime) {
    line.extend_from_slice(b"{\"time\":\"");
    line.extend_from_slice(rfc3339(now).as_bytes());
    line.extend_from_slice(b"\",\"client\":\"");
    push_client(line, entry.address());
    line.push(b'"');
    let id = entry.id.map(ToString::to_string);
    push_member(line, "request_id", id.as_deref().map(str::as_bytes));
    push_member(line, "trace_id", entry.trace().as_deref());
    match entry.request {
        RequestLine::Head(head) => {
            push_member(line, "method", Some(head.method_name().as_bytes()));
            push_member(line, "target", Some(&mask.apply(head.target())));
            push_member(line, "protocol", Some(head.version().as_str().as_bytes()));
            push_member(line, "host", Some(head.authority().as_bytes()).filter(|host| !host.is_empty()));
            push_member(line, "referer", head.field("referer").map(|value| mask.apply(value)).as_deref());
            push_member(line, "user_agent", head.field("user-agent"));
        }
        RequestLine::Refused(bytes) => push_member(line, "refused", Some(first_line(bytes))),
    }
    let place = metrics::place(entry.place);
    push_member(line, "route", place.as_deref().map(|place| place.origin.as_bytes()));
    push_member(line, "handler", place.as_deref().map(|place| place.handler.as_bytes()));
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
pub(super) fn push_client(line: &mut Vec<u8>, client: Option<IpAddr>) {
    match client {
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

    fn line(kind: Kind, head: &'static [u8], client: Option<&str>) -> String {
        let head = parse_head(&Bytes::from_static(head), &LIMITS).unwrap().head;
        let entry = Entry {
            client: client.map(|client| client.parse().unwrap()),
            request: RequestLine::Head(&head),
            status: Status::OK,
            bytes: 1234,
            duration: Duration::from_micros(1_500),
            timing: Timing { queue: Some(Duration::from_micros(20)), application: None },
            id: Some(&RequestId::Made(1)),
            trace: None,
            forwarded: None,
            scheme: Scheme::Http,
            place: metrics::intern_place(metrics::Place { origin: "daemun.toml:3:1".into(), handler: "static" }),
        };
        let mut line = Vec::new();
        format_entry(
            &mut line,
            &Line { kind, mask: Mask::new(&["token".to_owned()]) },
            &entry,
            std::time::UNIX_EPOCH + Duration::from_millis(1_795_348_805_007),
        );
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn combined_is_apaches_and_three_times() {
        let head = b"GET /a?b HTTP/1.1\r\nHost: a\r\nReferer: http://x/\r\nUser-Agent: y \"z\r\n\r\n";
        assert_eq!(
            line(Kind::Combined, head, Some("[::ffff:10.0.0.7]:5000")),
            "10.0.0.7 - - [22/Nov/2026:12:00:05 +0000] \"GET /a?b HTTP/1.1\" 200 1234 \"http://x/\" \"y \\x22z\" \
             rt=0.001500 queue=0.000020 app=-\n"
        );
        let bare = line(Kind::Combined, b"GET / HTTP/1.0\r\n\r\n", Some("[2001:db8::1]:5000"));
        assert!(bare.starts_with("2001:db8::1 - - ") && bare.contains("\"GET / HTTP/1.0\" 200 1234 \"-\" \"-\" rt="));
    }

    #[test]
    fn a_developers_line_is_short_and_shows_the_status_in_colour() {
        let head = b"GET /a?token=secret HTTP/1.1\r\nHost: a\r\n\r\n";
        let plain = line(Kind::Readable { colours: false }, head, None);
        assert_eq!(plain, "12:00:05  200  GET /a?token=***  1.2 kB  1.5 ms\n");
        let coloured = line(Kind::Readable { colours: true }, head, None);
        assert!(coloured.contains("\x1b[32m200\x1b[0m"), "{coloured}");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: \"y\\\xff\r\n\r\n";
        let line = line(Kind::Json, head, None);
        assert_eq!(line.matches('\n').count(), 1);
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        let want = serde_json::json!({
            "time": "2026-11-22T12:00:05.007Z", "client": "unix:", "request_id": "0000000000000001",
            "trace_id": null, "method": "GET", "target": "/",
            "protocol": "HTTP/1.1", "host": "a", "referer": null, "user_agent": "\"y\\\u{fffd}",
            "route": "daemun.toml:3:1", "handler": "static", "status": 200, "bytes": 1234,
            "duration": 0.0015, "queue": 0.00002, "application": null,
        });
        assert_eq!(object, want);
    }

    #[test]
    fn a_template_has_nginxs_names_and_secrets_are_masked() {
        let head = b"GET /a?token=secret&b=1 HTTP/1.1\r\nHost: A:80\r\nReferer: /x?token=s\r\nX-Key: \"k\r\nCookie: c=d; e=f\r\n\r\n";
        let text = "$remote_addr|$remote_port|$request|$uri|$args|$host|$status|$body_bytes_sent|$request_time|$request_id|\
                    $scheme|$http_x_key|$http_referer|$cookie_e|$http_none|$queue_time|${status}x|$route|$handler|$trace_id|$$";
        let template = Template::parse(text).unwrap();
        assert_eq!(
            line(Kind::Template(template), head, Some("10.0.0.7:5000")),
            "10.0.0.7|5000|GET /a?token=***&b=1 HTTP/1.1|/a|token=***&b=1|a|200|1234|0.001500|0000000000000001|http|\
             \\x22k|/x?token=***|f|-|0.000020|200x|daemun.toml:3:1|static|-|$\n"
        );
        for (text, want) in [
            ("$remote_adr", "there is no `$remote_adr`; did you mean `$remote_addr`?"),
            ("a\nb", "a line cannot hold a line break"),
        ] {
            assert_eq!(Template::parse(text).unwrap_err(), want);
        }
    }
}
