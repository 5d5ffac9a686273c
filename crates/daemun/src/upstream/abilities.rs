//! What a FastCGI server says that it can do (FastCGI, section 4.1): whether requests may share a connection, and how many
//! requests and connections it takes.
//!
//! It is asked on a connection of its own and beside the requests, which go on meanwhile with a connection each: a server
//! that is busy, that does not know the question, or that closes the connection after it (php does) keeps nobody waiting.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use daemun_protocol::fastcgi::{self, Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::group::{Group, Serving};
use super::server::{Server, lock};
use super::settings::Scheme;
use super::socket::Connection;

/// How long an answer may take. A server that answers late is busy, and has no need of being asked again soon.
const PATIENCE: Duration = Duration::from_secs(2);

/// From a question that did not get through to the next.
const SOON: Duration = Duration::from_secs(5);

/// From one that was not answered to the next.
const LATER: Duration = Duration::from_secs(300);

/// Bytes of an answer: three names and numbers, and what a server may say before.
const MOST: usize = 4096;

/// Requests with a body go over shared connections only to servers that take fewer connections than this.
const FEW_CONNECTIONS: usize = 16;

/// What is known of a server's abilities. Until it was asked nothing is shared and nothing limited.
pub(super) struct Abilities {
    shares: AtomicBool,
    requests: AtomicUsize,
    connections: AtomicUsize,
    /// When it is asked; `None` once it has answered.
    due: Mutex<Option<Instant>>,
    is_asking: AtomicBool,
}

/// An answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Said {
    shares: bool,
    requests: usize,
    connections: usize,
}

// === impl Abilities ===

impl Abilities {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            shares: AtomicBool::new(false),
            requests: AtomicUsize::new(usize::MAX),
            connections: AtomicUsize::new(usize::MAX),
            due: Mutex::new(Some(Instant::now())),
            is_asking: AtomicBool::new(false),
        })
    }

    /// Whether a request may go over a connection that others use. One with a body has its own where it can: FastCGI has
    /// no flow control, and a body that its application leaves unread would hold up everything behind it.
    pub(super) fn shares(&self, has_body: bool) -> bool {
        self.shares.load(Ordering::Relaxed) && (!has_body || self.connections() < FEW_CONNECTIONS)
    }

    /// Requests at a time that it takes (`FCGI_MAX_REQS`). Only of those that share connections: others have a backlog, and
    /// their users have always relied on it.
    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Connections at a time that it takes (`FCGI_MAX_CONNS`).
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// It is not what it was: nothing is shared until it has answered anew.
    pub(super) fn forget(&self) {
        self.shares.store(false, Ordering::Relaxed);
        *lock(&self.due) = Some(Instant::now());
    }

    /// It does not share connections after all.
    pub(super) fn refute(&self) {
        self.learn(Said { shares: false, requests: usize::MAX, connections: usize::MAX });
        *lock(&self.due) = Some(Instant::now() + LATER);
    }

    fn learn(&self, said: Said) {
        *lock(&self.due) = None;
        let said = if said.shares { said } else { Said { requests: usize::MAX, connections: usize::MAX, ..said } };
        self.requests.store(said.requests, Ordering::Relaxed);
        self.connections.store(said.connections, Ordering::Relaxed);
        self.shares.store(said.shares, Ordering::Relaxed);
    }

    fn is_due(&self, now: Instant) -> bool {
        lock(&self.due).is_some_and(|due| due <= now)
    }
}

impl Group {
    /// Asks the FastCGI servers that have not told yet.
    pub(super) fn look_for_abilities(serving: &Serving) {
        if serving.settings.keep_alive == 0 {
            return;
        }
        let now = Instant::now();
        for server in serving.servers.iter().filter(|server| server.scheme() == Scheme::Fastcgi) {
            let abilities = &server.state.abilities;
            if abilities.is_due(now) && !abilities.is_asking.swap(true, Ordering::Relaxed) {
                tokio::spawn(learn(Arc::clone(server)));
            }
        }
    }
}

/// Asks a server and takes in what it says.
async fn learn(server: Arc<Server>) {
    let abilities = &server.state.abilities;
    *lock(&abilities.due) = None;
    let asked = tokio::time::timeout(PATIENCE, ask(&server)).await;
    let again = match asked {
        Ok(Ok(Some(said))) => {
            abilities.learn(said);
            if said.shares && said.connections < FEW_CONNECTIONS {
                // What was kept before the answer a server of few cannot spare.
                server.state.sweep(Duration::ZERO);
            }
            None
        }
        Ok(Err(error)) if is_absent(&error) => Some(SOON),
        Ok(Ok(None) | Err(_)) | Err(_) => Some(LATER),
    };
    if let Some(after) = again {
        lock(&abilities.due).get_or_insert(Instant::now() + after);
    }
    abilities.is_asking.store(false, Ordering::Relaxed);
}

/// Whether nobody listens, who may later.
fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind;
    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound | ErrorKind::HostUnreachable)
}

/// Asks once; nothing where the server does not know the question.
async fn ask(server: &Server) -> io::Result<Option<Said>> {
    let mut connection = Connection::open(&server.settings.address, server.secured.as_ref()).await?;
    let mut names = Vec::new();
    for name in fastcgi::VALUES {
        fastcgi::put_pair(&mut names, name.as_bytes(), b"");
    }
    let mut question = Vec::new();
    fastcgi::put_record(&mut question, Kind::GetValues, 0, &names);
    connection.socket.write_all(&question).await?;
    connection.socket.flush().await?;
    loop {
        if let Some(said) = understand(&mut connection.input)? {
            return Ok(said);
        }
        if connection.input.len() > MOST {
            return Err(io::Error::other("its answer is too long"));
        }
        if connection.socket.read_buf(&mut connection.input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The answer, where it is there: within it nothing where the question is not known.
#[expect(clippy::option_option, reason = "whether it is there, and whether it says something")]
fn understand(input: &mut BytesMut) -> io::Result<Option<Option<Said>>> {
    while let Some(record) = fastcgi::take_record(input).map_err(io::Error::other)? {
        match Kind::from_number(record.kind) {
            Some(Kind::GetValuesResult) => {
                let said = fastcgi::parse_pairs(&record.content).map_err(io::Error::other)?;
                return Ok(Some(Some(Said::of(&said))));
            }
            Some(Kind::UnknownType) => return Ok(Some(None)),
            _ => {}
        }
    }
    Ok(None)
}

impl Said {
    /// A number that is none, or 0, says nothing.
    fn of(pairs: &[(&[u8], &[u8])]) -> Self {
        let value = |wanted: &str| pairs.iter().find(|(name, _)| *name == wanted.as_bytes()).map(|&(_, value)| value);
        let number = |wanted| {
            let number = value(wanted).and_then(|value| std::str::from_utf8(value).ok()?.trim().parse::<usize>().ok());
            number.filter(|&number| number > 0).unwrap_or(usize::MAX)
        };
        let [connections, requests, shares] = fastcgi::VALUES;
        Self {
            shares: value(shares).is_some_and(|value| value.trim_ascii() == b"1"),
            requests: number(requests),
            connections: number(connections),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pairs: &[(&str, &str)]) -> Said {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        Said::of(&pairs)
    }

    #[test]
    fn only_a_one_says_that_connections_are_shared() {
        let none = Said { shares: false, requests: usize::MAX, connections: usize::MAX };
        assert_eq!(said(&[]), none);
        for other in ["0", "", "2", "yes", "01"] {
            assert_eq!(said(&[("FCGI_MPXS_CONNS", other)]), none, "{other}");
        }
        let of_one = said(&[("FCGI_MPXS_CONNS", "1"), ("FCGI_MAX_REQS", "50"), ("FCGI_MAX_CONNS", "junk")]);
        assert_eq!(of_one, Said { shares: true, requests: 50, connections: usize::MAX });
        assert_eq!(said(&[("FCGI_MAX_REQS", "0"), ("FCGI_MAX_CONNS", "-1")]), none);
    }

    #[test]
    fn an_answer_is_waited_for_and_a_question_that_is_not_known_is_one() {
        let mut whole = BytesMut::new();
        let mut pair = Vec::new();
        fastcgi::put_pair(&mut pair, b"FCGI_MPXS_CONNS", b"1");
        fastcgi::put_record(&mut whole, Kind::GetValuesResult, 0, &pair);
        for end in 0..whole.len() {
            assert!(understand(&mut BytesMut::from(&whole[..end])).unwrap().is_none(), "{end}");
        }
        assert!(understand(&mut whole).unwrap().unwrap().unwrap().shares);
        fastcgi::put_record(&mut whole, Kind::UnknownType, 0, &[Kind::GetValues as u8, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(understand(&mut whole).unwrap(), Some(None));
        assert!(understand(&mut BytesMut::from("HTTP/1.1 400 Bad Request")).is_err());
    }

    #[test]
    fn limits_hold_only_where_connections_are_shared() {
        let abilities = Abilities::new();
        abilities.learn(Said { shares: false, requests: 1, connections: 1 });
        assert_eq!((abilities.requests(), abilities.connections()), (usize::MAX, usize::MAX));
        abilities.learn(Said { shares: true, requests: 7, connections: 100 });
        assert!(abilities.shares(false) && !abilities.shares(true) && abilities.requests() == 7);
        abilities.learn(Said { shares: true, requests: 7, connections: 1 });
        assert!(abilities.shares(true), "it has no connection to spare for a body");
        abilities.refute();
        assert!(!abilities.shares(false) && abilities.requests() == usize::MAX);
        assert!(!abilities.is_due(Instant::now()));
        abilities.forget();
        assert!(abilities.is_due(Instant::now()));
    }
}
