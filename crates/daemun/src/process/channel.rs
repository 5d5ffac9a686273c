//! Typed messages between the supervisor and its processes: JSON with a length before it, and descriptors after it.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// Largest message: a configuration of some ten thousand routes.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// Descriptors that go with one byte; the kernel allows 253.
const BATCH: usize = 64;

/// How often, and how long apart, a call is tried again that the kernel had no memory for: the end of a channel is the end of
/// a process, and a shortage passes.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// Bytes of the header: `u32` length of the JSON text, `u32` number of descriptors.
const HEADER: usize = 8;

/// What a channel cannot go on after.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The socket failed.
    #[error("channel: {0}")]
    Io(#[from] io::Error),
    /// The message is not one of ours.
    #[error("channel: {0}")]
    Json(#[from] serde_json::Error),
    /// A length beyond the limit.
    #[error("channel: a message of {0} bytes")]
    TooLong(usize),
}

impl ChannelError {
    /// Whether the other end is gone, with something unread.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::ConnectionReset)
    }
}

/// One end: sends `Out`, receives `In`. Clones share the socket; only one of them may receive.
pub struct Channel<Out, In> {
    stream: Arc<UnixStream>,
    /// Held for a whole message: one that the socket takes in pieces must not be torn by another.
    writing: Arc<tokio::sync::Mutex<()>>,
    bytes: BytesMut,
    descriptors: VecDeque<OwnedFd>,
    kinds: PhantomData<fn(Out) -> In>,
}

impl<Out: Serialize, In: DeserializeOwned> Channel<Out, In> {
    /// A channel whose other end is a descriptor for a child.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        Ok((Self::from_descriptor(ours)?, theirs))
    }

    /// The other end, in the child.
    pub fn from_descriptor(descriptor: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&descriptor, true)?;
        let stream = UnixStream::from_std(descriptor.into())?;
        Ok(Self {
            stream: Arc::new(stream),
            writing: Arc::default(),
            bytes: BytesMut::new(),
            descriptors: VecDeque::new(),
            kinds: PhantomData,
        })
    }

    /// A second handle, for sending.
    #[must_use]
    pub fn sender(&self) -> Self {
        let stream = Arc::clone(&self.stream);
        let writing = Arc::clone(&self.writing);
        Self { stream, writing, bytes: BytesMut::new(), descriptors: VecDeque::new(), kinds: PhantomData }
    }

    /// The socket, for whoever goes on with it.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Sends a message and the descriptors that belong to it, in their order.
    pub async fn send(&self, message: &Out, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let text = serde_json::to_vec(message)?;
        let mut wire = Vec::with_capacity(HEADER + text.len());
        wire.extend_from_slice(&(text.len() as u32).to_le_bytes());
        wire.extend_from_slice(&(descriptors.len() as u32).to_le_bytes());
        wire.extend_from_slice(&text);
        let _turn = self.writing.lock().await;
        self.write(&wire, &[]).await?;
        for batch in descriptors.chunks(BATCH) {
            self.write(b"+", batch).await?;
        }
        Ok(())
    }

    /// The next message with its descriptors; `None` when the other end is closed.
    pub async fn receive(&mut self) -> Result<Option<(In, Vec<OwnedFd>)>, ChannelError> {
        if !self.fill(HEADER).await? {
            return Ok(None);
        }
        let length = self.bytes.get_u32_le() as usize;
        let count = self.bytes.get_u32_le() as usize;
        if length > MAX_MESSAGE {
            return Err(ChannelError::TooLong(length));
        }
        let batches = count.div_ceil(BATCH);
        if !self.fill(length + batches).await? {
            return Ok(None);
        }
        let message = serde_json::from_slice(&self.bytes[..length])?;
        self.bytes.advance(length + batches);
        if self.descriptors.len() < count {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "descriptors were lost on the way").into());
        }
        Ok(Some((message, self.descriptors.drain(..count).collect())))
    }

    /// Reads and drops until the other end is closed.
    pub async fn discard(mut self) {
        loop {
            self.bytes.clear();
            self.descriptors.clear();
            if !matches!(self.fill(1).await, Ok(true)) {
                return;
            }
        }
    }

    /// Reads until `wanted` bytes are there; false at the end.
    async fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        let mut shortages = 0;
        while self.bytes.len() < wanted {
            self.stream.readable().await?;
            match self.take() {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if passes(&error, &mut shortages) => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Takes what is there; how many bytes, none at the end.
    fn take(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let (stream, descriptors) = (&*self.stream, &mut self.descriptors);
        let read = stream.try_io(Interest::READABLE, || receive(stream, &mut buffer, descriptors))?;
        self.bytes.extend_from_slice(&buffer[..read]);
        Ok(read)
    }

    async fn write(&self, mut bytes: &[u8], mut descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut shortages = 0;
        while !bytes.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_io(Interest::WRITABLE, || send(&self.stream, bytes, descriptors)) {
                Ok(written) => {
                    bytes = &bytes[written..];
                    descriptors = &[];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if passes(&error, &mut shortages) => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Writes all of it, also where the kernel has no memory for a moment.
pub async fn write_all(out: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8]) -> io::Result<()> {
    let mut shortages = 0;
    while !bytes.is_empty() {
        match out.write(bytes).await {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if passes(&error, &mut shortages) => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether a call that failed like this may well succeed a little later.
fn passes(error: &io::Error, shortages: &mut u32) -> bool {
    *shortages += 1;
    let is_short = |errno: Errno| matches!(errno, Errno::NOMEM | Errno::NOBUFS | Errno::INTR);
    *shortages <= TRIES && Errno::from_io_error(error).is_some_and(is_short)
}

fn send(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    Ok(rustix::net::sendmsg(stream.as_fd(), &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

fn receive(stream: &UnixStream, buffer: &mut [u8], descriptors: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message =
        rustix::net::recvmsg(stream.as_fd(), &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            descriptors.extend(received);
        }
    }
    Ok(message.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_arrives_whole_with_all_its_descriptors_in_order() {
        let (sender, other) = Channel::<String, String>::pair().unwrap();
        let mut receiver = Channel::<String, String>::from_descriptor(other).unwrap();
        let files: Vec<OwnedFd> = (0..150)
            .map(|number| {
                let file = tempfile::tempfile().unwrap();
                file.set_len(number).unwrap();
                file.into()
            })
            .collect();
        let long = "x".repeat(1_000_000);
        let sent = async {
            let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            sender.send(&long, &borrowed).await.unwrap();
            sender.send(&String::from("second"), &[]).await.unwrap();
            drop(sender);
        };
        let reading = async {
            let (text, descriptors) = receiver.receive().await.unwrap().unwrap();
            assert_eq!((text.len(), descriptors.len()), (1_000_000, 150));
            for (number, descriptor) in descriptors.iter().enumerate() {
                assert_eq!(rustix::fs::fstat(descriptor).unwrap().st_size, number as i64);
            }
            assert_eq!(receiver.receive().await.unwrap().unwrap().0, "second");
            assert!(receiver.receive().await.unwrap().is_none());
        };
        tokio::join!(sent, reading);
    }
}
