//! The manual names every key that the configuration knows.

use crate::{assert_none, files};

const PAGE: &str = "docs/manual/daemun-toml.md";

/// The keys in each `known: &[…]` of a source file.
fn known(source: &str) -> Vec<String> {
    let lists = source.split("known: &[").skip(1).filter_map(|rest| rest.split(']').next());
    lists.flat_map(|list| list.split('"').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// The keys that `page` does not name as code: `key`, `[key]`, `key = …`.
fn faults(source: &str, page: &str) -> Vec<String> {
    let mut keys = known(source);
    keys.sort();
    keys.dedup();
    let names = |key: &str| {
        let words = page.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        let in_code = page.contains(&format!("`{key}`"))
            || page.contains(&format!("{key} = "))
            || page.contains(&format!("[{key}"));
        in_code && words.into_iter().any(|word| word == key)
    };
    keys.iter().filter(|key| !names(key)).map(|key| format!("{PAGE}: says nothing of `{key}`")).collect()
}

/// The rows that begin with the same words as one before them in their table, as a merge leaves them.
fn doubled(page: &str) -> Vec<String> {
    let mut seen: Vec<&str> = Vec::new();
    let mut faults = Vec::new();
    for (number, line) in (1..).zip(page.lines()) {
        let first = line.strip_prefix("| ").and_then(|row| row.split(" |").next());
        match first {
            None => seen.clear(),
            Some(key) if key.starts_with('`') && seen.contains(&key) => {
                faults.push(format!("{PAGE}:{number}: {key} has a row already"));
            }
            Some(key) => seen.push(key),
        }
    }
    faults
}

#[test]
fn every_key_is_told() {
    let sources: String = files("crates/daemun/src/config", ".rs").into_iter().map(|file| file.text).collect();
    let page = files("docs/manual", "daemun-toml.md").pop().expect("the page");
    assert_none(&faults(&sources, &page.text));
    assert_none(&doubled(&page.text));
}

#[test]
fn a_key_that_is_told_twice_is_found() {
    let page = "| key | what |\n| --- | --- |\n| `a` | x |\n| `b` | y |\n| `a` | z |\n\n| `a` | of another table |\n";
    assert_eq!(doubled(page), ["docs/manual/daemun-toml.md:5: `a` has a row already"]);
}

#[test]
fn a_key_that_is_not_told_is_found() {
    let source = "Keys { known: &[\"listen\", \"grace\"], later: &[\"monitor\"] };\nKeys { known: &[\n\"path\",\n] }";
    assert_eq!(known(source), ["listen", "grace", "path"]);
    let page = "| `listen` | where |\n`path = \"x\"` and graceful";
    assert_eq!(faults(source, page), ["docs/manual/daemun-toml.md: says nothing of `grace`"]);
}
