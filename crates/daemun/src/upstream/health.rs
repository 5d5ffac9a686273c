//! Asking servers whether they are well, and closing kept connections that nobody needs any more.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use tokio::sync::Notify;

use super::group::Group;
use super::multiplexed;
use super::server::Server;
use super::settings::HealthSettings;
use super::socket::Connection;
use crate::http::Method;
use crate::http::h1::{AnswerFraming, BodyDecoder, ChunkedDecoder, Decoded, HeadLimits, parse_answer, scan_answer};

/// How often the servers are looked at.
const TICK: Duration = Duration::from_millis(250);

/// Bytes of an answer that are read.
const MOST: usize = 64 * 1024;

const LIMITS: HeadLimits = HeadLimits { max_head: MOST, max_request_line: MOST, max_fields: 256 };

/// What the questions to one server came to.
#[derive(Default)]
struct Record {
    due: Option<Instant>,
    wrong: u32,
    right: u32,
    asking: Option<tokio::task::JoinHandle<Result<(), String>>>,
}

impl Group {
    /// Looks after the servers for as long as anybody has the group.
    pub async fn watch(group: Weak<Self>) {
        let mut records: HashMap<String, Record> = HashMap::new();
        let (mut lookups, looked_up) = (BTreeMap::new(), Arc::new(Notify::new()));
        loop {
            let Some(strong) = group.upgrade() else { return };
            strong.follow(&mut lookups, &looked_up).await;
            let serving = strong.serving();
            let settings = &serving.settings;
            for server in &serving.servers {
                server.state.sweep(settings.keep_alive_timeout);
                match &settings.health {
                    Some(health) => {
                        let record = records.entry(server.settings.url.clone()).or_default();
                        strong.look(server, health, record).await;
                    }
                    None => server.state.is_well.store(true, Ordering::Relaxed),
                }
            }
            strong.look_for_slow(&serving);
            Self::look_for_abilities(&serving);
            records.retain(|url, _| serving.servers.iter().any(|server| server.settings.url == *url));
            drop(serving);
            drop(strong);
            // Whoever waits for a name is not to wait for the clock as well.
            let _ = tokio::time::timeout(TICK, looked_up.notified()).await;
        }
    }

    async fn look(&self, server: &Arc<Server>, health: &HealthSettings, record: &mut Record) {
        if let Some(asking) = record.asking.take_if(|asking| asking.is_finished()) {
            let result = asking.await.unwrap_or_else(|error| Err(error.to_string()));
            self.judge(server, health, record, result);
        }
        let now = Instant::now();
        if record.asking.is_none() && record.due.is_none_or(|due| due <= now) {
            record.due = Some(now + health.interval);
            let (server, health) = (Arc::clone(server), health.clone());
            record.asking = Some(tokio::spawn(async move {
                let asked = tokio::time::timeout(health.timeout, ask(&server, &health)).await;
                match asked {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err(format!("no answer within {} s", health.timeout.as_secs_f32())),
                }
            }));
        }
    }

    fn judge(&self, server: &Server, health: &HealthSettings, record: &mut Record, result: Result<(), String>) {
        let (name, url) = (self.name(), server.name());
        let is_well = server.state.is_well.load(Ordering::Relaxed);
        server.state.hear();
        match result {
            Ok(()) => {
                (record.right, record.wrong) = (record.right.saturating_add(1), 0);
                if !is_well && record.right >= health.healthy {
                    server.state.came_back();
                    server.state.is_well.store(true, Ordering::Relaxed);
                    self.changed();
                    (self.tell)(&format!("upstream {name}: {url} is well again"));
                }
            }
            Err(why) => {
                (record.right, record.wrong) = (0, record.wrong.saturating_add(1));
                if is_well && record.wrong >= health.unhealthy {
                    server.state.is_well.store(false, Ordering::Relaxed);
                    (self.tell)(&format!("upstream {name}: {url} is not well and gets nothing: {why}"));
                }
            }
        }
    }
}

/// Asks once, on a connection of its own: one that hangs must not pass for a server that does.
async fn ask(server: &Server, health: &HealthSettings) -> io::Result<()> {
    if server.settings.scheme.is_http2() {
        let host = health.host.as_deref().unwrap_or(server.authority());
        let (code, body) = multiplexed::get(server, host, &health.path, MOST).await?;
        is_right(code, health)?;
        return match &health.body {
            Some(text) if memchr::memmem::find(&body, text.as_bytes()).is_none() => Err(without(text)),
            _ => Ok(()),
        };
    }
    let mut connection = Connection::open(&server.settings.address, server.secured.as_ref()).await?;
    if !server.settings.scheme.is_http() {
        // Each application has its own idea of a question that does no harm; that it accepts is what all have.
        return Ok(());
    }
    let host = health.host.as_deref().unwrap_or(server.authority());
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: daemun-health\r\nConnection: close\r\n\r\n",
        health.path
    );
    connection.socket.write_all(request.as_bytes()).await?;
    connection.socket.flush().await?;
    let mut from = 0;
    let (head, mut input) = loop {
        if connection.socket.read_buf(&mut connection.input).await? == 0 || connection.input.len() > MOST {
            return Err(io::Error::other("it closed the connection before the end of its head"));
        }
        if let Some(end) = scan_answer(&connection.input, &mut from).map_err(io::Error::other)? {
            let head = connection.input.split_to(end).freeze();
            break (parse_answer(&head, Method::Get).map_err(io::Error::other)?, connection.input);
        }
    };
    is_right(head.status.code(), health)?;
    let Some(text) = &health.body else { return Ok(()) };
    let mut decoder = match head.framing {
        AnswerFraming::None => BodyDecoder::Length(0),
        AnswerFraming::Length(length) => BodyDecoder::Length(length),
        AnswerFraming::UntilClose => BodyDecoder::Length(u64::MAX),
        AnswerFraming::Chunked => BodyDecoder::Chunked(ChunkedDecoder::new(LIMITS)),
    };
    let mut body = Vec::new();
    loop {
        match decoder.decode(&mut input).map_err(io::Error::other)? {
            Decoded::Data(bytes) => body.extend_from_slice(&bytes),
            Decoded::End => break,
            Decoded::Partial if body.len() > MOST => break,
            Decoded::Partial => {
                if connection.socket.read_buf(&mut input).await? == 0 {
                    break;
                }
            }
        }
        if memchr::memmem::find(&body, text.as_bytes()).is_some() {
            return Ok(());
        }
    }
    Err(without(text))
}

fn is_right(code: u16, health: &HealthSettings) -> io::Result<()> {
    let is_right = health.status.map_or((200..400).contains(&code), |wanted| wanted == code);
    if is_right { Ok(()) } else { Err(io::Error::other(format!("its status is {code}"))) }
}

fn without(text: &str) -> io::Error {
    io::Error::other(format!("{text:?} does not stand in its body"))
}
