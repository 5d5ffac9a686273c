//! CGI (RFC 3875): a program for each request.
//!
//! 1. [`way`](Choice), [`Scripts`](crate::gateway::Scripts): the script that the path leads to, and what follows it (`PATH_INFO`); else a decline.
//! 2. [`handler`](Cgi): the body is spooled, so that its length is known and no program waits for a slow client.
//! 3. A place among the route's processes, or a short queue, or 503.
//! 4. [`invocation`]: arguments and environment, from nothing but the request and what is configured.
//! 5. [`process`]: started by the [`launcher`](crate::launcher); standard error goes to the log ([`complaints`]).
//! 6. [`answer`]: the head of its output becomes a response, a local redirect, or a line in the log that quotes what
//!    stood there instead; the rest is streamed as the client takes it.
//!
//! A file below a CGI root is run or refused, never sent. [`faults`] says what is wrong with a script, and the mend.

mod answer;
mod body;
mod complaints;
pub mod faults;
mod handler;
mod input;
mod invocation;
mod process;
mod settings;
mod way;

pub use handler::{Cgi, Shared};
pub use invocation::{Invocation, describe};
pub use settings::{CgiSettings, PROGRAM_PATH, find_program};
pub use way::{Choice, Way};
