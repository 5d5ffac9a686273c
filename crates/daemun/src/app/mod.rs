//! Applications: pools of worker processes, each the application's own Python, and the way of a request to them.
//!
//! 1. [`handler`](Application): the body is spooled ([`spool`]), the environment written ([`gateway`](crate::gateway)).
//! 2. [`pool`]: a worker's lane is chosen, or the request waits in a bounded queue with a deadline.
//! 3. [`lane`]: frames are written to the worker and read from it, many at a time.
//! 4. [`exchange`]: what comes back reaches the waiting task; [`answer`] makes a response of it.
//!
//! Who has a request at any moment, also when a worker dies or is asked for it back, is said by [`handover`].
//!
//! Beside that way stands the [`zygote`](Zygote): the process that has imported an application and forks its workers; the
//! supervisor starts it.
//!
//! Knows frames and the settings of an application. Must not know routes or connections.

mod answer;
mod broken;
pub mod collect;
mod debugger;
mod exchange;
mod handler;
mod handover;
mod lane;
mod pace;
mod pool;
mod report;
mod settings;
mod shelf;
mod signal;
mod sleeper;
mod spool;
mod worker;
mod zygote;

pub use broken::Broken;
pub use debugger::{Attachable, Debugger};
pub use handler::Application;
pub use lane::welcome;
pub use pool::{Pool, PoolFigures, PoolFlight};
pub use report::{Admission, Counts, Parting, Reports, WorkerReport};
pub use settings::{AppSettings, Development, InheritEnv, Mount, Preload};
pub use sleeper::EventLoop;
pub use zygote::{
    DevelopmentTools, DjangoInfo, Finder, Ready, Start, WhitenoiseSettings, Words, Zygote, ZygoteMessage,
};

/// The signal at which a worker writes the stacks of its threads: a real-time one, of which applications use few. Its
/// number is above those that the C libraries keep for themselves.
pub const STACK_SIGNAL: i32 = 40;

/// The program that application workers run: one file of plain Python, written out at start.
pub const SHIM: &str = include_str!("shim.py");

/// What the development server adds to it, written out beside it.
pub const DEVELOPMENT: &str = include_str!("development.py");

/// Its hot path in machine code, written out beside it and loaded where the interpreter can; empty where it was not built
/// for this machine. Its source is in `accelerator/`.
pub const ACCELERATOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/daemun_accelerator.so"));
