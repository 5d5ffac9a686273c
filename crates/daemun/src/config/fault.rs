//! What is wrong with a configuration: each fault with its place, all of them at once.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;

/// A configuration that cannot be used, with everything that is wrong with it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    /// The faults in the order of their places.
    pub faults: Vec<ConfigFault>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ConfigFault {
    /// Where it was written.
    pub place: Place,
    /// What was expected, and what was found.
    pub message: String,
}

/// Where something was written.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Place {
    /// An option, an environment variable, a target or a whole file, by its name.
    Named(String),
    /// A place in a file; line and column count from 1, columns in characters.
    File {
        /// The file as a person here would name it.
        name: String,
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
}

/// Collects what is found wrong or odd while a configuration is read, so that reading goes on.
#[derive(Debug, Default)]
pub(super) struct Report {
    faults: RefCell<Vec<ConfigFault>>,
    warnings: RefCell<Vec<String>>,
}

// === impl ConfigError ===

impl ConfigError {
    /// An error of a single fault.
    pub fn one(place: Place, message: impl Into<String>) -> Self {
        Self { faults: vec![ConfigFault { place, message: message.into() }] }
    }
}

impl fmt::Display for ConfigError {
    /// One fault a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, fault) in self.faults.iter().enumerate() {
            let line_break = if number == 0 { "" } else { "\n" };
            write!(f, "{line_break}{fault}")?;
        }
        Ok(())
    }
}

impl Error for ConfigError {}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

// === impl Place ===

impl Place {
    /// An option, a variable, a target or a whole file.
    pub fn named(name: impl Into<String>) -> Self {
        Self::Named(name.into())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::File { name, line, column } => write!(f, "{name}:{line}:{column}"),
        }
    }
}

// === impl Report ===

impl Report {
    pub(super) fn fault(&self, place: Place, message: impl Into<String>) {
        self.faults.borrow_mut().push(ConfigFault { place, message: message.into() });
    }

    pub(super) fn warn(&self, warning: impl Into<String>) {
        self.warnings.borrow_mut().push(warning.into());
    }

    /// Takes the faults of `error` over and gives what there is of `result`.
    pub(super) fn take<T>(&self, result: Result<T, ConfigFault>) -> Option<T> {
        result.map_err(|fault| self.faults.borrow_mut().push(fault)).ok()
    }

    /// The warnings, if nothing was wrong.
    pub(super) fn finish(self) -> Result<Vec<String>, ConfigError> {
        self.check()?;
        Ok(self.warnings.into_inner())
    }

    /// An error if anything was wrong so far.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let mut faults = self.faults.borrow().clone();
        faults.sort();
        faults.dedup();
        if faults.is_empty() { Ok(()) } else { Err(ConfigError { faults }) }
    }
}
