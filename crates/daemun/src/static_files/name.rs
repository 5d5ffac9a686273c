//! The name that a request asks for below the roots, and whether a file of that name may be sent at all.
//!
//! Bytes only, no I/O.

use super::settings::Barred;
use crate::http::CanonicalPath;

/// The handler's own part of the path: what stands behind the rule's prefix, without a slash in front. It ends in a
/// slash, or is empty, for a folder. `None` where the path is the folder of the rule itself without its slash.
pub(super) fn own_part(path: &CanonicalPath, prefix_length: usize) -> Option<&[u8]> {
    let own = path.as_bytes().get(prefix_length..).unwrap_or_default();
    // A prefix without a final slash leaves one here; a canonical path has no second.
    let own = own.strip_prefix(b"/").unwrap_or(own);
    (!own.is_empty() || path.as_bytes().ends_with(b"/")).then_some(own)
}

/// Whether a file of this name is never sent: hidden, or a database or source where those are refused.
pub(super) fn is_denied(name: &[u8], allow_names: &[String], refuse_sources: bool) -> bool {
    let is_hidden = name.split(|&byte| byte == b'/').enumerate().any(|(place, segment)| match segment {
        // A canonical path has none, but what stands behind a prefix such as `/static*` may begin with one.
        b"." | b".." => true,
        // RFC 8615: it stands at the root.
        b".well-known" => place > 0,
        _ => segment.starts_with(b".") && !allow_names.iter().any(|allowed| allowed.as_bytes() == segment),
    });
    is_hidden || (refuse_sources && is_source(name))
}

/// Whether a file of this name below a root belongs to a CGI route: it is run or refused there, never sent.
pub(super) fn is_script(name: &[u8], barred: &Barred) -> bool {
    let inside = barred.folder.is_empty()
        || name.strip_prefix(barred.folder.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"));
    // In any case: `X.PHP` is as much a source as `x.php`, whoever would run it.
    let at = name.len().checked_sub(barred.ending.len());
    inside && at.is_some_and(|at| name[at..].eq_ignore_ascii_case(barred.ending.as_bytes()))
}

/// Whether this is a database or a program's source, or a copy that an editor or database left beside one.
fn is_source(name: &[u8]) -> bool {
    let last = name.rsplit(|&byte| byte == b'/').next().unwrap_or_default().to_ascii_lowercase();
    let mut rest = last.as_slice();
    while let Some(shorter) = LEFT_BESIDE.iter().find_map(|suffix| rest.strip_suffix(suffix.as_bytes())) {
        rest = shorter;
    }
    SOURCES.iter().any(|suffix| rest.ends_with(suffix.as_bytes()))
}

/// What a folder that was only named, not configured, never sends.
const SOURCES: &[&str] = &[
    ".sqlite3", ".sqlite", ".db3", ".db", // databases
    ".py", ".pyc", ".pyo", ".pyw", ".pyd", ".wsgi", // Python
    ".php", ".php3", ".php4", ".php5", ".php7", ".phps", ".phtml", ".inc", // PHP
    ".pl", ".pm", ".cgi", ".fcgi", ".rb", ".sh", ".lua", ".jsp", ".asp", ".aspx", // other scripts
];

/// Suffixes of copies: editors, packagers, SQLite's own files beside a database.
const LEFT_BESIDE: &[&str] =
    &["~", ".bak", ".old", ".orig", ".save", ".swp", ".tmp", ".dpkg-old", ".dpkg-dist", "-journal", "-wal", "-shm"];

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn the_own_part_is_what_stands_behind_the_prefix() {
        for (path, prefix, want) in [
            ("/static/css/a.css", "/static/", Some("css/a.css")),
            ("/static/css/a.css", "/static", Some("css/a.css")),
            ("/static/css/", "/static/", Some("css/")),
            ("/static/", "/static/", Some("")),
            ("/static/", "/static", Some("")),
            ("/static", "/static/", None),
            ("/static", "/static", None),
            ("/a.css", "/", Some("a.css")),
            ("/", "/", Some("")),
            ("/favicon.ico", "", Some("favicon.ico")),
            ("/static../x", "/static", Some("../x")),
        ] {
            let canonical = CanonicalPath::parse(&Bytes::from_static(path.as_bytes())).unwrap();
            assert_eq!(own_part(&canonical, prefix.len()), want.map(str::as_bytes), "{path} {prefix}");
        }
    }

    #[test]
    fn hidden_names_are_denied_but_those_that_are_allowed() {
        let allowed = [".htaccess".to_owned()];
        for (name, denied) in [
            ("a.css", false),
            ("a/b.c/d", false),
            (".env", true),
            (".git/config", true),
            ("a/.git/config", true),
            ("a/.", true),
            ("../x", true),
            ("..", true),
            (".well-known/security.txt", false),
            (".well-known", false),
            (".well-known/.env", true),
            ("a/.well-known/x", true),
            (".htaccess", false),
            ("a/.htaccess", false),
            (".htaccess2", true),
            ("a.py", false),
        ] {
            assert_eq!(is_denied(name.as_bytes(), &allowed, false), denied, "{name}");
        }
    }

    #[test]
    fn databases_and_sources_are_denied_where_they_are_refused() {
        for name in [
            "db.sqlite3",
            "db.sqlite3-wal",
            "a/b.py",
            "B.PY",
            "a.py~",
            "a.php.bak",
            "a.cgi",
            "a.pl",
            "c.pyc",
            "x.db",
            "index.php.old~",
            "app.wsgi",
            ".py",
        ] {
            assert!(is_denied(name.as_bytes(), &[], true), "{name}");
        }
        for name in ["a.css", "a.pyx.txt", "python", "happy", "a.py/", "readme~", "a.db.html"] {
            assert!(!is_denied(name.as_bytes(), &[], true), "{name}");
        }
    }
}
