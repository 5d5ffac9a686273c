//! The `Range` of a request against the length of a file (RFC 9110, section 14).
//!
//! Bytes only, no I/O. All arithmetic saturates at `u64::MAX`: a position beyond 2^64 is beyond every file, and never
//! wraps round to one inside (CVE-2017-7529). Several ranges are answered with the whole file, which RFC 9110, section
//! 14.2 allows and which no list of ranges can turn into more bytes than the file has (CVE-2011-3192).

/// What a `Range` asks of a file of a known length.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Selected {
    /// All of it: there is no range that we follow.
    Whole,
    /// These bytes: at least one, all of them inside the file.
    Part {
        /// First byte.
        first: u64,
        /// Number of bytes.
        length: u64,
    },
    /// The range lies outside: 416.
    Unsatisfiable,
}

/// The part of a file of `length` bytes that the value of a `Range` field selects. A value that breaks the grammar, an
/// unknown unit and several ranges select all of it.
pub(super) fn select(value: &[u8], length: u64) -> Selected {
    match single(value) {
        Some(Spec::From { first, last }) => {
            if first >= length {
                return Selected::Unsatisfiable;
            }
            Selected::Part { first, length: last.min(length - 1) - first + 1 }
        }
        Some(Spec::Last(0)) => Selected::Unsatisfiable,
        Some(Spec::Last(wanted)) if length > 0 => {
            let wanted = wanted.min(length);
            Selected::Part { first: length - wanted, length: wanted }
        }
        // The last bytes of an empty file are satisfiable by the letter (section 14.1.2), but no `Content-Range` can
        // say so.
        Some(Spec::Last(_)) | None => Selected::Whole,
    }
}

/// One range, not yet seen against a length.
#[derive(Clone, Copy)]
enum Spec {
    From { first: u64, last: u64 },
    Last(u64),
}

/// The only range of the value; `None` where there is none, another unit or more than one.
fn single(value: &[u8]) -> Option<Spec> {
    let (unit, set) = value.split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    // Empty members of a list are passed over (RFC 9110, section 5.6.1.2).
    let mut members = set.split(|&byte| byte == b',').map(trim).filter(|member| !member.is_empty());
    let only = members.next()?;
    if members.next().is_some() {
        return None;
    }
    let dash = only.iter().position(|&byte| byte == b'-')?;
    let (first, last) = (&only[..dash], &only[dash + 1..]);
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
        Selected::Part { first, length }
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

    #[test]
    fn several_ranges_are_answered_with_the_whole_file() {
        for value in ["bytes=0-1,3-4", "bytes=0-,0-,0-", "bytes=-1,-1", "bytes=90-,91-"] {
            assert_eq!(select(value.as_bytes(), 10), Selected::Whole, "{value}");
        }
    }

    #[test]
    fn an_empty_file_has_no_part() {
        assert_eq!(select(b"bytes=0-", 0), Selected::Unsatisfiable);
        assert_eq!(select(b"bytes=0-0", 0), Selected::Unsatisfiable);
        assert_eq!(select(b"bytes=-0", 0), Selected::Unsatisfiable);
        assert_eq!(select(b"bytes=-1", 0), Selected::Whole);
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
            if let Selected::Part { first, length: part } = select(&value, length) {
                assert!(part >= 1, "{} of {length}", value.escape_ascii());
                let end = first.checked_add(part).expect("a part ends before 2^64");
                assert!(end <= length, "{} of {length}", value.escape_ascii());
            }
        }
    }
}
