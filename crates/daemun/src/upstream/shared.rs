//! FastCGI connections that requests share (FastCGI, section 3.3), where their server says that it can.
//!
//! A [`Stream`] is to its request what a connection of its own would be: it takes the records of the request and gives
//! those of its answer, and nothing of anybody else's. One task for each connection, the `Carrier`, moves bytes between the
//! socket and the streams:
//! 1. What streams have put in goes out, whole records of one after those of another.
//! 2. What comes in goes to the stream with its number; a record for a number that is not in use breaks the connection,
//!    since nobody knows any more whose bytes are whose. Numbers are taken in turn, so that a late record meets none.
//! 3. A request that nobody wants any more is aborted, and its number is free once the server has ended it.
//!
//! FastCGI has no flow control: what a client does not take stops everybody on the connection. An answer that waits holds
//! the connection up for a moment only, then it is given up; one that is long gets no more company.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use daemun_protocol::fastcgi::{self, Ending, Kind, Record};
use tokio::io::{AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::abilities::Abilities;
use super::server::lock;
use super::socket::Socket;
use crate::alarm::Alarm;

/// Requests at a time over one connection, whatever the server takes: the bytes of all of them wait for one another.
const MOST_REQUESTS: usize = 100;

/// Bytes of requests that wait for the socket before more are waited for.
const MOST_OUT: usize = 256 * 1024;

/// Bytes of one answer that wait for its request before nothing more is read. What is read ahead of a slow client
/// (`response_buffering`) is not among them.
const MOST_WAITING: usize = 256 * 1024;

/// Bytes of an answer that is still coming from which on no other request joins it.
const LONG: u64 = 1 << 20;

/// How long an answer that is not taken may hold up others.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a server may take to end requests that were aborted while it has no other.
const LEFT: Duration = Duration::from_secs(10);

/// Bytes that are read at a time.
const READ: usize = 64 * 1024;

/// A connection that requests share. Dropping it lets those that have begun finish, and no other begin.
pub(super) struct Opened {
    line: Arc<Mutex<Line>>,
    /// The event loop that it lives in.
    shard: usize,
}

/// A request's place on such a connection, and its bytes. A request that has not come to its end is aborted by dropping it.
pub struct Stream {
    line: Arc<Mutex<Line>>,
    id: u16,
}

/// Why an answer was given up: not the server's fault.
#[derive(Debug, thiserror::Error)]
#[error("its client took nothing of it, and others waited for that on the same connection")]
pub struct TooSlow;

/// What both ends share.
#[derive(Default)]
struct Line {
    answers: HashMap<u16, Answer>,
    /// The number that was given last.
    last: u16,
    out: BytesMut,
    /// Who waits for room in `out`.
    writers: Vec<Waker>,
    carrier: Option<Waker>,
    /// No other request begins.
    is_closing: bool,
    end: Option<End>,
    used: Option<Instant>,
}

/// What comes for one request.
#[derive(Default)]
struct Answer {
    /// Whole records.
    input: BytesMut,
    reader: Option<Waker>,
    received: u64,
    /// Whether the server has been told of the request.
    has_begun: bool,
    /// Whether it has ended it.
    is_over: bool,
    fate: Fate,
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Fate {
    /// Somebody waits for it.
    #[default]
    Wanted,
    /// It was aborted because nobody took it.
    TooSlow,
    /// It was aborted because nobody wants it.
    Left,
}

/// How a connection ended.
#[derive(Clone, Debug)]
enum End {
    /// Without a word.
    Closed,
    Broken(String),
}

/// A place on one of these connections, if one has room: of this event loop, or of any where the server takes no more
/// connections.
pub(super) fn take(opened: &mut Vec<Opened>, shard: usize, abilities: &Abilities) -> Option<Stream> {
    opened.retain(|one| !lock(&one.line).is_closing);
    let most = abilities.requests().min(MOST_REQUESTS);
    let joined = opened.iter().filter(|one| one.shard == shard).find_map(|one| one.join(most, false));
    if joined.is_some() || opened.len() < abilities.connections() {
        return joined;
    }
    opened.iter().find_map(|one| one.join(most, true))
}

/// Makes a connection one that requests share, with a place on it.
pub(super) fn open(socket: Socket, shard: usize, abilities: &Arc<Abilities>) -> (Opened, Stream) {
    let opened = Opened { line: Arc::default(), shard };
    let stream = opened.begin(&mut lock(&opened.line), 1);
    let carrier = Carrier {
        socket,
        line: Arc::clone(&opened.line),
        abilities: Arc::clone(abilities),
        input: BytesMut::new(),
        writing: BytesMut::new(),
        is_deaf: false,
        stalled_since: None,
        left_since: None,
        alarm: Alarm::default(),
    };
    tokio::spawn(carrier.run());
    (opened, stream)
}

/// Forgets connections that have had nothing to do for so long.
pub(super) fn sweep(opened: &mut Vec<Opened>, timeout: Duration) {
    opened.retain(|one| {
        let line = lock(&one.line);
        let is_idle = line.answers.is_empty() && line.used.is_none_or(|used| used.elapsed() >= timeout);
        !is_idle && !line.is_closing
    });
}

// === impl TooSlow ===

impl TooSlow {
    /// Whether this is what an error comes of.
    pub fn is_why(error: &io::Error) -> bool {
        error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()).is_some()
    }
}

// === impl Opened ===

impl Opened {
    /// A place, if there is room. Nobody who has the choice waits behind a long answer.
    fn join(&self, most: usize, has_no_choice: bool) -> Option<Stream> {
        let mut line = lock(&self.line);
        let is_long = |answer: &Answer| answer.received > LONG && !answer.is_over;
        let is_full = line.answers.len() >= most;
        if line.is_closing || is_full || !has_no_choice && line.answers.values().any(is_long) {
            return None;
        }
        let id = (1..=u16::MAX).map(|step| line.last.wrapping_add(step)).find(|id| *id != 0 && !line.has(*id))?;
        Some(self.begin(&mut line, id))
    }

    fn begin(&self, line: &mut Line, id: u16) -> Stream {
        line.last = id;
        line.used = Some(Instant::now());
        line.answers.insert(id, Answer::default());
        Stream { line: Arc::clone(&self.line), id }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut line = lock(&self.line);
        line.is_closing = true;
        wake(&mut line.carrier);
    }
}

// === impl Line ===

impl Line {
    fn has(&self, id: u16) -> bool {
        self.answers.contains_key(&id)
    }

    /// The server is told that a request is not wanted.
    fn abort(&mut self, id: u16) {
        fastcgi::put_record(&mut self.out, Kind::AbortRequest, id, b"");
        wake(&mut self.carrier);
    }

    /// Gives a record to its request.
    fn give(&mut self, record: &Record, abilities: &Abilities) -> Result<(), String> {
        // What the server says of itself.
        if record.id == 0 {
            return Ok(());
        }
        let answer = self.answers.get_mut(&record.id);
        let Some(answer) = answer.filter(|answer| answer.has_begun && !answer.is_over) else {
            return Err("it answers a request that was not sent".to_owned());
        };
        let Some(kind @ (Kind::Stdout | Kind::Stderr | Kind::EndRequest)) = Kind::from_number(record.kind) else {
            return Err("a record stands where none of its kind can".to_owned());
        };
        let ending = match kind {
            Kind::EndRequest => Some(fastcgi::parse_end(&record.content).map_err(|error| error.to_string())?.1),
            _ => None,
        };
        if answer.fate == Fate::Wanted {
            fastcgi::put_record(&mut answer.input, kind, record.id, &record.content);
            answer.received += record.content.len() as u64;
            wake(&mut answer.reader);
        }
        if let Some(ending) = ending {
            if ending == Ending::CannotMultiplex {
                abilities.refute();
                self.is_closing = true;
            }
            answer.is_over = true;
            if answer.fate == Fate::Left {
                self.answers.remove(&record.id);
            }
        }
        Ok(())
    }

    /// Whether an answer waits that holds up everything behind it.
    fn is_stalled(&self) -> bool {
        self.answers.values().any(Answer::is_full)
    }

    /// Answers that somebody waits for.
    fn coming(&self) -> usize {
        self.answers.values().filter(|answer| answer.is_coming()).count()
    }

    /// Gives answers up that nobody takes.
    fn give_up(&mut self) {
        let full: Vec<u16> = self.answers.iter().filter(|(_, answer)| answer.is_full()).map(|(id, _)| *id).collect();
        for id in full {
            if let Some(answer) = self.answers.get_mut(&id) {
                answer.fate = Fate::TooSlow;
                answer.input = BytesMut::new();
                wake(&mut answer.reader);
            }
            self.abort(id);
        }
    }

    /// The connection has ended: whoever waits for it is told.
    fn finish(&mut self, end: End) {
        self.is_closing = true;
        self.end.get_or_insert(end);
        self.answers.values_mut().for_each(|answer| wake(&mut answer.reader));
        self.writers.drain(..).for_each(Waker::wake);
    }
}

impl Answer {
    fn is_coming(&self) -> bool {
        self.fate == Fate::Wanted && !self.is_over
    }

    fn is_full(&self) -> bool {
        self.is_coming() && self.input.len() >= MOST_WAITING
    }
}

// === impl Stream ===

impl Stream {
    /// The number of the request, which its records have.
    pub fn id(&self) -> u16 {
        self.id
    }

    /// Takes whole records: all of them, or none while too many wait.
    pub(super) fn poll_write(&mut self, context: &mut Context<'_>, records: &[u8]) -> Poll<io::Result<usize>> {
        let mut line = lock(&self.line);
        let line = &mut *line;
        let answer = line.answers.get_mut(&self.id).filter(|answer| answer.fate == Fate::Wanted);
        let (Some(answer), None) = (answer, &line.end) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if line.out.len() >= MOST_OUT {
            line.writers.push(context.waker().clone());
            return Poll::Pending;
        }
        answer.has_begun = true;
        line.out.extend_from_slice(records);
        wake(&mut line.carrier);
        Poll::Ready(Ok(records.len()))
    }

    /// Gives what has come of the answer; nothing at the end of the connection.
    pub(super) fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut line = lock(&self.line);
        let line = &mut *line;
        let Some(answer) = line.answers.get_mut(&self.id) else { return Poll::Ready(Ok(())) };
        if !answer.input.is_empty() {
            let was_full = answer.is_full();
            let length = buffer.remaining().min(answer.input.len());
            buffer.put_slice(&answer.input[..length]);
            answer.input.advance(length);
            if was_full && !answer.is_full() {
                wake(&mut line.carrier);
            }
            return Poll::Ready(Ok(()));
        }
        match (answer.fate, &line.end) {
            (Fate::TooSlow, _) => Poll::Ready(Err(io::Error::other(TooSlow))),
            _ if answer.is_over => Poll::Ready(Ok(())),
            (_, Some(End::Closed)) => Poll::Ready(Ok(())),
            (_, Some(End::Broken(why))) => Poll::Ready(Err(io::Error::other(why.clone()))),
            (_, None) => {
                answer.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut line = lock(&self.line);
        let line = &mut *line;
        line.used = Some(Instant::now());
        let Some(answer) = line.answers.get_mut(&self.id) else { return };
        let was_told = answer.fate == Fate::TooSlow;
        if answer.has_begun && !answer.is_over && line.end.is_none() {
            *answer = Answer { has_begun: true, fate: Fate::Left, ..Answer::default() };
            if !was_told {
                line.abort(self.id);
            }
        } else {
            line.answers.remove(&self.id);
        }
        // It may have waited for just this.
        wake(&mut line.carrier);
    }
}

/// Moves the bytes of a connection.
struct Carrier {
    socket: Socket,
    line: Arc<Mutex<Line>>,
    abilities: Arc<Abilities>,
    input: BytesMut,
    writing: BytesMut,
    /// The server takes nothing more; what it has to say is still read.
    is_deaf: bool,
    /// Since when an answer holds others up.
    stalled_since: Option<Instant>,
    /// Since when there are none but aborted requests.
    left_since: Option<Instant>,
    alarm: Alarm,
}

// === impl Carrier ===

impl Carrier {
    async fn run(mut self) {
        let end = std::future::poll_fn(|context| self.poll(context)).await;
        let mut line = lock(&self.line);
        if line.coming() > 0 {
            // Somebody waited for it: whatever serves there now may not be what it was.
            self.abilities.forget();
        }
        line.finish(end);
    }

    /// Ready when the connection is at its end.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<End> {
        loop {
            let (is_done, is_stalled, deadline) = self.look(context);
            if is_done {
                return Poll::Ready(End::Closed);
            }
            if self.poll_send(context) {
                continue;
            }
            if !is_stalled {
                match self.poll_fill(context) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(End::Closed),
                    Poll::Ready(Ok(_)) => match self.understand() {
                        Ok(()) => continue,
                        Err(why) => return Poll::Ready(End::Broken(why)),
                    },
                    Poll::Ready(Err(error)) => return Poll::Ready(End::Broken(error.to_string())),
                    Poll::Pending => {}
                }
            }
            let Some(at) = deadline else { return Poll::Pending };
            std::task::ready!(self.alarm.poll(context, at));
            if self.stalled_since.take().is_none() {
                return Poll::Ready(End::Broken("it does not end requests that were aborted".to_owned()));
            }
            lock(&self.line).give_up();
        }
    }

    /// Takes what is to go out; whether all is done, whether nothing is read for now, and when somebody is late.
    fn look(&mut self, context: &mut Context<'_>) -> (bool, bool, Option<Instant>) {
        let mut line = lock(&self.line);
        line.carrier = Some(context.waker().clone());
        if self.is_deaf {
            line.out.clear();
        }
        if self.writing.is_empty() && !line.out.is_empty() {
            self.writing = line.out.split();
            line.writers.drain(..).for_each(Waker::wake);
        }
        let is_done = line.is_closing && line.answers.is_empty() && self.writing.is_empty();
        let (is_stalled, coming, now) = (line.is_stalled(), line.coming(), Instant::now());
        let since = |before: Option<Instant>, is_so: bool| is_so.then(|| before.unwrap_or(now));
        self.stalled_since = since(self.stalled_since, is_stalled && coming > 1);
        self.left_since = since(self.left_since, coming == 0 && !line.answers.is_empty());
        let stalled = self.stalled_since.map(|since| since + PATIENCE);
        (is_done, is_stalled, stalled.or(self.left_since.map(|since| since + LEFT)))
    }

    /// True where all that was taken went out.
    fn poll_send(&mut self, context: &mut Context<'_>) -> bool {
        if self.writing.is_empty() {
            return false;
        }
        while !self.writing.is_empty() {
            match Pin::new(&mut self.socket).poll_write(context, &self.writing) {
                Poll::Ready(Ok(0) | Err(_)) => {
                    self.is_deaf = true;
                    lock(&self.line).is_closing = true;
                    self.writing.clear();
                }
                Poll::Ready(Ok(written)) => self.writing.advance(written),
                Poll::Pending => return false,
            }
        }
        true
    }

    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() - self.input.len() < READ / 4 {
            self.input.reserve(READ);
        }
        let reading = tokio::io::AsyncReadExt::read_buf(&mut self.socket, &mut self.input);
        std::future::Future::poll(std::pin::pin!(reading), context)
    }

    /// Gives what has come to whom it belongs.
    fn understand(&mut self) -> Result<(), String> {
        let mut line = lock(&self.line);
        while let Some(record) = fastcgi::take_record(&mut self.input).map_err(|error| error.to_string())? {
            line.give(&record, &self.abilities)?;
        }
        Ok(())
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        // By a panic or with its event loop: nobody is left waiting.
        lock(&self.line).finish(End::Closed);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::super::socket::Plain;
    use super::*;

    /// A connection with one request, and its server.
    struct Both {
        abilities: Arc<Abilities>,
        opened: Vec<Opened>,
        server: UnixStream,
        heard: BytesMut,
    }

    fn both() -> (Both, Stream) {
        let (ours, server) = UnixStream::pair().unwrap();
        let abilities = Abilities::new();
        let (opened, stream) = open(Socket::Plain(Plain::Unix(ours)), 0, &abilities);
        (Both { abilities, opened: vec![opened], server, heard: BytesMut::new() }, stream)
    }

    impl Both {
        fn take(&mut self) -> Option<Stream> {
            take(&mut self.opened, 0, &self.abilities)
        }

        /// The next record that the server hears; `None` at the end.
        async fn hear(&mut self) -> Option<(Kind, u16)> {
            loop {
                if let Some(record) = fastcgi::take_record(&mut self.heard).unwrap() {
                    return Some((Kind::from_number(record.kind).unwrap(), record.id));
                }
                if self.server.read_buf(&mut self.heard).await.unwrap() == 0 {
                    return None;
                }
            }
        }

        async fn say(&mut self, kind: Kind, id: u16, content: &[u8]) {
            let mut out = Vec::new();
            fastcgi::put_record(&mut out, kind, id, content);
            self.server.write_all(&out).await.unwrap();
        }

        async fn end(&mut self, id: u16) {
            self.say(Kind::EndRequest, id, &[0; 8]).await;
        }
    }

    async fn begin(stream: &mut Stream) {
        let mut out = Vec::new();
        fastcgi::put_begin(&mut out, stream.id, true);
        assert_eq!(poll_fn(|context| stream.poll_write(context, &out)).await.unwrap(), out.len());
    }

    /// What comes next for a request: kind and content.
    async fn next(stream: &mut Stream) -> io::Result<Option<(Kind, Vec<u8>)>> {
        let mut input = BytesMut::new();
        loop {
            if let Some(record) = fastcgi::take_record(&mut input).unwrap() {
                assert_eq!(record.id, stream.id);
                return Ok(Some((Kind::from_number(record.kind).unwrap(), record.content.to_vec())));
            }
            // One record at a time.
            let wanted = if input.len() < 8 { 8 } else { usize::from(input[4]) << 8 | usize::from(input[5]) };
            let mut bytes = vec![0; wanted];
            let mut buffer = ReadBuf::new(&mut bytes);
            poll_fn(|context| stream.poll_read(context, &mut buffer)).await?;
            if buffer.filled().is_empty() {
                return Ok(None);
            }
            input.extend_from_slice(buffer.filled());
        }
    }

    #[tokio::test]
    async fn answers_that_come_in_turns_go_to_whom_they_belong() {
        let (mut both, mut one) = both();
        let mut two = both.take().unwrap();
        begin(&mut one).await;
        begin(&mut two).await;
        assert_eq!(both.hear().await, Some((Kind::BeginRequest, 1)));
        assert_eq!(both.hear().await, Some((Kind::BeginRequest, 2)));
        for (id, text) in [(2, "b"), (1, "a"), (2, "d"), (1, "c")] {
            both.say(Kind::Stdout, id, text.as_bytes()).await;
        }
        both.say(Kind::GetValuesResult, 0, b"").await;
        both.end(2).await;
        both.end(1).await;
        for (stream, texts) in [(&mut one, ["a", "c"]), (&mut two, ["b", "d"])] {
            for text in texts {
                assert_eq!(next(stream).await.unwrap(), Some((Kind::Stdout, text.into())));
            }
            assert_eq!(next(stream).await.unwrap(), Some((Kind::EndRequest, vec![0; 8])));
            assert_eq!(next(stream).await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn a_number_is_free_once_the_server_has_ended_its_request() {
        let (mut both, mut one) = both();
        begin(&mut one).await;
        assert_eq!(both.hear().await, Some((Kind::BeginRequest, 1)));
        drop(one);
        assert_eq!(both.hear().await, Some((Kind::AbortRequest, 1)));
        lock(&both.opened[0].line).last = u16::MAX;
        let mut other = both.take().unwrap();
        assert_eq!(other.id, 2, "0 is the connection's, and 1 is not over");
        begin(&mut other).await;
        assert_eq!(both.hear().await, Some((Kind::BeginRequest, 2)));
        // What still comes for the one that was left is nobody's.
        both.say(Kind::Stdout, 1, b"late").await;
        both.end(1).await;
        both.say(Kind::Stdout, 2, b"own").await;
        assert_eq!(next(&mut other).await.unwrap(), Some((Kind::Stdout, b"own".to_vec())));
        lock(&both.opened[0].line).last = 0;
        assert_eq!(both.take().unwrap().id, 1);
    }

    #[tokio::test]
    async fn a_place_that_was_not_used_costs_its_server_nothing() {
        let (mut both, one) = both();
        drop(one);
        let mut other = both.take().unwrap();
        begin(&mut other).await;
        assert_eq!(both.hear().await, Some((Kind::BeginRequest, 2)));
    }

    #[tokio::test]
    async fn records_that_are_nobodys_end_the_connection_for_all() {
        let garbage: [(Kind, u16, &[u8], &str); 5] = [
            (Kind::Stdout, 9, b"x", "a request that was not sent"),
            (Kind::Stdout, 3, b"x", "a request that was not sent"),
            (Kind::EndRequest, 2, b"x", "length"),
            (Kind::EndRequest, 2, b"\0\0\0\0\x09\0\0\0", "does not exist"),
            (Kind::Params, 1, b"x", "none of its kind"),
        ];
        for (kind, id, content, told) in garbage {
            let (mut both, mut one) = both();
            let mut two = both.take().unwrap();
            // 3 is a place that its request has not begun on.
            let _three = both.take().unwrap();
            begin(&mut one).await;
            begin(&mut two).await;
            assert!(both.hear().await.is_some() && both.hear().await.is_some());
            both.say(kind, id, content).await;
            for stream in [&mut one, &mut two] {
                let error = loop {
                    match next(stream).await {
                        Ok(got) => assert!(got.is_some(), "{told}"),
                        Err(error) => break error.to_string(),
                    }
                };
                assert!(error.contains(told), "{error}");
            }
            assert_eq!(both.hear().await, None);
            assert!(both.take().is_none());
        }
    }

    #[tokio::test]
    async fn an_end_before_its_time_is_told_to_all_who_wait() {
        let (mut both, mut one) = both();
        let mut two = both.take().unwrap();
        begin(&mut one).await;
        begin(&mut two).await;
        both.abilities.refute();
        drop(std::mem::replace(&mut both.server, UnixStream::pair().unwrap().0));
        for stream in [&mut one, &mut two] {
            // A reset where the server had not read what was sent.
            assert!(!matches!(next(stream).await, Ok(Some(_))));
            assert!(poll_fn(|context| stream.poll_write(context, b"more")).await.is_err());
        }
        assert!(both.take().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_taken_holds_others_up_for_a_moment_only() {
        let (mut both, mut slow) = both();
        let mut quick = both.take().unwrap();
        begin(&mut slow).await;
        begin(&mut quick).await;
        assert!(both.hear().await.is_some() && both.hear().await.is_some());
        let part = vec![b'x'; fastcgi::MAX_CONTENT];
        let much = 3 * MOST_WAITING / part.len();
        let (mut server, waited) = (both.server, Instant::now());
        let saying = tokio::spawn(async move {
            let mut out = Vec::new();
            for _ in 0..much {
                fastcgi::put_record(&mut out, Kind::Stdout, 1, &part);
            }
            fastcgi::put_record(&mut out, Kind::Stdout, 2, b"after it");
            server.write_all(&out).await.unwrap();
            server
        });
        assert_eq!(next(&mut quick).await.unwrap(), Some((Kind::Stdout, b"after it".to_vec())));
        assert!(waited.elapsed() >= PATIENCE && waited.elapsed() < 2 * PATIENCE);
        let error = next(&mut slow).await.unwrap_err();
        assert!(TooSlow::is_why(&error), "{error}");
        both.server = saying.await.unwrap();
        assert_eq!(both.hear().await, Some((Kind::AbortRequest, 1)));
        drop(slow);
        both.end(1).await;
        both.end(2).await;
        assert_eq!(next(&mut quick).await.unwrap(), Some((Kind::EndRequest, vec![0; 8])));
        assert!(both.take().is_some(), "the others go on");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_has_its_connection_for_itself_is_waited_for() {
        let (mut both, mut slow) = both();
        begin(&mut slow).await;
        assert!(both.hear().await.is_some());
        let part = vec![b'x'; fastcgi::MAX_CONTENT];
        let much = 2 * LONG as usize / part.len();
        let mut server = both.server;
        let saying = tokio::spawn(async move {
            let mut out = Vec::new();
            for _ in 0..much {
                fastcgi::put_record(&mut out, Kind::Stdout, 1, &part);
            }
            server.write_all(&out).await.unwrap();
            server
        });
        tokio::time::sleep(100 * PATIENCE).await;
        assert!(!saying.is_finished(), "the server is held up");
        for _ in 0..much {
            let (kind, content) = next(&mut slow).await.unwrap().unwrap();
            assert_eq!((kind, content.len()), (Kind::Stdout, fastcgi::MAX_CONTENT));
        }
        both.server = saying.await.unwrap();
        assert!(take(&mut both.opened, 0, &both.abilities).is_none(), "nobody joins a long answer");
        both.end(1).await;
        assert_eq!(next(&mut slow).await.unwrap(), Some((Kind::EndRequest, vec![0; 8])));
        assert!(take(&mut both.opened, 0, &both.abilities).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_given_up_ends_with_its_last_request() {
        let (mut both, mut one) = both();
        begin(&mut one).await;
        assert!(both.hear().await.is_some());
        both.opened.clear();
        both.say(Kind::Stdout, 1, b"still").await;
        assert_eq!(next(&mut one).await.unwrap(), Some((Kind::Stdout, b"still".to_vec())));
        both.end(1).await;
        assert!(next(&mut one).await.unwrap().is_some());
        drop(one);
        assert_eq!(both.hear().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_ends_what_was_aborted_is_left() {
        let (mut both, mut one) = both();
        begin(&mut one).await;
        drop(one);
        assert_eq!(both.hear().await, Some((Kind::BeginRequest, 1)));
        assert_eq!(both.hear().await, Some((Kind::AbortRequest, 1)));
        let waited = Instant::now();
        assert_eq!(both.hear().await, None);
        assert!(waited.elapsed() >= LEFT && waited.elapsed() < 2 * LEFT);
    }

    #[tokio::test]
    async fn a_connection_has_no_more_requests_than_its_server_takes() {
        let (mut both, one) = both();
        let streams: Vec<Stream> = std::iter::from_fn(|| both.take()).collect();
        assert_eq!(streams.len() + 1, MOST_REQUESTS);
        sweep(&mut both.opened, Duration::ZERO);
        assert_eq!(both.opened.len(), 1, "it is in use");
        drop((one, streams));
        sweep(&mut both.opened, Duration::ZERO);
        assert!(both.opened.is_empty());
        assert_eq!(both.hear().await, None);
    }
}
