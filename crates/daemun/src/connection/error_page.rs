//! What a client sees of an error: one function for every status that the connection makes itself.

use std::fmt::Write;

use crate::http::{Fields, RequestHead, Response, ResponseBody, Status};

/// The response for an error. `reference` also stands in the log's line, so that a user's report finds it. Nothing of
/// the request is repeated, and no version is told (CVE-2016-4975, CVE-2019-10092).
pub(super) fn error_response(
    status: Status,
    detail: Option<&'static str>,
    reference: Option<&str>,
    retry_after: Option<u32>,
    head: Option<&RequestHead>,
) -> Response {
    let (content_type, body) = match head.map_or(Kind::Text, preferred) {
        Kind::Html => ("text/html; charset=utf-8", html(status, detail, reference)),
        Kind::Json => ("application/json", json(status, detail, reference)),
        Kind::Text => ("text/plain; charset=utf-8", text(status, detail, reference)),
    };
    let mut fields = Fields::new()
        .with("Content-Type", content_type)
        .with("Cache-Control", "no-store")
        .with("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
        .with("X-Content-Type-Options", "nosniff");
    if let Some(seconds) = retry_after {
        fields.push("Retry-After", seconds.to_string());
    }
    Response::new(status).with_fields(fields).with_body(ResponseBody::Full(body.into()))
}

enum Kind {
    Html,
    Json,
    Text,
}

/// The first of the three that `Accept` names: weights would decide between pages that say the same.
fn preferred(head: &RequestHead) -> Kind {
    let accept = head.field("accept").unwrap_or_default();
    let position = |name: &str| memchr::memmem::find(accept, name.as_bytes());
    match (position("text/html"), position("json")) {
        (Some(html), json) if json.is_none_or(|json| html < json) => Kind::Html,
        (_, Some(_)) => Kind::Json,
        _ => Kind::Text,
    }
}

fn title(status: Status) -> String {
    format!("{} {}", status.code(), status.reason()).trim_end().to_owned()
}

fn text(status: Status, detail: Option<&str>, reference: Option<&str>) -> String {
    let mut text = title(status);
    // Writing into a string cannot fail, here and below.
    let _ = detail.map(|detail| write!(text, ": {detail}"));
    let _ = reference.map(|reference| write!(text, "\nReference: {reference}"));
    text.push('\n');
    text
}

fn json(status: Status, detail: Option<&str>, reference: Option<&str>) -> String {
    let mut object = serde_json::json!({ "status": status.code(), "title": status.reason() });
    for (name, value) in [("detail", detail), ("reference", reference)] {
        if let Some(value) = value {
            object[name] = value.into();
        }
    }
    format!("{object}\n")
}

fn html(status: Status, detail: Option<&str>, reference: Option<&str>) -> String {
    let title = escape(&title(status));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <style>body{{font:1rem/1.5 system-ui,sans-serif;margin:15vh auto;max-width:36rem;padding:0 1rem}}\
         p{{color:#555}}</style></head><body><h1>{title}</h1>"
    );
    let _ = detail.map(|detail| write!(page, "<p>{}</p>", escape(detail)));
    let _ = reference.map(|reference| write!(page, "<p>Reference: <code>{}</code></p>", escape(reference)));
    page.push_str("</body></html>\n");
    page
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
