//! What a worker sends, given to the requests it is for; and what becomes of them when it is gone.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use daemun_protocol::frame::{self, Answer, Ending, Frame, FrameError, Kind};
use rustix::fs::FileType;

use super::{State, WorkerReport};
use crate::app::exchange::{Event, Failure};
use crate::app::signal::{LaneError, LaneKey};
use crate::app::worker::{Slot, SlotState, Worker};

impl State {
    pub(super) fn take_frame(
        &mut self,
        key: LaneKey,
        frame: Frame,
        descriptors: &mut Vec<OwnedFd>,
        wakers: &mut Vec<Waker>,
    ) -> Result<(), LaneError> {
        let Frame { kind, request, payload } = frame;
        let (event, last) = match kind {
            Kind::Answer => {
                let answer = Answer::parse(payload)?;
                self.pace.record(answer.microseconds);
                (Event::Answer(answer), true)
            }
            Kind::Head => {
                let (microseconds, head) = frame::split_head(payload)?;
                self.pace.record(microseconds);
                (Event::Head(microseconds, head), false)
            }
            Kind::Data => (Event::Data(payload), false),
            Kind::Done => {
                let number = *payload.first().ok_or(FrameError::Short(kind))?;
                (Event::Done(Ending::from_number(number)), true)
            }
            Kind::File => {
                let (offset, length) = frame::file_range(&payload)?;
                (Event::File { file: regular_file(descriptors)?, offset, length }, false)
            }
            Kind::Skipped => {
                self.skipped(key, request);
                return Ok(());
            }
            Kind::Inform => {
                self.inform(key, request, payload, wakers);
                return Ok(());
            }
            Kind::Credit | Kind::Started => return Ok(()),
            kind => return Err(LaneError::Unexpected(kind)),
        };
        self.hand_over(key, request, event, last, wakers);
        Ok(())
    }

    /// Gives an event to the request it is for, unless that is gone, and frees the slot after the last one.
    fn hand_over(&mut self, key: LaneKey, id: u32, event: Event, last: bool, wakers: &mut Vec<Waker>) {
        let Some(worker) = self.worker(key.serial) else { return };
        let Some(slot) = worker.slot(key.thread, id) else { return };
        if !matches!(slot.state, SlotState::Moved | SlotState::Abandoned) {
            slot.state = SlotState::Answering;
            slot.exchange.post(event, wakers);
        }
        if last {
            worker.release(key.thread, id);
        }
    }

    /// Early hints: they change nothing about the answer, which is awaited as before.
    fn inform(&mut self, key: LaneKey, id: u32, head: Bytes, wakers: &mut Vec<Waker>) {
        let Some(slot) = self.worker(key.serial).and_then(|worker| worker.slot(key.thread, id)) else { return };
        if matches!(slot.state, SlotState::Held | SlotState::Revoking(_)) {
            slot.exchange.post(Event::Inform(head), wakers);
        }
    }

    /// A request was taken back before the application was called.
    fn skipped(&mut self, key: LaneKey, id: u32) {
        let Some(slot) = self.worker(key.serial).and_then(|worker| worker.release(key.thread, id)) else { return };
        if matches!(slot.state, SlotState::Revoking(_) | SlotState::Held) {
            slot.exchange.taken_back();
            self.queue.push_front(slot.exchange);
        }
    }

    /// After a batch: the lane was heard, there may be room, and its worker may be done.
    pub(super) fn after_frames(
        &mut self,
        key: LaneKey,
        now: Instant,
        wakers: &mut Vec<Waker>,
        reports: &mut Vec<WorkerReport>,
    ) {
        if let Some(worker) = self.worker(key.serial) {
            if let Some(lane) = worker.lanes.get_mut(key.thread as usize) {
                lane.heard(now);
            }
            let serial = worker.serial;
            if worker.lifetime.take_if(|limit| worker.served >= *limit).is_some() {
                let reason = format!("it has served {} requests (`max_requests`)", worker.served);
                reports.push(WorkerReport::Replace { serial, reason });
            }
            worker.retire_idle_lanes(wakers);
            if worker.retiring && worker.in_flight() > 0 && worker.only_abandoned() {
                reports.push(WorkerReport::Drained { serial });
            }
        }
        self.dispatch(now, wakers);
    }

    /// What becomes of the requests of a worker that is gone. Returns what it was serving.
    pub(super) fn recover(&mut self, worker: &Worker, now: Instant, wakers: &mut Vec<Waker>) -> Vec<(String, f32)> {
        let mut serving = Vec::new();
        for (thread, lane) in worker.lanes.iter().enumerate() {
            for Slot { exchange, id, sent, state } in lane.slots() {
                if matches!(state, SlotState::Moved) {
                    continue;
                }
                let started = worker.has_started(thread, *id);
                if started {
                    serving.push((exchange.what(), now.saturating_duration_since(*sent).as_secs_f32()));
                }
                match state {
                    SlotState::Abandoned => {}
                    // Never called, or once more where that is the same as once: design of the hand-over.
                    SlotState::Held | SlotState::Revoking(_)
                        if !started || (exchange.method.is_idempotent() && exchange.tries() < 2) =>
                    {
                        self.replays += 1;
                        exchange.taken_back();
                        self.queue.push_front(Arc::clone(exchange));
                    }
                    _ => exchange.post(Event::Failed(Failure::WorkerDied), wakers),
                }
            }
        }
        serving
    }
}

/// A descriptor from a worker must be a regular file before the front touches it: a pipe could block it for ever.
fn regular_file(descriptors: &mut Vec<OwnedFd>) -> Result<OwnedFd, LaneError> {
    if descriptors.is_empty() {
        return Err(LaneError::Truncated);
    }
    let file = descriptors.remove(0);
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file).map_err(std::io::Error::from)?.st_mode);
    if kind.is_file() { Ok(file) } else { Err(LaneError::Unexpected(Kind::File)) }
}
