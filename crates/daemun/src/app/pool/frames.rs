//! What a worker sends, given to the requests it is for; and what becomes of them when it is gone.

use std::os::fd::OwnedFd;
use std::time::Instant;

use daemun_protocol::frame::{self, Answer, Ending, Frame, FrameError, Kind};
use rustix::fs::FileType;

use super::{Sleeper, State, WorkerReport};
use crate::app::exchange::Event;
use crate::app::handover::Skipped;
use crate::app::signal::{LaneError, LaneKey};
use crate::http::LaidPiece;

impl State {
    pub(super) fn take_frame(
        &mut self,
        key: LaneKey,
        frame: Frame,
        descriptors: &mut Vec<OwnedFd>,
        sleepers: &mut Vec<Sleeper>,
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
            // No piece at all; each would still take a place.
            Kind::Data if payload.is_empty() => return Ok(()),
            Kind::Data => (Event::Data(payload), false),
            Kind::Laid => {
                let place =
                    self.worker(key.serial).and_then(|worker| worker.lanes.get(key.thread as usize)?.shelf.clone());
                let piece = place.ok_or(LaneError::Beside)?.find(request, &payload)?;
                if piece.length() == 0 {
                    return Ok(());
                }
                (Event::Laid(piece), false)
            }
            Kind::Done => {
                let number = *payload.first().ok_or(FrameError::Short(kind))?;
                (Event::Done(Ending::from_number(number)), true)
            }
            Kind::File => {
                let (offset, length) = frame::file_range(&payload)?;
                (Event::File { file: regular_file(descriptors)?, offset, length }, false)
            }
            Kind::Skipped => {
                return self.skipped(key, request);
            }
            Kind::Inform => {
                return self.aside(key, request, Event::Inform(payload), sleepers);
            }
            Kind::Credit => {
                if self.worker(key.serial).is_some_and(|worker| worker.is_deaf(key.thread)) {
                    return Err(LaneError::Unread);
                }
                return self.aside(key, request, Event::Wants(frame::credit(&payload)?), sleepers);
            }
            Kind::Started => return Ok(()),
            kind => return Err(LaneError::Unexpected(kind)),
        };
        self.hand_over(key, request, event, last, sleepers)
    }

    /// Gives an event to the request it is for, unless that is gone, and frees the slot after the last one.
    fn hand_over(
        &mut self,
        key: LaneKey,
        id: u32,
        event: Event,
        last: bool,
        sleepers: &mut Vec<Sleeper>,
    ) -> Result<(), LaneError> {
        let bounded = self.settings.stream_idle.is_some();
        let Some(worker) = self.worker(key.serial) else { return Ok(()) };
        let Some(slot) = worker.slot(key.thread, id) else { return Ok(()) };
        if bounded && event.brings() > 0 {
            slot.brought = Instant::now();
            slot.untaken = slot.untaken.saturating_add(event.brings() as u32);
        }
        if slot.state.answered() && !slot.exchange.post(event, sleepers) {
            return Err(LaneError::Flood);
        }
        if last {
            worker.release(key.thread, id);
            worker.served += 1;
        }
        Ok(())
    }

    /// Early hints, or a wish for more of the body: nothing changes about the answer, which is awaited as before.
    fn aside(&mut self, key: LaneKey, id: u32, event: Event, sleepers: &mut Vec<Sleeper>) -> Result<(), LaneError> {
        let slot = self.worker(key.serial).and_then(|worker| worker.slot(key.thread, id));
        match slot.filter(|slot| slot.state.is_wanted()) {
            Some(slot) if !slot.exchange.post(event, sleepers) => Err(LaneError::Flood),
            _ => Ok(()),
        }
    }

    /// A request was taken back before the application was called.
    fn skipped(&mut self, key: LaneKey, id: u32) -> Result<(), LaneError> {
        let Some(worker) = self.worker(key.serial) else { return Ok(()) };
        let Some(slot) = worker.slot(key.thread, id) else { return Ok(()) };
        match slot.state.skipped() {
            // Its slot stays as it is: what becomes of it is said when the worker is gone.
            Skipped::Unasked => return Err(LaneError::Unexpected(Kind::Skipped)),
            Skipped::Settled => drop(worker.release(key.thread, id)),
            Skipped::TakenBack => {
                if let Some(slot) = worker.release(key.thread, id) {
                    slot.exchange.taken_back();
                    self.queue.push_front(slot.exchange);
                }
            }
        }
        Ok(())
    }

    /// After a batch: the lane was heard, there may be room, and its worker may be done.
    pub(super) fn after_frames(
        &mut self,
        key: LaneKey,
        now: Instant,
        sleepers: &mut Vec<Sleeper>,
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
            let is_done = worker.is_reserved && worker.in_flight() == 0;
            worker.retire_idle_lanes(sleepers);
            if worker.retiring && worker.in_flight() > 0 && worker.only_abandoned() {
                reports.push(WorkerReport::Drained { serial });
            }
            if is_done {
                self.open_reserved();
            }
        }
        self.dispatch(now, sleepers);
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
