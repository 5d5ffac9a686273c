//! Starting processes and talking to them.
//!
//! * [`Channel`]: typed messages with descriptors over a socket pair.
//! * [`account`]: users of the system.
//! * [`say`]: a word on standard error.
//! * [`spawn`]: a child with just the descriptors, user and limits that it should have.

pub mod account;
mod channel;

use std::fmt;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

pub use account::{Account, AccountError};
pub use channel::{Channel, ChannelError, write_all};

use crate::sys::{self, ChildSetup};

/// Starts `command` as `setup` says, with standard input from `/dev/null`; its process id. Whoever reaps children will
/// learn of its end.
pub fn spawn(command: Command, setup: ChildSetup) -> io::Result<i32> {
    Ok(start(command, setup)?.id() as i32)
}

/// The same with our own standard input.
pub fn spawn_at_terminal(mut command: Command, setup: ChildSetup) -> io::Result<i32> {
    sys::prepare(&mut command, setup);
    Ok(command.spawn()?.id() as i32)
}

/// The same with a listening socket as standard input, for a program that ends when we do.
pub fn spawn_listening(mut command: Command, setup: ChildSetup, socket: OwnedFd) -> io::Result<i32> {
    command.stdin(Stdio::from(socket));
    sys::prepare(&mut command, setup);
    sys::end_with_us(&mut command);
    Ok(command.spawn()?.id() as i32)
}

/// Starts `command` as `setup` says, with standard input from `/dev/null`. Who calls this waits for its end.
pub fn start(mut command: Command, setup: ChildSetup) -> io::Result<Child> {
    command.stdin(Stdio::null());
    sys::prepare(&mut command, setup);
    command.spawn()
}

/// Says something on standard error, which all processes share. A disk that is full there, or a reader that is gone, ends
/// nobody, as `eprintln!` would.
pub fn say(text: impl fmt::Display) {
    // Whole lines: others write there too.
    let _ = io::stderr().write_all(format!("daemun: {text}\n").as_bytes());
}
