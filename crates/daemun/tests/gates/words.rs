//! The repository speaks of daemun alone: no path of one machine, no registry's address.

use std::process::Command;

use crate::{File, assert_none, files, root};

/// What may not stand in a file. Put together here, so that this file does not hold them itself.
fn forbidden() -> Vec<String> {
    let folders = ["root", "work"].map(|folder| format!("/{folder}/"));
    // Builds and tests reach registries through their ordinary clients, which know where those are.
    let hosts = [
        ["index.", "crates.io"],
        ["static.", "crates.io"],
        ["py", "pi.org"],
        ["pythonhosted", ".org"],
        ["deb.deb", "ian.org"],
    ];
    let hosts = hosts.iter().chain(&[["registry.npm", "js.org"]]).map(|parts| parts.concat());
    folders.into_iter().chain(hosts).collect()
}

fn faults(path: &str, text: &str, forbidden: &[String]) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for word in forbidden {
            if line.match_indices(word.as_str()).any(|(at, _)| stands_alone(line, at)) {
                faults.push(format!("{path}:{}: `{word}`", number + 1));
            }
        }
    }
    faults
}

/// Whether what begins at `at` is not the tail of a longer path, such as `$DIR/work/`.
fn stands_alone(line: &str, at: usize) -> bool {
    !line[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '}' | ')'))
}

/// What git knows of; without git, everything that was not built.
fn tracked() -> Vec<File> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    let all = files("", "");
    match listed {
        Ok(listed) if listed.status.success() => {
            let names = String::from_utf8_lossy(&listed.stdout).into_owned();
            let names: std::collections::HashSet<&str> = names.split('\0').collect();
            all.into_iter().filter(|file| names.contains(file.path.as_str())).collect()
        }
        _ => all,
    }
}

#[test]
fn the_repository_speaks_of_itself_alone() {
    let forbidden = forbidden();
    let tracked = tracked();
    assert!(tracked.len() > 20, "only {} files were found", tracked.len());
    assert_none(&tracked.iter().flat_map(|File { path, text }| faults(path, text, &forbidden)).collect::<Vec<_>>());
}

#[test]
fn a_machines_path_and_a_registrys_address_are_found() {
    let forbidden = forbidden();
    let text = format!("cd {}x\nok {}x\nfetch https://{}/simple\n", forbidden[0], "$DIR/work/", forbidden[4]);
    let want = [format!("a:1: `{}`", forbidden[0]), format!("a:3: `{}`", forbidden[4])];
    assert_eq!(faults("a", &text, &forbidden), want);
}
