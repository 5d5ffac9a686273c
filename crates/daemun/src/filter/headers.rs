//! `headers`: fields of answers and requests, a security preset, and CORS.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::http::{Fields, Method, RequestHead, Response, Scheme, Status};

/// What is changed in the fields.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct HeaderSettings {
    /// Takes the place of what the handler says.
    pub set: Vec<(String, String)>,
    /// Comes to what the handler says.
    pub add: Vec<(String, String)>,
    /// Goes.
    pub remove: Vec<String>,
    /// Whether the usual fields for security are sent where the handler does not send them itself.
    pub security: bool,
    /// Who else may read answers in a browser.
    pub cors: Option<CorsSettings>,
    /// Fields that the handler sees in the place of what the client sent.
    pub request_set: Vec<(String, String)>,
    /// Fields that the handler does not see.
    pub request_remove: Vec<String>,
}

/// Cross-origin sharing (the Fetch standard, section 3.2).
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct CorsSettings {
    /// Origins such as `https://app.example.com`, or `https://*.example.com`; empty for any.
    pub origins: Vec<String>,
    /// Methods beyond GET, HEAD and POST; empty for whatever is asked for.
    pub methods: Vec<String>,
    /// Request headers; empty for whatever is asked for.
    pub headers: Vec<String>,
    /// Answer headers that scripts may read.
    pub expose: Vec<String>,
    /// Whether cookies and passwords go along.
    pub credentials: bool,
    /// Seconds for which a preflight holds.
    pub max_age: u64,
}

/// Sent by `security = true`. Frames of the same site still work, and so do links to others; `Strict-Transport-Security`
/// goes out over TLS only (RFC 6797, section 7.2).
const SECURITY: [(&str, &str); 4] = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "SAMEORIGIN"),
    ("Referrer-Policy", "strict-origin-when-cross-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
];
const TRANSPORT_SECURITY: (&str, &str) = ("Strict-Transport-Security", "max-age=31536000");

// === impl HeaderSettings ===

impl HeaderSettings {
    /// Changes an answer, in this order: remove, security, set, add, CORS.
    pub(super) fn apply(&self, response: &mut Response, origin: Option<&Bytes>, scheme: Scheme) {
        let fields = &mut response.fields;
        for name in &self.remove {
            fields.remove(name);
        }
        if self.security {
            let transport = (scheme == Scheme::Https).then_some(TRANSPORT_SECURITY);
            for (name, value) in SECURITY.into_iter().chain(transport) {
                if fields.get(name).is_none() {
                    fields.push(name.as_bytes(), value);
                }
            }
        }
        for (name, _) in &self.set {
            fields.remove(name);
        }
        for (name, value) in self.set.iter().chain(&self.add) {
            push(fields, name, value);
        }
        if let Some(cors) = &self.cors {
            cors.allow(fields, origin);
        }
    }

    /// Whether requests come to the handler with other fields than they had.
    pub(super) fn changes_requests(&self) -> bool {
        !self.request_set.is_empty() || !self.request_remove.is_empty()
    }

    pub(super) fn describe(&self) -> String {
        let mut parts = Vec::new();
        let names =
            |fields: &[(String, String)]| fields.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        let mut tell = |what: &str, text: String| {
            if !text.is_empty() {
                parts.push(format!("{what} {text}"));
            }
        };
        tell("remove", self.remove.join(", "));
        tell("security", if self.security { "preset".to_owned() } else { String::new() });
        tell("set", names(&self.set));
        tell("add", names(&self.add));
        tell("CORS for", self.cors.as_ref().map_or_else(String::new, CorsSettings::describe));
        tell("request: set", names(&self.request_set));
        tell("request: remove", self.request_remove.join(", "));
        parts.join("; ")
    }
}

fn push(fields: &mut Fields, name: &str, value: &str) {
    // Found valid when the configuration was read.
    let _ = fields.try_push(Bytes::copy_from_slice(name.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
}

// === impl CorsSettings ===

impl CorsSettings {
    /// The answer to a preflight; `None` where the request is none.
    pub(super) fn preflight(&self, head: &RequestHead) -> Option<Response> {
        let wanted = head.field("access-control-request-method")?;
        let origin = head.field("origin")?;
        if head.method() != Method::Options {
            return None;
        }
        let mut response = Response::new(Status::NO_CONTENT);
        let fields = &mut response.fields;
        if self.names(origin) {
            let list = |own: &[String], asked: Option<&[u8]>| match own {
                [] => Bytes::copy_from_slice(asked.unwrap_or_default()),
                own => Bytes::from(own.join(", ")),
            };
            let methods = list(&self.methods, Some(wanted));
            let headers = list(&self.headers, head.field("access-control-request-headers"));
            let _ = fields.try_push(Bytes::from_static(b"Access-Control-Allow-Methods"), methods);
            if !headers.is_empty() {
                let _ = fields.try_push(Bytes::from_static(b"Access-Control-Allow-Headers"), headers);
            }
            fields.push(&b"Access-Control-Max-Age"[..], self.max_age.to_string());
        }
        for word in ["Access-Control-Request-Method", "Access-Control-Request-Headers"] {
            fields.vary(word);
        }
        Some(response)
    }

    fn allow(&self, fields: &mut Fields, origin: Option<&Bytes>) {
        // Two answers to one question would both be void: what the handler says gives way.
        for name in ["Access-Control-Allow-Origin", "Access-Control-Allow-Credentials"] {
            fields.remove(name);
        }
        if self.origins.is_empty() {
            fields.push(&b"Access-Control-Allow-Origin"[..], "*");
        } else {
            fields.vary("Origin");
            let Some(origin) = origin.filter(|origin| self.names(origin)) else { return };
            fields.push(&b"Access-Control-Allow-Origin"[..], origin.clone());
            if self.credentials {
                fields.push(&b"Access-Control-Allow-Credentials"[..], "true");
            }
        }
        if !self.expose.is_empty() {
            fields.set("Access-Control-Expose-Headers", self.expose.join(", "));
        }
    }

    fn names(&self, origin: &[u8]) -> bool {
        self.origins.is_empty()
            || self.origins.iter().any(|known| match known.split_once("*.") {
                None => known.as_bytes() == origin,
                Some((scheme, below)) => origin.strip_prefix(scheme.as_bytes()).is_some_and(|host| {
                    let suffix = host.strip_suffix(below.as_bytes());
                    suffix.is_some_and(|label| {
                        let plain = |&byte: &u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
                        label.len() > 1 && label.ends_with(b".") && label.iter().all(plain)
                    })
                }),
            })
    }

    fn describe(&self) -> String {
        if self.origins.is_empty() { "any origin".to_owned() } else { self.origins.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_origins_may_read() {
        let named = |origins: &[&str], origin: &str| {
            let cors = CorsSettings {
                origins: origins.iter().map(|&text| text.to_owned()).collect(),
                credentials: true,
                ..CorsSettings::default()
            };
            let mut fields = Fields::new().with("Access-Control-Allow-Origin", "*");
            cors.allow(&mut fields, Some(&Bytes::copy_from_slice(origin.as_bytes())));
            fields.get("access-control-allow-origin").map(|value| String::from_utf8_lossy(value).into_owned())
        };
        let site = ["https://app.example.com", "https://*.example.org"];
        for origin in ["https://app.example.com", "https://a.example.org", "https://a.b.example.org"] {
            assert_eq!(named(&site, origin).as_deref(), Some(origin));
        }
        for origin in [
            "http://app.example.com",
            "https://app.example.com.evil.example",
            "https://evilexample.org",
            "https://example.org",
            "https://.example.org",
            "https://evil.example/?.example.org",
            "https://x.example.org:444",
            "null",
        ] {
            assert_eq!(named(&site, origin), None, "{origin}");
        }
        assert_eq!(named(&[], "https://any.example").as_deref(), Some("*"));
    }

    #[test]
    fn fields_are_removed_then_preset_then_set_then_added() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let settings = HeaderSettings {
            set: vec![pair("Server", "x"), pair("X-Frame-Options", "DENY")],
            add: vec![pair("Link", "</a>")],
            remove: vec!["X-Powered-By".to_owned()],
            security: true,
            ..HeaderSettings::default()
        };
        let fields = Fields::new().with("X-Powered-By", "y").with("Server", "y").with("Link", "</b>");
        let mut response = Response::new(Status::OK).with_fields(fields.with("Referrer-Policy", "no-referrer"));
        settings.apply(&mut response, None, Scheme::Http);
        let told: Vec<String> = response
            .fields
            .iter()
            .map(|field| format!("{}: {}", field.name().escape_ascii(), field.value().escape_ascii()))
            .collect();
        let want = [
            "Link: </b>",
            "Referrer-Policy: no-referrer",
            "X-Content-Type-Options: nosniff",
            "Cross-Origin-Opener-Policy: same-origin",
            "Server: x",
            "X-Frame-Options: DENY",
            "Link: </a>",
        ];
        assert_eq!(told, want);
        settings.apply(&mut response, None, Scheme::Https);
        assert!(response.fields.get("strict-transport-security").is_some());
    }
}
