//! Whole builds on a disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{
    CacheSettings, Compression, Error, Hashing, ManifestSettings, Report, Rewriting, Settings, Silent, Source, collect,
};

struct Tree {
    folder: tempfile::TempDir,
    settings: Settings,
}

impl Tree {
    /// These files in one source, and a hashed build of them.
    fn with(files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hashing = Hashing {
            rewriting: Rewriting::standard("/static/"),
            passes: 5,
            manifest: Some(ManifestSettings::standard()),
            ..Hashing::default()
        };
        let settings = Settings {
            sources: vec![Source { prefix: String::new(), path: folder.path().join("src") }],
            ignore: ["CVS", ".*", "*~"].map(String::from).into(),
            destination: folder.path().join("out"),
            hashing: Some(hashing),
            ..Settings::default()
        };
        let tree = Self { folder, settings };
        for (name, content) in files {
            tree.write(name, content);
        }
        tree
    }

    fn source(&self, name: &str) -> PathBuf {
        self.folder.path().join("src").join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.source(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn build(&self) -> Result<Report, Error> {
        collect(&self.settings, &Silent)
    }

    fn out(&self, name: &str) -> PathBuf {
        self.settings.destination.join(name)
    }

    fn names(&self) -> Vec<String> {
        let mut names = crate::publish::files_below(&self.settings.destination);
        names.sort();
        names
    }

    fn hashed(&self, name: &str) -> String {
        let manifest: serde_json::Value =
            serde_json::from_slice(&fs::read(self.out("staticfiles.json")).unwrap()).unwrap();
        manifest["paths"][name].as_str().unwrap().to_owned()
    }

    fn rewritten(&self, name: &str) -> String {
        fs::read_to_string(self.out(&self.hashed(name))).unwrap()
    }

    fn fault(&self) -> String {
        self.build().unwrap_err().to_string()
    }
}

#[test]
fn references_lead_to_hashed_names_and_those_elsewhere_stay() {
    let css = br#"@import "b.css"; a{background:url( img/x.png )} b{background:url('/static/img/x.png?v=1#f')}
c{src:url(img/x.png?#iefix)} d{background:url(https://a/b.png)} e{background:url(data:x)} f{background:url(//h/x)}
g{background:url(#id)} h{background:url(/other/x.png)} /* url(gone.png) */"#;
    let tree = Tree::with(&[("css/a.css", css), ("css/b.css", b""), ("css/img/x.png", b"x"), ("img/x.png", b"y")]);
    tree.build().unwrap();
    let text = tree.rewritten("css/a.css");
    for part in [
        "@import url(\"b.d41d8cd98f00.css\")",
        "a{background:url(\"img/x.9dd4e461268c.png\")}",
        "url(\"/static/img/x.415290769594.png?v=1#f\")",
        "url(\"img/x.9dd4e461268c.png?#iefix\")",
        "url(https://a/b.png)",
        "url(data:x)",
        "url(//h/x)",
        "url(#id)",
        "url(/other/x.png)",
        "/* url(gone.png) */",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_change_deep_below_renames_everything_that_leads_to_it() {
    let tree =
        Tree::with(&[("a.css", b"@import 'd/b.css';"), ("d/b.css", b"i{background:url(x.png)}"), ("d/x.png", b"1")]);
    tree.build().unwrap();
    let before = ["a.css", "d/b.css", "d/x.png"].map(|name| tree.hashed(name));
    tree.write("d/x.png", b"2");
    tree.build().unwrap();
    for (name, before) in ["a.css", "d/b.css", "d/x.png"].iter().zip(&before) {
        assert_ne!(&tree.hashed(name), before);
        assert!(tree.out(before).exists(), "cached pages still ask for {before}");
    }
}

#[test]
fn a_ring_of_references_is_named_and_nothing_is_published() {
    let tree = Tree::with(&[("a.css", b"@import 'b.css';"), ("b.css", b"@import 'a.css';")]);
    let fault = tree.fault();
    assert!(fault.starts_with("a.css, b.css: ") && fault.contains("ring"), "{fault}");
    assert_eq!(tree.names(), Vec::<String>::new());
}

#[test]
fn a_missing_file_is_named_with_line_and_nearest_name_and_may_be_allowed() {
    let mut tree = Tree::with(&[("css/a.css", b"\n\na{background:url(../img/logo.png)}"), ("images/logo.png", b"x")]);
    let fault = tree.fault();
    let want = "css/a.css:3: the file 'img/logo.png' could not be found; it is referred to as url(../img/logo.png); \
                did you mean 'images/logo.png'?";
    assert_eq!(fault, want);
    assert_eq!(tree.names(), Vec::<String>::new());
    tree.settings.lenient = true;
    let report = tree.build().unwrap();
    assert!(
        report.warnings[0].starts_with("css/a.css:3: url(../img/logo.png) is left as it is"),
        "{:?}",
        report.warnings
    );
    assert!(tree.rewritten("css/a.css").contains("url(../img/logo.png)"));
}

#[test]
fn a_reference_out_of_the_tree_is_refused() {
    let tree = Tree::with(&[("a.css", b"a{background:url(../../../etc/passwd)}")]);
    assert!(tree.fault().starts_with("a.css:1: the reference url(../../../etc/passwd) leads out"), "{}", tree.fault());
}

#[test]
fn css_that_is_not_utf8_is_named_with_line_and_byte() {
    let mut tree = Tree::with(&[("a.css", b"a{}\nb{content:'\xe9'}")]);
    assert!(tree.fault().starts_with("a.css:2: not UTF-8 (byte 15)"), "{}", tree.fault());
    tree.settings.lenient = true;
    let report = tree.build().unwrap();
    assert!(report.warnings[0].starts_with("a.css:2: not UTF-8 (byte 15)"), "{:?}", report.warnings);
    assert_eq!(fs::read(tree.out(&tree.hashed("a.css"))).unwrap(), b"a{}\nb{content:'\xe9'}");
}

#[test]
fn what_cannot_be_read_is_named_before_anything_is_written() {
    let tree = Tree::with(&[("a.txt", b"a")]);
    std::os::unix::fs::symlink("nowhere", tree.source("broken.txt")).unwrap();
    assert!(tree.fault().ends_with("broken.txt is a broken symbolic link"), "{}", tree.fault());
    fs::remove_file(tree.source("broken.txt")).unwrap();
    std::os::unix::fs::symlink(".", tree.source("loop")).unwrap();
    assert!(tree.fault().contains("loop"), "{}", tree.fault());
    fs::remove_file(tree.source("loop")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, tree.source("pipe"), rustix::fs::Mode::RUSR).unwrap();
    assert!(tree.fault().ends_with("pipe is neither a file nor a folder"), "{}", tree.fault());
    assert_eq!(tree.names(), Vec::<String>::new());
}

#[test]
fn a_file_that_is_not_what_it_was_when_it_is_read_is_named() {
    let tree = Tree::with(&[("a.txt", b"a")]);
    // The kernel says that it is empty, and gives more: just what a file does that is written to.
    std::os::unix::fs::symlink("/proc/self/status", tree.source("grows.txt")).unwrap();
    assert!(tree.fault().contains("changed while it was read; collect again"), "{}", tree.fault());
    assert_eq!(tree.names(), Vec::<String>::new());
}

#[test]
fn of_two_files_with_one_name_the_first_wins_and_the_other_is_reported() {
    let mut tree = Tree::with(&[("a.css", b"first")]);
    let other = tree.folder.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("a.css"), "second").unwrap();
    fs::write(other.join("b.css"), "b").unwrap();
    fs::write(other.join(".hidden"), "").unwrap();
    fs::write(other.join("b.css~"), "").unwrap();
    tree.settings.sources.push(Source { prefix: String::new(), path: other.clone() });
    tree.settings.sources.push(Source { prefix: String::from("lib"), path: other.clone() });
    tree.settings.hashing = None;
    let report = tree.build().unwrap();
    assert_eq!(tree.names(), ["a.css", "b.css", "lib/a.css", "lib/b.css"]);
    assert_eq!(fs::read(tree.out("a.css")).unwrap(), b"first");
    assert_eq!(report.shadowed, [(other.join("a.css"), tree.source("a.css"))]);
}

#[test]
fn names_that_differ_by_case_only_are_warned_of() {
    let report = Tree::with(&[("Logo.png", b"1"), ("logo.png", b"2")]).build().unwrap();
    assert!(report.warnings[0].contains("differ by their letters' case only"));
}

#[test]
fn the_second_build_writes_nothing_and_takes_what_is_compressed_from_the_cache() {
    let text = "a { color: red }\n".repeat(100);
    let mut tree = Tree::with(&[("a.css", text.as_bytes()), ("b.css", text.as_bytes()), ("x.png", b"x")]);
    tree.settings.compression = Some(Compression {
        gzip: Some(9),
        brotli: Some(5),
        zstd: Some(3),
        skip: vec![String::from("png")],
        gzip_only_with_brotli: false,
    });
    tree.settings.cache = Some(CacheSettings { folder: tree.folder.path().join("cache"), limit: 1 << 20 });
    let first = tree.build().unwrap();
    assert_eq!((first.distinct, first.compressed, first.siblings), (1, 3, 12), "one content under four names");
    let second = tree.build().unwrap();
    assert_eq!((second.written.len(), second.compressed, second.cached), (0, 0, 3));
    // A file that changed so that compressing it does not pay keeps no sibling of its old content.
    tree.write("a.css", b"b");
    tree.build().unwrap();
    assert!(!tree.out("a.css.gz").exists() && tree.out("b.css.gz").exists());
}

#[test]
fn old_hashed_files_go_after_their_time_with_their_siblings() {
    let mut tree = Tree::with(&[("a.txt", b"1")]);
    tree.settings.cache = Some(CacheSettings { folder: tree.folder.path().join("cache"), limit: 1 << 20 });
    tree.settings.keep = Some(Duration::from_secs(3600));
    tree.build().unwrap();
    let old = tree.hashed("a.txt");
    fs::write(tree.out(&format!("{old}.gz")), "").unwrap();
    tree.write("a.txt", b"2");
    assert!(tree.build().unwrap().removed.is_empty());
    assert!(tree.out(&old).exists());
    tree.settings.keep = Some(Duration::ZERO);
    tree.write("a.txt", b"3");
    let removed = tree.build().unwrap().removed;
    assert!(removed.contains(&old) && removed.contains(&format!("{old}.gz")), "{removed:?}");
    assert!(!tree.out(&old).exists());
}

#[test]
fn a_dry_run_writes_nothing_and_a_clearing_one_removes_what_is_not_made() {
    let mut tree = Tree::with(&[("a.txt", b"1")]);
    tree.settings.dry_run = true;
    assert_eq!(tree.build().unwrap().written.len(), 3);
    assert!(!tree.settings.destination.exists());
    tree.settings.dry_run = false;
    tree.build().unwrap();
    fs::write(tree.out("stranger.txt"), "").unwrap();
    tree.settings.clear = true;
    assert_eq!(tree.build().unwrap().removed, ["stranger.txt"]);
}

#[test]
fn a_destination_that_cannot_be_meant_is_refused() {
    let mut tree = Tree::with(&[("a.txt", b"1")]);
    for root in ["/", "//", "/tmp/.."] {
        tree.settings.destination = PathBuf::from(root);
        assert!(tree.fault().contains("root of the file system"), "{root}");
    }
    tree.settings.destination = tree.folder.path().join("src");
    assert!(tree.fault().contains("both where files come from and where they go to"));
    tree.settings.destination = tree.folder.path().to_owned();
    tree.settings.clear = true;
    assert!(tree.fault().starts_with("--clear would remove "));
    assert!(tree.source("a.txt").exists());
}

#[test]
fn a_destination_inside_the_sources_is_not_collected_into_itself() {
    let mut tree = Tree::with(&[("a.txt", b"1")]);
    tree.settings.destination = tree.source("out");
    tree.build().unwrap();
    let names = tree.names();
    tree.build().unwrap();
    assert_eq!(tree.names(), names);
}

#[test]
fn a_large_file_is_copied_without_being_held_in_memory() {
    let tree = Tree::with(&[("big.bin", &vec![7; 5 * 1024 * 1024])]);
    tree.build().unwrap();
    assert_eq!(fs::read(tree.out(&tree.hashed("big.bin"))).unwrap(), fs::read(tree.source("big.bin")).unwrap());
    assert_eq!(tree.build().unwrap().written.len(), 0);
    assert!(!has_stage(&tree.settings.destination));
}

#[test]
fn what_a_crashed_build_left_is_removed_by_the_next() {
    let tree = Tree::with(&[("a.txt", b"1")]);
    let left = tree.out(".daemun-stage-1");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("0"), "half").unwrap();
    tree.build().unwrap();
    assert!(!has_stage(&tree.settings.destination));
}

fn has_stage(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(".daemun"))
}
