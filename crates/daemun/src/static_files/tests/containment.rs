//! Nothing outside the root, nothing special, nothing hidden, nothing half.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, Mode};

use rustix::io::Errno;

use super::super::tree::{Below, Patience, Tree};
use super::*;

/// A tree with every kind of thing in it.
fn zoo() -> Site {
    let site = Site::new(&[("a.txt", b"a"), ("dir/b.txt", b"b"), (".env", b"hidden"), ("empty/.keep", b"")]);
    symlink("a.txt", site.path("inside.txt")).unwrap();
    symlink("../a.txt", site.path("dir/up.txt")).unwrap();
    symlink("dir", site.path("folder")).unwrap();
    symlink("../outside/secret.txt", site.path("out.txt")).unwrap();
    symlink("../outside", site.path("out")).unwrap();
    symlink(site.folder.path().join("outside/secret.txt"), site.path("absolute.txt")).unwrap();
    symlink(site.path("a.txt"), site.path("absolute-inside.txt")).unwrap();
    symlink("/proc/self/root", site.path("magic")).unwrap();
    symlink("loop", site.path("loop")).unwrap();
    symlink("nowhere", site.path("dangling")).unwrap();
    rustix::fs::mkfifoat(CWD, site.path("fifo"), Mode::from_raw_mode(0o644)).unwrap();
    drop(UnixListener::bind(site.path("socket")).unwrap());
    site
}

#[tokio::test]
async fn links_are_followed_below_the_root_and_nowhere_else() {
    let site = zoo().with(|settings| settings.missing = Missing::Next);
    for (target, want) in [("/inside.txt", "a"), ("/dir/up.txt", "a"), ("/folder/b.txt", "b")] {
        let answer = site.get(target).await;
        assert_eq!((answer.status, answer.text()), (200, want), "{target}");
    }
    // There, but refused: never the next route.
    for target in [
        "/out.txt",
        "/out/secret.txt",
        "/absolute.txt",
        "/absolute-inside.txt",
        "/magic/etc/passwd",
        "/loop",
        "/loop/x",
    ] {
        assert_eq!(site.get(target).await.status, 404, "{target}");
    }
    assert_eq!(site.get("/dangling").await.status, DECLINED);
}

#[tokio::test]
async fn a_pipe_or_socket_is_refused_and_never_waited_for() {
    let site = zoo().with(|settings| settings.missing = Missing::Next);
    for target in ["/fifo", "/socket"] {
        assert_eq!(site.get(target).await.status, 404, "{target}");
    }
    assert_eq!(site.get("/fifo/x").await.status, DECLINED);
}

#[tokio::test]
async fn dots_never_lead_out_however_they_are_written() {
    let site = zoo();
    for target in ["/dir/../a.txt", "/%64ir/%2e%2e/a.txt", "/./a.txt", "//a.txt", "/static/../a.txt"] {
        let handler = site.handler();
        let request = request("GET", target, &[], "/", Instant::now()).unwrap();
        assert_eq!(answer(handler.handle(request).await).await.text(), "a", "{target}");
    }
    for target in ["/dir%2f..%2f..%2foutside/secret.txt", "/..%2foutside/secret.txt", "/%252e%252e/outside/secret.txt"]
    {
        assert_eq!(site.get(target).await.status, 404, "{target}");
    }
    // Behind a prefix without a slash, two dots may begin the name (nginx's off-by-slash).
    for target in ["/static../outside/secret.txt", "/static../root/a.txt", "/static./a.txt"] {
        let request = request("GET", target, &[], "/static", Instant::now()).unwrap();
        assert_eq!(answer(site.handler().handle(request).await).await.status, 404, "{target}");
    }
}

#[tokio::test]
async fn an_encoded_slash_names_nothing() {
    let site = Site::new(&[("a/b.txt", b"b"), ("a%2Fb.txt", b"odd")]);
    assert_eq!(site.get("/a%2Fb.txt").await.status, 404);
    assert_eq!(site.get("/a%252Fb.txt").await.text(), "odd");
    let site = site.with(|settings| settings.missing = Missing::Next);
    assert_eq!(site.get("/a%2fb.txt").await.status, DECLINED);
}

#[tokio::test]
async fn a_sibling_whose_name_begins_like_the_root_is_not_reached() {
    let site = Site::new(&[("a.txt", b"a")]);
    write_old(&site.folder.path().join("root-old/x.txt"), b"x");
    for target in ["/../root-old/x.txt", "/-old/x.txt"] {
        let Some(request) = request("GET", target, &[], "/", Instant::now()) else { continue };
        assert_eq!(answer(site.handler().handle(request).await).await.status, 404);
    }
}

#[tokio::test]
async fn what_may_not_be_sent_is_refused_and_never_declined() {
    let site = zoo().with(|settings| {
        settings.missing = Missing::Next;
        settings.refuse_sources = true;
    });
    site.write("db.sqlite3", b"db");
    site.write("app.py", b"import os");
    site.write("cgi/run.cgi", b"#!");
    site.write(".well-known/security.txt", b"ok");
    for target in ["/.env", "/db.sqlite3", "/app.py", "/cgi/run.cgi", "/empty/.keep"] {
        assert_eq!(site.get(target).await.status, 404, "{target}");
        assert_eq!(site.ask("POST", target, &[]).await.status, 404, "{target}");
    }
    for target in ["/.git/config", "/other.sqlite3", "/none.py", "/.envx"] {
        assert_eq!(site.get(target).await.status, DECLINED, "{target}");
    }
    assert_eq!(site.get("/.well-known/security.txt").await.text(), "ok");
    let site = site.with(|settings| {
        settings.allow_names = vec![".env".to_owned()];
        settings.refuse_sources = false;
    });
    assert_eq!(site.get("/.env").await.text(), "hidden");
    assert_eq!(site.get("/app.py").await.text(), "import os");
}

#[tokio::test]
async fn an_index_or_other_file_that_is_refused_is_not_sent_either() {
    let site = Site::new(&[("index.php", b"<?php")]).with(|settings| {
        settings.index = vec!["index.php".to_owned()];
        settings.missing = Missing::File("/index.php".to_owned());
        settings.refuse_sources = true;
    });
    assert_eq!(site.get("/").await.status, 404);
    assert_eq!(site.get("/x").await.status, 404);
}

#[tokio::test]
async fn names_that_no_file_can_have_are_absent() {
    let site = Site::new(&[("a.txt", b"a")]);
    let long = format!("/{}", "x".repeat(300));
    let longer = format!("/{}", "x/".repeat(4000));
    for target in [long.as_str(), longer.as_str(), "/a.txt/", "/a.txt/b", "/%ff%fe", "/%0a"] {
        assert_eq!(site.get(target).await.status, 404, "{target}");
    }
}

fn open_root(site: &Site) -> OwnedFd {
    OwnedFd::from(fs::File::open(&site.settings.roots[0].path).unwrap())
}

#[test]
fn without_openat2_names_are_walked_and_no_link_is_followed() {
    let site = zoo();
    let tree = Tree::walked(open_root(&site));
    let open = |name: &str| tree.open(name.as_bytes(), Patience::Waits);
    for name in ["a.txt", "dir/b.txt", ".env"] {
        assert!(matches!(open(name), Ok(Below::File(..))), "{name}");
    }
    for name in [
        "inside.txt",
        "out.txt",
        "absolute.txt",
        "out/secret.txt",
        "folder/b.txt",
        "magic/etc",
        "loop",
        "fifo",
        "socket",
        "..",
        "../outside",
        "dir/../a.txt",
        "./a.txt",
        "dir//b.txt",
        "",
    ] {
        assert!(matches!(open(name), Ok(Below::Other)), "{name}");
    }
    assert!(matches!(open("dir"), Ok(Below::Folder)));
    for name in ["none", "a.txt/x", "dir/none"] {
        assert!(matches!(open(name), Ok(Below::Nothing)), "{name}");
    }
}

#[test]
fn what_is_looked_for_without_waiting_is_contained_alike() {
    let site = zoo();
    let (kernel, walked) = (Tree::new(open_root(&site)), Tree::walked(open_root(&site)));
    let kind = |below: Result<Below, Errno>| below.map(|below| std::mem::discriminant(&below));
    let mut at_hand = 0;
    for name in ["a.txt", "dir/b.txt", "dir", "inside.txt", "out.txt", "absolute.txt", "out/secret.txt", "magic/etc"]
        .into_iter()
        .chain(["loop", "fifo", "socket", "..", "../outside", "dir/../a.txt", "none", "a.txt/x", "dir/none"])
    {
        let name = name.as_bytes();
        // The first look brings what the second then finds in memory.
        let waited = kind(kernel.open(name, Patience::Waits));
        match kind(kernel.open(name, Patience::AtHand)) {
            Err(Errno::AGAIN | Errno::INVAL) => {}
            found => {
                assert_eq!(found, waited, "{}", name.escape_ascii());
                at_hand += 1;
            }
        }
        assert!(matches!(walked.open(name, Patience::AtHand), Err(Errno::AGAIN)));
    }
    // A kernel without the flag has none.
    let knows = !matches!(kernel.open(b"a.txt", Patience::AtHand), Err(Errno::INVAL));
    assert!(!knows || at_hand >= 3, "{at_hand}");
}

#[test]
fn what_is_mounted_below_a_root_is_looked_for_where_that_may_wait() {
    let system = Tree::new(std::fs::File::open("/").unwrap().into());
    assert!(matches!(system.open(b"proc/version", Patience::Waits), Ok(Below::File(..))));
    let at_hand = system.open(b"proc/version", Patience::AtHand);
    assert!(matches!(at_hand, Err(Errno::AGAIN | Errno::INVAL)), "{at_hand:?}");
}

#[tokio::test]
async fn random_paths_never_open_anything_outside() {
    let site = zoo();
    let handler = site.handler();
    let (kernel, walked) = (Tree::new(open_root(&site)), Tree::walked(open_root(&site)));
    let pieces: [&[u8]; 22] = [
        b"/",
        b"..",
        b".",
        b"%2e",
        b"%2f",
        b"%5c",
        b"\\",
        b"a.txt",
        b"dir",
        b"b.txt",
        b"out",
        b"secret.txt",
        b"outside",
        b"root",
        b"magic",
        b"folder",
        b"%00",
        b"\xff",
        b"~",
        b"proc",
        b"etc/passwd",
        b"absolute.txt",
    ];
    let mut random = Random::new("static_files::containment");
    for _ in 0..3_000 {
        let mut raw = b"/".to_vec();
        for _ in 0..random.below(10) {
            raw.extend_from_slice(pieces[random.below(pieces.len() as u64) as usize]);
        }
        // The trees themselves, without the canonical path in front of them.
        for tree in [&kernel, &walked] {
            if let Ok(Below::File(mut file, _)) = tree.open(&raw[1..], Patience::Waits) {
                let mut content = String::new();
                file.read_to_string(&mut content).unwrap();
                assert!(["a", "b"].contains(&content.as_str()), "{}", raw.escape_ascii());
            }
        }
        let Ok(target) = std::str::from_utf8(&raw) else { continue };
        for prefix in ["/", "/dir", "/root"] {
            let Some(request) = request("GET", target, &[], prefix, Instant::now()) else { continue };
            let answer = answer(handler.handle(request).await).await;
            if answer.status == 200 {
                assert!(["a", "b"].contains(&answer.text()), "{target} {prefix}");
            } else {
                assert!([301, 404].contains(&answer.status), "{target} {prefix} {answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_file_replaced_while_it_is_read_is_sent_whole_or_not_at_all() {
    let site = Site::new(&[("a.txt", &[b'a'; 3000])]).with(|settings| settings.cache = false);
    let (from, to, stop) = (site.path("new"), site.path("a.txt"), Arc::new(AtomicBool::new(false)));
    let replacing = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            for round in 0_usize.. {
                let (letter, length) = [(b'a', 3000), (b'b', 60_000), (b'c', 200_000)][round % 3];
                fs::write(&from, vec![letter; length]).unwrap();
                fs::rename(&from, &to).unwrap();
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        }
    });
    let handler = site.handler();
    for _ in 0..400 {
        let answer = ask(&handler, "GET", "/a.txt", &[]).await;
        assert_eq!(answer.status, 200);
        let letter = answer.body[0];
        assert!(answer.body.iter().all(|&byte| byte == letter), "one content");
        assert_eq!(
            answer.body.len(),
            match letter {
                b'a' => 3000,
                b'b' => 60_000,
                _ => 200_000,
            }
        );
        let tag = answer.field("ETag").unwrap().to_owned();
        assert!(tag.contains(&format!("-{:x}\"", answer.body.len())), "its own tag");
    }
    stop.store(true, Ordering::Relaxed);
    replacing.join().unwrap();
}
