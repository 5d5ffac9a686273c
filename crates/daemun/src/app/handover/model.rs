//! Every interleaving of a front and a worker over one lane, with loom, by the functions that both run in earnest.
//!
//! Only what is between them is made here: sockets that carry frames in order and end with the process, a worker that dies
//! at a given point, and a second worker that takes what comes back. The front looks at any time, as often as [`LOOKS`].
//!
//! No `cfg(loom)`: tokio gives that word a meaning of its own. What is tried here takes loom's types as parameters instead.

use std::sync::atomic::Ordering;

use loom::sync::atomic::AtomicU8;
use loom::sync::{Arc, Mutex};
use loom::thread;

use super::{Byte, Fate, Flags, Progress, Skipped, SlotState, progress};

impl Byte for AtomicU8 {
    fn load(&self, order: Ordering) -> u8 {
        self.load(order)
    }

    fn store(&self, value: u8, order: Ordering) {
        self.store(value, order);
    }

    fn fence(order: Ordering) {
        loom::sync::atomic::fence(order);
    }
}

/// How often the front looks while the worker is at work: one look asks for a request back, the next one takes it.
const LOOKS: usize = 3;

/// Switches between threads that loom makes at most where they are not forced: nearly all faults need two.
const SWITCHES: usize = 3;

/// Where the first worker dies, in each request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Death {
    Never,
    BeforeStart(usize),
    BeforeCall(usize),
    AfterCall(usize),
    BeforeWrite,
}

/// What a worker writes, for the request of this number.
#[derive(Clone, Copy, Debug)]
enum Word {
    Answer(usize),
    Skipped(usize),
}

/// What the worker and the front share.
struct Lane {
    page: Vec<(AtomicU8, AtomicU8)>,
    /// What the worker has written, and whether its end is closed.
    socket: Mutex<(Vec<Word>, bool)>,
    /// How often the application was called for each request.
    calls: Mutex<Vec<u8>>,
}

impl Lane {
    fn new(requests: usize) -> Arc<Self> {
        Arc::new(Self {
            page: (0..requests).map(|_| (AtomicU8::new(1), AtomicU8::new(1))).collect(),
            socket: Mutex::new((Vec::new(), false)),
            calls: Mutex::new(vec![0; requests]),
        })
    }

    fn flags(&self, request: usize) -> Flags<'_, AtomicU8> {
        let (started, revoked) = &self.page[request];
        Flags { started, revoked }
    }

    fn call(&self, request: usize) {
        self.calls.lock().unwrap()[request] += 1;
    }

    /// A worker: all requests in their order, then one write for all answers, as the shim holds them back. It ends
    /// where `death` says so, and with it what it has not written.
    fn work(&self, requests: usize, death: Death) {
        let mut held = Vec::new();
        let mut live = || {
            for request in 0..requests {
                if death == Death::BeforeStart(request) {
                    return false;
                }
                if !self.flags(request).start() {
                    held.push(Word::Skipped(request));
                    continue;
                }
                if death == Death::BeforeCall(request) {
                    return false;
                }
                self.call(request);
                if death == Death::AfterCall(request) {
                    return false;
                }
                held.push(Word::Answer(request));
            }
            death != Death::BeforeWrite
        };
        let lives = live();
        let mut socket = self.socket.lock().unwrap();
        if lives {
            socket.0.append(&mut held);
        } else {
            socket.1 = true;
        }
    }
}

/// The front's side of one request.
#[derive(Clone, Copy, Debug)]
struct Request {
    state: SlotState<()>,
    /// Whether its slot is still taken.
    in_flight: bool,
    answers: u8,
    lost: bool,
    again: u8,
}

struct Front {
    lane: Arc<Lane>,
    requests: Vec<Request>,
    may_repeat: bool,
}

impl Front {
    /// Takes what the worker has written.
    fn read(&mut self) {
        let (words, closed) = {
            let mut socket = self.lane.socket.lock().unwrap();
            (std::mem::take(&mut socket.0), socket.1)
        };
        for word in words {
            let (Word::Answer(at) | Word::Skipped(at)) = word;
            let request = &mut self.requests[at];
            assert!(std::mem::take(&mut request.in_flight), "one last word for each request");
            match word {
                Word::Answer(_) => request.answers += u8::from(request.state.answered()),
                Word::Skipped(_) => match request.state.skipped() {
                    Skipped::TakenBack => request.again += 1,
                    Skipped::Settled => {}
                    Skipped::Unasked => unreachable!("the worker skips what was asked for"),
                },
            }
        }
        if closed {
            self.recover();
        }
    }

    fn recover(&mut self) {
        let started: Vec<bool> = (0..self.requests.len()).map(|at| self.lane.flags(at).is_started()).collect();
        for (at, request) in self.requests.iter_mut().enumerate().filter(|(_, request)| request.in_flight) {
            request.in_flight = false;
            let begun_later = started[at + 1..].contains(&true);
            match request.state.after_death(progress(started[at], begun_later), self.may_repeat, 1) {
                Fate::Settled => {}
                Fate::SentAnew | Fate::Replayed | Fate::Suspected => request.again += 1,
                Fate::Lost => request.lost = true,
            }
        }
    }

    /// Looks at each request once, as behind a silent thread.
    fn look(&mut self) {
        for (at, request) in self.requests.iter_mut().enumerate().filter(|(_, request)| request.in_flight) {
            request.again += u8::from(request.state.look(&self.lane.flags(at), (), |()| true));
        }
    }

    /// The second worker does what came back.
    fn send_again(&mut self) {
        for (at, request) in self.requests.iter_mut().enumerate() {
            assert!(request.again <= 1, "it is sent to one other worker");
            if std::mem::take(&mut request.again) > 0 {
                self.lane.call(at);
                request.answers += 1;
            }
        }
    }
}

/// One front, one worker that dies there, and what must hold afterwards.
fn hand_over(requests: usize, death: Death, may_repeat: bool) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(SWITCHES);
    model.check(move || {
        let lane = Lane::new(requests);
        for request in 0..requests {
            // As a request before it has left them.
            lane.flags(request).refresh();
        }
        let worker = thread::spawn({
            let lane = Arc::clone(&lane);
            move || lane.work(requests, death)
        });
        let fresh = Request { state: SlotState::Held, in_flight: true, answers: 0, lost: false, again: 0 };
        let mut front = Front { lane: Arc::clone(&lane), requests: vec![fresh; requests], may_repeat };
        for _ in 0..LOOKS {
            front.look();
            front.read();
            front.send_again();
        }
        worker.join().unwrap();
        front.read();
        front.send_again();
        let calls = lane.calls.lock().unwrap();
        for (at, request) in front.requests.iter().enumerate() {
            let what = format!("{death:?}, request {at} of {requests}, {request:?}, {} calls", calls[at]);
            assert!(!request.in_flight, "none is forgotten: {what}");
            assert_eq!(request.answers + u8::from(request.lost), 1, "each ends once: {what}");
            if death == Death::Never {
                assert_eq!((calls[at], request.lost), (1, false), "called once: {what}");
            }
            if may_repeat {
                assert!(!request.lost, "what may be repeated survives one death: {what}");
            } else {
                assert!(calls[at] <= 1, "what may not be repeated is never called twice: {what}");
            }
        }
    });
}

fn deaths(requests: usize) -> Vec<Death> {
    let each = (0..requests).flat_map(|at| [Death::BeforeStart(at), Death::BeforeCall(at), Death::AfterCall(at)]);
    [Death::Never, Death::BeforeWrite].into_iter().chain(each).collect()
}

#[test]
fn a_request_runs_once_and_is_never_lost_however_front_and_worker_interleave() {
    for may_repeat in [false, true] {
        for death in deaths(1) {
            hand_over(1, death, may_repeat);
        }
    }
}

#[test]
fn the_same_holds_for_a_request_that_waits_behind_another() {
    for may_repeat in [false, true] {
        for death in deaths(2) {
            hand_over(2, death, may_repeat);
        }
    }
}

#[test]
fn flags_of_the_slots_last_request_do_not_reach_the_next() {
    loom::model(|| {
        let lane = Lane::new(1);
        let (send, receive) = loom::sync::mpsc::channel::<()>();
        let worker = thread::spawn({
            let lane = Arc::clone(&lane);
            move || {
                // The front asked for the last request too late, and has seen its answer.
                receive.recv().unwrap();
                assert!(lane.flags(0).start(), "nobody has asked for this one");
            }
        });
        lane.flags(0).refresh();
        assert!(!lane.flags(0).is_started());
        send.send(()).unwrap();
        worker.join().unwrap();
        assert!(lane.flags(0).is_started());
    });
}

#[test]
fn what_kills_two_workers_is_not_sent_to_a_third_but_a_bystander_is() {
    let held = SlotState::<()>::Held;
    assert_eq!(held.after_death(Progress::Running, true, 1), Fate::Suspected);
    assert_eq!(held.after_death(Progress::Running, true, 2), Fate::Lost);
    for deaths in [1, 2, 100] {
        assert_eq!(held.after_death(Progress::Waiting, false, deaths), Fate::SentAnew);
        assert_eq!(held.after_death(Progress::Finished, true, deaths), Fate::Replayed);
    }
    for state in [SlotState::Answering, held, SlotState::Revoking(())] {
        assert_eq!(state.after_death(Progress::Running, false, 1), Fate::Lost);
        assert_eq!(state.after_death(Progress::Finished, false, 1), Fate::Lost);
    }
    assert_eq!(
        SlotState::<()>::Answering.after_death(Progress::Running, true, 1),
        Fate::Lost,
        "something was passed on"
    );
}
