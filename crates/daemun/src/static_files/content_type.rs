//! The `Content-Type` of a file, by the extension of its name (RFC 9110, section 8.3).

use bytes::Bytes;

/// What bytes of unknown meaning are (RFC 2046, section 4.5.1). `X-Content-Type-Options: nosniff` keeps browsers from
/// guessing on.
const UNKNOWN: &str = "application/octet-stream";

/// Where the registry behind `mime_guess` is behind the times or names a type that browsers do not take.
const OURS: &[(&str, &str)] = &[
    // RFC 9239, section 6: all others are obsolete.
    ("cjs", "text/javascript; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    // RFC 8259, section 11: JSON has no charset.
    ("json", "application/json"),
    ("map", "application/json"),
    ("webmanifest", "application/manifest+json"),
    // RFC 7303, section 3.2: an XML document says its encoding itself.
    ("xml", "application/xml"),
    ("xsl", "application/xslt+xml"),
    ("xslt", "application/xslt+xml"),
    ("svg", "image/svg+xml"),
    // RFC 9512
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("md", "text/markdown; charset=utf-8"),
    ("avif", "image/avif"),
    ("jxl", "image/jxl"),
    ("webp", "image/webp"),
    ("ts", "video/mp2t"),
    ("wasm", "application/wasm"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("gz", "application/gzip"),
    // RFC 8878, section 7.1
    ("zst", "application/zstd"),
];

/// The content type for a file of this name.
pub(super) fn of(name: &[u8]) -> Bytes {
    let last = name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    // A name that is all extension (`.htaccess`) has none.
    let Some(dot) = last.iter().rposition(|&byte| byte == b'.').filter(|&dot| dot > 0) else {
        return Bytes::from_static(UNKNOWN.as_bytes());
    };
    let Ok(extension) = std::str::from_utf8(&last[dot + 1..]) else {
        return Bytes::from_static(UNKNOWN.as_bytes());
    };
    if let Some((_, kind)) = OURS.iter().find(|(ours, _)| ours.eq_ignore_ascii_case(extension)) {
        return Bytes::from_static(kind.as_bytes());
    }
    match mime_guess::from_ext(extension).first_raw() {
        // Without a charset, browsers guess from the reader's language.
        Some(kind) if kind.starts_with("text/") && kind != "text/xml" => Bytes::from(format!("{kind}; charset=utf-8")),
        Some(kind) => Bytes::from_static(kind.as_bytes()),
        None => Bytes::from_static(UNKNOWN.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_says_the_type_and_text_says_its_charset() {
        for (name, want) in [
            ("index.html", "text/html; charset=utf-8"),
            ("a.css", "text/css; charset=utf-8"),
            ("a.55e7cbb9ba48.CSS", "text/css; charset=utf-8"),
            ("a.txt", "text/plain; charset=utf-8"),
            ("a.csv", "text/csv; charset=utf-8"),
            ("js/a.js", "text/javascript; charset=utf-8"),
            ("a.mjs", "text/javascript; charset=utf-8"),
            ("a.js.map", "application/json"),
            ("a.json", "application/json"),
            ("site.webmanifest", "application/manifest+json"),
            ("feed.xml", "application/xml"),
            ("a.svg", "image/svg+xml"),
            ("a.png", "image/png"),
            ("a.jpeg", "image/jpeg"),
            ("a.avif", "image/avif"),
            ("a.webp", "image/webp"),
            ("favicon.ico", "image/x-icon"),
            ("a.woff2", "font/woff2"),
            ("a.wasm", "application/wasm"),
            ("a.pdf", "application/pdf"),
            ("a.mp4", "video/mp4"),
            ("a.tar.gz", "application/gzip"),
        ] {
            assert_eq!(of(name.as_bytes()), want, "{name}");
        }
    }

    #[test]
    fn what_nobody_knows_is_bytes() {
        for name in [&b"LICENSE"[..], b"a.nobodyknows", b".htaccess", b"a.", b"a.d/LICENSE", b"a.\xff\xfe", b""] {
            assert_eq!(of(name), UNKNOWN, "{}", name.escape_ascii());
        }
    }
}
