//! Asks an application, inside its own interpreter and as its own user.

use std::collections::BTreeMap;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;

use rustix::fs::MemfdFlags;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Examination, IMPORT, is_django};
use crate::app::{AppSettings, DjangoInfo, SHIM, collect};
use crate::codes::{self, Finding};
use crate::process::Account;

/// What its interpreter runs.
const PROGRAM: &str = concat!(include_str!("../app/asked.py"), include_str!("probe.py"));

/// The rules of Django projects; the Python package brings the same file.
const RULES: &str = include_str!("../../../../python/daemun/django/rules.py");

/// What they are told by where settings were assigned.
const PLACES: &str = include_str!("../../../../python/daemun/django/places.py");

/// Settings that the rules of [`deployment`](super::deployment) look at.
const SETTINGS: &[&str] = &[
    "SECURE_SSL_REDIRECT",
    "SECURE_PROXY_SSL_HEADER",
    "SESSION_COOKIE_SECURE",
    "CSRF_COOKIE_SECURE",
    "PREPEND_WWW",
    "MIDDLEWARE",
];

/// Longest answer that is read.
const LONGEST: u64 = 64 * 1024 * 1024;

/// What an application says of itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Answer {
    /// Why it cannot be imported.
    error: Option<Failure>,
    /// What `serve` would be told; `None` where it is no Django project.
    pub(super) django: Option<DjangoInfo>,
    findings: Vec<Found>,
    ran: Vec<String>,
    skipped: BTreeMap<String, String>,
    /// [`SETTINGS`].
    pub(super) settings: BTreeMap<String, Value>,
    /// Where each setting was set last.
    pub(super) places: BTreeMap<String, Place>,
}

/// A place in a settings file.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Place {
    pub(super) file: String,
    pub(super) line: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Failure {
    text: String,
    kind: String,
    file: Option<String>,
    line: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct Found {
    code: String,
    message: String,
    mend: Option<String>,
    file: Option<String>,
    line: Option<u32>,
}

/// Asks one application; what its rules found is told, and the rest of its answer given.
pub(super) fn ask(app: &AppSettings, account: Option<&Account>, examination: &mut Examination) -> Option<Answer> {
    let django: Vec<&str> = codes::all().map(|code| code.id).filter(|id| is_django(id) && *id != "D205").collect();
    let mut answer = match question(app, account) {
        Ok(answer) => answer,
        Err(error) => {
            if app.django {
                examination.skip(&django, "the project could not be asked");
            }
            examination.skip(IMPORT, "an application could not be asked");
            examination.add(Finding::new("D002", format!("[app.{}]: {error}", app.name)));
            return None;
        }
    };
    examination.run(IMPORT);
    for found in std::mem::take(&mut answer.findings) {
        let mut finding = Finding::new(&found.code, found.message);
        finding.mend = found.mend;
        (finding.file, finding.line) = (found.file, found.line);
        examination.add(finding);
    }
    if let Some(error) = answer.error {
        examination.add(failure(app, error));
        if app.django {
            examination.skip(&django, "the project cannot be imported");
        }
        return None;
    }
    examination.run(&answer.ran);
    for (code, reason) in &answer.skipped {
        examination.skip(&[code], reason);
    }
    Some(answer)
}

/// An import that failed, as a mistake.
fn failure(app: &AppSettings, error: Failure) -> Finding {
    let is_key = error.text.contains("SECRET_KEY");
    let what = format!("[app.{}]: {}", app.name, error.text);
    let mut finding = if is_key {
        let message = format!("{what}: nothing of the project can be imported without SECRET_KEY");
        Finding::new("D205", message).mend("set it where daemun starts: --env-file, or `env_file` in [app.NAME]")
    } else if error.kind == "ModuleNotFoundError" {
        Finding::new("D002", what).mend(format!("run {} -m pip install …", app.python.display()))
    } else {
        Finding::new("D002", what)
    };
    (finding.file, finding.line) = (error.file, error.line);
    finding
}

fn question(app: &AppSettings, account: Option<&Account>) -> Result<Answer, String> {
    let failed = |error: std::io::Error| format!("{} cannot be run: {error}", app.python.display());
    let callables: Vec<&str> = app.mounts.iter().map(|mount| mount.callable.as_str()).collect();
    let orders = json!({
        "shim": SHIM,
        "rules": RULES,
        "places": PLACES,
        "callables": callables,
        "workers": u64::from(app.processes) * u64::from(app.threads),
        "threads": app.threads,
        "settings": SETTINGS,
    });
    let memory = rustix::fs::memfd_create("daemun-check", MemfdFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let mut file = std::fs::File::from(memory);
    file.write_all(orders.to_string().as_bytes()).and_then(|()| file.rewind()).map_err(failed)?;
    let (mut reader, writer) = std::io::pipe().map_err(failed)?;
    let (lifeline, kept) = std::io::pipe().map_err(failed)?;
    let descriptors = vec![OwnedFd::from(file), OwnedFd::from(writer), OwnedFd::from(lifeline)];
    let mut child = collect::run_as(app, account, PROGRAM, &["3", "4", "5"], descriptors).map_err(failed)?;
    let mut text = Vec::new();
    let read = reader.by_ref().take(LONGEST).read_to_end(&mut text);
    drop(kept);
    let status = child.wait().map_err(failed)?;
    read.map_err(failed)?;
    if !status.success() {
        return Err(format!("the application could not be asked ({status})"));
    }
    serde_json::from_slice(&text).map_err(|error| format!("the application's answer is not understood: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_in_python_are_as_bad_as_their_codes_say() {
        let table = RULES.split("SEVERITIES = {").nth(1).and_then(|rest| rest.split("\n}").next()).unwrap();
        let mut seen = 0;
        for line in table.lines().filter(|line| line.contains("fromkeys")) {
            let words: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
            let (severity, ids) = words.split_last().unwrap();
            for id in ids {
                assert_eq!(codes::find(id).unwrap().severity.to_string(), *severity, "{id}");
                seen += 1;
            }
        }
        let ran: usize =
            RULES.lines().filter(|line| line.starts_with("@rule(")).map(|line| line.matches('D').count()).sum();
        assert_eq!(seen, ran);
    }
}
