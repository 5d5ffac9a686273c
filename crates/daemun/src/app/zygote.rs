//! A zygote: a process that has imported an application once and forks its workers.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::STACK_SIGNAL;
use super::settings::{AppSettings, InheritEnv, Preload};
use crate::process::{self, Account};
use crate::sys::{self, ChildSetup};

/// Longest line that a zygote may send: a project with thousands of static folders.
const MAX_LINE: usize = 4 * 1024 * 1024;

/// Seconds after which an import that is still running is shown in the log with its stack.
const IMPORT_WARNING: u32 = 10;

/// What a zygote is started with, beyond its application's settings.
pub struct Start<'a> {
    /// The shim.
    pub shim: &'a Path,
    /// The accelerator, where there is one.
    pub accelerator: Option<&'a Path>,
    /// Where workers connect.
    pub socket: &'a Path,
    /// Who to run as; `None`: as we are.
    pub account: Option<&'a Account>,
    /// What there is where somebody develops.
    pub development: Option<DevelopmentTools<'a>>,
    /// The end of a pipe that closes when the supervisor is gone.
    pub lifeline: OwnedFd,
    /// Where workers write the stacks of their threads.
    pub stacks: OwnedFd,
    /// The limit of open files that we were started with.
    pub open_files: Option<u64>,
}

/// What the development server gives to a zygote and its workers.
#[derive(Clone, Copy, Serialize)]
pub struct DevelopmentTools<'a> {
    /// What [`DEVELOPMENT`](super::DEVELOPMENT) was written to.
    pub program: &'a Path,
    /// The file that grows when templates are to be read anew.
    pub stamp: &'a Path,
    /// The debugger that workers join before they import the application, in its own words.
    pub debugger: Option<&'a str>,
}

/// A running zygote.
pub struct Zygote {
    /// Its process id.
    pub pid: i32,
    /// How many threads each of its workers has.
    pub threads: u16,
    commands: OwnedWriteHalf,
}

/// What a zygote says.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ZygoteMessage {
    /// The application is imported.
    Ready(Box<Ready>),
    /// It could not be.
    Failed {
        /// What failed.
        what: String,
        /// What may mend it.
        #[serde(default)]
        hint: Option<String>,
        /// The traceback without frames of ours.
        #[serde(default)]
        traceback: Option<String>,
        /// The page that shows it in a browser, where somebody develops.
        #[serde(default)]
        page: Option<String>,
    },
    /// A worker was forked.
    Forked {
        /// Its number.
        serial: u32,
        /// Its process id.
        pid: i32,
    },
    /// A worker could not be forked.
    ForkFailed {
        /// Its number.
        serial: u32,
        /// Why.
        error: String,
    },
}

/// What is known once an application is imported.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Ready {
    /// Version of Python.
    pub python: String,
    /// CPython, PyPy.
    pub implementation: String,
    /// How long the import took.
    #[serde(default)]
    pub import_seconds: f64,
    /// Why its workers run without the accelerator, if they do.
    #[serde(default)]
    pub unaccelerated: Option<String>,
    /// Threads that the import left running.
    #[serde(default)]
    pub threads: Vec<String>,
    /// Sockets that the import left open.
    #[serde(default)]
    pub sockets: Vec<String>,
    /// Whether each worker imports the application by itself.
    #[serde(default)]
    pub per_worker: bool,
    /// Django's settings module.
    #[serde(default)]
    pub settings_module: Option<String>,
    /// Why that one.
    #[serde(default)]
    pub settings_reason: Option<String>,
    /// What Django's settings say.
    #[serde(default)]
    pub django: Option<DjangoInfo>,
    /// Why they could not be asked.
    #[serde(default)]
    pub django_error: Option<String>,
    /// Folders outside the project's own from which modules were loaded that are no one else's.
    #[serde(default)]
    pub sources: Vec<PathBuf>,
    /// Folders of templates.
    #[serde(default)]
    pub templates: Vec<PathBuf>,
    /// What a developer should know.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// What a Django project's settings say about static files and hosts, asked inside the interpreter that runs it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "each is the answer to a question of its own")]
pub struct DjangoInfo {
    /// Django's version.
    pub version: String,
    /// `DEBUG`.
    pub debug: bool,
    /// `ALLOWED_HOSTS`.
    pub allowed_hosts: Vec<String>,
    /// `STATIC_URL`.
    pub static_url: Option<String>,
    /// `STATIC_ROOT`.
    pub static_root: Option<String>,
    /// `MEDIA_URL`.
    pub media_url: Option<String>,
    /// `FORCE_SCRIPT_NAME` where no route strips anything: whoever is before us does.
    pub stripped_by_proxy: Option<String>,
    /// `MEDIA_ROOT`.
    pub media_root: Option<String>,
    /// Whether `django.contrib.staticfiles` is installed.
    pub staticfiles_installed: bool,
    /// The storage class for static files.
    pub storage: Option<String>,
    /// Whether it needs a manifest.
    pub storage_needs_manifest: bool,
    /// Whether a name that is not in the manifest is an error.
    pub manifest_strict: bool,
    /// Where the manifest is.
    pub manifest_path: Option<String>,
    /// Whether it is there.
    pub manifest_exists: bool,
    /// Folders that the finders look through, in order.
    pub finders: Vec<Finder>,
    /// Finders that are no folders.
    pub other_finders: Vec<String>,
    /// The settings module's file.
    pub settings_file: Option<String>,
    /// Lines of that file on which settings are assigned.
    pub lines: BTreeMap<String, u32>,
    /// Settings that this version of Django ignores.
    pub dead_settings: Vec<String>,
    /// Whether whitenoise's middleware is in use.
    pub whitenoise: bool,
    /// whitenoise's own settings.
    pub whitenoise_settings: WhitenoiseSettings,
}

/// Those of whitenoise's settings that say how files are served.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct WhitenoiseSettings {
    /// `WHITENOISE_ROOT`: files that are served at the site's root.
    pub root: Option<String>,
    /// `WHITENOISE_MAX_AGE`; -1 where it is set to `None`.
    pub max_age: Option<i64>,
    /// `WHITENOISE_INDEX_FILE`: what answers for a folder.
    pub index_file: Option<String>,
    /// `WHITENOISE_MIMETYPES`.
    pub mimetypes: BTreeMap<String, String>,
    /// `WHITENOISE_ALLOW_ALL_ORIGINS`.
    pub allow_all_origins: Option<bool>,
    /// `WHITENOISE_STATIC_PREFIX`: where static files are served, if not at `STATIC_URL`.
    pub static_prefix: Option<String>,
    /// Settings that are set and not followed.
    pub unsupported: Vec<String>,
}

/// A folder of static files.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Finder {
    /// What stands before the names in it.
    pub prefix: String,
    /// The folder.
    pub path: String,
    /// The application that brings it, for instance `django.contrib.admin`; `None` for one of `STATICFILES_DIRS`.
    pub application: Option<String>,
}

/// The first line that a zygote reads.
#[derive(Serialize)]
struct Orders<'a> {
    name: &'a str,
    mounts: Vec<(&'a str, &'a str)>,
    middleware: &'a [String],
    directory: &'a Path,
    script_name: &'a str,
    threads: u16,
    processes: u32,
    socket: &'a Path,
    django: bool,
    settings_from: &'static str,
    import_warning: u32,
    stack_signal: i32,
    preload: &'static str,
    ready: Option<&'a str>,
    hooks: Option<&'a Path>,
    accelerator: Option<&'a Path>,
    development: Option<Tools<'a>>,
    membarrier: i64,
}

/// What the development server adds.
#[derive(Serialize)]
struct Tools<'a> {
    #[serde(flatten)]
    tools: DevelopmentTools<'a>,
    refresh: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    Fork(u32),
    Stop(bool),
}

impl Zygote {
    /// Starts the interpreter and gives it its orders. What it says is read from the second value.
    pub async fn start(settings: &AppSettings, start: Start<'_>) -> std::io::Result<(Self, Words)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new(&settings.python);
        // -u: bytes that the application writes appear at once and in order; the shim makes whole lines of text.
        command.args(["-u"]).arg(start.shim).args(["3", "4", "5"]);
        // Standard output is for the access log: a line of the application would break it for whoever reads it.
        command.stdout(std::io::stderr().as_fd().try_clone_to_owned()?);
        environment(&mut command, settings, start.account);
        let setup = ChildSetup {
            descriptors: vec![theirs.into(), start.lifeline, start.stacks],
            identity: start.account.map(|account| account.identity.clone()),
            open_files: start.open_files,
            ..ChildSetup::default()
        };
        let pid = match settings.development {
            // A debugger's prompt reads what is typed.
            Some(_) => process::spawn_at_terminal(command, setup)?,
            None => process::spawn(command, setup)?,
        };
        let (reader, mut commands) = UnixStream::from_std(ours)?.into_split();
        let wished = settings.development.as_ref().zip(start.development);
        let tools = wished.map(|(wished, tools)| Tools { tools, refresh: wished.refresh });
        let orders = Orders {
            name: &settings.name,
            mounts: settings.mounts.iter().map(|mount| (&*mount.path, &*mount.callable)).collect(),
            middleware: &settings.middleware,
            directory: &settings.directory,
            script_name: &settings.script_name,
            threads: settings.threads,
            processes: settings.processes,
            socket: start.socket,
            django: settings.django,
            settings_from: if settings.development.is_some() { "manage" } else { "wsgi" },
            import_warning: IMPORT_WARNING,
            stack_signal: STACK_SIGNAL,
            preload: match settings.preload {
                Preload::Auto => "auto",
                Preload::Always => "always",
                Preload::Never => "never",
            },
            ready: settings.ready.as_deref(),
            hooks: settings.hooks.as_deref(),
            accelerator: start.accelerator.filter(|_| settings.accelerator && settings.development.is_none()),
            development: tools,
            membarrier: sys::MEMBARRIER,
        };
        write_line(&mut commands, &orders).await?;
        Ok((Self { pid, threads: settings.threads, commands }, Words { reader, bytes: Vec::new() }))
    }

    /// Asks for a worker; the answer is [`ZygoteMessage::Forked`] or [`ZygoteMessage::ForkFailed`].
    pub async fn fork(&mut self, serial: u32) -> std::io::Result<()> {
        write_line(&mut self.commands, &Order::Fork(serial)).await
    }

    /// Asks it to end. Its workers live on.
    pub async fn stop(&mut self) {
        // One that is gone already has ended too.
        let _ = write_line(&mut self.commands, &Order::Stop(true)).await;
    }
}

/// What a zygote says.
pub struct Words {
    reader: OwnedReadHalf,
    /// Read, and not taken yet.
    bytes: Vec<u8>,
}

impl Words {
    /// The next message; `None` when the zygote is gone.
    pub async fn next(&mut self) -> std::io::Result<Option<ZygoteMessage>> {
        let mut seen = 0;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.bytes[seen..]) {
                let line: Vec<u8> = self.bytes.drain(..=seen + at).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            seen = self.bytes.len();
            if seen > MAX_LINE {
                return Err(std::io::Error::new(ErrorKind::InvalidData, "a line has no end"));
            }
            match sys::read_more(self.reader.as_ref(), &mut self.bytes).await {
                Ok(0) => return Ok(None),
                // It ended with something unread.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                other => other?,
            };
        }
    }
}

async fn write_line(out: &mut OwnedWriteHalf, message: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    process::write_all(out, &line).await
}

/// What a service manager tells the server and nobody else: an application that also heeded it would speak in its place.
const OURS_ALONE: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// The environment of an application: what it inherits, who it is, and what is set for it.
pub(super) fn environment(command: &mut Command, settings: &AppSettings, account: Option<&Account>) {
    let inherited = |name: &str| match &settings.inherit_env {
        InheritEnv::All => !name.starts_with("DAEMUN_") && !OURS_ALONE.contains(&name),
        InheritEnv::Nothing => false,
        InheritEnv::Names(names) => names.iter().any(|wanted| wanted == name),
    };
    command.env_clear();
    command.envs(std::env::vars_os().filter(|(name, _)| name.to_str().is_none_or(inherited)));
    if let Some(account) = account {
        command.env("HOME", &account.home).env("USER", &account.name).env("LOGNAME", &account.name);
    }
    command.envs(&settings.env);
}
