//! Request bodies, gathered before a worker is asked: in memory while small, then in the application's arena, then in
//! an unlinked file. A slow client never holds a worker, and a request can be sent again.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};

use crate::gateway::{Spool, SpoolFile, refuse};
use crate::handler::HandlerError;
use crate::http::RequestBody;
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
    Arena(ArenaPart),
    File(SpoolFile),
}

impl Payload {
    /// Bytes.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Arena(part) => u64::from(part.length),
            Self::File(file) => file.length(),
        }
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
    let mut part = match announced {
        Some(0) => return Ok(Payload::None),
        Some(length) if length > INLINE as u64 && length <= LARGEST as u64 => {
            arena.and_then(|arena| arena.take(length as usize))
        }
        _ => None,
    };
    let mut memory = BytesMut::new();
    let mut file: Option<SpoolFile> = None;
    while let Some(chunk) = body.chunk().await {
        let chunk = chunk.map_err(|error| refuse(&error))?;
        if let Some(part) = &mut part {
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
        Some(ArenaPart { arena: Arc::clone(self), first, blocks: wanted, length: 0 })
    }
}

impl AsFd for Arena {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

/// One body's place in the arena, given back on drop: once its answer has come or its worker is gone.
#[derive(Debug)]
pub(super) struct ArenaPart {
    arena: Arc<Arena>,
    first: usize,
    blocks: usize,
    length: u32,
}

impl ArenaPart {
    pub(super) fn offset(&self) -> u32 {
        (self.first * BLOCK) as u32
    }

    pub(super) fn length(&self) -> u32 {
        self.length
    }

    /// Appends; the codec has already held the body to its announced length, which fits.
    fn append(&mut self, bytes: &[u8]) {
        let end = self.length as usize + bytes.len();
        assert!(end <= self.blocks * BLOCK, "a body stays within its announced length");
        self.arena.memory.write(self.offset() as usize + self.length as usize, bytes);
        self.length = end as u32;
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
