//! `daemun schema`: JSON Schemas, for editors and for programs that read what others print.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::config;

/// What `daemun check --json` prints.
const CHECK: &str = include_str!("../../../../docs/manual/check.schema.json");

/// What `daemun collect --json` prints.
const COLLECT: &str = include_str!("../../../../docs/manual/collect.schema.json");

/// What `daemun explain --json` prints.
const EXPLAIN: &str = include_str!("../../../../docs/manual/explain.schema.json");

/// `daemun schema`.
#[derive(Args, Clone, Debug)]
pub struct SchemaArguments {
    /// Of daemun.toml, or of what a command prints with --json.
    #[arg(value_name = "WHAT", default_value = "file")]
    pub what: SchemaOf,
}

/// What there is a schema of.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SchemaOf {
    /// daemun.toml
    File,
    /// What `daemun check --json` prints.
    Check,
    /// What `daemun collect --json` prints.
    Collect,
    /// What `daemun explain --json` prints.
    Explain,
}

// === impl SchemaArguments ===

impl SchemaArguments {
    /// Prints it.
    pub fn run(&self) -> ExitCode {
        let text = match self.what {
            SchemaOf::File => format!("{:#}\n", config::schema()),
            SchemaOf::Check => CHECK.to_owned(),
            SchemaOf::Collect => COLLECT.to_owned(),
            SchemaOf::Explain => EXPLAIN.to_owned(),
        };
        // A closed pipe: nobody wants to know.
        let _ = std::io::stdout().write_all(text.as_bytes());
        ExitCode::SUCCESS
    }
}
