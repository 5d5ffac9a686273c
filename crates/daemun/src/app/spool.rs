//! Request bodies, gathered before a worker is asked: in memory while small, then in the application's arena, then in
//! an unlinked file. A slow client never holds a worker, and a request can be sent again.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

use crate::gateway::{Spool, SpoolFile, refuse};
use crate::handler::HandlerError;
use crate::http::{BodyRoom, RequestBody};
use crate::sys::SharedMemory;

/// Bodies up to this many bytes travel in the frame. Beyond it the arena saves two copies through the socket.
const INLINE: usize = 32 * 1024;

/// Largest body in the arena; larger ones go to files.
const LARGEST: usize = 1024 * 1024;

/// Bytes of one block of the arena. A body takes as many in a row as it needs.
const BLOCK: usize = 64 * 1024;

/// Blocks of an arena: 16 MiB. Pages that were never used take no memory.
const BLOCKS: usize = 256;

/// Bytes that are gathered before they are written to the file in one call.
const WRITE: usize = 256 * 1024;

/// A gathered body.
#[derive(Debug)]
pub(super) enum Payload {
    None,
    Inline(Bytes),
    Arena(Arc<ArenaPart>),
    File(SpoolFile),
    /// It is passed on as it comes; its length where the client said one.
    Stream(Option<u64>),
}

impl Payload {
    /// Bytes, where they are known.
    pub(super) fn length(&self) -> Option<u64> {
        Some(match self {
            Self::None => 0,
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Arena(part) => u64::from(part.length()),
            Self::File(file) => file.length(),
            Self::Stream(length) => return *length,
        })
    }

    /// An open of its own for one try, where the body is a file: the offset of a descriptor is shared by its copies.
    pub(super) fn open(&self) -> io::Result<Option<OwnedFd>> {
        match self {
            Self::File(file) => file.reopen().map(Some),
            _ => Ok(None),
        }
    }
}

/// A body that is there already and travels in the frame; it is taken out of `body`.
pub(super) fn at_hand(body: &mut RequestBody) -> Option<Payload> {
    match body {
        RequestBody::Empty => Some(Payload::None),
        RequestBody::Full(bytes) if bytes.is_empty() => Some(Payload::None),
        RequestBody::Full(bytes) if bytes.len() <= INLINE => Some(Payload::Inline(std::mem::take(bytes))),
        RequestBody::Full(_) | RequestBody::Coming(_) => None,
    }
}

/// Gathers `body`.
pub(super) async fn gather(
    mut body: RequestBody,
    arena: Option<&Arc<Arena>>,
    spool: &Arc<Spool>,
) -> Result<Payload, HandlerError> {
    let announced = body.length();
    let part = match announced {
        Some(0) => return Ok(Payload::None),
        Some(length) if length > INLINE as u64 && length <= LARGEST as u64 => {
            arena.and_then(|arena| arena.take(length as usize)).map(Arc::new)
        }
        _ => None,
    };
    if let Some(part) = &part {
        body.receive_into(Arc::clone(part) as Arc<dyn BodyRoom>);
    }
    let mut memory = BytesMut::new();
    let mut file: Option<SpoolFile> = None;
    while let Some(chunk) = body.chunk().await {
        let chunk = chunk.map_err(|error| refuse(&error))?;
        if let Some(part) = &part {
            part.append(&chunk);
        } else if memory.is_empty() && file.is_none() && announced == Some(chunk.len() as u64) && chunk.len() <= INLINE
        {
            return Ok(Payload::Inline(chunk));
        } else {
            memory.extend_from_slice(&chunk);
            if memory.len() >= WRITE || (file.is_some() && memory.len() > INLINE) {
                file = Some(SpoolFile::append(file, memory.split(), spool).await?);
            }
        }
    }
    if let Some(part) = part {
        return Ok(Payload::Arena(part));
    }
    if file.is_none() && memory.len() <= INLINE {
        return Ok(if memory.is_empty() { Payload::None } else { Payload::Inline(memory.freeze()) });
    }
    SpoolFile::append(file, memory, spool).await.map(Payload::File)
}

/// Memory that the front writes bodies into and the workers of one application read them from.
#[derive(Debug)]
pub(super) struct Arena {
    memory: SharedMemory,
    taken: Mutex<[bool; BLOCKS]>,
}

impl Arena {
    /// A fresh arena.
    pub(super) fn new() -> io::Result<Arc<Self>> {
        let memory = SharedMemory::new("daemun-bodies", BLOCK * BLOCKS, true)?;
        Ok(Arc::new(Self { memory, taken: Mutex::new([false; BLOCKS]) }))
    }

    /// Bytes of all of it.
    pub(super) fn length(&self) -> u32 {
        self.memory.length() as u32
    }

    /// Room for a body of this length: the lowest free blocks in a row, whose pages are the likeliest to be there.
    fn take(self: &Arc<Self>, length: usize) -> Option<ArenaPart> {
        let wanted = length.div_ceil(BLOCK);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let first = taken.windows(wanted).position(|blocks| !blocks.contains(&true))?;
        taken[first..first + wanted].fill(true);
        Some(ArenaPart { arena: Arc::clone(self), first, blocks: wanted, length: Mutex::default() })
    }
}

impl AsFd for Arena {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

/// One body's place in the arena, given back on drop: once its answer has come or its worker is gone.
#[derive(Debug)]
pub(super) struct ArenaPart {
    arena: Arc<Arena>,
    first: usize,
    blocks: usize,
    /// Held by whoever writes there.
    length: Mutex<usize>,
}

impl ArenaPart {
    pub(super) fn offset(&self) -> u32 {
        (self.first * BLOCK) as u32
    }

    pub(super) fn length(&self) -> u32 {
        *self.written() as u32
    }

    /// Appends; the codec has already held the body to its announced length, which fits.
    fn append(&self, bytes: &[u8]) {
        let mut written = self.written();
        let end = *written + bytes.len();
        assert!(end <= self.blocks * BLOCK, "a body stays within its announced length");
        self.arena.memory.write(self.offset() as usize + *written, bytes);
        *written = end;
    }

    /// A panic while the lock was held left a number behind: it can be used.
    fn written(&self) -> MutexGuard<'_, usize> {
        self.length.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BodyRoom for ArenaPart {
    fn receive(&self, socket: BorrowedFd<'_>, most: usize, beyond: &mut [u8]) -> io::Result<usize> {
        let mut written = self.written();
        let begin = self.offset() as usize;
        let room = most.min(self.blocks * BLOCK - *written);
        // Bytes that have no room here must not be taken for what comes after the body.
        let beyond = if room == most { beyond } else { &mut [] };
        let received = self.arena.memory.receive(socket, begin + *written..begin + *written + room, beyond)?;
        *written += received.min(room);
        Ok(received)
    }
}

impl Drop for ArenaPart {
    fn drop(&mut self) {
        let mut taken = self.arena.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken[self.first..self.first + self.blocks].fill(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_received_into_its_own_blocks_alone() {
        let (mut client, server) = std::os::unix::net::UnixStream::pair().unwrap();
        let arena = Arena::new().unwrap();
        let (before, part, after) = (arena.take(1).unwrap(), arena.take(BLOCK).unwrap(), arena.take(1).unwrap());
        for other in [&before, &after] {
            other.append(b"others");
        }
        part.append(b"be");
        let rest = vec![b'x'; BLOCK - 5];
        std::io::Write::write_all(&mut client, &[b"gun", &rest[..], b"GET /next"].concat()).unwrap();
        let mut beyond = [0; 16];
        assert_eq!(part.receive(server.as_fd(), 3, &mut []).unwrap(), 3);
        assert_eq!(part.receive(server.as_fd(), BLOCK - 5, &mut beyond).unwrap(), BLOCK - 5 + 9);
        assert_eq!((&beyond[..9], part.length() as usize), (&b"GET /next"[..], BLOCK));
        let read = |part: &ArenaPart, length: usize| {
            let begin = part.offset() as usize;
            arena.memory.read(begin..begin + length).unwrap()
        };
        assert!(read(&part, BLOCK) == [&b"begun"[..], &rest].concat());
        for other in [&before, &after] {
            assert_eq!(read(other, 8), &b"others\0\0"[..]);
        }
        let nothing = part.receive(server.as_fd(), 0, &mut beyond).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        drop(client);
        assert_eq!(before.receive(server.as_fd(), 5, &mut []).unwrap(), 0, "the end");
    }

    #[test]
    fn bodies_in_the_arena_never_share_a_block_and_give_theirs_back() {
        let arena = Arena::new().unwrap();
        let lengths = [1, BLOCK, BLOCK + 1, LARGEST, 100_000];
        let parts: Vec<ArenaPart> = lengths.iter().map(|&length| arena.take(length).unwrap()).collect();
        let offsets: Vec<u32> = parts.iter().map(|part| part.offset() / BLOCK as u32).collect();
        assert_eq!(offsets, [0, 1, 2, 4, 20]);
        assert_eq!((0..BLOCKS).map_while(|_| arena.take(BLOCK)).map(std::mem::forget).count(), BLOCKS - 22);
        assert!(arena.take(1).is_none(), "full");
        drop(parts);
        assert_eq!(arena.take(LARGEST).unwrap().offset(), 0, "what was given back is taken again");
    }
}
