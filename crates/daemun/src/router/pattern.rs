//! What a rule matches: hosts and paths, as they are written in `host` and `path`.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::http::CanonicalPath;

/// Which hosts a rule is for. Names are in lower case, without port.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum HostPattern {
    /// Any.
    Any,
    /// Exactly this one.
    Exact(String),
    /// `*.example.com`, kept as `.example.com`: any name below it, but not itself.
    Below(String),
}

/// Which paths a rule is for.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum PathPattern {
    /// Exactly this one.
    Exact(String),
    /// Everything that begins with `prefix` (which ends in `/` for `/static/*`) and ends with `suffix` (empty for most).
    Prefix {
        /// What stands before the `*`.
        prefix: String,
        /// What stands after it.
        suffix: String,
    },
}

// === impl HostPattern ===

impl FromStr for HostPattern {
    type Err = String;

    /// Reads `example.com`, `*.example.com`, `127.0.0.1`, `[::1]` or `*`. The error says what was expected.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let (below, bare) = match name.strip_prefix("*.") {
            Some(bare) => (true, bare),
            None => (false, name.as_str()),
        };
        if !name.is_ascii() {
            return Err("expected the host in its ASCII form (`xn--…`), as browsers send it".to_owned());
        }
        if let Some(address) = bare.strip_prefix('[').and_then(|bare| bare.strip_suffix(']')) {
            let valid = !below && address.parse::<std::net::Ipv6Addr>().is_ok();
            return if valid { Ok(Self::Exact(name)) } else { Err(format!("`{text}` is not an IPv6 address")) };
        }
        if let Some((host, port)) = bare.rsplit_once(':')
            && port.bytes().all(|byte| byte.is_ascii_digit())
        {
            return Err(format!("expected a host without a port: `{host}`"));
        }
        let valid = bare.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        });
        match (valid, below) {
            (false, _) => Err("expected a host such as `example.com` or `*.example.com`".to_owned()),
            (true, true) => Ok(Self::Below(format!(".{bare}"))),
            (true, false) => Ok(Self::Exact(name)),
        }
    }
}

impl HostPattern {
    /// Whether every host of this pattern is also one of `other`, and is asked for this one first.
    pub(super) fn is_narrower(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(_) | Self::Below(_), Self::Any) => true,
            (Self::Exact(name), Self::Below(suffix)) => name.len() > suffix.len() && name.ends_with(suffix),
            (Self::Below(one), Self::Below(suffix)) => one.len() > suffix.len() && one.ends_with(suffix),
            _ => false,
        }
    }
}

impl fmt::Display for HostPattern {
    /// As it is written in `host`; `*` for any.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name),
            Self::Below(suffix) => write!(f, "*{suffix}"),
        }
    }
}

// === impl PathPattern ===

impl FromStr for PathPattern {
    type Err = String;

    /// Reads `/favicon.ico`, `/static/*`, `/blog/*.php` or `*.php`. The error says what was expected.
    fn from_str(text: &str) -> Result<Self, String> {
        let absolute = if text.starts_with('*') { format!("/{text}") } else { text.to_owned() };
        if !absolute.starts_with('/') {
            return Err(format!("expected a path that starts with `/`, such as `/{text}`"));
        }
        let Some((prefix, suffix)) = absolute.split_once('*') else {
            is_reachable(&absolute)?;
            return Ok(Self::Exact(absolute));
        };
        if suffix.contains('*') {
            return Err("expected at most one `*`".to_owned());
        }
        // A name in the place of the `*`: `/.` alone would resolve away, yet `/.*` is a fine rule for hidden files.
        is_reachable(&format!("{prefix}x{suffix}"))?;
        Ok(Self::Prefix { prefix: prefix.to_owned(), suffix: suffix.to_owned() })
    }
}

impl PathPattern {
    /// Whether every path of `other` is one of this pattern.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(one), Self::Exact(two)) => one == two,
            (Self::Exact(_), Self::Prefix { .. }) => false,
            (Self::Prefix { prefix, suffix }, Self::Exact(path)) => {
                path.len() >= prefix.len() + suffix.len() && path.starts_with(prefix) && path.ends_with(suffix)
            }
            (Self::Prefix { prefix, suffix }, Self::Prefix { prefix: start, suffix: end }) => {
                start.starts_with(prefix) && end.ends_with(suffix)
            }
        }
    }

    /// What stands before the `*`, or all of an exact path.
    pub fn literal(&self) -> &str {
        match self {
            Self::Exact(path) => path,
            Self::Prefix { prefix, .. } => prefix,
        }
    }
}

impl fmt::Display for PathPattern {
    /// As it is written in `path`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Prefix { prefix, suffix } => write!(f, "{prefix}*{suffix}"),
        }
    }
}

/// Rules are compared with canonical paths: one that is not canonical itself would be dead.
fn is_reachable(path: &str) -> Result<(), String> {
    match CanonicalPath::parse(&Bytes::copy_from_slice(path.as_bytes())) {
        Ok(canonical) if canonical.as_bytes() == path.as_bytes() => Ok(()),
        _ => {
            Err("no request can match it: rules see the path decoded, with dots and double slashes resolved".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_exact_prefixes_or_prefixes_with_a_suffix() {
        for (text, prefix, suffix) in [
            ("/static/*", "/static/", ""),
            ("/*", "/", ""),
            ("/blog/*.php", "/blog/", ".php"),
            ("*.php", "/", ".php"),
            ("/img-*", "/img-", ""),
            ("/.*", "/.", ""),
            ("/a/*/edit", "/a/", "/edit"),
        ] {
            let want = PathPattern::Prefix { prefix: prefix.to_owned(), suffix: suffix.to_owned() };
            assert_eq!(text.parse(), Ok(want), "{text}");
        }
        assert_eq!("/favicon.ico".parse(), Ok(PathPattern::Exact("/favicon.ico".to_owned())));
    }

    #[test]
    fn a_path_that_can_never_match_is_refused() {
        for text in ["static/*", "/a/*/b*", "/a/../b", "//a/*", "/a%20b", "/a/./*", "", "/%zz"] {
            assert!(text.parse::<PathPattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_are_names_wildcards_or_addresses() {
        for (text, want) in [
            ("Example.COM", HostPattern::Exact("example.com".to_owned())),
            ("example.com.", HostPattern::Exact("example.com".to_owned())),
            ("*.example.com", HostPattern::Below(".example.com".to_owned())),
            ("127.0.0.1", HostPattern::Exact("127.0.0.1".to_owned())),
            ("[::1]", HostPattern::Exact("[::1]".to_owned())),
            ("*", HostPattern::Any),
        ] {
            assert_eq!(text.parse(), Ok(want), "{text}");
        }
        for text in ["example.com:80", "http://example.com", "a..b", "", "*.", "a*.b", "[::1", "bücher.example", "a b"]
        {
            assert!(text.parse::<HostPattern>().is_err(), "{text}");
        }
    }
}
