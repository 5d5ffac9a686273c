//! Django projects: the WSGI module behind a `manage.py`.

use std::path::{Path, PathBuf};

use super::module::{Application, is_identifier, module_file, read};
use crate::config::section::list;

/// Folders that hold other people's projects.
const FOREIGN: [&str; 6] = ["node_modules", "site-packages", "venv", "env", "dist", "build"];

/// The project whose `manage.py` stands in `folder`.
pub(super) fn find(folder: &Path) -> Result<Application, String> {
    let manage = folder.join("manage.py");
    let path = wsgi_file(folder, &read(&manage)?)?;
    let mut application = module_file(&path, None)?;
    // A package folder without `__init__.py` is imported from the folder of manage.py all the same.
    if let (Ok(below), Some(mount)) = (path.strip_prefix(folder), application.mounts.first_mut())
        && let (Some(module), Some((_, name))) = (dotted(below), mount.callable.split_once(':'))
    {
        mount.callable = format!("{module}:{name}");
    }
    application.directory = folder.to_path_buf();
    application.django = true;
    application.description = format!("Django project {} (manage.py)", folder.display());
    Ok(application)
}

/// Folders just below `folder` that have a `manage.py`.
pub(super) fn projects_below(folder: &Path) -> Vec<PathBuf> {
    folders(folder).into_iter().filter(|folder| folder.join("manage.py").is_file()).collect()
}

/// The settings modules that `text` sets, in order: every string that follows `DJANGO_SETTINGS_MODULE` as its value.
pub(super) fn settings_in(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (start, name) in text.match_indices("DJANGO_SETTINGS_MODULE") {
        let line = text[..start].rfind('\n').map_or(0, |end| end + 1);
        if text[line..start].trim_start().starts_with('#') {
            continue;
        }
        // After the name come its quote, then `,` or `] =`, then the value in quotes.
        let after = text[start + name.len()..].trim_start_matches(['"', '\'']);
        let after = after.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, ']' | '=' | ','));
        let Some(quote) = after.chars().next().filter(|quote| matches!(quote, '"' | '\'')) else { continue };
        let value = after[1..].split(quote).next().unwrap_or_default();
        if value.split('.').all(is_identifier) && !found.iter().any(|known| known == value) {
            found.push(value.to_owned());
        }
    }
    found
}

/// `<package>/wsgi.py` of the settings' package or one above it, else what the settings say, else the only
/// `*/wsgi.py`.
fn wsgi_file(folder: &Path, manage: &str) -> Result<PathBuf, String> {
    let settings = settings_in(manage);
    for module in &settings {
        let mut package = module.as_str();
        loop {
            package = package.rsplit_once('.').map_or("", |(above, _)| above);
            let path = folder.join(package.replace('.', "/")).join("wsgi.py");
            if path.is_file() {
                return Ok(path);
            }
            if package.is_empty() {
                break;
            }
        }
    }
    for module in &settings {
        if let Some(path) = said_by_settings(folder, module) {
            return Ok(path);
        }
    }
    let candidates: Vec<PathBuf> =
        folders(folder).into_iter().map(|folder| folder.join("wsgi.py")).filter(|path| path.is_file()).collect();
    let manage = folder.join("manage.py");
    match &candidates[..] {
        [one] => Ok(one.clone()),
        [] => Err(format!(
            "{} is there, but no wsgi.py: looked beside the settings{} and one folder below; name the callable, such as \
             `mysite.wsgi:application`",
            manage.display(),
            if settings.is_empty() { String::new() } else { format!(" ({})", settings.join(", ")) },
        )),
        several => {
            let names: Vec<String> = several
                .iter()
                .filter_map(|path| path.strip_prefix(folder).ok().and_then(dotted))
                .map(|module| format!("`{module}:application`"))
                .collect();
            Err(format!("{} does not say which wsgi.py is meant; name one: {}", manage.display(), list(&names)))
        }
    }
}

/// `WSGI_APPLICATION = "mysite.wsgi.application"` in the settings.
fn said_by_settings(folder: &Path, settings: &str) -> Option<PathBuf> {
    let base = folder.join(settings.replace('.', "/"));
    let text = read(&base.with_extension("py")).or_else(|_| read(&base.join("__init__.py"))).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("WSGI_APPLICATION"))?;
    let value = line.split(['"', '\'']).nth(1)?;
    let (module, _) = value.rsplit_once('.')?;
    let path = folder.join(module.replace('.', "/")).with_extension("py");
    path.is_file().then_some(path)
}

fn dotted(path: &Path) -> Option<String> {
    Some(path.with_extension("").to_str()?.replace('/', "."))
}

/// The folders in `folder` that may be the project's own, sorted.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries
        .filter(|entry| {
            entry.file_name().to_str().is_some_and(|name| !name.starts_with('.') && !FOREIGN.contains(&name))
        })
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() && !path.join("pyvenv.cfg").exists())
        .collect();
    folders.sort();
    folders
}
