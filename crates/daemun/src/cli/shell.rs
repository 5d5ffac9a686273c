//! `daemun completions` and `daemun man`: what shells and `man` want to know, from the command line's own definition.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Arguments;

/// `daemun completions`.
#[derive(Args, Clone, Debug)]
pub struct CompletionsArguments {
    /// The shell.
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

// === impl CompletionsArguments ===

impl CompletionsArguments {
    /// Prints them on standard output.
    pub fn run(&self) -> ExitCode {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "daemun", &mut script);
        print(&script)
    }
}

/// Prints the manual page on standard output: the program, then each of its commands with its options.
pub fn man() -> ExitCode {
    match page() {
        Ok(page) => print(&page),
        Err(error) => {
            eprintln!("daemun: man: {error}");
            ExitCode::FAILURE
        }
    }
}

fn page() -> std::io::Result<Vec<u8>> {
    let mut command = Arguments::command();
    command.build();
    let mut out = Vec::new();
    let whole = clap_mangen::Man::new(command.clone());
    whole.render_title(&mut out)?;
    whole.render_name_section(&mut out)?;
    whole.render_synopsis_section(&mut out)?;
    whole.render_description_section(&mut out)?;
    writeln!(out, ".SH COMMANDS")?;
    for each in command.get_subcommands() {
        let man = clap_mangen::Man::new(each.clone());
        writeln!(out, ".SS \"daemun {}\"", each.get_name())?;
        let mut sections = Vec::new();
        man.render_description_section(&mut sections)?;
        man.render_options_section(&mut sections)?;
        // In one page the options of a command stand right below its name.
        let lines = sections.split_inclusive(|&byte| byte == b'\n');
        lines.filter(|line| !line.starts_with(b".SH ")).for_each(|line| out.extend_from_slice(line));
    }
    let codes = [("0", "a clean end"), ("1", "it failed while it ran"), ("2", "wrong usage or configuration")];
    writeln!(out, ".SH \"EXIT CODES\"")?;
    for (code, meaning) in codes {
        writeln!(out, ".TP\n{code}\n{meaning}")?;
    }
    writeln!(out, ".SH \"SEE ALSO\"\ndaemun help COMMAND, daemun help CODE; the manual beside the program's source")?;
    Ok(out)
}

fn print(bytes: &[u8]) -> ExitCode {
    // A closed pipe: nobody wants to know.
    let _ = std::io::stdout().write_all(bytes);
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_command_and_its_options() {
        let page = String::from_utf8(page().unwrap()).unwrap();
        for command in Arguments::command().get_subcommands() {
            assert!(page.contains(&format!(".SS \"daemun {}\"", command.get_name())), "{page}");
        }
        assert!(page.contains("\\-\\-listen") && page.starts_with(".ie"), "{page}");
        assert_eq!(page.matches(".SH OPTIONS").count(), 0);
    }
}
