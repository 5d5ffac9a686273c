//! The `daemun` program.

use std::process::ExitCode;

use daemun::cli::{self, Command};
use daemun::config::Environment;
use daemun::server;

fn main() -> ExitCode {
    // A front is told apart before anything is parsed: its arguments are ours, not a person's.
    if std::env::args_os().nth(1).is_some_and(|role| role == server::FRONT_ROLE) {
        return server::front::run(3);
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
        Command::Serve(arguments) => with_environment(|environment| serve(&arguments, environment)),
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

fn serve(arguments: &cli::ServeArguments, environment: Environment) -> ExitCode {
    let configuration = match cli::configure(arguments, &environment) {
        Ok(configuration) => configuration,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(cli::USAGE);
        }
    };
    if environment.variable(server::UPGRADE).is_some_and(|value| value == server::CHECK) {
        // A server that is to be upgraded asks whether this program understands all that it was started with.
        return ExitCode::SUCCESS;
    }
    let arguments = arguments.clone();
    server::master::run(
        configuration,
        Box::new(move || cli::configure(&arguments, &environment).map_err(|error| error.to_string())),
    )
}
