//! Requests that must be understood, under every split, each with a second request behind it.

use super::support::{SPLITS, recorder, send_split, start};

const SECOND: &str = "GET /second HTTP/1.1\r\nHost: b.example\r\nConnection: close\r\n\r\n";

/// A request, then target, authority and body as the handler must see them.
const VALID: &[(&str, &str, &str, &str)] = &[
    ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "/", "a", ""),
    ("GET /a?b=c&d=%20 HTTP/1.1\r\nhOsT: a:8080\r\n\r\n", "/a?b=c&d=%20", "a:8080", ""),
    ("GET / HTTP/1.1\r\nHost:a\r\nX: \t y \t\r\nEmpty:\r\n\r\n", "/", "a", ""),
    ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "/", "a", ""),
    ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "/", "a", ""),
    ("GET http://a.example/x?y HTTP/1.1\r\nHost: a.example\r\n\r\n", "http://a.example/x?y", "a.example", ""),
    ("GET http://a.example HTTP/1.1\r\nHost: a.example\r\n\r\n", "http://a.example", "a.example", ""),
    ("GET http://a.example?q HTTP/1.1\r\nHost: a.example\r\n\r\n", "http://a.example?q", "a.example", ""),
    ("GET HTTPS://A.example:443/ HTTP/1.1\r\nHost: other\r\n\r\n", "HTTPS://A.example:443/", "A.example:443", ""),
    ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "/", "[::1]:80", ""),
    ("PROPFIND /dav HTTP/1.1\r\nHost: a\r\n\r\n", "/dav", "a", ""),
    ("M-SEARCH!#$%&'*+-.^_`|~ /x HTTP/1.1\r\nHost: a\r\n\r\n", "/x", "a", ""),
    ("GET /[a]{b}|c^d`e\\f\"g<h>i HTTP/1.1\r\nHost: a\r\n\r\n", "/[a]{b}|c^d`e\\f\"g<h>i", "a", ""),
    ("GET /caf\u{e9} HTTP/1.1\r\nHost: a\r\nX: \u{e9}\r\n\r\n", "/caf\u{e9}", "a", ""),
    ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", "/", "a", ""),
    ("GET / HTTP/1.9\r\nHost: a\r\n\r\n", "/", "a", ""),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "/", "a", "hello"),
    ("POST / HTTP/1.1\r\nHost: a\r\ncontent-length:\t00005 \r\n\r\nhello", "/", "a", "hello"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "/", "a", ""),
    ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "/", "a", "abc"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "/", "a", "hello"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", "/", "a", ""),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n02\r\nbc\r\nA\r\n0123456789\r\n\
         000\r\n\r\n",
        "/",
        "a",
        "abc0123456789",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a\r\na\r\n1 ; b=c\r\nb\r\n\
         1;x=\"q\\\"\\\\;z\";y\r\nc\r\n0;e=f\r\nT: v\r\nContent-Length: 7\r\n\r\n",
        "/",
        "a",
        "abc",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0000000000000001\r\na\r\n\
         0000000000000000\r\n\r\n",
        "/",
        "a",
        "a",
    ),
    ("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", "/", "a", ""),
    ("GET / HTTP/1.0\r\nConnection: Keep-Alive, x\r\n\r\n", "/", "", ""),
    ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, , keep-alive\r\nConnection: y\r\n\r\n", "/", "a", ""),
    ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\nHTTP2-Settings: x\r\n\r\n", "/", "a", ""),
];

#[tokio::test]
async fn every_valid_request_is_understood_under_every_split_and_so_is_the_one_behind_it() {
    for (request, target, authority, body) in VALID {
        for split in SPLITS {
            let (handler, seen) = recorder();
            let mut server = start(handler);
            send_split(&mut server, format!("{request}{SECOND}").as_bytes(), split).await;
            let replies = server.responses().await;
            let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
            assert_eq!(statuses, [200, 200], "{request:?} {split:?}");
            let seen = seen.lock().unwrap();
            assert_eq!((&*seen[0].target, &*seen[0].authority), (*target, *authority), "{request:?} {split:?}");
            assert_eq!(seen[0].body.as_deref(), Ok(body.as_bytes()), "{request:?} {split:?}");
            assert_eq!((&*seen[1].target, &*seen[1].authority), ("/second", "b.example"), "{request:?} {split:?}");
        }
    }
}
