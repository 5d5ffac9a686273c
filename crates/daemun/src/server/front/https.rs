//! What `redirect_https` and `hsts` ask for, around everything else that answers.

use std::sync::Arc;

use bytes::Bytes;

use crate::handler::{Answering, Handler, Outcome};
use crate::http::{Fields, Request, RequestHead, Response, Scheme, Status};

/// Where an authority asks whether a name is ours (RFC 8555, section 8.3): over plain HTTP.
const CHALLENGES: &[u8] = b"/.well-known/acme-challenge/";

/// Sends plain requests to https, and tells browsers to stay there.
pub(super) struct Https {
    next: Arc<dyn Handler>,
    /// The port of the https listener where requests are sent there; 0: the usual one.
    redirect: Option<u16>,
    hsts: Option<Bytes>,
}

impl Https {
    /// Around `next`, or `next` itself where nothing is asked for.
    pub(super) fn wrap(next: Arc<dyn Handler>, redirect: Option<u16>, hsts: Option<&str>) -> Arc<dyn Handler> {
        if redirect.is_none() && hsts.is_none() {
            return next;
        }
        let hsts = hsts.map(|value| Bytes::copy_from_slice(value.as_bytes()));
        Arc::new(Self { next, redirect, hsts })
    }
}

impl Handler for Https {
    fn handle(&self, request: Request) -> Answering<'_> {
        let is_secure = is_secure(&request);
        if let (Some(port), false) = (self.redirect, is_secure)
            && !request.path.as_bytes().starts_with(CHALLENGES)
            && let Some(location) = location(&request.head, port)
        {
            let fields = Fields::new().with("Location", location);
            let response = Response::new(Status::PERMANENT_REDIRECT).with_fields(fields);
            return Box::pin(async { Ok(Outcome::Response(response)) });
        }
        let answering = self.next.handle(request);
        let Some(hsts) = self.hsts.as_ref().filter(|_| is_secure) else { return answering };
        Box::pin(async move {
            let mut outcome = answering.await?;
            if let Outcome::Response(response) = &mut outcome
                && response.fields.get(HSTS).is_none()
            {
                response.fields.push(HSTS, hsts.clone());
            }
            Ok(outcome)
        })
    }

    fn may_decline(&self) -> bool {
        self.next.may_decline()
    }
}

/// Whether the client speaks https, to us or to a proxy that we believe.
fn is_secure(request: &Request) -> bool {
    request.endpoint.scheme() == Scheme::Https || request.notes.scheme == Some(Scheme::Https)
}

const HSTS: &str = "Strict-Transport-Security";

/// The same place over https; `None` for a client that says no host.
fn location(head: &RequestHead, port: u16) -> Option<Bytes> {
    let host = Some(head.host()).filter(|host| !host.is_empty())?;
    let mut location = format!("https://{host}").into_bytes();
    if port != 0 {
        location.extend_from_slice(format!(":{port}").as_bytes());
    }
    location.extend_from_slice(head.raw_path());
    if let Some(query) = head.query() {
        location.push(b'?');
        location.extend_from_slice(query);
    }
    Some(location.into())
}
