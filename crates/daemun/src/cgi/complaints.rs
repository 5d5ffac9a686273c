//! Standard error of a program on its way to the log: line by line, up to a cap.

use std::os::fd::OwnedFd;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::process::LINGER;
use crate::gateway::LogLines;
use crate::telemetry::ErrorLogger;

/// Bytes that are read at the end at most: what a pipe holds.
const MOST: usize = 64 * 1024;

/// Bytes that are read at once.
const READ: usize = 4096;

/// Standard error of one program. Dropping it writes down what is still there.
pub(super) struct Complaints {
    state: State,
}

enum State {
    /// Nobody reads yet: most programs are done before anybody has to, or say nothing.
    Waiting(OwnedFd, LogLines),
    /// A task reads it as it comes, and hears of the end of the request by this.
    Attended { _over: oneshot::Sender<()> },
    /// Nothing is left.
    Over,
}

impl Complaints {
    /// Of a program that was just started, with our end of the pipe, which never blocks; the name stands before each
    /// line.
    pub(super) fn new(error: OwnedFd, (log, name): (ErrorLogger, String)) -> Self {
        Self { state: State::Waiting(error, LogLines::new(log, name)) }
    }

    /// Whether nobody attends to it yet.
    pub(super) fn are_waiting(&self) -> bool {
        matches!(self.state, State::Waiting(..))
    }

    /// From now on lines go to the log as they come: it runs for a while.
    pub(super) fn attend(&mut self) {
        if self.are_waiting()
            && let State::Waiting(error, lines) = std::mem::replace(&mut self.state, State::Over)
            && let Ok(error) = pipe::Receiver::from_owned_fd_unchecked(error)
        {
            let (over, told) = oneshot::channel();
            tokio::spawn(follow(error, lines, told));
            self.state = State::Attended { _over: over };
        }
    }
}

impl Drop for Complaints {
    fn drop(&mut self) {
        let State::Waiting(error, lines) = &mut self.state else { return };
        // Whoever still writes does so without us when it is over; but what is there belongs to the request.
        if !drain(error, lines) && Handle::try_current().is_ok() {
            self.attend();
        }
    }
}

/// Reads until the end; what comes after the cap is dropped, so that the program goes on.
async fn follow(mut error: pipe::Receiver, mut lines: LogLines, mut over: oneshot::Receiver<()>) {
    let mut buffer = BytesMut::with_capacity(READ);
    let mut is_over = false;
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
            return;
        }
        lines.push(&buffer);
    }
}

/// Takes what is there, at most some pipes full; false where somebody may write more.
fn drain(error: &OwnedFd, lines: &mut LogLines) -> bool {
    let mut buffer = [0; READ];
    for _ in 0..=MOST / READ {
        match rustix::io::read(error, &mut buffer) {
            Ok(read @ 1..) => lines.push(&buffer[..read]),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return false,
            Ok(_) | Err(_) => return true,
        }
    }
    false
}
