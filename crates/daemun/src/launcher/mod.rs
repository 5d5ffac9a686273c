//! The launcher: a small process of one thread that starts CGI programs and ends them.
//!
//! 1. The supervisor starts it where there are CGI routes, and tells it the [`Profile`]s: as whom and within which limits
//!    programs run. The front cannot choose those: whoever took it over could still start nothing as another user.
//! 2. The front sends a [`Start`] over a socket that the supervisor has made for the two ([`Client`]): program,
//!    arguments, environment and three descriptors, ready to use.
//! 3. The launcher starts it ([`Starter`](crate::sys::Starter)) and hears of its end by CHLD: one signal, one packet to
//!    the front for all that have ended meanwhile. It parses nothing and waits for no program.
//! 4. What a request no longer wants is ended with its whole process group: TERM, and KILL half a second later.
//!
//! It is not the supervisor, because a start can hang (a program on a dead network disk), and not the front, because
//! a start from a large process costs ten times as much.

mod client;
mod message;
mod process;
mod profile;
mod reuse;
mod sandbox;

use serde::{Deserialize, Serialize};

pub use client::{Client, Ending, LaunchError, Running};
pub use message::Start;
pub use process::run;
pub use profile::{Profile, Reuse, Sandbox};

/// The argument with which the program is started to be a launcher, on the channel that it inherits as descriptor 3.
pub const LAUNCHER_ROLE: &str = "--role=launcher";

/// The supervisor's word to a launcher.
#[derive(Debug, Deserialize, Serialize)]
pub enum ToLauncher {
    /// All profiles so far, by the number that a [`Start`] names.
    Profiles(Vec<Profile>),
    /// Another front, whose socket comes along. What the fronts before it had started ends with their sockets.
    Front,
    /// The configuration was read anew: interpreters that were warmed up before end, since their code may be another.
    Renew,
}
