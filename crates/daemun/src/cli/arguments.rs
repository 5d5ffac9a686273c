//! Arguments as they are typed. Values stay text here: `config` reads them, and tells all that is wrong at once.

use std::io::IsTerminal;

use clap::{Args, Parser, Subcommand};

use super::{CheckArguments, CollectArguments, CompletionsArguments, ExplainArguments, HelpArguments, SchemaArguments};
use crate::config::{Debugging, DevelopmentWishes, Environment, Wish, Wishes, nearest};

/// Web server, WSGI application server and static deployment in one program.
#[derive(Clone, Debug, Parser)]
#[command(name = "daemun", version, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Production server in the foreground.
    Serve(Box<ServeArguments>),
    /// Development server: reload on change, errors in the browser, debuggers at the terminal.
    Dev(Box<DevArguments>),
    /// Deploy static files: find, copy, hash, rewrite references, compress, write the manifest.
    Collect(Box<CollectArguments>),
    /// Find deployment mistakes, each with a code, its place, its cause and its mend; exit 1 when one breaks the site.
    Check(Box<CheckArguments>),
    /// Tell of a command, or of the code of a mistake.
    Help(HelpArguments),
    /// JSON Schema of daemun.toml, for editors, or of what a command prints with --json.
    Schema(SchemaArguments),
    /// Which way a request takes, and why: listener, site, route, filters, handler. Starts nothing.
    Explain(Box<ExplainArguments>),
    /// How the running server is.
    Status(StatusArguments),
    /// Configuration and applications anew, without a failed request; waits, and exits with 1 if the old code serves on.
    Reload(ReloadArguments),
    /// The Python stacks of running requests.
    Stacks(StacksArguments),
    /// Ask clients for close while serving on; or send nothing new to a server of an upstream.
    Drain(DrainArguments),
    /// Finish what is in flight and end, as TERM.
    Stop(Place),
    /// Let the program on disk take over, without a refused connection.
    Upgrade(Place),
    /// Write a daemun.toml for the project found here; or print what systemd or Docker needs.
    Init(InitArguments),
    /// Print completions for a shell.
    Completions(CompletionsArguments),
    /// Print the manual page.
    Man,
}

/// Which server is meant. Without an option: the one that serves what is in the current folder.
#[derive(Args, Clone, Debug, Default)]
pub struct Place {
    /// Configuration file of the server.
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    /// Folder that the server serves.
    #[arg(long, value_name = "DIR")]
    pub directory: Option<String>,
    /// Socket of the server.
    #[arg(long, value_name = "PATH")]
    pub control: Option<String>,
}

/// `daemun status`.
#[derive(Args, Clone, Debug, Default)]
pub struct StatusArguments {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Print it again every second.
    #[arg(long)]
    pub watch: bool,
    /// Exit with 1 when something is not as it should be.
    #[arg(long)]
    pub check: bool,
    /// Which server.
    #[command(flatten)]
    pub place: Place,
}

/// `daemun reload`.
#[derive(Args, Clone, Debug, Default)]
pub struct ReloadArguments {
    /// Only the code of these applications, with the configuration that is being served.
    #[arg(value_name = "APP")]
    pub apps: Vec<String>,
    /// Which server.
    #[command(flatten)]
    pub place: Place,
}

/// `daemun stacks`.
#[derive(Args, Clone, Debug, Default)]
pub struct StacksArguments {
    /// Of this application alone.
    #[arg(value_name = "APP")]
    pub app: Option<String>,
    /// Which server.
    #[command(flatten)]
    pub place: Place,
}

/// `daemun drain`.
#[derive(Args, Clone, Debug, Default)]
pub struct DrainArguments {
    /// The upstream.
    #[arg(value_name = "UPSTREAM", requires = "server")]
    pub upstream: Option<String>,
    /// Its server, as it is written in the file.
    #[arg(value_name = "SERVER")]
    pub server: Option<String>,
    /// Which server of ours.
    #[command(flatten)]
    pub place: Place,
}

/// `daemun init`.
#[derive(Args, Clone, Debug, Default)]
pub struct InitArguments {
    /// Print a systemd unit, a socket unit and a logrotate file, and the commands that install them.
    #[arg(long, conflicts_with = "docker")]
    pub systemd: bool,
    /// Print a Dockerfile.
    #[arg(long)]
    pub docker: bool,
    /// What to serve, as for `serve`.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
}

/// What `serve`, `collect` and `explain` are told of a project in the same words.
#[derive(Args, Clone, Debug, Default)]
pub struct ProjectArguments {
    /// Configuration file, instead of a target.
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    /// Interpreter or virtual environment of the application.
    #[arg(long, value_name = "PATH")]
    pub python: Option<String>,
    /// Working folder and first place of sys.path.
    #[arg(long, value_name = "DIR")]
    pub directory: Option<String>,
    /// Environment variable of the application; repeatable.
    #[arg(long, value_name = "K=V")]
    pub env: Vec<String>,
    /// File of K=V lines; repeatable.
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<String>,
}

/// `daemun serve`.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArguments {
    /// daemun.toml, project folder, module file, module:callable or module:factory(); several with a mount:
    /// /=shop.wsgi:application /wiki=wiki:app. Without one, what there is in the current folder.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Which project, and its surroundings.
    #[command(flatten)]
    pub project: ProjectArguments,
    /// PORT, HOST:PORT (IPv6 in brackets), https://HOST:PORT, unix:PATH or fd:N; repeatable, replaces those of the file.
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// Port on 127.0.0.1, as --listen PORT.
    #[arg(short, long, value_name = "PORT")]
    pub port: Option<String>,
    /// Worker processes of each application; auto is one for each core.
    #[arg(short = 'w', long, visible_alias = "workers", value_name = "N|auto")]
    pub processes: Option<String>,
    /// Threads in each process.
    #[arg(long, value_name = "N")]
    pub threads: Option<String>,
    /// Folder whose files are sent below a path; repeatable, added to the file's routes.
    #[arg(long = "static", value_name = "URL=DIR")]
    pub statics: Vec<String>,
    /// Folder whose CGI scripts are run below a path; repeatable, added to the file's routes.
    #[arg(long = "cgi", value_name = "URL=DIR")]
    pub scripts: Vec<String>,
    /// Servers that requests below a path are sent to; repeatable, added to the file's routes.
    #[arg(long = "proxy", value_name = "URL=SERVER[,SERVER…]")]
    pub proxies: Vec<String>,
    /// From hand-over to the first byte of the answer; a number counts seconds.
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,
    /// Requests after which a worker is replaced.
    #[arg(long, value_name = "N")]
    pub max_requests: Option<String>,
    /// User of the application when started as root.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Group of the application when started as root.
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// Access log: a path, - for standard output, or off.
    #[arg(long, value_name = "PATH|-|off")]
    pub access_log: Option<String>,
    /// Form of the access log.
    #[arg(long, value_name = "text|json")]
    pub log_format: Option<String>,
    /// Least important line of the error log: error, warning, info or debug.
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// File with the certificate of https listeners, in PEM.
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<String>,
    /// File with its key, in PEM; without it the key is in the same file.
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<String>,
    /// Name that a certificate is asked for from an authority (ACME), and renewed in time; repeatable. Without --listen:
    /// ports 80 and 443, and plain requests are sent to https.
    #[arg(long, value_name = "NAME")]
    pub domain: Vec<String>,
    /// Where the authority may write to.
    #[arg(long, value_name = "ADDRESS")]
    pub acme_email: Option<String>,
    /// Directory of the authority, instead of that of Let's Encrypt; `staging` is the one that it has for trials.
    #[arg(long, value_name = "staging|URL")]
    pub acme_directory: Option<String>,
    /// File for the process id.
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<String>,
    /// Where metrics and the state of everything are answered: PORT or HOST:PORT; repeatable, replaces the file's.
    #[arg(long, value_name = "ADDR")]
    pub monitor: Vec<String>,
    /// Where /healthz, /readyz and /metrics are answered; repeatable, replaces the file's.
    #[arg(long, value_name = "ADDR")]
    pub health: Vec<String>,
    /// Socket on which `daemun status`, `reload` and the like are answered.
    #[arg(long, value_name = "PATH")]
    pub control: Option<String>,
    /// Collect static files before the start.
    #[arg(long)]
    pub collect: bool,
}

/// `daemun dev`.
#[derive(Args, Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct DevArguments {
    /// What `serve` knows.
    #[command(flatten)]
    pub serve: ServeArguments,
    /// Folder to watch besides the application's own; repeatable.
    #[arg(long, value_name = "DIR")]
    pub watch: Vec<String>,
    /// Look for changes twice a second instead of waiting to be told, where the system does not tell.
    #[arg(long)]
    pub poll: bool,
    /// Never reload.
    #[arg(long)]
    pub no_reload: bool,
    /// Have pages of the application load themselves anew after a change.
    #[arg(long)]
    pub refresh: bool,
    /// Serve https, with a certificate that is made here where the file has no other.
    #[arg(long)]
    pub https: bool,
    /// Have an editor attach with debugpy, on this port of 127.0.0.1; debugpy must be installed where the application is.
    #[arg(long, value_name = "PORT", num_args = 0..=1, default_missing_value = "5678", value_parser = debugger_port)]
    pub debugger: Option<u16>,
}

/// Where `python -m daemun`, started under a debugger, tells which.
const DEBUGGER: &str = "DAEMUN_INTERNAL_DEBUGGER";

/// The variables that stand for options.
const VARIABLES: &[&str] = &[
    "DAEMUN_CONFIG",
    "DAEMUN_LISTEN",
    "DAEMUN_PORT",
    "DAEMUN_PROCESSES",
    "DAEMUN_WORKERS",
    "DAEMUN_THREADS",
    "DAEMUN_PYTHON",
    "DAEMUN_DIRECTORY",
    "DAEMUN_ENV_FILE",
    "DAEMUN_STATIC",
    "DAEMUN_CGI",
    "DAEMUN_PROXY",
    "DAEMUN_TIMEOUT",
    "DAEMUN_MAX_REQUESTS",
    "DAEMUN_USER",
    "DAEMUN_GROUP",
    "DAEMUN_ACCESS_LOG",
    "DAEMUN_LOG_FORMAT",
    "DAEMUN_LOG_LEVEL",
    "DAEMUN_TLS_CERT",
    "DAEMUN_TLS_KEY",
    "DAEMUN_DOMAIN",
    "DAEMUN_ACME_EMAIL",
    "DAEMUN_ACME_DIRECTORY",
    "DAEMUN_PID_FILE",
    "DAEMUN_COLLECT",
    "DAEMUN_MONITOR",
    "DAEMUN_HEALTH",
    "DAEMUN_CONTROL",
    "DAEMUN_ACCELERATOR",
];

// === impl DevArguments ===

impl DevArguments {
    /// What is asked for beyond what `serve` knows.
    pub fn wishes(&self, environment: &Environment) -> DevelopmentWishes {
        let wishes = self.serve.wishes(environment);
        let colours = std::io::stdout().is_terminal() && environment.variable("NO_COLOR").is_none();
        DevelopmentWishes {
            has_processes: wishes.processes.is_some(),
            has_format: wishes.log_format.is_some(),
            watch: self.watch.clone(),
            poll: self.poll,
            reload: !self.no_reload,
            refresh: self.refresh,
            debugger: match environment.variable(DEBUGGER) {
                // There can be one only, and this one has begun.
                Some(wish) => Some(Debugging::Joined(wish.to_owned())),
                None => self.debugger.map(Debugging::Listening),
            },
            colours: colours && matches!(self.serve.access_log.as_deref(), None | Some("-")),
        }
    }
}

// === impl ServeArguments ===

impl ServeArguments {
    /// Options, and `DAEMUN_*` variables where there is no option.
    pub fn wishes(&self, environment: &Environment) -> Wishes {
        let variable = |name: &str| environment.variable(name).map(|value| Wish::new(value, name));
        let one = |given: &Option<String>, option: &str, name: &str| match given {
            Some(value) => Some(Wish::new(value, option)),
            None => variable(name),
        };
        // A variable holds several values with spaces or commas between them.
        let several = |given: &[String], option: &str, name: &str| -> Vec<Wish> {
            if given.is_empty() {
                let values = environment.variable(name).unwrap_or_default();
                let values = values.split([' ', ',', '\n']).filter(|value| !value.is_empty());
                return values.map(|value| Wish::new(value, name)).collect();
            }
            given.iter().map(|value| Wish::new(value, option)).collect()
        };
        let config = match &self.project.config {
            // A target is more than a variable.
            None if !self.targets.is_empty() => None,
            given => one(given, "--config", "DAEMUN_CONFIG"),
        };
        let mut listen = several(&self.listen, "--listen", "");
        listen.extend(self.port.as_ref().map(|port| Wish::new(port, "--port")));
        if listen.is_empty() {
            listen = several(&[], "", "DAEMUN_LISTEN");
            listen.extend(variable("DAEMUN_PORT"));
        }
        Wishes {
            targets: self.targets.clone(),
            config,
            listen,
            processes: one(&self.processes, "--processes", "DAEMUN_PROCESSES").or_else(|| variable("DAEMUN_WORKERS")),
            threads: one(&self.threads, "--threads", "DAEMUN_THREADS"),
            python: one(&self.project.python, "--python", "DAEMUN_PYTHON"),
            directory: one(&self.project.directory, "--directory", "DAEMUN_DIRECTORY"),
            env: several(&self.project.env, "--env", ""),
            env_files: several(&self.project.env_file, "--env-file", "DAEMUN_ENV_FILE"),
            statics: several(&self.statics, "--static", "DAEMUN_STATIC"),
            scripts: several(&self.scripts, "--cgi", "DAEMUN_CGI"),
            proxies: several(&self.proxies, "--proxy", "DAEMUN_PROXY"),
            timeout: one(&self.timeout, "--timeout", "DAEMUN_TIMEOUT"),
            max_requests: one(&self.max_requests, "--max-requests", "DAEMUN_MAX_REQUESTS"),
            user: one(&self.user, "--user", "DAEMUN_USER"),
            group: one(&self.group, "--group", "DAEMUN_GROUP"),
            access_log: one(&self.access_log, "--access-log", "DAEMUN_ACCESS_LOG"),
            log_format: one(&self.log_format, "--log-format", "DAEMUN_LOG_FORMAT"),
            log_level: one(&self.log_level, "--log-level", "DAEMUN_LOG_LEVEL"),
            tls_cert: one(&self.tls_cert, "--tls-cert", "DAEMUN_TLS_CERT"),
            tls_key: one(&self.tls_key, "--tls-key", "DAEMUN_TLS_KEY"),
            domains: several(&self.domain, "--domain", "DAEMUN_DOMAIN"),
            acme_email: one(&self.acme_email, "--acme-email", "DAEMUN_ACME_EMAIL"),
            acme_directory: one(&self.acme_directory, "--acme-directory", "DAEMUN_ACME_DIRECTORY"),
            https: false,
            pid_file: one(&self.pid_file, "--pid-file", "DAEMUN_PID_FILE"),
            monitor: several(&self.monitor, "--monitor", "DAEMUN_MONITOR"),
            health: several(&self.health, "--health", "DAEMUN_HEALTH"),
            control: one(&self.control, "--control", "DAEMUN_CONTROL"),
            accelerator: environment.variable("DAEMUN_ACCELERATOR").map(is_yes),
            collect: self.collect || environment.variable("DAEMUN_COLLECT").is_some_and(is_yes),
        }
    }
}

/// A warning for each variable that is nearly one of ours, and so does nothing.
pub(super) fn misspelt(environment: &Environment) -> Vec<String> {
    let ours = environment.variables.keys().filter(|name| name.starts_with("DAEMUN_"));
    let unknown = ours.filter(|name| !VARIABLES.contains(&name.as_str()));
    let told = |name: &String| {
        let near = nearest(name, VARIABLES).filter(|near| strsim::osa_distance(name, near) <= 2)?;
        Some(format!("the environment variable {name} does nothing; did you mean {near}?"))
    };
    unknown.filter_map(told).collect()
}

/// The port after `--debugger`. What is none may be the target, which the option has taken for itself.
fn debugger_port(word: &str) -> Result<u16, String> {
    word.parse().map_err(|_| {
        if word.parse::<u64>().is_ok() {
            String::from("a port is a number up to 65535")
        } else {
            format!("this is no port; where it is what to serve, write it first: daemun dev {word} --debugger")
        }
    })
}

fn is_yes(value: &str) -> bool {
    !matches!(value.to_ascii_lowercase().as_str(), "0" | "false" | "no" | "off")
}
