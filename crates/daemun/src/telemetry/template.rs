//! Lines of the access log by a template with nginx's names.

use std::time::SystemTime;

use super::access::{Entry, push_client, push_request_line};
use super::escape::{push_escaped, push_number, push_seconds};
use super::mask::Mask;
use super::metrics;
use super::time::{push_common, rfc3339};
use crate::http::RequestHead;

/// A template, found valid when the configuration was read.
#[derive(Debug)]
pub struct Template(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Text(String),
    Name(&'static str),
    /// `$http_user_agent`: `user-agent`.
    Header(String),
    Cookie(String),
}

const NAMES: [&str; 24] = [
    "remote_addr",
    "remote_port",
    "time_local",
    "time_iso8601",
    "msec",
    "request",
    "request_method",
    "request_uri",
    "uri",
    "args",
    "query_string",
    "server_protocol",
    "host",
    "http_host",
    "scheme",
    "status",
    "body_bytes_sent",
    "request_time",
    "queue_time",
    "upstream_response_time",
    "request_id",
    "trace_id",
    "route",
    "handler",
];

impl Template {
    /// Reads `$name` and `${name}`; `$$` is a dollar. The error says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains(['\n', '\r']) {
            return Err("a line cannot hold a line break".to_owned());
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            let (before, after) = rest.split_at(dollar);
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let after = &after[1..];
            if let Some(next) = after.strip_prefix('$') {
                pieces.push(Piece::Text("$".to_owned()));
                rest = next;
                continue;
            }
            let bare = after.strip_prefix('{').unwrap_or(after);
            let length = bare.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
            let (name, next) = bare.split_at(length);
            pieces.push(named(name)?);
            rest = if bare.len() < after.len() {
                next.strip_prefix('}').ok_or_else(|| format!("`${{{name}` has no `}}`"))?
            } else {
                next
            };
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    pub(super) fn push(&self, line: &mut Vec<u8>, entry: &Entry<'_>, mask: &Mask, now: SystemTime) {
        let head = entry.head();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => line.extend_from_slice(text.as_bytes()),
                Piece::Name(name) => push_name(line, name, entry, mask, now),
                Piece::Header(name) => {
                    let value = head.and_then(|head| head.field(name));
                    push_or_dash(line, value.map(|value| mask.apply(value)).as_deref());
                }
                Piece::Cookie(name) => {
                    let pairs = head.into_iter().flat_map(|head| head.field_values("cookie"));
                    let mut pairs = pairs.flat_map(|pairs| pairs.split(|&byte| byte == b';'));
                    let value =
                        pairs.find_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="));
                    push_or_dash(line, value);
                }
            }
        }
    }
}

fn named(name: &str) -> Result<Piece, String> {
    if let Some(known) = NAMES.iter().find(|known| **known == name) {
        return Ok(Piece::Name(known));
    }
    if let Some(header) = name.strip_prefix("http_").filter(|header| !header.is_empty()) {
        return Ok(Piece::Header(header.replace('_', "-")));
    }
    if let Some(cookie) = name.strip_prefix("cookie_").filter(|cookie| !cookie.is_empty()) {
        return Ok(Piece::Cookie(cookie.to_owned()));
    }
    let near = NAMES.iter().map(|known| (strsim::damerau_levenshtein(known, name), known)).min();
    let near = near.filter(|(distance, _)| *distance <= 3).map(|(_, known)| format!("; did you mean `${known}`?"));
    Err(format!("there is no `${name}`{}", near.unwrap_or_default()))
}

fn push_name(line: &mut Vec<u8>, name: &str, entry: &Entry<'_>, mask: &Mask, now: SystemTime) {
    let head = entry.head();
    match name {
        "remote_addr" => push_client(line, entry.address()),
        "remote_port" => match entry.client {
            Some(client) => push_number(line, client.port().into()),
            None => line.push(b'-'),
        },
        "time_local" => {
            // nginx's templates write the brackets themselves.
            let start = line.len();
            push_common(line, now);
            line.remove(start);
            line.pop();
        }
        "time_iso8601" => line.extend_from_slice(rfc3339(now).as_bytes()),
        "msec" => {
            let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            push_seconds(line, Some(since));
        }
        "request" => push_request_line(line, entry, mask),
        "request_method" => push_or_dash(line, head.map(|head| head.method_name().as_bytes())),
        "request_uri" => push_or_dash(line, head.map(|head| mask.apply(head.target())).as_deref()),
        "uri" => push_or_dash(line, head.map(RequestHead::raw_path)),
        "args" | "query_string" => {
            let query = head.and_then(RequestHead::query).map(|query| mask.query(query));
            push_or_dash(line, query.as_deref());
        }
        "server_protocol" => push_or_dash(line, head.map(|head| head.version().as_str().as_bytes())),
        "host" => {
            let host = head.map(|head| head.host().to_ascii_lowercase());
            push_or_dash(line, host.as_deref().map(str::as_bytes));
        }
        "http_host" => push_or_dash(line, head.map(|head| head.authority().as_bytes())),
        "scheme" => line.extend_from_slice(entry.scheme.as_str().as_bytes()),
        "status" => push_number(line, entry.status.code().into()),
        "body_bytes_sent" => push_number(line, entry.bytes),
        "request_time" => push_seconds(line, Some(entry.duration)),
        "queue_time" => push_seconds(line, entry.timing.queue),
        "upstream_response_time" => push_seconds(line, entry.timing.application),
        "trace_id" => push_or_dash(line, entry.trace().as_deref()),
        "route" => push_or_dash(line, metrics::place(entry.place).as_deref().map(|place| place.origin.as_bytes())),
        "handler" => push_or_dash(line, metrics::place(entry.place).as_deref().map(|place| place.handler.as_bytes())),
        _ => match entry.id {
            Some(id) => id.push(line),
            None => line.push(b'-'),
        },
    }
}

fn push_or_dash(line: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(value) if !value.is_empty() => push_escaped(line, value),
        _ => line.push(b'-'),
    }
}
