//! Every row of a conformance table names a test that exists.

use std::path::Path;

use crate::{File, assert_none, files};

/// Where tests stand.
struct Tests {
    rust: Vec<File>,
    python: Vec<File>,
}

impl Tests {
    fn read() -> Self {
        let mut python = files("tests", ".py");
        python.extend(files("crates", ".py"));
        Self { rust: files("crates", ".rs"), python }
    }

    /// Whether `name` is a test: `tests/…/test_x.py::test_name`, or the path of a Rust function.
    fn has(&self, name: &str) -> bool {
        let mut parts: Vec<&str> = name.split("::").collect();
        let Some(function) = parts.pop() else { return false };
        let function = function.split('[').next().unwrap_or(function);
        if parts.first().is_some_and(|file| Path::new(file).extension().is_some_and(|ending| ending == "py")) {
            let file = self.python.iter().find(|file| file.path == parts[0]);
            return file.is_some_and(|file| names(&file.text, &format!("def {function}(")));
        }
        // The modules in front of the function have to lead to the file that holds it.
        let modules: Vec<&str> =
            parts.into_iter().filter(|part| !matches!(*part, "tests" | "it" | "daemun" | "daemun_protocol")).collect();
        self.rust.iter().any(|file| {
            let leads = |module: &&str| {
                file.path.split('/').any(|part| part.trim_end_matches(".rs") == *module)
                    || file.text.contains(&format!("mod {module} "))
            };
            names(&file.text, &format!("fn {function}(")) && modules.iter().all(leads)
        })
    }
}

/// Whether `text` holds `what` outside of a line comment.
fn names(text: &str, what: &str) -> bool {
    text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(what))
}

/// The faults of one table.
fn faults(path: &str, text: &str, tests: &Tests) -> Vec<String> {
    let mut faults = Vec::new();
    let mut rows = 0;
    for (number, line) in text.lines().enumerate().filter(|(_, line)| line.starts_with('|')) {
        let place = format!("{path}:{}", number + 1);
        let cells = cells(line);
        if cells.first().is_some_and(|cell| cell == "requirement") || cells.iter().all(|cell| is_rule(cell)) {
            continue;
        }
        rows += 1;
        let [_, source, held_by] = &cells[..] else {
            faults.push(format!("{place}: {} cells instead of `| requirement | source | test |`", cells.len()));
            continue;
        };
        if source.is_empty() {
            faults.push(format!("{place}: no source"));
        }
        let names: Vec<&str> = held_by
            .split([',', '`', ' '])
            .flat_map(|part| part.split("<br>"))
            .filter(|name| !name.is_empty())
            .collect();
        if names.is_empty() {
            faults.push(format!("{place}: no test"));
        }
        faults.extend(names.iter().filter(|name| !tests.has(name)).map(|name| format!("{place}: no test `{name}`")));
    }
    if rows == 0 {
        faults.push(format!("{path}: no row"));
    }
    faults
}

/// The cells of a row; `\|` does not separate.
fn cells(line: &str) -> Vec<String> {
    let line = line.replace("\\|", "\u{0}");
    let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
    inner.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
}

fn is_rule(cell: &str) -> bool {
    !cell.is_empty() && cell.chars().all(|c| matches!(c, '-' | ':'))
}

#[test]
fn every_row_names_a_test_that_exists() {
    let tests = Tests::read();
    let tables = files("docs/conformance", ".md");
    assert!(tables.len() > 1, "docs/conformance holds no table");
    let tables = tables.iter().filter(|file| !file.path.ends_with("README.md"));
    assert_none(&tables.flat_map(|file| faults(&file.path, &file.text, &tests)).collect::<Vec<_>>());
}

#[test]
fn a_row_without_an_existing_test_is_found() {
    let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
    let tests = Tests {
        rust: vec![
            file("crates/daemun/src/http/path.rs", "    fn dots_go() {}\n// fn said_only() {}"),
            file("crates/daemun/tests/it/framing.rs", "async fn refused() {}"),
        ],
        python: vec![file("tests/python/test_x.py", "def test_y(a):")],
    };
    let table = "\
# A standard

| requirement | source | test |
| --- | :-: | --- |
| a | RFC 1 | `http::path::tests::dots_go` |
| b | RFC 1 | `it::framing::refused`, `tests/python/test_x.py::test_y[1]` |
| c | RFC 1 | |
| d | RFC 1 | `http::path::tests::gone` |
| e | RFC 1 | `http::h1::tests::dots_go` |
| f | RFC 1 | `tests/python/test_x.py::test_z` |
| g | RFC 1 | `tests/python/test_z.py::test_y` |
| h | | `it::framing::refused` |
| i | RFC 1 |
| j \\| k | RFC 1 | `http::path::tests::said_only` |
";
    let found = faults("t.md", table, &tests);
    let want = [
        "t.md:7: no test",
        "t.md:8: no test `http::path::tests::gone`",
        "t.md:9: no test `http::h1::tests::dots_go`",
        "t.md:10: no test `tests/python/test_x.py::test_z`",
        "t.md:11: no test `tests/python/test_z.py::test_y`",
        "t.md:12: no source",
        "t.md:13: 2 cells instead of `| requirement | source | test |`",
        "t.md:14: no test `http::path::tests::said_only`",
    ];
    assert_eq!(found, want);
    assert_eq!(faults("e.md", "# Nothing\n", &tests), ["e.md: no row"]);
}
