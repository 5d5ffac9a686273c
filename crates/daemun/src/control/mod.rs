//! How an operator's commands reach a running server: a Unix socket with a line of JSON each way.
//!
//! * [`message`] has what can be asked (`Command`) and what is answered (`Answer`).
//! * [`place`] tells where the socket lies. It is derived from what is served, so that `daemun reload` in the same folder finds
//!   the server that was started there.
//! * [`server`] accepts, checks who asks by the kernel's word, and reads one bounded line under a deadline.
//! * [`client`] asks.
//!
//! Knows bytes and files. Must not know what a command does: whoever listens is told of it and answers.

pub mod client;
pub mod message;
pub mod place;
pub mod server;

pub use message::{Answer, Command};
pub use server::{Asked, Listening, Reply};
