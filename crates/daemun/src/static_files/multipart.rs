//! The body of an answer with several parts of a file (RFC 9110, section 14.6).

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::task::JoinHandle;

use super::range::Part;
use crate::http::{BodyError, BodyStream, FileBody, ResponseBody};

/// Bytes that are read at once.
const STEP: u64 = 256 * 1024;

/// The parts of a file of `length` bytes and of this type, each as `body` gives it, and the type of the whole.
pub(super) fn body(
    parts: &[Part],
    length: u64,
    content_type: &[u8],
    body: impl Fn(Part) -> ResponseBody,
) -> (Bytes, ResponseBody) {
    let boundary = boundary();
    let mut pieces = VecDeque::with_capacity(2 * parts.len() + 1);
    for part in parts {
        let (first, last) = (part.first, part.first + part.length - 1);
        let mut head = format!("\r\n--{boundary}\r\nContent-Type: ").into_bytes();
        head.extend_from_slice(content_type);
        head.extend_from_slice(format!("\r\nContent-Range: bytes {first}-{last}/{length}\r\n\r\n").as_bytes());
        pieces.push_back(Piece::Bytes(Bytes::from(head)));
        match body(*part).at_hand() {
            ResponseBody::Full(bytes) => pieces.push_back(Piece::Bytes(bytes)),
            ResponseBody::File(file) => pieces.push_back(Piece::File(file)),
            ResponseBody::Empty | ResponseBody::LengthOnly(_) | ResponseBody::Stream(_) | ResponseBody::Tunnel(_) => {}
        }
    }
    pieces.push_back(Piece::Bytes(Bytes::from(format!("\r\n--{boundary}--\r\n"))));
    let content_type = Bytes::from(format!("multipart/byteranges; boundary={boundary}"));
    let length = pieces.iter().map(Piece::length).sum();
    if pieces.iter().all(|piece| matches!(piece, Piece::Bytes(_))) {
        let mut whole = BytesMut::with_capacity(usize::try_from(length).unwrap_or_default());
        for piece in &pieces {
            if let Piece::Bytes(bytes) = piece {
                whole.extend_from_slice(bytes);
            }
        }
        return (content_type, ResponseBody::Full(whole.freeze()));
    }
    (content_type, ResponseBody::Stream(Box::pin(Pieces { left: pieces, length, reading: None })))
}

/// Something that stands in no file: nobody can guess it, so nobody can put it into one.
fn boundary() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random())
}

enum Piece {
    Bytes(Bytes),
    File(FileBody),
}

impl Piece {
    fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(file) => file.length,
        }
    }
}

/// Pieces in their order; those of files are read on the blocking pool.
struct Pieces {
    left: VecDeque<Piece>,
    length: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl BodyStream for Pieces {
    fn poll_chunk(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            if let Some(reading) = &mut self.reading {
                let result =
                    ready!(Pin::new(reading).poll(context)).unwrap_or_else(|error| Err(io::Error::other(error)));
                self.reading = None;
                let failed = |error| BodyError::Failed(format!("a file could not be read: {error}"));
                return Poll::Ready(Some(result.map_err(failed)));
            }
            match self.left.front_mut() {
                None => return Poll::Ready(None),
                Some(Piece::Bytes(bytes)) => {
                    let bytes = std::mem::take(bytes);
                    self.left.pop_front();
                    return Poll::Ready(Some(Ok(bytes)));
                }
                Some(Piece::File(file)) if file.length == 0 => {
                    self.left.pop_front();
                }
                Some(Piece::File(file)) => {
                    let part = file.split_to(STEP);
                    self.reading = Some(tokio::task::spawn_blocking(move || part.read().map(Bytes::from)));
                }
            }
        }
    }

    fn length(&self) -> Option<u64> {
        Some(self.length)
    }
}
