//! Every Rust file is short and begins by saying what it is. A room's tests may be long, in the file or beside it.

use crate::source::{test_lines, without_words};
use crate::{File, assert_none, files};

/// Lines of a file, without what stands under `#[cfg(test)]`.
const LONGEST: usize = 500;

fn faults(path: &str, text: &str) -> Vec<String> {
    // `#[cfg(test)] mod tests;` in a file or folder of its own.
    if path.contains("/src/") && path.split('/').any(|part| part.trim_end_matches(".rs") == "tests") {
        return Vec::new();
    }
    let mut faults = Vec::new();
    let lines = text.lines().count() - test_lines(text);
    if lines > LONGEST {
        faults.push(format!("{path}: {lines} lines without tests, {LONGEST} are allowed"));
    }
    if !text.starts_with("//! ") {
        faults.push(format!("{path}:1: does not begin with a module comment (`//! …`)"));
    }
    faults
}

#[test]
fn every_file_is_short_and_says_what_it_is() {
    let faults: Vec<String> =
        files("crates", ".rs").iter().flat_map(|File { path, text }| faults(path, text)).collect();
    assert_none(&faults);
}

/// Where code may stand that the compiler cannot check; each block says why it is sound, which clippy holds.
const UNSAFE: &[&str] = &["crates/daemun/src/sys.rs", "crates/daemun/src/sys/", "crates/daemun/accelerator/"];

fn is_unsafe(path: &str, text: &str) -> bool {
    let is_word = |part: &str| part == "unsafe";
    !UNSAFE.iter().any(|room| path.starts_with(room))
        && without_words(text).split(|c: char| !c.is_alphanumeric() && c != '_').any(is_word)
}

#[test]
fn unsafe_code_has_its_rooms() {
    let strays = files("crates", ".rs").into_iter().filter(|file| is_unsafe(&file.path, &file.text));
    assert_none(&strays.map(|file| format!("{}: unsafe code", file.path)).collect::<Vec<_>>());
    assert!(is_unsafe("crates/a/src/b.rs", "fn f() { unsafe { g() } }"));
    assert!(!is_unsafe("crates/a/src/b.rs", "// unsafe\nconst A: &str = \"unsafe\"; fn unsafe_code() {}"));
    assert!(!is_unsafe(UNSAFE[0], "fn f() { unsafe { g() } }"));
}

#[test]
fn a_long_file_and_a_silent_one_are_found() {
    let long = format!("//! Long.\n{}", "fn f() {}\n".repeat(LONGEST));
    assert_eq!(faults("a.rs", &long), ["a.rs: 501 lines without tests, 500 are allowed"]);
    let comments = format!("//! Long.\n{}", "// x\n".repeat(LONGEST));
    assert_eq!(faults("a.rs", &comments).len(), 1);
    assert_eq!(faults("b.rs", "use a;\n"), ["b.rs:1: does not begin with a module comment (`//! …`)"]);
    let tests = format!("//! Short.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "fn f() {}\n".repeat(LONGEST));
    assert_none(&faults("c.rs", &tests));
    assert_none(&faults("crates/a/src/room/tests.rs", "fn f() {}\n"));
    assert_eq!(faults("crates/a/tests/it/d.rs", "fn f() {}\n").len(), 1);
}
