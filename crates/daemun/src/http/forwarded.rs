//! `Forwarded` (RFC 7239): what each proxy says of the request that it got.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::fields::is_token;
use super::h1::is_authority;
use super::{RequestHead, Scheme};

/// What one proxy says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Hop<'a> {
    /// From whom it got the request; `None` where it does not know or does not tell (section 6).
    pub(super) client: Option<IpAddr>,
    /// How.
    pub(super) scheme: Option<Scheme>,
    /// Which host was asked for.
    pub(super) host: Option<&'a [u8]>,
}

/// What proxies say, the nearest first. `None` stands for what has no reading, and nothing before it counts.
///
/// The fields are read from their end: the nearest proxy wrote that, and whatever a client wrote before it, a quote that
/// it left open included, cannot change how it reads.
pub(super) fn hops(head: &RequestHead) -> impl Iterator<Item = Option<Hop<'_>>> {
    let lines: Vec<&[u8]> = head.field_values("forwarded").collect();
    lines.into_iter().rev().flat_map(elements).filter(|element| *element != Some(b"")).map(|element| hop(element?))
}

/// The elements of a line, from its last; `None` for one with a quote that does not begin.
fn elements(line: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut end = Some(line.len());
    std::iter::from_fn(move || {
        let until = end?;
        let mut is_quoted = false;
        for at in (0..until).rev() {
            match line[at] {
                b'"' if !is_escaped(line, at) => is_quoted = !is_quoted,
                b',' if !is_quoted => {
                    end = Some(at);
                    return Some(Some(line[at + 1..until].trim_ascii()));
                }
                _ => {}
            }
        }
        end = None;
        Some((!is_quoted).then(|| line[..until].trim_ascii()))
    })
}

/// Whether a backslash makes this quote a part of its string: an odd number of them stands before it.
fn is_escaped(line: &[u8], at: usize) -> bool {
    line[..at].iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1
}

/// `[ forwarded-pair ] *( ";" [ forwarded-pair ] )` (section 4), each parameter at most once.
fn hop(mut rest: &[u8]) -> Option<Hop<'_>> {
    let (mut hop, mut seen) = (Hop::default(), [false; 3]);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(b";") {
            rest = after.trim_ascii_start();
            continue;
        }
        let length = rest.iter().position(|&byte| !is_token(byte))?;
        let (name, after) = rest.split_at(length);
        let (value, after) = value(after.strip_prefix(b"=")?)?;
        rest = after.trim_ascii_start();
        if name.is_empty() || !(rest.is_empty() || rest.starts_with(b";")) {
            return None;
        }
        let known = [&b"for"[..], b"proto", b"host"].iter().position(|known| name.eq_ignore_ascii_case(known));
        match known {
            Some(number) if std::mem::replace(&mut seen[number], true) => return None,
            Some(0) => hop.client = node(value),
            Some(1) => hop.scheme = Scheme::named(value),
            Some(_) => hop.host = Some(value).filter(|host| is_authority(host)),
            None => {}
        }
    }
    Some(hop)
}

/// A token or a quoted string, and what follows. Escapes stay as they are: in none of the values that we read is one.
fn value(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let length = text.iter().position(|&byte| !is_token(byte)).unwrap_or(text.len());
        return (length > 0).then(|| text.split_at(length));
    };
    let end = (0..quoted.len()).find(|&at| quoted[at] == b'"' && !is_escaped(quoted, at))?;
    Some((&quoted[..end], &quoted[end + 1..]))
}

/// An address, perhaps with a port, which may be hidden (section 6). IPv6 stands in brackets.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Some(inner) = text.strip_prefix('[') {
        let (address, port) = inner.split_once(']')?;
        let is_whole = port.is_empty() || port.starts_with(':');
        return address.parse::<Ipv6Addr>().ok().filter(|_| is_whole).map(|address| IpAddr::V6(address).to_canonical());
    }
    let address = text.split_once(':').map_or(text, |(address, _)| address);
    address.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::http::h1::{HeadLimits, parse_head};

    fn told(lines: &[&str]) -> Vec<String> {
        let lines = lines.iter().map(|line| format!("Forwarded: {line}\r\n")).collect::<Vec<_>>().concat();
        let bytes = Bytes::from(format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
        let limits = HeadLimits { max_head: 8192, max_request_line: 8192, max_fields: 100 };
        let head = parse_head(&bytes, &limits).unwrap().head;
        let text = |hop: Hop<'_>| {
            let client = hop.client.map_or("?".to_owned(), |client| client.to_string());
            let host = hop.host.map_or("?".into(), String::from_utf8_lossy);
            format!("{client} {} {host}", hop.scheme.map_or("?", Scheme::as_str))
        };
        hops(&head).map(|hop| hop.map_or("none".to_owned(), text)).collect()
    }

    #[test]
    fn each_proxy_is_heard_the_nearest_first() {
        assert_eq!(told(&["for=192.0.2.60;proto=http;by=203.0.113.43"]), ["192.0.2.60 http ?"]);
        assert_eq!(
            told(&[
                "For=\"[2001:db8::17]:4711\"; Host=\"a.example:80\" , for=\"192.0.2.1:_x\";PROTO=HTTPS",
                "for=unknown"
            ]),
            ["? ? ?", "192.0.2.1 https ?", "2001:db8::17 ? a.example:80"]
        );
        assert_eq!(told(&["for=_hidden, , for=\"_x,y\";ext=\"a;b\\\",c\"", ""]), ["? ? ?", "? ? ?"]);
        assert_eq!(told(&["for=2001:db8::1"]), ["none"], "a colon is no part of a token");
    }

    #[test]
    fn what_a_client_wrote_before_cannot_change_how_the_nearest_reads() {
        let nearest = "for=\"[2001:db8::1]:9\";proto=https";
        for before in ["for=\"", "for=\"a\\", "\\\"", ";;;=,", "for=1.2.3.4;for=5.6.7.8", "x", "\"\"\"", "for=\"\\\""] {
            let found = told(&[&format!("{before}, {nearest}")]);
            assert_eq!(found[0], "2001:db8::1 https ?", "{before}");
            assert_eq!(found.get(1).map_or("none", String::as_str), "none", "{before}");
        }
        assert_eq!(told(&["for=1.2.3.4;for=1.2.3.4"]), ["none"]);
        assert_eq!(told(&["for=1.2.3.4 proto=https"]), ["none"]);
    }
}
