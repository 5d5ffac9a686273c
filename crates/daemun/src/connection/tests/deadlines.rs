//! Deadlines. The clock moves by itself whenever everybody waits, so nothing here takes long.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::support::{Server, recorder, start, start_context, start_with, text, told, working};
use crate::connection::{Context, Limits};
use crate::http::{Response, ResponseBody, Status};
use crate::telemetry::{AccessLogger, ErrorLogger};

/// How long the connection lived, and what it sent.
async fn until_closed(server: &mut Server) -> (Duration, Vec<u8>) {
    let begin = Instant::now();
    let bytes = server.rest().await;
    (begin.elapsed(), bytes)
}

fn about(duration: Duration, seconds: u64) -> bool {
    let want = Duration::from_secs(seconds);
    duration >= want && duration < want + Duration::from_millis(50)
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_that_says_nothing_is_closed_in_silence() {
    let mut server = start(recorder().0);
    let (lived, bytes) = until_closed(&mut server).await;
    assert!(about(lived, 10) && bytes.is_empty(), "{lived:?}");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_whole_is_a_408() {
    let mut server = start(recorder().0);
    server.send("GET / HTTP/1.1\r\nHost: a\r\n").await;
    let (lived, bytes) = until_closed(&mut server).await;
    assert!(about(lived, 10) && bytes.starts_with(b"HTTP/1.1 408 "), "{lived:?}");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_comes_slowly_is_not_given_more_time_for_each_byte() {
    let mut server = start(recorder().0);
    let begin = Instant::now();
    let mut sent = 0;
    for byte in "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n".bytes() {
        if server.client.write_all(&[byte]).await.is_err() {
            break;
        }
        sent += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let bytes = server.rest().await;
    assert!(sent <= 13, "{sent}");
    assert!(bytes.starts_with(b"HTTP/1.1 408 ") && begin.elapsed() < Duration::from_secs(14));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_kept_for_keep_alive_and_then_closed_in_silence() {
    let mut server = start(recorder().0);
    for _ in 0..3 {
        server.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(server.response("GET").await.status, 200);
        tokio::time::sleep(Duration::from_secs(74)).await;
    }
    server.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(server.response("GET").await.status, 200);
    let (lived, bytes) = until_closed(&mut server).await;
    assert!(about(lived, 75) && bytes.is_empty(), "{lived:?}");
}

#[tokio::test(start_paused = true)]
async fn the_head_of_a_later_request_has_its_deadline_from_its_first_byte() {
    let mut server = start(recorder().0);
    server.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(server.response("GET").await.status, 200);
    tokio::time::sleep(Duration::from_secs(30)).await;
    server.send("GET / HT").await;
    let (lived, bytes) = until_closed(&mut server).await;
    assert!(about(lived, 10) && bytes.starts_with(b"HTTP/1.1 408 "), "{lived:?}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_coming_is_a_408() {
    let (handler, seen) = recorder();
    let mut server = start(handler);
    server.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").await;
    let (lived, bytes) = until_closed(&mut server).await;
    assert!(about(lived, 10) && bytes.starts_with(b"HTTP/1.1 408 "), "{lived:?}");
    assert_eq!(seen.lock().unwrap()[0].body, Err(crate::http::BodyError::Slow.to_string()));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_keeps_its_pace_may_take_long() {
    let mut server = start(recorder().0);
    server.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n").await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(8)).await;
        server.send("a").await;
    }
    assert_eq!(server.response("POST").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_busy_handler_does_not_make_its_client_slow() {
    let limits = Limits { header_timeout: Duration::from_secs(1), ..Limits::default() };
    let handler = working(|mut request| async move {
        tokio::time::sleep(Duration::from_secs(100)).await;
        while let Some(chunk) = request.body.chunk().await {
            chunk.expect("the body is whole");
            tokio::time::sleep(Duration::from_secs(100)).await;
        }
        Ok(crate::handler::Outcome::Response(text(b"done")))
    });
    let mut server = start_with(handler, limits);
    server.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    server.send("world").await;
    assert_eq!(server.response("POST").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn an_unread_body_that_does_not_come_ends_the_connection() {
    let mut server = start(told(|_| text(b"no")));
    server.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").await;
    let (lived, bytes) = until_closed(&mut server).await;
    assert!(about(lived, 10) && bytes.starts_with(b"HTTP/1.1 200 "), "{lived:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_cut_after_a_minute() {
    let body = Bytes::from(vec![b'a'; 16 * 1024 * 1024]);
    let mut server = start(told(move |_| Response::new(Status::OK).with_body(ResponseBody::Full(body.clone()))));
    let begin = Instant::now();
    server.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    (&mut server.task).await.unwrap();
    assert!(about(begin.elapsed(), 60), "{:?}", begin.elapsed());
    assert!(server.rest().await.len() < 1024 * 1024);
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_that_goes_on_sending_is_dropped_after_a_second() {
    let mut server = start(recorder().0);
    let begin = Instant::now();
    server.send("GARBAGE\r\n").await;
    assert!(server.rest().await.starts_with(b"HTTP/1.1 400 "));
    (&mut server.task).await.unwrap();
    assert!(about(begin.elapsed(), 1), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_reload_of_the_limits_counts_for_the_next_wait() {
    let (handler, _) = recorder();
    let context = Context::new(handler.clone(), Limits::default(), AccessLogger::off(), ErrorLogger::off());
    let mut server = start_context(context);
    server.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(server.response("GET").await.status, 200);
    let limits = Limits { keep_alive: Duration::from_secs(5), ..Limits::default() };
    server.context.serving.store(std::sync::Arc::new(crate::connection::Serving {
        handler,
        limits,
        trusted: crate::http::TrustedProxies::default(),
        traces: None,
    }));
    server.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(server.response("GET").await.status, 200);
    let (lived, _) = until_closed(&mut server).await;
    assert!(about(lived, 5), "{lived:?}");
}
