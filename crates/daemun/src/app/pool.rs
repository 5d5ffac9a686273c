//! The pool of one application: which worker gets which request, and what waits.
//!
//! One lock guards the whole of it. It is held for a batch of frames or one submission, never across a system call that may
//! wait (a memory barrier, where requests are taken back, is one that does not), and tasks are woken after it is released.

mod figures;
mod flights;
mod frames;
mod monitor;
mod placing;
mod replay;

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use daemun_protocol::frame::{self, Frame, Hello, Kind, LANE_PAGE, SHELF};
use tokio::sync::Notify;

use super::broken::Broken;
use super::exchange::{Event, Exchange, Failure, Place};
use super::handover::SlotState;
use super::pace::Pace;
use super::report::{Admission, Counts, Parting, Reports, WorkerReport};
use super::settings::AppSettings;
use super::shelf::Shelf;
use super::signal::{LaneError, LaneKey, Signal, TurnedAway};
use super::sleeper::{Sleeper, wake};
use super::spool::Arena;
use super::worker::{self, Lane, Outgoing, Worker};
use crate::crowd::Waiting;
use crate::sys::SharedMemory;
pub use figures::PoolFigures;
pub use flights::PoolFlight;

/// What a fresh lane is told.
pub(super) struct Admitted {
    pub(super) descriptors: Vec<OwnedFd>,
    pub(super) page: u32,
    pub(super) arena: u32,
    pub(super) shelves: u32,
    pub(super) shelf: Option<Arc<Shelf>>,
    pub(super) signal: Arc<Signal>,
}

/// The pool of one application.
pub struct Pool {
    name: String,
    arena: Option<Arc<Arena>>,
    event_loops: usize,
    reports: Reports,
    state: Mutex<State>,
    monitor: Notify,
    announced: Notify,
}

/// What the lock guards.
#[derive(Debug)]
struct State {
    settings: Arc<AppSettings>,
    admissions: HashMap<i32, Admission>,
    workers: Vec<Worker>,
    queue: VecDeque<Arc<Exchange>>,
    /// Requests whose worker died, and when: one of them may have been the reason.
    suspects: VecDeque<(Instant, Arc<Exchange>)>,
    counts: Counts,
    pace: Pace,
    /// Whether requests may wait although no worker is connected: one is coming.
    expecting: bool,
    /// Whether nothing is sent for now: other code is on its way, and what comes waits for it.
    held: bool,
    /// Why there is no worker.
    broken: Option<Arc<Broken>>,
    watch: monitor::Watch,
}

impl Pool {
    /// A pool without workers.
    pub fn new(settings: AppSettings, event_loops: usize, reports: Reports) -> Arc<Self> {
        Arc::new(Self {
            name: settings.name.clone(),
            // Without an arena bodies go the longer way.
            arena: Arena::new().ok(),
            event_loops: event_loops.max(1),
            reports,
            state: Mutex::new(State {
                settings: Arc::new(settings),
                admissions: HashMap::new(),
                workers: Vec::new(),
                queue: VecDeque::new(),
                suspects: VecDeque::new(),
                counts: Counts::default(),
                pace: Pace::default(),
                expecting: true,
                held: false,
                broken: None,
                watch: monitor::Watch::Parked,
            }),
            monitor: Notify::new(),
            announced: Notify::new(),
        })
    }

    /// The application's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes new settings over; requests in flight keep the old ones.
    pub fn configure(&self, settings: AppSettings) {
        let mut state = self.state();
        state.settings = Arc::new(settings);
        state.broken = None;
    }

    /// Lets requests wait from now on, or no longer.
    pub fn hold(&self, held: bool) {
        let mut sleepers = Vec::new();
        let mut state = self.state();
        state.held = held;
        if !held {
            state.dispatch(Instant::now(), &mut sleepers);
            state.turn_away(&mut sleepers);
        }
        drop(state);
        wake(sleepers);
    }

    /// Why there is no worker, where that is known.
    pub(super) fn broken(&self) -> Option<Arc<Broken>> {
        self.state().broken.clone()
    }

    /// Lets a worker connect.
    pub fn expect(&self, admission: Admission) {
        let mut state = self.state();
        state.expecting = true;
        state.admissions.insert(admission.pid, admission);
        drop(state);
        self.announced.notify_waiters();
    }

    /// Waits until the process of this id has been announced: a worker may be faster than the supervisor's word of it.
    pub(super) async fn announced(&self, pid: Option<i32>) {
        let announced = async {
            loop {
                let notified = self.announced.notified();
                if pid.is_none_or(|pid| self.state().admissions.contains_key(&pid)) {
                    return;
                }
                notified.await;
            }
        };
        // Whoever has not been announced by then is refused by name.
        let _ = tokio::time::timeout(ANNOUNCEMENT, announced).await;
    }

    /// Nobody is coming: what waits is answered 503, and so is what comes.
    pub fn give_up(&self, broken: Option<Broken>) {
        let mut sleepers = Vec::new();
        let mut state = self.state();
        state.expecting = false;
        state.broken = broken.map(Arc::new);
        if !state.held {
            state.turn_away(&mut sleepers);
        }
        drop(state);
        wake(sleepers);
    }

    /// Sends nothing new to the workers that `which` picks, and tells them to end when they are done.
    pub fn retire(&self, which: impl Fn(u32, u64) -> bool) {
        let mut sleepers = Vec::new();
        let mut state = self.state();
        for worker in &mut state.workers {
            if which(worker.serial, worker.generation) {
                worker.retiring = true;
                worker.retire_idle_lanes(&mut sleepers);
            }
        }
        state.admissions.retain(|_, admission| !which(admission.serial, admission.generation));
        drop(state);
        wake(sleepers);
    }

    /// What has happened to requests so far, beyond being answered.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Reports which workers have had nothing to do for this long.
    pub fn tell_idle(&self, idle: Duration) {
        let now = Instant::now();
        let state = self.state();
        let candidates = state.workers.iter().filter(|worker| !worker.retiring && worker.is_idle_for(idle, now));
        let serials: Vec<u32> = candidates.map(|worker| worker.serial).collect();
        drop(state);
        if !serials.is_empty() {
            self.report(WorkerReport::Idle { serials });
        }
    }

    /// Whether any worker is connected.
    pub fn has_workers(&self) -> bool {
        !self.state().workers.is_empty()
    }

    /// Whether nothing waits and nothing is in flight.
    pub fn is_idle(&self) -> bool {
        let state = self.state();
        state.queue.is_empty()
            && state.suspects.is_empty()
            && state.workers.iter().all(|worker| worker.in_flight() == 0)
    }

    pub(super) fn settings(&self) -> Arc<AppSettings> {
        Arc::clone(&self.state().settings)
    }

    pub(super) fn arena(&self) -> Option<&Arc<Arena>> {
        self.arena.as_ref()
    }

    /// Admits a lane if its process is one that was announced.
    pub(super) fn admit(&self, pid: Option<i32>, hello: Hello) -> Result<(LaneKey, usize, Admitted), TurnedAway> {
        if hello.version != frame::VERSION {
            return Err(format!("it speaks version {} of the protocol, not {}", hello.version, frame::VERSION).into());
        }
        let pid = pid.ok_or("the kernel does not say which process it is")?;
        let now = Instant::now();
        let mut state = self.state();
        let admission = *state.admissions.get(&pid).ok_or("it is no worker of this application")?;
        let serial = admission.serial;
        let key = LaneKey { serial, thread: hello.thread };
        let mut admitted =
            Admitted { descriptors: Vec::new(), page: 0, arena: 0, shelves: 0, shelf: None, signal: Arc::default() };
        if hello.threads != admission.threads {
            return Err(format!("it has {} threads, not {}", hello.threads, admission.threads).into());
        }
        if hello.thread == 0 {
            if state.worker(serial).is_some() {
                // Its lanes before are not known to be closed yet. What is in flight on them must not be forgotten.
                return Err(TurnedAway::TooEarly);
            }
            let worker = self.new_worker(&state, admission, hello, now)?;
            let duplicate = |descriptor: std::os::fd::BorrowedFd<'_>| descriptor.try_clone_to_owned();
            admitted.page = worker.page.length() as u32;
            admitted.descriptors.push(duplicate(worker.page.as_fd()).map_err(|error| error.to_string())?);
            if let Some(arena) = &self.arena {
                admitted.arena = arena.length();
                admitted.descriptors.push(duplicate(arena.as_fd()).map_err(|error| error.to_string())?);
            }
            if let Some(shelves) = &worker.shelves {
                admitted.shelves = shelves.length() as u32;
                admitted.descriptors.push(duplicate(shelves.as_fd()).map_err(|error| error.to_string())?);
            }
            state.workers.push(worker);
        }
        let home = serial as usize % self.event_loops;
        let worker = state.worker(serial).ok_or(TurnedAway::TooEarly)?;
        let lane = worker.lanes.get_mut(hello.thread as usize).filter(|lane| !lane.connected);
        let lane = lane.ok_or_else(|| format!("it has no lane {} to connect", hello.thread))?;
        lane.connected = true;
        admitted.signal = Arc::clone(&lane.signal);
        admitted.shelf.clone_from(&lane.shelf);
        let complete = worker.lanes.iter().all(|lane| lane.connected);
        let mut sleepers = Vec::new();
        worker.retire_idle_lanes(&mut sleepers);
        state.dispatch(now, &mut sleepers);
        drop(state);
        wake(sleepers);
        if complete {
            self.report(WorkerReport::Connected { serial });
        }
        Ok((key, home, admitted))
    }

    fn new_worker(&self, state: &State, by: Admission, hello: Hello, now: Instant) -> Result<Worker, String> {
        let length = (hello.threads.max(1) as usize * LANE_PAGE).next_multiple_of(4096);
        let page = Arc::new(SharedMemory::new("daemun-worker", length, false).map_err(|error| error.to_string())?);
        let threads = hello.threads.max(1);
        // Without shelves answers go the longer way.
        let shelves = SharedMemory::new("daemun-answers", threads as usize * SHELF, false).ok().map(Arc::new);
        // One more than threads: the monitor's.
        let mut lanes: Vec<Lane> = (0..=threads).map(|_| Lane::new(now)).collect();
        for (thread, lane) in lanes.iter_mut().enumerate().take(threads as usize) {
            lane.shelf = shelves.as_ref().map(|memory| Shelf::new(&page, memory, thread));
        }
        Ok(Worker {
            serial: by.serial,
            generation: by.generation,
            home: by.serial as usize % self.event_loops,
            lanes,
            page,
            shelves,
            retiring: false,
            is_reserved: false,
            served: 0,
            lifetime: state.settings.max_requests.map(|limit| worker::spread(limit, by.serial)),
        })
    }

    /// Says in the log that a process was turned away.
    pub(super) fn refused(&self, pid: Option<i32>, reason: &str) {
        self.report(WorkerReport::Refused { pid, reason: reason.to_owned() });
    }

    /// Hands a request to a worker, or lets it wait; `Some` where it waits in a crowd.
    pub(super) fn submit(&self, exchange: &Arc<Exchange>, event_loop: usize) -> Result<Option<Waiting>, Failure> {
        let now = exchange.submitted;
        let mut state = self.state();
        let mut sleepers = Vec::new();
        let result = state.submit(exchange, event_loop, now, &mut sleepers);
        let hurry = state.watch_needed();
        let is_crowded = state.pace.is_crowded();
        drop(state);
        wake(sleepers);
        if hurry {
            self.monitor.notify_one();
        }
        result.map(|()| is_crowded.then(Waiting::begin))
    }

    /// The client of this request is gone.
    pub(super) fn cancel(&self, exchange: &Arc<Exchange>) {
        let mut state = self.state();
        let sleeper = match exchange.place() {
            None => {
                state.queue.retain(|waiting| !Arc::ptr_eq(waiting, exchange));
                state.forget_suspect(exchange);
                None
            }
            Some(place) => state.abandon(place),
        };
        drop(state);
        wake(sleeper);
    }

    /// The client has taken this many bytes of the answer: the worker may send as many more.
    pub(super) fn credit(&self, exchange: &Exchange, bytes: u32) {
        let Some(place) = exchange.place() else { return };
        let mut state = self.state();
        let Some(worker) = state.worker(place.serial) else { return };
        if let Some(slot) = worker.slot(place.thread, place.id) {
            slot.brought = Instant::now();
            slot.untaken = slot.untaken.saturating_sub(bytes);
        }
        let lane = worker.lanes.get_mut(place.thread as usize);
        let sleeper = lane.and_then(|lane| lane.put(Kind::Credit, place.id, &bytes.to_le_bytes()));
        drop(state);
        wake(sleeper);
    }

    /// Passes a piece of a streamed request body on; an empty one ends it. Its worker has begun, and asked for it. What the
    /// application waits for its client does not count for its `timeout`.
    pub(super) fn send_body(&self, exchange: &Exchange, bytes: &[u8]) {
        let Some(place) = exchange.place() else { return };
        let mut state = self.state();
        let Some(worker) = state.worker(place.serial) else { return };
        let Some(slot) = worker.slot(place.thread, place.id) else { return };
        slot.sent = Instant::now();
        let Some(lane) = worker.lanes.get_mut(place.thread as usize) else { return };
        let mut sleeper = None;
        let pieces = bytes.chunks(BODY_PIECE);
        for piece in pieces.chain(bytes.is_empty().then_some(bytes)) {
            sleeper = lane.put(Kind::Body, place.id, piece).or(sleeper);
        }
        drop(state);
        wake(sleeper);
    }

    /// Moves what is to be written on a lane into `out`, which is empty, and says whether the application is crowded; `None`
    /// when the lane is no longer wanted.
    pub(super) fn take_outgoing(&self, key: LaneKey, out: &mut Outgoing) -> Option<bool> {
        let mut state = self.state();
        let lane = state.worker(key.serial).and_then(|worker| worker.lanes.get_mut(key.thread as usize));
        std::mem::swap(&mut lane?.out, out);
        Some(state.pace.is_crowded())
    }

    /// Takes what a worker's thread has sent.
    pub(super) fn deliver(
        &self,
        key: LaneKey,
        frames: Vec<Frame>,
        descriptors: &mut Vec<OwnedFd>,
        now: Instant,
    ) -> Result<(), LaneError> {
        let mut sleepers = Vec::new();
        let mut reports = Vec::new();
        let mut state = self.state();
        let mut result = Ok(());
        for frame in frames {
            result = state.take_frame(key, frame, descriptors, &mut sleepers);
            if result.is_err() {
                break;
            }
        }
        state.after_frames(key, now, &mut sleepers, &mut reports);
        drop(state);
        wake(sleepers);
        for report in reports {
            self.report(report);
        }
        result
    }

    /// A lane is gone, and with it the whole worker, unless it was told to: what the worker had not started goes
    /// elsewhere, the rest has failed. It does not come back: whatever it was that closed a lane, its state is unknown.
    pub(super) fn lost(&self, key: LaneKey, parting: Parting) {
        let now = Instant::now();
        let mut sleepers = Vec::new();
        let mut state = self.state();
        let Some(index) = state.workers.iter().position(|worker| worker.serial == key.serial) else { return };
        if state.workers[index].leaves_in_order(key.thread) {
            return;
        }
        let worker = state.workers.swap_remove(index);
        state.admissions.retain(|_, admission| admission.serial != worker.serial);
        let mut reports = Vec::new();
        let is_in_order = parting == Parting::Closed && worker.retiring && worker.in_flight() == 0;
        let parting = if is_in_order { Parting::InOrder } else { parting };
        let serving = state.recover(&worker, now, &mut sleepers, &mut reports);
        state.dispatch(now, &mut sleepers);
        drop(state);
        // Its other lanes find themselves unwanted.
        sleepers.extend(worker.lanes.iter().filter_map(|lane| lane.signal.take_sleeper()));
        wake(sleepers);
        let (serial, served) = (worker.serial, worker.served);
        self.report(WorkerReport::Lost { serial, served, serving, parting });
        for report in reports {
            self.report(report);
        }
    }

    fn report(&self, report: WorkerReport) {
        // The receiver ends with the process.
        let _ = self.reports.send((self.name.clone(), report));
    }

    /// A panic while the lock was held would have left slots behind, not broken memory: go on.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Fails what waits where nobody will come for it.
    fn turn_away(&mut self, sleepers: &mut Vec<Sleeper>) {
        if !self.expecting && self.workers.iter().all(|worker| worker.retiring) {
            let suspects = std::mem::take(&mut self.suspects).into_iter().map(|(_, exchange)| exchange);
            for exchange in std::mem::take(&mut self.queue).into_iter().chain(suspects) {
                exchange.post(Event::Failed(Failure::Unavailable), sleepers);
            }
        }
    }

    fn worker(&mut self, serial: u32) -> Option<&mut Worker> {
        self.workers.iter_mut().find(|worker| worker.serial == serial)
    }

    /// Drops interest in a request that a worker has. The slot stays taken until the worker is done with it.
    fn abandon(&mut self, place: Place) -> Option<Sleeper> {
        let worker = self.worker(place.serial)?;
        worker.slot(place.thread, place.id)?.state = SlotState::Abandoned;
        worker.lanes[place.thread as usize].put(Kind::Cancel, place.id, &[])
    }
}

/// Bytes of a streamed body that go in one frame: other requests of the lane do not wait behind more.
const BODY_PIECE: usize = 64 * 1024;

/// How long the supervisor may take to announce a worker that has connected already.
const ANNOUNCEMENT: Duration = Duration::from_secs(5);
