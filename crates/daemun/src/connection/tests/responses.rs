//! Responses: framed in exactly one way, and never whole where their body was not.

use std::collections::VecDeque;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::support::{replies, start, text, told, working};
use crate::handler::{Fault, HandlerError, Outcome};
use crate::http::{BodyError, BodyStream, Fields, FileBody, FileVersion, Request, Response, ResponseBody, Status};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const HEAD: &str = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
const OLD: &str = "GET / HTTP/1.0\r\n\r\n";

/// A stream of these chunks; `None` is a turn in which nothing is at hand.
struct Chunks {
    chunks: VecDeque<Option<Result<&'static [u8], &'static str>>>,
    length: Option<u64>,
}

impl BodyStream for Chunks {
    fn poll_chunk(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        match self.chunks.pop_front() {
            None => Poll::Ready(None),
            Some(Some(Ok(b"panic"))) => panic!("the stream is broken"),
            Some(Some(Ok(chunk))) => Poll::Ready(Some(Ok(Bytes::from_static(chunk)))),
            Some(Some(Err(error))) => Poll::Ready(Some(Err(BodyError::Failed(error.to_owned())))),
            Some(None) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn length(&self) -> Option<u64> {
        self.length
    }
}

type Chunk = Option<Result<&'static [u8], &'static str>>;

fn streaming(length: Option<u64>, chunks: &[Chunk]) -> impl Fn(Request) -> Response + Send + Sync + 'static {
    let chunks = chunks.to_vec();
    move |_| {
        let chunks = chunks.iter().copied().collect();
        Response::new(Status::OK).with_body(ResponseBody::Stream(Box::pin(Chunks { chunks, length })))
    }
}

/// What this request gets, up to the end of the connection.
async fn exchange(make: impl Fn(Request) -> Response + Send + Sync + 'static, request: &str) -> String {
    let mut server = start(told(make));
    server.send(request).await;
    tokio::io::AsyncWriteExt::shutdown(&mut server.client).await.unwrap();
    String::from_utf8(server.rest().await).unwrap()
}

fn ends_in(wire: &str, end: &str) -> bool {
    wire.split_once("\r\n\r\n").is_some_and(|(_, body)| body == end)
}

#[tokio::test]
async fn head_gets_the_fields_of_get_and_no_body() {
    let get = exchange(|_| text(b"hello"), GET).await;
    let head = exchange(|_| text(b"hello"), HEAD).await;
    assert_eq!(get.strip_suffix("hello"), Some(&*head));
    let head = exchange(|_| Response::new(Status::OK).with_body(ResponseBody::LengthOnly(77)), HEAD).await;
    assert!(head.contains("\r\nContent-Length: 77\r\n") && ends_in(&head, ""));
    let head = exchange(streaming(None, &[Some(Ok(b"never"))]), HEAD).await;
    assert!(head.contains("\r\nTransfer-Encoding: chunked\r\n") && ends_in(&head, ""));
}

#[tokio::test]
async fn a_status_without_a_body_has_no_framing() {
    for code in [204, 304] {
        let make = move |_| Response::new(Status::from_code(code).unwrap()).with_body(text(b"body").body);
        let wire = exchange(make, GET).await;
        assert!(
            !wire.contains("Content-Length") && !wire.contains("Transfer-Encoding") && ends_in(&wire, ""),
            "{wire}"
        );
    }
    let reset = |_| Response::new(Status::from_code(205).unwrap()).with_body(text(b"body").body);
    let wire = exchange(reset, GET).await;
    assert!(wire.contains("\r\nContent-Length: 0\r\n") && ends_in(&wire, ""));
}

#[tokio::test]
async fn an_empty_answer_says_its_length() {
    let wire = exchange(|_| Response::new(Status::OK), GET).await;
    assert!(
        wire.starts_with("HTTP/1.1 200 OK\r\nServer: daemun\r\nDate: ") && wire.contains("\r\nContent-Length: 0\r\n")
    );
}

#[tokio::test]
async fn a_stream_is_chunked_or_for_an_old_client_ends_with_the_connection() {
    static CHUNKS: &[Chunk] = &[None, Some(Ok(b"hello")), Some(Ok(b"")), None, None, Some(Ok(b" world, and all"))];
    let wire = exchange(streaming(None, CHUNKS), GET).await;
    assert!(ends_in(&wire, "5\r\nhello\r\nf\r\n world, and all\r\n0\r\n\r\n"), "{wire}");
    let wire = exchange(streaming(None, CHUNKS), OLD).await;
    assert!(ends_in(&wire, "hello world, and all") && wire.contains("\r\nConnection: close\r\n"), "{wire}");
    assert!(!wire.contains("Transfer-Encoding") && !wire.contains("Content-Length"));
    let wire = exchange(streaming(Some(20), CHUNKS), GET).await;
    assert!(ends_in(&wire, "hello world, and all") && wire.contains("\r\nContent-Length: 20\r\n"), "{wire}");
}

#[tokio::test]
async fn an_empty_stream_is_a_whole_answer() {
    assert!(ends_in(&exchange(streaming(None, &[]), GET).await, "0\r\n\r\n"));
    assert!(ends_in(&exchange(streaming(None, &[None]), GET).await, "0\r\n\r\n"));
    assert!(ends_in(&exchange(streaming(Some(0), &[]), GET).await, ""));
}

#[tokio::test]
async fn a_stream_that_breaks_is_cut_and_never_looks_whole() {
    for chunks in [
        &[Some(Ok(&b"hello"[..])), None, Some(Err("gone"))][..],
        &[Some(Ok(b"hello")), Some(Err("gone"))],
        &[None, Some(Ok(b"hello")), None, Some(Ok(b"panic"))],
    ] {
        let wire = exchange(streaming(None, chunks), GET.repeat(2).as_str()).await;
        assert!(ends_in(&wire, "5\r\nhello\r\n"), "{wire}");
        let wire = exchange(streaming(Some(10), chunks), GET.repeat(2).as_str()).await;
        assert!(ends_in(&wire, "hello"), "{wire}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_before_its_first_byte_is_a_502() {
    for chunks in [&[Some(Err("gone"))], &[Some(Ok(&b"panic"[..]))]] {
        let wire = exchange(streaming(None, chunks), GET).await;
        assert!(wire.starts_with("HTTP/1.1 502 ") && wire.contains("\r\nConnection: close\r\n"), "{wire}");
    }
}

#[tokio::test]
async fn a_stream_of_another_length_than_it_said_ends_the_connection() {
    let short = exchange(streaming(Some(9), &[Some(Ok(b"hello")), None]), GET.repeat(2).as_str()).await;
    assert!(ends_in(&short, "hello"), "{short}");
    for chunks in [&[Some(Ok(&b"hello world"[..]))][..], &[Some(Ok(b"hell")), None, Some(Ok(b"o world"))]] {
        let long = exchange(streaming(Some(5), chunks), GET.repeat(2).as_str()).await;
        assert!(ends_in(&long, "hello"), "{long}");
    }
}

#[tokio::test]
async fn framing_and_connection_fields_of_a_handler_are_left_out() {
    let names = [
        "Content-Length",
        "transfer-encoding",
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Upgrade",
    ];
    let make = move |_| {
        let fields = names.iter().fold(Fields::new(), |fields, name| fields.with(name, "77"));
        text(b"hello").with_fields(fields.with("X-Kept", "77"))
    };
    let wire = exchange(make, GET).await;
    assert_eq!(wire.matches("77").count(), 1, "{wire}");
    assert!(wire.contains("\r\nX-Kept: 77\r\n") && wire.contains("\r\nContent-Length: 5\r\n"));
}

#[tokio::test]
async fn a_handlers_own_date_and_server_are_kept() {
    let make = |_| text(b"").with_fields(Fields::new().with("date", "then").with("SERVER", "other"));
    let wire = exchange(make, GET).await;
    assert!(wire.contains("\r\ndate: then\r\n") && wire.contains("\r\nSERVER: other\r\n"));
    assert_eq!(wire.to_ascii_lowercase().matches("\r\ndate:").count(), 1);
    assert!(!wire.contains("daemun"));
}

#[tokio::test]
async fn a_reason_cannot_split_the_response() {
    for (reason, want) in
        [("Fine", "200 Fine\r\n"), ("a\r\nX: y", "200 OK\r\n"), ("a\nb", "200 OK\r\n"), ("\0", "200 OK\r\n")]
    {
        let make = move |_| Response { reason: Some(Bytes::from_static(reason.as_bytes())), ..text(b"") };
        let wire = exchange(make, GET).await;
        assert!(wire.starts_with(&format!("HTTP/1.1 {want}")), "{wire}");
    }
}

#[tokio::test]
async fn an_old_client_is_told_that_its_connection_is_kept() {
    let mut server = start(told(|_| text(b"hello")));
    server.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    assert_eq!(server.response("GET").await.fields["connection"], "keep-alive");
    server.send(OLD).await;
    assert!(server.responses().await[0].closes());
}

#[tokio::test]
async fn a_panic_is_a_500_and_ends_the_connection_alone() {
    let early = told(|_| panic!("at once"));
    let late = working(|_| async {
        tokio::task::yield_now().await;
        panic!("later")
    });
    for handler in [early, late] {
        let mut server = start(handler);
        server.send(GET.repeat(2)).await;
        let replies = server.responses().await;
        assert_eq!(replies.iter().map(|reply| reply.status).collect::<Vec<_>>(), [500]);
        assert!(replies[0].closes());
        server.task.await.expect("the connection's task ends well");
    }
}

fn failing() -> Arc<dyn crate::handler::Handler> {
    working(|_| async {
        let message = "worker <b>3</b> of /srv/shop\r\ndied";
        let error = HandlerError::new(Status::SERVICE_UNAVAILABLE, Fault::Worker, message);
        Err(HandlerError { retry_after: Some(7), ..error })
    })
}

#[tokio::test]
async fn an_error_is_told_in_the_clients_language_without_its_cause() {
    for (accept, content_type, part) in [
        (
            "text/html,application/xhtml+xml",
            "text/html; charset=utf-8",
            "<h1><small>503</small>Service Unavailable</h1>",
        ),
        ("application/json", "application/json", "\"status\":503"),
        ("application/problem+json, text/html", "application/json", "\"reference\":\""),
        ("*/*", "text/plain; charset=utf-8", "503 Service Unavailable\nReference: "),
    ] {
        let mut server = start(failing());
        server.send(format!("GET / HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n")).await;
        let reply = server.response("GET").await;
        assert_eq!((reply.status, &*reply.fields["content-type"]), (503, content_type));
        assert_eq!(reply.fields["retry-after"], "7");
        assert!(content_type.starts_with("text/html") == reply.fields.contains_key("content-security-policy"));
        assert!(!reply.closes());
        let body = String::from_utf8(reply.body).unwrap();
        assert!(body.contains(part) && !body.contains("shop") && !body.contains("daemun"), "{body}");
    }
}

#[tokio::test]
async fn a_decline_is_a_404_and_an_interim_status_alone_a_502() {
    let mut server = start(working(|request| async { Ok(Outcome::Decline(request)) }));
    server.send(GET).await;
    assert_eq!(server.response("GET").await.status, 404);
    let mut server = start(told(|_| Response::new(Status::CONTINUE)));
    server.send(GET).await;
    assert_eq!(server.response("GET").await.status, 502);
}

#[tokio::test]
async fn options_of_the_server_itself_is_answered_without_a_handler() {
    let mut server = start(told(|_| panic!("not asked")));
    server.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(server.response("OPTIONS").await.status, 200);
}

/// A file of this many bytes, and a handler that sends the part from `offset`.
fn file(length: usize, offset: u64, sent: u64) -> (Vec<u8>, impl Fn(Request) -> Response + Send + Sync + 'static) {
    let bytes: Vec<u8> = (0..length).map(|at| b'a' + (at % 23) as u8).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    let file = Arc::new(OwnedFd::from(file));
    let part = bytes[(offset as usize).min(length)..((offset + sent) as usize).min(length)].to_vec();
    let version = FileVersion::of(&*file).unwrap();
    let body = FileBody { file, offset, length: sent, version, memory: None };
    (part, move |_| Response::new(Status::OK).with_body(ResponseBody::File(body.clone())))
}

#[tokio::test]
async fn files_are_sent_whole_whatever_their_size() {
    for (length, offset, sent) in [
        (10, 0, 10),
        (10, 3, 4),
        (10, 10, 0),
        (40_000, 0, 32_768),
        (3_000_000, 0, 3_000_000),
        (3_000_000, 7, 1_000_000),
    ] {
        let (part, make) = file(length, offset, sent);
        let mut server = start(told(make));
        server.send(format!("{GET}GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        let replies = replies(&server.rest().await);
        assert_eq!(replies.len(), 2);
        assert!(replies.iter().all(|reply| reply.body == part), "{length} {offset} {sent}");
    }
}

#[tokio::test]
async fn a_file_that_became_shorter_never_looks_whole() {
    let (_, make) = file(10, 0, 20);
    assert!(exchange(make, GET).await.starts_with("HTTP/1.1 502 "));
    let (part, make) = file(500_000, 0, 600_000);
    let wire = exchange(make, GET.repeat(2).as_str()).await;
    assert!(wire.contains("\r\nContent-Length: 600000\r\n"));
    assert_eq!(wire.split_once("\r\n\r\n").unwrap().1.as_bytes(), part);
}
