//! Which route a request took, as a small number.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Routes that are told apart over the life of the process, reloads included; those beyond are counted together.
const MAX_ROUTES: usize = 2_000;

/// A route by number. 0: no route took the request.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RouteId(pub(in crate::telemetry) u32);

/// What a route is called.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Labels {
    /// Its pattern, for instance `example.org/static/*`.
    pub route: String,
    /// The application that answers it; empty where none does.
    pub app: String,
}

/// Places that are told apart over the life of the process, reloads included; of those beyond nothing is told.
const MAX_PLACES: usize = 20_000;

/// Where a route was written and what answers it, for the access log: two routes for the same path, told apart by
/// their conditions, are counted as one, but they stand in two places. As a number; 0: none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PlaceId(u32);

/// What a [`PlaceId`] stands for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Place {
    /// For instance `daemun.toml:12:1`.
    pub origin: String,
    /// The key of its handler, for instance `static`.
    pub handler: &'static str,
}

static KNOWN: Mutex<Vec<Labels>> = Mutex::new(Vec::new());
static PLACES: Mutex<Vec<Arc<Place>>> = Mutex::new(Vec::new());

thread_local! {
    static CURRENT: Cell<(RouteId, PlaceId)> = const { Cell::new((RouteId(0), PlaceId(0))) };
}

/// The number of a place; the same place always gets the same one.
pub fn intern_place(place: Place) -> PlaceId {
    let mut known = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(at) = known.iter().position(|other| **other == place) {
        return PlaceId(at as u32 + 1);
    }
    if known.len() == MAX_PLACES {
        return PlaceId(0);
    }
    known.push(Arc::new(place));
    PlaceId(known.len() as u32)
}

/// What this number stands for.
pub(in crate::telemetry) fn place(id: PlaceId) -> Option<Arc<Place>> {
    let at = id.0.checked_sub(1)?;
    PLACES.lock().unwrap_or_else(PoisonError::into_inner).get(at as usize).cloned()
}

/// The number of a route; the same labels always get the same one.
pub fn intern(labels: &Labels) -> RouteId {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let at = known.iter().position(|other| other == labels).unwrap_or_else(|| {
        if known.len() < MAX_ROUTES {
            known.push(labels.clone());
        } else if known.len() == MAX_ROUTES {
            known.push(Labels { route: "other".into(), app: String::new() });
        }
        known.len() - 1
    });
    RouteId(at as u32 + 1)
}

/// What this number stands for.
pub(in crate::telemetry) fn labels(id: RouteId) -> Labels {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    id.0.checked_sub(1).and_then(|at| known.get(at as usize)).cloned().unwrap_or_default()
}

/// The request that this thread is polling is answered by this route.
pub fn mark(id: RouteId, place: PlaceId) {
    CURRENT.set((id, place));
}

/// The route of one request while its handler is polled: others take their turns on the same thread.
#[derive(Debug, Default)]
pub struct Scope(AtomicU64);

impl Scope {
    /// Runs a step of the request's handler; [`mark`] in it is remembered.
    pub fn run<T>(&self, step: impl FnOnce() -> T) -> T {
        CURRENT.set((self.route(), self.place()));
        let result = step();
        let (route, place) = CURRENT.get();
        self.0.store(u64::from(place.0) << 32 | u64::from(route.0), Ordering::Relaxed);
        result
    }

    /// The route that was marked last.
    pub fn route(&self) -> RouteId {
        RouteId(self.0.load(Ordering::Relaxed) as u32)
    }

    /// Where that route was written.
    pub fn place(&self) -> PlaceId {
        PlaceId((self.0.load(Ordering::Relaxed) >> 32) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_take_turns_keep_their_routes() {
        let name = |route: &str| Labels { route: route.into(), app: String::new() };
        let (one, other) = (intern(&name("/turns/one")), intern(&name("/turns/other")));
        assert_eq!(intern(&name("/turns/one")), one);
        assert_eq!(labels(other).route, "/turns/other");
        assert_eq!(labels(RouteId(0)), Labels::default());
        let (first, second) = (Scope::default(), Scope::default());
        let place = intern_place(Place { origin: "daemun.toml:1:1".into(), handler: "app" });
        first.run(|| mark(one, place));
        second.run(|| ());
        assert_eq!(second.route(), RouteId(0));
        second.run(|| mark(other, PlaceId(0)));
        first.run(|| ());
        assert_eq!((first.route(), second.route()), (one, other));
        assert_eq!((first.place(), second.place()), (place, PlaceId(0)));
        assert_eq!(super::place(first.place()).unwrap().origin, "daemun.toml:1:1");
        assert_eq!(super::place(second.place()), None);
    }
}
