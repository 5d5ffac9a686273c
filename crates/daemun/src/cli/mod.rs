//! The command line: what was typed, as types; the right word for a wrong one; and what it all comes to.
//!
//! Knows `config`, and for `collect` and `check` the project's side of it. Must not know servers: `main.rs` hands them what is found
//! here.

mod arguments;
mod check;
mod collect;
mod explain;
mod help;
mod init;
mod operate;
mod report;
mod schema;
mod words;

use std::ffi::OsString;
use std::fmt;

use clap::Parser;

use crate::config::{self, ConfigError, ConfigFault, Configuration, Environment, Place, Wishes};
use crate::process::Account;
use crate::process::account::find_group;

pub use arguments::{Arguments, Command, DevArguments, ProjectArguments, ServeArguments};
pub use check::CheckArguments;
pub use collect::CollectArguments;
pub use explain::ExplainArguments;
pub use help::HelpArguments;
pub use operate::run as operate;
pub use schema::{SchemaArguments, SchemaOf};

/// Exit code of wrong usage and of a configuration that cannot be used.
pub const USAGE: u8 = 2;

/// A command line that starts nothing: wrong usage, or a request for help or the version.
#[derive(Debug)]
pub struct Refusal {
    error: clap::Error,
    /// The right word, where the wrong one is known.
    advice: Option<String>,
}

/// Reads the command line, program name first.
pub fn parse<T: Into<OsString> + Clone>(words: impl IntoIterator<Item = T>) -> Result<Arguments, Refusal> {
    let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
    Arguments::try_parse_from(&words).map_err(|error| {
        let advice = words::advice(&error);
        Refusal { error, advice }
    })
}

/// What `serve` is to do, from options, environment, files and what is found. Called again for each reload.
pub fn configure(arguments: &ServeArguments, environment: &Environment) -> Result<Configuration, ConfigError> {
    configure_wishes(&arguments.wishes(environment), environment)
}

fn configure_wishes(wishes: &Wishes, environment: &Environment) -> Result<Configuration, ConfigError> {
    let mut configuration = config::gather(wishes, environment)?;
    configuration.warnings.extend(arguments::misspelt(environment));
    check_accounts(&configuration)?;
    Ok(configuration)
}

/// What `dev` is to do: the same, for a person at work on it.
pub fn configure_development(
    arguments: &DevArguments,
    environment: &Environment,
) -> Result<Configuration, ConfigError> {
    let wishes = Wishes { https: arguments.https, ..arguments.serve.wishes(environment) };
    let mut configuration = configure_wishes(&wishes, environment)?;
    config::develop(&mut configuration, &arguments.wishes(environment), environment);
    Ok(configuration)
}

/// Users and groups that do not exist are mistakes of whoever wrote them, and told before anything is bound.
fn check_accounts(configuration: &Configuration) -> Result<(), ConfigError> {
    let mut faults = Vec::new();
    let mut check = |what: &str, user: Option<&str>, group: Option<&str>| {
        let found = user.map(|user| Account::find(user, None).map(drop));
        let found = found.into_iter().chain(group.map(|group| find_group(group).map(drop)));
        faults.extend(
            found
                .filter_map(Result::err)
                .map(|error| ConfigFault { place: Place::named(what), message: error.to_string() }),
        );
    };
    let server = &configuration.server;
    check("`user` and `group` of [server], or --user and --group", server.user.as_deref(), server.group.as_deref());
    for app in &configuration.apps {
        check(&format!("`user` and `group` of [app.{}]", app.name), app.user.as_deref(), app.group.as_deref());
    }
    if faults.is_empty() { Ok(()) } else { Err(ConfigError { faults }) }
}

// === impl Refusal ===

impl Refusal {
    /// 0 for help and the version, else [`USAGE`].
    pub fn exit_code(&self) -> u8 {
        if self.error.use_stderr() { USAGE } else { 0 }
    }

    /// Writes it where it belongs: help to standard output, a mistake to standard error.
    pub fn print(&self) -> std::io::Result<()> {
        match &self.advice {
            Some(_) => {
                use std::io::Write;
                writeln!(std::io::stderr(), "{self}")
            }
            None => self.error.print(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.advice {
            Some(advice) => write!(f, "error: {advice}\n\nFor more information, try 'daemun serve --help'."),
            None => self.error.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
