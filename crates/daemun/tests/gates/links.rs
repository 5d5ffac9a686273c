//! Every link from one page to another, or to a heading, leads somewhere.

use std::path::Path;

use crate::{File, assert_none, files, root};

/// The faults of one page. `heading` says whether a file has a heading with an anchor, or, without one, is there.
fn faults(path: &str, text: &str, leads: impl Fn(&str, Option<&str>) -> bool) -> Vec<String> {
    let mut faults = Vec::new();
    let folder = Path::new(path).parent().unwrap_or(Path::new(""));
    for (number, line) in prose(text) {
        for target in targets(&line) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = match target.split_once('#') {
                Some((file, anchor)) => (file, Some(anchor)),
                None => (target.as_str(), None),
            };
            let file = if file.is_empty() { path.to_owned() } else { resolve(folder, file) };
            if !leads(&file, anchor) {
                faults.push(format!("{path}:{number}: `{target}` leads nowhere"));
            }
        }
    }
    faults
}

/// The lines outside of fenced code, numbered, without what stands between backticks.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push((number + 1, line.split('`').step_by(2).collect()));
        }
    }
    lines
}

/// What the links and pictures in a line point to.
fn targets(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("](") {
        let rest = &line[at + 2..];
        let end = rest.find([')', ' ']).unwrap_or(rest.len());
        found.push(rest[..end].to_owned());
    }
    found
}

/// `target` as seen from `folder`, without dots.
fn resolve(folder: &Path, target: &str) -> String {
    let mut parts: Vec<String> = folder.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name.to_owned()),
        }
    }
    parts.join("/")
}

/// The anchor that a forge gives a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).collect::<String>().replace(' ', "-")
}

fn is_there(file: &str, wanted: Option<&str>) -> bool {
    let path = root().join(file);
    let Some(wanted) = wanted else { return path.exists() };
    let Ok(text) = std::fs::read_to_string(path) else { return false };
    text.lines().filter(|line| line.starts_with('#')).any(|line| anchor(line.trim_start_matches('#')) == wanted)
}

#[test]
fn every_link_leads_somewhere() {
    let pages = files("", ".md");
    assert_none(&pages.iter().flat_map(|File { path, text }| faults(path, text, is_there)).collect::<Vec<_>>());
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let page =
        "[a](b.md) ![c](../gone.svg) [d](https://example.com/x)\n```\n[e](f.md)\n```\n`[g](h.md)` [i](#top-of-it)";
    let there = |file: &str, anchor: Option<&str>| file == "docs/b.md" && anchor.is_none();
    let want = ["docs/a.md:1: `../gone.svg` leads nowhere", "docs/a.md:5: `#top-of-it` leads nowhere"];
    assert_eq!(faults("docs/a.md", page, there), want);
    assert_eq!(anchor(" `[app.*]` and ${NAME}, at once"), "app-and-name-at-once");
}
