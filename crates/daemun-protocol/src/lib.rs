//! The bytes that daemun's processes and gateways exchange.
//!
//! Pure functions over byte slices: no socket, no file, no clock, no `unsafe`. What is here can be driven by a table,
//! a seed or a fuzzer.
//!
//! * [`frame`]: the frames between the front and an application worker.
//! * [`cgi`]: the head of a CGI program's output.
#![forbid(unsafe_code)]

pub mod cgi;
pub mod frame;
