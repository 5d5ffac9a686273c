//! `[server] traces`.

use super::section::{Entry, Keys};
use super::upstream;
use crate::exporter::{Endpoint, ExporterSettings};
use crate::telemetry::traces::{Parents, TraceSettings};
use crate::upstream::{ClientTls, is_token};

const KEYS: Keys =
    Keys { known: &["endpoint", "protocol", "ratio", "parents", "service", "resource", "headers", "tls"], later: &[] };

/// A URL, or a table.
pub(super) fn read(entry: &Entry<'_>) -> Option<ExporterSettings> {
    const WHAT: &str = "a collector such as \"http://127.0.0.1:4317\", or a table such as \
                        { endpoint = \"http://127.0.0.1:4317\", ratio = 0.1 }";
    let traces = TraceSettings::default();
    if !entry.is_table() {
        let endpoint = entry.parse(WHAT, |text| Endpoint::parse(text, None))?;
        return Some(ExporterSettings { traces, endpoint, headers: Vec::new(), tls: ClientTls::default() });
    }
    let section = entry.section("`traces`", WHAT, KEYS)?;
    let protocol = section.entry("protocol").and_then(|entry| {
        let named = |text: &str| Endpoint::parse("http://localhost", Some(text)).map(|_| text.to_owned());
        entry.parse("`grpc` or `http/protobuf`", named)
    });
    let Some(endpoint) = section.entry("endpoint") else {
        entry.fault("an `endpoint` is missing: where the collector is, such as \"http://127.0.0.1:4317\"");
        return None;
    };
    let endpoint = endpoint.parse(WHAT, |text| Endpoint::parse(text, protocol.as_deref()));
    let traces = TraceSettings {
        ratio: section.entry("ratio").and_then(|entry| entry.part()).unwrap_or(traces.ratio),
        parents: section
            .entry("parents")
            .and_then(|entry| entry.parse("`all` or `trusted`", parents))
            .unwrap_or_default(),
        service: section.entry("service").and_then(|entry| entry.name()).unwrap_or(traces.service),
        resource: section.entry("resource").map(|entry| pairs(&entry, |name, _| !name.is_empty())).unwrap_or_default(),
    };
    let headers = section.entry("headers").map(|entry| pairs(&entry, is_field)).unwrap_or_default();
    let tls = section.entry("tls").and_then(|entry| upstream::tls(&entry)).unwrap_or_default();
    Some(ExporterSettings { traces, endpoint: endpoint?, headers, tls })
}

fn parents(text: &str) -> Result<Parents, String> {
    match text {
        "all" => Ok(Parents::All),
        "trusted" => Ok(Parents::Trusted),
        _ => Err(format!("expected `all` or `trusted`, found {text:?}")),
    }
}

/// A field of a request. Those of the connection itself are not the user's to say.
fn is_field(name: &str, value: &str) -> bool {
    const OURS: [&str; 7] =
        ["connection", "content-length", "content-type", "host", "te", "transfer-encoding", "upgrade"];
    is_token(name) && value.is_ascii() && !OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours))
}

/// Names and texts.
fn pairs(entry: &Entry<'_>, is_valid: impl Fn(&str, &str) -> bool) -> Vec<(String, String)> {
    let title = format!("`{}`", entry.key());
    let entries = entry.map(&title, "a table such as { name = \"value\" }").unwrap_or_default();
    let pair = |entry: Entry<'_>| {
        let value = entry.text()?;
        if !is_valid(entry.key(), &value) || value.contains(char::is_control) {
            entry.fault("this cannot be sent: a name or a value that no field can have");
            return None;
        }
        Some((entry.key().to_owned(), value))
    };
    entries.into_iter().filter_map(pair).collect()
}
