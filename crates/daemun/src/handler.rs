//! The one door between HTTP and everything that answers it.
//!
//! A handler takes a request and gives a response, a *decline* (the router then tries the next best match), or an
//! error that says whose fault it is. It knows neither the connection nor the router.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::http::{Request, Response, Status};

/// What a handler's work comes to.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Result<Outcome, HandlerError>> + Send + 'a>>;

/// Something that answers requests: a static tree, an application, a redirect, the router that chooses among them.
pub trait Handler: Send + Sync {
    /// Answers `request`. Dropping the future abandons the request: its client is gone.
    fn handle(&self, request: Request) -> Answering<'_>;

    /// Whether it may give anything but a response: decline or redirect. The router gets out of the way of a handler
    /// that never does.
    fn may_decline(&self) -> bool {
        true
    }
}

/// What a handler made of a request.
#[derive(Debug)]
pub enum Outcome {
    /// The answer.
    Response(Response),
    /// Not mine: the request comes back as it was, for the next best match.
    Decline(Request),
    /// This request is to be answered instead, by whatever route it leads to: a local redirect (RFC 3875, section
    /// 6.2.2). The client does not hear of it. Made with [`Request::redirected`]; the router carries it out, with all
    /// that stands before the other route's handler, and ends a chain of more than [`MAX_REDIRECTS`].
    Redirect(Box<Request>),
}

/// Local redirects that one request may take: Apache's number, and more than anybody needs.
pub const MAX_REDIRECTS: usize = 10;

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The request was wrong or its client went away.
    Client,
    /// An application, or a worker that ran it.
    Worker,
    /// Something of ours, or the machine under us.
    Server,
}

/// A request that could not be answered by its handler.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct HandlerError {
    /// What the client sees.
    pub status: Status,
    /// Whose fault it is.
    pub fault: Fault,
    /// What an operator reads: the thing that failed, and where.
    pub message: String,
    /// Seconds after which trying again makes sense (`Retry-After`, RFC 9110, section 10.2.3).
    pub retry_after: Option<u32>,
    /// What its route wants of the page that the connection makes of it.
    pub dress: Option<Dress>,
}

/// A last word on the page of an error: filters set fields, or another page. The connection calls it once the error
/// is logged.
pub struct Dress(Box<dyn FnOnce(&mut Response) + Send>);

impl Dress {
    /// Does this to the page.
    pub fn new(dress: impl FnOnce(&mut Response) + Send + 'static) -> Self {
        Self(Box::new(dress))
    }

    /// Does it.
    pub fn apply(self, page: &mut Response) {
        (self.0)(page);
    }
}

impl fmt::Debug for Dress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dress")
    }
}

impl HandlerError {
    /// An error without `Retry-After`.
    pub fn new(status: Status, fault: Fault, message: impl Into<String>) -> Self {
        Self { status, fault, message: message.into(), retry_after: None, dress: None }
    }

    /// The same with this to do to its page, after what is already to be done.
    #[must_use]
    pub fn dressed(mut self, dress: Dress) -> Self {
        self.dress = Some(match self.dress.take() {
            None => dress,
            Some(inner) => Dress::new(move |page| {
                inner.apply(page);
                dress.apply(page);
            }),
        });
        self
    }
}
