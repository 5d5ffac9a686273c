//! The beginning of a connection that should be TLS.
//!
//! 1. The first message is read: it says which name is asked for and which protocols are spoken.
//! 2. [`Certificates`] chooses what answers it.
//! 3. The handshake is carried to its end, within the time of a request's head.

use std::io;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use rustls::server::{Accepted, Acceptor};
use tokio::time::Instant;

use super::drain::{Drain, Phase, Place};
use super::life::DRAIN_NEW;
use super::secure::{Secure, poll_first};
use super::transport::Transport;
use crate::alarm::Alarm;
use crate::tls::Certificates;

/// The first byte of TLS: a record of a handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// What came of a handshake.
pub(super) enum Handshake {
    /// It is done.
    Done(Done),
    /// The client speaks something else, and said this.
    Plain(Transport, BytesMut),
    /// It failed.
    Failed(HandshakeError),
}

/// A handshake that is done.
pub(super) struct Done {
    pub(super) secure: Box<Secure>,
    /// What the client sent behind it.
    pub(super) early: BytesMut,
    /// Which certificate it was; `None` where an authority has seen what it wanted, and nothing follows.
    pub(super) entry: Option<usize>,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    /// The client went away, as those do that only look whether somebody listens.
    #[error("the client went away")]
    Gone,
    /// It took too long.
    #[error("it took longer than {} s (`header_timeout`)", .0.as_secs_f32())]
    Late(Duration),
    /// No certificate answers this.
    #[error("there is nothing to answer it with")]
    Unknown,
    /// The two do not understand each other.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    /// The socket, or the session over it.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Carries a handshake to its end.
pub(super) async fn handshake(
    socket: Transport,
    certificates: &Certificates,
    patience: Duration,
    drain: &Drain,
) -> Handshake {
    let mut deadline = Deadline::new(patience);
    let mut place = Place::default();
    let result = begin(socket, certificates, (&mut deadline, &mut place, drain)).await;
    place.leave(drain);
    result.unwrap_or_else(Handshake::Failed)
}

async fn begin(
    socket: Transport,
    certificates: &Certificates,
    (deadline, place, drain): (&mut Deadline, &mut Place, &Drain),
) -> Result<Handshake, HandshakeError> {
    let mut acceptor = Acceptor::default();
    let mut is_first = true;
    let hello = std::future::poll_fn(|task| {
        loop {
            let polled = poll_first(&socket, task, |bytes| hear(&mut acceptor, bytes, is_first));
            match polled {
                Poll::Ready(Ok(Ok(Heard::More))) => is_first = false,
                Poll::Ready(heard) => return Poll::Ready(heard.map_err(HandshakeError::from).flatten()),
                Poll::Pending => return deadline.poll(task, (place, drain)).map(Err),
            }
        }
    });
    let (accepted, rest) = match hello.await? {
        Heard::Hello(accepted, rest) => (accepted, rest),
        Heard::Plain(bytes) => return Ok(Handshake::Plain(socket, bytes)),
        Heard::Refused(error, alert) => {
            // It is not worth waiting for: the client learns by the close as well.
            let _ = socket.try_write(&[io::IoSlice::new(&alert)]);
            return Err(error.into());
        }
        Heard::More => return Err(HandshakeError::Gone),
    };
    let chosen = certificates.choose(&accepted.client_hello()).ok_or(HandshakeError::Unknown)?;
    let session = match accepted.into_connection(Arc::clone(&chosen.config)) {
        Ok(session) => session,
        Err((error, mut alert)) => {
            let mut bytes = Vec::new();
            // Writing into memory cannot fail; and the client learns by the close as well.
            let _ = alert.write_all(&mut bytes);
            let _ = socket.try_write(&[io::IoSlice::new(&bytes)]);
            return Err(error.into());
        }
    };
    let mut secure = Box::new(Secure::new(socket, session));
    let mut early = BytesMut::new();
    secure.feed(&rest, &mut early)?;
    std::future::poll_fn(|task| {
        loop {
            match poll_step(&mut secure, task, &mut early) {
                Poll::Pending => return deadline.poll(task, (place, drain)).map(Err),
                Poll::Ready(Ok(false)) => {}
                Poll::Ready(result) => return Poll::Ready(result),
            }
        }
    })
    .await?;
    Ok(Handshake::Done(Done { secure, early, entry: chosen.entry }))
}

/// Writes what is to be written, then reads; true when both sides are done.
fn poll_step(secure: &mut Secure, task: &mut Task<'_>, early: &mut BytesMut) -> Poll<Result<bool, HandshakeError>> {
    ready!(secure.poll_flush(task))?;
    if !secure.session().is_handshaking() {
        return Poll::Ready(Ok(true));
    }
    let is_ended = ready!(secure.poll_take(task, early, usize::MAX))?;
    Poll::Ready(if is_ended && secure.session().is_handshaking() { Err(HandshakeError::Gone) } else { Ok(false) })
}

/// What the first bytes were.
enum Heard {
    /// Not yet all of a first message.
    More,
    /// The first message, and what was read behind it.
    Hello(Box<Accepted>, Vec<u8>),
    /// No TLS.
    Plain(BytesMut),
    /// A first message that cannot be answered, and the alert that says so.
    Refused(rustls::Error, Vec<u8>),
}

fn hear(acceptor: &mut Acceptor, mut bytes: &[u8], is_first: bool) -> Result<Heard, HandshakeError> {
    match bytes.first() {
        None => return Err(HandshakeError::Gone),
        Some(&first) if is_first && first != HANDSHAKE => return Ok(Heard::Plain(BytesMut::from(bytes))),
        Some(_) => {}
    }
    while !bytes.is_empty() {
        acceptor.read_tls(&mut bytes)?;
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(Heard::Hello(Box::new(accepted), bytes.to_vec())),
            Ok(None) => {}
            Err((error, mut alert)) => {
                let mut told = Vec::new();
                // Writing into memory cannot fail.
                let _ = alert.write_all(&mut told);
                return Ok(Heard::Refused(error, told));
            }
        }
    }
    Ok(Heard::More)
}

/// How long the other side may take for all of it.
pub(super) struct Deadline {
    at: Instant,
    patience: Duration,
    alarm: Alarm,
}

impl Deadline {
    pub(super) fn new(patience: Duration) -> Self {
        Self { at: Instant::now() + patience, patience, alarm: Alarm::default() }
    }

    pub(super) fn poll(&mut self, task: &mut Task<'_>, (place, drain): (&mut Place, &Drain)) -> Poll<HandshakeError> {
        place.register(drain, task);
        if drain.phase() == Phase::Draining {
            // It was accepted just before; its client has done nothing wrong.
            self.at = self.at.min(Instant::now() + DRAIN_NEW);
        }
        self.alarm.poll(task, self.at).map(|()| HandshakeError::Late(self.patience))
    }
}
