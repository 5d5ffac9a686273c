//! Frames between the front and one lane of an application worker.
//!
//! A *lane* is one Unix stream socket; each thread of a worker has one, and one more is its monitor's, on which no request
//! comes. A frame is a header of [`HEADER_LENGTH`]
//! bytes, `{u32 payload length, u8 kind, u32 request id}`, all little-endian, and its payload. Because lengths come
//! first, a worker that dies in the middle of an answer can never look like one that finished it.
//!
//! # Request ids and slots
//! A lane has [`SLOTS`] places for requests in flight. The low six bits of an id are its slot, the other 26 its
//! generation, so a frame for a request that is gone is recognised and dropped.
//!
//! # The page
//! Each worker shares one small memory page with the front, a memfd sealed against resizing. Lane `k` owns the 256
//! bytes from `256 * k`: first `started[slot]`, then `revoked[slot]`, then `laid[block]` (see below). The worker stores 1
//! in `started` just before it
//! calls the application; only the front clears it. To take a request back the front stores 1 in `revoked` before it
//! reads `started`; the worker reads `revoked` after it stored `started` and, where it is set, answers
//! [`Kind::Skipped`] without calling the application. Both sides read zero or non-zero, never an index.
//!
//! # Shelves
//! Where there is a page, each lane has a *shelf* beside it: [`SHELF`] bytes in blocks of [`SHELF_BLOCK`], in a second
//! memfd, that of lane `k` from `SHELF * k`. The worker takes blocks in a row of which it reads `laid` as 0, stores 1 in
//! each, copies a piece of an answer's body there and says so ([`Kind::Laid`]); the front stores 0 again once the client
//! has the piece, or nobody wants it. What lies there the worker can change at any time, and spoils its own answers by
//! it: the front has the kernel send it or copy it, and looks at no byte of it before.
//!
//! # Heads
//! The head of a request is its CGI environment (RFC 3875, section 4.1): names and values, each ended by a NUL. The
//! head of an answer is the status line of PEP 3333 (`200 OK`), then names and values, separated by NULs. Both are
//! latin-1. A NUL inside a value is refused before it gets here.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Version of this protocol; a worker that says another one is refused.
pub const VERSION: u16 = 2;

/// Bytes of a frame's header.
pub const HEADER_LENGTH: usize = 9;

/// Requests that can be in flight on one lane.
pub const SLOTS: usize = 64;

/// Bytes of the shared page that one lane owns: `started` and `revoked` for each slot, `laid` for each block.
pub const LANE_PAGE: usize = 2 * SLOTS + SHELF_BLOCKS;

/// Bytes of one block of a shelf: a page of memory, so that what is not used costs nothing.
pub const SHELF_BLOCK: usize = 4096;

/// Blocks of a shelf.
pub const SHELF_BLOCKS: usize = 128;

/// Bytes of one lane's shelf: twice what a worker has credit for, since it begins an answer while the client has yet to
/// take the end of the last one.
pub const SHELF: usize = SHELF_BLOCK * SHELF_BLOCKS;

/// Largest payload that either side may send: 1 MiB. Bodies beyond it come in several frames or as a descriptor.
pub const MAX_PAYLOAD: u32 = 1024 * 1024;

/// Answer bytes that a worker may send for one request before the front has to give it more [`Kind::Credit`].
pub const INITIAL_CREDIT: u32 = 256 * 1024;

/// What a frame means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Kind {
    /// Worker to front, first on a lane: [`Hello`].
    Hello = 1,
    /// Front to worker, the answer to it: [`Welcome`].
    Welcome = 2,
    /// Front to worker: a request, see [`RequestBody`].
    Request = 3,
    /// Front to worker: a piece of a streamed request body; an empty one ends it.
    Body = 4,
    /// Both ways: `u32` more bytes may be sent for this request.
    Credit = 5,
    /// Front to worker: the client is gone; the answer will be dropped.
    Cancel = 6,
    /// Worker to front, where no page could be shared: the application is being called.
    Started = 7,
    /// Worker to front: `u32` microseconds that the application took to get here, then status and fields; data follows.
    Head = 8,
    /// Worker to front: a piece of the answer's body.
    Data = 9,
    /// Worker to front: the end of an answer: one byte, an [`Ending`].
    Done = 10,
    /// Worker to front: this request was taken back before the application was called.
    Skipped = 11,
    /// Worker to front: a whole answer: `u32` microseconds that the application took, `u32` length of the head, head,
    /// body.
    Answer = 12,
    /// Front to worker: finish what is in flight, then end.
    Retire = 13,
    /// Worker to front: `u64` offset and `u64` length of a file whose descriptor comes along; it is the whole body.
    File = 14,
    /// Worker to front: an informational answer (1xx), a head only.
    Inform = 15,
    /// Front to worker, on its monitor's lane: write what the thread of this number holds back; it is in a long call.
    Flush = 16,
    /// Front to worker, on its monitor's lane: `u16` thread; the request of this id has been answered 504, and whatever
    /// that thread still does for it should end.
    Interrupt = 17,
    /// Worker to front: a piece of the answer's body that lies on the lane's shelf: `u32` offset, the beginning of a block,
    /// and `u32` length. It uses up credit as [`Kind::Data`] does.
    Laid = 18,
}

impl Kind {
    /// The kind with this number, if there is one.
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Hello,
            2 => Self::Welcome,
            3 => Self::Request,
            4 => Self::Body,
            5 => Self::Credit,
            6 => Self::Cancel,
            7 => Self::Started,
            8 => Self::Head,
            9 => Self::Data,
            10 => Self::Done,
            11 => Self::Skipped,
            12 => Self::Answer,
            13 => Self::Retire,
            14 => Self::File,
            15 => Self::Inform,
            16 => Self::Flush,
            17 => Self::Interrupt,
            18 => Self::Laid,
            _ => return None,
        })
    }
}

/// How an answer ended, the payload of [`Kind::Done`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Ending {
    /// The application's iterable was exhausted.
    Clean = 0,
    /// The application raised; the traceback stands in the log. Without a [`Kind::Head`] before it: a 500.
    Failed = 1,
    /// The application broke PEP 3333; the reason stands in the log.
    Invalid = 2,
    /// A request body that was being streamed ended before its time.
    Cut = 3,
}

impl Ending {
    /// The ending with this number; anything unknown counts as a failure.
    pub fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Clean,
            2 => Self::Invalid,
            3 => Self::Cut,
            _ => Self::Failed,
        }
    }
}

/// Where the body of a request is, the first byte of a [`Kind::Request`] payload.
///
/// The payload goes on with `u32` length of the environment, the environment, then what this says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RequestBody {
    /// There is none.
    None,
    /// The rest of the payload.
    Inline,
    /// A regular file that comes along as a descriptor: `u64` length.
    File {
        /// Bytes from the start of the file.
        length: u64,
    },
    /// A part of the arena that came with [`Welcome`]: `u32` offset, `u32` length.
    Arena {
        /// First byte.
        offset: u32,
        /// Bytes.
        length: u32,
    },
    /// It comes in [`Kind::Body`] frames.
    Stream,
}

/// What can be wrong with a frame. Each of them ends the lane: there is no way back into the stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FrameError {
    /// The kind is none of [`Kind`].
    #[error("frame of unknown kind {0}")]
    UnknownKind(u8),
    /// The length is above [`MAX_PAYLOAD`].
    #[error("frame of {0} bytes; at most {MAX_PAYLOAD} are allowed")]
    TooLong(u32),
    /// The payload is shorter than its kind needs.
    #[error("payload of a {0:?} frame is too short")]
    Short(Kind),
}

/// One whole frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// What it means.
    pub kind: Kind,
    /// The request it is about, 0 for the lane itself.
    pub request: u32,
    /// Its payload.
    pub payload: Bytes,
}

/// Takes the first whole frame off `buffer`; `None` when more bytes are needed.
pub fn take(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    let Some(header) = buffer.first_chunk::<HEADER_LENGTH>() else {
        return Ok(None);
    };
    let mut fields = &header[..];
    let length = fields.get_u32_le();
    let number = fields.get_u8();
    let request = fields.get_u32_le();
    let kind = Kind::from_number(number).ok_or(FrameError::UnknownKind(number))?;
    if length > MAX_PAYLOAD {
        return Err(FrameError::TooLong(length));
    }
    let whole = HEADER_LENGTH + length as usize;
    if buffer.len() < whole {
        return Ok(None);
    }
    let mut payload = buffer.split_to(whole);
    payload.advance(HEADER_LENGTH);
    Ok(Some(Frame { kind, request, payload: payload.freeze() }))
}

/// Appends a frame's header; the payload must follow.
pub fn put_header(out: &mut Vec<u8>, kind: Kind, request: u32, length: usize) {
    debug_assert!(length <= MAX_PAYLOAD as usize, "payloads are capped before they are framed");
    out.put_u32_le(length as u32);
    out.put_u8(kind as u8);
    out.put_u32_le(request);
}

/// Appends a whole frame.
pub fn put(out: &mut Vec<u8>, kind: Kind, request: u32, payload: &[u8]) {
    put_header(out, kind, request, payload.len());
    out.put_slice(payload);
}

/// Set in the first byte of a [`Kind::Request`] where many others wait behind it.
const CROWDED: u8 = 0x80;

/// Appends a [`Kind::Request`]; `inline` is the body for [`RequestBody::Inline`] and empty otherwise. Where many others
/// wait (`crowded`), the worker may hold finished answers back for longer, to write them together.
pub fn put_request(
    out: &mut Vec<u8>,
    request: u32,
    crowded: bool,
    environment: &[u8],
    body: RequestBody,
    inline: &[u8],
) {
    let tail = match body {
        RequestBody::None | RequestBody::Stream => 0,
        RequestBody::Inline => inline.len(),
        RequestBody::File { .. } | RequestBody::Arena { .. } => 8,
    };
    put_header(out, Kind::Request, request, 5 + environment.len() + tail);
    let number = match body {
        RequestBody::None => 0,
        RequestBody::Inline => 1,
        RequestBody::File { .. } => 2,
        RequestBody::Arena { .. } => 3,
        RequestBody::Stream => 4,
    };
    out.put_u8(if crowded { number | CROWDED } else { number });
    out.put_u32_le(environment.len() as u32);
    out.put_slice(environment);
    match body {
        RequestBody::None | RequestBody::Stream => {}
        RequestBody::Inline => out.put_slice(inline),
        RequestBody::File { length } => out.put_u64_le(length),
        RequestBody::Arena { offset, length } => {
            out.put_u32_le(offset);
            out.put_u32_le(length);
        }
    }
}

/// What a worker says first on a lane: `u16` version, `u16` thread, `u16` threads, `u32` worker serial.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hello {
    /// [`VERSION`] of the worker.
    pub version: u16,
    /// Which thread this lane belongs to, from 0; the number of threads for the monitor's.
    pub thread: u16,
    /// How many threads the worker has.
    pub threads: u16,
    /// The number that the supervisor gave this worker.
    pub serial: u32,
}

impl Hello {
    /// Reads the payload.
    pub fn parse(mut payload: &[u8]) -> Result<Self, FrameError> {
        if payload.len() < 10 {
            return Err(FrameError::Short(Kind::Hello));
        }
        Ok(Self {
            version: payload.get_u16_le(),
            thread: payload.get_u16_le(),
            threads: payload.get_u16_le(),
            serial: payload.get_u32_le(),
        })
    }
}

/// What the front answers: `u16` version, `u8` descriptors that come along, `u32` bytes of the page, `u32` bytes of
/// the arena, `u32` bytes of all shelves. Lane 0 gets the descriptors (page, arena, shelves, each only where its size is not
/// 0), the others none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Welcome {
    /// Descriptors that come along with this frame.
    pub descriptors: u8,
    /// Bytes of the shared page; 0 where the worker must send [`Kind::Started`] instead.
    pub page: u32,
    /// Bytes of the arena for request bodies; 0 where there is none.
    pub arena: u32,
    /// Bytes of the shelves of all lanes; 0 where there are none.
    pub shelves: u32,
}

impl Welcome {
    /// Appends the whole frame.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_header(out, Kind::Welcome, 0, 15);
        out.put_u16_le(VERSION);
        out.put_u8(self.descriptors);
        out.put_u32_le(self.page);
        out.put_u32_le(self.arena);
        out.put_u32_le(self.shelves);
    }
}

/// A whole answer, the payload of a [`Kind::Answer`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// Microseconds that the application took.
    pub microseconds: u32,
    /// Status and fields.
    pub head: Bytes,
    /// The whole body.
    pub body: Bytes,
}

impl Answer {
    /// Splits the payload.
    pub fn parse(mut payload: Bytes) -> Result<Self, FrameError> {
        if payload.len() < 8 {
            return Err(FrameError::Short(Kind::Answer));
        }
        let microseconds = payload.get_u32_le();
        let length = payload.get_u32_le() as usize;
        if payload.len() < length {
            return Err(FrameError::Short(Kind::Answer));
        }
        let head = payload.split_to(length);
        Ok(Self { microseconds, head, body: payload })
    }
}

/// Splits the payload of a [`Kind::Head`] into microseconds and head.
pub fn split_head(mut payload: Bytes) -> Result<(u32, Bytes), FrameError> {
    if payload.len() < 4 {
        return Err(FrameError::Short(Kind::Head));
    }
    let microseconds = payload.get_u32_le();
    Ok((microseconds, payload))
}

/// Reads the `u32` of a [`Kind::Credit`].
pub fn credit(mut payload: &[u8]) -> Result<u32, FrameError> {
    if payload.len() < 4 {
        return Err(FrameError::Short(Kind::Credit));
    }
    Ok(payload.get_u32_le())
}

/// Reads offset and length of a [`Kind::File`].
pub fn file_range(mut payload: &[u8]) -> Result<(u64, u64), FrameError> {
    if payload.len() < 16 {
        return Err(FrameError::Short(Kind::File));
    }
    Ok((payload.get_u64_le(), payload.get_u64_le()))
}

/// Reads offset and length of a [`Kind::Laid`].
pub fn laid(mut payload: &[u8]) -> Result<(u32, u32), FrameError> {
    if payload.len() < 8 {
        return Err(FrameError::Short(Kind::Laid));
    }
    Ok((payload.get_u32_le(), payload.get_u32_le()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_as_it_was_put_whatever_the_split() {
        let mut wire = Vec::new();
        put(&mut wire, Kind::Data, 0x1234_5678, b"hello");
        put(&mut wire, Kind::Done, 7, &[Ending::Clean as u8]);
        for split in 0..=wire.len() {
            let mut buffer = BytesMut::from(&wire[..split]);
            let mut seen = Vec::new();
            while let Some(frame) = take(&mut buffer).unwrap() {
                seen.push(frame);
            }
            buffer.extend_from_slice(&wire[split..]);
            while let Some(frame) = take(&mut buffer).unwrap() {
                seen.push(frame);
            }
            assert_eq!(seen.len(), 2);
            assert_eq!((seen[0].kind, seen[0].request, &seen[0].payload[..]), (Kind::Data, 0x1234_5678, &b"hello"[..]));
            assert_eq!((seen[1].kind, seen[1].request, &seen[1].payload[..]), (Kind::Done, 7, &[0][..]));
        }
    }

    #[test]
    fn a_hostile_header_is_refused_before_its_payload_is_awaited() {
        let mut long = BytesMut::from(&[0xff, 0xff, 0xff, 0xff, Kind::Data as u8, 0, 0, 0, 0][..]);
        assert_eq!(take(&mut long).unwrap_err(), FrameError::TooLong(u32::MAX));
        let mut unknown = BytesMut::from(&[0, 0, 0, 0, 99, 0, 0, 0, 0][..]);
        assert_eq!(take(&mut unknown).unwrap_err(), FrameError::UnknownKind(99));
    }

    #[test]
    fn an_answer_whose_head_is_longer_than_the_frame_is_refused() {
        let short = FrameError::Short(Kind::Answer);
        assert_eq!(Answer::parse(Bytes::from_static(&[0, 0, 0, 0, 9, 0, 0, 0, 1])).unwrap_err(), short);
        assert_eq!(Answer::parse(Bytes::from_static(&[9])).unwrap_err(), short);
        let answer = Answer::parse(Bytes::from_static(b"\x07\0\0\0\x02\0\0\0okbody")).unwrap();
        assert_eq!((answer.microseconds, &answer.head[..], &answer.body[..]), (7, &b"ok"[..], &b"body"[..]));
    }
}
