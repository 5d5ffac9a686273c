//! `check`: what is wrong with a deployment before it is deployed.
//!
//! 1. The configuration was gathered; its warnings have codes already, its faults are mistakes too.
//! 2. [`probe`]: each application's own interpreter imports it and, for a Django project, runs the rules of
//!    `python/daemun/django/rules.py`, as the application's user.
//! 3. [`deployment`], [`scripts`], [`folders`], [`listeners`], [`rights`]: rules that need the server's side.
//!
//! Nothing is started, written or collected. What is wrong is told with the codes of [`codes`].

mod deployment;
mod folders;
mod listeners;
mod probe;
mod report;
mod rights;
mod scripts;

use std::collections::{BTreeMap, BTreeSet};

pub use report::Report;
pub use rights::{closed_to_the_front, sent_for_programs};

use crate::codes::{self, Finding, Severity};
use crate::config::{ConfigError, Configuration, Environment, Place};
use crate::django;
use crate::supervisor::identity;

/// Rules that every import of an application decides.
const IMPORT: &[&str] = &["D002", "D005", "D006", "D007", "D008", "D205"];

/// Warnings of the configuration that stand for themselves.
const CONFIGURED: &[&str] = &["D001", "D003", "D004", "D404", "D405"];

/// What has been found so far.
#[derive(Debug, Default)]
pub(crate) struct Examination {
    findings: Vec<Finding>,
    ran: BTreeSet<String>,
    skipped: BTreeMap<String, String>,
}

/// Checks everything.
pub fn run(gathered: Result<Configuration, ConfigError>, environment: &Environment) -> Report {
    let mut examination = Examination::default();
    examination.run(CONFIGURED);
    match gathered {
        Err(error) => {
            examination.faults(error);
            let all: Vec<&str> = codes::all().map(|code| code.id).collect();
            examination.skip(&all, "the configuration cannot be used");
        }
        Ok(configuration) => check(configuration, environment, &mut examination),
    }
    Report::new(examination)
}

fn check(mut configuration: Configuration, environment: &Environment, examination: &mut Examination) {
    examination.lines(std::mem::take(&mut configuration.warnings));
    let mut accounts = Vec::new();
    if configuration.apps.is_empty() {
        examination.skip(IMPORT, "there is no application");
        examination.skip(&["D410"], "there is no application");
    }
    let (mut routes, mut of_apps) = (Vec::new(), Vec::new());
    for app in &configuration.apps {
        examination.run(&["D410"]);
        let user = app.user.as_deref().or(configuration.server.user.as_deref());
        let group = app.group.as_deref().or(configuration.server.group.as_deref());
        let account = match identity::of_application(user, group, &app.directory) {
            Ok(chosen) => {
                examination.lines(chosen.warning.map(|warning| format!("{}: {warning}", app.name)));
                chosen.account
            }
            Err(error) => {
                let message = format!("[app.{}]: {error}", app.name);
                examination.add(Finding::new("D001", message));
                continue;
            }
        };
        if let Some(answer) = probe::ask(app, account.as_ref(), examination) {
            let found = deployment::check(&configuration, app, &answer, examination);
            routes.extend(found.iter().cloned());
            of_apps.push((app.name.clone(), found));
        }
        accounts.extend(account);
    }
    if !configuration.apps.iter().any(|app| app.django) {
        let django: Vec<&str> = codes::all().map(|code| code.id).filter(|id| is_django(id)).collect();
        examination.skip(&django, "there is no Django project");
    }
    scripts::check(&configuration, examination);
    folders::check(&configuration, &routes, examination);
    listeners::check(&configuration, examination);
    // What Django's settings make is served too.
    for (name, found) in of_apps {
        examination.lines(django::add(&mut configuration.routes, &name, &found));
    }
    rights::check(&configuration, &accounts, environment, examination);
}

/// Whether a rule is for Django projects only.
fn is_django(id: &str) -> bool {
    id.starts_with("D1") || id.starts_with("D2")
}

// === impl Examination ===

impl Examination {
    /// These rules were decided.
    fn run<T: AsRef<str>>(&mut self, codes: &[T]) {
        self.ran.extend(codes.iter().map(|code| code.as_ref().to_owned()));
    }

    /// These could not be. What was decided for one application stays so.
    fn skip<T: AsRef<str>>(&mut self, codes: &[T], reason: &str) {
        for code in codes {
            self.skipped.entry(code.as_ref().to_owned()).or_insert_with(|| reason.to_owned());
        }
    }

    /// One more mistake. The same one twice is one.
    fn add(&mut self, finding: Finding) {
        self.run(&[&finding.code]);
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// Warnings as they are told at start: `PLACE: what [CODE]`.
    fn lines(&mut self, lines: impl IntoIterator<Item = String>) {
        for line in lines {
            let (code, text) = codes::split(&line);
            let (file, number, text) = place(text);
            let mut finding = Finding::new(code.unwrap_or("D004"), text);
            (finding.file, finding.line) = (file, number);
            if text.contains("has expired") {
                finding.severity = Severity::Error;
            }
            self.add(finding);
        }
    }

    fn faults(&mut self, error: ConfigError) {
        for fault in error.faults {
            let gone =
                fault.message.contains("interpreter is gone") || fault.message.contains("there is no interpreter");
            let finding = Finding::new(if gone { "D003" } else { "D001" }, fault.message);
            self.add(match fault.place {
                Place::Named(name) => finding.at(name, None),
                Place::File { name, line, .. } => finding.at(name, u32::try_from(line).ok()),
            });
        }
    }
}

/// `daemun.toml:12:1: text` as file, line and text.
fn place(text: &str) -> (Option<String>, Option<u32>, &str) {
    let Some((head, rest)) = text.split_once(": ") else { return (None, None, text) };
    let mut parts = head.rsplitn(3, ':');
    let (column, line, file) = (parts.next(), parts.next(), parts.next());
    let number = |part: Option<&str>| part.and_then(|part| part.parse::<u32>().ok());
    match (file, number(line), number(column)) {
        (Some(file), Some(line), Some(_)) => (Some(file.to_owned()), Some(line), rest),
        _ => (None, None, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigFault;

    #[test]
    fn warnings_at_start_become_findings_with_code_file_and_line() {
        let mut examination = Examination::default();
        examination.lines(["daemun.toml:12:1: the route is never asked [D404]".to_owned(), "PORT is 1".to_owned()]);
        let [route, port] = &examination.findings[..] else { panic!("{examination:?}") };
        assert_eq!((route.code.as_str(), route.file.as_deref(), route.line), ("D404", Some("daemun.toml"), Some(12)));
        assert_eq!(route.message, "the route is never asked");
        assert_eq!((port.code.as_str(), port.file.as_deref()), ("D004", None));
    }

    #[test]
    fn after_a_fault_of_the_configuration_no_other_rule_has_run() {
        let place = Place::File { name: "daemun.toml".to_owned(), line: 3, column: 1 };
        let error = ConfigError { faults: vec![ConfigFault { place, message: "unknown key".to_owned() }] };
        let report = run(Err(error), &Environment::default());
        assert!(report.breaks());
        let told = report.to_string();
        assert!(told.contains("daemun.toml:3: error D001: unknown key"), "{told}");
        assert!(told.contains("the configuration cannot be used"), "{told}");
    }
}
