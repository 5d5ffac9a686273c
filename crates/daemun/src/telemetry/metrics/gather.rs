//! Adding the shards up.

use std::collections::BTreeMap;

use super::histogram::Distribution;
use super::route::{Labels, RouteId, labels};
use super::shard::{CLASSES, METHODS, all, read};

/// All counters at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Connections that were accepted.
    pub opened: u64,
    /// Connections that have ended.
    pub closed: u64,
    /// Bytes that clients sent.
    pub received: u64,
    /// TLS handshakes that came through.
    pub handshakes: u64,
    /// TLS handshakes that did not.
    pub failed_handshakes: u64,
    /// Lines of logs that were lost.
    pub lost_lines: u64,
    /// By route.
    pub routes: Vec<(Labels, RouteFigures)>,
}

/// The counters of a route.
#[derive(Clone, Debug, Default)]
pub struct RouteFigures {
    /// By method and first digit of the status.
    pub requests: Vec<(&'static str, u8, u64)>,
    /// Bytes of bodies.
    pub sent: u64,
    /// From the complete head to the last byte of the answer.
    pub duration: Distribution,
    /// Waiting for a worker.
    pub queue: Distribution,
    /// In the application, to the first byte.
    pub application: Distribution,
}

/// Adds all shards up.
pub fn gather() -> Snapshot {
    let mut snapshot = Snapshot::default();
    let mut routes: BTreeMap<RouteId, ([[u64; CLASSES]; METHODS.len()], RouteFigures)> = BTreeMap::new();
    for shard in all() {
        // Ends before beginnings: a connection that ends meanwhile must not make the number of open ones negative.
        snapshot.closed += read(&shard.closed);
        snapshot.opened += read(&shard.opened);
        snapshot.received += read(&shard.received);
        snapshot.handshakes += read(&shard.handshakes);
        snapshot.failed_handshakes += read(&shard.failed_handshakes);
        snapshot.lost_lines += read(&shard.lost_lines);
        for (id, cells) in shard.routes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).iter() {
            let (requests, figures) = routes.entry(*id).or_default();
            for (row, totals) in cells.requests.iter().zip(requests) {
                for (cell, total) in row.iter().zip(totals) {
                    *total += read(cell);
                }
            }
            figures.sent += read(&cells.sent);
            cells.duration.add_to(&mut figures.duration);
            cells.queue.add_to(&mut figures.queue);
            cells.application.add_to(&mut figures.application);
        }
    }
    for (id, (requests, mut figures)) in routes {
        for (method, row) in METHODS.iter().zip(requests) {
            let counted = row.iter().enumerate().filter(|(_, count)| **count > 0);
            figures.requests.extend(counted.map(|(class, &count)| (*method, class as u8, count)));
        }
        snapshot.routes.push((labels(id), figures));
    }
    snapshot
}

impl Snapshot {
    /// Connections that are open.
    pub fn connections(&self) -> u64 {
        self.opened.saturating_sub(self.closed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{answered, intern};
    use super::*;
    use crate::http::{Method, Status, Timing};

    #[test]
    fn what_threads_count_apart_is_told_together() {
        let route = intern(&Labels { route: "/gathered/*".into(), app: "shop".into() });
        let count = move || {
            for number in 0..1000 {
                let status = if number % 10 == 0 { Status::NOT_FOUND } else { Status::OK };
                let timing = Timing { queue: Some(Duration::from_millis(2)), application: None };
                answered(route, Method::Post, status, 3, Duration::from_millis(20), timing);
            }
        };
        let threads = [std::thread::spawn(count), std::thread::spawn(count)];
        for thread in threads {
            thread.join().unwrap();
        }
        let snapshot = gather();
        let (_, figures) = snapshot.routes.iter().find(|(labels, _)| labels.route == "/gathered/*").unwrap();
        assert_eq!(figures.requests, [("POST", 2, 1800), ("POST", 4, 200)]);
        assert_eq!((figures.sent, figures.duration.count(), figures.application.count()), (6000, 2000, 0));
        assert!((figures.queue.seconds - 4.0).abs() < 1e-6);
    }
}
