//! `daemun.toml`.

use std::collections::BTreeMap;

use daemun::config::{Environment, Wishes, gather};

/// Bytes beyond which a file only costs time.
const LONGEST: usize = 4096;

/// A file gives a configuration or faults that name their place, and nothing in between.
pub(crate) fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text.len() > LONGEST {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("daemun.toml"), text).expect("a file");
    let mut variables = BTreeMap::new();
    // No interpreter: none is to be started.
    variables.insert("PATH".to_owned(), folder.path().display().to_string());
    variables.insert("N".to_owned(), "7".to_owned());
    let environment = Environment { variables, directory: folder.path().to_path_buf(), executable: None, cores: 2 };
    if let Err(error) = gather(&Wishes::default(), &environment) {
        let told = error.to_string();
        assert!(!told.is_empty());
        assert!(told.lines().all(|line| !line.trim().is_empty()), "{told:?}");
    }
}
