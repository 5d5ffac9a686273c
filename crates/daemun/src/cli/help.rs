//! `daemun help`: of a command, or of a code.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, CommandFactory};

use super::{Arguments, USAGE};
use crate::codes;
use crate::config::nearest;

/// `daemun help`.
#[derive(Args, Clone, Debug, Default)]
pub struct HelpArguments {
    /// A command such as serve, or a code such as D101.
    #[arg(value_name = "COMMAND|CODE")]
    pub topic: Option<String>,
}

// === impl HelpArguments ===

impl HelpArguments {
    /// Tells it on standard output.
    pub fn run(&self) -> ExitCode {
        match self.text() {
            Ok(text) => {
                // A closed pipe: nobody wants to know.
                let _ = std::io::stdout().write_all(text.as_bytes());
                ExitCode::SUCCESS
            }
            Err(message) => {
                eprintln!("daemun: help: {message}");
                ExitCode::from(USAGE)
            }
        }
    }

    fn text(&self) -> Result<String, String> {
        let mut command = Arguments::command().bin_name("daemun");
        command.build();
        let Some(topic) = &self.topic else { return Ok(command.render_help().to_string()) };
        if let Some(code) = codes::find(topic) {
            return Ok(codes::explain(code));
        }
        if let Some(found) = command.find_subcommand_mut(topic) {
            return Ok(found.render_help().to_string());
        }
        let commands: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        let known: Vec<&str> = commands.into_iter().chain(codes::all().map(|code| code.id)).collect();
        let near = nearest(topic, &known).map_or(String::new(), |near| format!("; did you mean {near}?"));
        Err(format!("there is no command or code `{topic}`{near}"))
    }
}
