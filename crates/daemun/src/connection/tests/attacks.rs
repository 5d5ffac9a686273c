//! Messages that two servers could read differently. Each is refused with one status, the connection ends, and the
//! request behind it is never read, however the bytes are cut on their way.

use super::support::{SPLITS, recorder, replies, send_split, start};

const SECOND: &str = "GET /second HTTP/1.1\r\nHost: b\r\n\r\n";

/// Sends each attack under every split, with a request behind it. `reaches` says whether the handler may have begun:
/// only a body can be wrong that late, and then the handler saw it as broken.
async fn refuses(attacks: &[(u16, String)], reaches: bool) {
    for (status, attack) in attacks {
        for split in SPLITS {
            let (handler, seen) = recorder();
            let mut server = start(handler);
            send_split(&mut server, format!("{attack}{SECOND}").as_bytes(), split).await;
            let replies = replies(&server.rest().await);
            let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
            assert_eq!(statuses, [*status], "{attack:?} {split:?}");
            assert!(replies[0].closes(), "{attack:?} {split:?}");
            let seen = seen.lock().unwrap();
            assert!(seen.iter().all(|seen| reaches && seen.body.is_err()), "{attack:?} {split:?}: {seen:?}");
        }
    }
}

/// The same with attacks that hold no text: every one a 400 unless it says otherwise.
async fn refuses_heads(attacks: &[&str]) {
    let attacks: Vec<_> = attacks.iter().map(|attack| (400, (*attack).to_owned())).collect();
    refuses(&attacks, false).await;
}

/// Heads that have these lines behind a request line and `Host`, and a body that both readings could take.
async fn refuses_fields(fields: &[&str], status: u16) {
    let body = "0\r\n\r\n";
    let attacks = fields.iter().map(|fields| (status, format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}")));
    refuses(&attacks.collect::<Vec<_>>(), false).await;
}

async fn refuses_chunks(bodies: &[&str]) {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    refuses(&bodies.iter().map(|body| (400, format!("{head}{body}"))).collect::<Vec<_>>(), true).await;
}

#[tokio::test]
async fn content_length_with_transfer_encoding_is_refused() {
    refuses_fields(
        &[
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Transfer-Encoding: chunked\r\nContent-Length: 0",
            "Content-Length: 5\r\nX: y\r\nTransfer-Encoding: chunked",
            "content-length: 5\r\ntransfer-encoding: Chunked",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: Content-Length",
        ],
        400,
    )
    .await;
}

#[tokio::test]
async fn a_content_length_that_is_not_one_number_is_refused() {
    refuses_fields(
        &[
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 0\r\nContent-Length: 5",
            "Content-Length: 5\r\ncontent-length: 5",
            "Content-Length: 5, 5",
            "Content-Length: 5,6",
            "Content-Length: 5,",
            "Content-Length: +5",
            "Content-Length: -5",
            "Content-Length: -0",
            "Content-Length: 0x5",
            "Content-Length: 5.0",
            "Content-Length: 5e0",
            "Content-Length: 5 5",
            "Content-Length: 5_0",
            "Content-Length: 5;a",
            "Content-Length: \"5\"",
            "Content-Length: '5'",
            "Content-Length: five",
            "Content-Length:",
            "Content-Length:  ",
            "Content-Length: \u{ff15}",
            "Content-Length: \u{b2}",
            "Content-Length: 18446744073709551616",
            "Content-Length: 18446744073709551621",
            "Content-Length: 99999999999999999999999999999999",
        ],
        400,
    )
    .await;
}

#[tokio::test]
async fn a_transfer_encoding_that_is_not_exactly_chunked_is_refused() {
    refuses_fields(
        &[
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: chunked, gzip",
            "Transfer-Encoding: chunked,",
            "Transfer-Encoding: ,chunked",
            "Transfer-Encoding: chunked;a=b",
            "Transfer-Encoding: chunked;",
            "Transfer-Encoding: \"chunked\"",
            "Transfer-Encoding: 'chunked'",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: chunkedx",
            "Transfer-Encoding: chunk",
            "Transfer-Encoding: chun ked",
            "Transfer-Encoding: x chunked",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: cow",
            "Transfer-Encoding:",
            "Transfer-Encoding: \u{a0}chunked",
            "Transfer-Encoding: chunked\u{a0}",
            "Transfer-Encoding: \u{ff43}hunked",
            "Transfer-Encoding: chunked\t, gzip",
        ],
        400,
    )
    .await;
    refuses_fields(&["Transfer-Encoding: gzip, chunked", "Transfer-Encoding: deflate , gzip, Chunked"], 501).await;
}

#[tokio::test]
async fn framing_fields_that_are_disguised_are_refused() {
    refuses_fields(
        &[
            "Transfer-Encoding : chunked",
            "Transfer-Encoding\t: chunked",
            " Transfer-Encoding: chunked",
            "\tTransfer-Encoding: chunked",
            "Transfer-Encoding\r\n: chunked",
            "Transfer-Encoding:\r\n chunked",
            "Transfer-Encoding:\r\n\tchunked",
            "X: y\r\n Transfer-Encoding: chunked",
            "X: y\rTransfer-Encoding: chunked",
            "X: y\nTransfer-Encoding: chunked",
            "X: y\n\rTransfer-Encoding: chunked",
            "X: y\r\rTransfer-Encoding: chunked",
            "X: y\r\n\rTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r",
            "Transfer-Encoding: \x0bchunked",
            "Transfer-Encoding: chunked\x0b",
            "Transfer-Encoding: \x0cchunked",
            "Transfer-Encoding: chunked\0",
            "Transfer-Encoding: \x00chunked",
            "Transfer-Encoding: chunked\x7f",
            "Transfer\u{2d}\u{ad}Encoding: chunked",
            "Transfer-Encoding\0: chunked",
            "Transfer-Encoding(): chunked",
            "\"Transfer-Encoding\": chunked",
            "Transfer Encoding: chunked",
            ": chunked",
            "Transfer-Encoding",
            "Transfer-Encoding chunked",
            "\0Transfer-Encoding: chunked",
            "Content-Length : 5",
            "Content-Length: 5\r\n 6",
            "Content-Length:\n5",
            "Content-Length: 5\rX: y",
            "Content-Length: \x085",
            "Content-Length[]: 5",
            "Content-Length@: 5",
        ],
        400,
    )
    .await;
}

#[tokio::test]
async fn transfer_encoding_in_http_1_0_is_refused() {
    refuses_heads(&[
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n",
    ])
    .await;
}

#[tokio::test]
async fn a_line_that_ends_in_anything_but_crlf_is_refused() {
    refuses_heads(&[
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\rHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
        "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r z\r\n\r\n",
    ])
    .await;
}

#[tokio::test]
async fn a_malformed_request_line_is_refused() {
    refuses_heads(&[
        "GET\r\nHost: a\r\n\r\n",
        "GET /\r\n",
        "GET /\r\nHost: a\r\n\r\n",
        "/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\x0bHTTP/1.1\r\nHost: a\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET x HTTP/2 HTTP/1.2\r\nHost: a\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
        "G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "G\u{c9}T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "{\"a\": 1} / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1\r\nHost: a\r\n\r\n",
        "GET / HTTP/11\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.10\r\nHost: a\r\n\r\n",
        "GET / HTTP/01.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1,1\r\nHost: a\r\n\r\n",
        "GET / HTTP /1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.x\r\nHost: a\r\n\r\n",
        "GET / HTP/1.1\r\nHost: a\r\n\r\n",
        "GET / ICY/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\tX: y\r\nHost: a\r\n\r\n",
    ])
    .await;
}

#[tokio::test]
async fn a_target_that_is_none_is_refused() {
    refuses_heads(&[
        "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET ?a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a#b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http:/a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a\\b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a:b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://[::1/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET file:///etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET \\a HTTP/1.1\r\nHost: a\r\n\r\n",
    ])
    .await;
}

#[tokio::test]
async fn a_host_that_is_missing_doubled_or_invalid_is_refused() {
    let hosts = [
        "",
        " ",
        "a, b",
        "a b",
        "u@a",
        "a@b:80",
        "a/",
        "a/b",
        "a?b",
        "a#b",
        "a\\b",
        "a<b",
        "a>b",
        "a\"b",
        "a:b",
        "a:80:80",
        "a:80 ,b",
        "a:99999",
        "a:-1",
        "[::1",
        "::1",
        "[::1]a",
        "[a]",
        "[::1]:b",
        "http://a",
        "a%zz",
        "a%",
        "a%0",
        "a%00",
        "a%0d%0aX:b",
        "a%7f",
        "a%2Fb",
        "a%40b",
        "a%2500",
        "a\tb",
        "b\u{fc}cher",
        "a|b",
        "a^b",
        "{a}",
    ];
    let attacks = hosts.map(|host| (400, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")));
    refuses(&attacks, false).await;
    refuses_heads(&[
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nX-Host: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a@b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
    ])
    .await;
}

#[tokio::test]
async fn what_is_not_spoken_here_has_its_own_status() {
    let statuses = [
        (505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        (505, "GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
        (505, "GET / HTTP/3.0\r\nHost: a\r\n\r\n"),
        (505, "PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n"),
        (501, "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
        (501, "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (501, "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGH / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (417, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\nContent-Length: 1\r\n\r\na"),
        (417, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, x\r\nContent-Length: 1\r\n\r\na"),
        (400, "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n"),
        (413, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n"),
        (413, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 104857601\r\nExpect: 100-continue\r\n\r\n"),
    ];
    refuses(&statuses.map(|(status, attack)| (status, attack.to_owned())), false).await;
}

#[tokio::test]
async fn a_path_without_a_canonical_form_is_refused_but_the_connection_goes_on() {
    for path in ["/..", "/%2e%2e/etc/passwd", "/a/../../b", "/%00", "/%", "/%zz", "/%2"] {
        let (handler, seen) = recorder();
        let mut server = start(handler);
        server.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(server.response("GET").await.status, 400, "{path}");
        server.send(SECOND).await;
        assert_eq!(server.response("GET").await.status, 200, "{path}");
        assert_eq!(seen.lock().unwrap().len(), 1, "{path}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let long = |length| "a".repeat(length);
    let many = "X: y\r\n".repeat(100);
    let attacks = [
        (414, format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", long(16 * 1024))),
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", long(64 * 1024))),
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\n{}: y\r\n\r\n", long(64 * 1024))),
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")),
    ];
    for (status, attack) in attacks {
        let (handler, seen) = recorder();
        let mut server = start(handler);
        // What lies beyond the cap is not waited for, and dropped while the answer is on its way.
        server.send(&attack).await;
        let replies = server.responses().await;
        assert_eq!(replies.iter().map(|reply| reply.status).collect::<Vec<_>>(), [status]);
        assert!(replies[0].closes() && seen.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn chunks_that_are_not_exactly_chunks_are_refused() {
    refuses_chunks(&[
        "\r\n0\r\n\r\n",
        ";a\r\n0\r\n\r\n",
        "g\r\na\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "+1\r\na\r\n0\r\n\r\n",
        "-1\r\na\r\n0\r\n\r\n",
        " 1\r\na\r\n0\r\n\r\n",
        "1 \r\na\r\n0\r\n\r\n",
        "1\t\r\na\r\n0\r\n\r\n",
        "1_0\r\na\r\n0\r\n\r\n",
        "1,1\r\na\r\n0\r\n\r\n",
        "1.0\r\na\r\n0\r\n\r\n",
        "\u{ff11}\r\na\r\n0\r\n\r\n",
        "1\na\r\n0\r\n\r\n",
        "1\r\na\n0\r\n\r\n",
        "1\r\na\r0\r\n\r\n",
        "1\ra\r\n0\r\n\r\n",
        "1\r\r\na\r\n0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1\r\na0\r\n\r\n",
        "2\r\na\r\n0\r\n\r\n",
        "1\r\na\r\n\r\n0\r\n\r\n",
        "1\r\na\r\n0\n\r\n",
        "1\r\na\r\n0\r\n\n",
        "1\r\na\r\n0\r\r\n",
        "1\r\na\r\n0\r\nx",
        "10000000000000000\r\na\r\n0\r\n\r\n",
        "00000000000000001\r\na\r\n0\r\n\r\n",
        "fffffffffffffffff\r\na\r\n0\r\n\r\n",
        "100000000000000001\r\na\r\n0\r\n\r\n",
        "1\0\r\na\r\n0\r\n\r\n",
    ])
    .await;
}

#[tokio::test]
async fn chunk_extensions_and_trailers_are_read_strictly() {
    refuses_chunks(&[
        "1;\r\na\r\n0\r\n\r\n",
        "1;;a\r\na\r\n0\r\n\r\n",
        "1;a=\r\na\r\n0\r\n\r\n",
        "1;a\nb\r\na\r\n0\r\n\r\n",
        "1;a\n\r\na\r\n0\r\n\r\n",
        "1;a\rb\r\na\r\n0\r\n\r\n",
        "1;a=\"\r\na\r\n0\r\n\r\n\"",
        "1;a=\"\n\"\r\na\r\n0\r\n\r\n",
        "1;a=\"b\"c\r\na\r\n0\r\n\r\n",
        "1;a \r\na\r\n0\r\n\r\n",
        "1;a b\r\na\r\n0\r\n\r\n",
        "1;\0\r\na\r\n0\r\n\r\n",
        "1 a\r\na\r\n0\r\n\r\n",
        "0;\r\n\r\n",
        "0\r\nX\r\n\r\n",
        "0\r\n: y\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nX: y\rZ: a\r\n\r\n",
        "0\r\nX: \0\r\n\r\n",
        "0\r\nX: y\r\n z\r\n\r\n",
        "0\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n",
    ])
    .await;
    let long = format!("1;{}\r\na\r\n0\r\n\r\n", "a".repeat(5000));
    let many = format!("{}0\r\n\r\n", "1;aaaaaaaaaaaaaaaaaaaa\r\na\r\n".repeat(300));
    refuses_chunks(&[&long, &many]).await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
    let attacks = [
        (431, format!("{head}{}\r\n", "X: y\r\n".repeat(101))),
        (431, format!("{head}X: {}\r\n\r\n", "y".repeat(65 * 1024))),
    ];
    refuses(&attacks, true).await;
}
