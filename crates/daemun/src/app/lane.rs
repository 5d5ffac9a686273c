//! The task of one lane: frames out to a worker's thread, frames in from it, as many at a time as there are.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::BytesMut;
use daemun_protocol::frame::{self, Frame, HEADER_LENGTH, Hello, Kind, Welcome};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::pool::Pool;
use super::report::Parting;
use super::shelf::{Shelf, WORTH_LAYING};
use super::signal::{HELLO_DEADLINE, LaneError, LaneKey, Signal, TurnedAway};
use super::worker::Outgoing;
use crate::crowd::Expected;

/// Bytes that are read from a lane at a time: a batch of small answers, or a quarter of a stream's credit.
const READ: usize = 64 * 1024;

thread_local! {
    /// Where an event loop reads to; frames are then copied at their true size, so an idle lane holds no buffer.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into_boxed_slice());
}

/// Reads the hello of a fresh lane, admits it to `pool` and answers it; then the caller runs [`Lane::run`] on the event
/// loop that is returned. `None`: refused, the reason is with the pool's log.
pub async fn welcome(pool: &Arc<Pool>, stream: UnixStream) -> Option<(usize, impl Future<Output = ()> + Send + use<>)> {
    let pid = stream.peer_cred().ok().and_then(|credentials| credentials.pid());
    let greeting = tokio::time::timeout(HELLO_DEADLINE, read_hello(&stream)).await.unwrap_or(Err(LaneError::Late));
    pool.announced(pid).await;
    let greeting = greeting.map_err(|error| TurnedAway::Because(error.to_string()));
    let (key, home, welcome) = match greeting.and_then(|hello| pool.admit(pid, hello)) {
        Ok(admitted) => admitted,
        Err(TurnedAway::TooEarly) => return None,
        // One that was ended while it waited is no stranger.
        Err(TurnedAway::Because(_)) if matches!(stream.try_read(&mut [0; 1]), Ok(0)) => return None,
        Err(TurnedAway::Because(reason)) => {
            pool.refused(pid, &reason);
            return None;
        }
    };
    let mut out = Outgoing::default();
    let (descriptors, page) = (welcome.descriptors.len() as u8, welcome.page);
    Welcome { descriptors, page, arena: welcome.arena, shelves: welcome.shelves }.put(&mut out.bytes);
    out.descriptors = welcome.descriptors.into_iter().map(|descriptor| (0, descriptor)).collect();
    let stream = stream.into_std().ok()?;
    let pool = Arc::clone(pool);
    Some((home, async move {
        let Ok(stream) = UnixStream::from_std(stream) else { return pool.lost(key, Parting::Closed) };
        Lane {
            stream: Arc::new(stream),
            expected: None,
            key,
            signal: welcome.signal,
            shelf: welcome.shelf,
            out,
            written: 0,
            incoming: BytesMut::new(),
            descriptors: Vec::new(),
        }
        .run(&pool)
        .await;
    }))
}

async fn read_hello(stream: &UnixStream) -> Result<Hello, LaneError> {
    let mut buffer = BytesMut::with_capacity(64);
    loop {
        if let Some(frame) = frame::take(&mut buffer)? {
            return match frame.kind {
                Kind::Hello => Ok(Hello::parse(&frame.payload)?),
                kind => Err(LaneError::Unexpected(kind)),
            };
        }
        stream.readable().await?;
        // Exactly one hello: nothing else is read off the stream here.
        let missing = (HEADER_LENGTH + 10).saturating_sub(buffer.len()).max(1);
        let mut bytes = vec![0; missing];
        match stream.try_read(&mut bytes) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(read) => buffer.extend_from_slice(&bytes[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A lane at work.
struct Lane {
    stream: Arc<UnixStream>,
    /// Where the application is crowded.
    expected: Option<Expected>,
    key: LaneKey,
    signal: Arc<Signal>,
    shelf: Option<Arc<Shelf>>,
    out: Outgoing,
    written: usize,
    incoming: BytesMut,
    descriptors: Vec<OwnedFd>,
}

impl Lane {
    /// Until the worker closes it, breaks the protocol, or the pool drops it.
    async fn run(mut self, pool: &Pool) {
        let result = poll_fn(|context| self.poll(context, pool)).await;
        pool.lost(self.key, result.map_or_else(LaneError::parting, |()| Parting::Closed));
    }

    fn poll(&mut self, context: &mut Context<'_>, pool: &Pool) -> Poll<Result<(), LaneError>> {
        // Registered first: what is submitted from now on wakes us.
        self.signal.register(context);
        loop {
            while let Poll::Ready(open) = self.poll_read(context)? {
                self.take_frames(pool)?;
                if !open {
                    return Poll::Ready(Ok(()));
                }
            }
            if self.out.bytes.is_empty() {
                let Some(is_crowded) = pool.take_outgoing(self.key, &mut self.out) else { return Poll::Ready(Ok(())) };
                if is_crowded != self.expected.is_some() {
                    self.expected = is_crowded.then(|| Expected::on(&self.stream));
                }
            }
            if self.out.bytes.is_empty() || self.poll_write(context)?.is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Reads what is there; false at the end.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<bool, LaneError>> {
        let Self { stream, incoming, descriptors, .. } = self;
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                ready!(stream.poll_read_ready(context))?;
                match stream.try_io(Interest::READABLE, || receive(stream, scratch, descriptors)) {
                    Ok(0) => return Poll::Ready(Ok(false)),
                    Ok(read) => {
                        incoming.extend_from_slice(&scratch[..read]);
                        if read < scratch.len() {
                            // A short read emptied the socket: say so without asking the kernel a second time.
                            let _ =
                                stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
                        }
                        return Poll::Ready(Ok(true));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err(error.into())),
                }
            }
        })
    }

    fn take_frames(&mut self, pool: &Pool) -> Result<(), LaneError> {
        let mut frames: Vec<Frame> = Vec::with_capacity(16);
        while let Some(frame) = frame::take(&mut self.incoming)? {
            if frame.kind == Kind::Data
                && frame.payload.len() >= WORTH_LAYING
                && let Some(shelf) = &self.shelf
            {
                shelf.clear(frame.request);
            }
            frames.push(frame);
        }
        if frames.is_empty() {
            return Ok(());
        }
        pool.deliver(self.key, frames, &mut self.descriptors, Instant::now())
    }

    /// Writes what waits; a descriptor goes with the first byte of its frame.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<Result<(), LaneError>> {
        while self.written < self.out.bytes.len() {
            ready!(self.stream.poll_write_ready(context))?;
            // Up to the next frame that brings a descriptor of its own.
            let due = self.out.descriptors.iter().take_while(|(offset, _)| *offset <= self.written).count();
            let end = self.out.descriptors.get(due).map_or(self.out.bytes.len(), |(offset, _)| *offset);
            let borrowed: Vec<BorrowedFd<'_>> =
                self.out.descriptors[..due].iter().map(|(_, descriptor)| descriptor.as_fd()).collect();
            let bytes = &self.out.bytes[self.written..end];
            match self.stream.try_io(Interest::WRITABLE, || send(&self.stream, bytes, &borrowed)) {
                Ok(sent) => {
                    self.written += sent;
                    self.out.descriptors.drain(..due);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        self.written = 0;
        self.out.bytes.clear();
        Poll::Ready(Ok(()))
    }
}

/// Descriptors that one message may bring: the control buffer's size.
const DESCRIPTORS: usize = 16;

fn send(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if descriptors.is_empty() {
        return Ok(rustix::net::send(stream, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(descriptors));
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(rustix::net::sendmsg(stream, &[IoSlice::new(bytes)], &mut control, flags)?)
}

/// Reads bytes and the descriptors that came with them. Descriptors that did not fit are fatal: which frame they
/// belonged to is lost.
fn receive(stream: &UnixStream, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = rustix::net::recvmsg(stream, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            descriptors.extend(received);
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) || descriptors.len() > DESCRIPTORS {
        return Err(io::Error::new(io::ErrorKind::InvalidData, LaneError::Truncated));
    }
    Ok(message.bytes)
}
