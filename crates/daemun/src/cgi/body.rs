//! The body of an answer while its program writes it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};

use super::process::{Output, Process, Silence};
use crate::http::h1::{ChunkedDecoder, Decoded, HeadLimits};
use crate::http::{BodyError, BodyStream};
use crate::launcher::Ending;

/// What trailers of a body in chunks may have; they are dropped.
const TRAILERS: HeadLimits = HeadLimits { max_head: 16 * 1024, max_request_line: 0, max_fields: 100 };

/// A body that is still coming. The program is held up by its pipe while the client takes nothing, and ended when the
/// client has gone.
pub(super) struct OutputBody {
    /// `None` once everything was taken.
    process: Option<Process>,
    /// What the log calls it.
    name: String,
    length: Option<u64>,
    sent: u64,
    chunks: Option<(ChunkedDecoder, BytesMut)>,
}

impl OutputBody {
    /// The rest of a program's output, of which the head is taken.
    pub(super) fn new(process: Process, name: String, length: Option<u64>, is_chunked: bool) -> Self {
        let chunks = is_chunked.then(|| (ChunkedDecoder::new(TRAILERS), BytesMut::new()));
        Self { process: Some(process), name, length, sent: 0, chunks }
    }

    /// Bytes of the body that are here already.
    fn take(&mut self) -> Option<Result<Bytes, BodyError>> {
        let process = self.process.as_mut()?;
        let Some((decoder, input)) = &mut self.chunks else {
            return (!process.buffer.is_empty()).then(|| Ok(process.buffer.split().freeze()));
        };
        input.unsplit(process.buffer.split());
        match decoder.decode(input) {
            Ok(Decoded::Data(bytes)) => Some(Ok(bytes)),
            Ok(Decoded::Partial) => None,
            Ok(Decoded::End) => {
                self.length = Some(self.sent);
                None
            }
            Err(refusal) => Some(Err(self.failed(&format!("its chunks are malformed: {refusal}")))),
        }
    }

    /// Everything that was promised is there: what the program still does is its own affair.
    fn finish(&mut self) {
        if let Some(process) = self.process.take() {
            process.finish_alone();
        }
    }

    fn failed(&mut self, why: &str) -> BodyError {
        self.process = None;
        BodyError::Failed(format!("{}: {why}", self.name))
    }

    /// The output is over: well, or not.
    fn ended(&mut self, ending: Option<Ending>) -> Option<Result<Bytes, BodyError>> {
        let missing = self.length.is_some_and(|length| self.sent < length) || self.chunks.is_some();
        match ending {
            // Nobody could tell the half of a page from all of it.
            Some(Ending { signal: Some(signal), .. }) => {
                Some(Err(self.failed(&format!("it was killed by signal {signal} in the middle of its output"))))
            }
            Some(Ending { code: None, .. }) => Some(Err(self.failed("the launcher ended, and with it the program"))),
            _ if missing => Some(Err(self.failed("its output ended before its body did"))),
            _ => {
                self.finish();
                None
            }
        }
    }
}

impl BodyStream for OutputBody {
    fn poll_chunk(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            if let Some(taken) = self.take() {
                let mut bytes = match taken {
                    Ok(bytes) => bytes,
                    Err(error) => return Poll::Ready(Some(Err(error))),
                };
                let left = self.length.map_or(u64::MAX, |length| length - self.sent);
                bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                self.sent += bytes.len() as u64;
                if !bytes.is_empty() {
                    return Poll::Ready(Some(Ok(bytes)));
                }
            }
            if self.length == Some(self.sent) {
                self.finish();
            }
            let Some(process) = &mut self.process else { return Poll::Ready(None) };
            match ready!(process.poll_read(context)) {
                Output::More => {}
                Output::End(ending) => return Poll::Ready(self.ended(ending)),
                Output::Late(Silence::Idle) => {
                    return Poll::Ready(Some(Err(self.failed("no output within the route's `stream_idle`"))));
                }
                Output::Late(Silence::Total) => {
                    return Poll::Ready(Some(Err(self.failed("not done within the route's `total_timeout`"))));
                }
                Output::Failed(error) => return Poll::Ready(Some(Err(self.failed(&error.to_string())))),
            }
        }
    }

    fn length(&self) -> Option<u64> {
        if self.chunks.is_some() { None } else { self.length }
    }
}

/// The body of an answer to HEAD of which nobody knows the length: a `Content-Length` must be that of GET or not be
/// there (RFC 9110, section 8.6).
pub(super) struct Untold;

impl BodyStream for Untold {
    fn poll_chunk(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        Poll::Ready(None)
    }
}
