//! The PROXY protocol (versions 1 and 2): who the client of a balancer is, before the first byte of HTTP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes that decide which version it is.
pub const SIGNATURE: usize = 12;

/// What the second version begins with.
const BINARY: &[u8; SIGNATURE] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of a line of the first version, its end included (section 2.1).
pub const LONGEST_LINE: usize = 107;

/// Bytes behind the addresses that we take: names and certificates, far below the 64 KiB that could be announced.
const LONGEST_REST: usize = 4096;

/// What a header says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Told {
    /// The client and the address that it reached; `None` where the balancer speaks for itself (a health check) or does
    /// not know.
    pub ends: Option<(SocketAddr, SocketAddr)>,
    /// Whether the client speaks TLS with the balancer.
    pub is_secure: bool,
}

/// How a header goes on after its first [`SIGNATURE`] bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// A line.
    Line,
    /// Four more bytes, then as many as they say ([`rest_length`]).
    Binary,
}

/// Why something is no header.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a PROXY header was expected: {0}")]
pub struct NoHeader(pub &'static str);

/// Which version begins with these bytes.
pub fn version(first: &[u8; SIGNATURE]) -> Result<Version, NoHeader> {
    match first {
        BINARY => Ok(Version::Binary),
        line if line.starts_with(b"PROXY ") => Ok(Version::Line),
        _ => Err(NoHeader("something else came")),
    }
}

/// Reads a whole line of the first version, its end included.
pub fn parse_line(line: &[u8]) -> Result<Told, NoHeader> {
    let wrong = NoHeader("the line is malformed");
    let line = line.strip_suffix(b"\r\n").filter(|line| line.len() + 2 <= LONGEST_LINE).ok_or(wrong)?;
    let line = std::str::from_utf8(line).map_err(|_| wrong)?;
    let words: Vec<&str> = line.split(' ').collect();
    let port = |text: &str| {
        let plain = !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| plain && (text == "0" || !text.starts_with('0')))
    };
    match words[..] {
        ["PROXY", "UNKNOWN", ..] => Ok(Told::default()),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, target, source_port, target_port] => {
            let ip = |text: &str| match family {
                "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
                _ => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            };
            let end = |address: &str, number: &str| Some(SocketAddr::new(ip(address)?, port(number)?));
            let ends = end(source, source_port).zip(end(target, target_port)).ok_or(wrong)?;
            Ok(Told { ends: Some(ends), is_secure: false })
        }
        _ => Err(wrong),
    }
}

/// Bytes that follow the four bytes behind the signature of the second version.
pub fn rest_length(fixed: [u8; 4]) -> Result<usize, NoHeader> {
    if fixed[0] >> 4 != 2 {
        return Err(NoHeader("its version is not 2"));
    }
    let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if length > LONGEST_REST { Err(NoHeader("it is too long")) } else { Ok(length) }
}

/// Reads the second version behind its signature: the four bytes, and the rest.
pub fn parse_binary(fixed: [u8; 4], rest: &[u8]) -> Result<Told, NoHeader> {
    match fixed[0] & 0xf {
        0 => return Ok(Told::default()),
        1 => {}
        _ => return Err(NoHeader("its command is unknown")),
    }
    let short = NoHeader("its addresses are cut");
    let port = |at: usize| Some(u16::from_be_bytes(rest.get(at..at + 2)?.try_into().ok()?));
    let (ends, length) = match fixed[1] {
        0x11 => {
            let ip = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(rest.get(at..at + 4)?).ok()?));
            let end = |ip_at, port_at| Some(SocketAddr::new(ip(ip_at)?, port(port_at)?));
            (Some(end(0, 8).zip(end(4, 10)).ok_or(short)?), 12)
        }
        0x21 => {
            let ip = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(rest.get(at..at + 16)?).ok()?));
            let end = |ip_at, port_at| Some(SocketAddr::new(ip(ip_at)?, port(port_at)?));
            (Some(end(0, 32).zip(end(16, 34)).ok_or(short)?), 36)
        }
        // Other families: nothing that we could use, and nothing wrong.
        _ => return Ok(Told::default()),
    };
    Ok(Told { ends, is_secure: is_secure(&rest[length..]) })
}

/// Whether one of the values says that the client came over TLS (`PP2_TYPE_SSL`, `PP2_CLIENT_SSL`).
fn is_secure(mut values: &[u8]) -> bool {
    while let [kind, high, low, rest @ ..] = values {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(value) = rest.get(..length) else { return false };
        if *kind == 0x20 {
            return value.first().is_some_and(|flags| flags & 1 != 0);
        }
        values = &rest[length..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(told: Result<Told, NoHeader>) -> Option<String> {
        told.ok()?.ends.map(|(client, server)| format!("{client} {server}"))
    }

    #[test]
    fn lines_say_who_the_client_is() {
        let told = |line: &str| ends(parse_line(line.as_bytes()));
        assert_eq!(told("PROXY TCP4 192.0.2.1 192.0.2.9 5000 80\r\n").unwrap(), "192.0.2.1:5000 192.0.2.9:80");
        assert_eq!(told("PROXY TCP6 2001:db8::1 ::1 65535 0\r\n").unwrap(), "[2001:db8::1]:65535 [::1]:0");
        assert_eq!(parse_line(b"PROXY UNKNOWN ffff::1 x 1 2\r\n"), Ok(Told::default()));
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(200));
        for line in [
            "PROXY TCP4 192.0.2.1 192.0.2.9 5000 80\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 5000 80 \r\n",
            "PROXY TCP4 2001:db8::1 192.0.2.9 5000 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 05000 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 +500 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 65536 80\r\n",
            "PROXY  TCP4 192.0.2.1 192.0.2.9 5000 80\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.9 5000 80\r\n",
            "PROXY\r\n",
            &long,
        ] {
            assert!(parse_line(line.as_bytes()).is_err(), "{line:?}");
        }
    }

    #[test]
    fn the_binary_form_says_the_same_and_whether_it_was_tls() {
        let mut rest = vec![192, 0, 2, 1, 192, 0, 2, 9, 0x13, 0x88, 0, 80];
        assert_eq!(ends(parse_binary([0x21, 0x11, 0, 12], &rest)).unwrap(), "192.0.2.1:5000 192.0.2.9:80");
        // An empty value, then PP2_TYPE_SSL with PP2_CLIENT_SSL.
        rest.extend([4, 0, 0, 0x20, 0, 5, 1, 0, 0, 0, 0]);
        assert!(parse_binary([0x21, 0x11, 0, 23], &rest).unwrap().is_secure);
        assert!(!parse_binary([0x21, 0x11, 0, 23], &rest[..18]).unwrap().is_secure);
        let six = [&[0x20; 16][..], &[0x30; 16], &[0, 1, 0, 2]].concat();
        assert_eq!(ends(parse_binary([0x21, 0x21, 0, 36], &six)).unwrap().matches("]:").count(), 2);
        assert_eq!(parse_binary([0x20, 0, 0, 0], b""), Ok(Told::default()));
        assert_eq!(parse_binary([0x21, 0x31, 0, 0], b""), Ok(Told::default()));
        assert!(parse_binary([0x21, 0x11, 0, 11], &rest[..11]).is_err());
        assert!(parse_binary([0x22, 0x11, 0, 12], &rest).is_err());
        assert!(rest_length([0x11, 0x11, 0, 12]).is_err() && rest_length([0x21, 0x11, 0xff, 0xff]).is_err());
    }

    #[test]
    fn what_begins_otherwise_is_no_header() {
        assert_eq!(version(BINARY), Ok(Version::Binary));
        assert_eq!(version(b"PROXY TCP4 1"), Ok(Version::Line));
        assert!(version(b"GET / HTTP/1").is_err());
        assert!(version(b"proxy TCP4 1").is_err());
    }

    #[test]
    fn no_bytes_make_it_panic() {
        // xorshift, seeded: a failure prints the round.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..round % 80 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                bytes.push(state as u8);
            }
            let _ = parse_line(&bytes);
            for family in [0x11, 0x21, 0x31] {
                let _ = parse_binary([0x21, family, 0, 0], &bytes);
            }
        }
    }
}
