//! What the threads of a worker are doing: their Python stacks, also while one of them holds the interpreter.
//!
//! A thread of a worker waits for a real-time signal, and writes the stacks of all of them to a pipe that the workers of an
//! application share, once it has its turn at the interpreter. Where that does not come, a call in C has it: then another
//! signal lets `faulthandler` write them without. That one alone would do, but follows frames of threads that run, and
//! crashes with them. One worker is asked at a time. Each of its threads has said on the same pipe which one it is.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{mpsc, oneshot};

use crate::app::STACK_SIGNAL;
use crate::process::Account;
use crate::sys;

/// How long a worker may take to begin before a call in C is blamed. Python passes the turn on every 5 ms.
const TURN: Duration = Duration::from_millis(500);

/// How long it may take to begin where it needs no turn.
const FIRST: Duration = Duration::from_secs(2);

/// What is silent for this long has said everything.
const QUIET: Duration = Duration::from_millis(100);

/// Bytes of one worker's stacks: what `faulthandler` shows of a hundred threads.
const MOST: usize = 1024 * 1024;

/// Workers that may wait to be asked.
const WAITING: usize = 64;

/// Threads that are remembered: more than the workers of an application have.
const MOST_THREADS: usize = 65_536;

/// The stacks of an application's workers.
pub(super) struct Stacks {
    /// Where workers write to.
    pub(super) end: OwnedFd,
    asks: mpsc::Sender<Ask>,
}

/// The stacks of one worker.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct WorkerStacks {
    /// Each thread's frames without ours, the innermost first; with its number where it takes requests.
    pub(super) threads: Vec<(Option<u16>, String)>,
}

struct Ask {
    pid: i32,
    answer: oneshot::Sender<WorkerStacks>,
}

impl Stacks {
    /// A pipe for workers that run as `account`.
    pub(super) fn new(account: Option<&Account>) -> io::Result<Self> {
        let (reader, end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        if let Some(account) = account {
            std::os::unix::fs::fchown(&end, Some(account.identity.user), Some(account.identity.group))?;
        }
        let (asks, asked) = mpsc::channel(WAITING);
        tokio::spawn(read(Receiver::from_owned_fd(reader)?, asked));
        Ok(Self { end, asks })
    }

    /// Asks a worker that is connected; nothing comes of one that is gone, or where too many are waiting already.
    pub(super) fn ask(&self, pid: i32) -> impl Future<Output = Option<WorkerStacks>> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        let sent = self.asks.try_send(Ask { pid, answer });
        async move {
            sent.ok()?;
            answered.await.ok()
        }
    }
}

impl WorkerStacks {
    /// The stack of this thread; all of them where it did not say which one it is.
    pub(super) fn of_thread(&self, thread: u16) -> String {
        match self.threads.iter().find(|(number, _)| *number == Some(thread)) {
            Some((_, frames)) => frames.clone(),
            None => self.to_string(),
        }
    }
}

impl std::fmt::Display for WorkerStacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, frames) in &self.threads {
            match number {
                Some(number) => write!(f, "thread {number}:")?,
                None => f.write_str("another thread:")?,
            }
            f.write_char('\n')?;
            f.write_str(if frames.is_empty() { "  waits for a request\n" } else { frames })?;
        }
        Ok(())
    }
}

/// Reads the pipe: who the threads are and, when a worker was asked, what they do. Ends with the application.
async fn read(mut pipe: Receiver, mut asks: mpsc::Receiver<Ask>) {
    let mut threads = HashMap::new();
    let mut buffer = Vec::new();
    loop {
        tokio::select! {
            ask = asks.recv() => {
                let Some(Ask { pid, answer }) = ask else { return };
                buffer.clear();
                for (signal, first) in [(STACK_SIGNAL, TURN), (STACK_SIGNAL + 1, FIRST)] {
                    if pid > 0 && buffer.is_empty() && sys::signal_number(pid, signal).is_ok() {
                        gather(&mut pipe, &mut buffer, first).await;
                    }
                }
                note(&String::from_utf8_lossy(&buffer), &mut threads);
                // Whoever asked may have given up.
                let _ = answer.send(parse(&String::from_utf8_lossy(&buffer), pid, &threads));
                buffer.clear();
            }
            read = pipe.read_buf(&mut buffer) => {
                if !read.is_ok_and(|read| read > 0) {
                    return;
                }
                let whole = buffer.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
                let lines: Vec<u8> = buffer.drain(..whole).collect();
                note(&String::from_utf8_lossy(&lines), &mut threads);
                buffer.truncate(MOST);
            }
        }
    }
}

async fn gather(pipe: &mut Receiver, buffer: &mut Vec<u8>, first: Duration) {
    while buffer.len() < MOST {
        let patience = if buffer.is_empty() { first } else { QUIET };
        match tokio::time::timeout(patience, pipe.read_buf(buffer)).await {
            Ok(Ok(read)) if read > 0 => {}
            _ => return,
        }
    }
}

/// Takes down which thread is which: `daemun-thread PID NUMBER IDENT`.
fn note(text: &str, threads: &mut HashMap<(i32, u64), u16>) {
    for line in text.lines() {
        let mut words = line.split(' ');
        if words.next() != Some("daemun-thread") {
            continue;
        }
        let (pid, number, ident) = (words.next(), words.next(), words.next());
        let number_of = |word: Option<&str>| word?.parse::<u64>().ok();
        if let (Some(pid), Some(number), Some(ident)) = (number_of(pid), number_of(number), number_of(ident)) {
            if threads.len() >= MOST_THREADS {
                // Far more than live: of workers that are gone. The next ones will say it again.
                threads.clear();
            }
            threads.insert((pid as i32, ident), number as u16);
        }
    }
}

/// Reads what was written, in the form of `faulthandler`: `Thread 0x… (most recent call first):`, then frames. Ours are left out.
fn parse(text: &str, pid: i32, threads: &HashMap<(i32, u64), u16>) -> WorkerStacks {
    let mut stacks = WorkerStacks::default();
    let mut own = None;
    for line in text.lines() {
        let head = line.strip_prefix("Current thread ").or_else(|| line.strip_prefix("Thread "));
        if let Some(rest) = head.and_then(|rest| rest.strip_prefix("0x")) {
            let digits = rest.split(|c: char| !c.is_ascii_hexdigit()).next().unwrap_or_default();
            let ident = u64::from_str_radix(digits, 16).unwrap_or_default();
            cut(&mut stacks, own.take());
            stacks.threads.push((threads.get(&(pid, ident)).copied(), String::new()));
        } else if let Some((_, frames)) = stacks.threads.last_mut()
            && line.starts_with("  ")
        {
            if line.contains("daemun_worker.py\"") {
                own = Some(frames.len());
            } else {
                // A string takes everything.
                let _ = writeln!(frames, "{line}");
            }
        }
    }
    cut(&mut stacks, own);
    stacks.threads.sort_by_key(|(number, _)| number.unwrap_or(u16::MAX));
    // Our own threads, such as the monitor's, are of no interest where nothing of the application is on them.
    stacks.threads.retain(|(number, frames)| number.is_some() || !frames.is_empty());
    stacks
}

/// What stands behind the outermost frame of ours is how Python starts a thread, and no work of the application.
fn cut(stacks: &mut WorkerStacks, own: Option<usize>) {
    if let (Some((_, frames)), Some(own)) = (stacks.threads.last_mut(), own) {
        frames.truncate(own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "daemun-thread 7 1 48\nThread 0x0000000000000030 (most recent call first):\n  File \"/a/b.py\", line \
        3 in view\n  File \"/run/daemun_worker.py\", line 9 in answer\n\nCurrent thread 0x20 (most recent call first):\n  \
        File \"/run/daemun_worker.py\", line 2 in receive\n  File \"/lib/threading.py\", line 5 in _bootstrap\n\nThread 0x40 [own] (most recent call first):\n  File \
        \"/a/c.py\", line 1 in loop\n";

    #[test]
    fn each_thread_is_told_by_its_number_and_without_our_frames() {
        let mut threads = HashMap::new();
        note("daemun-thread 7 0 32\ndaemun-thread 8 5 32\ndaemun-thread x y z\nnoise\n", &mut threads);
        note(DUMP, &mut threads);
        let stacks = parse(DUMP, 7, &threads);
        assert_eq!(stacks.of_thread(1), "  File \"/a/b.py\", line 3 in view\n");
        assert_eq!(
            stacks.to_string(),
            "thread 0:\n  waits for a request\nthread 1:\n  File \"/a/b.py\", line 3 in view\nanother thread:\n  \
             File \"/a/c.py\", line 1 in loop\n"
        );
    }

    #[test]
    fn garbage_from_a_worker_is_no_stack() {
        assert_eq!(parse("Thread 0xZZ\n  x\n\0\u{fffd}Thread\n", 1, &HashMap::new()).threads.len(), 1);
        assert_eq!(parse("  File before any thread\n", 1, &HashMap::new()), WorkerStacks::default());
    }
}
