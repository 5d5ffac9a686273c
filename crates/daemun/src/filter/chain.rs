//! The filters of a route around its handler, in their order.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::settings::FilterSettings;
use crate::handler::{Answering, Fault, Handler, HandlerError, Outcome};
use crate::http::{CanonicalPath, HeadEdit, Request, Status, TrustedProxies};

/// What filters of several routes share, and what outlives a reload.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Whose word about where a request came from counts.
    pub trusted: TrustedProxies,
}

/// A handler behind its route's filters.
pub struct Filtered {
    max_body: Option<u64>,
    timeout: Option<Duration>,
    streams_body: bool,
    strip_prefix: Option<Bytes>,
    next: Arc<dyn Handler>,
}

impl Filtered {
    /// Puts the filters before `handler`. Where there are none, that is the handler itself.
    pub fn wrap(settings: &FilterSettings, handler: Arc<dyn Handler>) -> Arc<dyn Handler> {
        if *settings == FilterSettings::default() {
            return handler;
        }
        let strip_prefix = settings.strip_prefix.as_ref();
        Arc::new(Self {
            max_body: settings.max_body.as_ref().map(|max| max.value),
            timeout: settings.timeout.as_ref().map(|timeout| timeout.value),
            streams_body: settings.request_buffering.as_ref().is_some_and(|buffering| !buffering.value),
            strip_prefix: strip_prefix.map(|prefix| Bytes::copy_from_slice(prefix.value.as_bytes())),
            next: handler,
        })
    }

    async fn run(&self, mut request: Request) -> Result<Outcome, HandlerError> {
        self.hold_to_limits(&mut request)?;
        if let Some(prefix) = &self.strip_prefix {
            strip(prefix, &mut request);
        }
        self.next.handle(request).await
    }

    fn hold_to_limits(&self, request: &mut Request) -> Result<(), HandlerError> {
        request.timeout = self.timeout.or(request.timeout);
        request.notes.streams_body |= self.streams_body;
        match self.max_body {
            Some(most) if !request.body.limit(most) => {
                let message = format!("the body is longer than the {most} bytes that the route allows");
                Err(HandlerError::new(Status::CONTENT_TOO_LARGE, Fault::Client, message))
            }
            _ => Ok(()),
        }
    }
}

impl Handler for Filtered {
    fn handle(&self, request: Request) -> Answering<'_> {
        Box::pin(self.run(request))
    }

    fn may_decline(&self) -> bool {
        self.next.may_decline()
    }
}

/// Moves a prefix of the path into `SCRIPT_NAME`. The path that was sent is cut where it begins with just these bytes;
/// otherwise (`/%61pp/x`, `//app/x`) its canonical form is.
fn strip(prefix: &Bytes, request: &mut Request) {
    let Some(rest) = request.path.as_bytes().strip_prefix(&prefix[..]) else { return };
    let raw = request.head.raw_path().strip_prefix(&prefix[..]).filter(|raw| raw.starts_with(b"/"));
    let raw = raw.map_or_else(|| CanonicalPath::encode(rest, request.path.has_encoded_slash()), <[u8]>::to_vec);
    let raw = if raw.is_empty() { b"/".to_vec() } else { raw };
    let query = request.head.query().map(<[u8]>::to_vec);
    let Ok(path) = CanonicalPath::parse(&Bytes::copy_from_slice(&raw)) else { return };
    let edit = HeadEdit { path: Some((&raw, query.as_deref())), ..HeadEdit::default() };
    request.head = request.head.edited(&edit);
    request.path = path;
    request.prefix_length = request.prefix_length.saturating_sub(prefix.len()).max(1);
    request.notes.script_name = prefix.clone();
}
