//! Names that are followed: what they stand for now, and the servers that come of it.
//!
//! A name is looked up again when the time of its records has run out. While it cannot be, or has none, its last servers
//! stay: that a name server fails says nothing of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::group::{Group, Serving};
use super::settings::{Address, Follows, ServerSettings, UpstreamSettings};
use crate::resolver::{Addresses, Records, ResolveError, Resolver};

/// The shortest time from one look-up to the next: records without any are asked for each second.
const SHORTEST: Duration = Duration::from_secs(1);

/// The longest: whoever has forgotten to shorten the time of a record before a move need not wait a day.
const LONGEST: Duration = Duration::from_secs(300);

/// From a look-up that came to nothing to the next.
const AGAIN: Duration = Duration::from_secs(2);

/// Hosts of one service that are looked up.
const MOST_HOSTS: usize = 64;

/// A name, and the records that it is followed by.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Name {
    name: String,
    follows: Follows,
}

/// One place that a name stands for.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Endpoint {
    priority: u16,
    address: IpAddr,
    /// Where the record says it.
    port: Option<u16>,
    weight: u16,
}

/// What names stand for; of one that has no entry nothing is known yet, and of one with an empty one there is nothing.
pub(super) type Found = BTreeMap<Name, BTreeSet<Endpoint>>;

/// What goes on about one name.
#[derive(Default)]
pub(super) struct Lookup {
    due: Option<Instant>,
    asking: Option<JoinHandle<(Memory, Result<Answer, String>)>>,
    memory: Memory,
    is_failing: bool,
}

/// What is known of a name, and for how long.
type Answer = (BTreeSet<Endpoint>, Duration);

/// The last addresses of each host, by family: one may be answered while the other is not.
type Memory = HashMap<String, (Vec<Ipv4Addr>, Vec<Ipv6Addr>)>;

// === impl Name ===

impl Name {
    /// The name that a server is followed by.
    pub(super) fn of(server: &ServerSettings) -> Option<Self> {
        match (&server.address, server.follows) {
            (Address::Tcp(name, _), Some(follows)) => Some(Self { name: name.clone(), follows }),
            _ => None,
        }
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// The server that it is, and the order in which it is asked.
    pub(super) fn server(&self, written: &ServerSettings) -> (ServerSettings, u16) {
        let said = match written.address {
            Address::Tcp(_, port) => port,
            Address::Unix(_) => 0,
        };
        let port = self.port.unwrap_or(said);
        let host = match self.address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let server = ServerSettings {
            url: format!("{}://{host}:{port}", written.scheme.as_str()),
            address: Address::Tcp(host, port),
            follows: None,
            // Without a weight it is to get little, among others; not nothing, where all have none.
            weight: written.weight.saturating_mul(self.weight.max(1).into()),
            ..written.clone()
        };
        (server, self.priority)
    }
}

// === impl Group ===

impl Group {
    /// Looks names up whose time has come, and takes in what was found; `done` is told when there is more to take in.
    pub(super) async fn follow(&self, lookups: &mut BTreeMap<Name, Lookup>, done: &Arc<Notify>) {
        let serving = self.serving();
        let settings = &serving.settings;
        let names: BTreeSet<Name> = settings.servers.iter().filter_map(Name::of).collect();
        lookups.retain(|name, _| names.contains(name));
        for name in names {
            let lookup = lookups.entry(name.clone()).or_default();
            if let Some(asking) = lookup.asking.take_if(|asking| asking.is_finished()) {
                let (memory, result) = asking.await.unwrap_or_else(|error| (Memory::default(), Err(error.to_string())));
                lookup.memory = memory;
                self.take_in(&name, lookup, result);
            }
            let now = Instant::now();
            if lookup.asking.is_none() && lookup.due.is_none_or(|due| due <= now) {
                let resolver = Resolver::new(settings.resolver.clone());
                let memory = std::mem::take(&mut lookup.memory);
                let done = Arc::clone(done);
                lookup.asking = Some(tokio::spawn(async move {
                    let result = look_up(resolver, name, memory).await;
                    done.notify_one();
                    result
                }));
            }
        }
    }

    fn take_in(&self, name: &Name, lookup: &mut Lookup, result: Result<Answer, String>) {
        let (group, said) = (self.name(), &name.name);
        let was_failing = lookup.is_failing;
        lookup.is_failing = result.is_err();
        match result {
            Ok((endpoints, ttl)) => {
                lookup.due = Some(Instant::now() + ttl.clamp(SHORTEST, LONGEST));
                let now = listed(&endpoints);
                match self.learn(name, Some(endpoints)) {
                    Some(before) if !before.is_empty() => {
                        let before = listed(&before);
                        (self.tell)(&format!("upstream {group}: {said} is now {now}; it was {before}"));
                    }
                    _ if was_failing => (self.tell)(&format!("upstream {group}: {said} is found: {now}")),
                    _ => {}
                }
            }
            Err(why) => {
                lookup.due = Some(Instant::now() + AGAIN);
                let first = self.learn(name, None).is_some();
                if was_failing && !first {
                    return;
                }
                let last = self.known(name);
                let what = if last.is_empty() {
                    "it has no server yet".to_owned()
                } else {
                    format!("its last servers stay: {}", listed(&last))
                };
                (self.tell)(&format!("upstream {group}: {said} cannot be found: {why}; {what}"));
            }
        }
    }
}

// === impl Serving ===

impl Serving {
    /// Whether a name was not looked up yet.
    pub(super) fn is_unsettled(settings: &UpstreamSettings, found: &Found) -> bool {
        settings.servers.iter().filter_map(Name::of).any(|name| !found.contains_key(&name))
    }
}

fn listed(endpoints: &BTreeSet<Endpoint>) -> String {
    let one = |endpoint: &Endpoint| match (endpoint.address, endpoint.port) {
        (address, None) => address.to_string(),
        (IpAddr::V4(address), Some(port)) => format!("{address}:{port}"),
        (IpAddr::V6(address), Some(port)) => format!("[{address}]:{port}"),
    };
    endpoints.iter().map(one).collect::<Vec<_>>().join(", ")
}

async fn look_up(resolver: Resolver, name: Name, mut memory: Memory) -> (Memory, Result<Answer, String>) {
    let result = match name.follows {
        Follows::Addresses => addresses(&resolver, &name.name, &mut memory).await.map(|(found, ttl)| {
            let endpoint = |address| Endpoint { priority: 0, address, port: None, weight: 1 };
            (found.into_iter().map(endpoint).collect(), ttl)
        }),
        Follows::Services => services(&resolver, &name.name, &mut memory).await,
    };
    (memory, result.map_err(|error| error.to_string()))
}

async fn services(resolver: &Resolver, name: &str, memory: &mut Memory) -> Result<Answer, ResolveError> {
    let Records { mut found, mut ttl } = resolver.services(name).await?;
    // A service that is said to be nowhere (RFC 2782).
    found.retain(|service| !service.target.is_empty() && service.target != "." && service.port > 0);
    let hosts: BTreeSet<String> = found.iter().map(|service| service.target.clone()).take(MOST_HOSTS).collect();
    memory.retain(|host, _| hosts.contains(host));
    let mut asking = tokio::task::JoinSet::new();
    for host in hosts {
        let resolver = resolver.clone();
        let mut memory: Memory = memory.remove_entry(&host).into_iter().collect();
        asking.spawn(async move {
            // Whole, as the targets of records are.
            let found = addresses(&resolver, &format!("{host}."), &mut memory).await;
            (host, memory, found)
        });
    }
    let mut endpoints = BTreeSet::new();
    let mut missing = None;
    while let Some(Ok((host, known, result))) = asking.join_next().await {
        memory.extend(known);
        match result {
            Ok((addresses, time)) => {
                ttl = ttl.min(time);
                for service in found.iter().filter(|service| service.target == host) {
                    let (priority, weight, port) = (service.priority, service.weight, Some(service.port));
                    endpoints.extend(addresses.iter().map(|&address| Endpoint { priority, address, port, weight }));
                }
            }
            Err(error) => missing = Some(error),
        }
    }
    match missing {
        _ if endpoints.is_empty() => Err(missing.unwrap_or(ResolveError::NoRecord)),
        // What could not be said now may be soon.
        Some(_) => Ok((endpoints, ttl.min(AGAIN))),
        None => Ok((endpoints, ttl)),
    }
}

/// The addresses of a host. A family that nobody could tell of keeps its last ones, and so do both.
async fn addresses(
    resolver: &Resolver,
    host: &str,
    memory: &mut Memory,
) -> Result<(Vec<IpAddr>, Duration), ResolveError> {
    let Addresses { v4, v6 } = resolver.addresses(host).await;
    let last = memory.get(host).cloned().unwrap_or_default();
    let (v4, v4_ttl, v4_error) = family(v4, last.0);
    let (v6, v6_ttl, v6_error) = family(v6, last.1);
    let error = match (v4_error, v6_error) {
        (Some(one), Some(other)) => Some(if one.is_final() { other } else { one }),
        _ => None,
    };
    let ttl = v4_ttl.min(v6_ttl);
    if let Some(error) = error {
        return Err(error);
    }
    let all = v4.iter().copied().map(IpAddr::V4).chain(v6.iter().copied().map(IpAddr::V6)).collect();
    memory.insert(host.to_owned(), (v4, v6));
    Ok((all, ttl))
}

/// The addresses of one family, until when they hold, and what was wrong.
fn family<T>(asked: Result<Records<T>, ResolveError>, last: Vec<T>) -> (Vec<T>, Duration, Option<ResolveError>) {
    match asked {
        Ok(Records { found, ttl }) => (found, ttl, None),
        Err(error) if error.is_final() => (Vec::new(), LONGEST, Some(error)),
        Err(error) => (last, AGAIN, Some(error)),
    }
}
