//! Rooms stand on floors, and an import goes down only.
//!
//! A handler that knew another handler, or a room that knew `config`, would make the walk of a request unreadable; the
//! order of the floors is told in `docs/architecture.md`.

use crate::source::{line_of, without_tests};
use crate::{File, assert_none, files};

/// Lowest first. A room is a module right below the crate, with everything in it.
const FLOORS: &[&[&str]] = &[
    &["alarm", "crowd", "http", "resolver", "sys", "codes"],
    &["handler", "upstream", "telemetry", "process", "signals", "control", "tls"],
    // The router itself answers `/static` with a redirect to `/static/`.
    &["respond", "gateway", "launcher", "transformer", "certifier", "exporter"],
    &["filter", "static_files", "cgi", "app", "proxy", "router", "supervisor", "listener", "monitor", "watch"],
    &["connection"],
    &["config"],
    &["django"],
    // Rules ask the project, and the warnings at start come from them.
    &["check"],
    &["server"],
    &["explain"],
    &["cli"],
    &["main"],
];

/// The crate's own file names every room and belongs to none.
const ROOMLESS: &[&str] = &["lib"];

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// The faults of one file, whose path begins below `src/`.
fn faults(path: &str, text: &str) -> Vec<String> {
    let modules: Vec<&str> = path.trim_end_matches(".rs").split('/').filter(|&part| part != "mod").collect();
    let room = modules[0];
    if ROOMLESS.contains(&room) || modules.contains(&"tests") {
        return Vec::new();
    }
    let Some(own) = floor(room) else {
        return vec![format!("src/{path}: the room `{room}` has no floor; give it one in tests/gates/floors.rs")];
    };
    let mut faults = Vec::new();
    for (at, other) in imports(&without_tests(text), modules.len()) {
        let fault = match floor(&other) {
            _ if other == room || ROOMLESS.contains(&other.as_str()) => continue,
            Some(theirs) if theirs < own => continue,
            Some(theirs) => format!("`{room}` (floor {own}) imports `{other}` (floor {theirs})"),
            None => format!("`{room}` imports `{other}`, which has no floor"),
        };
        faults.push(format!("src/{path}:{}: {fault}", line_of(text, at)));
    }
    faults
}

/// Every room that `bare` names, with the place. `depth` is how many modules lie between the crate and this file.
fn imports(bare: &str, depth: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    // From as deep as the file lies, that many `super::` lead to the crate itself.
    for start in ["crate::".to_owned(), "super::".repeat(depth), "daemun::".to_owned()] {
        for (at, _) in bare.match_indices(&start) {
            let before = bare[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$' || c == ':') {
                continue;
            }
            found.extend(first_names(&bare[at + start.len()..]).into_iter().map(|name| (at, name)));
        }
    }
    found.sort();
    found
}

/// The names that a path goes on with: one, or one for each branch of a group.
fn first_names(rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else {
        let name: String = rest.chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect();
        return if name.is_empty() { Vec::new() } else { vec![name] };
    };
    let mut names = Vec::new();
    let mut depth = 0;
    let mut at_start = true;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            c if depth == 0 && at_start && !c.is_whitespace() => {
                names.extend(first_names(&group[at..]));
                at_start = false;
            }
            _ => {}
        }
    }
    names
}

#[test]
fn an_import_goes_down_only() {
    let mut all = Vec::new();
    for File { path, text } in files("crates/daemun/src", ".rs") {
        let below = path.strip_prefix("crates/daemun/src/").expect("below src");
        all.extend(faults(below, &text));
    }
    assert_none(&all);
}

#[test]
fn an_import_that_goes_up_or_across_is_found_in_every_spelling() {
    for (path, text, want) in [
        ("router.rs", "use crate::config::X;", "src/router.rs:1: `router` (floor 3) imports `config` (floor 5)"),
        (
            "http/h1/mod.rs",
            "\nfn f() { crate::router::g() }",
            "src/http/h1/mod.rs:2: `http` (floor 0) imports `router`",
        ),
        (
            "app/mod.rs",
            "use crate::{http::Head, static_files::{A, B}};",
            "`app` (floor 3) imports `static_files` (floor 3)",
        ),
        ("router.rs", "use super::server;", "imports `server`"),
        ("app/pool/mod.rs", "use super::super::connection;", "imports `connection`"),
        ("sys.rs", "pub(crate) use crate::nowhere;", "`sys` imports `nowhere`, which has no floor"),
        ("utils.rs", "", "the room `utils` has no floor"),
    ] {
        let found = faults(path, text);
        assert_eq!(found.len(), 1, "{path}: {found:?}");
        assert!(found[0].contains(want), "{path}: {found:?}");
    }
}

#[test]
fn what_goes_down_or_only_speaks_of_a_higher_room_is_allowed() {
    for (path, text) in [
        ("router.rs", "use crate::http::Request; use crate::handler::{Handler, Outcome};"),
        ("router.rs", "//! See [`crate::config`].\n/// And [`crate::server::run`].\nuse crate::http;"),
        ("router.rs", "#[cfg(test)]\nmod tests { use crate::config::X; use super::super::server; }"),
        ("app/pool/mod.rs", "use crate::app::settings; use super::exchange;"),
        ("app/settings.rs", "use super::Mount;"),
        ("app/tests.rs", "use crate::server;"),
        ("main.rs", "fn main() { daemun::cli::run() }"),
        ("lib.rs", "pub use crate::config::X;"),
    ] {
        assert_none(&faults(path, text));
    }
}
