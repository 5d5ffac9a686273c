//! Content codings and what a client takes (RFC 9110, sections 8.4 and 12.5.3).

use serde::{Deserialize, Serialize};

use super::RequestHead;

/// A content coding that we can make.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Coding {
    /// `zstd` (RFC 8878).
    Zstd,
    /// `br` (RFC 7932).
    Brotli,
    /// `gzip` (RFC 1952).
    Gzip,
}

impl Coding {
    /// As it stands in `Content-Encoding`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// The coding of `offered` that the client likes best; of those that it likes as well the first. `None` where it
    /// takes none of them, or would rather have none.
    pub fn negotiate(head: &RequestHead, offered: &[Self]) -> Option<Self> {
        let mut best: Option<(u16, Self)> = None;
        let identity = weight(head, "identity").unwrap_or(0);
        for &coding in offered {
            let weight = match coding {
                Self::Gzip => weight(head, "gzip").or_else(|| weight(head, "x-gzip")),
                _ => weight(head, coding.as_str()),
            };
            let weight = weight.or_else(|| self::weight(head, "*")).unwrap_or(0);
            if weight > 0 && weight >= identity && best.is_none_or(|(known, _)| weight > known) {
                best = Some((weight, coding));
            }
        }
        best.map(|(_, coding)| coding)
    }
}

/// The weight of a coding in thousandths, where `Accept-Encoding` names it.
fn weight(head: &RequestHead, coding: &str) -> Option<u16> {
    for item in head.field_values("accept-encoding").flat_map(|line| line.split(|&byte| byte == b',')) {
        let mut parts = item.split(|&byte| byte == b';');
        if !parts.next().unwrap_or_default().trim_ascii().eq_ignore_ascii_case(coding.as_bytes()) {
            continue;
        }
        let quality = parts.find_map(|part| {
            let part = part.trim_ascii();
            part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q="))
        });
        return Some(quality.map_or(1000, thousandths));
    }
    None
}

/// `0.5` as 500; what is no weight as 0.
fn thousandths(text: &[u8]) -> u16 {
    let value: Option<f32> = std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok());
    value.filter(|value| (0.0..=1.0).contains(value)).map_or(0, |value| (value * 1000.0) as u16)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::http::h1::{HeadLimits, parse_head};

    fn chosen(accept: &str) -> Option<&'static str> {
        const LIMITS: HeadLimits = HeadLimits { max_head: 65_536, max_request_line: 16_384, max_fields: 100 };
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{accept}\r\n");
        let head = parse_head(&Bytes::from(head), &LIMITS).unwrap().head;
        Coding::negotiate(&head, &[Coding::Zstd, Coding::Brotli, Coding::Gzip]).map(Coding::as_str)
    }

    #[test]
    fn the_best_coding_that_a_client_takes_is_chosen() {
        for (accept, want) in [
            ("", None),
            ("Accept-Encoding: \r\n", None),
            ("Accept-Encoding: gzip, deflate, br, zstd\r\n", Some("zstd")),
            ("Accept-Encoding: gzip, deflate, br\r\n", Some("br")),
            ("Accept-Encoding: gzip\r\nAccept-Encoding: br\r\n", Some("br")),
            ("Accept-Encoding: GZIP;q=1.0, br;q=0.5\r\n", Some("gzip")),
            ("Accept-Encoding: x-gzip\r\n", Some("gzip")),
            ("Accept-Encoding: br;q=0, gzip\r\n", Some("gzip")),
            ("Accept-Encoding: *\r\n", Some("zstd")),
            ("Accept-Encoding: *;q=0\r\n", None),
            ("Accept-Encoding: identity;q=1, gzip;q=0.5\r\n", None),
            ("Accept-Encoding: gzip;q=x\r\n", None),
            ("Accept-Encoding: deflate\r\n", None),
        ] {
            assert_eq!(chosen(accept), want, "{accept}");
        }
    }
}
