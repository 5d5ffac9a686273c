//! Request bodies: fed as they are wanted, drained or cut when they are not.

use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use super::support::{Reply, recorder, replies, start, start_with, text, told, working};
use crate::connection::Limits;
use crate::handler::{Fault, HandlerError, Outcome};
use crate::http::{BodyError, BodyRoom, BodyStream, RequestBody, Response, ResponseBody, Status};

const CLOSE: &str = "GET /second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn post(length: usize, fields: &str) -> String {
    format!("POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n{fields}\r\n")
}

fn statuses(replies: &[Reply]) -> Vec<u16> {
    replies.iter().map(|reply| reply.status).collect()
}

#[tokio::test]
async fn a_100_is_sent_when_the_handler_wants_the_body() {
    let (handler, seen) = recorder();
    let mut server = start(handler);
    server.send(post(5, "Expect: 100-Continue\r\n")).await;
    assert_eq!(server.response("POST").await.status, 100);
    server.send("hello").await;
    assert_eq!(server.response("POST").await.status, 200);
    assert_eq!(seen.lock().unwrap()[0].body.as_deref(), Ok(&b"hello"[..]));
}

#[tokio::test]
async fn a_client_that_begins_to_send_its_body_gets_no_100() {
    let (handler, _) = recorder();
    let mut server = start(handler);
    server.send(post(5, "Expect: 100-continue\r\n") + "hello" + CLOSE).await;
    assert_eq!(statuses(&server.responses().await), [200, 200]);
}

#[tokio::test]
async fn without_a_body_or_in_http_1_0_an_expectation_is_not_answered() {
    let (handler, _) = recorder();
    let mut server = start(handler);
    server.send("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(server.response("GET").await.status, 200);
    server.send("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    server.send("hello").await;
    assert_eq!(statuses(&server.responses().await), [200]);
}

#[tokio::test]
async fn a_final_status_instead_of_the_100_ends_the_connection() {
    let mut server = start(told(|_| text(b"no")));
    server.send(post(5, "Expect: 100-continue\r\n")).await;
    let reply = server.response("POST").await;
    assert_eq!(reply.status, 200);
    assert!(reply.closes());
    server.send("hello".to_owned() + CLOSE).await;
    assert!(server.rest().await.is_empty());
}

#[tokio::test]
async fn an_unread_body_is_dropped_and_never_read_as_a_request() {
    let mut server = start(told(|request| text(request.head.target())));
    let body = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    server.send(post(body.len(), "")).await;
    tokio::task::yield_now().await;
    server.send(body.to_owned() + CLOSE).await;
    let replies = server.responses().await;
    assert_eq!(replies.iter().map(|reply| &reply.body[..]).collect::<Vec<_>>(), [&b"/first"[..], b"/second"]);
}

#[tokio::test]
async fn an_unread_chunked_body_is_dropped_too_but_not_beyond_the_limit() {
    let head = "POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (size, want) in [(4096, vec![200, 200]), (300 * 1024, vec![200])] {
        let mut server = start(told(|request| text(request.head.target())));
        server.send(head).await;
        let reply = server.response("POST").await;
        assert!(!reply.closes());
        server.send(format!("{size:x}\r\n{}\r\n0\r\n\r\n{CLOSE}", "a".repeat(size))).await;
        assert_eq!(1 + server.responses().await.len(), want.len());
    }
}

#[tokio::test]
async fn an_unread_body_beyond_the_limit_closes_the_connection_and_the_answer_still_arrives() {
    let mut server = start(told(|_| text(b"enough")));
    server.send(post(1024 * 1024, "")).await;
    server.send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100)).await;
    let replies = server.responses().await;
    assert_eq!(statuses(&replies), [200]);
    assert!(replies[0].closes());
}

#[tokio::test]
async fn a_body_that_is_too_long_is_a_413() {
    let limits = Limits { max_body: 10, ..Limits::default() };
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for pieces in [
        vec![post(11, "")],
        vec![post(11, "Expect: 100-continue\r\n")],
        vec![format!("{chunked}b\r\nhello world\r\n")],
        vec![chunked.to_owned(), "6\r\nhello \r\n".to_owned(), "5\r\nworld\r\n".to_owned()],
    ] {
        let (handler, seen) = recorder();
        let mut server = start_with(handler, limits.clone());
        for piece in &pieces {
            server.send(piece).await;
            tokio::task::yield_now().await;
        }
        let replies = server.responses().await;
        assert_eq!(statuses(&replies), [413], "{pieces:?}");
        assert!(replies[0].closes() && seen.lock().unwrap().iter().all(|seen| seen.body.is_err()));
    }
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_taken() {
    let (handler, _) = recorder();
    let mut server = start_with(handler, Limits { max_body: 10, ..Limits::default() });
    server.send(post(10, "") + "0123456789" + CLOSE).await;
    assert_eq!(statuses(&server.responses().await), [200, 200]);
}

#[tokio::test]
async fn a_body_that_is_cut_never_looks_whole() {
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    for begun in [post(10, "") + "hello", chunked.to_owned(), chunked.to_owned() + "0\r\n"] {
        let (handler, seen) = recorder();
        let mut server = start(handler);
        server.send(&begun).await;
        tokio::io::AsyncWriteExt::shutdown(&mut server.client).await.unwrap();
        assert_eq!(statuses(&server.responses().await), [400], "{begun}");
        assert!(seen.lock().unwrap()[0].body.is_err(), "{begun}");
    }
}

/// Sends back what comes in.
struct Echo(RequestBody);

impl BodyStream for Echo {
    fn poll_chunk(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.0.poll_chunk(context)
    }
}

fn echo() -> std::sync::Arc<dyn crate::handler::Handler> {
    told(|request| Response::new(Status::OK).with_body(ResponseBody::Stream(Box::pin(Echo(request.body)))))
}

#[tokio::test]
async fn a_body_can_be_answered_while_it_still_comes() {
    let mut server = start(echo());
    server.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let mut got = Vec::new();
    for _ in 0..3 {
        server.send("5\r\nhello\r\n").await;
        while !got.ends_with(b"5\r\nhello\r\n") {
            let mut part = [0; 512];
            let read = tokio::io::AsyncReadExt::read(&mut server.client, &mut part).await.unwrap();
            got.extend_from_slice(&part[..read]);
        }
        got.truncate(got.len() - 1);
    }
    server.send("0\r\n\r\n".to_owned() + CLOSE).await;
    assert!(server.rest().await.starts_with(b"0\r\n\r\nHTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn a_large_body_passes_through_both_ways_whole() {
    let size = 3 * 1024 * 1024;
    let body: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
    for chunk in [700, 65_536, size] {
        let server = start(echo());
        let (mut reader, mut writer) = server.client.into_split();
        let sent = body.clone();
        let sending = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            let head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
            let mut wire = head.to_vec();
            for part in sent.chunks(chunk) {
                wire.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                wire.extend_from_slice(part);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            writer.write_all(&wire).await.unwrap();
            writer
        });
        let mut bytes = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut bytes).await.unwrap();
        let _ = sending.await.unwrap();
        assert!(replies(&bytes)[0].body == body, "{chunk}");
    }
}

/// Memory of a handler's own, filled by the socket.
#[derive(Default)]
struct Own(Mutex<Vec<u8>>);

impl BodyRoom for Own {
    fn receive(&self, socket: BorrowedFd<'_>, most: usize, beyond: &mut [u8]) -> io::Result<usize> {
        let mut bytes = vec![0; most + beyond.len()];
        let (received, _) = rustix::net::recv(socket, &mut bytes[..], rustix::net::RecvFlags::DONTWAIT)?;
        self.0.lock().unwrap().extend_from_slice(&bytes[..received.min(most)]);
        if let Some(after) = received.checked_sub(most) {
            beyond[..after].copy_from_slice(&bytes[most..received]);
        }
        Ok(received)
    }
}

#[tokio::test]
async fn a_body_is_received_where_the_handler_wants_it_and_nothing_behind_it() {
    let size = 100_000;
    let body: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
    let expected = body.clone();
    let direct = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&direct);
    let handler = working(move |mut request| {
        let (expected, seen) = (expected.clone(), Arc::clone(&seen));
        async move {
            let room = Arc::new(Own::default());
            request.body.receive_into(Arc::clone(&room) as Arc<dyn BodyRoom>);
            while let Some(chunk) = request.body.chunk().await {
                let chunk =
                    chunk.map_err(|error| HandlerError::new(Status::BAD_REQUEST, Fault::Client, error.to_string()))?;
                seen.fetch_sub(chunk.len(), Ordering::Relaxed);
                room.0.lock().unwrap().extend_from_slice(&chunk);
            }
            let got = room.0.lock().unwrap();
            seen.fetch_add(got.len(), Ordering::Relaxed);
            Ok(Outcome::Response(text(if *got == expected { b"same" } else { b"other" })))
        }
    });
    for piece in [700, 8192, 65_536, usize::MAX] {
        direct.store(0, Ordering::Relaxed);
        let mut server = start(Arc::clone(&handler));
        let whole = [post(size, "").as_bytes(), &body, post(size, "").as_bytes(), &body, CLOSE.as_bytes()].concat();
        for part in whole.chunks(piece.min(whole.len())) {
            server.send(part).await;
            tokio::task::yield_now().await;
        }
        let bodies: Vec<Vec<u8>> = server.responses().await.into_iter().map(|reply| reply.body).collect();
        assert_eq!(bodies, [&b"same"[..], b"same", b"other"], "{piece}");
        assert!(direct.load(Ordering::Relaxed) > size, "most came without a copy: {piece}");
    }
    // One that is cut is told, as any other.
    let mut server = start(handler);
    server.send([post(size, "").as_bytes(), &body[..90_000]].concat()).await;
    server.client.shutdown().await.unwrap();
    assert_eq!(statuses(&server.responses().await), [400]);
}

#[tokio::test]
async fn a_handler_that_does_not_read_holds_its_client_back() {
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    let wait = std::sync::Mutex::new(Some(wait));
    let mut server = start(working(move |mut request| {
        let wait = wait.lock().unwrap().take();
        async move {
            let _ = wait.expect("one request").await;
            let mut length = 0;
            while let Some(Ok(chunk)) = request.body.chunk().await {
                length += chunk.len();
            }
            Ok(Outcome::Response(text(length.to_string().as_bytes())))
        }
    }));
    let size = 8 * 1024 * 1024;
    server.send(post(size, "Connection: close\r\n")).await;
    let chunk = vec![0; 64 * 1024];
    let mut sent = 0;
    // The sockets' buffers and 64 KiB fill up, then nothing goes any more.
    let mut refusals = 0;
    while refusals < 20 {
        match server.client.try_write(&chunk) {
            Ok(written) => sent += written,
            Err(_) => refusals += 1,
        }
        tokio::task::yield_now().await;
    }
    assert!(sent < size / 2, "{sent}");
    go.send(()).unwrap();
    server.send(vec![0; size - sent]).await;
    assert_eq!(server.responses().await[0].body, size.to_string().as_bytes());
}
