//! Groups: who is asked, who is not, and what a reload leaves as it was.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Group, NoServer, ServerSettings, UpstreamSettings, Wanted};

fn settings(urls: &[&str]) -> UpstreamSettings {
    let servers = urls.iter().map(|url| ServerSettings::parse(url).unwrap()).collect();
    UpstreamSettings { failures: 1, ..UpstreamSettings::new("test", servers) }
}

fn group(settings: UpstreamSettings) -> Arc<Group> {
    Group::new(settings, Arc::new(|_: &str| {})).unwrap()
}

async fn names(group: &Arc<Group>, count: usize) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for _ in 0..count {
        found.insert(group.place(&Wanted::default()).await.unwrap().server().name().to_owned());
    }
    found
}

#[tokio::test]
async fn a_server_that_failed_is_left_alone_until_none_other_is_left() {
    let group = group(settings(&["http://a", "http://b"]));
    let mut place = group.place(&Wanted::default()).await.unwrap();
    let failed = place.server().name().to_owned();
    place.fail();
    drop(place);
    let rest = names(&group, 6).await;
    assert!(rest.len() == 1 && !rest.contains(&failed), "{rest:?}");
    group.place(&Wanted::default()).await.unwrap().fail();
    assert_eq!(names(&group, 6).await.len(), 2, "with none well all are asked");
}

#[tokio::test]
async fn with_fewer_servers_well_than_the_threshold_all_are_asked() {
    let mut settings = settings(&["http://a", "http://b", "http://c"]);
    settings.panic_threshold = 50;
    let group = group(settings);
    group.place(&Wanted::default()).await.unwrap().fail();
    assert_eq!(names(&group, 6).await.len(), 2, "two of three are enough");
    group.place(&Wanted::default()).await.unwrap().fail();
    assert_eq!(names(&group, 6).await.len(), 3, "one of three would be overrun");
}

#[tokio::test]
async fn a_server_that_came_back_gets_its_share_little_by_little() {
    let group = group(settings(&["http://a"]));
    let place = group.place(&Wanted::default()).await.unwrap();
    let (server, time) = (place.server(), Duration::from_secs(10));
    let share = |time, after| server.weight(time, std::time::Instant::now() + after);
    assert!((share(time, Duration::ZERO) - 1.0).abs() < 0.01, "it was there from the start");
    server.state.came_back();
    assert!(share(time, Duration::ZERO) < 0.2);
    assert!((share(time, time / 2) - 0.5).abs() < 0.1);
    assert!((share(time, time * 2) - 1.0).abs() < 0.01);
    assert!((share(Duration::ZERO, Duration::ZERO) - 1.0).abs() < 0.01, "without `slow_start` at once");
}

#[tokio::test]
async fn a_backup_is_asked_only_when_no_other_is_left() {
    let mut settings = settings(&["http://a", "http://b"]);
    settings.servers[1].backup = true;
    let group = group(settings);
    assert_eq!(names(&group, 4).await, BTreeSet::from(["http://a".to_owned()]));
    assert_eq!(group.drain("a", true), ["http://a"]);
    assert_eq!(names(&group, 4).await, BTreeSet::from(["http://b".to_owned()]));
    assert_eq!(group.drain("b", true), ["http://b"]);
    assert_eq!(group.place(&Wanted::default()).await.err(), Some(NoServer::None));
}

#[tokio::test]
async fn retries_come_out_of_a_budget_that_requests_fill() {
    let mut settings = settings(&["http://a", "http://b"]);
    (settings.failures, settings.retry_budget) = (1000, 50);
    let group = group(settings);
    let mut granted = 0;
    for _ in 0..100 {
        let place = group.place(&Wanted::default()).await.unwrap();
        let tried = [Arc::clone(place.server())];
        drop(place);
        granted += usize::from(group.another(&Wanted::default(), &tried).is_some());
    }
    assert!((45..=62).contains(&granted), "{granted}");
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_a_place_that_is_freed() {
    let mut settings = settings(&["http://a"]);
    settings.servers[0].max_connections = Some(1);
    (settings.queue_max, settings.queue_timeout) = (1, Duration::from_secs(5));
    let group = group(settings);
    let held = group.place(&Wanted::default()).await.unwrap();
    let waits = tokio::spawn({
        let group = Arc::clone(&group);
        async move { group.place(&Wanted::default()).await.map(drop) }
    });
    tokio::task::yield_now().await;
    assert_eq!(group.place(&Wanted::default()).await.err(), Some(NoServer::QueueFull));
    drop(held);
    assert_eq!(waits.await.unwrap(), Ok(()));
    let _held = group.place(&Wanted::default()).await.unwrap();
    assert_eq!(group.place(&Wanted::default()).await.err(), Some(NoServer::QueueTimeout));
}

#[tokio::test]
async fn a_reload_keeps_what_is_known_of_a_server_that_stays() {
    let group = group(settings(&["http://a", "http://b"]));
    group.place(&Wanted::default()).await.unwrap().fail();
    let state = |url: &str| {
        let status = group.status();
        status.iter().find(|one| one.url == url).map(|one| (one.state, one.requests))
    };
    assert_eq!(state("http://a"), Some(("ejected", 1)));
    group.update(group.prepare(settings(&["http://a", "http://c"])).unwrap());
    assert_eq!(
        (state("http://a"), state("http://b"), state("http://c")),
        (Some(("ejected", 1)), None, Some(("up", 0)))
    );
}

#[tokio::test]
async fn the_same_key_finds_the_same_server() {
    let mut settings = settings(&["http://a", "http://b", "http://c"]);
    settings.balance = super::Balance::parse("hash(header X-User)").unwrap();
    let group = group(settings);
    let mut of_key = BTreeSet::new();
    for number in 0..30 {
        let key = format!("user-{}", number % 10);
        let wanted = Wanted { key: key.as_bytes(), cookie: None };
        of_key.insert((key.clone(), group.place(&wanted).await.unwrap().server().name().to_owned()));
    }
    assert_eq!(of_key.len(), 10);
    assert!(of_key.iter().map(|(_, server)| server).collect::<BTreeSet<_>>().len() > 1);
}
