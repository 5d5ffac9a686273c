//! Content codings: which variant of a file a client gets (RFC 9110, section 12.5.3).
//!
//! Bytes only, no I/O.

/// A coding that files are found precompressed in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Coding {
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstandard,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// All of them; where two variants have one length, the first is sent.
    pub(super) const ALL: [Self; 3] = [Self::Brotli, Self::Zstandard, Self::Gzip];

    /// As it stands in `Content-Encoding`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstandard => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// What stands behind the name of the file that holds the variant.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Brotli => ".br",
            Self::Zstandard => ".zst",
            Self::Gzip => ".gz",
        }
    }

    fn is_called(self, name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(self.name().as_bytes())
            // An old name that still means the same (RFC 9110, section 8.4.1.3).
            || (self == Self::Gzip && name.eq_ignore_ascii_case(b"x-gzip"))
    }
}

/// What a client takes, in thousandths; 0 is never.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Accepted {
    codings: [u16; 3],
    identity: Option<u16>,
}

impl Accepted {
    /// What these lines of `Accept-Encoding` say. Without any, everything is acceptable, but nothing coded was asked
    /// for: the file as it is.
    pub(super) fn read<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut codings = [None; 3];
        let (mut identity, mut any) = (None, None);
        for member in lines.flat_map(|line| line.split(|&byte| byte == b',')) {
            let mut parts = member.split(|&byte| byte == b';');
            let name = parts.next().unwrap_or_default().trim_ascii();
            let Some(weight) = weight(parts) else { continue };
            if name == b"*" {
                any = Some(weight);
            } else if name.eq_ignore_ascii_case(b"identity") {
                identity = Some(weight);
            } else if let Some(place) = Coding::ALL.iter().position(|coding| coding.is_called(name)) {
                codings[place] = Some(weight);
            }
        }
        // `*` stands for those that are not named; one that forbids them forbids the file as it is too.
        let identity = identity.or(any.filter(|&any| any == 0));
        Self { codings: codings.map(|coding| coding.or(any).unwrap_or(0)), identity }
    }

    /// How much this coding is wanted.
    pub(super) fn weight(self, coding: Coding) -> u16 {
        Coding::ALL.iter().position(|other| *other == coding).map_or(0, |place| self.codings[place])
    }

    /// Whether the file as it is comes before what is wanted `weight` thousandths. Where nobody says how much it is
    /// wanted, it comes after all that is named.
    pub(super) fn prefers_identity(self, weight: u16) -> bool {
        self.identity.is_some_and(|identity| identity > weight)
    }
}

/// The weight of a member: 1 where there is none; `None` for one that is not a weight (RFC 9110, section 12.4.2).
fn weight<'a>(parameters: impl Iterator<Item = &'a [u8]>) -> Option<u16> {
    let mut weight = 1000;
    for parameter in parameters {
        let parameter = parameter.trim_ascii();
        let value = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q="))?;
        let digits = match value {
            [b'0' | b'1'] | [b'0' | b'1', b'.'] => &[][..],
            [b'0' | b'1', b'.', digits @ ..] if digits.len() <= 3 => digits,
            _ => return None,
        };
        let mut thousandths = u16::from(value[0] - b'0') * 1000;
        for (place, digit) in [100, 10, 1].iter().zip(digits) {
            thousandths += place * u16::from(digit.is_ascii_digit().then(|| digit - b'0')?);
        }
        weight = if thousandths <= 1000 { thousandths } else { return None };
    }
    Some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The weights of br, zstd, gzip, and what the file as it is comes before.
    fn read(value: &str) -> ([u16; 3], Option<u16>) {
        let accepted = Accepted::read(std::iter::once(value.as_bytes()));
        (accepted.codings, accepted.identity)
    }

    #[test]
    fn weights_and_stars_are_read_as_rfc_9110_says() {
        for (value, want) in [
            ("", ([0, 0, 0], None)),
            ("gzip", ([0, 0, 1000], None)),
            ("gzip, deflate, br, zstd", ([1000, 1000, 1000], None)),
            ("GZIP;q=0.5 , br ; q=0.25", ([250, 0, 500], None)),
            ("x-gzip", ([0, 0, 1000], None)),
            ("*", ([1000, 1000, 1000], None)),
            ("br;q=0, *;q=0.1", ([0, 100, 100], None)),
            ("gzip, *;q=0", ([0, 0, 1000], Some(0))),
            ("identity;q=1, *;q=0", ([0, 0, 0], Some(1000))),
            ("identity;q=0.5, gzip;q=1.000", ([0, 0, 1000], Some(500))),
            ("gzip;q=0.001", ([0, 0, 1], None)),
            ("gzip;q=", ([0, 0, 0], None)),
            ("gzip;q=1.001", ([0, 0, 0], None)),
            ("gzip;q=0.1234", ([0, 0, 0], None)),
            ("gzip;q=0.x", ([0, 0, 0], None)),
            ("gzip;q=2", ([0, 0, 0], None)),
            ("gzip;q=-1", ([0, 0, 0], None)),
            ("gzip;level=9", ([0, 0, 0], None)),
            ("gzipped, br2", ([0, 0, 0], None)),
        ] {
            assert_eq!(read(value), want, "{value}");
        }
    }

    #[test]
    fn the_file_as_it_is_comes_first_only_where_that_is_said() {
        let accepted = |value: &str| Accepted::read(std::iter::once(value.as_bytes()));
        assert!(!accepted("gzip;q=0.1").prefers_identity(100));
        assert!(accepted("gzip;q=0.1, identity").prefers_identity(100));
        assert!(!accepted("gzip, identity").prefers_identity(1000), "the smaller of two that are wanted alike");
        assert_eq!(accepted("gzip;q=0.1").weight(Coding::Gzip), 100);
    }
}
