//! `collect`: a project's static files, deployed.
//!
//! 1. [`ask`]: the project's own interpreter tells of finders, storage and settings, once.
//! 2. [`daemun_static::collect`] does the work; where the project does something that it does not do just so, Django's
//!    own command does it, and a line says why.
//!
//! All of it runs as the application's user: whoever can edit a project's settings must not be root by that. Where
//! we are root, this program starts itself once more, in [`ROLE`].

mod order;
mod packing;
mod question;
mod tell;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use daemun_static::{Compression, Hashing, ManifestSettings, Progress, Report, Rewriting, Settings, Source};

pub use order::{Levels, Options, Order, ROLE, carry_out, execute, start, start_and_wait};
pub use packing::{ROLE as PACKING_ROLE, run as pack};
pub use question::{Answer, Check, Setting, Storage, ask};
pub use tell::{Bar, Outcome, tell};

use crate::app::{AppSettings, collect};

/// Why nothing was collected.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The interpreter cannot be started.
    #[error("cannot run {}: {_1}", _0.display())]
    Interpreter(PathBuf, std::io::Error),
    /// It failed.
    #[error("the project could not be asked ({0}); what it said stands above")]
    Asking(String),
    /// What it said is not understood.
    #[error("the project's answer is not understood: {0}")]
    Answer(String),
    /// The settings do not allow it.
    #[error("{0}")]
    Settings(String),
    /// Django's own command failed.
    #[error("Django's collectstatic failed ({0}); what it said stands above")]
    Django(String),
    /// The work failed.
    #[error("{0}")]
    Static(#[from] daemun_static::Error),
    /// Another process of ours cannot be started.
    #[error("cannot start another process: {0}")]
    Start(std::io::Error),
}

/// Collects the files of one Django project.
pub fn project(settings: &AppSettings, options: &Options, progress: &dyn Progress) -> Result<Outcome, CollectError> {
    let answer = ask(settings)?;
    for check in &answer.checks {
        let id = check.id.as_deref().unwrap_or("staticfiles");
        let hint = check.hint.as_ref().map_or(String::new(), |hint| format!("; {hint}"));
        let place = place(&answer, if id == "staticfiles.E002" { "STATIC_ROOT" } else { "STATICFILES_DIRS" });
        let line = format!("{place}: {} ({id}){hint}", check.message);
        if check.level >= 40 {
            return Err(CollectError::Settings(line));
        }
        eprintln!("daemun: warning: {line}");
    }
    if let Some(reason) = &answer.fallback {
        return by_django(settings, options, reason);
    }
    if !answer.staticfiles {
        let place = place(&answer, "INSTALLED_APPS");
        let message = format!("{place}: django.contrib.staticfiles is not installed: add it to INSTALLED_APPS");
        return Err(CollectError::Settings(message));
    }
    let work = work(&answer, options)?;
    let destination = work.destination.clone();
    let storage = answer.storage.map(|storage| storage.class);
    let report = daemun_static::collect(&work, progress)?;
    Ok(Outcome { destination: Some(destination), storage, django: None, report })
}

/// `settings.py:28`, or the bare settings module where the line is not known.
fn place(answer: &Answer, setting: &str) -> String {
    match answer.places.get(setting) {
        Some(place) => format!("{}:{}", place.file, place.line),
        None => answer.settings_module.clone().unwrap_or_else(|| String::from("settings")),
    }
}

fn work(answer: &Answer, options: &Options) -> Result<Settings, CollectError> {
    let storage = answer.storage.clone().unwrap_or_default();
    let Some(location) = storage.location.as_ref().filter(|location| !location.is_empty()) else {
        let place = place(answer, "STATIC_URL");
        let mend = "paste STATIC_ROOT = BASE_DIR / \"staticfiles\" there";
        return Err(CollectError::Settings(format!("{place}: STATIC_ROOT is not set; {mend}")));
    };
    let destination = PathBuf::from(location);
    if destination.parent().is_none() {
        let place = place(answer, "STATIC_ROOT");
        let message =
            format!("{place}: STATIC_ROOT is {location}, the root of the file system; name a folder of its own");
        return Err(CollectError::Settings(message));
    }
    let mut ignore = answer.ignore.clone();
    ignore.extend(options.ignore.iter().cloned());
    Ok(Settings {
        sources: answer.sources.clone(),
        ignore,
        destination,
        hashing: storage.hashing,
        compression: options.compression(storage.compression),
        file_mode: storage.file_mode,
        folder_mode: storage.folder_mode,
        ..options.settings()
    })
}

/// Collects the files of a folder that no project describes: hashed, compressed, with a manifest.
pub fn folder(
    source: PathBuf,
    destination: PathBuf,
    static_url: &str,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Outcome, CollectError> {
    let hashing = Hashing {
        rewriting: Rewriting::standard(static_url),
        passes: 5,
        keep_intermediate: false,
        only_hashed: false,
        manifest: Some(ManifestSettings::standard()),
    };
    let mut ignore: Vec<String> = ["CVS", ".*", "*~"].map(String::from).into();
    ignore.extend(options.ignore.iter().cloned());
    let work = Settings {
        sources: vec![Source { prefix: String::new(), path: source }],
        ignore,
        destination: destination.clone(),
        hashing: Some(hashing),
        compression: options.compression(Some(Levels::standard())),
        ..options.settings()
    };
    let report = daemun_static::collect(&work, progress)?;
    Ok(Outcome { destination: Some(destination), storage: None, django: None, report })
}

/// Django's own command, said aloud.
fn by_django(settings: &AppSettings, options: &Options, reason: &str) -> Result<Outcome, CollectError> {
    eprintln!("daemun: collect: {reason}: Django's own collectstatic does it, without cache and parallel work");
    let arguments = serde_json::json!({
        "dry_run": options.dry_run,
        "clear": options.clear,
        "ignore_patterns": options.ignore,
    });
    let failed = |error| CollectError::Interpreter(settings.python.clone(), error);
    let (lifeline, kept) = std::io::pipe().map_err(failed)?;
    let mut child = collect::run_django(settings, &arguments.to_string(), OwnedFd::from(lifeline)).map_err(failed)?;
    let status = child.wait().map_err(failed)?;
    drop(kept);
    if !status.success() {
        return Err(CollectError::Django(status.to_string()));
    }
    Ok(Outcome { destination: None, storage: None, django: Some(reason.to_owned()), report: Report::default() })
}

/// What a compression comes to with the levels that were asked for.
fn with_levels(compression: Option<Compression>, levels: &Levels) -> Option<Compression> {
    let mut compression = match compression {
        Some(compression) => compression,
        None if levels.is_any() => Levels::nothing(),
        None => return None,
    };
    if let Some(level) = levels.gzip {
        compression.gzip = Some(level).filter(|level| *level > 0);
        compression.gzip_only_with_brotli = false;
    }
    if let Some(level) = levels.brotli {
        compression.brotli = level;
    }
    if let Some(level) = levels.zstd {
        compression.zstd = Some(level).filter(|level| *level > 0);
    }
    (compression.gzip.is_some() || compression.brotli.is_some() || compression.zstd.is_some()).then_some(compression)
}
