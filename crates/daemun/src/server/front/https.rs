//! What `redirect_https` and `hsts` ask for, around everything else that answers.

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::challenges::PLACE;
use crate::handler::{Answering, Handler, Outcome};
use crate::http::{Fields, Request, RequestHead, Response, Scheme, Status};
use crate::tls::Certificates;

/// Names whose certificates an authority is asked for.
pub(crate) struct Coming {
    pub(super) names: HashSet<String>,
    /// What is shown now.
    pub(super) certificates: Arc<ArcSwap<Certificates>>,
}

impl Coming {
    /// Whether https would fail for this host: there is nothing to show it yet.
    fn lacks(&self, host: &str) -> bool {
        let certificates = self.certificates.load();
        let name = host.to_ascii_lowercase();
        certificates.is_empty() || (self.names.contains(&name) && !certificates.has(&name))
    }
}

/// Sends plain requests to https, and tells browsers to stay there.
pub(super) struct Https {
    next: Arc<dyn Handler>,
    /// The port of the https listener where requests are sent there; 0: the usual one.
    redirect: Option<(u16, Option<Coming>)>,
    hsts: Option<Bytes>,
}

impl Https {
    /// Around `next`, or `next` itself where nothing is asked for.
    pub(super) fn wrap(
        next: Arc<dyn Handler>,
        redirect: Option<(u16, Option<Coming>)>,
        hsts: Option<&str>,
    ) -> Arc<dyn Handler> {
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
        if let (Some((port, coming)), false) = (&self.redirect, is_secure)
            && !request.path.as_bytes().starts_with(PLACE)
            && !coming.as_ref().is_some_and(|coming| coming.lacks(request.head.host()))
            && let Some(location) = location(&request.head, *port)
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
