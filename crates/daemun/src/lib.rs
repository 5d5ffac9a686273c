//! One program for the whole way from browser to application.
//!
//! The way of a request, in the order of the rooms:
//! 1. [`listener`]: a permit, then accept; the connection gets a task of its own.
//! 2. [`connection`]: a head is read under a deadline and found valid by [`http::h1`].
//! 3. [`router`]: the most specific rule for host and canonical path.
//! 4. [`filter`]: who may, how often, how large; what the handler sees instead; what is said about its answer.
//! 5. One [`handler`]: [`static_files`] sends a file; [`app`] sends the request to a worker process and streams the
//!    answer back; [`proxy`] asks a server that others maintain ([`upstream`]).
//! 6. [`connection`]: the response is framed, written, and a line of the access log ([`telemetry`]) says how it went.

pub mod alarm;
pub mod app;
pub mod certifier;
pub mod cgi;
pub mod check;
pub mod cli;
pub mod codes;
pub mod config;
pub mod connection;
pub mod control;
pub mod crowd;
pub mod django;
pub mod explain;
pub mod exporter;
pub mod filter;
pub mod gateway;
pub mod handler;
pub mod http;
pub mod launcher;
pub mod listener;
pub mod monitor;
pub mod process;
pub mod proxy;
pub mod resolver;
pub mod respond;
pub mod router;
pub mod server;
pub mod static_files;
pub mod supervisor;
pub mod sys;
pub mod telemetry;
pub mod tls;
pub mod transformer;
pub mod upstream;
pub mod watch;
