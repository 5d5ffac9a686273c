//! The event loops of the front, a thread and a runtime for each.

use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};

use crate::app::EventLoop;
use crate::crowd;

/// Threads for work that may block: cold files and spooled bodies.
const BLOCKING_THREADS: usize = 16;

/// One thread and one runtime for each event loop.
pub(super) fn start(count: usize) -> io::Result<Vec<Handle>> {
    (0..count.max(1)).map(start_one).collect()
}

fn start_one(number: usize) -> io::Result<Handle> {
    let (started, result) = std::sync::mpsc::sync_channel(1);
    // Made where it runs: here, within another runtime, it must not be dropped where a part of it fails.
    std::thread::Builder::new().name(format!("loop-{number}")).spawn(move || {
        let made = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_keep_alive(Duration::from_secs(10))
            .on_thread_park(crowd::rest)
            .build()
            .and_then(|runtime| {
                let event_loop = EventLoop::new(number)?;
                let inside = runtime.enter();
                let waking = event_loop.wake_its_own()?;
                drop(inside);
                Ok((runtime, event_loop, waking))
            });
        match made {
            Ok((runtime, event_loop, waking)) => {
                // Whoever started us is gone only with the process.
                let _ = started.send(Ok(runtime.handle().clone()));
                event_loop.enter();
                runtime.block_on(waking);
            }
            Err(error) => drop(started.send(Err(error))),
        }
    })?;
    result.recv().map_err(io::Error::other)?
}
