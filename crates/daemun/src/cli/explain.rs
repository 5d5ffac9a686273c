//! `daemun explain`: from what was typed to what is shown.

use std::io::{BufRead, IsTerminal, Write};
use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;

use super::{ProjectArguments, ServeArguments, USAGE, configure, operate};
use crate::config::Environment;
use crate::explain::{Explainer, Question, Style, ask_projects, table_text, text};

/// `daemun explain`.
#[derive(Args, Clone, Debug, Default)]
pub struct ExplainArguments {
    /// A whole URL, HOST/PATH, or /PATH.
    #[arg(value_name = "URL", required_unless_present_any = ["all", "batch"], conflicts_with_all = ["all", "batch"])]
    pub url: Option<String>,
    /// The method.
    #[arg(short = 'X', long = "method", value_name = "METHOD", default_value = "GET")]
    pub method: String,
    /// A header of the request; repeatable.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// Address of the client.
    #[arg(long, value_name = "IP")]
    pub client: Option<IpAddr>,
    /// All routes: sites, origins, which are shadowed or unreachable.
    #[arg(long, conflicts_with = "batch")]
    pub all: bool,
    /// Read requests from standard input, one on each line: a URL, or an object with url, method, headers and client.
    /// One JSON object is printed for each.
    #[arg(long)]
    pub batch: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// What is served, as for `serve`: daemun.toml, project folder, module file or module:callable; repeatable.
    #[arg(long = "target", value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Which project, and its surroundings.
    #[command(flatten)]
    pub project: ProjectArguments,
    /// Where `serve` would listen; repeatable, replaces those of the file.
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// Folder whose files are sent below a path, as for `serve`; repeatable.
    #[arg(long = "static", value_name = "URL=DIR")]
    pub statics: Vec<String>,
    /// Folder whose CGI scripts are run below a path, as for `serve`; repeatable.
    #[arg(long = "cgi", value_name = "URL=DIR")]
    pub scripts: Vec<String>,
}

// === impl ExplainArguments ===

impl ExplainArguments {
    /// Does what was asked for.
    pub fn run(&self, environment: &Environment) -> ExitCode {
        let explainer = match self.explainer(environment) {
            Ok(explainer) => explainer,
            Err(message) => {
                eprintln!("{message}");
                return ExitCode::from(USAGE);
            }
        };
        let result = if self.batch { self.batch(&explainer) } else { self.single(&explainer, environment) };
        match result {
            Ok(output) => {
                // A closed pipe: whoever read has read enough.
                let _ = std::io::stdout().write_all(output.as_bytes());
                ExitCode::SUCCESS
            }
            Err(message) => {
                eprintln!("daemun: explain: {message}");
                ExitCode::from(USAGE)
            }
        }
    }

    fn explainer(&self, environment: &Environment) -> Result<Explainer, String> {
        let mut configuration = configure(&self.as_serve(), environment).map_err(|error| error.to_string())?;
        let has_projects = configuration.apps.iter().any(|app| app.django);
        // Nobody runs, or it does not tell us: then they are asked.
        let told = has_projects.then(|| operate::projects(&configuration, environment).unwrap_or_default());
        let unknown = ask_projects(&mut configuration, told.unwrap_or_default());
        // Only a server that runs has heard of others.
        let running = if configuration.upstreams.is_empty() {
            Err(String::new())
        } else {
            operate::running(&configuration, environment).map(Box::new).map_err(|error| error.to_string())
        };
        Explainer::new(configuration, unknown, running).map_err(|error| format!("daemun: explain: {error}"))
    }

    fn single(&self, explainer: &Explainer, environment: &Environment) -> Result<String, String> {
        let plain = environment.variable("NO_COLOR").is_some_and(|value| !value.is_empty())
            || environment.variable("TERM") == Some("dumb");
        let style = Style { colour: std::io::stdout().is_terminal() && !plain };
        if self.all {
            let table = explainer.table();
            return if self.json { pretty(&table) } else { Ok(table_text(&table, style)) };
        }
        let told = explainer.explain(&self.question(self.url.clone().unwrap_or_default()))?;
        if self.json { pretty(&told) } else { Ok(text(&told, style)) }
    }

    fn batch(&self, explainer: &Explainer) -> Result<String, String> {
        let mut output = std::io::BufWriter::new(std::io::stdout().lock());
        for (number, line) in std::io::stdin().lock().lines().enumerate() {
            let line = line.map_err(|error| format!("standard input: {error}"))?;
            let wrong = |message: String| format!("line {}: {message}", number + 1);
            let question = match line.trim() {
                "" => continue,
                object if object.starts_with('{') => {
                    serde_json::from_str(object).map_err(|error| wrong(error.to_string()))?
                }
                url => self.question(url.to_owned()),
            };
            let told = explainer.explain(&question).map_err(wrong)?;
            serde_json::to_writer(&mut output, &told).map_err(|error| wrong(error.to_string()))?;
            output.write_all(b"\n").map_err(|error| format!("standard output: {error}"))?;
        }
        output.flush().map_err(|error| format!("standard output: {error}"))?;
        Ok(String::new())
    }

    fn question(&self, url: String) -> Question {
        Question { url, method: self.method.clone(), headers: self.headers.clone(), client: self.client }
    }

    fn as_serve(&self) -> ServeArguments {
        ServeArguments {
            targets: self.targets.clone(),
            project: self.project.clone(),
            listen: self.listen.clone(),
            statics: self.statics.clone(),
            scripts: self.scripts.clone(),
            ..ServeArguments::default()
        }
    }
}

fn pretty(value: &impl serde::Serialize) -> Result<String, String> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(|error| error.to_string())
}
