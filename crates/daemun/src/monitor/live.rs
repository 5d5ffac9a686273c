//! What the live page shows, at one moment.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::control::message::Status;
use crate::telemetry::flights::{Finished, Flight};
use crate::telemetry::metrics::{Labels, RouteFigures};

/// Everything at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Live {
    /// The server's clock, in seconds since 1970.
    pub now: f64,
    /// Whether URLs are told.
    pub open: bool,
    /// What `daemun status` tells.
    pub status: Status,
    /// What was counted, by route.
    pub routes: Vec<RouteRow>,
    /// Requests in flight, the oldest first.
    pub flights: Vec<FlightRow>,
    /// The last slow ones, the newest first.
    pub slow: Vec<Finished>,
    /// The last that failed, the newest first.
    pub failed: Vec<Finished>,
}

/// What was counted of a route.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RouteRow {
    route: String,
    app: String,
    /// What answers: the key of its handler.
    handler: &'static str,
    /// By the first digit of the status.
    statuses: [u64; 6],
    sent: u64,
    seconds: f64,
    /// How many took how long, in the buckets of the metrics.
    buckets: Vec<u64>,
}

/// A request in flight.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FlightRow {
    id: String,
    method: String,
    /// Left out for those who may not see it.
    target: Option<String>,
    host: Option<String>,
    client: Option<String>,
    route: String,
    app: String,
    handler: &'static str,
    /// Seconds since its head was complete.
    age: f64,
    /// `reading` (its body comes in), `queued`, `sent`, `working`, `sending`, or `left behind` by its client.
    state: &'static str,
    /// Seconds in that place, where it is a worker's or the queue.
    there: Option<f64>,
    /// The worker and its thread.
    worker: Option<(u32, u16)>,
}

/// Where a request is in its application's pool.
#[derive(Clone, Debug, Default)]
pub struct Whereabouts {
    /// What it is called.
    pub id: String,
    /// The worker and its thread; `None` while it waits.
    pub worker: Option<(u32, u16)>,
    /// Whether the application was called for it.
    pub started: bool,
    /// Seconds since it was sent there, or began to wait.
    pub seconds: f64,
}

impl Live {
    /// How the server is, and nothing of requests yet.
    pub fn new(status: Status) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Self { now, open: true, status, ..Self::default() }
    }

    /// For those without the token: figures, but no URL and no client.
    #[must_use]
    pub(super) fn closed(mut self) -> Self {
        self.open = false;
        self.status = closed(self.status);
        for flight in &mut self.flights {
            (flight.target, flight.host, flight.client) = (None, None, None);
            flight.id.clear();
        }
        for finished in self.slow.iter_mut().chain(&mut self.failed) {
            (finished.target, finished.client, finished.told) = (None, None, None);
            finished.id.clear();
        }
        self
    }
}

/// A status without what names URLs.
pub(super) fn closed(mut status: Status) -> Status {
    status.deaths.iter_mut().for_each(|death| death.text.clear());
    status
}

impl RouteRow {
    /// `handler` as a route names it.
    pub fn new(labels: Labels, handler: &'static str, figures: &RouteFigures) -> Self {
        let mut statuses = [0; 6];
        for (_, class, count) in &figures.requests {
            statuses[usize::from(*class).min(5)] += count;
        }
        let Labels { route, app } = labels;
        let (sent, seconds, buckets) = (figures.sent, figures.duration.seconds, figures.duration.buckets.to_vec());
        Self { route, app, handler, statuses, sent, seconds, buckets }
    }
}

impl FlightRow {
    /// A client's request, with its place in its application's pool where it has one.
    pub fn new(
        flight: &Flight,
        (labels, handler): (Labels, &'static str),
        target: String,
        place: Option<&Whereabouts>,
    ) -> Self {
        let state = match place {
            _ if flight.is_answered() => "sending",
            Some(Whereabouts { worker: None, .. }) => "queued",
            Some(Whereabouts { started: true, .. }) => "working",
            Some(_) => "sent",
            None if handler == "app" => "reading",
            None => "working",
        };
        Self {
            id: flight.id.to_string(),
            method: flight.head.method_name().to_owned(),
            target: Some(target),
            host: Some(flight.head.host().to_owned()),
            client: flight.client.map(|client| client.to_canonical().to_string()),
            route: labels.route,
            app: labels.app,
            handler,
            age: flight.received.elapsed().as_secs_f64(),
            state,
            there: place.map(|place| place.seconds),
            worker: place.and_then(|place| place.worker),
        }
    }

    /// A request that a worker is still at, although its client was answered without it.
    pub fn left_behind(app: &str, what: &str, place: &Whereabouts) -> Self {
        let (method, target) = what.split_once(' ').unwrap_or_default();
        Self {
            id: place.id.clone(),
            method: method.to_owned(),
            target: Some(target.to_owned()),
            app: app.to_owned(),
            handler: "app",
            age: place.seconds,
            state: "left behind",
            there: Some(place.seconds),
            worker: place.worker,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::message::Death;

    #[test]
    fn without_the_token_nothing_that_a_client_sent_is_told() {
        let secret = || Some("secret".to_owned());
        let finished =
            Finished { id: "secret".into(), target: secret(), client: secret(), told: secret(), ..Finished::default() };
        let place = Whereabouts { id: "secret".into(), ..Whereabouts::default() };
        let row = FlightRow { host: secret(), client: secret(), ..FlightRow::left_behind("app", "GET secret", &place) };
        let death = Death { text: "secret".into(), how: "was killed".into(), ..Death::default() };
        let mut live = Live::new(Status { deaths: vec![death], ..Status::default() });
        (live.slow, live.failed, live.flights) = (vec![finished.clone()], vec![finished], vec![row]);
        let told = serde_json::to_string(&live).unwrap();
        assert_eq!(told.matches("secret").count(), 13);
        let told = serde_json::to_string(&live.closed()).unwrap();
        assert!(!told.contains("secret") && told.contains("was killed"), "{told}");
    }
}
