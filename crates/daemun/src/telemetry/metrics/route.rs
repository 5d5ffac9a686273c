//! Which route a request took, as a small number.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// Routes that are told apart over the life of the process, reloads included; those beyond are counted together.
const MAX_ROUTES: usize = 2_000;

/// A route by number. 0: no route took the request.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RouteId(pub(super) u32);

/// What a route is called.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Labels {
    /// Its pattern, for instance `example.org/static/*`.
    pub route: String,
    /// The application that answers it; empty where none does.
    pub app: String,
}

static KNOWN: Mutex<Vec<Labels>> = Mutex::new(Vec::new());

thread_local! {
    static CURRENT: Cell<RouteId> = const { Cell::new(RouteId(0)) };
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
pub(super) fn labels(id: RouteId) -> Labels {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    id.0.checked_sub(1).and_then(|at| known.get(at as usize)).cloned().unwrap_or_default()
}

/// The request that this thread is polling is answered by this route.
pub fn mark(id: RouteId) {
    CURRENT.set(id);
}

/// The route of one request while its handler is polled: others take their turns on the same thread.
#[derive(Debug, Default)]
pub struct Scope(AtomicU32);

impl Scope {
    /// Runs a step of the request's handler; [`mark`] in it is remembered.
    pub fn run<T>(&self, step: impl FnOnce() -> T) -> T {
        CURRENT.set(RouteId(self.0.load(Ordering::Relaxed)));
        let result = step();
        self.0.store(CURRENT.get().0, Ordering::Relaxed);
        result
    }

    /// The route that was marked last.
    pub fn route(&self) -> RouteId {
        RouteId(self.0.load(Ordering::Relaxed))
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
        first.run(|| mark(one));
        second.run(|| ());
        assert_eq!(second.route(), RouteId(0));
        second.run(|| mark(other));
        first.run(|| ());
        assert_eq!((first.route(), second.route()), (one, other));
    }
}
