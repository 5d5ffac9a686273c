//! How the pool names and wakes the tasks of lanes, and what ends one.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::task::Context;
use std::time::Duration;

use daemun_protocol::frame::{self, Kind};

use super::report::Parting;
use super::sleeper::Sleeper;

/// How long a worker may take to say hello, and to take our answer.
pub(super) const HELLO_DEADLINE: Duration = Duration::from_secs(10);

/// Which lane of which worker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct LaneKey {
    pub(super) serial: u32,
    pub(super) thread: u16,
}

/// Why a process that connects is turned away.
#[derive(Debug)]
pub(super) enum TurnedAway {
    /// Its worker's first lane has not come yet, as happens with a new front: it tries again by itself.
    TooEarly,
    /// For this reason.
    Because(String),
}

impl From<&str> for TurnedAway {
    fn from(reason: &str) -> Self {
        Self::Because(reason.to_owned())
    }
}

impl From<String> for TurnedAway {
    fn from(reason: String) -> Self {
        Self::Because(reason)
    }
}

/// How the pool wakes a lane's task.
#[derive(Debug, Default)]
pub(super) struct Signal {
    sleeper: Mutex<Option<Sleeper>>,
}

impl Signal {
    /// The task, where it sleeps; to be woken once no lock is held.
    pub(super) fn take_sleeper(&self) -> Option<Sleeper> {
        self.sleeper.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn register(&self, context: &Context<'_>) {
        let mut sleeper = self.sleeper.lock().unwrap_or_else(PoisonError::into_inner);
        Sleeper::sleep_in(&mut sleeper, context);
    }
}

/// What a lane cannot go on after.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaneError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] frame::FrameError),
    #[error("descriptors were lost on the way")]
    Truncated,
    #[error("unexpected {0:?}")]
    Unexpected(Kind),
    #[error("it sends more of an answer than it was given credit for")]
    Flood,
    #[error("it says that a piece of an answer lies where none can")]
    Beside,
    #[error("it asks for more of a request body without reading what it was sent")]
    Unread,
    #[error("no hello within {} s", HELLO_DEADLINE.as_secs())]
    Late,
}

impl LaneError {
    /// What it says of the worker. An error of the socket is how the end of a process may look too.
    pub(super) fn parting(self) -> Parting {
        match self {
            Self::Io(error) if error.kind() != io::ErrorKind::InvalidData => Parting::Closed,
            breach => Parting::Breach(breach.to_string()),
        }
    }
}
