//! The `daemun` program.

use std::io::Write;
use std::process::ExitCode;

use daemun::cli::{self, Command};
use daemun::config::{ConfigError, Configuration, Environment};
use daemun::django::collect;
use daemun::{certifier, launcher, server, transformer};

fn main() -> ExitCode {
    // Roles are told apart before anything is parsed: their arguments are ours, not a person's.
    match std::env::args_os().nth(1) {
        Some(role) if role == server::FRONT_ROLE => return server::front::run(3),
        Some(role) if role == launcher::LAUNCHER_ROLE => return launcher::run(3),
        Some(role) if role == certifier::CERTIFIER_ROLE => return certifier::run(3),
        Some(role) if role == transformer::TRANSFORMER_ROLE => return transformer::run(3),
        Some(role) if role == transformer::CHECK_ROLE => return transformer::check(),
        Some(role) if role == collect::ROLE => return collect::execute(),
        Some(role) if role == collect::PACKING_ROLE => return collect::pack(std::env::args().skip(2)),
        _ => {}
    }
    let arguments = match cli::parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(refusal) => {
            // A closed terminal: there is nobody left to tell.
            let _ = refusal.print();
            return ExitCode::from(refusal.exit_code());
        }
    };
    match arguments.command {
        Command::Serve(arguments) => {
            with_environment(|environment| run(environment, move |environment| cli::configure(&arguments, environment)))
        }
        Command::Dev(arguments) => with_environment(|environment| {
            run(environment, move |environment| cli::configure_development(&arguments, environment))
        }),
        Command::Collect(arguments) => with_environment(|environment| arguments.run(&environment)),
        Command::Check(arguments) => with_environment(|environment| arguments.run(&environment)),
        Command::Help(arguments) => arguments.run(),
        Command::Completions(arguments) => arguments.run(),
        Command::Man => cli::man(),
        Command::Schema(arguments) => arguments.run(),
        Command::Explain(arguments) => with_environment(|environment| arguments.run(&environment)),
        command => with_environment(|environment| cli::operate(&command, &environment)),
    }
}

fn with_environment(act: impl FnOnce(Environment) -> ExitCode) -> ExitCode {
    match Environment::current() {
        Ok(environment) => act(environment),
        Err(error) => {
            eprintln!("daemun: cannot tell the current folder: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves what `configure` says, now and at each reload.
fn run(
    environment: Environment,
    configure: impl Fn(&Environment) -> Result<Configuration, ConfigError> + 'static,
) -> ExitCode {
    let configuration = match configure(&environment) {
        Ok(configuration) => configuration,
        Err(error) => {
            // A standard error that takes nothing, such as one on a full disk, is no reason to end in another way.
            let _ = writeln!(std::io::stderr(), "{error}");
            return ExitCode::from(cli::USAGE);
        }
    };
    if environment.variable(server::UPGRADE).is_some_and(|value| value == server::CHECK) {
        // A server that is to be upgraded asks whether this program understands all that it was started with.
        return ExitCode::SUCCESS;
    }
    let configure = move || configure(&environment).map_err(|error| error.to_string());
    server::master::run(configuration, Box::new(configure))
}
