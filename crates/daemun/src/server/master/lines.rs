//! The lines that a person reads at the start: what was found, why, and what will go wrong.

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use crate::app::Ready;
use crate::config::{Configuration, HandlerSettings, RouteSettings};
use crate::router::{HostPattern, PathPattern};

/// One line to standard error, written at once: the front writes to the same place meanwhile.
pub(super) fn say(line: impl Display) {
    // Where nobody can read it, nobody is told.
    let _ = std::io::stderr().write_all(format!("daemun: {line}\n").as_bytes());
}

/// The last line of a start that failed.
pub(super) fn fail(line: impl Display) -> ExitCode {
    say(line);
    ExitCode::FAILURE
}

/// What was found and where it will be answered.
pub(super) fn introduce<'a>(configuration: &Configuration, ready: impl Iterator<Item = (&'a str, &'a Ready)>) {
    say(&configuration.target);
    for (name, ready) in ready {
        let Some(app) = configuration.apps.iter().find(|app| app.name == name) else { continue };
        let python = format!("{} ({} {})", app.python.display(), ready.implementation, ready.python);
        say(format_args!("{name}: python {python}: {}", app.python_reason));
        if let Some(module) = &ready.settings_module {
            let reason = ready.settings_reason.as_deref().unwrap_or("set by the application");
            say(format_args!("{name}: settings {module}: {reason}"));
        }
    }
    for route in &configuration.routes {
        say(format_args!("route {}", describe(configuration, route)));
    }
}

fn describe(configuration: &Configuration, route: &RouteSettings) -> String {
    let host = match &route.rule.host {
        HostPattern::Any => String::new(),
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Below(domain) => format!("*{domain}"),
    };
    let path = match &route.rule.path {
        PathPattern::Exact(path) => path.clone(),
        PathPattern::Prefix { prefix, suffix } => format!("{prefix}*{suffix}"),
    };
    let handler = match &route.handler {
        HandlerSettings::Static(settings) => {
            let roots: Vec<_> = settings.roots.iter().map(|root| root.path.display().to_string()).collect();
            match &roots[..] {
                [] => String::from("files (no folder is there yet)"),
                [root] => format!("files of {root}"),
                [first, rest @ ..] => format!("files of {first} and {} more folders", rest.len()),
            }
        }
        HandlerSettings::App(name) => {
            let app = configuration.apps.iter().find(|app| &app.name == name);
            let (least, most, threads) =
                app.map_or((0, 0, 0), |app| (app.min_processes.min(app.processes), app.processes, app.threads));
            let range = if least < most { format!("{least} to {most}") } else { most.to_string() };
            let (processes, threads) = (counted(&range, "process", "es"), counted(&threads.to_string(), "thread", "s"));
            format!("application {name}, {processes} of {threads}")
        }
        HandlerSettings::Upstream(name) => {
            let upstream = configuration.upstreams.iter().find(|upstream| &upstream.name == name);
            let servers = upstream.map_or(&[][..], |upstream| &upstream.servers);
            let servers: Vec<&str> = servers.iter().map(|server| server.url.as_str()).collect();
            format!("upstream {name}, {}", servers.join(" "))
        }
        HandlerSettings::Scripts(settings) => {
            let of = settings.root.as_ref().map_or(String::new(), |root| format!(", scripts in {}", root.display()));
            format!("upstream {}{of}", settings.upstream)
        }
        HandlerSettings::Cgi(settings) => match &settings.program[..] {
            [] => format!("CGI scripts in {}, {} at a time", settings.root.display(), settings.max_processes),
            program => format!("CGI program {}, {} at a time", program.join(" "), settings.max_processes),
        },
        HandlerSettings::Redirect { to, status } => format!("redirect {status} to {to}"),
        HandlerSettings::Respond { status, .. } => format!("respond {status}"),
    };
    format!("{host}{path} -> {handler} ({})", route.rule.origin)
}

/// `1 process`, `2 processes`, `0 to 3 processes`.
fn counted(number: &str, what: &str, ending: &str) -> String {
    format!("{number} {what}{}", if number == "1" { "" } else { ending })
}
