//! A line for a person who develops: `12:00:05  200  GET /a?b  1.2 kB  1.5 ms`.

use std::io::Write;
use std::time::{Duration, SystemTime};

use super::{Entry, Mask, RequestLine, first_line};
use crate::telemetry::escape::push_escaped;
use crate::telemetry::time::rfc3339;

/// Writes the line; `how` is the time and whether colours are shown.
pub(super) fn push(line: &mut Vec<u8>, entry: &Entry<'_>, mask: &Mask, how: (SystemTime, bool)) {
    let (now, colours) = how;
    let time = rfc3339(now);
    let status = entry.status.code();
    let (begin, end) = if colours { (colour(status), "\x1b[0m") } else { ("", "") };
    // Writing into memory cannot fail.
    let _ = write!(line, "{}  {begin}{status}{end}  ", time.get(11..19).unwrap_or(&time));
    match entry.request {
        RequestLine::Head(head) => {
            line.extend_from_slice(head.method_name().as_bytes());
            line.push(b' ');
            push_escaped(line, &mask.apply(head.target()));
        }
        RequestLine::Refused(bytes) => push_escaped(line, first_line(bytes)),
    }
    let _ = write!(line, "  {}  {}", size(entry.bytes), duration(entry.duration));
}

/// Green, cyan, yellow and red, in bold where something failed on our side.
fn colour(status: u16) -> &'static str {
    match status {
        200..300 => "\x1b[32m",
        300..400 => "\x1b[36m",
        500.. => "\x1b[1;31m",
        _ => "\x1b[33m",
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1000 => format!("{bytes} B"),
        1000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1000.0) } else { format!("{seconds:.1} s") }
}
