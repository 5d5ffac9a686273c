//! One exchange over HTTP/1.1 while it runs: a request going out and an answer coming in, both at once.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::Instant;

use super::payload::{Upload, UploadError};
use crate::http::h1::{AnswerFraming, BodyDecoder, ChunkedDecoder, Decoded, HeadLimits};
use crate::http::{BodyError, BodyStream, Fields};
use crate::upstream::{Connection, Place, UpstreamSettings};

/// Bytes that are read at a time.
const READ: usize = 16 * 1024;

/// Bytes of a request that are gathered before they are written.
const GATHERED: usize = 16 * 1024;

/// Caps of a trailer section.
const LIMITS: HeadLimits = HeadLimits { max_head: 64 * 1024, max_request_line: 0, max_fields: 256 };

/// A request going out and an answer coming in.
pub(super) struct Flow {
    pub(super) connection: Connection,
    pub(super) place: Place,
    /// What is to go out.
    pub(super) out: BytesMut,
    written: usize,
    upload: Upload,
    /// How far the request is.
    pub(super) sending: Sending,
    /// Whether the server may have seen some of it.
    pub(super) has_sent: bool,
    /// Whether some of an answer came.
    pub(super) has_received: bool,
    /// Since when the server is waited for.
    waiting_since: Option<Instant>,
}

/// How far a request is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sending {
    /// Bytes wait for the server to take them.
    Blocked,
    /// The next bytes are not there yet.
    Starved,
    /// It is out.
    Done,
    /// The server takes no more of it.
    Broken,
}

impl Sending {
    /// When a server that has been waited for `since` then is late; never where neither it nor `due` sets an end. While the
    /// client's own bytes are waited for only `due` counts.
    pub(super) fn late_at(self, settings: &UpstreamSettings, since: Instant, due: Option<Instant>) -> Option<Instant> {
        let patience = match self {
            Self::Blocked => Some(settings.send_timeout),
            Self::Starved => None,
            Self::Done | Self::Broken => Some(settings.read_timeout),
        };
        patience.map(|patience| since + patience).into_iter().chain(due).min()
    }
}

impl Flow {
    pub(super) fn new(connection: Connection, place: Place, out: BytesMut, upload: Upload) -> Self {
        Self {
            connection,
            place,
            out,
            written: 0,
            upload,
            sending: Sending::Blocked,
            has_sent: false,
            has_received: false,
            waiting_since: None,
        }
    }

    /// Sends what can be sent. An error is one of the client's body: that the server takes no more is no reason not to
    /// read its answer, which may say why.
    pub(super) fn poll_send(&mut self, context: &mut Context<'_>) -> Result<(), UploadError> {
        if matches!(self.sending, Sending::Done | Sending::Broken) {
            return Ok(());
        }
        loop {
            // What is at hand goes in one write with what is before it.
            let mut next = Poll::Ready(true);
            while next == Poll::Ready(true) && self.out.len() < GATHERED {
                next = self.upload.poll_next(context, &mut self.out)?;
            }
            match self.poll_write(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    self.sending = Sending::Broken;
                    return Ok(());
                }
                Poll::Pending => {
                    self.sending = Sending::Blocked;
                    return Ok(());
                }
            }
            match next {
                Poll::Ready(true) => {}
                Poll::Ready(false) => {
                    self.sending = Sending::Done;
                    return Ok(());
                }
                Poll::Pending => {
                    self.sending = Sending::Starved;
                    return Ok(());
                }
            }
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            let socket = Pin::new(&mut self.connection.socket);
            let written = ready!(socket.poll_write(context, &self.out[self.written..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.has_sent = true;
            self.waiting_since = None;
            self.written += written;
        }
        ready!(Pin::new(&mut self.connection.socket).poll_flush(context))?;
        self.out.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Reads what has come; 0 is the end.
    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Connection { socket, input, .. } = &mut self.connection;
        if input.capacity() - input.len() < READ / 4 {
            input.reserve(READ);
        }
        let read = ready!(pin!(socket.read_buf(input)).poll(context))?;
        self.has_received |= read > 0;
        self.waiting_since = None;
        Poll::Ready(Ok(read))
    }

    /// Ready when the server has been waited for too long, or `due` has passed: how long that was.
    pub(super) fn poll_late(&mut self, context: &mut Context<'_>, due: Option<Instant>) -> Poll<Duration> {
        let settings = &self.place.serving().settings;
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let Some(at) = self.sending.late_at(settings, since, due) else { return Poll::Pending };
        self.connection.alarm.poll(context, at).map(|()| since.elapsed())
    }

    /// The answer was read to its end: the connection is kept if it is as new, else dropped.
    pub(super) fn finish(self, keep_alive: bool) {
        if keep_alive && self.sending == Sending::Done && self.connection.input.is_empty() {
            self.place.keep(self.connection);
        }
    }
}

/// The body of an answer as it comes in.
pub(super) struct AnswerBody {
    flow: Option<Box<Flow>>,
    decoder: Option<BodyDecoder>,
    length: Option<u64>,
    keep_alive: bool,
    trailers: Option<Fields>,
}

impl AnswerBody {
    pub(super) fn new(flow: Box<Flow>, framing: AnswerFraming, keep_alive: bool) -> Self {
        let (decoder, length) = match framing {
            AnswerFraming::None => (Some(BodyDecoder::Length(0)), Some(0)),
            AnswerFraming::Length(length) => (Some(BodyDecoder::Length(length)), Some(length)),
            AnswerFraming::Chunked => (Some(BodyDecoder::Chunked(ChunkedDecoder::new(LIMITS))), None),
            AnswerFraming::UntilClose => (None, None),
        };
        Self { flow: Some(flow), decoder, length, keep_alive, trailers: None }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, String>>> {
        let Some(flow) = &mut self.flow else { return Poll::Ready(None) };
        if flow.poll_send(context).is_err() {
            return Poll::Ready(Some(Err("the body of its request ended before its time".to_owned())));
        }
        loop {
            let input = &mut flow.connection.input;
            match &mut self.decoder {
                Some(decoder) => match decoder.decode(input) {
                    Ok(Decoded::Data(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                    Ok(Decoded::End) => {
                        self.trailers = decoder.take_trailers();
                        if let Some(flow) = self.flow.take() {
                            flow.finish(self.keep_alive);
                        }
                        return Poll::Ready(None);
                    }
                    Ok(Decoded::Partial) => {}
                    Err(refusal) => return Poll::Ready(Some(Err(format!("it is malformed: {refusal}")))),
                },
                None if !input.is_empty() => return Poll::Ready(Some(Ok(input.split().freeze()))),
                None => {}
            }
            match flow.poll_fill(context) {
                Poll::Ready(Ok(0)) if self.decoder.is_none() => {
                    self.flow = None;
                    return Poll::Ready(None);
                }
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Some(Err("the server closed the connection before its end".to_owned())));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error.to_string()))),
                Poll::Pending => {
                    let waited = ready!(flow.poll_late(context, None));
                    let message = format!("nothing has come for {:.1} s (`read_timeout`)", waited.as_secs_f32());
                    return Poll::Ready(Some(Err(message)));
                }
            }
        }
    }
}

impl BodyStream for AnswerBody {
    fn poll_chunk(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let polled = ready!(self.poll(context));
        Poll::Ready(match polled {
            Some(Err(message)) => {
                let flow = self.flow.take();
                let name = flow.as_ref().map_or("", |flow| flow.place.server().name());
                let failed = BodyError::Failed(format!("the answer of {name}: {message}"));
                if let Some(mut flow) = flow {
                    flow.place.fail();
                }
                Some(Err(failed))
            }
            Some(Ok(bytes)) => Some(Ok(bytes)),
            None => None,
        })
    }

    fn length(&self) -> Option<u64> {
        self.length
    }

    fn take_trailers(mut self: Pin<&mut Self>) -> Option<Fields> {
        self.trailers.take()
    }
}
