//! Codes of mistakes: what each means, an example, and the mend; and one mistake as it was found.
//!
//! One source for `daemun check`, for the warnings at start, for `daemun help CODE` and for the manual's page of codes.
//! Must not know where mistakes are looked for.

mod django;
mod page;
mod server;

use std::fmt::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use page::{explain, page};

/// How bad a mistake is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It would break the site.
    Error,
    /// The site works, but not as it should, or not safely.
    Warning,
    /// Good to know.
    Note,
}

/// One rule, under its stable code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Code {
    /// Such as `D101`.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in a line.
    pub title: &'static str,
    /// How it comes about and what it does.
    pub cause: &'static str,
    /// What it looks like.
    pub example: &'static str,
    /// What to do.
    pub mend: &'static str,
}

/// A mistake that was found.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// Its rule.
    pub code: String,
    /// How bad it is here.
    pub severity: Severity,
    /// The file that it stands in, or an option's or folder's name.
    pub file: Option<String>,
    /// The line in it.
    pub line: Option<u32>,
    /// What is wrong, and what it does.
    pub message: String,
    /// What to do.
    pub mend: Option<String>,
}

/// Every rule, in the order of the codes.
pub fn all() -> impl Iterator<Item = &'static Code> {
    let general = server::GENERAL.iter().chain(django::STATIC).chain(django::DEPLOYMENT);
    general.chain(server::SCRIPTS).chain(server::SERVER)
}

/// The rule of this code, in either case.
pub fn find(id: &str) -> Option<&'static Code> {
    all().find(|code| code.id.eq_ignore_ascii_case(id))
}

// === impl Severity ===

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

// === impl Finding ===

impl Finding {
    /// As bad as its rule says.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        let severity = find(code).map_or(Severity::Warning, |code| code.severity);
        Self { code: code.to_owned(), severity, file: None, line: None, message: message.into(), mend: None }
    }

    /// In this file, or at what this names.
    #[must_use]
    pub fn at(mut self, file: impl Into<String>, line: Option<u32>) -> Self {
        (self.file, self.line) = (Some(file.into()), line);
        self
    }

    /// With this mend.
    #[must_use]
    pub fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }

    /// In one line, for the warnings at start; the file by its name alone.
    pub fn told(&self) -> String {
        let mut line = String::new();
        if let Some(file) = &self.file {
            let name = Path::new(file).file_name().and_then(|name| name.to_str()).unwrap_or(file);
            line.push_str(name);
            if let Some(number) = self.line {
                // Writing into a string cannot fail.
                let _ = write!(line, ":{number}");
            }
            line.push_str(": ");
        }
        line.push_str(&self.message);
        if let Some(mend) = &self.mend {
            line.push_str("; ");
            line.push_str(mend);
        }
        let _ = write!(line, " [{}]", self.code);
        line
    }
}

/// A warning at start with the code that stands in brackets at its end, and without it.
pub fn split(line: &str) -> (Option<&str>, &str) {
    let code = line.strip_suffix(']').and_then(|rest| rest.rsplit_once(" ["));
    match code {
        Some((text, id)) if find(id).is_some() => (Some(id), text),
        _ => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_at_start_ends_with_its_code_and_gives_it_back() {
        let finding = Finding::new("D201", "DEBUG is True").at("/srv/shop/settings.py", Some(3)).mend("say False");
        let line = finding.told();
        assert_eq!(line, "settings.py:3: DEBUG is True; say False [D201]");
        assert_eq!(split(&line), (Some("D201"), "settings.py:3: DEBUG is True; say False"));
        assert_eq!(split("listens on [::1]"), (None, "listens on [::1]"));
    }
}
