//! What a request's trace is told on its way to a server, where it has one.

use tokio::time::Instant;

use crate::http::Request;
use crate::upstream::{Place, Server};

/// It waits for a server from now on.
pub(super) fn queued(request: &Request, at: Instant) {
    if let Some(trace) = &request.notes.trace {
        trace.note(|steps| (steps.queued, steps.handed) = (Some(at.into_std()), None));
    }
}

/// The server of `place` is asked; the first was there at this time.
pub(super) fn asks(request: &Request, at: Instant, place: &Place) {
    if let Some(trace) = &request.notes.trace {
        trace.note(|steps| {
            steps.handed = steps.handed.or(Some(at.into_std()));
            steps.server = Some(place.server().name().into());
            steps.tries += 1;
        });
    }
}

/// This one has answered: another than was asked first may have been quicker.
pub(super) fn answered(request: &Request, server: &Server) {
    if let Some(trace) = &request.notes.trace {
        trace.note(|steps| steps.server = Some(server.name().into()));
    }
}
