//! The clock of a pool: deadlines, and requests that wait behind a thread that has fallen silent.

use std::cell::Cell;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::{Pool, Sleeper, State, WorkerReport, wake};
use daemun_protocol::frame;

use crate::app::exchange::{Event, Exchange, Failure, Place};
use crate::app::handover::SlotState;
#[cfg(doc)]
use crate::app::pace::Pace;
use crate::app::worker::{Lane, Slot, Worker, is_started};
use crate::sys;

/// How long a request that was asked for back is given at least before it is looked at again. Where the kernel has no
/// barrier for all, or a worker could not ask for it, a store of a worker in plain Python is held to be visible by then.
const VISIBLE: Duration = Duration::from_millis(1);

/// How often it is looked at while anything is in flight: how late a deadline can be noticed.
const LOOSE: Duration = Duration::from_millis(50);

/// How long the first request in the queue may wait before another worker is started on demand.
const WAITED: Duration = Duration::from_millis(50);

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
        let mut sleepers = Vec::new();
        let mut reports = Vec::new();
        let mut state = self.state();
        state.expire(now, &mut sleepers, &mut reports);
        state.flush_silent(&mut sleepers, now);
        state.take_back(now);
        state.dispatch(now, &mut sleepers);
        reports.extend(state.wants_more(now));
        let watches = (state.watch, state.watch_wanted(), state.pace.silence());
        drop(state);
        wake(sleepers);
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
        } else if !self.queue.is_empty()
            || !self.suspects.is_empty()
            || self.workers.iter().any(|worker| worker.in_flight() > 0)
        {
            Watch::Loose
        } else {
            Watch::Parked
        }
    }

    /// Fails what has waited or run too long.
    fn expire(&mut self, now: Instant, sleepers: &mut Vec<Sleeper>, reports: &mut Vec<WorkerReport>) {
        let queue_timeout = self.settings.queue_timeout;
        if !self.suspects.is_empty() {
            self.expire_suspects(queue_timeout, now, sleepers);
        }
        while let Some(exchange) = self.queue.pop_front_if(|exchange| now - exchange.submitted >= queue_timeout) {
            exchange.post(Event::Failed(Failure::QueueTimeout), sleepers);
        }
        for (place, failure, exchange) in self.late(now, reports) {
            self.counts.timed_out += 1;
            let Place { serial, thread, id } = place;
            sleepers.extend(self.abandon(place));
            reports.push(WorkerReport::Stuck { serial, request: exchange.what() });
            exchange.post(Event::Failed(failure), sleepers);
            let Some(worker) = self.worker(serial) else { continue };
            sleepers.extend(worker.interrupt(thread, id));
            worker.retiring = true;
            worker.retire_idle_lanes(sleepers);
            if worker.only_abandoned() {
                reports.push(WorkerReport::Drained { serial });
            }
        }
    }

    /// Whether more workers should be started: where they are on demand and requests have waited for longer than a busy
    /// thread takes to become free, or nobody is there at all.
    fn wants_more(&self, now: Instant) -> Option<WorkerReport> {
        let first = self.queue.front()?;
        let workers = self.workers.iter().filter(|worker| !worker.retiring).count();
        if self.settings.min_processes >= self.settings.processes || workers >= self.settings.processes as usize {
            return None;
        }
        let waited = now.saturating_duration_since(first.submitted);
        let is_due = workers == 0 || waited >= WAITED;
        is_due.then_some(WorkerReport::Busy { waiting: self.queue.len(), seconds: waited.as_secs_f32() })
    }

    /// What has run out of time; what has used half of it is reported, once.
    fn late(&mut self, now: Instant, reports: &mut Vec<WorkerReport>) -> Vec<(Place, Failure, Arc<Exchange>)> {
        let (usual, idle) = (self.settings.timeout, self.settings.stream_idle);
        let mut late = Vec::new();
        for worker in &mut self.workers {
            let Worker { serial, lanes, page, .. } = worker;
            for (thread, lane) in lanes.iter_mut().enumerate() {
                for slot in lane.slots_mut() {
                    let spent = now.saturating_duration_since(slot.sent);
                    let timeout = slot.exchange.timeout.unwrap_or(usual);
                    let failure = match slot.state {
                        SlotState::Held | SlotState::Revoking(_) if spent >= timeout => Failure::Timeout,
                        SlotState::Held | SlotState::Revoking(_) if spent >= timeout / 2 && !slot.is_slow => {
                            if is_started(page, thread, slot.id) {
                                slot.is_slow = true;
                                let (request, seconds) = (slot.exchange.what(), spent.as_secs_f32());
                                let (serial, thread) = (*serial, thread as u16);
                                reports.push(WorkerReport::Slow { serial, thread, request, seconds });
                            }
                            continue;
                        }
                        SlotState::Answering if is_silent(slot, idle, now) => Failure::Silent,
                        _ => continue,
                    };
                    let place = Place { serial: *serial, thread: thread as u16, id: slot.id };
                    late.push((place, failure, Arc::clone(&slot.exchange)));
                }
            }
        }
        late
    }

    /// Has answers written that a thread holds back while it is in a call that lasts.
    fn flush_silent(&mut self, sleepers: &mut Vec<Sleeper>, now: Instant) {
        for worker in &mut self.workers {
            for thread in 0..worker.threads() {
                if worker.lanes[thread].is_blocked(&self.pace, now) {
                    sleepers.extend(worker.flush(thread, now));
                }
            }
        }
    }

    /// Asks for requests back that stand behind a silent thread while another lane could take them, and moves those
    /// that were asked for at an earlier look and have still not been started. Between the two stands a barrier on every
    /// processor, so that both sides cannot have missed each other.
    fn take_back(&mut self, now: Instant) {
        let free = |worker: &Worker| !worker.retiring && worker.lane_for(&self.pace, now).is_some();
        // While others wait, it is their turn before it is that of those; a thread alone would only get them again.
        let others_wait = !self.queue.is_empty() && self.workers.iter().map(Worker::threads).sum::<usize>() > 1;
        if !others_wait && !self.workers.iter().any(free) {
            return;
        }
        let mut moved = Vec::new();
        let barrier = Cell::new(false);
        let is_visible = |since: Instant| {
            if now - since < VISIBLE {
                return false;
            }
            // One for all: what is old enough was asked for back at an earlier look.
            if !barrier.replace(true) {
                sys::barrier_everywhere();
            }
            true
        };
        for worker in &mut self.workers {
            for thread in 0..worker.threads() {
                if !worker.lanes[thread].is_blocked(&self.pace, now) {
                    continue;
                }
                moved.extend(worker.take_back(thread, now, is_visible));
            }
        }
        // The oldest first in the queue.
        self.counts.moved += moved.len() as u64;
        moved.sort_by_key(|exchange| std::cmp::Reverse(exchange.submitted));
        for exchange in moved {
            exchange.taken_back();
            self.queue.push_front(exchange);
        }
    }
}

/// Whether a running answer has brought nothing for too long, though its client would take more.
fn is_silent(slot: &Slot, idle: Option<Duration>, now: Instant) -> bool {
    let waits_for_client = slot.untaken >= frame::INITIAL_CREDIT / 2;
    idle.is_some_and(|idle| !waits_for_client && now.saturating_duration_since(slot.brought) >= idle)
}

impl Worker {
    /// Whether nobody waits for anything that is in flight here.
    pub(in crate::app) fn only_abandoned(&self) -> bool {
        // What was moved away from behind a stuck request has its answer from elsewhere.
        self.lanes.iter().flat_map(Lane::slots).all(|slot| !slot.state.is_wanted())
    }
}
