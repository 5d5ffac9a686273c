//! The body of an answer over a gateway protocol as it comes in.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};

use super::gateway::{Broken, Talk};
use crate::http::h1::{ChunkedDecoder, Decoded, HeadLimits};
use crate::http::{BodyError, BodyStream};
use crate::upstream::FailureKind;

/// What trailers of a body in chunks may have; they are dropped.
const TRAILERS: HeadLimits = HeadLimits { max_head: 16 * 1024, max_request_line: 0, max_fields: 100 };

/// The body of an answer. Its server is held up while the client takes nothing.
pub(super) struct GatewayBody {
    /// `None` once everything was taken.
    talk: Option<Box<Talk>>,
    length: Option<u64>,
    sent: u64,
    chunks: Option<(ChunkedDecoder, BytesMut)>,
    is_all: bool,
}

impl GatewayBody {
    /// The rest of an answer of which the head was read.
    pub(super) fn new(talk: Box<Talk>, length: Option<u64>, is_chunked: bool) -> Self {
        let chunks = is_chunked.then(|| (ChunkedDecoder::new(TRAILERS), BytesMut::new()));
        Self { talk: Some(talk), length, sent: 0, chunks, is_all: length == Some(0) }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            let Some(talk) = &mut self.talk else { return Poll::Ready(None) };
            if self.is_all {
                // What comes behind the body is nobody's.
                talk.text.clear();
            }
            let text = talk.text.split();
            if let Some((decoder, input)) = self.chunks.as_mut().filter(|_| !self.is_all) {
                input.unsplit(text);
                match decoder.decode(input) {
                    Ok(Decoded::Data(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                    Ok(Decoded::End) => self.is_all = true,
                    Ok(Decoded::Partial) => {}
                    Err(refusal) => return wrong(format!("its chunks are malformed: {refusal}")),
                }
            } else if !text.is_empty() {
                let mut bytes = text.freeze();
                let left = self.length.map_or(u64::MAX, |length| length - self.sent);
                bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                self.sent += bytes.len() as u64;
                self.is_all = self.length == Some(self.sent);
                return Poll::Ready(Some(Ok(bytes)));
            }
            if talk.is_over {
                let is_short = !self.is_all && (self.length.is_some() || self.chunks.is_some());
                if is_short {
                    return wrong("it ended before its time".to_owned());
                }
                if let Some(talk) = self.talk.take() {
                    talk.finish();
                }
                return Poll::Ready(None);
            }
            if let Err(broken) = ready!(talk.poll_more(context, None)) {
                if self.is_all {
                    // The client has everything; the connection is not kept.
                    self.talk = None;
                    return Poll::Ready(None);
                }
                return Poll::Ready(Some(Err(broken)));
            }
        }
    }
}

fn wrong(message: String) -> Poll<Option<Result<Bytes, Broken>>> {
    Poll::Ready(Some(Err((FailureKind::Broken, message))))
}

impl BodyStream for GatewayBody {
    fn poll_chunk(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let polled = ready!(self.poll(context));
        Poll::Ready(match polled {
            Some(Err((kind, message))) => {
                let talk = self.talk.take();
                let name = talk.as_ref().map_or("", |talk| talk.flow.place.server().name());
                let failed = BodyError::Failed(format!("the answer of {name}: {message}"));
                if let Some(mut talk) = talk.filter(|_| kind != FailureKind::Client) {
                    talk.flow.place.fail();
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
}

/// Reads an answer to its end that nobody wants, so that whoever wrote it comes to its own, and the connection is kept.
pub(super) fn finish_alone(mut talk: Box<Talk>) {
    talk.text.clear();
    if talk.is_over {
        return talk.finish();
    }
    tokio::spawn(async move {
        while !talk.is_over {
            if std::future::poll_fn(|context| talk.poll_more(context, None)).await.is_err() {
                return;
            }
            talk.text.clear();
        }
        talk.finish();
    });
}
