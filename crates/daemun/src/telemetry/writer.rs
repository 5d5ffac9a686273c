//! The thread that writes a log.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Bytes that wait to be written; beyond it lines are dropped. 8 MiB hold some 50,000 lines: a second at full load.
const MAX_WAITING: usize = 8 * 1024 * 1024;

/// The pause between two writes. At load hundreds of lines go in one write and nobody wakes the thread; a reader of
/// the log does not notice 5 ms.
const PAUSE: Duration = Duration::from_millis(5);

/// The pause after a write failed (full disk, reader gone), so that a broken sink costs no CPU.
const BACK_OFF: Duration = Duration::from_millis(200);

/// A buffer that is allowed to stay allocated between writes.
const KEPT_CAPACITY: usize = 256 * 1024;

/// Lines on their way to a descriptor. A clone writes to the same place.
#[derive(Clone)]
pub struct LogWriter {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// The thread waits for lines.
    filled: Condvar,
    /// `close` waits for the thread.
    done: Condvar,
}

struct State {
    waiting: Vec<u8>,
    sink: Arc<OwnedFd>,
    lost: u64,
    idle: bool,
    closing: bool,
    closed: bool,
}

impl LogWriter {
    /// Starts the thread that writes to `sink`. `report` makes the line that tells how many lines were lost, or tells
    /// it elsewhere and returns nothing.
    pub fn start(
        name: &str,
        sink: OwnedFd,
        report: impl Fn(u64) -> Option<Vec<u8>> + Send + 'static,
    ) -> io::Result<Self> {
        let state =
            State { waiting: Vec::new(), sink: Arc::new(sink), lost: 0, idle: false, closing: false, closed: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), filled: Condvar::new(), done: Condvar::new() });
        let thread_shared = Arc::clone(&shared);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || thread_shared.write_all_lines(&report))?;
        Ok(Self { shared })
    }

    /// Appends a line, its line end included. Never waits for the sink.
    pub fn push(&self, line: &[u8]) {
        let mut state = self.shared.lock();
        if state.waiting.len() + line.len() > MAX_WAITING || state.closed {
            state.lost += 1;
            return;
        }
        state.waiting.extend_from_slice(line);
        if state.idle {
            state.idle = false;
            drop(state);
            self.shared.filled.notify_one();
        }
    }

    /// Writes to another descriptor from now on (log rotation, `USR1`).
    pub fn reopen(&self, sink: OwnedFd) {
        self.shared.lock().sink = Arc::new(sink);
    }

    /// Waits until everything is written, at most this long. True if nothing was left.
    pub fn close(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let mut state = self.shared.lock();
        state.closing = true;
        self.shared.filled.notify_one();
        while !state.closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.done.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Shared {
    /// Plain data: usable even if a thread panicked while it held the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread's life.
    fn write_all_lines(&self, report: &dyn Fn(u64) -> Option<Vec<u8>>) {
        let mut lines = Vec::new();
        loop {
            let mut state = self.lock();
            while state.waiting.is_empty() && !state.closing {
                state.idle = true;
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.idle = false;
            if state.waiting.is_empty() {
                state.closed = true;
                self.done.notify_all();
                return;
            }
            std::mem::swap(&mut lines, &mut state.waiting);
            let sink = Arc::clone(&state.sink);
            let lost = std::mem::take(&mut state.lost);
            drop(state);
            if lost > 0 {
                lines.extend(report(lost).unwrap_or_default());
            }
            let pause = if write_lines(&sink, &lines) {
                PAUSE
            } else {
                self.lock().lost += memchr::memchr_iter(b'\n', &lines).count() as u64;
                BACK_OFF
            };
            lines.clear();
            lines.shrink_to(KEPT_CAPACITY);
            self.pause(pause);
        }
    }

    /// Sleeps, unless the log is being closed.
    fn pause(&self, pause: Duration) {
        let state = self.lock();
        let _ = self.filled.wait_timeout_while(state, pause, |state| !state.closing);
    }
}

/// Writes everything; false where the sink failed and the lines are lost.
fn write_lines(sink: &OwnedFd, mut lines: &[u8]) -> bool {
    while !lines.is_empty() {
        match rustix::io::write(sink, lines) {
            Ok(0) => return false,
            Ok(written) => lines = &lines[written..],
            Err(rustix::io::Errno::INTR) => {}
            // Somebody who shares the descriptor made it non-blocking.
            Err(rustix::io::Errno::AGAIN) => {
                let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
                let _ = poll(&mut [PollFd::new(sink, PollFlags::OUT)], Some(&timeout));
            }
            Err(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::io::{Read, pipe};

    use super::*;

    #[test]
    fn closing_writes_every_line() {
        let (mut read, write) = pipe().unwrap();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            read.read_to_string(&mut text).unwrap();
            text
        });
        let writer = LogWriter::start("test", write.into(), |_| None).unwrap();
        for at in 0..50_000 {
            writer.push(format!("{at}\n").as_bytes());
        }
        assert!(writer.close(Duration::from_secs(10)));
        drop(writer);
        let text = reader.join().unwrap();
        assert!(text.lines().enumerate().all(|(at, line)| line == at.to_string()));
        assert_eq!(text.lines().count(), 50_000);
    }

    #[test]
    fn a_log_that_nobody_reads_stops_nobody_and_tells_what_was_lost() {
        let (mut read, write) = pipe().unwrap();
        let writer =
            LogWriter::start("test", write.into(), |lost| Some(format!("lost {lost}\n").into_bytes())).unwrap();
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        let pushed = 20_000;
        for _ in 0..pushed {
            writer.push(&line);
        }
        assert!(!writer.close(Duration::from_millis(50)), "nobody reads");
        let closer = writer.clone();
        let closing = std::thread::spawn(move || closer.close(Duration::from_secs(10)));
        drop(writer);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert!(closing.join().unwrap());
        let kept = text.lines().filter(|line| line.starts_with('x')).count();
        let told: usize = text.lines().filter_map(|line| line.strip_prefix("lost ")?.parse::<usize>().ok()).sum();
        assert!(kept < pushed && kept + told == pushed, "{kept} + {told}");
    }

    #[test]
    fn a_reader_that_went_away_is_survived_and_a_new_sink_taken() {
        let (read, write) = pipe().unwrap();
        drop(read);
        let writer =
            LogWriter::start("test", write.into(), |lost| Some(format!("lost {lost}\n").into_bytes())).unwrap();
        writer.push(b"a\n");
        let (mut read, write) = pipe().unwrap();
        while writer.shared.lock().lost == 0 {
            std::thread::yield_now();
        }
        writer.reopen(write.into());
        writer.push(b"b\n");
        assert!(writer.close(Duration::from_secs(5)));
        drop(writer);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "b\nlost 1\n");
    }
}
