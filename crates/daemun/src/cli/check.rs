//! `daemun check`: from what was typed to a report.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use super::{ServeArguments, configure};
use crate::check;
use crate::config::Environment;

/// `daemun check`: the target and options of `serve`, for what is checked is what would be served.
#[derive(Args, Clone, Debug, Default)]
pub struct CheckArguments {
    /// What would be served.
    #[command(flatten)]
    pub serve: ServeArguments,
    /// One JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

// === impl CheckArguments ===

impl CheckArguments {
    /// Checks, tells, and gives 1 where a mistake would break the site.
    pub fn run(&self, environment: &Environment) -> ExitCode {
        let report = check::run(configure(&self.serve, environment), environment);
        let told = if self.json {
            serde_json::to_string_pretty(&report).map(|text| text + "\n").unwrap_or_default()
        } else {
            report.to_string()
        };
        // A closed pipe: nobody wants to know.
        let _ = std::io::stdout().write_all(told.as_bytes());
        if report.breaks() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}
