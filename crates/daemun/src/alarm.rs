//! One timer for a connection, to a client or to a server.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is moved as seldom as possible.
///
/// Each wait knows its own deadline; the timer only has to fire at or before it. Deadlines of an idle connection move
/// ahead with every request, so a timer once armed is left alone and armed anew only when it fires too early: a busy
/// connection touches the timer wheel once in `keep_alive`, not twice a request.
#[derive(Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready when `at` has passed; else the task is woken then.
    pub fn poll(&mut self, context: &mut Context<'_>, at: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        while sleep.as_mut().poll(context).is_ready() {
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
        Poll::Pending
    }
}
