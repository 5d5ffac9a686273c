//! Filters that look at the request.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::super::section::{Entry, Keys};
use super::super::units;
use crate::filter::{AuthSettings, Password, Per, RateLimitSettings, Rewrite, RewriteSettings};
use crate::router::PathPattern;

pub(super) const RATE_LIMIT: Keys = Keys { known: &["per", "rate", "burst"], later: &[] };
pub(super) const BASIC_AUTH: Keys = Keys { known: &["file", "users", "realm"], later: &[] };
pub(super) const REWRITE: Keys = Keys { known: &["pattern", "to"], later: &[] };

/// Bytes of a file of passwords.
const MOST_PASSWORDS: u64 = 1 << 20;

/// `["10.0.0.0/8", "all"]`, or one of them.
pub(super) fn networks(entry: &Entry<'_>) -> Option<Vec<(IpAddr, u8)>> {
    const WHAT: &str = "a list of addresses and networks such as [\"10.0.0.0/8\", \"::1\"], or \"all\"";
    let items = if entry.is_list() { entry.items(WHAT)? } else { vec![entry.clone()] };
    if items.is_empty() {
        entry.expected(WHAT);
    }
    let mut networks = Vec::new();
    for item in items {
        let read = |text: &str| match text {
            "all" => Ok(vec![(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0), (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0)]),
            text => units::network(text).map(|network| vec![network]),
        };
        networks.extend(item.parse(WHAT, read)?);
    }
    Some(networks)
}

/// `{ per = "client", rate = "50/s", burst = 100 }`.
pub(super) fn rate_limit(entry: &Entry<'_>) -> Option<RateLimitSettings> {
    const WHAT: &str = "a table such as { per = \"client\", rate = \"50/s\", burst = 100 }";
    let section = entry.section("`rate_limit`", WHAT, RATE_LIMIT)?;
    let per = section.entry("per").map_or(Some(Per::Client), |entry| entry.parse("a string", per))?;
    let Some(rate) = section.entry("rate") else {
        entry.fault("a `rate` is missing, such as \"50/s\"");
        return None;
    };
    let (count, interval) = rate.parse("a rate such as \"50/s\"", self::rate)?;
    let burst = section.entry("burst").map_or(Some(count.into()), |entry| entry.whole(1, 1_000_000));
    Some(RateLimitSettings { per, interval, rate: rate.text()?, burst: burst? as u32 })
}

fn per(text: &str) -> Result<Per, String> {
    match text.split_once(':') {
        None if text == "client" => Ok(Per::Client),
        Some(("header", name)) if !name.is_empty() => Ok(Per::Header(name.to_owned())),
        Some(("cookie", name)) if !name.is_empty() => Ok(Per::Cookie(name.to_owned())),
        _ => Err(format!("expected \"client\", \"header:NAME\" or \"cookie:NAME\", found {text:?}")),
    }
}

/// How many, and the time that one of them takes up.
fn rate(text: &str) -> Result<(u32, Duration), String> {
    let wrong = || format!("expected a rate such as \"50/s\", \"100/m\" or \"1000/h\", found {text:?}");
    let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
    let count: u32 = count.parse().ok().filter(|count| (1..=1_000_000).contains(count)).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    Ok((count, Duration::from_secs(seconds) / count))
}

/// `{ file = "htpasswd", realm = "…" }` or `{ users = { name = "hash" } }`.
pub(super) fn basic_auth(entry: &Entry<'_>) -> Option<AuthSettings> {
    const WHAT: &str = "a table such as { file = \"htpasswd\", realm = \"Staff\" }";
    let section = entry.section("`basic_auth`", WHAT, BASIC_AUTH)?;
    let realm = section.entry("realm").map_or(Some("Restricted".to_owned()), |entry| {
        entry.parse("a string", |text| {
            if text.chars().any(char::is_control) {
                return Err("expected a realm without control characters".to_owned());
            }
            Ok(text.to_owned())
        })
    })?;
    let mut users = BTreeMap::new();
    for item in
        section.entry("users").and_then(|entry| entry.map("`users`", "a table of names and hashes")).unwrap_or_default()
    {
        let kept = item.parse("a hash such as \"$2y$…\"", |text| Password::parse(text).map(|_| text.to_owned()))?;
        users.insert(item.key().to_owned(), kept);
    }
    let file = section.entry("file");
    if let Some(file) = &file {
        users.extend(password_file(file)?);
    }
    if users.is_empty() {
        entry.fault("there is nobody who may: name a `file` made by `htpasswd -B`, or `users`");
        return None;
    }
    let file = file.and_then(|entry| entry.path()).map(|path| path.display().to_string());
    Some(AuthSettings { realm, users, file })
}

/// `name:hash` lines; empty ones and those that begin with `#` are skipped.
fn password_file(entry: &Entry<'_>) -> Option<BTreeMap<String, String>> {
    let path = entry.path()?;
    let read = std::fs::metadata(&path).and_then(|facts| match facts.len() {
        0..=MOST_PASSWORDS => std::fs::read_to_string(&path),
        _ => Err(std::io::Error::other("it is larger than 1 MiB")),
    });
    let text = read.map_err(|error| entry.fault(format!("cannot read {}: {error}", path.display()))).ok()?;
    let mut users = BTreeMap::new();
    for (number, line) in text.lines().enumerate().map(|(number, line)| (number + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let kept = line.split_once(':').ok_or_else(|| "expected NAME:HASH".to_owned());
        let kept = kept.and_then(|(name, hash)| {
            // Some tools write a remark behind another colon.
            let hash = hash.split(':').next().unwrap_or_default();
            Password::parse(hash).map(|_| (name.to_owned(), hash.to_owned()))
        });
        match kept {
            Ok((name, hash)) => {
                users.insert(name, hash);
            }
            Err(message) => {
                entry.fault(format!("{}:{number}: {message}", path.display()));
                return None;
            }
        }
    }
    Some(users)
}

/// `"/index.php/{rest}"` or `{ pattern = "^/u/(\\w+)$", to = "/user?name={1}" }`.
pub(super) fn rewrite(entry: &Entry<'_>) -> Option<RewriteSettings> {
    const WHAT: &str =
        "a path such as \"/new/{rest}\", or a table such as { pattern = '^/u/(\\w+)$', to = \"/user?name={1}\" }";
    let settings = if entry.is_text() {
        RewriteSettings { pattern: None, to: entry.text()? }
    } else {
        let section = entry.section("`rewrite`", WHAT, REWRITE)?;
        let Some(to) = section.entry("to") else {
            entry.fault("a `to` is missing: the path that the handler sees");
            return None;
        };
        let pattern = section.entry("pattern").map_or(Some(None), |entry| entry.text().map(Some))?;
        RewriteSettings { pattern, to: to.text()? }
    };
    Rewrite::new(&settings).map_err(|message| entry.fault(message)).ok().map(|_| settings)
}

/// `true` for what stands before the `*`, or a path.
pub(super) fn strip_prefix(entry: &Entry<'_>, path: Option<&PathPattern>) -> Option<String> {
    const WHAT: &str = "`true` or a path such as \"/shop\"";
    let prefix = if entry.is_text() {
        entry.parse(WHAT, |text| match text.parse() {
            Ok(PathPattern::Exact(path)) => Ok(path),
            _ => Err(format!("expected {WHAT}, found {text:?}")),
        })?
    } else if entry.boolean()? {
        let Some(PathPattern::Prefix { prefix, .. }) = path else {
            entry.fault("`true` strips what stands before the `*` of `path`, and there is none");
            return None;
        };
        prefix.clone()
    } else {
        return None;
    };
    let prefix = prefix.trim_end_matches('/').to_owned();
    if path.is_some_and(|path| !path.literal().starts_with(&prefix)) {
        entry.fault(format!("no path of the route begins with {prefix:?}"));
        return None;
    }
    (!prefix.is_empty()).then_some(prefix)
}
