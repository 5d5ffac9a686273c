//! A connection of another web server that speaks FastCGI, SCGI or uwsgi to us: an application is offered to it.
//!
//! 1. A head is read under a deadline: a packet (uwsgi), a netstring (SCGI), records (FastCGI).
//! 2. [`http::variables`](crate::http::variables) makes the same head of it that HTTP makes, or refuses it.
//! 3. The handler is asked as for any request ([`answer`]); its body comes as the peer sends it.
//! 4. The answer goes out as the protocol has it ([`outbox`]): a CGI head and the body, in records for FastCGI.
//!
//! All requests of a connection are polled in its one task. Of FastCGI several run at a time, and a connection goes on
//! where the peer asks for that; the others have one request. An answer that fails ends the connection with a reset, once
//! the others on it are through: otherwise half of it would pass for all.

mod answer;
mod outbox;
mod streams;

use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use daemun_protocol::pairs::pairs;
use daemun_protocol::{fastcgi, scgi, uwsgi};
use tokio::time::Instant;

use super::buffers::BODY_SIZE;
use super::drain::Phase;
use super::life::{Connection, DRAIN_NEW, Ending};
use super::wire::Wire;
use crate::alarm::Alarm;
use crate::http::h1::HeadLimits;
use crate::http::variables::{ReadVariables, read_variables};
use crate::listener::Protocol;
use crate::telemetry::Level;
use streams::{MAX_STREAMS, Stream, Streams};

/// Bytes of answers that wait for the socket.
const MOST_OUT: usize = 128 * 1024;

/// The request of a connection that has just one.
const ONLY: u16 = 1;

/// How a peer's connection ends.
enum Over {
    /// Everything is said.
    Done,
    /// The peer is gone, or an answer failed: nobody must take what was sent for all of it.
    Cut,
    /// What came is not the protocol.
    Malformed(String),
}

impl Connection {
    /// Serves a peer to its end.
    pub(in crate::connection) async fn run_gateway(&mut self, protocol: Protocol) -> Ending {
        let serving = self.context.serving.load_full();
        let is_trusted = serving.trusted.trusts(&self.endpoint);
        let limits = &serving.limits;
        let mut life = Life {
            protocol,
            is_trusted,
            limits: HeadLimits::from(limits),
            max_connections: limits.max_connections,
            patience: limits.header_timeout,
            keep_alive: limits.keep_alive,
            streams: Streams::new(Arc::clone(&self.context), Arc::clone(&self.endpoint), protocol),
            has_begun: false,
            ends_after: protocol != Protocol::Fastcgi,
            last: Instant::now(),
            is_new: true,
            alarm: Alarm::default(),
        };
        let over = std::future::poll_fn(|task| {
            self.place.register(&self.context.drain, task);
            life.poll(&mut self.wire, task, self.context.drain.phase())
        });
        match over.await {
            Over::Done => Ending::Linger,
            Over::Cut => {
                self.wire.transport.reset_on_close();
                Ending::Cut
            }
            Over::Malformed(why) => {
                let peer = self.endpoint.client().map_or("unix:", |peer| &peer.ip);
                self.context
                    .errors
                    .log(Level::Warning, format_args!("a {protocol} connection of {peer} was ended: {why}"));
                Ending::Linger
            }
        }
    }
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Life {
    protocol: Protocol,
    is_trusted: bool,
    limits: HeadLimits,
    max_connections: usize,
    patience: Duration,
    keep_alive: Duration,
    streams: Streams,
    /// Whether the request of a connection that has just one has begun.
    has_begun: bool,
    /// Whether it ends with its last request.
    ends_after: bool,
    /// When something came last.
    last: Instant,
    is_new: bool,
    alarm: Alarm,
}

impl Life {
    fn poll(&mut self, wire: &mut Wire, task: &mut Task<'_>, phase: Phase) -> Poll<Over> {
        loop {
            let mut progress = self.streams.poll(task);
            progress |= self.streams.drain_into(&mut wire.output, MOST_OUT);
            match wire.poll_send(task, &mut Bytes::new()) {
                Poll::Ready(Err(_)) => return Poll::Ready(Over::Cut),
                Poll::Ready(Ok(())) if self.streams.is_broken() => return Poll::Ready(Over::Cut),
                Poll::Ready(Ok(())) if self.is_over(wire, phase) => return Poll::Ready(Over::Done),
                Poll::Ready(Ok(())) => progress |= self.streams.has_more_out(),
                Poll::Pending => {}
            }
            match self.understand(wire) {
                Ok(understood) => progress |= understood,
                Err(why) => return Poll::Ready(Over::Malformed(why)),
            }
            if progress {
                continue;
            }
            if !wire.is_ended && self.streams.may_read() {
                match wire.poll_fill(task, BODY_SIZE) {
                    Poll::Ready(Ok(read)) => {
                        if read == 0 {
                            self.streams.ended();
                        }
                        self.last = Instant::now();
                        self.is_new = false;
                        continue;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Over::Cut),
                    Poll::Pending => {}
                }
            }
            let Some(at) = self.deadline(wire, phase) else { return Poll::Pending };
            ready!(self.alarm.poll(task, at));
            self.last = Instant::now();
            if !self.streams.too_slow() {
                return Poll::Ready(Over::Done);
            }
        }
    }

    /// Whether nothing is left to be done here.
    fn is_over(&self, wire: &Wire, phase: Phase) -> bool {
        if !self.streams.is_empty() {
            return false;
        }
        let is_leaving = self.ends_after || phase == Phase::Draining;
        wire.is_ended || is_leaving && (self.has_begun || phase == Phase::Draining && !self.is_new)
    }

    /// When whoever is waited for is late.
    fn deadline(&self, wire: &Wire, phase: Phase) -> Option<Instant> {
        let patience = match () {
            () if self.streams.waits_for_peer() => self.patience,
            () if !self.streams.is_empty() => return None,
            () if self.is_new && phase == Phase::Draining => DRAIN_NEW,
            () if self.is_new || !wire.input.is_empty() || self.ends_after => self.patience,
            () => self.keep_alive,
        };
        Some(self.last + patience)
    }

    /// Acts on what has come; true where that was something.
    fn understand(&mut self, wire: &mut Wire) -> Result<bool, String> {
        let input = &mut wire.input;
        if self.protocol == Protocol::Fastcgi {
            if !self.streams.may_read() {
                return Ok(false);
            }
            let Some(record) = fastcgi::take_record(input).map_err(|error| error.to_string())? else {
                return Ok(false);
            };
            return self.record(record, &mut wire.output).map(|()| true);
        }
        if self.has_begun {
            if input.is_empty() || !self.streams.may_read() {
                return Ok(false);
            }
            let length = self.streams.wanted(ONLY).min(input.len() as u64) as usize;
            if length == 0 {
                // What comes behind a request is nobody's.
                input.clear();
            } else {
                self.streams.feed(ONLY, input.split_to(length).freeze());
            }
            return Ok(true);
        }
        let read = if self.protocol == Protocol::Scgi {
            let head = scgi::parse_head(input, self.limits.max_head).map_err(|error| error.to_string())?;
            let Some(head) = head else { return Ok(false) };
            let said: Vec<_> = pairs(head.pairs).collect();
            (read_variables(&said, self.is_trusted, &self.limits), head.length, head.content_length)
        } else {
            if let Some(&first) = input.first().filter(|first| ![uwsgi::REQUEST, uwsgi::PING].contains(first)) {
                return Err(format!("modifier1 is {first}, and only 0, a request, and 100, a ping, are known"));
            }
            let Some(packet) = uwsgi::parse_packet(input) else { return Ok(false) };
            if packet.modifier1 == uwsgi::PING {
                wire.output.extend_from_slice(&[uwsgi::PING, 0, 0, 1]);
                self.has_begun = true;
                return Ok(true);
            }
            let said = uwsgi::parse_pairs(packet.content).map_err(|error| error.to_string())?;
            let read = read_variables(&said, self.is_trusted, &self.limits);
            let length = read.as_ref().ok().and_then(|read| read.length).unwrap_or_default();
            (read, packet.length, length)
        };
        let (read, head, length) = read;
        input.advance(head);
        self.has_begun = true;
        self.begin(ONLY, read.map(|read| ReadVariables { length: Some(length), ..read }));
        Ok(true)
    }

    fn begin(&mut self, id: u16, read: Result<ReadVariables, crate::http::h1::Refusal>) {
        match read {
            Ok(read) => self.streams.begin(id, read),
            Err(refusal) => self.streams.refuse(id, &refusal),
        }
    }

    /// Acts on a record (FastCGI, sections 3 to 5).
    fn record(&mut self, record: fastcgi::Record, out: &mut Vec<u8>) -> Result<(), String> {
        use fastcgi::Kind;
        let fastcgi::Record { kind, id, content } = record;
        let text = |error: fastcgi::Malformed| error.to_string();
        match Kind::from_number(kind) {
            Some(Kind::GetValues) if id == 0 => values(&content, self.max_connections, out).map_err(text)?,
            _ if id == 0 => {
                fastcgi::put_record(out, Kind::UnknownType, 0, &[kind, 0, 0, 0, 0, 0, 0, 0]);
            }
            Some(Kind::BeginRequest) => {
                let (role, keeps) = fastcgi::parse_begin(&content).map_err(text)?;
                self.ends_after = !keeps;
                self.has_begun = true;
                if self.streams.has(id) {
                    return Err("a request begins whose number is in use".to_owned());
                }
                if role != fastcgi::RESPONDER {
                    fastcgi::put_end(out, id, 0, fastcgi::Ending::UnknownRole);
                } else if self.streams.is_full() {
                    fastcgi::put_end(out, id, 0, fastcgi::Ending::Overloaded);
                } else {
                    self.streams.open(id);
                }
            }
            Some(Kind::AbortRequest) => self.streams.abort(id, out),
            Some(Kind::Params) if !content.is_empty() => {
                if self.streams.more_params(id, &content) > self.limits.max_head {
                    let refusal = crate::http::h1::Refusal::over(
                        crate::http::Status::FIELDS_TOO_LARGE,
                        "the variables are too long",
                        "max_head",
                    );
                    self.streams.refuse(id, &refusal);
                }
            }
            Some(Kind::Params) => {
                let Some(params) = self.streams.params(id) else { return Ok(()) };
                let said = fastcgi::parse_pairs(&params).map_err(text)?;
                let read = read_variables(&said, self.is_trusted, &self.limits);
                self.begin(id, read);
            }
            Some(Kind::Stdin) if content.is_empty() => self.streams.end_body(id),
            Some(Kind::Stdin) => self.streams.feed(id, content),
            Some(Kind::Data) => {}
            _ => return Err("a record came that only an application sends".to_owned()),
        }
        Ok(())
    }
}

/// Says what we can do (section 4.1).
fn values(content: &[u8], max_connections: usize, out: &mut Vec<u8>) -> Result<(), fastcgi::Malformed> {
    let mut said = Vec::new();
    for (name, _) in fastcgi::parse_pairs(content)? {
        let value = match name {
            b"FCGI_MAX_CONNS" => max_connections,
            b"FCGI_MAX_REQS" => max_connections.saturating_mul(MAX_STREAMS),
            b"FCGI_MPXS_CONNS" => 1,
            _ => continue,
        };
        fastcgi::put_pair(&mut said, name, value.to_string().as_bytes());
    }
    fastcgi::put_record(out, fastcgi::Kind::GetValuesResult, 0, &said);
    Ok(())
}

/// A stream is told apart by its number.
impl Stream {
    fn is(&self, id: u16) -> bool {
        self.id == id
    }
}
