//! HTTP as values and bytes: what a request and a response are, and the codecs that read and write them.
//!
//! Knows RFC 9110 and 9112. Must not know sockets, handlers, settings files or the clock of the event loop.
//!
//! * [`RequestHead`]: method, target and fields of a request, as views into the bytes that arrived.
//! * [`CanonicalPath`]: the one path that access rules, routing and opening share.
//! * [`RequestBody`], [`ResponseBody`]: bytes in and out, with back-pressure.
//! * [`h1`]: the HTTP/1.1 codec.

mod body;
pub mod date;
mod fields;
pub mod h1;
mod head;
mod interim;
mod path;
mod request;
mod response;
mod status;

pub use body::{BodyError, BodyFeed, RequestBody};
pub use fields::{Field, Fields};
pub use head::{HeadBuilder, Method, RequestHead, Version};
pub use interim::{Interim, InterimQueue};
pub use path::{CanonicalPath, PathError};
pub use request::{Endpoint, Peer, Request, Scheme};
pub use response::{BodyStream, FileBody, Response, ResponseBody, Timing};
pub use status::Status;
