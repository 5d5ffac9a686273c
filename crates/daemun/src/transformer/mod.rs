//! Transforming documents by XSLT, in processes that can do nothing else.
//!
//! 1. The supervisor starts a few of them where a route has `xslt`, each with one socket whose other end the front
//!    gets, and starts another when one ends.
//! 2. Such a process loads libxslt ([`Xslt`](crate::sys::Xslt)) and shuts itself in
//!    ([`confine`](crate::sys::confine)): from then on it can open no file and no socket, start no process, and hold no
//!    more than [`MEMORY`]. Each job has a timer of the kernel's that ends the process.
//! 3. The front sends it a [`Job`] with the document ([`Client`]). What the stylesheet imports, or reads by `document()`,
//!    it asks the front for, which opens it below the root of the route or says that there is no such thing.
//! 4. It keeps stylesheets compiled, by the number that the front gives to each state of their files.
//!
//! Deep recursion, a loop or memory without end can thus end nothing but a process that is made for it.

mod client;
mod message;
mod process;

pub use client::{Client, Failure, MOST_WAITING, Order};
pub use message::{Job, Made};
pub use process::{check, run};

/// The argument with which the program is started to be a transformer, on the socket that it inherits as descriptor 3.
pub const TRANSFORMER_ROLE: &str = "--role=transformer";

/// The argument with which it only tells whether it could be one.
pub const CHECK_ROLE: &str = "--role=transformer-check";

/// Bytes of address space of a process: a hundred times what a large document takes.
const MEMORY: u64 = 512 << 20;
