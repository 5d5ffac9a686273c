//! A request from the filters to a server that others maintain ([`upstream`](crate::upstream)), and its answer back.
//!
//! The steps of [`Proxy`]:
//! 1. `payload`: the body is gathered, so that a slow client holds no server and a request can be sent again; or it is
//!    passed on as it comes (`request_buffering = false`).
//! 2. A place at a server that is well; else 503.
//! 3. `exchange`: the server is asked once, in the way of its scheme (`http1`, `http2`; `gateway` for FastCGI, SCGI and uwsgi, with
//!    the script that `script` has found and the variables that `variables` writes). The request is written anew from what
//!    was understood of it (`head`), never copied.
//!    Where that takes long, another server may be asked as well (`hedge`).
//! 4. A failure goes to another server where that is safe: nothing had been sent, or doing it twice is the same as once
//!    and nothing had been received.
//! 5. The answer's head is told, its body streamed (`flow`), and read ahead of a slow client (`ahead`); or the connection becomes a tunnel (`tunnel`).
//!
//! A connection to a server is used again only after an answer that was read to its end, with nothing behind it: nobody
//! is ever given what was meant for another. Must not know how a server is chosen.

mod ahead;
mod exchange;
mod flow;
mod gateway;
mod gateway_body;
mod handler;
mod head;
mod hedge;
mod http1;
mod http2;
mod known;
mod payload;
mod script;
mod settings;
mod told;
mod traced;
mod tunnel;
mod variables;

pub use handler::{Means, Proxy};
pub use script::{Aim, Aimed, Choice as ScriptChoice, Chooser};
pub use settings::ScriptSettings;
pub use variables::describe;
