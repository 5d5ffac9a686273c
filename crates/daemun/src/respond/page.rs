//! Our own pages: errors and lists of files, as HTML, JSON or text, whichever the client would rather have.
//!
//! Small, readable on a phone and in the dark, nothing loaded from anywhere. What comes from outside is escaped, and a
//! policy forbids scripts besides. No version is told (CVE-2016-4975, CVE-2019-10092).

use std::fmt::Write;

use bytes::Bytes;

use crate::http::{Fields, Method, RequestHead, Response, ResponseBody, Status};

/// Nothing runs and nothing is loaded; the style stands in the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// Contrast of at least 7:1 in both schemes; links are underlined, so colour is never the only sign.
const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2024;--soft:#4b5563;--line:#d5d9df;--paper:#fbfbfc;--link:#0b4f9e}\
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#b3bac4;--line:#3a4048;--paper:#16181c;--link:#9cc7ff}}\
*{box-sizing:border-box}\
body{margin:0 auto;max-width:60rem;padding:clamp(1.25rem,5vw,3.5rem) clamp(1rem,4vw,2rem);background:var(--paper);\
color:var(--ink);font:1rem/1.55 system-ui,sans-serif;overflow-wrap:anywhere}\
main.note{max-width:36rem;margin:10vh auto 0}\
h1{font-size:1.6rem;line-height:1.25;margin:0 0 1rem}h1 small{display:block;font-size:1rem;font-weight:400;\
color:var(--soft)}p{margin:0 0 1rem}a{color:var(--link)}a:focus-visible{outline:3px solid var(--link);outline-offset:2px}\
code{font:.95em ui-monospace,monospace}.soft{color:var(--soft)}\
table{width:100%;border-collapse:collapse}th,td{padding:.45rem .5rem;text-align:left;border-bottom:1px solid \
var(--line);vertical-align:baseline}th{font-weight:600}th a{color:inherit}.n{text-align:right;white-space:nowrap;\
color:var(--soft);font-variant-numeric:tabular-nums}\
@media(max-width:34rem){th:nth-child(3),td:nth-child(3){display:none}}";

/// What a client would rather read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A browser.
    Html,
    /// A program.
    Json,
    /// A person at a terminal.
    Text,
}

/// What is told of an error.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The status.
    pub status: Status,
    /// What was wrong, in words of ours: nothing of the request is repeated.
    pub detail: Option<&'static str>,
    /// What also stands in the log's line, so that a user's report finds it.
    pub reference: Option<&'a str>,
}

// === impl Kind ===

impl Kind {
    /// The kind that `Accept` weighs most (RFC 9110, section 12.5.1); of those that it weighs alike the one that is named
    /// exactly, then the one that is named first. Text where nothing is said.
    pub fn preferred(head: &RequestHead) -> Self {
        let mut best = (Self::Text, Rank { weight: 0, exactness: 0, place: 0 });
        let members = head.field_values("accept").flat_map(|line| line.split(|&byte| byte == b','));
        for (place, member) in members.take(MOST).enumerate() {
            let mut parts = member.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (kind, exactness) = match name.as_slice() {
                b"text/html" | b"application/xhtml+xml" => (Self::Html, 2),
                b"text/plain" => (Self::Text, 2),
                b"text/*" => (Self::Html, 1),
                b"*/*" => (Self::Text, 0),
                name if name.ends_with(b"/json") || name.ends_with(b"+json") => (Self::Json, 2),
                b"application/*" => (Self::Json, 1),
                _ => continue,
            };
            let weight = parts.find_map(|part| part.strip_prefix(b"q=")).map_or(1000, thousandths);
            let rank = Rank { weight, exactness, place: usize::MAX - place };
            if weight > 0 && rank > best.1 {
                best = (kind, rank);
            }
        }
        best.0
    }

    /// Its content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Json => "application/json",
            Self::Text => "text/plain; charset=utf-8",
        }
    }
}

/// Members of `Accept` that are looked at: browsers send a dozen.
const MOST: usize = 32;

#[derive(Eq, Ord, PartialEq, PartialOrd)]
struct Rank {
    weight: u16,
    exactness: u8,
    place: usize,
}

/// A weight such as `0.8`; what is none counts as 0.
fn thousandths(weight: &[u8]) -> u16 {
    let weight = std::str::from_utf8(weight).ok().and_then(|text| text.parse::<f32>().ok());
    weight.filter(|weight| (0.0..=1.0).contains(weight)).map_or(0, |weight| (weight * 1000.0) as u16)
}

impl<'a> Facts<'a> {
    /// A status, and nothing else to tell.
    pub fn of(status: Status) -> Self {
        Self { status, detail: None, reference: None }
    }
}

/// The response that tells of an error; the answer to `HEAD` where that was asked.
pub fn of_status(facts: &Facts<'_>, head: Option<&RequestHead>) -> Response {
    let kind = head.map_or(Kind::Text, Kind::preferred);
    let body = match kind {
        Kind::Html => html_of_status(facts),
        Kind::Json => json(facts),
        Kind::Text => text(facts),
    };
    page(facts.status, kind, body, head)
}

/// A page of ours; the answer to `HEAD` where that was asked.
pub fn page(status: Status, kind: Kind, body: String, head: Option<&RequestHead>) -> Response {
    let mut fields = Fields::new()
        .with("Content-Type", kind.content_type())
        .with("X-Content-Type-Options", Bytes::from_static(b"nosniff"));
    if kind == Kind::Html {
        fields.push(Bytes::from_static(b"Content-Security-Policy"), Bytes::from_static(POLICY.as_bytes()));
    }
    let body = match head.map(RequestHead::method) {
        Some(Method::Head) => ResponseBody::LengthOnly(body.len() as u64),
        _ => ResponseBody::Full(body.into()),
    };
    Response::new(status).with_fields(fields).with_body(body)
}

/// A whole document around `main`, which is HTML already.
pub fn html(title: &str, main: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><meta name=\"robots\" content=\"noindex\"><title>{title}</title>\
         <style>{STYLE}</style></head>\n<body>\n{main}\n</body></html>\n"
    )
}

/// Text as it may stand in HTML, between tags and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // What turns the direction of the text around could make a name look like another.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => escaped.push('\u{fffd}'),
            letter if letter.is_control() => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}

fn title(status: Status) -> String {
    format!("{} {}", status.code(), status.reason()).trim_end().to_owned()
}

fn text(facts: &Facts<'_>) -> String {
    let mut text = title(facts.status);
    // Writing into a string cannot fail, here and below.
    let _ = facts.detail.map(|detail| write!(text, ": {detail}"));
    let _ = facts.reference.map(|reference| write!(text, "\nReference: {reference}"));
    text.push('\n');
    text
}

fn json(facts: &Facts<'_>) -> String {
    let mut object = serde_json::json!({ "status": facts.status.code(), "title": facts.status.reason() });
    for (name, value) in [("detail", facts.detail), ("reference", facts.reference)] {
        if let Some(value) = value {
            object[name] = value.into();
        }
    }
    format!("{object}\n")
}

fn html_of_status(facts: &Facts<'_>) -> String {
    let status = facts.status;
    let reason = if status.reason().is_empty() { "This did not work" } else { status.reason() };
    let mut main = format!("<main class=\"note\"><h1><small>{}</small>{}</h1>", status.code(), escape(reason));
    let _ = write!(main, "<p>{}</p>", escape(in_words(status)));
    let _ = facts.detail.map(|detail| write!(main, "<p class=\"soft\">To be exact: {}.</p>", escape(detail)));
    if let Some(reference) = facts.reference {
        let _ = write!(
            main,
            "<p class=\"soft\">If you write to whoever runs this site, mention the reference <code>{}</code>.</p>",
            escape(reference)
        );
    }
    main.push_str("</main>");
    html(&title(status), &main)
}

/// What a visitor can make of a status.
fn in_words(status: Status) -> &'static str {
    match status.code() {
        400 => "The server could not make sense of this request.",
        401 => "This page asks for a name and a password.",
        403 => "This page is not open to you.",
        404 | 410 => "There is nothing at this address. It may have moved, or the address has a slip in it.",
        405 | 501 => "This address does not take that kind of request.",
        408 => "The request took too long to arrive. Please try again.",
        412 => "What you have differs from what is here now. Please load it anew.",
        413 => "What you sent is larger than this site takes.",
        414 | 431 => {
            "The address, or what the browser sent with it, is too long. Deleting this site's cookies may help."
        }
        416 => "The file has no such part. Please load it from its beginning.",
        421 => "This server does not answer for that name.",
        429 => "These were many requests in a short time. Please wait a moment and try again.",
        502 => "The application behind this site gave no proper answer. Please try again in a moment.",
        503 => "The site is busy or just being restarted. Please try again in a moment.",
        504 => "The application behind this site took too long to answer. Please try again in a moment.",
        500.. => "Something went wrong on the server, not with you. It has been noted in its log.",
        _ => "The server did not carry this request out.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HeadBuilder, Version};

    fn head(accept: &str) -> RequestHead {
        let bytes = Bytes::from(format!("GET / Accept {accept}"));
        let mut builder = HeadBuilder::new(bytes.clone(), Version::Http11, &bytes[..3], &bytes[4..5]);
        builder.path(&bytes[4..5], None);
        builder.field(&bytes[6..12], &bytes[13..]);
        builder.finish()
    }

    #[test]
    fn the_kind_is_what_accept_weighs_most() {
        for (accept, want) in [
            ("", Kind::Text),
            ("*/*", Kind::Text),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Kind::Html),
            ("application/json, text/plain, */*", Kind::Json),
            ("text/html;q=0.5, application/json", Kind::Json),
            ("application/json;q=0.5, text/html", Kind::Html),
            ("application/vnd.api+json", Kind::Json),
            ("text/html;q=0, */*", Kind::Text),
            ("text/html;q=0", Kind::Text),
            ("image/png", Kind::Text),
            ("text/*", Kind::Html),
            ("TEXT/HTML", Kind::Html),
            ("text/html;level=1;q=0.4, text/plain;q=0.3", Kind::Html),
            ("text/html;q=nan, application/json;q=0.1", Kind::Json),
        ] {
            assert_eq!(Kind::preferred(&head(accept)), want, "{accept}");
        }
    }

    #[test]
    fn nothing_of_a_text_becomes_markup_or_turns_the_line_around() {
        assert_eq!(escape("<a href=\"x\" b='y'>&"), "&lt;a href=&quot;x&quot; b=&#39;y&#39;&gt;&amp;");
        assert_eq!(escape("gpj.\u{202e}exe\u{1b}[2J\n"), "gpj.\u{fffd}exe\u{fffd}[2J\u{fffd}");
    }

    #[test]
    fn every_status_is_told_in_each_kind_with_its_reference_and_no_version() {
        for code in [400, 404, 416, 429, 500, 503, 599] {
            let status = Status::from_code(code).unwrap();
            let facts = Facts { status, detail: Some("a<b"), reference: Some("1234abcd") };
            for accept in ["text/html", "application/json", "text/plain"] {
                let response = of_status(&facts, Some(&head(accept)));
                let ResponseBody::Full(body) = response.body else { panic!("a page is whole") };
                let body = String::from_utf8(body.to_vec()).unwrap();
                assert!(body.contains(&code.to_string()) && body.contains("1234abcd"), "{body}");
                assert!(!body.contains("daemun") && !body.contains(env!("CARGO_PKG_VERSION")), "{body}");
                assert_eq!(body.contains("a<b"), accept != "text/html", "{body}");
            }
        }
    }
}
