//! Who the client is: forwarded fields, PROXY headers, and what applications are told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use daemun::gateway::{Forwarding, write_wsgi};
use daemun::http::proxy_protocol::{self, Version};
use daemun::http::{
    CanonicalPath, Endpoint, Interim, Notes, Request, RequestBody, RequestHead, Scheme, TrustedProxies,
};

use super::heads::read;

/// The proxy that is trusted; and somebody who is not.
const PROXY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 5000);
const STRANGER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 5000);

fn request(head: &RequestHead, peer: SocketAddr) -> Option<Request> {
    Some(Request {
        path: CanonicalPath::parse(&head.raw_path_bytes()).ok()?,
        head: head.clone(),
        prefix_length: 0,
        body: RequestBody::Empty,
        endpoint: Arc::new(Endpoint::new(Some(peer), Some(SocketAddr::from(([127, 0, 0, 1], 80))), Scheme::Http)),
        received: Instant::now(),
        timeout: None,
        interim: Interim::none(),
        notes: Notes::default(),
    })
}

/// The bytes are field lines of a request, from a trusted proxy and from somebody else. Whose word does not count is not
/// heard; and whoever sent them, applications get an environment that is one.
pub(crate) fn forwarded(data: &[u8]) {
    let bytes = [&b"GET /a HTTP/1.1\r\nHost: a.example\r\n"[..], data, b"\r\n\r\n"].concat();
    let Some((parsed, _)) = read(&bytes) else { return };
    let trusted = TrustedProxies::new(vec![(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8)]);
    for peer in [PROXY, STRANGER] {
        let Some(request) = request(&parsed.head, peer) else { return };
        let client = trusted.client(&request.head, &request.endpoint).expect("a peer with an address");
        let told = Forwarding::of(&request, &trusted);
        if peer == STRANGER {
            assert_eq!(client, STRANGER.ip(), "a stranger said who it is, and was believed");
            assert_eq!((&told.client[..], told.scheme), (&b"192.0.2.1"[..], Scheme::Http));
            assert_eq!(told.host, b"a.example");
        }
        assert!(told.client.ends_with(peer.ip().to_string().as_bytes()), "who came last is told last");
        let mut environment = Vec::new();
        write_wsgi(&mut environment, &request, Some(0), &trusted);
        check(&environment);
    }
}

/// Names and values, each ended by a NUL; no name twice, and none that only we may say.
fn check(environment: &[u8]) {
    assert_eq!(environment.last(), Some(&0));
    let parts: Vec<&[u8]> = environment[..environment.len() - 1].split(|&byte| byte == 0).collect();
    assert!(parts.len().is_multiple_of(2), "an odd number of names and values");
    let mut names: Vec<&[u8]> = parts.iter().step_by(2).copied().collect();
    assert!(!names.contains(&&b"HTTP_PROXY"[..]), "httpoxy");
    assert!(names.iter().all(|name| !name.is_empty()));
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all, "a name stands there twice");
}

/// A header has one reading, and what it says is within what came.
pub(crate) fn proxy_protocol(data: &[u8]) {
    let Some(first) = data.first_chunk::<{ proxy_protocol::SIGNATURE }>() else { return };
    match proxy_protocol::version(first) {
        Err(_) => {}
        Ok(Version::Line) => {
            let Some(end) = data.windows(2).position(|end| end == b"\r\n") else { return };
            let Ok(told) = proxy_protocol::parse_line(&data[..end + 2]) else { return };
            assert!(!told.is_secure);
            let Some((client, server)) = told.ends else { return };
            assert_eq!(client.is_ipv4(), server.is_ipv4());
            let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
            let line = String::from_utf8_lossy(&data[..end]).into_owned();
            assert!(line.starts_with(&format!("PROXY {family} ")));
            assert!(line.ends_with(&format!(" {} {}", client.port(), server.port())), "{line}");
        }
        Ok(Version::Binary) => {
            let Some(fixed) = data.get(12..16).and_then(|fixed| <[u8; 4]>::try_from(fixed).ok()) else { return };
            let Ok(length) = proxy_protocol::rest_length(fixed) else { return };
            let Some(rest) = data.get(16..16 + length) else { return };
            if let Ok(told) = proxy_protocol::parse_binary(fixed, rest)
                && let Some((client, server)) = told.ends
            {
                assert_eq!(client.is_ipv4(), server.is_ipv4());
                assert!(length >= if client.is_ipv4() { 12 } else { 36 });
            }
        }
    }
}
