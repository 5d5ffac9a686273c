//! What is served from memory, and for how long.

use std::task::{Context, Poll, Waker};

use super::*;

const SECOND: Duration = Duration::from_millis(1100);

#[tokio::test]
async fn the_second_answer_is_ready_at_once() {
    let large = vec![b'x'; 200_000];
    let site = Site::new(&[("a.txt", b"a"), ("large", &large), ("docs/index.html", b"i"), (".env", b"x")]);
    let handler = site.handler();
    for (target, status) in
        [("/a.txt", 200), ("/large", 200), ("/docs", 301), ("/docs/", 200), ("/none", 404), ("/.env", 404)]
    {
        assert_eq!(ask(&handler, "GET", target, &[]).await.status, status, "{target}");
        let again = request("GET", target, &[], "/", Instant::now()).unwrap();
        let polled = handler.handle(again).as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(result) = polled else { panic!("{target} waits") };
        assert_eq!(answer(result).await.status, status, "{target}");
    }
}

#[tokio::test]
async fn a_change_shows_after_a_second() {
    let site = Site::new(&[("a.txt", b"old")]);
    let handler = site.handler();
    assert_eq!(get_after(&handler, "/a.txt", Duration::ZERO).await.text(), "old");
    assert_eq!(get_after(&handler, "/new.txt", Duration::ZERO).await.status, 404);
    site.write("a.txt", b"newer");
    site.write("new.txt", b"new");
    assert_eq!(get_after(&handler, "/a.txt", Duration::ZERO).await.text(), "old");
    assert_eq!(get_after(&handler, "/a.txt", SECOND).await.text(), "newer");
    assert_eq!(get_after(&handler, "/new.txt", SECOND).await.text(), "new");
    fs::remove_file(site.path("a.txt")).unwrap();
    assert_eq!(get_after(&handler, "/a.txt", 2 * SECOND).await.status, 404);
}

#[tokio::test]
async fn a_copy_that_kept_size_and_time_is_noticed() {
    let site = Site::new(&[("a.txt", b"old")]);
    let handler = site.handler();
    assert_eq!(get_after(&handler, "/a.txt", Duration::ZERO).await.text(), "old");
    let modified = fs::metadata(site.path("a.txt")).unwrap().modified().unwrap();
    fs::write(site.path("b.txt"), "new").unwrap();
    fs::File::options().write(true).open(site.path("b.txt")).unwrap().set_modified(modified).unwrap();
    fs::rename(site.path("b.txt"), site.path("a.txt")).unwrap();
    assert_eq!(get_after(&handler, "/a.txt", SECOND).await.text(), "new");
}

#[tokio::test]
async fn what_has_not_changed_is_not_read_again() {
    let site = Site::new(&[("a.txt", b"a")]);
    let handler = site.handler();
    let body = |answer: Answer| match answer.response.unwrap().body {
        ResponseBody::Full(bytes) => bytes.as_ptr() as usize,
        other => panic!("{other:?}"),
    };
    let first = body(get_after(&handler, "/a.txt", Duration::ZERO).await);
    assert_eq!(body(get_after(&handler, "/a.txt", SECOND).await), first);
}

#[tokio::test]
async fn sources_that_are_edited_are_looked_at_each_time() {
    let site = Site::new(&[("a.txt", b"old")]).with(|settings| settings.cache = false);
    let handler = site.handler();
    assert_eq!(ask(&handler, "GET", "/a.txt", &[]).await.text(), "old");
    site.write("a.txt", b"new");
    let answer = ask(&handler, "GET", "/a.txt", &[]).await;
    assert_eq!((answer.text(), answer.field("Cache-Control")), ("new", Some("no-cache")));
    fs::remove_file(site.path("a.txt")).unwrap();
    assert_eq!(ask(&handler, "GET", "/a.txt", &[]).await.status, 404);
}

#[tokio::test]
async fn a_new_manifest_changes_what_may_be_kept() {
    let site = Site::new(&[("a.1.css", b"a"), ("staticfiles.json", br#"{"paths": {}, "version": "1.1"}"#)])
        .with(|settings| settings.manifest = true);
    let handler = site.handler();
    let keeping = async |after| {
        let answer = get_after(&handler, "/a.1.css", after).await;
        answer.field("Cache-Control").map(str::to_owned)
    };
    assert_eq!(keeping(Duration::ZERO).await.as_deref(), Some("public, max-age=60"));
    site.write("staticfiles.json", br#"{"paths": {"a.css": "a.1.css"}, "version": "1.1"}"#);
    assert_eq!(keeping(SECOND).await.as_deref(), Some("public, max-age=31536000, immutable"));
    site.write("staticfiles.json", b"{");
    assert_eq!(keeping(2 * SECOND).await.as_deref(), Some("public, max-age=60"));
}
