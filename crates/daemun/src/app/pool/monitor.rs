//! The clock of a pool: deadlines, and requests that wait behind a thread that has fallen silent.

use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::{Pool, State, WorkerReport, wake};
use crate::app::exchange::{Event, Failure, Place};
#[cfg(doc)]
use crate::app::pace::Pace;
use crate::app::worker::{Lane, SlotState, Worker};

/// How long a request that was asked for back is given at least before it is looked at again.
const VISIBLE: Duration = Duration::from_millis(1);

/// How often it is looked at while anything is in flight: how late a deadline can be noticed.
const LOOSE: Duration = Duration::from_millis(50);

/// Looks without need after which the clock slows down or stops: starting it again costs a wake-up.
const PATIENCE: u32 = 40;

/// How often the pool is being looked at.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Watch {
    /// Not at all: nothing is in flight.
    Parked,
    /// Every [`LOOSE`].
    Loose,
    /// As often as a thread's silence would count ([`Pace::silence`]).
    Close,
}

impl Pool {
    /// Runs the clock until the pool is gone.
    pub async fn watch(pool: Weak<Self>) {
        let mut needless = 0;
        loop {
            let Some(strong) = pool.upgrade() else { return };
            let (watch, wanted, silence) = strong.tick();
            needless = if wanted < watch { needless + 1 } else { 0 };
            let watch = if wanted > watch || needless > PATIENCE { strong.set_watch(wanted) } else { watch };
            let pause = if watch == Watch::Close { silence } else { LOOSE };
            let notified = async {
                match watch {
                    Watch::Parked => strong.monitor.notified().await,
                    Watch::Loose | Watch::Close => {
                        let _ = tokio::time::timeout(pause, strong.monitor.notified()).await;
                    }
                }
            };
            notified.await;
        }
    }

    /// One look; how often the pool is being looked at, how often it should be, and what close means now.
    fn tick(&self) -> (Watch, Watch, Duration) {
        let now = Instant::now();
        let mut wakers = Vec::new();
        let mut reports = Vec::new();
        let mut state = self.state();
        state.expire(now, &mut wakers, &mut reports);
        state.flush_silent(&mut wakers, now);
        state.take_back(now);
        state.dispatch(now, &mut wakers);
        let watches = (state.watch, state.watch_wanted(), state.pace.silence());
        drop(state);
        wake(wakers);
        for report in reports {
            self.report(report);
        }
        watches
    }

    fn set_watch(&self, watch: Watch) -> Watch {
        let mut state = self.state();
        // Something may have come since the look.
        state.watch = watch.max(state.watch_wanted());
        state.watch
    }
}

impl State {
    /// Whether the clock must be started or quickened; then it is marked as such, so that it is notified once.
    pub(super) fn watch_needed(&mut self) -> bool {
        let wanted = self.watch_wanted();
        let needed = wanted > self.watch;
        if needed {
            self.watch = wanted;
        }
        needed
    }

    fn watch_wanted(&self) -> Watch {
        let crowded = |worker: &Worker| worker.lanes.iter().any(|lane| lane.in_flight() > 1);
        let elsewhere = self.workers.iter().map(Worker::threads).sum::<usize>() > 1;
        // One thread alone has nobody who could take its requests over: what remains is to have it write its answers.
        let matters = elsewhere || self.pace.holds_back();
        if (elsewhere && !self.queue.is_empty()) || (matters && self.workers.iter().any(crowded)) {
            Watch::Close
        } else if !self.queue.is_empty() || self.workers.iter().any(|worker| worker.in_flight() > 0) {
            Watch::Loose
        } else {
            Watch::Parked
        }
    }

    /// Fails what has waited or run too long.
    fn expire(&mut self, now: Instant, wakers: &mut Vec<Waker>, reports: &mut Vec<WorkerReport>) {
        let (queue_timeout, timeout) = (self.settings.queue_timeout, self.settings.timeout);
        while let Some(exchange) = self.queue.pop_front_if(|exchange| now - exchange.submitted >= queue_timeout) {
            exchange.post(Event::Failed(Failure::QueueTimeout), wakers);
        }
        let mut late = Vec::new();
        for worker in &self.workers {
            for (thread, lane) in worker.lanes.iter().enumerate() {
                let overdue = lane.slots().filter(|slot| {
                    matches!(slot.state, SlotState::Held | SlotState::Revoking(_)) && now - slot.sent >= timeout
                });
                late.extend(overdue.map(|slot| (worker.serial, thread as u16, slot.id, Arc::clone(&slot.exchange))));
            }
        }
        for (serial, thread, id, exchange) in late {
            wakers.extend(self.abandon(Place { serial, thread, id }));
            reports.push(WorkerReport::Stuck { serial, request: exchange.what() });
            exchange.post(Event::Failed(Failure::Timeout), wakers);
            let Some(worker) = self.worker(serial) else { continue };
            worker.retiring = true;
            worker.retire_idle_lanes(wakers);
            if worker.only_abandoned() {
                reports.push(WorkerReport::Drained { serial });
            }
        }
    }

    /// Has answers written that a thread holds back while it is in a call that lasts.
    fn flush_silent(&mut self, wakers: &mut Vec<Waker>, now: Instant) {
        for worker in &mut self.workers {
            for thread in 0..worker.threads() {
                if worker.lanes[thread].is_blocked(&self.pace, now) {
                    wakers.extend(worker.flush(thread));
                }
            }
        }
    }

    /// Asks for requests back that stand behind a silent thread while another lane could take them, and moves those
    /// that were asked for at an earlier look and have still not been started: a store is visible to every processor
    /// long before the next look, so both sides cannot have missed each other.
    fn take_back(&mut self, now: Instant) {
        let free = |worker: &Worker| !worker.retiring && worker.lane_for(&self.pace, now).is_some();
        if !self.workers.iter().any(free) {
            return;
        }
        let mut moved = Vec::new();
        for worker in &mut self.workers {
            for thread in 0..worker.threads() {
                if !worker.lanes[thread].is_blocked(&self.pace, now) {
                    continue;
                }
                for (id, state) in worker.waiting(thread) {
                    match state {
                        SlotState::Held => worker.revoke(thread, id, now),
                        SlotState::Revoking(since) if now - since >= VISIBLE => {
                            if let Some(slot) = worker.slot(thread as u16, id) {
                                slot.state = SlotState::Moved;
                                moved.push(Arc::clone(&slot.exchange));
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
        // The oldest first in the queue.
        moved.sort_by_key(|exchange| std::cmp::Reverse(exchange.submitted));
        for exchange in moved {
            exchange.taken_back();
            self.queue.push_front(exchange);
        }
    }
}

impl Worker {
    /// Requests on a lane for which the application has not been called.
    fn waiting(&self, thread: usize) -> Vec<(u32, SlotState)> {
        let slots = self.lanes[thread].slots().filter(|slot| !self.has_started(thread, slot.id));
        slots.map(|slot| (slot.id, slot.state)).collect()
    }

    /// Whether nobody waits for anything that is in flight here.
    pub(in crate::app) fn only_abandoned(&self) -> bool {
        // What was moved away from behind a stuck request has its answer from elsewhere.
        let is_unwanted = |state| matches!(state, SlotState::Abandoned | SlotState::Moved);
        self.lanes.iter().flat_map(Lane::slots).all(|slot| is_unwanted(slot.state))
    }
}
