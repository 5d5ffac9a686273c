//! Where the requests of a pool are.

use std::time::Instant;

use super::Pool;
use crate::app::exchange::Exchange;
use crate::app::handover::SlotState;

/// A request that waits for a worker or is with one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PoolFlight {
    /// What it is called, as the application is told it.
    pub id: String,
    /// Method and target, where it is not known otherwise: its client has been answered without the application.
    pub left_behind: Option<String>,
    /// The worker and its thread; `None` while it waits.
    pub place: Option<(u32, u16)>,
    /// Whether the application was called for it.
    pub started: bool,
    /// Milliseconds since it was sent there, or began to wait.
    pub milliseconds: u64,
}

/// Requests of one pool that are told at a time.
const MOST: usize = 1_000;

impl Pool {
    /// Where each request is: those with workers, then those that wait.
    pub fn flights(&self) -> Vec<PoolFlight> {
        let now = Instant::now();
        let since = |then| now.saturating_duration_since(then).as_millis() as u64;
        let mut found = Vec::new();
        let state = self.state();
        for worker in &state.workers {
            for thread in 0..worker.threads() {
                for slot in worker.lanes[thread].slots() {
                    let is_over = matches!(slot.state, SlotState::Abandoned | SlotState::Moved);
                    let started = worker.has_started(thread, slot.id);
                    if slot.state == SlotState::Moved || (is_over && !started) {
                        continue;
                    }
                    found.push(PoolFlight {
                        id: name(&slot.exchange),
                        left_behind: is_over.then(|| slot.exchange.what()),
                        place: Some((worker.serial, thread as u16)),
                        started,
                        milliseconds: since(slot.sent),
                    });
                }
            }
        }
        for exchange in state.queue.iter().take(MOST.saturating_sub(found.len())) {
            let (id, milliseconds) = (name(exchange), since(exchange.submitted));
            found.push(PoolFlight { id, left_behind: None, place: None, started: false, milliseconds });
        }
        found.truncate(MOST);
        found
    }
}

/// What a request is called, read from its environment, since few are ever looked at.
fn name(exchange: &Exchange) -> String {
    let mut parts = exchange.environment.split(|&byte| byte == 0);
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        if name == b"HTTP_X_REQUEST_ID" {
            return value.escape_ascii().to_string();
        }
    }
    String::new()
}
