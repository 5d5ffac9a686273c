//! What `daemun check` tells: mistakes, then how many rules passed and which could not run.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::Examination;
use crate::codes::{self, Finding, Severity};

/// Everything that was found.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Report {
    /// The mistakes, worst first.
    pub findings: Vec<Finding>,
    /// Rules that ran and found nothing.
    pub passed: Vec<String>,
    /// Rules that could not run, and why.
    pub not_run: BTreeMap<String, String>,
}

impl Report {
    pub(super) fn new(examination: Examination) -> Self {
        let Examination { mut findings, ran, mut skipped } = examination;
        findings.sort_by(|one, other| {
            let key = |finding: &Finding| (finding.severity, finding.code.clone(), finding.file.clone(), finding.line);
            key(one).cmp(&key(other))
        });
        skipped.retain(|code, _| !ran.contains(code));
        let found = |code: &String| findings.iter().any(|finding| &finding.code == code);
        let passed = ran.into_iter().filter(|code| !found(code)).collect();
        Self { findings, passed, not_run: skipped }
    }

    /// Whether one of them would break the site.
    pub fn breaks(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }

    fn count(&self, severity: Severity) -> String {
        let number = self.findings.iter().filter(|finding| finding.severity == severity).count();
        format!("{number} {severity}{}", if number == 1 { "" } else { "s" })
    }

    /// Reasons with the rules that each is for, in ranges: `D101–D121`.
    fn reasons(&self) -> Vec<(&str, String)> {
        let all: Vec<&str> = codes::all().map(|code| code.id).collect();
        let mut reasons: Vec<&str> = self.not_run.values().map(String::as_str).collect();
        reasons.sort_unstable();
        reasons.dedup();
        let is_for = |id: &str, reason: &str| self.not_run.get(id).is_some_and(|other| other == reason);
        let ranges = |reason: &str| {
            let mut ranges: Vec<(&str, &str)> = Vec::new();
            let mut is_open = false;
            for &id in &all {
                match (is_for(id, reason), ranges.last_mut()) {
                    (true, Some(last)) if is_open => last.1 = id,
                    (true, _) => ranges.push((id, id)),
                    (false, _) => {}
                }
                is_open = is_for(id, reason);
            }
            let told = |&(first, last): &(&str, &str)| {
                if first == last { first.to_owned() } else { format!("{first} to {last}") }
            };
            ranges.iter().map(told).collect::<Vec<_>>().join(", ")
        };
        reasons.into_iter().map(|reason| (reason, ranges(reason))).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { code, severity, file, line, message, mend } in &self.findings {
            match (file, line) {
                (Some(file), Some(line)) => write!(f, "{file}:{line}: ")?,
                (Some(file), None) => write!(f, "{file}: ")?,
                (None, _) => {}
            }
            writeln!(f, "{severity} {code}: {message}")?;
            if let Some(mend) = mend {
                writeln!(f, "    mend: {mend}")?;
            }
        }
        if !self.findings.is_empty() {
            writeln!(f)?;
        }
        let [errors, warnings, notes] = [Severity::Error, Severity::Warning, Severity::Note].map(|one| self.count(one));
        writeln!(f, "{errors}, {warnings}, {notes}; {} rules passed", self.passed.len())?;
        let reasons = self.reasons();
        if !reasons.is_empty() {
            writeln!(f, "{} rules could not run:", self.not_run.len())?;
        }
        for (reason, rules) in reasons {
            writeln!(f, "    {reason}: {rules}")?;
        }
        if !self.findings.is_empty() {
            writeln!(f, "daemun help CODE tells more of each")?;
        }
        Ok(())
    }
}
