//! Tests that speak the wire: a client's bytes in, a server's bytes out, over a pair of Unix sockets.

mod attacks;
mod bodies;
mod deadlines;
mod life;
mod responses;
mod support;
mod valid;
