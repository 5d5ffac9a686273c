//! What an operator asks of a pool.

use serde::{Deserialize, Serialize};

use super::Pool;

/// A pool at one moment.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct PoolFigures {
    /// Requests that wait for a worker.
    pub queued: u64,
    /// Threads with a request.
    pub busy: u64,
    /// Threads without one.
    pub idle: u64,
    /// Workers that take new requests.
    pub workers: u64,
    /// Requests that were sent to a second worker.
    pub replays: u64,
    /// Whether a request would be answered by the application: a worker is there.
    pub answers: bool,
}

impl Pool {
    /// How it is now.
    pub fn figures(&self) -> PoolFigures {
        let state = self.state();
        let mut figures =
            PoolFigures { queued: state.queue.len() as u64, replays: state.counts.replayed, ..PoolFigures::default() };
        for worker in state.workers.iter().filter(|worker| !worker.retiring) {
            figures.workers += 1;
            for lane in worker.lanes[..worker.threads()].iter().filter(|lane| lane.connected) {
                if lane.in_flight() > 0 {
                    figures.busy += 1;
                } else {
                    figures.idle += 1;
                }
            }
        }
        // One without workers of its own accord starts the first with the next request.
        let starts_on_demand = state.expecting && state.settings.min_processes == 0;
        figures.answers = figures.busy + figures.idle > 0 || starts_on_demand;
        figures
    }
}
