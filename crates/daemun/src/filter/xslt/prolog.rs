//! What stands before the first element of a document: the stylesheet that it names (xml-stylesheet, W3C).

use std::ops::Range;

use bytes::Bytes;

/// Bytes in which a document names its stylesheet, or not at all.
const MOST: usize = 64 * 1024;

/// A stylesheet that a document names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Named {
    pub(super) href: String,
    /// Where the instruction stands.
    place: Range<usize>,
}

/// The first stylesheet for XSLT that the document names and that is no alternate one.
pub(super) fn stylesheet(document: &[u8]) -> Option<Named> {
    all(document).into_iter().next()
}

/// The document without those instructions: what comes out of a transformation is not to be transformed once more. Lines
/// keep their numbers.
pub(super) fn without_stylesheets(document: &Bytes) -> Bytes {
    let all = all(document);
    if all.is_empty() {
        return document.clone();
    }
    let mut bytes = document.to_vec();
    for Named { place, .. } in all {
        for byte in bytes[place].iter_mut().filter(|byte| !matches!(byte, b'\n' | b'\r')) {
            *byte = b' ';
        }
    }
    bytes.into()
}

fn all(document: &[u8]) -> Vec<Named> {
    let text = &document[..document.len().min(MOST)];
    let mut found = Vec::new();
    let mut at = if text.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    while let Some(length) = text[at..].iter().position(|byte| !byte.is_ascii_whitespace()) {
        at += length;
        let rest = &text[at..];
        let length = if rest.starts_with(b"<!--") {
            end(rest, b"-->")
        } else if rest.starts_with(b"<?") {
            let length = end(rest, b"?>");
            if let Some(length) = length
                && let Some(href) = instruction(&rest[2..length - 2])
            {
                found.push(Named { href, place: at..at + length });
            }
            length
        } else if rest.starts_with(b"<!DOCTYPE") {
            doctype(rest)
        } else {
            None
        };
        let Some(length) = length else { break };
        at += length;
    }
    found
}

fn end(text: &[u8], mark: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, mark).map(|at| at + mark.len())
}

/// Past a document type with all that is declared in it.
fn doctype(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    let mut is_inside = false;
    while at < text.len() {
        let rest = &text[at..];
        at += match rest[0] {
            b'"' | b'\'' => memchr::memchr(rest[0], &rest[1..])? + 2,
            b'<' if rest.starts_with(b"<!--") => end(rest, b"-->")?,
            b'<' if rest.starts_with(b"<?") => end(rest, b"?>")?,
            b'>' if !is_inside => return Some(at + 1),
            byte => {
                is_inside = (is_inside || byte == b'[') && byte != b']';
                1
            }
        };
    }
    None
}

/// The `href` of an instruction for a stylesheet in XSLT.
fn instruction(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?.strip_prefix("xml-stylesheet")?;
    if !text.starts_with(|c: char| c.is_ascii_whitespace()) {
        return None;
    }
    let mut attributes = Vec::new();
    let mut rest = text.trim_ascii();
    while !rest.is_empty() {
        let (name, value) = rest.split_once('=')?;
        let value = value.trim_ascii_start();
        let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        let (value, after) = value[1..].split_once(quote)?;
        attributes.push((name.trim_ascii(), value.replace("&amp;", "&")));
        rest = after.trim_ascii_start();
    }
    let get = |name: &str| attributes.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str());
    let is_xslt =
        matches!(get("type")?, "text/xsl" | "text/xslt" | "application/xslt+xml" | "text/xml" | "application/xml");
    (is_xslt && get("alternate") != Some("yes")).then(|| get("href").map(str::to_owned)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stylesheet_is_found_before_the_first_element_only() {
        let named = |text: &str| stylesheet(text.as_bytes()).map(|named| named.href);
        let instruction = "<?xml-stylesheet type=\"text/xsl\" href='a.xsl'?>";
        for before in
            ["", "\u{feff}<?xml version='1.0'?>\n", "<!-- <a> -->", "<!DOCTYPE a [<!ENTITY x ']>'>]>\n", "<?b?>"]
        {
            assert_eq!(named(&format!("{before}{instruction}<a/>")).as_deref(), Some("a.xsl"), "{before}");
        }
        for other in [
            "<a/>".to_owned() + instruction,
            format!("<!-- {instruction} --><a/>"),
            format!("<a>{instruction}</a>"),
            "<?xml-stylesheet type='text/css' href='a.css'?><a/>".to_owned(),
            "<?xml-stylesheet href='a.xsl'?><a/>".to_owned(),
            "<?xml-stylesheet type='text/xsl' href='a.xsl' alternate='yes'?><a/>".to_owned(),
            "<?xml-stylesheets type='text/xsl' href='a.xsl'?><a/>".to_owned(),
            "<?xml-stylesheet type='text/xsl' href='a.xsl'".to_owned(),
            "<!DOCTYPE a [<!ENTITY x '".to_owned() + instruction,
            String::new(),
        ] {
            assert_eq!(named(&other), None, "{other}");
        }
    }

    #[test]
    fn the_instruction_goes_and_lines_stay() {
        let text = "<?xml version='1.0'?>\n<?xml-stylesheet type='text/xsl'\n href='a.xsl'?>\n<a/>";
        let without = without_stylesheets(&Bytes::from(text));
        assert!(!String::from_utf8_lossy(&without).contains("stylesheet"));
        assert_eq!(without.split(|&byte| byte == b'\n').count(), 4);
        assert!(without.ends_with(b"\n<a/>") && without.len() == text.len());
    }
}
