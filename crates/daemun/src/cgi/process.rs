//! A program while it runs: its output, its end, its deadlines.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use rustix::pipe::PipeFlags;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::{Instant, Sleep};

use super::complaints::Complaints;
use crate::launcher::{Ending, LaunchError, Running};
use crate::telemetry::ErrorLogger;

/// Bytes of output that are read at once: what a pipe holds.
const READ: usize = 64 * 1024;

/// Bytes that are read at first.
const FIRST_READ: usize = 4096;

/// How long the beginning of an answer without a length waits for its rest: most are over by then, and are sent at once
/// and with their length. Nobody sees that little of a delay.
const SETTLING: Duration = Duration::from_millis(5);

/// How long after the program's end output is waited for that others hold open, and how long after the end of its
/// output the program may take to end. Nobody waits longer for a page because of a process that was left behind.
pub(super) const LINGER: Duration = Duration::from_millis(500);

/// How long a program runs before its output is watched. Of one that is done sooner all of it is read at its end, and the
/// event loop wakes up once for its whole answer; nobody sees that little of a delay.
const WATCH: Duration = Duration::from_millis(4);

/// How long a program runs before its standard error is attended to while it runs; of one that is done sooner it is
/// read at its end, which costs a quarter of it.
const ATTENTION: Duration = Duration::from_millis(20);

/// Why no more output comes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Silence {
    /// Nothing came for too long.
    Idle,
    /// It has run for too long.
    Total,
}

/// What a look at the output came to.
#[derive(Debug)]
pub(super) enum Output {
    /// More of it.
    More,
    /// All of it was there; how the program ended, where that is known.
    End(Option<Ending>),
    /// It never ran.
    Failed(LaunchError),
    /// A deadline is over.
    Late(Silence),
}

/// The ends of the pipes that a program writes to.
#[derive(Debug)]
pub(super) struct Pipes {
    /// Its standard output: ours and its own.
    pub(super) output: (OwnedFd, OwnedFd),
    /// Its standard error: ours and its own.
    pub(super) error: (OwnedFd, OwnedFd),
}

impl Pipes {
    /// Two fresh pipes; reading from them never blocks.
    pub(super) fn new() -> io::Result<Self> {
        let pipe = || -> io::Result<(OwnedFd, OwnedFd)> {
            let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&reader, true)?;
            Ok((reader, writer))
        };
        Ok(Self { output: pipe()?, error: pipe()? })
    }
}

/// How long a program may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    /// For the next piece of output.
    pub(super) idle: Duration,
    /// For all of it.
    pub(super) total: Duration,
}

/// Our end of the standard output.
enum Source {
    /// Nobody watches it yet.
    Unwatched(OwnedFd),
    /// The event loop tells when there is more.
    Watched(pipe::Receiver),
    /// It is over.
    Closed,
}

/// A running program. Dropping it ends the program with its process group.
pub(super) struct Process {
    running: Running,
    output: Source,
    /// Output that was read and not yet taken.
    pub(super) buffer: BytesMut,
    ended: Option<Ending>,
    /// Whether the last piece filled the room that there was for it.
    was_full: bool,
    idle: Duration,
    last: Instant,
    end: Instant,
    alarm: Pin<Box<Sleep>>,
    /// When its output is watched.
    watch: Instant,
    /// When its standard error is attended to.
    attention: Instant,
    complaints: Complaints,
}

impl Process {
    /// A program that was just started, with our ends of its pipes; `name` stands before each line of its standard
    /// error.
    pub(super) fn new(
        running: Running,
        output: OwnedFd,
        error: OwnedFd,
        deadlines: Deadlines,
        log: (ErrorLogger, String),
    ) -> Self {
        let now = Instant::now();
        Self {
            running,
            output: Source::Unwatched(output),
            buffer: BytesMut::new(),
            ended: None,
            was_full: false,
            idle: deadlines.idle,
            last: now,
            end: now + deadlines.total,
            alarm: Box::pin(tokio::time::sleep_until(now + WATCH.min(deadlines.idle).min(deadlines.total))),
            watch: now + WATCH,
            attention: now + ATTENTION,
            complaints: Complaints::new(error, log),
        }
    }

    /// From now on at most this long between two pieces of output.
    pub(super) fn set_idle(&mut self, idle: Duration) {
        self.idle = idle;
        self.last = Instant::now();
        let next = self.next_alarm();
        // One that rings too early costs less than moving it for each program that is about to end.
        if next < self.alarm.deadline() {
            self.alarm.as_mut().reset(next);
        }
    }

    /// Waits for more output or the end of it.
    pub(super) async fn read(&mut self) -> Output {
        std::future::poll_fn(|context| self.poll_read(context)).await
    }

    /// Reads into the buffer, or says why there will be no more.
    pub(super) fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Output> {
        loop {
            if let Poll::Ready(read) = self.poll_output(context) {
                if read > 0 {
                    self.last = Instant::now();
                    return Poll::Ready(Output::More);
                }
                self.close();
            }
            if self.ended.is_none() && !self.running.has_ended() {
                match self.poll_ending(context) {
                    Poll::Ready(Err(error)) => return Poll::Ready(Output::Failed(error)),
                    Poll::Ready(Ok(ending)) => {
                        self.ended = Some(ending);
                        if !self.is_closed() {
                            self.linger();
                            continue;
                        }
                    }
                    Poll::Pending => {}
                }
            }
            if self.is_closed() && self.ended.is_some() {
                return Poll::Ready(Output::End(self.ended));
            }
            ready!(self.alarm.as_mut().poll(context));
            let now = Instant::now();
            if now >= self.deadline() {
                return Poll::Ready(self.silence(now));
            }
            if now >= self.watch {
                self.watch_output();
            }
            if now >= self.attention {
                self.complaints.attend();
            }
            let next = self.next_alarm();
            self.alarm.as_mut().reset(next);
        }
    }

    /// What it comes to that a deadline is over.
    fn silence(&self, now: Instant) -> Output {
        if self.ended.is_some() || self.is_closed() {
            // Somebody else holds the pipe, or it goes on without it.
            return Output::End(self.ended);
        }
        Output::Late(if now >= self.end { Silence::Total } else { Silence::Idle })
    }

    /// Waits a moment for the rest of a short answer; whether all of it is in the buffer and the program ended well.
    pub(super) async fn settle(&mut self) -> bool {
        let rest = async {
            loop {
                match self.read().await {
                    Output::More if self.buffer.len() <= FIRST_READ => {}
                    Output::End(Some(Ending { code: Some(_), .. })) => return true,
                    _ => return false,
                }
            }
        };
        tokio::time::timeout(SETTLING, rest).await.unwrap_or(false)
    }

    /// Whether its end is known: then nothing is left to wait for.
    pub(super) fn has_ended(&self) -> bool {
        self.running.has_ended()
    }

    /// Lets it come to its end by itself, without anybody who wants its output.
    pub(super) fn finish_alone(mut self) {
        if self.has_ended() {
            return;
        }
        tokio::spawn(async move {
            while let Output::More = self.read().await {
                self.buffer.clear();
            }
            // It may go on without its standard output, but not for ever.
            let end = self.end;
            let _ = tokio::time::timeout_at(end, self.running.ending()).await;
        });
    }

    /// The output closed.
    fn close(&mut self) {
        self.output = Source::Closed;
        if self.ended.is_none() {
            self.linger();
        }
    }

    fn is_closed(&self) -> bool {
        matches!(self.output, Source::Closed)
    }

    fn linger(&mut self) {
        self.set_idle(LINGER.min(self.idle));
    }

    fn deadline(&self) -> Instant {
        (self.last + self.idle).min(self.end)
    }

    /// When it is to be looked at next, whatever it says.
    fn next_alarm(&self) -> Instant {
        let mut next = self.deadline();
        if matches!(self.output, Source::Unwatched(_)) {
            next = next.min(self.watch);
        }
        if self.complaints.are_waiting() {
            next = next.min(self.attention);
        }
        next
    }

    /// From now on the event loop tells when there is output.
    fn watch_output(&mut self) {
        if !matches!(self.output, Source::Unwatched(_)) {
            return;
        }
        if let Source::Unwatched(output) = std::mem::replace(&mut self.output, Source::Closed) {
            match pipe::Receiver::from_owned_fd_unchecked(output) {
                Ok(output) => self.output = Source::Watched(output),
                Err(_) => self.close(),
            }
        }
    }

    /// Bytes that were read; 0 when the output is over.
    fn poll_output(&mut self, context: &mut Context<'_>) -> Poll<usize> {
        if let Source::Unwatched(output) = &self.output {
            if self.ended.is_none() {
                return Poll::Pending;
            }
            let mut piece = [0; FIRST_READ];
            match rustix::io::read(output, &mut piece) {
                Ok(read) => {
                    self.buffer.extend_from_slice(&piece[..read]);
                    if read == FIRST_READ {
                        self.was_full = true;
                        self.watch_output();
                    }
                    return Poll::Ready(read);
                }
                // Others hold it open.
                Err(_) => self.watch_output(),
            }
        }
        let Source::Watched(output) = &mut self.output else { return Poll::Pending };
        // The head and all of most answers fit into a page; what does not comes in large pieces.
        self.buffer.reserve(if self.was_full { READ } else { FIRST_READ });
        let room = self.buffer.capacity() - self.buffer.len();
        let read = std::pin::pin!(output.read_buf(&mut self.buffer));
        // A pipe that cannot be read has no more to give than one that was closed.
        let read = ready!(read.poll(context)).unwrap_or(0);
        self.was_full = read == room;
        Poll::Ready(read)
    }

    fn poll_ending(&mut self, context: &mut Context<'_>) -> Poll<Result<Ending, LaunchError>> {
        let ending = std::pin::pin!(self.running.ending());
        ending.poll(context)
    }
}

/// The standard descriptors of a program as the launcher takes them.
pub(super) fn standard<'a>(input: std::os::fd::BorrowedFd<'a>, pipes: &'a Pipes) -> [std::os::fd::BorrowedFd<'a>; 3] {
    [input, pipes.output.1.as_fd(), pipes.error.1.as_fd()]
}
