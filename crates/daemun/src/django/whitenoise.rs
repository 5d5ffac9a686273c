//! What whitenoise's settings mean here, so that a project that leaves whitenoise behind is served as it was.
//!
//! Without any of them its defaults hold: plain names are kept for a minute, and every origin may use static files (fonts
//! and modules of a page on another host need that).

use std::collections::BTreeMap;
use std::path::Path;

use super::{Findings, ORIGIN, files, finding, place, route, static_file};
use crate::app::DjangoInfo;
use crate::codes::Finding;
use crate::static_files::{Missing, Root, StaticSettings};

/// Seconds for which whitenoise has plain names kept.
const MAX_AGE: u32 = 60;

/// Gives the static route what whitenoise would. `is_edited` where the files are sources, which nobody may keep.
pub(super) fn adopt(info: &DjangoInfo, settings: &mut StaticSettings, is_edited: bool) {
    let wishes = &info.whitenoise_settings;
    if !is_edited {
        settings.max_age = match wishes.max_age {
            None => Some(MAX_AGE),
            Some(..0) => None,
            Some(seconds) => Some(u32::try_from(seconds).unwrap_or(u32::MAX >> 1)),
        };
    }
    // None in the settings: whitenoise says nothing then.
    settings.age_unsaid = wishes.max_age.is_some_and(|seconds| seconds < 0);
    if wishes.allow_all_origins.unwrap_or(true) {
        settings.headers.insert("Access-Control-Allow-Origin".to_owned(), "*".to_owned());
    }
    settings.types = wishes.mimetypes.clone();
    settings.index.extend(wishes.index_file.clone());
}

/// The routes of `WHITENOISE_ROOT`: whitenoise looks once which files are there, and so do we; what is below a folder
/// that is there is looked for each time.
pub(super) fn root_routes(info: &DjangoInfo, findings: &mut Findings) {
    let Some(root) = info.whitenoise_settings.root.as_deref() else { return };
    let origin = format!("{ORIGIN}WHITENOISE_ROOT, {}", place(info, "WHITENOISE_ROOT"));
    let Ok(entries) = std::fs::read_dir(root) else {
        let message = format!("WHITENOISE_ROOT is {root}, and there is no such folder");
        findings.warnings.push(finding(info, "D119", "WHITENOISE_ROOT", message));
        return;
    };
    let settings = |path: &Path| {
        let mut settings = files(vec![Root { path: path.to_owned(), prefix: String::new() }], false, !info.debug, true);
        adopt(info, &mut settings, info.debug);
        StaticSettings { missing: Missing::Next, ..settings }
    };
    let mut names: BTreeMap<String, bool> = BTreeMap::new();
    for entry in entries.flatten() {
        // A name that is not text cannot stand in a route.
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !name.starts_with('.') || name == ".well-known" {
            names.insert(name, entry.path().is_dir());
        }
    }
    let taken: Vec<String> = findings.routes.iter().map(|route| route.rule.path.to_string()).collect();
    let is_root = info.whitenoise_settings.index_file.as_ref().is_some_and(|index| names.contains_key(index));
    for (name, is_folder) in names {
        let path = Path::new(root);
        let made = if is_folder {
            route(format!("/{name}/"), origin.clone(), settings(&path.join(&name)))
        } else {
            static_file(format!("/{name}"), origin.clone(), settings(path))
        };
        if !taken.contains(&made.rule.path.to_string()) {
            findings.routes.push(made);
        }
    }
    if is_root {
        findings.routes.push(static_file("/".to_owned(), origin, settings(Path::new(root))));
    }
}

/// Settings that mean something that is not done here.
pub(super) fn warn(info: &DjangoInfo, warnings: &mut Vec<Finding>) {
    for name in &info.whitenoise_settings.unsupported {
        let why = match name.as_str() {
            "WHITENOISE_IMMUTABLE_FILE_TEST" => {
                "exactly the names that the manifest hashes are immutable here, so delete it or use a manifest storage"
            }
            "WHITENOISE_ADD_HEADERS_FUNCTION" => {
                "a function cannot run in the front; write headers = { … } on a static route of a daemun.toml"
            }
            "WHITENOISE_CHARSET" => {
                "text is sent as UTF-8 here, so name the types of files that are not: WHITENOISE_MIMETYPES = {\".txt\": \
                 \"text/plain; charset=…\"}"
            }
            "WHITENOISE_USE_FINDERS" => {
                "once files have been collected only those are served, with DEBUG and before it all that the finders find"
            }
            _ => "it means nothing here",
        };
        warnings.push(finding(info, "D120", name, format!("{name} is not followed: {why}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::WhitenoiseSettings;

    fn adopted(wishes: WhitenoiseSettings, is_edited: bool) -> StaticSettings {
        let mut settings = StaticSettings::default();
        adopt(&DjangoInfo { whitenoise_settings: wishes, ..DjangoInfo::default() }, &mut settings, is_edited);
        settings
    }

    #[test]
    fn without_settings_whitenoises_defaults_hold() {
        let settings = adopted(WhitenoiseSettings::default(), false);
        assert_eq!((settings.max_age, settings.index.len()), (Some(60), 0));
        assert_eq!(settings.headers["Access-Control-Allow-Origin"], "*");
        assert_eq!(adopted(WhitenoiseSettings::default(), true).max_age, None);
    }

    #[test]
    fn settings_are_followed() {
        let settings = adopted(
            WhitenoiseSettings {
                max_age: Some(5),
                index_file: Some("home.html".to_owned()),
                mimetypes: [(".x".to_owned(), "x/x".to_owned())].into(),
                allow_all_origins: Some(false),
                ..WhitenoiseSettings::default()
            },
            false,
        );
        assert_eq!((settings.max_age, settings.index), (Some(5), vec!["home.html".to_owned()]));
        assert!(settings.headers.is_empty());
        assert_eq!(settings.types[".x"], "x/x");
        let never = WhitenoiseSettings { max_age: Some(-1), ..WhitenoiseSettings::default() };
        let settings = adopted(never, false);
        assert_eq!((settings.max_age, settings.age_unsaid), (None, true));
    }

    #[test]
    fn the_files_of_whitenoise_root_get_routes_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["robots.txt", "index.html", ".env"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        std::fs::create_dir(folder.path().join("docs")).unwrap();
        let wishes = WhitenoiseSettings {
            root: Some(folder.path().to_str().unwrap().to_owned()),
            index_file: Some("index.html".to_owned()),
            ..WhitenoiseSettings::default()
        };
        let mut findings = Findings::default();
        root_routes(&DjangoInfo { whitenoise_settings: wishes, ..DjangoInfo::default() }, &mut findings);
        let paths: Vec<String> = findings.routes.iter().map(|route| route.rule.path.to_string()).collect();
        assert_eq!(paths, ["/docs/*", "/index.html", "/robots.txt", "/"]);
    }
}
