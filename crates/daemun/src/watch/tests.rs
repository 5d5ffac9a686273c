use std::fs;
use std::sync::mpsc::{Receiver, channel};

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

fn watch(settings: WatchSettings) -> (Watch, Receiver<Notice>) {
    let (sender, receiver) = channel();
    let watch = Watch::start(settings, move |notice| sender.send(notice).is_ok()).unwrap();
    (watch, receiver)
}

/// The next whole change: its purpose and the names of its files.
fn next(notices: &Receiver<Notice>) -> (Purpose, Vec<String>) {
    loop {
        if let Notice::Ended(purpose, paths) = notices.recv_timeout(DEADLINE).expect("a change") {
            let names = paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
            return (purpose, names.collect());
        }
    }
}

fn of(folder: &std::path::Path, poll: bool) -> WatchSettings {
    WatchSettings { folders: vec![folder.to_owned()], poll, ..WatchSettings::default() }
}

#[test]
fn changes_are_told_by_what_the_files_are_for() {
    for poll in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::write(root.join("views.py"), "1").unwrap();
        fs::write(root.join("page.html"), "1").unwrap();
        let (_watch, notices) = watch(of(root, poll));
        fs::write(root.join("style.css"), "new").unwrap();
        assert_eq!(next(&notices), (Purpose::Asset, vec![String::from("style.css")]));
        fs::write(root.join("page.html"), "other").unwrap();
        assert_eq!(next(&notices), (Purpose::Template, vec![String::from("page.html")]));
        fs::remove_file(root.join("views.py")).unwrap();
        assert_eq!(next(&notices), (Purpose::Code, vec![String::from("views.py")]));
    }
}

#[test]
fn folders_that_come_later_are_watched_and_others_files_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for others in ["node_modules", ".git", "venv", "__pycache__"] {
        fs::create_dir(root.join(others)).unwrap();
    }
    fs::write(root.join("venv/pyvenv.cfg"), "").unwrap();
    let (_watch, notices) = watch(of(root, false));
    for others in ["node_modules/a.py", ".git/a.py", "venv/a.py", "__pycache__/a.py", ".#views.py", "db.sqlite3"] {
        fs::write(root.join(others), "").unwrap();
    }
    fs::create_dir_all(root.join("shop/inner")).unwrap();
    fs::write(root.join("shop/inner/models.py"), "").unwrap();
    assert_eq!(next(&notices), (Purpose::Code, vec![String::from("models.py")]));
    fs::write(root.join("shop/inner/models.py"), "x").unwrap();
    assert_eq!(next(&notices), (Purpose::Code, vec![String::from("models.py")]));
}

#[test]
fn what_is_watched_from_now_on_has_not_changed() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(second.path().join("mail"), "1").unwrap();
    let (watch, notices) = watch(of(first.path(), true));
    let templates = vec![second.path().to_owned()];
    watch.change(WatchSettings { templates, ..of(first.path(), true) });
    fs::write(first.path().join("a.py"), "").unwrap();
    assert_eq!(next(&notices), (Purpose::Code, vec![String::from("a.py")]));
}

#[test]
fn a_file_of_configuration_may_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("daemun.toml");
    fs::write(&file, "1").unwrap();
    let files = vec![file.clone()];
    let (_watch, notices) = watch(WatchSettings { files, ..WatchSettings::default() });
    fs::write(folder.path().join("new"), "22").unwrap();
    fs::rename(folder.path().join("new"), &file).unwrap();
    assert_eq!(next(&notices), (Purpose::Code, vec![String::from("daemun.toml")]));
}
