//! `daemun collect`: from what was typed to one build for each project, or for a folder.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{ProjectArguments, ServeArguments, USAGE, configure};
use crate::config::{self, Environment};
use crate::django::collect::{self, Bar, Options, Order};
use crate::supervisor::identity;

/// `daemun collect`.
#[derive(Args, Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "flags, as they are typed")]
pub struct CollectArguments {
    /// daemun.toml, project folder or module:callable, as for `serve`; or SRC DEST: a folder of sources that belong to
    /// no project, and where they go.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Which project, and its surroundings.
    #[command(flatten)]
    pub project: ProjectArguments,
    /// User of the application when started as root.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Group of the application when started as root.
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// Say what would be done, and write nothing.
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Remove everything from the destination that this build does not make, once it is published.
    #[arg(short = 'c', long)]
    pub clear: bool,
    /// Leave out files and folders of this pattern; repeatable, beyond CVS, .* and *~.
    #[arg(short, long, value_name = "PATTERN")]
    pub ignore: Vec<String>,
    /// Go on where a file refers to one that is missing: a warning, and the reference stays as it is.
    #[arg(long)]
    pub allow_missing: bool,
    /// Compress with the usual levels, also where the project's storage does not.
    #[arg(long)]
    pub compress: bool,
    /// Level of .gz, 1 to 9.
    #[arg(long, value_name = "LEVEL|off")]
    pub gzip: Option<String>,
    /// Level of .br, 0 to 11.
    #[arg(long, value_name = "LEVEL|off")]
    pub brotli: Option<String>,
    /// Level of .zst, 1 to 22.
    #[arg(long, value_name = "LEVEL|off")]
    pub zstd: Option<String>,
    /// How long hashed files stay that no manifest names any more; 30 days by default.
    #[arg(long, value_name = "TIME|forever")]
    pub keep: Option<String>,
    /// Folder of compressed contents between builds; .daemun/cache in the project by default.
    #[arg(long, value_name = "DIR|off")]
    pub cache: Option<String>,
    /// What the cache may hold; 512MiB by default.
    #[arg(long, value_name = "SIZE")]
    pub cache_size: Option<String>,
    /// With SRC DEST: the path below which the files are served, for references such as /static/a.css.
    #[arg(long, value_name = "PATH", default_value = "/static/")]
    pub url: String,
    /// One JSON object for each project on standard output.
    #[arg(long)]
    pub json: bool,
}

// === impl CollectArguments ===

impl CollectArguments {
    /// Does what was asked for.
    pub fn run(&self, environment: &Environment) -> ExitCode {
        let result = match self.folders(environment) {
            Some((source, destination)) => self.collect_folder(source, destination),
            None => self.collect_projects(environment),
        };
        result.unwrap_or_else(|message| {
            eprintln!("{message}");
            ExitCode::from(USAGE)
        })
    }

    /// `SRC DEST`, where the first is a folder.
    fn folders(&self, environment: &Environment) -> Option<(PathBuf, PathBuf)> {
        let [source, destination] = &self.targets[..] else { return None };
        let is_folder = !source.starts_with("/=") && environment.absolute(source).is_dir();
        let to_folder = !destination.contains(['=', ':']);
        (is_folder && to_folder).then(|| (environment.absolute(source), environment.absolute(destination)))
    }

    fn collect_folder(&self, source: PathBuf, destination: PathBuf) -> Result<ExitCode, String> {
        let mut options = self.options(&destination)?;
        if self.cache.is_none() && std::env::var_os("CACHE_DIRECTORY").is_none() {
            // Neither the sources nor what is served is a place for it.
            options.cache = users_cache();
        }
        let bar = Bar::new();
        let outcome = collect::folder(source, destination, &self.url, &options, &bar);
        bar.clear();
        match outcome {
            Ok(outcome) => {
                collect::tell(&outcome, &options);
                Ok(ExitCode::SUCCESS)
            }
            Err(error) => {
                eprintln!("daemun: collect: {error}");
                Ok(ExitCode::FAILURE)
            }
        }
    }

    fn collect_projects(&self, environment: &Environment) -> Result<ExitCode, String> {
        let configuration = configure(&self.as_serve(), environment).map_err(|error| error.to_string())?;
        let server = &configuration.server;
        let projects: Vec<_> = configuration.apps.iter().filter(|app| app.django).collect();
        if projects.is_empty() {
            let target = &configuration.target;
            return Err(format!(
                "daemun: collect: {target}: no Django project; for a folder of files: daemun collect SRC DEST"
            ));
        }
        let mut code = ExitCode::SUCCESS;
        for settings in projects {
            let options = self.options(&settings.directory)?;
            let user = settings.user.as_deref().or(server.user.as_deref());
            let group = settings.group.as_deref().or(server.group.as_deref());
            let chosen = identity::of_application(user, group, &settings.directory);
            let chosen = chosen.map_err(|error| format!("daemun: collect: {}: {error}", settings.name))?;
            if let Some(warning) = &chosen.warning {
                eprintln!("daemun: warning: {warning}");
            }
            let order = Order { settings: settings.clone(), options };
            let ended = match &chosen.account {
                None => collect::carry_out(&order),
                Some(account) => {
                    collect::start_and_wait(&order, account).map_err(|error| format!("daemun: collect: {error}"))?
                }
            };
            if ended != ExitCode::SUCCESS {
                code = ended;
            }
        }
        Ok(code)
    }

    fn as_serve(&self) -> ServeArguments {
        ServeArguments {
            targets: self.targets.clone(),
            project: self.project.clone(),
            user: self.user.clone(),
            group: self.group.clone(),
            ..ServeArguments::default()
        }
    }

    fn options(&self, folder: &std::path::Path) -> Result<Options, String> {
        let wrong = |option: &str, message: String| format!("daemun: --{option}: {message}");
        let mut options = Options::usual(folder);
        options.dry_run = self.dry_run;
        options.clear = self.clear;
        options.lenient = self.allow_missing;
        options.json = self.json;
        options.ignore.clone_from(&self.ignore);
        options.levels.usual = self.compress;
        options.levels.gzip = level("gzip", self.gzip.as_ref(), 1, 9)?.map(Option::unwrap_or_default);
        options.levels.brotli = level("brotli", self.brotli.as_ref(), 0, 11)?;
        options.levels.zstd = level("zstd", self.zstd.as_ref(), 1, 22)?.map(Option::unwrap_or_default);
        match self.keep.as_deref() {
            None => {}
            Some("forever") => options.keep = None,
            Some("0") => options.keep = Some(std::time::Duration::ZERO),
            Some(text) => {
                let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
                let days = days.map(|days| std::time::Duration::from_secs(u64::from(days) * 86_400));
                let keep = days.map_or_else(|| config::duration(text), Ok);
                options.keep = Some(keep.map_err(|message| wrong("keep", message))?);
            }
        }
        match self.cache.as_deref() {
            None => {}
            Some("off") => options.cache = None,
            Some(path) => {
                options.cache = Some(std::path::absolute(path).map_err(|error| wrong("cache", error.to_string()))?);
            }
        }
        if let Some(text) = &self.cache_size {
            options.cache_limit = config::size(text).map_err(|message| wrong("cache-size", message))?;
        }
        Ok(options)
    }
}

/// `off` is `Some(None)`.
#[expect(clippy::option_option, reason = "not said, off, or a level")]
fn level(option: &str, text: Option<&String>, least: u32, most: u32) -> Result<Option<Option<u32>>, String> {
    let Some(text) = text else { return Ok(None) };
    if text == "off" {
        return Ok(Some(None));
    }
    let level = text.parse().ok().filter(|level| (least..=most).contains(level));
    level
        .map(|level| Some(Some(level)))
        .ok_or_else(|| format!("daemun: --{option}: expected a level from {least} to {most}, or off, not `{text}`"))
}

fn users_cache() -> Option<PathBuf> {
    let given = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = given("XDG_CACHE_HOME").or_else(|| given("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("daemun").join("static"))
}
