//! Which lane gets the next request.

use std::sync::Arc;
use std::time::Instant;

use super::{Sleeper, State};
use crate::app::exchange::{Event, Exchange, Failure};
use crate::app::worker::Worker;

/// Requests by which a worker on another event loop must be less loaded before it is preferred to a local one: crossing
/// costs two wake-ups between threads.
const SPILL: usize = 2;

impl State {
    /// Sends a request or queues it.
    pub(super) fn submit(
        &mut self,
        exchange: &Arc<Exchange>,
        event_loop: usize,
        now: Instant,
        sleepers: &mut Vec<Sleeper>,
    ) -> Result<(), Failure> {
        if self.queue.is_empty()
            && !self.held
            && let Some((worker, lane)) = self.place(Some(event_loop), now)
        {
            self.send(worker, lane, Arc::clone(exchange), now, sleepers);
            return Ok(());
        }
        if !self.expecting && !self.held && self.workers.iter().all(|worker| worker.retiring) {
            return Err(Failure::Unavailable);
        }
        if self.queue.len() >= self.settings.queue_max {
            return Err(Failure::QueueFull);
        }
        self.queue.push_back(Arc::clone(exchange));
        self.note_queue();
        Ok(())
    }

    fn note_queue(&mut self) {
        let threads = self.workers.iter().filter(|worker| !worker.retiring).map(Worker::threads).sum();
        self.pace.note_queue(self.queue.len(), threads);
    }

    /// Sends what waits, as far as there is room.
    pub(super) fn dispatch(&mut self, now: Instant, sleepers: &mut Vec<Sleeper>) {
        if self.held {
            return;
        }
        self.note_queue();
        if !self.suspects.is_empty() {
            self.dispatch_suspects(now, sleepers);
        }
        while !self.queue.is_empty()
            && let Some((worker, lane)) = self.place(None, now)
            && let Some(exchange) = self.queue.pop_front()
        {
            self.send(worker, lane, exchange, now, sleepers);
        }
    }

    /// The least loaded worker that has a lane for one more request.
    pub(super) fn place(&self, event_loop: Option<usize>, now: Instant) -> Option<(usize, usize)> {
        let candidates = self.workers.iter().enumerate().filter(|(_, worker)| !worker.retiring && !worker.is_reserved);
        let placed = candidates.filter_map(|(index, worker)| {
            let lane = worker.lane_for(&self.pace, now)?;
            let distance = if event_loop.is_some_and(|home| home != worker.home) { SPILL } else { 0 };
            Some((worker.in_flight() + distance, index, lane))
        });
        placed.min().map(|(_, index, lane)| (index, lane))
    }

    pub(super) fn send(
        &mut self,
        worker: usize,
        lane: usize,
        exchange: Arc<Exchange>,
        now: Instant,
        sleepers: &mut Vec<Sleeper>,
    ) {
        match self.workers[worker].send(lane, exchange, self.pace.is_crowded(), now) {
            Ok(sleeper) => sleepers.extend(sleeper),
            Err(exchange) => {
                exchange.post(Event::Failed(Failure::Resources), sleepers);
            }
        }
    }
}
