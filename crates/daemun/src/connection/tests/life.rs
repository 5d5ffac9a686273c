//! Connections: kept, drained, reloaded under, left by their clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::support::{recorder, replies, start, start_context, text, told, working};
use crate::connection::{Context, Limits, Phase, Serving, Transport, serve};
use crate::handler::Outcome;
use crate::http::{Endpoint, Response, ResponseBody, Scheme};
use crate::telemetry::{AccessLogger, ErrorLogger, Format, Level};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let mut server = start(told(|request| text(request.head.target())));
    for at in 0..500 {
        server.send(format!("GET /{at} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    }
    server.send("GET /end HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let replies = server.responses().await;
    assert_eq!(replies.len(), 501);
    for (at, reply) in replies.iter().take(500).enumerate() {
        assert_eq!(reply.body, format!("/{at}").into_bytes());
    }
}

#[tokio::test]
async fn a_client_that_asks_for_close_gets_it_said_and_done() {
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
    ] {
        let mut server = start(told(|_| text(b"")));
        server.send(format!("{request}{GET}")).await;
        let replies = server.responses().await;
        assert!(replies.len() == 1 && replies[0].closes(), "{request}");
    }
}

#[tokio::test]
async fn a_client_that_closes_its_sending_half_is_answered() {
    let (go, wait) = oneshot::channel::<()>();
    let wait = std::sync::Mutex::new(Some(wait));
    let mut server = start(working(move |_| {
        let wait = wait.lock().unwrap().take();
        async move {
            let _ = wait.expect("one request").await;
            Ok(Outcome::Response(text(b"hello")))
        }
    }));
    server.send(GET).await;
    server.client.shutdown().await.unwrap();
    for _ in 0..5 {
        tokio::task::yield_now().await;
    }
    go.send(()).unwrap();
    assert_eq!(server.responses().await[0].body, b"hello");
}

/// Says when it is dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A connection over TCP, as the listener makes it.
async fn over_tcp(context: Context) -> (TcpStream, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, address) = listener.accept().await.unwrap();
    let endpoint = Endpoint::new(Some(address), server.local_addr().ok(), Scheme::Http);
    (client, tokio::spawn(serve(Transport::Tcp(server), Arc::new(endpoint), Arc::new(context))))
}

fn context(handler: Arc<dyn crate::handler::Handler>) -> Context {
    Context::new(handler, Limits::default(), AccessLogger::off(), ErrorLogger::off())
}

#[tokio::test]
async fn a_client_that_resets_the_connection_drops_its_request() {
    let dropped = Arc::new(AtomicBool::new(false));
    let watch = Arc::clone(&dropped);
    let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
    let handler = working(move |_| {
        let guard = Dropped(Arc::clone(&watch));
        let _ = begun.send(());
        async move {
            let _guard = guard;
            std::future::pending().await
        }
    });
    let (mut client, task) = over_tcp(context(handler)).await;
    client.write_all(GET.as_bytes()).await.unwrap();
    has_begun.recv().await.unwrap();
    assert!(!dropped.load(Ordering::Acquire));
    // A reset instead of an orderly end.
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    task.await.unwrap();
    assert!(dropped.load(Ordering::Acquire));
}

#[tokio::test]
async fn files_and_bodies_go_over_tcp() {
    let body = bytes::Bytes::from(vec![b'x'; 2_000_000]);
    let sent = body.clone();
    let handler = told(move |_| text(b"").with_body(ResponseBody::Full(sent.clone())));
    let (mut client, task) = over_tcp(context(handler)).await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.unwrap();
    assert!(replies(&bytes)[0].body == body);
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_drain_closes_idle_connections_at_once() {
    let mut server = start(recorder().0);
    server.send(GET).await;
    assert_eq!(server.response("GET").await.status, 200);
    tokio::task::yield_now().await;
    server.context.drain.advance(Phase::AskingForClose);
    tokio::task::yield_now().await;
    assert!(!server.task.is_finished());
    let begin = tokio::time::Instant::now();
    server.context.drain.advance(Phase::Draining);
    assert!(server.rest().await.is_empty());
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_drain_gives_a_new_connection_a_moment_for_its_first_request() {
    let mut silent = start(recorder().0);
    let mut busy = start(recorder().0);
    for server in [&silent, &busy] {
        tokio::task::yield_now().await;
        server.context.drain.advance(Phase::Draining);
    }
    let begin = tokio::time::Instant::now();
    tokio::time::sleep(Duration::from_millis(300)).await;
    busy.send(GET).await;
    assert!(busy.responses().await[0].closes());
    assert!(silent.rest().await.is_empty());
    assert!(begin.elapsed() < Duration::from_millis(600), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_drain_lets_a_request_finish_and_says_that_the_connection_ends() {
    for phase in [Phase::AskingForClose, Phase::Draining] {
        let (go, wait) = oneshot::channel::<()>();
        let wait = std::sync::Mutex::new(Some(wait));
        let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
        let mut server = start(working(move |_| {
            let wait = wait.lock().unwrap().take();
            let _ = begun.send(());
            async move {
                let _ = wait.expect("one request").await;
                Ok(Outcome::Response(text(b"hello")))
            }
        }));
        server.send(GET.repeat(2)).await;
        has_begun.recv().await.unwrap();
        server.context.drain.advance(phase);
        go.send(()).unwrap();
        let replies = server.responses().await;
        assert!(replies.len() == 1 && replies[0].closes() && replies[0].body == b"hello");
    }
}

#[tokio::test]
async fn a_request_that_is_already_there_is_answered_during_a_drain() {
    let mut server = start(recorder().0);
    server.send(GET).await;
    server.context.drain.advance(Phase::Draining);
    let replies = server.responses().await;
    assert!(replies.len() == 1 && replies[0].status == 200 && replies[0].closes());
}

#[tokio::test]
async fn a_reload_changes_the_handler_under_a_kept_connection() {
    let mut server = start(told(|_| text(b"old")));
    server.send(GET).await;
    assert_eq!(server.response("GET").await.body, b"old");
    let handler = told(|_| text(b"new"));
    server.context.serving.store(Arc::new(Serving {
        handler,
        limits: Limits::default(),
        trusted: crate::http::TrustedProxies::default(),
        traces: None,
    }));
    server.send(GET).await;
    assert_eq!(server.response("GET").await.body, b"new");
}

#[tokio::test]
async fn an_idle_connection_keeps_the_old_handler_no_longer_than_its_request() {
    let handler = told(|_| text(b"old"));
    let watch = Arc::downgrade(&handler);
    let mut server = start(handler);
    server.send(GET).await;
    assert_eq!(server.response("GET").await.body, b"old");
    tokio::task::yield_now().await;
    let handler = told(|_| text(b"new"));
    server.context.serving.store(Arc::new(Serving {
        handler,
        limits: Limits::default(),
        trusted: crate::http::TrustedProxies::default(),
        traces: None,
    }));
    assert!(watch.upgrade().is_none());
}

#[tokio::test]
async fn every_request_has_a_line_in_the_log_and_every_error_one_with_its_reference() {
    let (access_read, access_write) = std::io::pipe().unwrap();
    let (error_read, error_write) = std::io::pipe().unwrap();
    let errors = ErrorLogger::start(error_write.into(), Level::Info).unwrap();
    let access = AccessLogger::start(access_write.into(), Format::Combined, errors.clone()).unwrap();
    let handler = told(|request| match request.head.target() {
        b"/panic" => panic!("on\npurpose"),
        _ => Response { timing: crate::http::Timing::default(), ..text(b"hello") },
    });
    let mut server = start_context(Context::new(handler, Limits::default(), access.clone(), errors.clone()));
    server.send("GET /a\"b HTTP/1.1\r\nHost: a\r\nReferer: x\"y\r\nUser-Agent: z\r\n\r\n").await;
    server.send("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let reply = server.responses().await.pop().unwrap();
    let mut refused = start_context(Context::new(recorder().0, Limits::default(), access.clone(), errors.clone()));
    refused.send("G\"ET /x\r\n\r\n").await;
    assert_eq!(refused.responses().await[0].status, 400);
    drop(server);
    refused.task.await.unwrap();
    assert!(access.close(Duration::from_secs(5)) && errors.close(Duration::from_secs(5)));
    drop((access, errors, refused.context));
    let lines = std::io::read_to_string(access_read).unwrap();
    let lines: Vec<_> = lines.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("unix: - - ["));
    assert!(lines[0].contains(r#"] "GET /a\x22b HTTP/1.1" 200 5 "x\x22y" "z" rt=0."#), "{lines:?}");
    assert!(lines[0].ends_with(" queue=- app=-"), "{lines:?}");
    assert!(lines[1].contains("\"GET /panic HTTP/1.1\" 500 "), "{lines:?}");
    assert!(lines[2].contains(r#"] "G\x22ET /x" 400 "#), "{lines:?}");
    let body = String::from_utf8(reply.body).unwrap();
    let reference = body.trim_end().rsplit(' ').next().unwrap();
    let lines = std::io::read_to_string(error_read).unwrap();
    let line = lines.lines().find(|line| line.contains(reference)).expect("the reference stands in the log");
    assert!(line.contains(r" error: a handler panicked: on\x0apurpose (GET /panic, 500, reference "), "{line}");
}

#[tokio::test]
async fn an_idle_connection_is_small() {
    let (_, server) = tokio::net::UnixStream::pair().unwrap();
    let endpoint = Arc::new(Endpoint::new(None, None, Scheme::Http));
    let future = serve(Transport::Unix(server), endpoint, Arc::new(context(recorder().0)));
    let size = std::mem::size_of_val(&future);
    // With the runtime's own share and the socket's registration this stays below the 4 kB that an idle connection
    // may cost.
    assert!(size <= 2560, "{size} bytes");
}

/// `cargo test --release -p daemun -- --ignored --nocapture request_cost`; under `strace -c -f` it shows one read and
/// one write a request.
#[tokio::test]
#[ignore = "a measurement"]
async fn request_cost() {
    let handler = told(|_| text(b"Hello, world!"));
    let requests: u32 = std::env::var("REQUESTS").ok().and_then(|text| text.parse().ok()).unwrap_or(200_000);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let clients = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let mut sockets: Vec<_> = (0..32).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        for _ in 0..requests / 32 {
            for socket in &mut sockets {
                socket.write_all(GET.as_bytes()).unwrap();
            }
            for socket in &mut sockets {
                assert!(socket.read(&mut [0; 1024]).unwrap() > 100);
            }
        }
    });
    let context = Arc::new(context(handler));
    let mut tasks = Vec::new();
    for _ in 0..32 {
        let (server, client) = listener.accept().await.unwrap();
        server.set_nodelay(true).unwrap();
        let endpoint = Arc::new(Endpoint::new(Some(client), None, Scheme::Http));
        tasks.push(tokio::spawn(serve(Transport::Tcp(server), endpoint, Arc::clone(&context))));
    }
    let cpu = || Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime)).unwrap();
    let begin = cpu();
    for task in tasks {
        task.await.unwrap();
    }
    clients.join().unwrap();
    println!("{:?} of CPU a request, clients not counted", cpu().saturating_sub(begin) / requests);
}
