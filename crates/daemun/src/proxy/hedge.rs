//! Asking one server, and after a while another as well (`hedge`): whoever answers first has answered, and the other is
//! left. Only what may be done twice is asked twice, and a hedge is paid for like a retry.

use std::sync::Arc;
use std::time::Duration;

use super::exchange::{Answer, Outbound};
use super::payload::Payload;
use super::{gateway, http1, http2};
use crate::upstream::{Failure, FailureKind, Group, Place, Server, Wanted};

/// What one round of asking comes to: an answer with its server, or why there is none.
pub(super) type Asked = Result<(Answer, Arc<Server>), (Place, Failure)>;

/// What a second question needs.
pub(super) struct Hedging<'a> {
    pub(super) group: &'a Arc<Group>,
    pub(super) wanted: Wanted<'a>,
    /// How long the first server has.
    pub(super) after: Duration,
    /// The body once more.
    pub(super) payload: Payload,
    /// Servers that were asked; those that fail here and are not given back are added.
    pub(super) tried: &'a mut Vec<Arc<Server>>,
}

/// Asks the server of `place`.
pub(super) async fn ask(place: Place, outbound: Outbound<'_>) -> Asked {
    let server = Arc::clone(place.server());
    let answer = match server.scheme() {
        // Its state is larger than that of the others, which would carry the room for it.
        scheme if scheme.is_http2() => Box::pin(http2::ask(place, outbound, true)).await?,
        scheme if scheme.is_http() => http1::ask(place, outbound, true).await?,
        _ => gateway::ask(place, outbound, true).await?,
    };
    Ok((answer, server))
}

/// Asks the server of `place`, and another one where it takes too long.
pub(super) async fn hedged(place: Place, outbound: Outbound<'_>, hedging: Hedging<'_>) -> Asked {
    let Hedging { group, wanted, after, mut payload, tried } = hedging;
    let first = Arc::clone(place.server());
    let Outbound { request, trailers, trusted, upgrade, due, aim, params, errors, .. } = outbound;
    let again = Outbound { request, payload: &mut payload, trailers, trusted, upgrade, due, aim, params, errors };
    let mut one = std::pin::pin!(ask(place, outbound));
    tokio::select! {
        biased;
        asked = &mut one => return asked,
        () = tokio::time::sleep(after) => {}
    }
    tried.push(Arc::clone(&first));
    let other = group.another(&wanted, tried);
    tried.pop();
    let Some(other) = other else { return one.await };
    let second = Arc::clone(other.server());
    let mut two = std::pin::pin!(ask(other, again));
    let (asked, is_first) = tokio::select! {
        asked = &mut one => (asked, true),
        asked = &mut two => (asked, false),
    };
    match asked {
        Err((mut failed, failure)) if failure.kind != FailureKind::Client => {
            // The other one still may answer.
            failed.fail();
            drop(failed);
            tried.push(if is_first { first } else { second });
            if is_first { two.await } else { one.await }
        }
        asked => asked,
    }
}
