//! What an authority wants to see by plain HTTP before it gives a certificate (RFC 8555, section 8.3): before everything
//! else that answers, whatever host, redirect or filter there is.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::handler::{Answering, Handler, Outcome};
use crate::http::{Fields, Method, Request, Response, ResponseBody, Status};

/// Where an authority asks: over plain HTTP.
pub(super) const PLACE: &[u8] = b"/.well-known/acme-challenge/";

/// Tokens, and what is answered to each.
pub(super) type Tokens = Arc<ArcSwap<HashMap<Vec<u8>, Bytes>>>;

/// Answers what is asked below [`PLACE`] and known; everything else goes on.
pub(super) struct Challenges {
    next: Arc<dyn Handler>,
    tokens: Tokens,
}

impl Challenges {
    /// Around `next`.
    pub(super) fn wrap(next: Arc<dyn Handler>, tokens: Tokens) -> Arc<dyn Handler> {
        Arc::new(Self { next, tokens })
    }

    fn answer(&self, request: &Request) -> Option<Response> {
        let token = request.path.as_bytes().strip_prefix(PLACE)?;
        let text = self.tokens.load().get(token).cloned()?;
        matches!(request.head.method(), Method::Get | Method::Head).then(|| {
            let fields = Fields::new()
                .with("Content-Type", &b"application/octet-stream"[..])
                .with("Cache-Control", &b"no-store"[..]);
            Response::new(Status::OK).with_fields(fields).with_body(ResponseBody::Full(text))
        })
    }
}

impl Handler for Challenges {
    fn handle(&self, request: Request) -> Answering<'_> {
        match self.answer(&request) {
            Some(response) => Box::pin(async { Ok(Outcome::Response(response)) }),
            None => self.next.handle(request),
        }
    }

    fn may_decline(&self) -> bool {
        self.next.may_decline()
    }
}
