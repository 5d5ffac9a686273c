//! The requests that wait for a place, in the order in which they came.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use super::group::{Choice, Group, NoServer, Wanted};
use super::place::Place;
use super::server::lock;

/// A line. Whoever frees a place calls the next, and nobody else is woken; whoever was called and has gone passes it on.
#[derive(Default)]
pub(super) struct Line {
    /// Those in it, for whoever wants to know without its lock.
    length: AtomicUsize,
    stands: Mutex<Stands>,
}

#[derive(Default)]
struct Stands {
    next: u64,
    /// By their numbers.
    queue: VecDeque<Stand>,
}

struct Stand {
    number: u64,
    is_called: bool,
    waker: Option<Waker>,
}

/// A request's stand in the line; dropping it leaves the line.
struct Turn<'a> {
    line: &'a Line,
    number: u64,
}

// === impl Line ===

impl Line {
    /// How many stand in it.
    pub(super) fn length(&self) -> usize {
        self.length.load(Ordering::SeqCst)
    }

    /// Has the first of those that were not called yet look for a place.
    pub(super) fn call(&self) {
        if self.length() == 0 {
            return;
        }
        let waker = lock(&self.stands).queue.iter_mut().find(|stand| !stand.is_called).and_then(|stand| {
            stand.is_called = true;
            stand.waker.take()
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn join(&self) -> Turn<'_> {
        let mut stands = lock(&self.stands);
        let number = stands.next;
        stands.next += 1;
        stands.queue.push_back(Stand { number, is_called: false, waker: None });
        self.length.store(stands.queue.len(), Ordering::SeqCst);
        Turn { line: self, number }
    }
}

// === impl Turn ===

impl Turn<'_> {
    fn is_first(&self) -> bool {
        lock(&self.line.stands).queue.front().is_some_and(|stand| stand.number == self.number)
    }

    /// Waits until it was called.
    async fn called(&self) {
        std::future::poll_fn(|context| {
            let mut stands = lock(&self.line.stands);
            let Some(stand) = stands.stand(self.number) else { return Poll::Ready(()) };
            if std::mem::take(&mut stand.is_called) {
                return Poll::Ready(());
            }
            match &mut stand.waker {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut stands = lock(&self.line.stands);
        let Ok(at) = stands.queue.binary_search_by_key(&self.number, |stand| stand.number) else { return };
        let left = stands.queue.remove(at);
        self.line.length.store(stands.queue.len(), Ordering::SeqCst);
        drop(stands);
        if left.is_some_and(|stand| stand.is_called) {
            self.line.call();
        }
    }
}

// === impl Stands ===

impl Stands {
    fn stand(&mut self, number: u64) -> Option<&mut Stand> {
        let at = self.queue.binary_search_by_key(&number, |stand| stand.number).ok()?;
        self.queue.get_mut(at)
    }
}

// === impl Group ===

impl Group {
    /// A place, once those who came before have theirs.
    pub(super) async fn in_turn(self: &Arc<Self>, wanted: &Wanted<'_>) -> Result<Place, NoServer> {
        let turn = self.line.join();
        // What was freed before anybody stood here called nobody.
        let mut may_look = turn.is_first();
        loop {
            let choice = if may_look { self.choose(wanted, &[]) } else { Choice::Later };
            let found = match choice {
                Choice::Found(place) => Ok(place),
                Choice::None => Err(NoServer::None),
                Choice::Later => {
                    turn.called().await;
                    may_look = true;
                    continue;
                }
            };
            drop(turn);
            // There may be more room than the one place that was freed: a server came back, a limit has risen. And where
            // there is no server for one there is none for the next.
            if found.is_err() || self.has_room() {
                self.line.call();
            }
            return found;
        }
    }

    /// Something has changed that those who wait may be helped by.
    pub(super) fn changed(&self) {
        self.freed.notify_waiters();
        self.line.call();
    }

    /// A place was given back.
    pub(super) fn free(&self) {
        let waiting = self.waiting.load(Ordering::SeqCst);
        if waiting == 0 {
            return;
        }
        let in_line = self.line.length();
        if in_line > 0 {
            self.line.call();
        }
        if waiting > in_line {
            self.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    #[test]
    fn whoever_came_first_is_called_first_and_who_leaves_passes_it_on() {
        let line = Line::default();
        let (first, second, third) = (line.join(), line.join(), line.join());
        let is_called = |turn: &Turn<'_>| pin!(turn.called()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
        assert!(first.is_first() && !second.is_first());
        assert!(!is_called(&first) && !is_called(&second));
        line.call();
        assert!(!is_called(&second) && is_called(&first));
        assert!(!is_called(&first), "one call is for one look");
        line.call();
        line.call();
        drop(first);
        assert!(is_called(&second) && is_called(&third), "the call that nobody heard goes on");
        line.call();
        drop(second);
        assert!(is_called(&third) && third.is_first());
        drop(third);
        assert_eq!(line.length(), 0);
        line.call();
    }
}
