//! Commands to a running server.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::arguments::{Command, Place, StatusArguments};
use super::{init, report};
use crate::config::{self, Configuration, Environment, Wish, Wishes};
use crate::control::client::{AskError, Conversation};
use crate::control::message::{Project, Status};
use crate::control::place::{self, Surroundings};
use crate::control::{Answer, Command as Wanted};

/// The pause of `status --watch`.
const WATCH: Duration = Duration::from_secs(1);

/// How long a new program may take to serve: imports have two minutes.
const UPGRADE_DEADLINE: Duration = Duration::from_secs(150);

/// Carries out every command but those that start a server.
pub fn run(command: &Command, environment: &Environment) -> ExitCode {
    let (place, wanted) = match command {
        Command::Status(arguments) => return status(arguments, environment),
        Command::Init(arguments) => return init::run(arguments, environment),
        // These do not talk to a server and do not come here.
        Command::Serve(_)
        | Command::Dev(_)
        | Command::Collect(_)
        | Command::Check(_)
        | Command::Explain(_)
        | Command::Schema(_)
        | Command::Help(_)
        | Command::Completions(_)
        | Command::Man => return ExitCode::FAILURE,
        Command::Reload(arguments) => (&arguments.place, Wanted::Reload { apps: arguments.apps.clone() }),
        Command::Stacks(arguments) => (&arguments.place, Wanted::Stacks { app: arguments.app.clone() }),
        Command::Drain(arguments) => {
            let (upstream, server) = (arguments.upstream.clone(), arguments.server.clone());
            (&arguments.place, Wanted::Drain { upstream, server })
        }
        Command::Stop(place) => (place, Wanted::Stop),
        Command::Upgrade(place) => (place, Wanted::Upgrade),
    };
    match converse(place, &wanted, environment) {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

fn failed(error: &AskError) -> ExitCode {
    eprintln!("daemun: {error}");
    ExitCode::FAILURE
}

/// Says what the server says, to the end.
fn converse(place: &Place, wanted: &Wanted, environment: &Environment) -> Result<ExitCode, AskError> {
    let mut conversation = Conversation::open(&candidates(place, environment))?;
    conversation.ask(wanted)?;
    while let Some(answer) = conversation.hear()? {
        match answer {
            Answer::Say { text } => println!("{text}"),
            Answer::Done { text } => {
                println!("{text}");
                return Ok(ExitCode::SUCCESS);
            }
            Answer::Refused { reason } => {
                eprintln!("daemun: {reason}");
                return Ok(ExitCode::FAILURE);
            }
            Answer::Status(status) => print!("{}", report::text(&status)),
            // Asked for by `projects` alone.
            Answer::Projects { .. } => {}
        }
    }
    if *wanted == Wanted::Upgrade {
        return Ok(wait_for_upgrade(conversation.path()));
    }
    // The end of the conversation is the end of the server.
    if *wanted == Wanted::Stop {
        println!("stopped");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("daemun: the server ended before it had answered; its log says why");
    Ok(ExitCode::FAILURE)
}

/// The server answers again when the program on disk has taken over.
fn wait_for_upgrade(path: &Path) -> ExitCode {
    let deadline = Instant::now() + UPGRADE_DEADLINE;
    let place = [path.to_path_buf()];
    while Instant::now() < deadline {
        match ask_status(&place) {
            Ok(status) if status.phase == "starting" => {
                if let Some(failed) = status.last_reload.filter(|reload| !reload.succeeded) {
                    eprintln!("daemun: {}", failed.text);
                    return ExitCode::FAILURE;
                }
            }
            Ok(status) => {
                println!("upgraded: version {} serves (pid {})", status.version, status.pid);
                return ExitCode::SUCCESS;
            }
            // Between the one and the other nobody listens.
            Err(_) => {}
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    eprintln!("daemun: the program that took over does not answer on {}; its log says why", path.display());
    ExitCode::FAILURE
}

/// `daemun status`.
fn status(arguments: &StatusArguments, environment: &Environment) -> ExitCode {
    let places = candidates(&arguments.place, environment);
    let mut before: Option<Status> = None;
    loop {
        let status = match ask_status(&places) {
            Ok(status) => status,
            Err(error) => return failed(&error),
        };
        let text = if arguments.json {
            serde_json::to_string_pretty(&status).unwrap_or_default() + "\n"
        } else {
            report::text(&status) + &before.map_or_else(String::new, |before| report::rates(&before, &status))
        };
        if arguments.watch && std::io::stdout().is_terminal() && !arguments.json {
            // To the upper left corner, and nothing below.
            print!("\x1b[H\x1b[2J");
        }
        print!("{text}");
        if !arguments.watch {
            let bad = arguments.check && !status.degraded.is_empty();
            return ExitCode::from(u8::from(bad));
        }
        before = Some(status);
        std::thread::sleep(WATCH);
    }
}

fn ask_status(places: &[PathBuf]) -> Result<Status, AskError> {
    let mut conversation = Conversation::open(places)?;
    conversation.ask(&Wanted::Status)?;
    let reason = match conversation.hear()? {
        Some(Answer::Status(status)) => return Ok(*status),
        Some(Answer::Refused { reason }) => reason,
        _ => "the server ended before it had answered".to_owned(),
    };
    Err(AskError::Io(conversation.path().to_path_buf(), std::io::Error::other(reason)))
}

/// What the projects of the server that runs with this configuration have told of their settings.
pub(super) fn projects(
    configuration: &Configuration,
    environment: &Environment,
) -> Result<BTreeMap<String, Project>, AskError> {
    let mut conversation = Conversation::open(&places(configuration, environment))?;
    conversation.ask(&Wanted::Projects)?;
    match conversation.hear()? {
        Some(Answer::Projects { projects }) => Ok(projects),
        // One of another version.
        _ => Ok(BTreeMap::new()),
    }
}

/// How the server is that runs with this configuration.
pub(super) fn running(configuration: &Configuration, environment: &Environment) -> Result<Status, AskError> {
    ask_status(&places(configuration, environment))
}

/// Where the socket of the server that runs with this configuration may be.
fn places(configuration: &Configuration, environment: &Environment) -> Vec<PathBuf> {
    let control = environment.variable("DAEMUN_CONTROL").map(|path| environment.absolute(path));
    let mut places: Vec<PathBuf> = control.or_else(|| configuration.server.control.clone()).into_iter().collect();
    if places.is_empty() {
        places = of_key(&configuration.key, environment);
    }
    places
}

/// Where the server's socket may be.
fn candidates(wanted: &Place, environment: &Environment) -> Vec<PathBuf> {
    let control = wanted.control.as_deref().or(environment.variable("DAEMUN_CONTROL"));
    if let (Some(path), None, None) = (control, &wanted.config, &wanted.directory) {
        return vec![environment.absolute(path)];
    }
    let folder =
        wanted.directory.as_ref().map_or_else(|| environment.directory.clone(), |text| environment.absolute(text));
    let file =
        wanted.config.as_deref().or(environment.variable("DAEMUN_CONFIG").filter(|_| wanted.directory.is_none()));
    let file = file.map_or_else(|| folder.join("daemun.toml"), |text| environment.absolute(text));
    let mut places = Vec::new();
    // A file with a mistake may still be the one that the server was started with.
    places.extend(config::control_of(&file, environment));
    let mut found = environment.clone();
    found.directory.clone_from(&folder);
    let wishes = Wishes { config: wanted.config.as_ref().map(|file| Wish::new(file, "--config")), ..Wishes::default() };
    let gathered = config::gather(&wishes, if wanted.config.is_some() { environment } else { &found }).ok();
    let mut keys = Vec::new();
    if let Some(configuration) = gathered {
        places.extend(configuration.server.control);
        keys.push(configuration.key);
    }
    keys.extend([file, folder]);
    for key in keys.iter().filter(|key| key.exists()) {
        for path in of_key(key, environment) {
            if !places.contains(&path) {
                places.push(path);
            }
        }
    }
    places.dedup();
    places
}

fn of_key(key: &Path, environment: &Environment) -> Vec<PathBuf> {
    let surroundings = Surroundings {
        user: rustix::process::geteuid().as_raw(),
        service_folder: environment.variable("RUNTIME_DIRECTORY"),
        session_folder: environment.variable("XDG_RUNTIME_DIR"),
    };
    place::candidates(key, surroundings, std::fs::metadata(key).ok().map(|found| found.uid()))
}
