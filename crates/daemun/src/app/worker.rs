//! One worker process as the front sees it: its lanes, their slots and the page that is shared with it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::{Duration, Instant};

use daemun_protocol::frame::{self, Kind, LANE_PAGE, RequestBody, SLOTS};

use super::exchange::{Exchange, Place};
use super::handover::flags::Flags;
use super::handover::{Progress, SlotState, progress};
use super::pace::Pace;
use super::shelf::Shelf;
use super::signal::Signal;
use super::sleeper::Sleeper;
use super::spool::Payload;
use crate::sys::SharedMemory;

/// Bytes that may wait for a thread that asks for more: a full lane of requests with the largest heads and bodies in
/// their frames, and what it has asked for.
const MOST_UNREAD: usize = 8 * 1024 * 1024;

/// Where the generation of a request's id begins, above its slot.
const GENERATION: u32 = SLOTS.trailing_zeros();

/// A connected worker process.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) serial: u32,
    pub(super) generation: u64,
    /// The event loop that its lanes live on.
    pub(super) home: usize,
    pub(super) lanes: Vec<Lane>,
    pub(super) page: Arc<SharedMemory>,
    /// What the shelves of its lanes are made of.
    pub(super) shelves: Option<Arc<SharedMemory>>,
    /// Gets no new requests; each lane is told to end when it is empty.
    pub(super) retiring: bool,
    /// Kept free of others for a request that may have killed a worker.
    pub(super) is_reserved: bool,
    /// Requests that it has answered; what was taken back from it is not among them.
    pub(super) served: u64,
    /// Requests after which it asks to be replaced.
    pub(super) lifetime: Option<u64>,
}

/// One thread of a worker.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) signal: Arc<Signal>,
    pub(super) out: Outgoing,
    slots: Vec<Option<Slot>>,
    free: u64,
    generation: u32,
    /// When its last sign of life came, or, if it had been idle, when it got work.
    heard: Instant,
    told_to_retire: bool,
    /// How long its thread has to be silent until the monitor is asked to write what that holds back.
    flush_after: Duration,
    /// Whether its thread has connected: threads come in any order.
    pub(super) connected: bool,
    /// Where its thread lays pieces of answers, if it has such a place.
    pub(super) shelf: Option<Arc<Shelf>>,
}

/// Frames that wait to be written, and the descriptors that go with them.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub(super) bytes: Vec<u8>,
    /// Each with the offset of the frame it belongs to.
    pub(super) descriptors: Vec<(usize, OwnedFd)>,
}

/// A place for one request in flight.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) exchange: Arc<Exchange>,
    pub(super) id: u32,
    pub(super) sent: Instant,
    pub(super) state: SlotState,
    /// Whether the log was told that it takes long.
    pub(super) is_slow: bool,
    /// When its answer last brought something, and the bytes of it that the client has not taken yet; kept only where
    /// a running answer may not be silent for ever.
    pub(super) brought: Instant,
    pub(super) untaken: u32,
}

impl Worker {
    /// Threads that take requests. The lane after theirs is the monitor's.
    pub(super) fn threads(&self) -> usize {
        self.lanes.len() - 1
    }

    /// Asks the monitor to write what a silent thread holds back: answers of requests that were started before the one
    /// it is busy with, or that of this one if its iterable goes on behind the last piece. Each time the silence has
    /// doubled: a thread that had lost the processor may have held something back after it was asked.
    pub(super) fn flush(&mut self, thread: usize, now: Instant) -> Option<Sleeper> {
        let lane = &self.lanes[thread];
        let silence = now.saturating_duration_since(lane.heard);
        // One that was sent a single request has nothing to wait for with its answer.
        if lane.in_flight() < 2 || silence < lane.flush_after {
            return None;
        }
        if !lane.slots().any(|slot| self.has_started(thread, slot.id)) {
            return None;
        }
        self.lanes[thread].flush_after = 2 * silence;
        self.lanes.last_mut()?.put(Kind::Flush, thread as u32, &[])
    }

    /// Whether a thread has left more unread than it can have been sent while it reads.
    pub(super) fn is_deaf(&self, thread: u16) -> bool {
        self.lanes.get(thread as usize).is_some_and(|lane| lane.out.bytes.len() > MOST_UNREAD)
    }

    /// Asks the monitor to end what a thread does for a request that has been answered without it.
    pub(super) fn interrupt(&mut self, thread: u16, id: u32) -> Option<Sleeper> {
        if !self.has_started(thread as usize, id) {
            return None;
        }
        self.lanes.last_mut()?.put(Kind::Interrupt, id, &thread.to_le_bytes())
    }

    /// Whether it has had nothing to do for this long.
    pub(super) fn is_idle_for(&self, idle: Duration, now: Instant) -> bool {
        self.in_flight() == 0 && self.lanes.iter().all(|lane| now.saturating_duration_since(lane.heard) >= idle)
    }

    /// Requests in flight on all lanes.
    pub(super) fn in_flight(&self) -> usize {
        self.lanes.iter().map(Lane::in_flight).sum()
    }

    /// The lane that should get the next request, if one should: of a slow application any idle one; of a fast one the one that
    /// is at work, as long as it is heard from, so that threads of one process do not fight over the interpreter.
    pub(super) fn lane_for(&self, pace: &Pace, now: Instant) -> Option<usize> {
        let depth = pace.depth();
        let mut idle = None;
        for (index, lane) in self.lanes[..self.threads()].iter().enumerate() {
            if !lane.connected {
                continue;
            }
            if lane.in_flight() == 0 {
                idle = idle.or(Some(index));
            } else if depth > 1 && !lane.is_blocked(pace, now) {
                return (lane.in_flight() < depth).then_some(index);
            }
        }
        idle
    }

    /// Sends `exchange` down a lane that has a free slot. The lane's task is returned where it sleeps; the
    /// exchange comes back when its body cannot be opened once more, because descriptors have run out.
    pub(super) fn send(
        &mut self,
        index: usize,
        exchange: Arc<Exchange>,
        crowded: bool,
        now: Instant,
    ) -> Result<Option<Sleeper>, Arc<Exchange>> {
        let Self { lanes, page, serial, .. } = self;
        let Ok(body) = exchange.body.open() else { return Err(exchange) };
        let lane = &mut lanes[index];
        let slot = lane.free.trailing_zeros() as usize;
        lane.free &= !(1 << slot);
        lane.generation = lane.generation.wrapping_add(1);
        let id = (lane.generation << GENERATION) | slot as u32;
        if let Some(flags) = flags(page, index, id) {
            flags.refresh();
        }
        if lane.in_flight() == 1 {
            lane.heard = now;
        }
        let was_empty = lane.out.bytes.is_empty();
        lane.out.put_request(id, &exchange, crowded, body);
        exchange.sent_to(Place { serial: *serial, thread: index as u16, id }, now);
        lane.slots[slot] =
            Some(Slot { exchange, id, sent: now, state: SlotState::Held, is_slow: false, brought: now, untaken: 0 });
        Ok(if was_empty { lane.signal.take_sleeper() } else { None })
    }

    /// The request of this id on this lane, unless it is gone.
    pub(super) fn slot(&mut self, thread: u16, id: u32) -> Option<&mut Slot> {
        let lane = self.lanes.get_mut(thread as usize)?;
        lane.slots[id as usize % SLOTS].as_mut().filter(|slot| slot.id == id)
    }

    /// Frees the slot of this id.
    pub(super) fn release(&mut self, thread: u16, id: u32) -> Option<Slot> {
        let lane = self.lanes.get_mut(thread as usize)?;
        let slot = lane.slots[id as usize % SLOTS].take_if(|slot| slot.id == id)?;
        lane.free |= 1 << (id as usize % SLOTS);
        Some(slot)
    }

    /// Whether the application was called for this request.
    pub(super) fn has_started(&self, thread: usize, id: u32) -> bool {
        is_started(&self.page, thread, id)
    }

    /// How far this thread had come with a request, now that the worker is gone.
    pub(super) fn progress(&self, thread: usize, id: u32) -> Progress {
        let lane = &self.lanes[thread];
        let later = lane.slots().filter(|slot| lane.age(slot.id) < lane.age(id));
        let begun_later = later.into_iter().any(|slot| self.has_started(thread, slot.id));
        progress(self.has_started(thread, id), begun_later)
    }

    /// Looks at the requests that wait behind a silent thread: asks for those back that it has not begun, and returns
    /// those that are the front's again. `is_visible`: see [`SlotState::look`].
    pub(super) fn take_back(
        &mut self,
        thread: usize,
        now: Instant,
        is_visible: impl Fn(Instant) -> bool,
    ) -> Vec<Arc<Exchange>> {
        let Self { lanes, page, .. } = self;
        let mut taken = Vec::new();
        for slot in lanes[thread].slots_mut() {
            let Some(flags) = flags(page, thread, slot.id) else { continue };
            if slot.state.look(&flags, now, &is_visible) {
                taken.push(Arc::clone(&slot.exchange));
            }
        }
        taken
    }

    /// A lane is closed. True where that is as it should be: it was told to end and had nothing in flight, and other
    /// lanes of the worker may still be at work.
    pub(super) fn leaves_in_order(&mut self, thread: u16) -> bool {
        let lane = self.lanes.get_mut(thread as usize);
        let Some(lane) = lane.filter(|lane| lane.told_to_retire && lane.in_flight() == 0) else { return false };
        lane.connected = false;
        self.lanes.iter().any(|lane| lane.connected)
    }

    /// Tells idle lanes of a retiring worker to end. Their tasks are added to `sleepers`.
    pub(super) fn retire_idle_lanes(&mut self, sleepers: &mut Vec<Sleeper>) {
        for lane in self.lanes.iter_mut().filter(|_| self.retiring) {
            if lane.in_flight() == 0 && lane.connected && !lane.told_to_retire {
                lane.told_to_retire = true;
                frame::put(&mut lane.out.bytes, Kind::Retire, 0, &[]);
                sleepers.extend(lane.signal.take_sleeper());
            }
        }
    }
}

impl Lane {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            signal: Arc::default(),
            out: Outgoing::default(),
            slots: (0..SLOTS).map(|_| None).collect(),
            free: u64::MAX,
            generation: 0,
            heard: now,
            told_to_retire: false,
            flush_after: Duration::ZERO,
            connected: false,
            shelf: None,
        }
    }

    /// Requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.free.count_zeros() as usize
    }

    /// Something came from the thread.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.flush_after = Duration::ZERO;
    }

    /// Whether it has had work for a while without a sign of life.
    pub(super) fn is_blocked(&self, pace: &Pace, now: Instant) -> bool {
        self.in_flight() > 0 && now.saturating_duration_since(self.heard) >= pace.silence()
    }

    /// How many requests were sent after that of this id.
    fn age(&self, id: u32) -> u32 {
        self.generation.wrapping_sub(id >> GENERATION) & (u32::MAX >> GENERATION)
    }

    /// Everything in flight.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().flatten()
    }

    /// The same, to be changed.
    pub(super) fn slots_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut().flatten()
    }

    /// Appends a frame; the lane's task is returned where it sleeps.
    pub(super) fn put(&mut self, kind: Kind, id: u32, payload: &[u8]) -> Option<Sleeper> {
        frame::put(&mut self.out.bytes, kind, id, payload);
        self.signal.take_sleeper()
    }
}

impl Outgoing {
    /// Appends a request; `file` is its own open of a spooled body.
    fn put_request(&mut self, id: u32, exchange: &Exchange, crowded: bool, file: Option<OwnedFd>) {
        let (body, inline): (RequestBody, &[u8]) = match &exchange.body {
            Payload::None => (RequestBody::None, &[]),
            Payload::Inline(bytes) => (RequestBody::Inline, bytes),
            Payload::Arena(part) => (RequestBody::Arena { offset: part.offset(), length: part.length() }, &[]),
            Payload::Stream(_) => (RequestBody::Stream, &[]),
            Payload::File(file) => (RequestBody::File { length: file.length() }, &[]),
        };
        if let Some(descriptor) = file {
            self.descriptors.push((self.bytes.len(), descriptor));
        }
        frame::put_request(&mut self.bytes, id, crowded, &exchange.environment, body, inline);
    }
}

/// Whether the application was called for this request, as the page says.
pub(super) fn is_started(page: &SharedMemory, thread: usize, id: u32) -> bool {
    flags(page, thread, id).is_some_and(|flags| flags.is_started())
}

/// Where the two sides meet over a request.
fn flags(page: &SharedMemory, thread: usize, id: u32) -> Option<Flags<'_, AtomicU8>> {
    let place = thread * LANE_PAGE + id as usize % SLOTS;
    Some(Flags { started: page.byte(place)?, revoked: page.byte(place + SLOTS)? })
}

/// A number of requests after which the worker with this serial is replaced: up to a tenth more, so that workers that
/// started together are not replaced together.
pub(super) fn spread(limit: u64, serial: u32) -> u64 {
    limit + limit / 10 * (u64::from(serial).wrapping_mul(0x9e37_79b9) % 16) / 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_that_start_together_are_not_replaced_together_nor_much_later_than_was_said() {
        let limits: Vec<u64> = (1..=16).map(|serial| spread(1000, serial)).collect();
        assert!(limits.iter().all(|limit| (1000..1100).contains(limit)), "{limits:?}");
        let different: std::collections::BTreeSet<_> = limits.iter().collect();
        assert_eq!(different.len(), 16, "{limits:?}");
        assert_eq!(spread(1, 7), 1, "one request is one request");
    }
}
