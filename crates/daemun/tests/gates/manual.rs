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

#[test]
fn every_key_is_told() {
    let sources: String = files("crates/daemun/src/config", ".rs").into_iter().map(|file| file.text).collect();
    let page = files("docs/manual", "daemun-toml.md").pop().expect("the page");
    assert_none(&faults(&sources, &page.text));
}

#[test]
fn a_key_that_is_not_told_is_found() {
    let source = "Keys { known: &[\"listen\", \"grace\"], later: &[\"monitor\"] };\nKeys { known: &[\n\"path\",\n] }";
    assert_eq!(known(source), ["listen", "grace", "path"]);
    let page = "| `listen` | where |\n`path = \"x\"` and graceful";
    assert_eq!(faults(source, page), ["docs/manual/daemun-toml.md: says nothing of `grace`"]);
}
