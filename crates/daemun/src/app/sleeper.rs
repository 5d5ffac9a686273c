//! Waking tasks of other event loops.
//!
//! To wake a task from another thread costs a system call and, where its event loop sleeps, a switch to it. A worker
//! writes its answers many at a time, and they are for connections of every event loop: what is woken on another one goes
//! there together, and wakes it once.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use rustix::event::{EventfdFlags, eventfd};
use tokio::io::Interest;

use crate::crowd;
use crate::sys;

/// An event loop, and who is to be woken on it. There are as many as the server has, and they live as long as it does.
#[derive(Debug)]
pub struct EventLoop {
    number: usize,
    /// Whom other threads want woken.
    due: Mutex<Vec<Waker>>,
    /// Rung when the first of them comes. Not the event loop's own: one that rests listens for this one too.
    bell: Arc<OwnedFd>,
}

thread_local! {
    static HERE: Cell<Option<&'static EventLoop>> = const { Cell::new(None) };
}

/// A task that sleeps, and where.
#[derive(Debug)]
pub(super) struct Sleeper {
    waker: Waker,
    /// Where it is known: a thread that runs no event loop of ours has none.
    home: Option<&'static EventLoop>,
}

/// The number of the event loop that this thread runs, so that requests prefer workers whose lanes live on it.
pub(super) fn number() -> usize {
    HERE.get().map_or(0, |here| here.number)
}

/// Wakes them: those of this event loop at once, those of each other one together. To be called without a lock.
pub(super) fn wake(sleepers: impl IntoIterator<Item = Sleeper>) {
    let here = HERE.get();
    let mut elsewhere: Vec<(&'static EventLoop, Waker)> = Vec::new();
    for Sleeper { waker, home } in sleepers {
        match home {
            Some(home) if !here.is_some_and(|here| ptr::eq(here, home)) => elsewhere.push((home, waker)),
            _ => waker.wake(),
        }
    }
    while let Some(&(home, _)) = elsewhere.last() {
        let theirs = elsewhere.extract_if(.., |(other, _)| ptr::eq(*other, home));
        home.wake(theirs.map(|(_, waker)| waker));
    }
}

// === impl EventLoop ===

impl EventLoop {
    /// The event loop of this number. The error: there is no descriptor left.
    pub fn new(number: usize) -> io::Result<&'static Self> {
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok(Box::leak(Box::new(Self { number, due: Mutex::default(), bell })))
    }

    /// Makes this thread the one that runs it.
    pub fn enter(&'static self) {
        crowd::listen_for(&self.bell);
        HERE.set(Some(self));
    }

    /// Wakes what other threads want woken here, until the runtime ends, which is the one that this is called within.
    pub fn wake_its_own(&'static self) -> io::Result<impl Future<Output = ()> + Send> {
        let bell = sys::watched(self.bell.try_clone()?, Interest::READABLE)?;
        Ok(async move {
            while let Ok(mut rung) = bell.readable().await {
                // One read takes all rings. Silenced before the look: whoever comes after it rings again.
                let _ = rustix::io::read(bell.get_ref(), &mut [0; 8]);
                rung.clear_ready();
                self.wake_what_is_due();
            }
        })
    }

    fn wake_what_is_due(&self) {
        let due = std::mem::take(&mut *self.due());
        due.into_iter().for_each(Waker::wake);
    }

    /// From another thread.
    fn wake(&self, wakers: impl Iterator<Item = Waker>) {
        let mut due = self.due();
        let is_rung = !due.is_empty();
        due.extend(wakers);
        drop(due);
        if !is_rung && rustix::io::write(&self.bell, &1_u64.to_ne_bytes()).is_err() {
            // Whoever comes later would take it for rung: what is due is woken from here, as it can be from anywhere.
            self.wake_what_is_due();
        }
    }

    /// A panic while the lock was held left a list of wakers behind: it can be used.
    fn due(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Sleeper ===

impl Sleeper {
    /// Leaves the task of `context`, which is being polled on this thread, in `place`.
    pub(super) fn sleep_in(place: &mut Option<Self>, context: &Context<'_>) {
        match place {
            Some(sleeper) => sleeper.waker.clone_from(context.waker()),
            none => *none = Some(Self { waker: context.waker().clone(), home: HERE.get() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Count {
        fn get(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A task that sleeps on this thread, and how often it was woken.
    fn sleeper() -> (Sleeper, Arc<Count>) {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut place = None;
        Sleeper::sleep_in(&mut place, &Context::from_waker(&waker));
        (place.unwrap(), count)
    }

    /// How often the bell was rung since it was last asked.
    fn rings(event_loop: &EventLoop) -> u64 {
        let mut count = [0; 8];
        rustix::io::read(&event_loop.bell, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
    }

    #[tokio::test]
    async fn what_sleeps_elsewhere_is_woken_there_and_its_event_loop_once() {
        let event_loop = EventLoop::new(1).unwrap();
        event_loop.enter();
        assert_eq!(number(), 1);
        let (sleepers, counts): (Vec<_>, Vec<_>) = (0..5).map(|_| sleeper()).unzip();
        let woken = || counts.iter().map(|count| count.get()).sum::<usize>();
        std::thread::spawn(|| sleepers.into_iter().for_each(|sleeper| wake([sleeper]))).join().unwrap();
        assert_eq!((rings(event_loop), woken()), (1, 0));
        event_loop.wake([].into_iter());
        assert_eq!(rings(event_loop), 0, "it has been rung and not looked yet");
        rustix::io::write(&event_loop.bell, &1_u64.to_ne_bytes()).unwrap();
        tokio::spawn(event_loop.wake_its_own().unwrap());
        while woken() < 5 {
            tokio::task::yield_now().await;
        }
        let (later, count) = sleeper();
        std::thread::spawn(|| wake([later])).join().unwrap();
        while count.get() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!((woken(), count.get(), rings(event_loop)), (5, 1, 0));
    }

    #[test]
    fn a_bell_that_cannot_be_rung_keeps_nobody_asleep() {
        // A descriptor that only reads in place of the bell: every ring fails.
        let bell = Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        let event_loop: &'static EventLoop = Box::leak(Box::new(EventLoop { number: 0, due: Mutex::default(), bell }));
        event_loop.enter();
        for _ in 0..2 {
            let (sleeper, count) = sleeper();
            std::thread::spawn(|| wake([sleeper])).join().unwrap();
            assert_eq!(count.get(), 1);
        }
    }

    #[test]
    fn what_sleeps_here_is_woken_at_once() {
        let event_loop = EventLoop::new(0).unwrap();
        event_loop.enter();
        let (sleeper, count) = sleeper();
        wake([sleeper]);
        assert_eq!((count.get(), rings(event_loop)), (1, 0));
    }
}
