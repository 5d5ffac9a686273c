//! What the supervisor and a pool tell each other about workers.

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// A worker that the supervisor started and that may connect.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Admission {
    /// Its process id, checked against what the kernel says of the socket's other end.
    pub pid: i32,
    /// Its number.
    pub serial: u32,
    /// The generation of the application's code that it runs.
    pub generation: u64,
    /// How many threads it was told to have.
    pub threads: u16,
}

/// What the pool tells the supervisor.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum WorkerReport {
    /// All lanes of a worker are there.
    Connected {
        /// The worker.
        serial: u32,
    },
    /// A lane was closed: the worker is gone, or will be.
    Lost {
        /// The worker.
        serial: u32,
        /// Requests that it has answered.
        served: u64,
        /// What it was serving, with the seconds since each was sent to it.
        serving: Vec<(String, f32)>,
        /// How its lanes came to be closed.
        parting: Parting,
    },
    /// A request that this worker was serving when it died is sent to another, once.
    Replayed {
        /// The worker.
        serial: u32,
        /// The request.
        request: String,
    },
    /// Requests wait, and more workers may be started.
    Busy {
        /// How many.
        waiting: usize,
        /// For how long the first of them.
        seconds: f32,
    },
    /// These workers have had nothing to do for as long as was asked.
    Idle {
        /// Their numbers.
        serials: Vec<u32>,
    },
    /// It has served its number of requests and should be replaced.
    Replace {
        /// The worker.
        serial: u32,
        /// Why.
        reason: String,
    },
    /// A request has taken half of its time.
    Slow {
        /// The worker.
        serial: u32,
        /// Its thread, from 0.
        thread: u16,
        /// The request.
        request: String,
        /// Seconds since it was handed to the worker.
        seconds: f32,
    },
    /// One of its threads is stuck in a request that was answered 504; it gets nothing new and, once the others are
    /// done, must be killed.
    Stuck {
        /// The worker.
        serial: u32,
        /// The request.
        request: String,
    },
    /// All that is left on it is stuck.
    Drained {
        /// The worker.
        serial: u32,
    },
    /// A process that is no worker of this application, or speaks another protocol, was refused.
    Refused {
        /// Its process id, where the kernel told it.
        pid: Option<i32>,
        /// Why.
        reason: String,
    },
}

/// How the connection of a worker ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Parting {
    /// It was told to end, and had nothing left to do.
    InOrder,
    /// It closed a lane, as the kernel does for a process that ends.
    Closed,
    /// It broke the protocol in this way: what it says cannot be believed any more.
    Breach(String),
}

/// What has happened to the requests of an application, beyond being answered.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Counts {
    /// Taken back from behind a busy thread before they had begun, and sent to another.
    pub moved: u64,
    /// Begun by a worker that died, and sent once more.
    pub replayed: u64,
    /// Begun by a worker that died, and answered 502.
    pub lost: u64,
    /// Answered 504, or cut after `stream_idle`.
    pub timed_out: u64,
}

/// Reports of all pools, each with the application's name, on their way to the supervisor.
pub type Reports = mpsc::UnboundedSender<(String, WorkerReport)>;
