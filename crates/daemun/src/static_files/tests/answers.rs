//! What a client gets: methods, fields, folders, roots, ranges, preconditions.

use super::*;

#[tokio::test]
async fn a_file_is_sent_with_its_type_and_validators() {
    let site = Site::new(&[("css/a.css", b"body{}")]);
    let answer = site.get("/static/css/a.css").await;
    assert_eq!((answer.status, answer.text()), (200, "body{}"));
    assert_eq!(answer.field("Content-Type"), Some("text/css; charset=utf-8"));
    assert_eq!(answer.field("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(answer.field("Accept-Ranges"), Some("bytes"));
    assert!(answer.field("ETag").unwrap().starts_with('"'));
    assert!(answer.field("Last-Modified").unwrap().ends_with(" GMT"));
    assert_eq!(answer.field("Cache-Control"), None);
}

#[tokio::test]
async fn head_tells_what_get_would_send() {
    let large = vec![b'x'; 100_000];
    let site = Site::new(&[("a.txt", b"abc"), ("large.bin", &large), ("empty.txt", b"")]);
    for (target, length) in [("/a.txt", 3), ("/large.bin", 100_000), ("/empty.txt", 0), ("/none", 14)] {
        let (get, head) = (site.get(target).await, site.ask("HEAD", target, &[("Range", "bytes=0-1")]).await);
        assert_eq!((get.status, get.length), (head.status, length), "{target}");
        assert_eq!((head.length, head.body.len()), (length, 0), "{target}");
        for name in ["Content-Type", "ETag", "Last-Modified", "Accept-Ranges", "Content-Range"] {
            assert_eq!(get.field(name), head.field(name), "{target} {name}");
        }
    }
}

#[tokio::test]
async fn small_files_come_from_memory_and_large_ones_from_their_descriptor() {
    let (small, large) = (vec![b'x'; 64 * 1024], vec![b'y'; 64 * 1024 + 1]);
    let site = Site::new(&[("small", &small), ("large", &large)]);
    let answer = site.get("/small").await;
    assert_eq!((answer.is_file, answer.body), (false, read(&site.path("small"))));
    let answer = site.get("/large").await;
    assert_eq!((answer.is_file, answer.body), (true, read(&site.path("large"))));
    let part = site.ask("GET", "/large", &[("Range", "bytes=65536-")]).await;
    assert_eq!((part.status, part.is_file, part.text()), (206, true, "y"));
}

#[tokio::test]
async fn other_methods_are_told_which_there_are() {
    let site = Site::new(&[("a.txt", b"a")]);
    for target in ["/a.txt", "/none"] {
        let answer = site.ask("OPTIONS", target, &[]).await;
        assert_eq!((answer.status, answer.field("Allow")), (204, Some("GET, HEAD, OPTIONS")));
        for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "get"] {
            let answer = site.ask(method, target, &[]).await;
            assert_eq!((answer.status, answer.field("Allow")), (405, Some("GET, HEAD, OPTIONS")), "{method}");
        }
    }
}

#[tokio::test]
async fn with_next_only_what_is_absent_is_declined_whatever_the_method() {
    let site = Site::new(&[("a.txt", b"a"), ("plain/a.txt", b"a"), ("site/index.html", b"i")])
        .with(|settings| settings.missing = Missing::Next);
    for (method, target, want) in [
        ("GET", "/a.txt", 200),
        ("GET", "/none", DECLINED),
        ("POST", "/none", DECLINED),
        ("OPTIONS", "/none", DECLINED),
        ("POST", "/a.txt", 405),
        ("OPTIONS", "/a.txt", 204),
        ("GET", "/site", 301),
        ("GET", "/site/", 200),
        ("GET", "/plain", DECLINED),
        ("GET", "/plain/", DECLINED),
        ("GET", "/", DECLINED),
    ] {
        assert_eq!(site.ask(method, target, &[]).await.status, want, "{method} {target}");
    }
}

#[tokio::test]
async fn a_declined_request_comes_back_as_it_was() {
    let site = Site::new(&[]).with(|settings| settings.missing = Missing::Next);
    let request = request("POST", "/none?x=1", &[("A", "b")], "/", Instant::now()).unwrap();
    match site.handler().handle(request).await {
        Ok(Outcome::Decline(request)) => {
            assert_eq!(request.head.target(), b"/none?x=1");
            assert_eq!(request.head.field("a"), Some(&b"b"[..]));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_folder_wants_its_slash_and_answers_with_its_index() {
    let site = Site::new(&[("docs/index.html", b"docs"), ("plain/a.txt", b"a"), ("odd/index.html/x", b"x")]);
    let answer = site.get("/static/docs?a=b").await;
    assert_eq!((answer.status, answer.field("Location")), (301, Some("/static/docs/?a=b")));
    assert_eq!(site.get("/static").await.field("Location"), Some("/static/"));
    let answer = site.get("/static/docs/").await;
    assert_eq!((answer.status, answer.text()), (200, "docs"));
    assert_eq!(answer.field("Content-Type"), Some("text/html; charset=utf-8"));
    assert_eq!(site.get("/plain").await.status, 301);
    for target in ["/plain/", "/odd/", "/"] {
        assert_eq!(site.get(target).await.status, 404, "{target}");
    }
    let site = site.with(|settings| settings.index = vec!["none.html".to_owned(), "a.txt".to_owned()]);
    assert_eq!(site.get("/plain/").await.text(), "a");
}

#[tokio::test]
async fn a_redirect_stays_on_this_host() {
    let site = Site::new(&[("evil.example/a", b"a"), ("\\evil/a", b"a"), ("a\r\nb/c", b"c")]);
    for (target, want) in [
        ("//evil.example", "/evil.example/"),
        ("///evil.example", "/evil.example/"),
        ("/%5Cevil", "/%5Cevil/"),
        ("/a%0d%0ab", "/a%0D%0Ab/"),
    ] {
        assert_eq!(site.get(target).await.field("Location"), Some(want), "{target}");
    }
}

#[tokio::test]
async fn the_first_root_that_has_the_name_wins_behind_its_prefix() {
    let site = Site::new(&[("a.txt", b"first")])
        .root("second", "", &[("a.txt", b"second"), ("b.txt", b"second")])
        .root("third", "vendor", &[("c.txt", b"third"), ("index.html", b"index")]);
    for (target, want) in [("/a.txt", "first"), ("/b.txt", "second"), ("/vendor/c.txt", "third"), ("/vendor/", "index")]
    {
        assert_eq!(site.get(target).await.text(), want, "{target}");
    }
    assert_eq!(site.get("/vendor").await.field("Location"), Some("/vendor/"));
    for target in ["/c.txt", "/vendorc.txt", "/vendors/c.txt", "/vendor/vendor/c.txt", "/vend"] {
        assert_eq!(site.get(target).await.status, 404, "{target}");
    }
}

#[tokio::test]
async fn another_file_answers_for_what_is_missing() {
    let site = Site::new(&[("index.html", b"app"), ("a.txt", b"a"), (".env", b"hidden")])
        .with(|settings| settings.missing = Missing::File("/index.html".to_owned()));
    let handler = site.handler();
    for _ in 0..2 {
        for target in ["/users/7", "/none.js", "/a%2fb", "/users/"] {
            let answer = ask(&handler, "GET", target, &[]).await;
            assert_eq!((answer.status, answer.text()), (200, "app"), "{target}");
            assert_eq!(answer.field("Content-Type"), Some("text/html; charset=utf-8"), "{target}");
        }
        assert_eq!(ask(&handler, "GET", "/a.txt", &[]).await.text(), "a");
        assert_eq!(ask(&handler, "GET", "/.env", &[]).await.status, 404);
        assert_eq!(ask(&handler, "POST", "/users/7", &[]).await.status, 405);
    }
    let site = site.with(|settings| settings.missing = Missing::File("/gone.html".to_owned()));
    assert_eq!(site.get("/users/7").await.status, 404);
}

#[tokio::test]
async fn ranges_are_sent_as_parts() {
    let site = Site::new(&[("a.txt", b"0123456789"), ("empty.txt", b"")]);
    for (range, status, content_range, body) in [
        ("bytes=0-3", 206, Some("bytes 0-3/10"), "0123"),
        ("bytes=-3", 206, Some("bytes 7-9/10"), "789"),
        ("bytes=4-", 206, Some("bytes 4-9/10"), "456789"),
        ("bytes=8-99", 206, Some("bytes 8-9/10"), "89"),
        ("bytes=10-", 416, Some("bytes */10"), "416 Range Not Satisfiable\n"),
        ("bytes=0-1,4-5", 200, None, "0123456789"),
        ("bytes=5-2", 200, None, "0123456789"),
        ("lines=1-2", 200, None, "0123456789"),
    ] {
        let answer = site.ask("GET", "/a.txt", &[("Range", range)]).await;
        assert_eq!(
            (answer.status, answer.field("Content-Range"), answer.text()),
            (status, content_range, body),
            "{range}"
        );
    }
    let answer = site.ask("GET", "/a.txt", &[("Range", "bytes=0-3")]).await;
    for name in ["ETag", "Last-Modified", "Content-Type"] {
        assert_eq!(answer.field(name), site.get("/a.txt").await.field(name), "{name}");
    }
    let answer = site.ask("GET", "/empty.txt", &[("Range", "bytes=0-")]).await;
    assert_eq!((answer.status, answer.field("Content-Range")), (416, Some("bytes */0")));
}

#[tokio::test]
async fn random_range_fields_never_send_more_than_the_file() {
    let site = Site::new(&[("a.txt", b"0123456789")]);
    let handler = site.handler();
    let mut random = Random::new("static_files::answers");
    for _ in 0..2_000 {
        let mut range = String::from("bytes=");
        for _ in 0..random.below(8) {
            range.push(char::from(b"0123456789-,"[random.below(12) as usize]));
        }
        let answer = ask(&handler, "GET", "/a.txt", &[("Range", &range)]).await;
        match answer.status {
            200 => assert_eq!(answer.text(), "0123456789", "{range}"),
            206 => assert!(!answer.body.is_empty() && "0123456789".contains(answer.text()), "{range}"),
            status => assert_eq!(status, 416, "{range}"),
        }
    }
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let site = Site::new(&[("a.txt", b"a"), ("staticfiles.json", br#"{"paths": {}, "version": "1.1"}"#)])
        .with(|settings| settings.manifest = true);
    let first = site.get("/a.txt").await;
    let (tag, date) = (first.field("ETag").unwrap(), first.field("Last-Modified").unwrap());
    for method in ["GET", "HEAD"] {
        for fields in [&[("If-None-Match", tag)][..], &[("If-None-Match", "*")], &[("If-Modified-Since", date)]] {
            let answer = site.ask(method, "/a.txt", fields).await;
            assert_eq!((answer.status, answer.length), (304, 0), "{fields:?}");
            assert_eq!(answer.field("ETag"), Some(tag));
            assert_eq!(answer.field("Cache-Control"), first.field("Cache-Control"));
            for name in ["Content-Type", "Last-Modified", "Accept-Ranges", "Content-Range"] {
                assert_eq!(answer.field(name), None, "{name}");
            }
        }
    }
    assert_eq!(site.ask("GET", "/a.txt", &[("If-Match", "\"other\"")]).await.status, 412);
    assert_eq!(site.ask("GET", "/a.txt", &[("If-Match", tag), ("Range", "bytes=0-0")]).await.status, 206);
    assert_eq!(site.ask("GET", "/a.txt", &[("If-Range", tag), ("Range", "bytes=0-0")]).await.status, 206);
    assert_eq!(site.ask("GET", "/a.txt", &[("If-Range", "\"other\""), ("Range", "bytes=0-0")]).await.status, 200);
    assert_eq!(site.ask("GET", "/a.txt", &[("If-None-Match", tag), ("Range", "bytes=9-")]).await.status, 304);
    // Preconditions do not count where the answer would be no success (RFC 9110, section 13.2.1).
    assert_eq!(site.ask("GET", "/none", &[("If-Match", "\"x\"")]).await.status, 404);
    assert_eq!(site.ask("POST", "/a.txt", &[("If-None-Match", "*")]).await.status, 405);
}

#[tokio::test]
async fn hashed_names_are_kept_for_ever_and_plain_ones_for_a_minute() {
    let manifest = br#"{"paths": {"a.css": "a.55e7cbb9ba48.css"}, "version": "1.1", "hash": "x"}"#;
    let files: &[(&str, &[u8])] =
        &[("a.css", b"a"), ("a.55e7cbb9ba48.css", b"a"), ("b.000000000000.css", b"b"), ("staticfiles.json", manifest)];
    let site = Site::new(files).with(|settings| settings.manifest = true);
    for (target, want) in [
        ("/a.55e7cbb9ba48.css", "public, max-age=31536000, immutable"),
        ("/a.css", "public, max-age=60"),
        ("/b.000000000000.css", "public, max-age=60"),
    ] {
        assert_eq!(site.get(target).await.field("Cache-Control"), Some(want), "{target}");
    }
    assert_eq!(site.handler().manifest_fault(), None);
    let site = site.with(|settings| settings.cache = false);
    assert_eq!(site.get("/a.55e7cbb9ba48.css").await.field("Cache-Control"), Some("no-cache"));
}

#[tokio::test]
async fn with_a_broken_manifest_files_are_served_and_the_fault_is_told() {
    let site = Site::new(&[("a.css", b"a")]).with(|settings| settings.manifest = true);
    let told = |handler: &StaticFiles| handler.manifest_fault().map(|fault| fault.to_string()).unwrap_or_default();
    assert!(told(&site.handler()).contains("have not been collected"));
    site.write("staticfiles.json", b"{");
    assert!(told(&site.handler()).contains("is not a manifest"));
    assert_eq!(site.get("/a.css").await.field("Cache-Control"), Some("public, max-age=60"));
    fs::remove_file(site.path("staticfiles.json")).unwrap();
    std::os::unix::fs::symlink("../outside/secret.txt", site.path("staticfiles.json")).unwrap();
    assert!(told(&site.handler()).contains("cannot be read"));
}

#[tokio::test]
async fn as_many_folders_as_roots_must_be_opened() {
    let site = Site::new(&[]);
    let error = StaticFiles::new(site.settings.clone(), Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "0 folders were opened for 1 roots");
}
