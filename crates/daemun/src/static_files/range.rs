//! The `Range` of a request against the length of a file (RFC 9110, section 14).
//!
//! Bytes only, no I/O. All arithmetic saturates at `u64::MAX`: a position beyond 2^64 is beyond every file, and never
//! wraps round to one inside (CVE-2017-7529). Ranges that overlap or touch become one, so that no list of them
//! can turn into more bytes than the file has (CVE-2011-3192); too many, or many small ones whose framing would cost more
//! than the file, are answered with all of it, which RFC 9110, section 14.2 allows.

/// Ranges that are followed. Readers of PDF files ask for a dozen at a time; Apache's limit is 200.
const MOST: usize = 64;

/// Bytes of a part's own fields in a multipart body, about.
const FRAMING: u64 = 120;

/// What a `Range` asks of a file of a known length.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Selected {
    /// All of it: there is no range that we follow.
    Whole,
    /// These bytes.
    Part(Part),
    /// Several parts, in the order in which they were asked for, no byte in two of them.
    Parts(Vec<Part>),
    /// Every range lies outside: 416.
    Unsatisfiable,
}

/// Some bytes of a file: at least one, all of them inside it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Part {
    /// First byte.
    pub(super) first: u64,
    /// Number of bytes.
    pub(super) length: u64,
}

/// The part of a file of `length` bytes that the value of a `Range` field selects. A value that breaks the grammar and
/// an unknown unit select all of it.
pub(super) fn select(value: &[u8], length: u64) -> Selected {
    // No `Content-Range` can name a part of an empty file; nginx and Apache send it whole too, and whoever resumes a
    // download of nothing is content.
    if length == 0 {
        return Selected::Whole;
    }
    let Some(specs) = specs(value) else { return Selected::Whole };
    let mut parts: Vec<Part> = Vec::new();
    for spec in &specs {
        if let Some(part) = spec.within(length) {
            add(&mut parts, part);
        }
    }
    match parts[..] {
        [] => Selected::Unsatisfiable,
        [part] => Selected::Part(part),
        _ => {
            let framing = FRAMING.saturating_mul(parts.len() as u64);
            let bytes = parts.iter().fold(framing, |sum, part| sum.saturating_add(part.length));
            if bytes > length.saturating_mul(2) { Selected::Whole } else { Selected::Parts(parts) }
        }
    }
}

/// Adds a part. Those that it overlaps or touches become one with it (RFC 9110, section 15.3.7.2), at the place of the first of them.
fn add(parts: &mut Vec<Part>, part: Part) {
    let end = |part: &Part| part.first + part.length;
    let mut wide = part;
    let mut place = parts.len();
    let near = |one: &Part, other: &Part| one.first <= end(other);
    while let Some(found) = parts.iter().position(|other| near(&wide, other) && near(other, &wide)) {
        let other = parts.remove(found);
        place = place.min(found);
        let first = wide.first.min(other.first);
        wide = Part { first, length: end(&wide).max(end(&other)) - first };
    }
    parts.insert(place.min(parts.len()), wide);
}

/// One range, not yet seen against a length.
#[derive(Clone, Copy)]
enum Spec {
    From { first: u64, last: u64 },
    Last(u64),
}

impl Spec {
    /// What it selects of so many bytes; `None` where it lies outside.
    fn within(self, length: u64) -> Option<Part> {
        match self {
            Self::From { first, .. } if first >= length => None,
            Self::From { first, last } => Some(Part { first, length: last.min(length - 1) - first + 1 }),
            Self::Last(0) => None,
            Self::Last(wanted) => {
                let wanted = wanted.min(length);
                Some(Part { first: length - wanted, length: wanted })
            }
        }
    }
}

/// The ranges of the value; `None` where there is none, another unit, one that breaks the grammar or too many.
fn specs(value: &[u8]) -> Option<Vec<Spec>> {
    let (unit, set) = value.split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let mut specs = Vec::new();
    // Empty members of a list are passed over (RFC 9110, section 5.6.1.2).
    for member in set.split(|&byte| byte == b',').map(trim).filter(|member| !member.is_empty()) {
        if specs.len() == MOST {
            return None;
        }
        specs.push(spec(member)?);
    }
    (!specs.is_empty()).then_some(specs)
}

fn spec(member: &[u8]) -> Option<Spec> {
    let dash = member.iter().position(|&byte| byte == b'-')?;
    let (first, last) = (&member[..dash], &member[dash + 1..]);
    match (first.is_empty(), last.is_empty()) {
        (true, true) => None,
        (true, false) => Some(Spec::Last(number(last)?)),
        (false, true) => Some(Spec::From { first: number(first)?, last: u64::MAX }),
        (false, false) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Spec::From { first, last })
        }
    }
}

/// `1*DIGIT`; what does not fit is as good as the greatest number.
fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |value, &digit| {
        digit.is_ascii_digit().then(|| value.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
    })
}

fn trim(member: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = member.iter().position(|byte| !is_space(byte)).unwrap_or(member.len());
    let end = member.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    &member[start..end]
}

#[cfg(test)]
mod tests {
    use super::super::tests::Random;
    use super::*;

    fn part(first: u64, length: u64) -> Selected {
        Selected::Part(Part { first, length })
    }

    #[test]
    fn a_single_range_selects_what_rfc_9110_says() {
        for (value, want) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-4", part(0, 5)),
            ("BYTES=2-2", part(2, 1)),
            ("bytes=5-", part(5, 5)),
            ("bytes=9-", part(9, 1)),
            ("bytes=0-", part(0, 10)),
            ("bytes=-3", part(7, 3)),
            ("bytes=-10", part(0, 10)),
            ("bytes=-99", part(0, 10)),
            ("bytes=4-99", part(4, 6)),
            ("bytes=,4-5, ", part(4, 2)),
            ("bytes=10-", Selected::Unsatisfiable),
            ("bytes=10-20", Selected::Unsatisfiable),
            ("bytes=-0", Selected::Unsatisfiable),
        ] {
            assert_eq!(select(value.as_bytes(), 10), want, "{value}");
        }
    }

    #[test]
    fn a_range_that_breaks_the_grammar_is_passed_over() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=,",
            "bytes 0-4",
            "bytes =0-4",
            "bytes=4-2",
            "bytes=a-b",
            "bytes=0x1-2",
            "bytes=+1-2",
            "bytes=0 - 4",
            "bytes=0-4-5",
            "bytes=--4",
            "lines=0-4",
            "bytes=1-2;3-4",
            "bytes=\u{661}-",
            "bytes=0-4 x",
        ] {
            assert_eq!(select(value.as_bytes(), 10), Selected::Whole, "{value}");
        }
    }

    fn parts(ranges: &[(u64, u64)]) -> Selected {
        Selected::Parts(ranges.iter().map(|&(first, length)| Part { first, length }).collect())
    }

    #[test]
    fn several_ranges_keep_their_order_and_none_is_sent_twice() {
        for (value, want) in [
            ("bytes=0-9,1000-1009", parts(&[(0, 10), (1000, 10)])),
            ("bytes=1000-1009, 0-9", parts(&[(1000, 10), (0, 10)])),
            ("bytes=0-9,5000-,-10", parts(&[(0, 10), (5000, 5000)])),
            ("bytes=0-9,20000-,99999-", part(0, 10)),
            ("bytes=0-9,5-19,20-29", part(0, 30)),
            ("bytes=0-,0-,0-", part(0, 10_000)),
            ("bytes=-1,-2,-3", part(9997, 3)),
            ("bytes=0-9,2000-2009,5-2004", part(0, 2010)),
            ("bytes=3000-3009,0-9,5000-5009,2500-3005", parts(&[(2500, 510), (0, 10), (5000, 10)])),
            ("bytes=0-9,10-19", part(0, 20)),
            ("bytes=0-9,11-19", parts(&[(0, 10), (11, 9)])),
            ("bytes=20000-,30000-", Selected::Unsatisfiable),
            ("bytes=0-9,a-b", Selected::Whole),
        ] {
            assert_eq!(select(value.as_bytes(), 10_000), want, "{value}");
        }
    }

    #[test]
    fn too_many_ranges_and_those_that_cost_more_than_twice_the_file_select_all_of_it() {
        let many = |count: u64, step: u64| {
            let specs: Vec<String> = (0..count).map(|number| format!("{0}-{0}", number * step)).collect();
            format!("bytes={}", specs.join(","))
        };
        assert_eq!(select(many(65, 1000).as_bytes(), 1_000_000), Selected::Whole);
        assert!(matches!(select(many(64, 1000).as_bytes(), 1_000_000), Selected::Parts(parts) if parts.len() == 64));
        assert_eq!(select(b"bytes=0-0,119-119", 120), Selected::Whole, "242 bytes for a file of 120");
    }

    #[test]
    fn an_empty_file_has_no_part() {
        for value in [&b"bytes=0-"[..], b"bytes=0-0", b"bytes=-0", b"bytes=-1", b"bytes=0-0,1-1"] {
            assert_eq!(select(value, 0), Selected::Whole, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn positions_beyond_64_bits_never_wrap() {
        let huge = "184467440737095516160";
        assert_eq!(select(format!("bytes=0-{huge}").as_bytes(), 10), part(0, 10));
        assert_eq!(select(format!("bytes=-{huge}").as_bytes(), 10), part(0, 10));
        assert_eq!(select(format!("bytes={huge}-").as_bytes(), 10), Selected::Unsatisfiable);
        assert_eq!(select(format!("bytes={huge}-{huge}").as_bytes(), u64::MAX), Selected::Unsatisfiable);
        assert_eq!(select(b"bytes=18446744073709551614-", u64::MAX), part(u64::MAX - 1, 1));
        assert_eq!(select(b"bytes=0-18446744073709551615", u64::MAX), part(0, u64::MAX));
    }

    #[test]
    fn random_ranges_never_exceed_the_file() {
        let mut random = Random::new("static_files::range");
        let alphabet = b"0123456789--==,, bytes\t9";
        for _ in 0..20_000 {
            let mut value = if random.below(4) == 0 { Vec::new() } else { b"bytes=".to_vec() };
            for _ in 0..random.below(24) {
                value.push(alphabet[random.below(alphabet.len() as u64) as usize]);
            }
            let length = match random.below(4) {
                0 => 0,
                1 => random.below(20),
                2 => u64::MAX - random.below(3),
                _ => random.next(),
            };
            let parts = match select(&value, length) {
                Selected::Part(part) => vec![part],
                Selected::Parts(parts) => parts,
                Selected::Whole | Selected::Unsatisfiable => continue,
            };
            let mut sum = 0_u64;
            for part in &parts {
                assert!(part.length >= 1, "{} of {length}", value.escape_ascii());
                let end = part.first.checked_add(part.length).expect("a part ends before 2^64");
                assert!(end <= length, "{} of {length}", value.escape_ascii());
                sum = sum.saturating_add(part.length);
                let others = parts.iter().filter(|other| *other != part);
                let mut others = others.filter(|other| other.first < end && part.first < other.first + other.length);
                assert_eq!(others.next(), None, "{} of {length}", value.escape_ascii());
            }
            assert!(sum <= length, "{} of {length}", value.escape_ascii());
        }
    }
}
