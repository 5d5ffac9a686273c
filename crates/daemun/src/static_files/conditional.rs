//! Preconditions: whether a request is to be carried out, in the order of RFC 9110, section 13.2.2.
//!
//! Bytes only, no I/O and, but for the strength of a date in `If-Range`, no clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::coding::Accepted;
use crate::http::RequestHead;

/// What a file is compared by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Validators<'a> {
    /// The strong entity tag, with its quotes.
    pub(super) tag: &'a [u8],
    /// `Last-Modified`, in whole seconds.
    pub(super) modified: SystemTime,
}

/// What the preconditions of a GET or HEAD come to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Decision {
    /// Carry it out.
    Proceed,
    /// The client has it: 304.
    NotModified,
    /// The client's idea of it is wrong: 412.
    Failed,
}

/// The conditional, range and coding fields of a request, gathered in one pass over its fields.
#[derive(Debug, Default)]
pub(super) struct Conditions<'a> {
    if_match: Lines<'a>,
    if_none_match: Lines<'a>,
    if_modified_since: Lines<'a>,
    if_unmodified_since: Lines<'a>,
    if_range: Lines<'a>,
    range: Lines<'a>,
    accept_encoding: Lines<'a>,
}

impl<'a> Conditions<'a> {
    /// Those of this request.
    pub(super) fn of(head: &'a RequestHead) -> Self {
        let mut conditions = Self::default();
        for (name, value) in head.fields() {
            // Most fields of most requests end here: the length alone tells them apart.
            let lines = match name.len() {
                5 if name.eq_ignore_ascii_case(b"Range") => &mut conditions.range,
                8 if name.eq_ignore_ascii_case(b"If-Match") => &mut conditions.if_match,
                8 if name.eq_ignore_ascii_case(b"If-Range") => &mut conditions.if_range,
                15 if name.eq_ignore_ascii_case(b"Accept-Encoding") => &mut conditions.accept_encoding,
                13 if name.eq_ignore_ascii_case(b"If-None-Match") => &mut conditions.if_none_match,
                17 if name.eq_ignore_ascii_case(b"If-Modified-Since") => &mut conditions.if_modified_since,
                19 if name.eq_ignore_ascii_case(b"If-Unmodified-Since") => &mut conditions.if_unmodified_since,
                _ => continue,
            };
            lines.add(value);
        }
        conditions
    }

    /// The content codings that the client takes; asked for only where there is something to choose between.
    pub(super) fn accepted(&self) -> Accepted {
        let lines = &self.accept_encoding;
        Accepted::read(lines.first.iter().chain(&lines.more).copied())
    }

    /// Steps 1 to 4 of RFC 9110, section 13.2.2, for GET and HEAD.
    pub(super) fn decide(&self, current: Validators<'_>) -> Decision {
        // 1. If-Match; 2. only without it, If-Unmodified-Since.
        if self.if_match.is_present() {
            if !self.if_match.any_tag(|tag| tag == current.tag) {
                return Decision::Failed;
            }
        } else if self.if_unmodified_since.date().is_some_and(|date| current.modified > date) {
            return Decision::Failed;
        }
        // 3. If-None-Match; 4. only without it, If-Modified-Since.
        if self.if_none_match.is_present() {
            if self.if_none_match.any_tag(|tag| tag.strip_prefix(b"W/").unwrap_or(tag) == current.tag) {
                return Decision::NotModified;
            }
        } else if self.if_modified_since.date().is_some_and(|date| current.modified <= date) {
            return Decision::NotModified;
        }
        Decision::Proceed
    }

    /// Step 5, for GET: the value of `Range`, if it is there once and `If-Range` does not stand against it. The clock is
    /// only asked where there is an `If-Range`.
    pub(super) fn range(&self, current: Validators<'_>, now: fn() -> SystemTime) -> Option<&'a [u8]> {
        let range = self.range.only()?;
        (!self.if_range.is_present() || self.if_range_holds(current, now())).then_some(range)
    }

    /// RFC 9110, section 13.1.5: a strong tag, or a date that is exactly ours and strong in the sense of section
    /// 8.8.2.2, which it cannot be while the second that it names is not over.
    fn if_range_holds(&self, current: Validators<'_>, now: SystemTime) -> bool {
        let Some(value) = self.if_range.only() else { return false };
        if value.starts_with(b"\"") || value.starts_with(b"W/") {
            return value == current.tag;
        }
        let is_over = now.duration_since(current.modified).is_ok_and(|age| age >= Duration::from_secs(1));
        date(value).is_some_and(|date| date == current.modified) && is_over
    }
}

/// The lines on which a field was sent; more than one is rare.
#[derive(Debug, Default)]
struct Lines<'a> {
    first: Option<&'a [u8]>,
    more: Vec<&'a [u8]>,
}

impl<'a> Lines<'a> {
    fn add(&mut self, value: &'a [u8]) {
        match self.first {
            None => self.first = Some(value),
            Some(_) => self.more.push(value),
        }
    }

    fn is_present(&self) -> bool {
        self.first.is_some()
    }

    /// The value of a field that is not a list: on two lines it means nothing (RFC 9110, section 5.3).
    fn only(&self) -> Option<&'a [u8]> {
        if self.more.is_empty() { self.first } else { None }
    }

    /// A date that counts: what is not a valid `HTTP-date` is passed over (RFC 9110, sections 13.1.3 and 13.1.4).
    fn date(&self) -> Option<SystemTime> {
        self.only().and_then(date)
    }

    /// Whether a tag of the list, or `*`, fits. `*` only stands alone.
    fn any_tag(&self, fits: impl Fn(&[u8]) -> bool) -> bool {
        self.only() == Some(b"*") || self.first.iter().chain(&self.more).any(|line| Tags(line).any(&fits))
    }
}

/// The entity tags of one line, up to the first thing that is none (RFC 9110, section 8.8.3). Commas may stand inside
/// the quotes, so the line cannot be split at them.
struct Tags<'a>(&'a [u8]);

impl<'a> Iterator for Tags<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.0.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
        let rest = &self.0[start..];
        let open = if rest.starts_with(b"W/") { 2 } else { 0 };
        if rest.get(open) != Some(&b'"') {
            self.0 = &[];
            return None;
        }
        let Some(close) = rest[open + 1..].iter().position(|&byte| byte == b'"') else {
            self.0 = &[];
            return None;
        };
        let end = open + close + 2;
        self.0 = &rest[end..];
        Some(&rest[..end])
    }
}

/// An `HTTP-date` in any of its three forms, in whole seconds (RFC 9110, section 5.6.7).
fn date(value: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()
}

/// `moment` without its fraction, never before 1970 and never after `now` (RFC 9110, section 8.8.2.1).
pub(super) fn last_modified(moment: SystemTime, now: SystemTime) -> SystemTime {
    let seconds = moment.min(now).duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::super::tests::head;
    use super::*;

    const TAG: &str = "\"a,1\"";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn current() -> Validators<'static> {
        Validators { tag: TAG.as_bytes(), modified: UNIX_EPOCH + Duration::from_secs(784_111_777) }
    }

    fn decide(fields: &[(&str, &str)]) -> Decision {
        Conditions::of(&head("GET", "/", fields)).decide(current())
    }

    #[test]
    fn every_row_of_rfc_9110_section_13_2_2_is_kept() {
        use Decision::{Failed, NotModified, Proceed};
        let (hit, miss) = (TAG, "\"b\"");
        let rows: &[(&[(&str, &str)], Decision)] = &[
            (&[], Proceed),
            // 1: If-Match decides, true on to 3, false 412.
            (&[("If-Match", hit)], Proceed),
            (&[("If-Match", miss)], Failed),
            (&[("If-Match", hit), ("If-None-Match", hit)], NotModified),
            (&[("If-Match", hit), ("If-None-Match", miss)], Proceed),
            (&[("If-Match", miss), ("If-None-Match", hit)], Failed),
            // 2: If-Unmodified-Since only without If-Match.
            (&[("If-Unmodified-Since", BEFORE)], Failed),
            (&[("If-Unmodified-Since", SAME)], Proceed),
            (&[("If-Unmodified-Since", AFTER)], Proceed),
            (&[("If-Match", hit), ("If-Unmodified-Since", BEFORE)], Proceed),
            (&[("If-Match", miss), ("If-Unmodified-Since", AFTER)], Failed),
            (&[("If-Unmodified-Since", AFTER), ("If-None-Match", hit)], NotModified),
            (&[("If-Unmodified-Since", BEFORE), ("If-None-Match", hit)], Failed),
            (&[("If-Unmodified-Since", SAME), ("If-Modified-Since", SAME)], NotModified),
            // 3: If-None-Match decides, false 304.
            (&[("If-None-Match", hit)], NotModified),
            (&[("If-None-Match", miss)], Proceed),
            // 4: If-Modified-Since only without If-None-Match.
            (&[("If-Modified-Since", BEFORE)], Proceed),
            (&[("If-Modified-Since", SAME)], NotModified),
            (&[("If-Modified-Since", AFTER)], NotModified),
            (&[("If-None-Match", miss), ("If-Modified-Since", AFTER)], Proceed),
            (&[("If-None-Match", hit), ("If-Modified-Since", BEFORE)], NotModified),
        ];
        for (fields, want) in rows {
            assert_eq!(decide(fields), *want, "{fields:?}");
        }
    }

    #[test]
    fn tags_are_compared_weakly_for_none_match_and_strongly_for_match() {
        assert_eq!(decide(&[("If-None-Match", "W/\"a,1\"")]), Decision::NotModified);
        assert_eq!(decide(&[("If-Match", "W/\"a,1\"")]), Decision::Failed);
        assert_eq!(decide(&[("If-None-Match", "w/\"a,1\"")]), Decision::Proceed);
    }

    #[test]
    fn a_list_of_tags_is_read_whole_over_several_lines() {
        for value in ["\"x\", \"a,1\"", "\"x\",\"a,1\" , \"y\"", ", ,\"a,1\"", "*", "W/\"x\", W/\"a,1\""] {
            assert_eq!(decide(&[("If-None-Match", value)]), Decision::NotModified, "{value}");
        }
        assert_eq!(decide(&[("if-none-match", "\"x\""), ("IF-NONE-MATCH", TAG)]), Decision::NotModified);
        assert_eq!(decide(&[("If-Match", "*")]), Decision::Proceed);
        for value in ["", "a,1", "\"a", "\"a\",1\"", "\"x\" *", "*, \"x\"", "\"a,1", "W/", "x, \"a,1\""] {
            assert_eq!(decide(&[("If-None-Match", value)]), Decision::Proceed, "{value}");
            assert_eq!(decide(&[("If-Match", value)]), Decision::Failed, "{value}");
        }
    }

    #[test]
    fn a_date_that_is_none_is_passed_over() {
        for value in ["", "now", "Sun, 06 Nov 1994", "784111777", "1994-11-06T08:49:37Z"] {
            assert_eq!(decide(&[("If-Modified-Since", value)]), Decision::Proceed, "{value}");
            assert_eq!(decide(&[("If-Unmodified-Since", value)]), Decision::Proceed, "{value}");
        }
        assert_eq!(decide(&[("If-Modified-Since", SAME), ("If-Modified-Since", SAME)]), Decision::Proceed);
        for value in ["Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(decide(&[("If-Modified-Since", value)]), Decision::NotModified, "{value}");
        }
    }

    #[test]
    fn if_range_takes_a_strong_tag_or_our_very_date() {
        let later = || current().modified + Duration::from_secs(60);
        let range = |fields: &[(&str, &str)], now: fn() -> SystemTime| {
            Conditions::of(&head("GET", "/", fields)).range(current(), now).map(<[u8]>::to_vec)
        };
        for (value, applies) in [
            (TAG, true),
            ("\"b\"", false),
            ("W/\"a,1\"", false),
            ("*", false),
            (SAME, true),
            (BEFORE, false),
            (AFTER, false),
            ("nonsense", false),
            ("", false),
        ] {
            let got = range(&[("Range", "bytes=0-1"), ("If-Range", value)], later);
            assert_eq!(got.is_some(), applies, "{value}");
        }
        assert_eq!(range(&[("Range", "bytes=0-1"), ("If-Range", SAME)], || current().modified), None);
        assert_eq!(range(&[("If-Range", TAG)], later), None);
        assert_eq!(range(&[("Range", "bytes=0-1")], later).as_deref(), Some(&b"bytes=0-1"[..]));
        assert_eq!(range(&[("Range", "bytes=0-1"), ("Range", "bytes=2-3")], later), None);
    }

    #[test]
    fn last_modified_is_never_in_the_future_and_has_no_fraction() {
        let now = UNIX_EPOCH + Duration::from_millis(10_500);
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        assert_eq!(last_modified(at(9_900), now), at(9_000));
        assert_eq!(last_modified(at(99_000), now), at(10_000));
        assert_eq!(last_modified(UNIX_EPOCH - Duration::from_secs(5), now), at(0));
    }
}
