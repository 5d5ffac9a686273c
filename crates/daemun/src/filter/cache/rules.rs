//! What may be kept, and for how long (RFC 9111, sections 3 to 5).

use std::time::{Duration, SystemTime};

use super::CacheSettings;
use crate::http::{Fields, Response};

/// The directives of `Cache-Control` that a shared cache heeds in an answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a directive that stands there or not")]
struct Directives {
    no_store: bool,
    no_cache: bool,
    private: bool,
    must_revalidate: bool,
    max_age: Option<u64>,
    s_maxage: Option<u64>,
    stale_while_revalidate: Option<u64>,
    stale_if_error: Option<u64>,
}

/// How long an answer may be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Lifetime {
    /// As it is.
    pub(super) fresh: Duration,
    /// After that, while it is asked for anew.
    pub(super) revalidating: Duration,
    /// After that, where asking anew fails.
    pub(super) on_error: Duration,
}

/// Longer than a micro-cache ever keeps anything.
const LONGEST: u64 = 365 * 24 * 60 * 60;

/// How long this answer to a GET may be used; `None` where it may not be kept at all.
pub(super) fn lifetime(response: &Response, settings: &CacheSettings, now: SystemTime) -> Option<Lifetime> {
    let fields = &response.fields;
    let directives = Directives::read(fields);
    let forbidden = directives.no_store
        || directives.private
        || directives.no_cache
        || fields.lists("vary", "*")
        || (fields.get("set-cookie").is_some() && !settings.set_cookie);
    if forbidden {
        return None;
    }
    let said = directives.s_maxage.or(directives.max_age).map(Duration::from_secs).or_else(|| expires(fields, now));
    let by_default = settings.ttl.filter(|_| matches!(response.status.code(), 200 | 203 | 300 | 301 | 308 | 404 | 410));
    let is_final = matches!(response.status.code(), 200 | 203 | 300 | 301 | 302 | 307 | 308 | 404 | 410);
    let age = fields.get("age").and_then(seconds).map_or(Duration::ZERO, Duration::from_secs);
    let fresh = said.or(by_default).filter(|_| is_final)?.saturating_sub(age);
    let stale = |said: Option<u64>| match said {
        _ if directives.must_revalidate => Duration::ZERO,
        Some(seconds) => Duration::from_secs(seconds),
        None => settings.stale,
    };
    let lifetime = Lifetime {
        fresh,
        revalidating: stale(directives.stale_while_revalidate),
        on_error: stale(directives.stale_if_error),
    };
    let validators = fields.get("etag").is_some() || fields.get("last-modified").is_some();
    let is_useful = !lifetime.fresh.is_zero() || !lifetime.revalidating.is_zero() || validators;
    // Never fresh by its own word, but of use by its own word too: `max-age=0, stale-while-revalidate=60` (RFC 5861).
    let says_stale = [directives.stale_while_revalidate, directives.stale_if_error].iter().any(|said| *said > Some(0));
    let is_of_use = if said == Some(Duration::ZERO) { validators || says_stale } else { is_useful };
    is_of_use.then_some(lifetime)
}

fn expires(fields: &Fields, now: SystemTime) -> Option<Duration> {
    let text = std::str::from_utf8(fields.get("expires")?).ok()?;
    // What is no date is in the past (RFC 9111, section 5.3).
    let at = httpdate::parse_http_date(text).unwrap_or(SystemTime::UNIX_EPOCH);
    Some(at.duration_since(now).unwrap_or_default())
}

fn seconds(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.trim().trim_matches('"');
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(LONGEST).min(LONGEST))
}

impl Directives {
    fn read(fields: &Fields) -> Self {
        let mut read = Self::default();
        let lines = fields.iter().filter(|field| field.name().eq_ignore_ascii_case(b"cache-control"));
        for item in lines.flat_map(|field| field.value().split(|&byte| byte == b',')) {
            let item = item.trim_ascii();
            let (name, value) = match item.iter().position(|&byte| byte == b'=') {
                Some(equals) => (&item[..equals], seconds(&item[equals + 1..])),
                None => (item, None),
            };
            match name.to_ascii_lowercase().as_slice() {
                b"no-store" => read.no_store = true,
                b"no-cache" => read.no_cache = true,
                b"private" => read.private = true,
                b"must-revalidate" | b"proxy-revalidate" => read.must_revalidate = true,
                // What cannot be read is stale (RFC 9111, section 4.2.1); of two the shorter counts.
                b"max-age" => read.max_age = Some(value.unwrap_or(0).min(read.max_age.unwrap_or(LONGEST))),
                b"s-maxage" => read.s_maxage = Some(value.unwrap_or(0).min(read.s_maxage.unwrap_or(LONGEST))),
                b"stale-while-revalidate" => read.stale_while_revalidate = value,
                b"stale-if-error" => read.stale_if_error = value,
                _ => {}
            }
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Status;

    fn fresh(status: u16, fields: &[(&'static str, &'static str)], ttl: Option<u64>) -> Option<u64> {
        let mut response = Response::new(Status::from_code(status).unwrap());
        for &(name, value) in fields {
            response.fields.push(name.as_bytes(), value);
        }
        let settings = CacheSettings { ttl: ttl.map(Duration::from_secs), ..CacheSettings::default() };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        lifetime(&response, &settings, now).map(|lifetime| lifetime.fresh.as_secs())
    }

    #[test]
    fn what_may_be_kept_and_for_how_long() {
        const CONTROL: &str = "Cache-Control";
        type Row = (u16, &'static [(&'static str, &'static str)], Option<u64>, Option<u64>);
        let table: &[Row] = &[
            (200, &[], None, None),
            (200, &[], Some(10), Some(10)),
            (200, &[(CONTROL, "max-age=60")], Some(10), Some(60)),
            (200, &[(CONTROL, "max-age=60, s-maxage=5")], None, Some(5)),
            (200, &[(CONTROL, "MAX-AGE=\"60\"")], None, Some(60)),
            (200, &[(CONTROL, "max-age=60"), ("Age", "20")], None, Some(40)),
            (200, &[(CONTROL, "max-age=60"), (CONTROL, "private")], None, None),
            (200, &[(CONTROL, "no-store, max-age=60")], Some(10), None),
            (200, &[(CONTROL, "no-cache")], Some(10), None),
            (200, &[(CONTROL, "private=\"x\"")], Some(10), None),
            (200, &[(CONTROL, "max-age=0")], Some(10), None),
            (200, &[(CONTROL, "max-age=soon")], Some(10), None),
            (200, &[(CONTROL, "max-age=0"), ("ETag", "\"a\"")], None, Some(0)),
            (200, &[(CONTROL, "max-age=0, stale-while-revalidate=60")], None, Some(0)),
            (200, &[(CONTROL, "max-age=0, stale-if-error=60")], None, Some(0)),
            (200, &[(CONTROL, "max-age=0, stale-if-error=0")], None, None),
            (200, &[("Expires", "Sun, 06 Nov 1994 08:50:37 GMT")], None, Some(60)),
            (200, &[("Expires", "0")], Some(10), None),
            (200, &[("Vary", "*")], Some(10), None),
            (200, &[("Set-Cookie", "a=b"), (CONTROL, "max-age=60")], None, None),
            (404, &[], Some(10), Some(10)),
            (302, &[], Some(10), None),
            (302, &[(CONTROL, "max-age=60")], None, Some(60)),
            (500, &[(CONTROL, "max-age=60")], Some(10), None),
            (206, &[(CONTROL, "max-age=60")], Some(10), None),
            (204, &[(CONTROL, "max-age=60")], Some(10), None),
        ];
        for &(status, fields, ttl, want) in table {
            assert_eq!(fresh(status, fields, ttl), want, "{status} {fields:?} {ttl:?}");
        }
    }
}
