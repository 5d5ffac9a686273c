//! The bytes that daemun's processes and gateways exchange.
//!
//! Pure functions over byte slices: no socket, no file, no clock, no `unsafe`. What is here can be driven by a table,
//! a seed or a fuzzer.
//!
//! * [`frame`]: the frames between the front and an application worker.
//! * [`cgi`]: the head of a CGI program's output.
//! * [`fastcgi`], [`scgi`], [`uwsgi`]: requests between web servers and application servers, read and written.
//! * [`pairs`]: names and values in one piece of memory, as all of these are made from.
#![forbid(unsafe_code)]

pub mod cgi;
pub mod fastcgi;
pub mod frame;
pub mod pairs;
pub mod scgi;
pub mod uwsgi;
