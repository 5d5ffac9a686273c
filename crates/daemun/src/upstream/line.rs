//! The requests that wait for a place, in the order in which they came.
//!
//! A page costs them one wake-up each, when there is a place. Nobody has a timer: one task looks after all of them, and is
//! there while anybody waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

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
    /// Whether somebody sees to it that nobody waits too long.
    is_watched: bool,
    /// By their numbers.
    queue: VecDeque<Stand>,
}

struct Stand {
    number: u64,
    /// When it has waited long enough.
    due: Instant,
    is_called: bool,
    is_late: bool,
    waker: Option<Waker>,
}

/// What ends a wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Word {
    /// There may be a place.
    Look,
    /// It has taken too long.
    Late,
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

    fn join(&self, due: Instant) -> Turn<'_> {
        let mut stands = lock(&self.stands);
        let number = stands.next;
        stands.next += 1;
        stands.queue.push_back(Stand { number, due, is_called: false, is_late: false, waker: None });
        self.length.store(stands.queue.len(), Ordering::SeqCst);
        Turn { line: self, number }
    }

    /// Whether nobody looks after the line; from now on the caller does.
    fn takes_watch(&self) -> bool {
        !std::mem::replace(&mut lock(&self.stands).is_watched, true)
    }

    /// When the next of them has waited long enough; `None` ends the watch.
    fn next_due(&self) -> Option<Instant> {
        let mut stands = lock(&self.stands);
        let due = stands.queue.iter().filter(|stand| !stand.is_late).map(|stand| stand.due).min();
        stands.is_watched = due.is_some();
        due
    }

    /// Sends away who has waited long enough.
    fn send_away(&self, now: Instant) {
        let mut stands = lock(&self.stands);
        let late = stands.queue.iter_mut().filter(|stand| stand.due <= now && !stand.is_late);
        let wakers: Vec<_> = late
            .filter_map(|stand| {
                stand.is_late = true;
                stand.waker.take()
            })
            .collect();
        drop(stands);
        wakers.into_iter().for_each(Waker::wake);
    }
}

// === impl Turn ===

impl Turn<'_> {
    fn is_first(&self) -> bool {
        lock(&self.line.stands).queue.front().is_some_and(|stand| stand.number == self.number)
    }

    /// Waits until it was called, or has waited long enough.
    async fn word(&self) -> Word {
        std::future::poll_fn(|context| {
            let mut stands = lock(&self.line.stands);
            let Some(stand) = stands.stand(self.number) else { return Poll::Ready(Word::Late) };
            if std::mem::take(&mut stand.is_called) {
                return Poll::Ready(Word::Look);
            }
            if stand.is_late {
                return Poll::Ready(Word::Late);
            }
            match &mut stand.waker {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
            Poll::Pending
        })
        .await
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
    /// A place, once those who came before have theirs; `None` where that takes too long.
    pub(super) async fn in_turn(
        self: &Arc<Self>,
        wanted: &Wanted<'_>,
        patience: Duration,
    ) -> Option<Result<Place, NoServer>> {
        let turn = self.line.join(Instant::now() + patience);
        if self.line.takes_watch() {
            tokio::spawn(Arc::clone(self).watch_line());
        }
        // What was freed before anybody stood here called nobody.
        let mut may_look = turn.is_first();
        loop {
            let choice = if may_look { self.choose(wanted, &[]) } else { Choice::Later };
            let found = match choice {
                Choice::Found(place) => Ok(place),
                Choice::None => Err(NoServer::None),
                Choice::Later => match turn.word().await {
                    Word::Look => {
                        may_look = true;
                        continue;
                    }
                    Word::Late => return None,
                },
            };
            drop(turn);
            // There may be more room than the one place that was freed: a server came back, a limit has risen. And where
            // there is no server for one there is none for the next.
            if found.is_err() || self.has_room() {
                self.line.call();
            }
            return Some(found);
        }
    }

    async fn watch_line(self: Arc<Self>) {
        while let Some(due) = self.line.next_due() {
            tokio::time::sleep_until(due).await;
            self.line.send_away(Instant::now());
        }
    }

    /// Whether one more would find a place, as far as limits go.
    fn has_room(&self) -> bool {
        let serving = self.serving();
        serving.servers.iter().any(|server| !server.state.is_drained.load(Ordering::Relaxed) && server.has_room())
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
        let due = Instant::now();
        let (first, second, third) = (line.join(due), line.join(due), line.join(due));
        let said = |turn: &Turn<'_>| pin!(turn.word()).poll(&mut Context::from_waker(Waker::noop()));
        let is_called = |turn: &Turn<'_>| said(turn) == Poll::Ready(Word::Look);
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

    #[test]
    fn who_has_waited_long_enough_is_sent_away_and_a_place_that_came_just_then_is_not_lost() {
        let (line, now) = (Line::default(), Instant::now());
        assert!(line.takes_watch() && !line.takes_watch());
        let (first, second) = (line.join(now), line.join(now + Duration::from_secs(1)));
        let said = |turn: &Turn<'_>| pin!(turn.word()).poll(&mut Context::from_waker(Waker::noop()));
        assert!(said(&first).is_pending() && said(&second).is_pending());
        assert_eq!(line.next_due(), Some(now));
        line.send_away(now);
        assert_eq!((said(&first), said(&second)), (Poll::Ready(Word::Late), Poll::Pending));
        assert_eq!(line.next_due(), Some(now + Duration::from_secs(1)));
        line.call();
        drop(first);
        assert_eq!(said(&second), Poll::Ready(Word::Look));
        drop(second);
        assert_eq!((line.next_due(), line.takes_watch()), (None, true));
    }
}
