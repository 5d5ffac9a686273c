//! URLs and paths as Python's `urllib.parse` and `posixpath` take them apart.
//!
//! Django's storages make names of files out of references with these functions. Whatever they do to an odd name, we
//! must do too, or one file in ten thousand would get another name than `collectstatic` gives it.

/// The parts of a reference, as `urlsplit` gives them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Split {
    pub(crate) scheme: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) fragment: String,
}

/// `urllib.parse.urlsplit`.
pub(crate) fn split(url: &str) -> Split {
    let url = url.trim_start_matches(|c: char| c <= ' ');
    let mut rest: String = url.chars().filter(|c| !matches!(c, '\t' | '\r' | '\n')).collect();
    let mut parts = Split::default();
    if let Some(colon) = rest.find(':').filter(|&colon| is_scheme(&rest[..colon])) {
        parts.scheme = rest[..colon].to_ascii_lowercase();
        rest.drain(..=colon);
    }
    if rest.starts_with("//") {
        let end = rest[2..].find(['/', '?', '#']).map_or(rest.len(), |end| end + 2);
        rest[2..end].clone_into(&mut parts.host);
        rest.drain(..end);
    }
    if let Some(hash) = rest.find('#') {
        rest[hash + 1..].clone_into(&mut parts.fragment);
        rest.truncate(hash);
    }
    if let Some(mark) = rest.find('?') {
        rest[mark + 1..].clone_into(&mut parts.query);
        rest.truncate(mark);
    }
    parts.path = rest;
    parts
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// `urllib.parse.urlunsplit`.
pub(crate) fn unsplit(parts: &Split) -> String {
    let mut url = parts.path.clone();
    if !parts.host.is_empty() {
        let slash = if url.is_empty() || url.starts_with('/') { "" } else { "/" };
        url = format!("//{}{slash}{url}", parts.host);
    }
    if !parts.scheme.is_empty() {
        url = format!("{}:{url}", parts.scheme);
    }
    if !parts.query.is_empty() {
        url = format!("{url}?{}", parts.query);
    }
    if !parts.fragment.is_empty() {
        url = format!("{url}#{}", parts.fragment);
    }
    url
}

/// `urllib.parse.urldefrag`: the reference without its fragment, and the fragment.
pub(crate) fn defragment(url: &str) -> (String, String) {
    if !url.contains('#') {
        return (url.to_owned(), String::new());
    }
    let mut parts = split(url);
    let fragment = std::mem::take(&mut parts.fragment);
    (unsplit(&parts), fragment)
}

/// `urllib.parse.unquote`: percent-escapes as UTF-8, what is not UTF-8 as U+FFFD.
pub(crate) fn unquote(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut ascii: Vec<u8> = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        // Escapes are decoded within runs of ASCII; a letter beyond it stands for itself.
        if !c.is_ascii() {
            out.push_str(&String::from_utf8_lossy(&ascii));
            ascii.clear();
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        if let Some(byte) = escape(rest.as_bytes()) {
            ascii.push(byte);
            rest = &rest[3..];
        } else {
            ascii.push(c as u8);
            rest = &rest[1..];
        }
    }
    out.push_str(&String::from_utf8_lossy(&ascii));
    out
}

fn escape(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    Some((digit(*high)? * 16 + digit(*low)?) as u8)
}

/// `posixpath.dirname`.
pub(crate) fn folder_of(path: &str) -> &str {
    let head = path.rfind('/').map_or("", |slash| &path[..=slash]);
    let trimmed = head.trim_end_matches('/');
    if trimmed.is_empty() { head } else { trimmed }
}

/// `posixpath.join` of two.
pub(crate) fn join(folder: &str, name: &str) -> String {
    if name.starts_with('/') || folder.is_empty() {
        return name.to_owned();
    }
    let slash = if folder.ends_with('/') { "" } else { "/" };
    format!("{folder}{slash}{name}")
}

/// `posixpath.normpath`.
pub(crate) fn normal(path: &str) -> String {
    if path.is_empty() {
        return String::from(".");
    }
    let slashes = match path.len() - path.trim_start_matches('/').len() {
        0 => "",
        2 => "//",
        _ => "/",
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if parts.is_empty() && !slashes.is_empty() => {}
            part => parts.push(part),
        }
    }
    let joined = format!("{slashes}{}", parts.join("/"));
    if joined.is_empty() { String::from(".") } else { joined }
}

/// `posixpath.splitext` of a file's name: stem and extension with its dot. Leading dots belong to the stem.
pub(crate) fn split_extension(name: &str) -> (&str, &str) {
    let stem = name.len() - name.trim_start_matches('.').len();
    match name.rfind('.') {
        Some(dot) if dot >= stem.max(1) && dot > 0 => name.split_at(dot),
        _ => (name, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split_and_joined_as_python_does() {
        for (url, scheme, host, path, query, fragment, back) in [
            ("a/b.css", "", "", "a/b.css", "", "", "a/b.css"),
            ("font.eot?#iefix", "", "", "font.eot", "", "iefix", "font.eot#iefix"),
            ("font.eot?v=1#x", "", "", "font.eot", "v=1", "x", "font.eot?v=1#x"),
            ("//cdn/x.css", "", "cdn", "/x.css", "", "", "//cdn/x.css"),
            ("HTTP://Host/x", "http", "Host", "/x", "", "", "http://Host/x"),
            (" \x01a.css", "", "", "a.css", "", "", "a.css"),
            ("a\n.css", "", "", "a.css", "", "", "a.css"),
            ("1a:b", "", "", "1a:b", "", "", "1a:b"),
            ("img:b", "img", "", "b", "", "", "img:b"),
        ] {
            let parts = split(url);
            let got = (&*parts.scheme, &*parts.host, &*parts.path, &*parts.query, &*parts.fragment);
            assert_eq!(got, (scheme, host, path, query, fragment), "{url:?}");
            assert_eq!(unsplit(&parts), back, "{url:?}");
        }
        assert_eq!(defragment("a.svg#b"), (String::from("a.svg"), String::from("b")));
        assert_eq!(defragment("a.eot?#iefix"), (String::from("a.eot"), String::from("iefix")));
    }

    #[test]
    fn escapes_are_decoded_as_python_does() {
        for (text, want) in [
            ("a%20b", "a b"),
            ("%C3%A9", "é"),
            ("%c3é", "\u{fffd}é"),
            ("100%", "100%"),
            ("%zz%41", "%zzA"),
            ("%E2%82", "\u{fffd}"),
        ] {
            assert_eq!(unquote(text), want);
        }
    }

    #[test]
    fn paths_are_taken_apart_as_python_does() {
        for (path, want) in [
            ("", "."),
            ("a/../b", "b"),
            ("../a", "../a"),
            ("a/../../b", "../b"),
            ("/../a", "/a"),
            ("//a//b/", "//a/b"),
            ("./a/./b", "a/b"),
            ("a/..", "."),
        ] {
            assert_eq!(normal(path), want, "{path:?}");
        }
        for (name, stem, extension) in
            [("a.css", "a", ".css"), (".a", ".a", ""), ("..a.b", "..a", ".b"), ("a.", "a", "."), ("a", "a", "")]
        {
            assert_eq!(split_extension(name), (stem, extension));
        }
        assert_eq!((folder_of("a/b/c"), folder_of("a"), folder_of("/a")), ("a/b", "", "/"));
        assert_eq!(
            (join("a", "b"), join("", "b"), join("a/", "b"), join("a", "/b")),
            ("a/b".into(), "b".into(), "a/b".into(), "/b".into())
        );
    }
}
