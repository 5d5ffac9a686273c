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
    let large = vec![b'x'; 200_000];
    let site = Site::new(&[("a.txt", b"abc"), ("large.bin", &large), ("empty.txt", b"")]);
    for (target, length) in [("/a.txt", 3), ("/large.bin", 200_000), ("/empty.txt", 0), ("/none", 14)] {
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
    let (small, large) = (vec![b'x'; 128 * 1024], vec![b'y'; 128 * 1024 + 1]);
    let site = Site::new(&[("small", &small), ("large", &large)]);
    let answer = site.get("/small").await;
    assert_eq!((answer.is_file, answer.body), (false, read(&site.path("small"))));
    let answer = site.get("/large").await;
    assert_eq!((answer.is_file, answer.body), (true, read(&site.path("large"))));
    let part = site.ask("GET", "/large", &[("Range", "bytes=131072-")]).await;
    assert_eq!((part.status, part.is_file, part.text()), (206, true, "y"));
}

#[tokio::test]
async fn what_is_sent_out_of_memory_by_the_kernel_does_not_change_with_its_file() {
    let content: Vec<u8> = (0..100_000_u32).map(|number| (number % 251) as u8).collect();
    let site = Site::new(&[("some", &content)]);
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(60);
    std::fs::File::open(site.path("some")).unwrap().set_modified(long_ago).unwrap();
    let handler = site.handler();
    let answer = get_after(&handler, "/some", Duration::ZERO).await;
    assert!(matches!(answer.response.unwrap().body, ResponseBody::Full(_)), "at first sight it is only read");
    let answer = get_after(&handler, "/some", Duration::from_secs(2)).await;
    let ResponseBody::File(file) = answer.response.unwrap().body else { panic!("it has a descriptor") };
    std::fs::write(site.path("some"), b"another").unwrap();
    assert_eq!(file.at_hand().as_deref(), Some(&content[..]));
    let mut sent = vec![0; content.len()];
    std::fs::File::from(file.file.try_clone().unwrap()).read_exact_at(&mut sent, file.offset).unwrap();
    assert!(sent == content);
    assert!(rustix::fs::ftruncate(&*file.file, 0).is_err(), "nobody can");
    assert!(rustix::io::pwrite(&*file.file, b"x", 0).is_err());
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
    assert_eq!((answer.status, answer.field("Content-Range"), answer.length), (200, None, 0));
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

#[tokio::test]
async fn several_ranges_are_sent_as_parts_of_one_answer() {
    let text: Vec<u8> = (0..2000).map(|at| b'a' + (at % 23) as u8).collect();
    let large: Vec<u8> = (0..200_000).map(|at| b'a' + (at % 23) as u8).collect();
    let site = Site::new(&[("a.txt", &text), ("large.bin", &large)]);
    for (target, content, kind) in
        [("/a.txt", &text, "text/plain; charset=utf-8"), ("/large.bin", &large, "application/octet-stream")]
    {
        let length = content.len();
        let answer = site.ask("GET", target, &[("Range", "bytes=-5, 100-149, 120-199")]).await;
        assert_eq!((answer.status, answer.field("Content-Range")), (206, None));
        let boundary = answer.field("Content-Type").unwrap().strip_prefix("multipart/byteranges; boundary=").unwrap();
        let part = |first: usize, last: usize| {
            let head = format!("--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: bytes {first}-{last}/{length}");
            format!("\r\n{head}\r\n\r\n{}", String::from_utf8_lossy(&content[first..=last]))
        };
        let want = format!("{}{}\r\n--{boundary}--\r\n", part(length - 5, length - 1), part(100, 199));
        assert_eq!(answer.text(), want);
        assert_eq!(answer.length, want.len() as u64);
        assert!(answer.field("ETag").is_some() && answer.field("Accept-Ranges").is_some());
        let tag = answer.field("ETag").unwrap();
        let same = site.ask("GET", target, &[("Range", "bytes=0-0,9-9"), ("If-Range", tag)]).await;
        assert_eq!(same.status, 206);
        let other = site.ask("GET", target, &[("Range", "bytes=0-0,9-9"), ("If-Range", "\"other\"")]).await;
        assert_eq!((other.status, other.length), (200, length as u64));
    }
}

/// A text, and two ways in which it might have been compressed: nobody looks inside.
const VARIANTS: [(&str, &[u8]); 3] = [("a.css", &[b'x'; 900]), ("a.css.gz", &[b'g'; 300]), ("a.css.br", &[b'b'; 200])];

#[tokio::test]
async fn a_variant_is_sent_to_those_who_want_it_with_its_own_tag() {
    let site = Site::new(&VARIANTS);
    let plain = site.get("/a.css").await;
    assert_eq!(
        (plain.length, plain.field("Content-Encoding"), plain.field("Vary")),
        (900, None, Some("Accept-Encoding"))
    );
    let mut tags = vec![plain.field("ETag").unwrap().to_owned()];
    for (accept, coding, length) in [
        ("gzip, deflate, br, zstd", Some("br"), 200),
        ("gzip", Some("gzip"), 300),
        ("br;q=0.5, gzip", Some("gzip"), 300),
        ("*", Some("br"), 200),
        ("br;q=0, *", Some("gzip"), 300),
        ("zstd", None, 900),
        ("identity", None, 900),
        ("br;q=0.5, identity;q=0.6", None, 900),
        ("gzip, identity;q=0", Some("gzip"), 300),
        ("identity;q=0", None, 900),
        ("", None, 900),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = site.ask(method, "/a.css", &[("Accept-Encoding", accept)]).await;
            assert_eq!(
                (answer.status, answer.field("Content-Encoding"), answer.length),
                (200, coding, length),
                "{accept}"
            );
            assert_eq!(answer.field("Content-Type"), Some("text/css; charset=utf-8"));
            assert_eq!(answer.field("Vary"), Some("Accept-Encoding"), "{accept}");
            assert_eq!(answer.field("Last-Modified"), plain.field("Last-Modified"));
            let tag = answer.field("ETag").unwrap();
            let fields = [("Accept-Encoding", accept), ("If-None-Match", tag)];
            let unchanged = site.ask(method, "/a.css", &fields).await;
            assert_eq!((unchanged.status, unchanged.field("Vary")), (304, Some("Accept-Encoding")), "{accept}");
            tags.push(tag.to_owned());
        }
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 3, "{tags:?}");
}

#[tokio::test]
async fn a_range_is_a_part_of_the_variant_that_would_have_been_sent() {
    let site = Site::new(&VARIANTS);
    let whole = site.ask("GET", "/a.css", &[("Accept-Encoding", "br")]).await;
    let tag = whole.field("ETag").unwrap();
    let range = [("Accept-Encoding", "br"), ("Range", "bytes=10-19"), ("If-Range", tag)];
    let part = site.ask("GET", "/a.css", &range).await;
    assert_eq!((part.status, part.field("Content-Range"), part.text()), (206, Some("bytes 10-19/200"), "bbbbbbbbbb"));
    assert_eq!((part.field("Content-Encoding"), part.field("ETag")), (Some("br"), Some(tag)));
    let other = site.ask("GET", "/a.css", &[("Range", "bytes=10-19"), ("If-Range", tag)]).await;
    assert_eq!((other.status, other.length), (200, 900), "the tag is that of another variant");
    let several = site.ask("GET", "/a.css", &[("Accept-Encoding", "br"), ("Range", "bytes=0-9,100-109")]).await;
    assert_eq!((several.status, several.length), (200, 200));
}

#[tokio::test]
async fn a_variant_that_is_older_or_larger_than_its_file_is_passed_over() {
    let site = Site::new(&[("a.css", &[b'x'; 900]), ("a.css.gz", &[b'g'; 300]), ("a.css.br", &[b'b'; 901])]);
    let older = fs::File::options().write(true).open(site.path("a.css.gz")).unwrap();
    older.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
    let answer = site.ask("GET", "/a.css", &[("Accept-Encoding", "br, gzip")]).await;
    assert_eq!((answer.length, answer.field("Vary")), (900, None));
    let json = br#"{"paths": {"b.css": "a.css"}, "version": "1.1"}"#;
    site.write("staticfiles.json", json);
    let hashed = site.with(|settings| settings.manifest = true);
    let answer = hashed.ask("GET", "/a.css", &[("Accept-Encoding", "br, gzip")]).await;
    assert_eq!(answer.field("Content-Encoding"), Some("gzip"), "a hashed name never changes its content");
    let off = hashed.with(|settings| settings.precompressed = false);
    assert_eq!(off.ask("GET", "/a.css", &[("Accept-Encoding", "br, gzip")]).await.length, 900);
    let itself = off.ask("GET", "/a.css.gz", &[("Accept-Encoding", "gzip")]).await;
    assert_eq!((itself.field("Content-Type"), itself.field("Content-Encoding")), (Some("application/gzip"), None));
}

#[tokio::test]
async fn the_route_says_types_fields_and_how_long_files_are_kept() {
    let site = Site::new(&[("a.gpx", b"x"), ("a.svg", b"x"), ("a.html", b"x")]).with(|settings| {
        settings.types = [(".gpx".to_owned(), "application/gpx+xml".to_owned())].into();
        settings.headers =
            [("Access-Control-Allow-Origin", "*"), ("X-Content-Type-Options", "none"), ("Content-Language", "ko")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
        settings.max_age = Some(3600);
        settings.uploads = true;
    });
    let answer = site.get("/a.gpx").await;
    assert_eq!(answer.field("Content-Type"), Some("application/gpx+xml"));
    assert_eq!(answer.field("Access-Control-Allow-Origin"), Some("*"));
    assert_eq!(answer.field("X-Content-Type-Options"), Some("none"));
    assert_eq!(answer.field("Cache-Control"), Some("public, max-age=3600"));
    assert_eq!(answer.field("Content-Security-Policy"), None);
    let unchanged = site.ask("GET", "/a.gpx", &[("If-None-Match", "*")]).await;
    assert_eq!(unchanged.field("Access-Control-Allow-Origin"), Some("*"));
    assert_eq!((unchanged.status, unchanged.field("Content-Language")), (304, None));
    for active in ["/a.svg", "/a.html"] {
        assert!(site.get(active).await.field("Content-Security-Policy").unwrap().ends_with("sandbox"), "{active}");
    }
}

#[tokio::test]
async fn a_folder_without_an_index_is_listed_where_that_is_allowed() {
    let files: [(&str, &[u8]); 7] = [
        ("b.txt", b"22"),
        ("A.txt", b"1"),
        ("z/a.txt", b"1"),
        (".hidden", b"1"),
        ("with/index.html", b"own"),
        ("<b>&\"'.txt", b"1"),
        ("javascript:alert(1)", b"333"),
    ];
    let site = Site::new(&files);
    std::os::unix::fs::symlink("../outside/secret.txt", site.path("link")).unwrap();
    std::os::unix::fs::symlink("b.txt", site.path("inside")).unwrap();
    assert_eq!(site.get("/").await.status, 404, "off unless asked for");
    let site = site.with(|settings| settings.listing = true);
    let names = async |query: &str| {
        let answer = site.get(&format!("/{query}")).await;
        assert_eq!((answer.status, answer.field("Content-Type")), (200, Some("text/plain; charset=utf-8")));
        answer.text().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let sorted = ["with/", "z/", "<b>&\"'.txt", "A.txt", "b.txt", "inside", "javascript:alert(1)"];
    assert_eq!(names("").await, sorted);
    let by_size = ["with/", "z/", "<b>&\"'.txt", "A.txt", "b.txt", "inside", "javascript:alert(1)"];
    assert_eq!(names("?sort=size").await, by_size);
    assert_eq!(names("?sort=size&order=desc").await[..3], ["with/", "z/", "javascript:alert(1)"]);
    assert_eq!(names("?order=desc").await[2], "javascript:alert(1)");
    let page = site.ask("GET", "/", &[("Accept", "text/html")]).await;
    assert_eq!(page.field("Content-Type"), Some("text/html; charset=utf-8"));
    assert!(page.field("Content-Security-Policy").unwrap().starts_with("default-src 'none'"));
    let text = page.text();
    assert!(text.contains("<a href=\"./%3Cb%3E&amp;%22&#39;.txt\">&lt;b&gt;&amp;&quot;&#39;.txt</a>"), "{text}");
    assert!(text.contains("href=\"./javascript:alert(1)\""), "{text}");
    assert!(!text.contains("hidden") && !text.contains("secret") && !text.contains("../"), "{text}");
    let json = site.ask("GET", "/z/", &[("Accept", "application/json")]).await;
    let value: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
    assert_eq!((&value[0]["name"], &value[0]["type"], &value[0]["size"]), (&"a.txt".into(), &"file".into(), &1.into()));
    assert_eq!(site.get("/with/").await.text(), "own");
    assert_eq!(site.get("/z").await.field("Location"), Some("/z/"));
    assert_eq!(site.get("/none/").await.status, 404);
    assert_eq!(site.get("/.hidden/").await.status, 404);
    assert_eq!(site.ask("POST", "/z/", &[]).await.status, 405);
    let head = site.ask("HEAD", "/z/", &[]).await;
    assert_eq!((head.status, head.body.len(), head.length), (200, 0, 6));
}

#[tokio::test]
async fn of_too_many_names_the_first_are_listed() {
    let site = Site::new(&[]).with(|settings| settings.listing = true);
    for number in (0..10_050).rev() {
        fs::write(site.path(&format!("{number:05}")), "").unwrap();
    }
    let text = site.get("/").await.text().to_owned();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[9999]), (10_001, "00000", "09999"));
    assert_eq!(lines[10_000], "(the first 10000 by name; there are more)");
}
