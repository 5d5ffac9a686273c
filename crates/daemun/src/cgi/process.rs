//! A program while it runs: its output, its end, its deadlines, and its standard error on the way to the log.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use rustix::pipe::PipeFlags;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use crate::gateway::Complaints;
use crate::launcher::{Ending, LaunchError, Running};
use crate::telemetry::ErrorLogger;

/// Bytes of output that are read at once: what a pipe holds.
const READ: usize = 64 * 1024;

/// Bytes that are read at first.
const FIRST_READ: usize = 4096;

/// How long after the program's end output is waited for that others hold open, and how long after the end of its
/// output the program may take to end. Nobody waits longer for a page because of a process that was left behind.
const LINGER: Duration = Duration::from_millis(500);

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

/// A running program. Dropping it ends the program with its process group.
pub(super) struct Process {
    running: Running,
    output: pipe::Receiver,
    /// Output that was read and not yet taken.
    pub(super) buffer: BytesMut,
    has_begun: bool,
    is_closed: bool,
    ended: Option<Ending>,
    idle: Duration,
    last: Instant,
    end: Instant,
    alarm: Pin<Box<Sleep>>,
    /// Ends the reading of standard error when the request is over.
    _listening: oneshot::Sender<()>,
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
    ) -> io::Result<Self> {
        let (listening, over) = oneshot::channel();
        let error = pipe::Receiver::from_owned_fd_unchecked(error)?;
        tokio::spawn(log_lines(error, Complaints::new(log.0, log.1), over));
        let now = Instant::now();
        Ok(Self {
            running,
            output: pipe::Receiver::from_owned_fd_unchecked(output)?,
            buffer: BytesMut::new(),
            has_begun: false,
            is_closed: false,
            ended: None,
            idle: deadlines.idle,
            last: now,
            end: now + deadlines.total,
            alarm: Box::pin(tokio::time::sleep_until(now + deadlines.idle.min(deadlines.total))),
            _listening: listening,
        })
    }

    /// From now on at most this long between two pieces of output.
    pub(super) fn set_idle(&mut self, idle: Duration) {
        self.idle = idle;
        self.last = Instant::now();
        let next = self.deadline();
        self.alarm.as_mut().reset(next);
    }

    /// Waits for more output or the end of it.
    pub(super) async fn read(&mut self) -> Output {
        std::future::poll_fn(|context| self.poll_read(context)).await
    }

    /// Reads into the buffer, or says why there will be no more.
    pub(super) fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Output> {
        loop {
            if !self.is_closed {
                match self.poll_output(context) {
                    Poll::Ready(0) => self.close(),
                    Poll::Ready(_) => {
                        self.last = Instant::now();
                        return Poll::Ready(Output::More);
                    }
                    Poll::Pending => {}
                }
            }
            if self.ended.is_none() && !self.running.has_ended() {
                match self.poll_ending(context) {
                    Poll::Ready(Err(error)) => return Poll::Ready(Output::Failed(error)),
                    Poll::Ready(Ok(ending)) => {
                        self.ended = Some(ending);
                        if !self.is_closed {
                            self.linger();
                            continue;
                        }
                    }
                    Poll::Pending => {}
                }
            }
            if self.is_closed && self.ended.is_some() {
                return Poll::Ready(Output::End(self.ended));
            }
            ready!(self.alarm.as_mut().poll(context));
            let now = Instant::now();
            if now < self.deadline() {
                let next = self.deadline();
                self.alarm.as_mut().reset(next);
            } else if self.ended.is_some() || self.is_closed {
                // Somebody else holds the pipe, or it goes on without it.
                return Poll::Ready(Output::End(self.ended));
            } else {
                return Poll::Ready(Output::Late(if now >= self.end { Silence::Total } else { Silence::Idle }));
            }
        }
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
        self.is_closed = true;
        self.linger();
    }

    fn linger(&mut self) {
        self.set_idle(LINGER.min(self.idle));
    }

    fn deadline(&self) -> Instant {
        (self.last + self.idle).min(self.end)
    }

    fn poll_output(&mut self, context: &mut Context<'_>) -> Poll<usize> {
        // The head and all of most answers fit into a page; what does not comes in large pieces.
        self.buffer.reserve(if self.has_begun { READ } else { FIRST_READ });
        let read = std::pin::pin!(self.output.read_buf(&mut self.buffer));
        // A pipe that cannot be read has no more to give than one that was closed.
        let read = ready!(read.poll(context)).unwrap_or(0);
        self.has_begun = true;
        Poll::Ready(read)
    }

    fn poll_ending(&mut self, context: &mut Context<'_>) -> Poll<Result<Ending, LaunchError>> {
        let ending = std::pin::pin!(self.running.ending());
        ending.poll(context)
    }
}

/// Writes standard error to the log, line by line, up to a cap; what comes after it is read and dropped, so that the
/// program goes on.
async fn log_lines(mut error: pipe::Receiver, mut complaints: Complaints, mut over: oneshot::Receiver<()>) {
    let mut is_over = false;
    let mut buffer = BytesMut::with_capacity(4096);
    loop {
        buffer.clear();
        let read = tokio::select! {
            biased;
            read = error.read_buf(&mut buffer) => read.unwrap_or(0),
            _ = &mut over, if !is_over => {
                is_over = true;
                continue;
            }
            // What was written before the end is here by now.
            () = tokio::time::sleep(LINGER), if is_over => 0,
        };
        if read == 0 {
            break;
        }
        complaints.push(&buffer);
    }
}

/// The standard descriptors of a program as the launcher takes them.
pub(super) fn standard<'a>(input: std::os::fd::BorrowedFd<'a>, pipes: &'a Pipes) -> [std::os::fd::BorrowedFd<'a>; 3] {
    [input, pipes.output.1.as_fd(), pipes.error.1.as_fd()]
}
