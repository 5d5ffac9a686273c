//! What a project answers when it is asked about its static files.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::OwnedFd;

use daemun_static::{Compression, Hashing, Source};
use serde::Deserialize;

use super::CollectError;
use crate::app::{AppSettings, collect};

/// What its interpreter runs.
const PROGRAM: &str = concat!(
    include_str!("../../app/asked.py"),
    include_str!("../../../../../python/daemun/django/places.py"),
    include_str!("../ask.py")
);

/// Longest answer that is read: a project with ten thousands of settings and folders.
const LONGEST: u64 = 64 * 1024 * 1024;

/// What a project says of itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// Django's version.
    pub django: String,
    /// Python's.
    pub python: String,
    /// Why Django's own command must do it.
    pub fallback: Option<String>,
    /// Whether `django.contrib.staticfiles` is installed.
    pub staticfiles: bool,
    /// Where files come from, in the finders' order.
    pub sources: Vec<Source>,
    /// What is left out.
    pub ignore: Vec<String>,
    /// What the storage does.
    pub storage: Option<Storage>,
    /// What Django's own checks of static files say.
    pub checks: Vec<Check>,
    /// The settings module.
    pub settings_module: Option<String>,
    /// Settings that matter for deploying, as JSON.
    pub settings: BTreeMap<String, serde_json::Value>,
    /// Where each setting was set last.
    pub places: BTreeMap<String, Setting>,
}

/// The storage of static files.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Storage {
    /// Its class.
    pub class: String,
    /// `STATIC_ROOT`.
    pub location: Option<String>,
    /// Mode of files.
    pub file_mode: Option<u32>,
    /// Mode of folders.
    pub folder_mode: Option<u32>,
    /// Hashed names, where it makes them.
    pub hashing: Option<Hashing>,
    /// Compressed siblings, where it makes them.
    pub compression: Option<Compression>,
}

/// A message of Django's system checks.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Check {
    /// 40 and above: an error.
    pub level: u32,
    /// Such as `staticfiles.E002`.
    pub id: Option<String>,
    /// What is wrong.
    pub message: String,
    /// The mend.
    pub hint: Option<String>,
}

/// A place in a settings file.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Setting {
    /// The file.
    pub file: String,
    /// The line.
    pub line: u32,
}

/// Asks the project, inside its own interpreter.
pub fn ask(settings: &AppSettings) -> Result<Answer, CollectError> {
    let failed = |error: std::io::Error| CollectError::Interpreter(settings.python.clone(), error);
    let (mut reader, writer) = std::io::pipe().map_err(failed)?;
    let (lifeline, kept) = std::io::pipe().map_err(failed)?;
    let descriptors = vec![OwnedFd::from(writer), OwnedFd::from(lifeline)];
    let mut child = collect::run(settings, PROGRAM, &["3", "4"], descriptors).map_err(failed)?;
    let mut text = Vec::new();
    let read = reader.by_ref().take(LONGEST).read_to_end(&mut text);
    drop(kept);
    let status = child.wait().map_err(failed)?;
    read.map_err(failed)?;
    if !status.success() {
        return Err(CollectError::Asking(status.to_string()));
    }
    serde_json::from_slice(&text).map_err(|error| CollectError::Answer(error.to_string()))
}
