//! What of the filters outlives a reload: caches and counters whose settings are the same as before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde::Serialize;

use super::cache::Store;
use super::rate_limit::{Limiter, RateLimitSettings};

/// Finds caches and counters again. It does not keep them: the routes that use them do.
#[derive(Debug, Default)]
pub struct Kept {
    limiters: Mutex<HashMap<String, Weak<Limiter>>>,
    stores: Mutex<HashMap<String, Weak<Store>>>,
}

impl Kept {
    pub(super) fn limiter(&self, route: &str, settings: &RateLimitSettings) -> Arc<Limiter> {
        recall(&self.limiters, route, settings, Limiter::new)
    }

    pub(super) fn store(&self, route: &str, settings: &impl Serialize) -> Arc<Store> {
        recall(&self.stores, route, settings, Store::default)
    }
}

fn recall<T>(
    known: &Mutex<HashMap<String, Weak<T>>>,
    route: &str,
    settings: &impl Serialize,
    make: impl FnOnce() -> T,
) -> Arc<T> {
    let name = format!("{route}\n{}", serde_json::to_string(settings).unwrap_or_default());
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|_, weak| weak.strong_count() > 0);
    if let Some(found) = known.get(&name).and_then(Weak::upgrade) {
        return found;
    }
    let made = Arc::new(make());
    known.insert(name, Arc::downgrade(&made));
    made
}
