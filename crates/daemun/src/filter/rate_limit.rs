//! `rate_limit`: how often a client may, by the generic cell rate algorithm.
//!
//! Each key has one number, the time at which its bucket would be empty again. The memory is bounded: two generations
//! of keys, of which the older is dropped when the younger is full, so that keys which come again stay.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::http::RequestHead;

/// Parts of the table, each with a lock of its own.
const SHARDS: usize = 16;

/// Keys of one generation of one part: 131,072 keys in all, some 4 MiB. An attacker with more addresses forgets his
/// own, not those of clients that come again meanwhile.
const KEYS: usize = 4096;

/// How many requests of one key in which time.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RateLimitSettings {
    /// What is counted.
    pub per: Per,
    /// Time that one request takes up.
    pub interval: Duration,
    /// As it was written, for instance `50/s`.
    pub rate: String,
    /// Requests that may come at once.
    pub burst: u32,
}

/// What requests are counted by.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Per {
    /// The client's address; of IPv6 its /64, which is what one household or machine is given.
    Client,
    /// The value of a header; without it the client.
    Header(String),
    /// The value of a cookie; without it the client.
    Cookie(String),
}

/// The buckets of one limit.
#[derive(Debug)]
pub(super) struct Limiter {
    begun: Instant,
    hasher: RandomState,
    shards: Vec<Mutex<Shard>>,
}

#[derive(Debug, Default)]
struct Shard {
    young: HashMap<u64, u64>,
    old: HashMap<u64, u64>,
}

// === impl RateLimitSettings ===

impl RateLimitSettings {
    pub(super) fn describe(&self) -> String {
        let per = match &self.per {
            Per::Client => "client".to_owned(),
            Per::Header(name) => format!("header {name}"),
            Per::Cookie(name) => format!("cookie {name}"),
        };
        format!("{} per {per}, {} at once", self.rate, self.burst)
    }

    fn key(&self, head: &RequestHead, client: Option<IpAddr>, hasher: &RandomState) -> u64 {
        match &self.per {
            Per::Client => {}
            Per::Header(name) => {
                if let Some(value) = head.field(name) {
                    return hasher.hash_one((1, value));
                }
            }
            Per::Cookie(name) => {
                if let Some(value) = cookie(head, name) {
                    return hasher.hash_one((2, value));
                }
            }
        }
        match client {
            Some(IpAddr::V6(address)) => hasher.hash_one((3, address.to_bits() >> 64)),
            client => hasher.hash_one((4, client)),
        }
    }
}

// === impl Limiter ===

impl Limiter {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Counts a request; where it is one too many, the time after which the next is not.
    pub(super) fn count(
        &self,
        settings: &RateLimitSettings,
        head: &RequestHead,
        client: Option<IpAddr>,
        now: Instant,
    ) -> Result<(), Duration> {
        let key = settings.key(head, client, &self.hasher);
        let now = now.saturating_duration_since(self.begun).as_nanos() as u64;
        let interval = settings.interval.as_nanos() as u64;
        let most = interval.saturating_mul(settings.burst.into());
        let mut shard = self.shards[key as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        let empty_at = shard.recall(key).unwrap_or(0).max(now) + interval;
        if empty_at - now > most {
            return Err(Duration::from_nanos(empty_at - now - most));
        }
        shard.remember(key, empty_at);
        Ok(())
    }
}

impl Shard {
    fn recall(&self, key: u64) -> Option<u64> {
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }

    fn remember(&mut self, key: u64, empty_at: u64) {
        if self.young.len() >= KEYS && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, empty_at);
    }
}

/// The value of a cookie (RFC 6265, section 4.2.1).
fn cookie<'a>(head: &'a RequestHead, name: &str) -> Option<&'a [u8]> {
    head.field_values("cookie").flat_map(|line| line.split(|&byte| byte == b';')).find_map(|pair| {
        let pair = pair.trim_ascii();
        pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::http::h1::{HeadLimits, parse_head};

    fn head(fields: &str) -> RequestHead {
        const LIMITS: HeadLimits = HeadLimits { max_head: 65_536, max_request_line: 16_384, max_fields: 100 };
        parse_head(&Bytes::from(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")), &LIMITS).unwrap().head
    }

    fn settings(per: Per) -> RateLimitSettings {
        RateLimitSettings { per, interval: Duration::from_secs(1), rate: "1/s".to_owned(), burst: 2 }
    }

    #[test]
    fn a_burst_passes_and_then_one_for_each_interval() {
        let (limiter, settings, head) = (Limiter::new(), settings(Per::Client), head(""));
        let client = Some("10.0.0.1".parse().unwrap());
        let at = |millis| limiter.begun + Duration::from_millis(millis);
        let count = |millis| limiter.count(&settings, &head, client, at(millis));
        assert_eq!((count(0), count(0)), (Ok(()), Ok(())));
        assert_eq!(count(0), Err(Duration::from_secs(1)));
        assert_eq!(count(400), Err(Duration::from_millis(600)), "what was refused takes nothing up");
        assert_eq!(count(1000), Ok(()));
        assert_eq!(count(1000), Err(Duration::from_secs(1)));
        assert_eq!((count(9000), count(9000)), (Ok(()), Ok(())), "a rest fills the bucket, but not beyond the burst");
        assert!(count(9000).is_err());
        assert!(limiter.count(&settings, &head, Some("10.0.0.2".parse().unwrap()), at(9000)).is_ok());
    }

    #[test]
    fn addresses_of_one_network_of_ipv6_are_one_client_and_cookies_and_headers_tell_others_apart() {
        let hasher = RandomState::new();
        let of = |per: Per, fields: &str, client: &str| {
            settings(per).key(&head(fields), Some(client.parse().unwrap()), &hasher)
        };
        assert_eq!(of(Per::Client, "", "2001:db8::1"), of(Per::Client, "", "2001:db8::ffff:1"));
        assert_ne!(of(Per::Client, "", "2001:db8::1"), of(Per::Client, "", "2001:db8:0:1::1"));
        assert_ne!(of(Per::Client, "", "10.0.0.1"), of(Per::Client, "", "10.0.0.2"));
        let cookie = |fields| of(Per::Cookie("id".to_owned()), fields, "10.0.0.1");
        assert_eq!(cookie("Cookie: a=1; id=x\r\n"), cookie("Cookie: id=x\r\n"));
        assert_ne!(cookie("Cookie: id=x\r\n"), cookie("Cookie: id=y\r\n"));
        assert_eq!(cookie("Cookie: idx=y\r\n"), cookie(""));
        let key = |fields| of(Per::Header("X-Key".to_owned()), fields, "10.0.0.1");
        assert_ne!(key("X-Key: 1\r\n"), key("X-Key: 2\r\n"));
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_those_who_come_again() {
        let (limiter, settings, head) = (Limiter::new(), settings(Per::Client), head(""));
        let regular = Some("10.0.0.1".parse().unwrap());
        let now = limiter.begun;
        let mut refused = 0;
        for number in 0..300_000_u32 {
            let stranger = Some(IpAddr::V4((0x0b00_0000 + number).into()));
            let _ = limiter.count(&settings, &head, stranger, now);
            if number % 1000 == 0 && limiter.count(&settings, &head, regular, now).is_err() {
                refused += 1;
            }
        }
        assert!(refused >= 250, "{refused}");
        for shard in &limiter.shards {
            let shard = shard.lock().unwrap();
            assert!(shard.young.len() <= KEYS && shard.old.len() <= KEYS);
        }
    }
}
