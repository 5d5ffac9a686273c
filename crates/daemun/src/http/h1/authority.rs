//! Who is asked: the authority of `Host` and of an absolute target (RFC 9110, section 7.2; RFC 3986, section 3.2).

use std::net::Ipv6Addr;

/// Whether this is `uri-host [ ":" port ]`. User information is none of it (RFC 9110, section 4.2.4), nor is an empty
/// host (section 4.2.1).
///
/// Two things that the grammar has are refused: a comma, which is what joining two `Host` fields leaves behind, and
/// `IPvFuture`, which nobody has.
pub(in crate::http) fn is_authority(authority: &[u8]) -> bool {
    if authority.first() == Some(&b'[') {
        let Some(end) = authority.iter().position(|&byte| byte == b']') else { return false };
        return is_ipv6(&authority[1..end]) && is_port_part(&authority[end + 1..]);
    }
    let end = authority.iter().position(|&byte| !HOST[byte as usize]).unwrap_or(authority.len());
    end > 0 && has_whole_escapes(&authority[..end]) && is_port_part(&authority[end..])
}

fn is_ipv6(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// Nothing, or a colon and a port, which may be empty (RFC 3986, section 3.2.3).
fn is_port_part(part: &[u8]) -> bool {
    let Some((&colon, digits)) = part.split_first() else { return true };
    let number = digits.iter().take(6).fold(0, |number, digit| number * 10 + u32::from(digit.wrapping_sub(b'0')));
    colon == b':' && digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) && u16::try_from(number).is_ok()
}

/// Whether each `%` begins an escape, and none of a control character or of what ends a host or begins another: whoever
/// decodes would read another name than was compared.
fn has_whole_escapes(host: &[u8]) -> bool {
    host.iter().enumerate().filter(|&(_, &byte)| byte == b'%').all(|(at, _)| {
        let value = |digit: &u8| char::from(*digit).to_digit(16);
        let [Some(high), Some(low)] = [host.get(at + 1), host.get(at + 2)].map(|digit| digit.and_then(value)) else {
            return false;
        };
        let byte = (high * 16 + low) as u8;
        !byte.is_ascii_control() && !b"%/\\@:?#[],".contains(&byte)
    })
}

/// `reg-name` of RFC 3986, section 3.2.2, without the comma.
const HOST: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let c = byte as u8;
        table[byte] = c.is_ascii_alphanumeric()
            || matches!(c, b'-' | b'.' | b'_' | b'~' | b'%')
            || matches!(c, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=');
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::is_authority;

    #[test]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        for good in
            ["a", "a.b-c_d", "127.0.0.1:80", "[::1]", "[::1]:8443", "a:", "a:65535", "xn--bcher-kva.example", "a%20b"]
        {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
    }

    #[test]
    fn what_could_be_read_as_another_host_is_none() {
        let bad = [
            "",
            ":80",
            "a b",
            "a@b",
            "u:p@b",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "a<b",
            "a>b",
            "a\"b",
            "a,b",
            "a:b",
            "a:80:80",
            "a:65536",
            "a:123456",
            "a:+80",
            "a:-1",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]:x",
            "[]",
            "[v1.a]",
            "[::1%25eth0]",
            "a%",
            "a%2",
            "a%zz",
            "a|b",
            "a^b",
            "a`b",
            "a{b}",
            "b\u{fc}cher",
            "a\tb",
            "a[b]",
            "a\0b",
        ];
        for bad in bad {
            assert!(!is_authority(bad.as_bytes()), "{bad:?}");
        }
    }
}
