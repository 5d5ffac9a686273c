//! HTTP as values and bytes: what a request and a response are, and the codecs that read and write them.
//!
//! Knows RFC 9110, 9112 and 9113. Must not know sockets, handlers, settings files or the clock of the event loop.
//!
//! * [`RequestHead`]: method, target and fields of a request, as views into the bytes that arrived.
//! * [`CanonicalPath`]: the one path that access rules, routing and opening share.
//! * [`RequestBody`], [`ResponseBody`]: bytes in and out, with back-pressure.
//! * [`h1`]: the HTTP/1.1 codec. [`h2`]: what HTTP/2 says differently.

mod body;
mod coding;
pub mod date;
mod fields;
mod file;
mod forwarded;
pub mod h1;
pub mod h2;
mod head;
mod id;
mod interim;
mod path;
mod proxies;
pub mod proxy_protocol;
mod request;
mod response;
mod session;
mod status;
pub mod trace;
pub mod trailers;

pub mod variables;

pub use body::{BodyError, BodyFeed, BodyRoom, RequestBody};
pub use coding::Coding;
pub use fields::{Field, Fields};
pub use file::{FileBody, FileChanged, FileVersion, InMemory};
pub use head::{HeadBuilder, HeadEdit, Method, RequestHead, Version};
pub use id::RequestId;
pub use interim::{Interim, InterimQueue};
pub(crate) use path::push_encoded;
pub use path::{CanonicalPath, PathError};
pub use proxies::TrustedProxies;
pub(crate) use proxies::within;
pub use request::{Endpoint, Notes, Peer, Request, Scheme};
pub use response::{BodyStream, LaidPiece, Piece, Response, ResponseBody, Timing, Tunnel};
pub use session::{ClientCertificate, ShownCertificate, TlsSession};
pub use status::Status;
