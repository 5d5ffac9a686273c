//! What becomes of the requests of a worker that is gone.
//!
//! One of those that its threads were at may have killed it, and nobody knows which. Each that may be sent once more is sent
//! to a worker that does nothing else: if that one dies too, its killer is known, and no bystander shares its fate. Each
//! request is sent so once; what kills two workers is not sent to a third. What no thread was at, because it had not begun
//! or was done and only not written yet, is no suspect: it goes to anybody, however many workers have died.

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::{State, WorkerReport};
use crate::app::exchange::{Event, Exchange, Failure};
use crate::app::handover::{Fate, Progress, SlotState};
use crate::app::worker::{Lane, Slot, Worker};

/// How long a worker is kept free of others for a request that may be deadly. Beyond it, for instance while every worker
/// has answers that run for minutes, the request goes the usual way: waiting has a price too.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a worker was serving when it went, for its death certificate.
pub(super) type Serving = Vec<(String, f32)>;

impl State {
    /// What becomes of the requests of a worker that is gone. Returns what it was serving.
    pub(super) fn recover(
        &mut self,
        worker: &Worker,
        now: Instant,
        wakers: &mut Vec<Waker>,
        reports: &mut Vec<WorkerReport>,
    ) -> Serving {
        let mut serving = Vec::new();
        for (thread, lane) in worker.lanes.iter().enumerate() {
            for Slot { exchange, id, sent, state, .. } in lane.slots() {
                if matches!(state, SlotState::Moved) {
                    continue;
                }
                let progress = worker.progress(thread, *id);
                let fate = state.after_death(progress, exchange.is_repeatable(), exchange.deaths() + 1);
                if progress == Progress::Running || fate == Fate::Lost {
                    let mut what = exchange.what();
                    if fate == Fate::Lost && exchange.deaths() > 0 {
                        what.push_str(" (its second worker: it is given up)");
                    }
                    serving.push((what, now.saturating_duration_since(*sent).as_secs_f32()));
                }
                if matches!(fate, Fate::Replayed | Fate::Suspected) {
                    self.counts.replayed += 1;
                    reports.push(WorkerReport::Replayed { serial: worker.serial, request: exchange.what() });
                }
                match fate {
                    Fate::Settled => {}
                    Fate::SentAnew | Fate::Replayed => {
                        exchange.taken_back();
                        self.queue.push_front(Arc::clone(exchange));
                    }
                    Fate::Suspected => {
                        exchange.has_seen_a_death();
                        exchange.taken_back();
                        self.suspects.push_back((now, Arc::clone(exchange)));
                    }
                    Fate::Lost => {
                        self.counts.lost += 1;
                        exchange.post(Event::Failed(Failure::WorkerDied), wakers);
                    }
                }
            }
        }
        serving
    }

    /// Sends requests that may have killed a worker, each to one that has nothing else to do.
    pub(super) fn dispatch_suspects(&mut self, now: Instant, wakers: &mut Vec<Waker>) {
        while let Some((since, _)) = self.suspects.front() {
            let overdue = now.saturating_duration_since(*since) >= PATIENCE;
            let placed = if overdue { self.place(None, now) } else { self.empty_worker(now) };
            let Some((worker, lane)) = placed else {
                return if overdue { self.open_drained() } else { self.reserve_one() };
            };
            let Some((_, exchange)) = self.suspects.pop_front() else { return };
            self.workers[worker].is_reserved = !overdue;
            self.send(worker, lane, exchange, now, wakers);
        }
    }

    /// Workers that were kept free take requests again, unless there is need.
    pub(super) fn open_reserved(&mut self) {
        if self.suspects.is_empty() {
            for worker in self.workers.iter_mut().filter(|worker| worker.is_reserved && worker.in_flight() == 0) {
                worker.is_reserved = false;
            }
        }
    }

    /// Fails what has waited too long; the client is gone, or no worker came.
    pub(super) fn expire_suspects(&mut self, timeout: Duration, now: Instant, wakers: &mut Vec<Waker>) {
        while let Some((_, exchange)) = self.suspects.pop_front_if(|(since, _)| *since + timeout <= now) {
            exchange.post(Event::Failed(Failure::QueueTimeout), wakers);
        }
        self.open_reserved();
    }

    /// A request is not wanted any more.
    pub(super) fn forget_suspect(&mut self, exchange: &Arc<Exchange>) {
        self.suspects.retain(|(_, waiting)| !Arc::ptr_eq(waiting, exchange));
        self.open_reserved();
    }

    fn empty_worker(&self, now: Instant) -> Option<(usize, usize)> {
        let empty = |worker: &Worker| !worker.retiring && worker.in_flight() == 0;
        let mut found = self.workers.iter().enumerate().filter(|(_, worker)| empty(worker));
        found.find_map(|(index, worker)| Some((index, worker.lane_for(&self.pace, now)?)))
    }

    /// Lets the least loaded worker run empty. One at a time: the others have work to do.
    fn reserve_one(&mut self) {
        if self.workers.iter().any(|worker| worker.is_reserved && !worker.retiring) {
            return;
        }
        let candidates = self.workers.iter_mut().filter(|worker| !worker.retiring);
        if let Some(worker) = candidates.min_by_key(|worker| worker.in_flight()) {
            worker.is_reserved = true;
        }
    }

    /// Workers that were to run empty, and did not, take requests again; those that serve a suspect stay alone with it.
    fn open_drained(&mut self) {
        for worker in self.workers.iter_mut().filter(|worker| worker.is_reserved) {
            worker.is_reserved = worker.lanes.iter().flat_map(Lane::slots).any(|slot| slot.exchange.deaths() > 0);
        }
    }
}
