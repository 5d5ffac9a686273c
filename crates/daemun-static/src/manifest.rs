//! `staticfiles.json`: plain names and what they are called with their content's hash.
//!
//! `{"paths": {"css/site.css": "css/site.55e7cbb9ba48.css", …}, "version": "1.1", "hash": "…"}`: a JSON object that any
//! language reads. Written with the very bytes that Python's `json.dumps` writes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;

use crate::content::fingerprint;
use crate::settings::ManifestSettings;

/// The bytes of a manifest.
pub(crate) fn encode(names: &[(String, String)], settings: &ManifestSettings) -> Vec<u8> {
    let mut sorted: Vec<&(String, String)> = names.iter().collect();
    // By code points, as Python orders text, which is the order of UTF-8.
    sorted.sort();
    let mut out = String::from("{\"paths\": {");
    let listed: Vec<&(String, String)> = if settings.sorted { sorted.clone() } else { names.iter().collect() };
    for (at, (plain, hashed)) in listed.into_iter().enumerate() {
        out.push_str(if at == 0 { "" } else { ", " });
        text(&mut out, plain);
        out.push_str(": ");
        text(&mut out, hashed);
    }
    out.push_str("}, \"version\": ");
    text(&mut out, &settings.version);
    if settings.hash {
        let mut pairs = String::from("[");
        for (at, (plain, hashed)) in sorted.into_iter().enumerate() {
            pairs.push_str(if at == 0 { "[" } else { ", [" });
            text(&mut pairs, plain);
            pairs.push_str(", ");
            text(&mut pairs, hashed);
            pairs.push(']');
        }
        pairs.push(']');
        out.push_str(", \"hash\": ");
        text(&mut out, &fingerprint(pairs.as_bytes()));
    }
    out.push('}');
    out.into_bytes()
}

/// A string as `json.dumps` writes it: ASCII alone, beyond it `\uXXXX`, in pairs where needed.
fn text(out: &mut String, value: &str) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c.is_ascii() && !c.is_ascii_control() => out.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // A string takes whatever is written.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

/// The names with hashes that the manifest at `path` gives; none where there is none that can be read.
pub(crate) fn hashed_names(path: &Path) -> Vec<String> {
    #[derive(Deserialize)]
    struct Written {
        paths: BTreeMap<String, String>,
    }
    let read = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Written>(&bytes).ok());
    let paths = read.map(|written| written.paths).unwrap_or_default();
    // Files are removed by these names: none may lead out of the tree.
    let is_below = |name: &str| crate::url::normal(name) == name && !name.starts_with(['/', '.']);
    let hashed = paths.into_iter().filter(|(plain, hashed)| plain != hashed).map(|(_, hashed)| hashed);
    hashed.filter(|name| is_below(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_json_dumps() {
        let names = [
            (String::from("b\u{e9}\u{1f600}.css"), String::from("b.1.css")),
            (String::from("a\"\\\n\u{7f}"), String::from("a.2")),
        ];
        let mut settings = ManifestSettings::standard();
        settings.sorted = false;
        let bytes = encode(&names, &settings);
        // What `hashlib.md5(json.dumps(sorted(names)).encode()).hexdigest()[:12]` gives.
        let want = "{\"paths\": {\"b\\u00e9\\ud83d\\ude00.css\": \"b.1.css\", \"a\\\"\\\\\\n\\u007f\": \"a.2\"}, \
                    \"version\": \"1.1\", \"hash\": \"7f3aa7fb1560\"}";
        assert_eq!(String::from_utf8(bytes).unwrap(), want);
    }
}
