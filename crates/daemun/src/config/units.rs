//! Values with a unit, as files and options write them: durations, sizes, numbers, addresses.
//!
//! Every function gives what was expected and what was found as its error.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::environment::join;
use crate::listener::Address;

/// Longer waits are mistakes, and would overflow clocks.
const LONGEST: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// `30s`, `500ms`, `1h30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected a duration such as \"30s\", \"500ms\", \"10m\", \"1h\" or \"2d\", found {text:?}");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let milliseconds = match &rest[digits..digits + unit] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let part = number.checked_mul(milliseconds).map(Duration::from_millis);
        total = part.and_then(|part| total.checked_add(part)).filter(|&sum| sum <= LONGEST).unwrap_or(Duration::MAX);
        if total > LONGEST {
            return Err(format!("expected at most \"3650d\", found {text:?}"));
        }
        rest = &rest[digits + unit..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// A duration that is not zero.
pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err(format!("expected a duration longer than zero, found {text:?}")),
        positive => Ok(positive),
    }
}

/// `10MiB`, `1GB`, `512`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let factor: Option<u64> = match &text[digits..] {
        "" | "B" => Some(1),
        "kB" | "KB" => Some(1_000),
        "MB" => Some(1_000_000),
        "GB" => Some(1_000_000_000),
        "TB" => Some(1_000_000_000_000),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        "TiB" => Some(1 << 40),
        _ => None,
    };
    let bytes =
        text[..digits].parse().ok().zip(factor).and_then(|(number, factor): (u64, _)| number.checked_mul(factor));
    // Signed 64 bits are what files and seeks count in.
    bytes
        .filter(|&bytes| i64::try_from(bytes).is_ok())
        .ok_or_else(|| format!("expected a size such as \"10MiB\" or \"1GB\", or a number of bytes, found {text:?}"))
}

/// A whole number within bounds.
pub(super) fn whole(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("expected a number {}, found {text:?}", bounds(least, most)))
}

/// The bounds of a number in words.
pub(super) fn bounds(least: u64, most: u64) -> String {
    if most >= i64::MAX as u64 { format!("of at least {least}") } else { format!("from {least} to {most}") }
}

/// An address that clients connect to, and whether they speak TLS there: `https://HOST:PORT` is the one where they do.
pub(super) fn listener(text: &str, folder: &Path) -> Result<(Address, bool), String> {
    let Some(bare) = text.strip_prefix("https://") else { return Ok((address(text, folder)?, false)) };
    match address(bare.strip_suffix('/').unwrap_or(bare), folder) {
        Ok(address @ Address::Tcp(_)) if !bare.starts_with("http://") => Ok((address, true)),
        _ => Err(format!("expected an address such as \"https://0.0.0.0:443\", found {text:?}")),
    }
}

/// `PORT`, `HOST:PORT`, `http://HOST:PORT`, `[::]:PORT`, `unix:PATH` or `fd:N`; a path is relative to `folder`.
pub(super) fn address(text: &str, folder: &Path) -> Result<Address, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path {
            "" => Err("expected a path after `unix:`".to_owned()),
            path => Ok(Address::Unix(join(folder, path))),
        };
    }
    if let Some(number) = text.strip_prefix("fd:") {
        let number = number.parse().ok().filter(|number| *number >= 0);
        return number
            .map(Address::Inherited)
            .ok_or_else(|| format!("expected `fd:N`, such as \"fd:3\", found {text:?}"));
    }
    let bare = text.strip_prefix("http://").map_or(text, |bare| bare.strip_suffix('/').unwrap_or(bare));
    if let Ok(port) = bare.parse() {
        return Ok(Address::Tcp(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)));
    }
    let Some((host, port)) = bare.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?))) else {
        return Err(format!(
            "expected PORT, HOST:PORT, http://HOST:PORT, [::]:PORT, unix:PATH or fd:N, found {text:?}"
        ));
    };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let ip: Option<IpAddr> = match bracketed {
        Some(v6) => v6.parse().ok().map(IpAddr::V6),
        None if host == "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        None => host.parse().ok().map(IpAddr::V4),
    };
    match ip {
        Some(ip) => Ok(Address::Tcp(SocketAddr::new(ip, port))),
        None if host.is_empty() || host == "*" => {
            Err(format!("expected an IP address before the port, such as \"0.0.0.0:{port}\" for all, found {text:?}"))
        }
        None if host.contains(':') => {
            Err(format!("expected brackets around an IPv6 address, such as \"[::1]:{port}\", found {text:?}"))
        }
        None => Err(format!("expected an IP address or `localhost` before the port, found {text:?}")),
    }
}

/// An address, or a network as `10.0.0.0/8`.
pub(super) fn network(text: &str) -> Result<(IpAddr, u8), String> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let fault = || format!("expected an address or a network such as \"10.0.0.0/8\", found {text:?}");
    let address: IpAddr = address.parse().map_err(|_| fault())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| fault()))?;
    if bits > most {
        Err(format!("a network of {address} has at most {most} bits, found {text:?}"))
    } else {
        Ok((address, bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_is_an_address_with_tls() {
        let read = |text| listener(text, Path::new("/srv")).map(|(address, tls)| (address.to_string(), tls));
        assert_eq!(read("https://0.0.0.0:443"), Ok(("0.0.0.0:443".to_owned(), true)));
        assert_eq!(read("https://[::]:443/"), Ok(("[::]:443".to_owned(), true)));
        assert_eq!(read("https://8443"), Ok(("127.0.0.1:8443".to_owned(), true)));
        assert_eq!(read("http://0.0.0.0:80"), Ok(("0.0.0.0:80".to_owned(), false)));
        for text in ["https://", "https://unix:/x", "https://fd:3", "https://http://1", "https://example.com:443"] {
            let want = format!("expected an address such as \"https://0.0.0.0:443\", found {text:?}");
            assert_eq!(read(text), Err(want), "{text}");
        }
    }

    #[test]
    fn durations_have_units() {
        for (text, want) in [
            ("30s", 30_000),
            ("500ms", 500),
            ("10m", 600_000),
            ("1h", 3_600_000),
            ("2d", 172_800_000),
            ("1h30m", 5_400_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(want)), "{text}");
        }
        for text in ["", "30", "s", "-1s", "1.5s", "30 s", "1w", "99999999999999999999d", "9999999999999d", "é"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(positive_duration("0s").is_err());
    }

    #[test]
    fn sizes_are_decimal_or_binary() {
        for (text, want) in [("10MiB", 10 << 20), ("1GB", 1_000_000_000), ("512", 512), ("1kB", 1000), ("0", 0)] {
            assert_eq!(size(text), Ok(want), "{text}");
        }
        for text in ["", "10M", "MiB", "-1", "1.5MiB", "99999999999TiB", "10 MiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_have_all_their_forms() {
        for (text, want) in [
            ("8000", "127.0.0.1:8000"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("http://127.0.0.1:8000", "127.0.0.1:8000"),
            ("http://localhost:8000/", "127.0.0.1:8000"),
            ("[::]:80", "[::]:80"),
            ("unix:run/d.sock", "unix:/srv/run/d.sock"),
            ("unix:/run/d.sock", "unix:/run/d.sock"),
            ("fd:3", "fd:3"),
        ] {
            assert_eq!(address(text, Path::new("/srv")).map(|a| a.to_string()).as_deref(), Ok(want), "{text}");
        }
        for (text, want) in [
            (":80", "expected an IP address before the port, such as \"0.0.0.0:80\" for all, found \":80\""),
            ("::1:80", "expected brackets around an IPv6 address, such as \"[::1]:80\", found \"::1:80\""),
            ("example.com:80", "expected an IP address or `localhost` before the port, found \"example.com:80\""),
            ("99999", "expected PORT, HOST:PORT, http://HOST:PORT, [::]:PORT, unix:PATH or fd:N, found \"99999\""),
            ("unix:", "expected a path after `unix:`"),
            ("fd:-1", "expected `fd:N`, such as \"fd:3\", found \"fd:-1\""),
        ] {
            assert_eq!(address(text, Path::new("/srv")), Err(want.to_owned()), "{text}");
        }
    }
}
