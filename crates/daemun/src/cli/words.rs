//! The right word for one that comes from another server, from Django, or from a version to come.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What other programs call it, and what it is here.
const COMMANDS: &[(&str, &str)] = &[
    ("runserver", "dev"),
    ("start", "serve"),
    ("run", "serve"),
    ("server", "serve"),
    ("wsgi", "serve"),
    ("collectstatic", "collect"),
    ("test", "check"),
    ("configtest", "check"),
    ("validate", "check"),
];

/// Commands that a coming version will have.
const LATER_COMMANDS: &[&str] = &["import", "compare"];

/// Options of gunicorn, uWSGI, Granian, waitress and Django, and what to write instead.
const OPTIONS: &[(&str, &str)] = &[
    ("--bind", "`--listen`"),
    ("-b", "`--listen`"),
    ("--host", "`--listen HOST:PORT`"),
    ("--addr", "`--listen`"),
    ("--http", "`--listen`"),
    ("--http-socket", "`--listen`"),
    ("--socket", "`--listen unix:PATH`"),
    ("--unix-socket", "`--listen unix:PATH`"),
    ("--uds", "`--listen unix:PATH`"),
    ("--fd", "`--listen fd:N`"),
    ("--chdir", "`--directory`"),
    ("--pythonpath", "`--directory`"),
    ("--working-dir", "`--directory`"),
    ("--app-dir", "`--directory`"),
    ("--virtualenv", "`--python`"),
    ("--venv", "`--python`"),
    ("--home", "`--python`"),
    ("-H", "`--python`"),
    ("--wsgi-file", "the file as the target: `daemun serve FILE`"),
    ("--module", "the callable as the target: `daemun serve module:callable`"),
    ("--wsgi", "the callable as the target: `daemun serve module:callable`"),
    ("--app", "the callable as the target: `daemun serve module:callable`"),
    ("--mount", "targets with mounts: `daemun serve /=shop:app /wiki=wiki:app`"),
    ("-c", "`--config`"),
    ("--blocking-threads", "`--threads`"),
    ("--raw-env", "`--env`"),
    ("-e", "`--env`"),
    ("--settings", "`--env DJANGO_SETTINGS_MODULE=…`"),
    ("--static-map", "`--static`"),
    ("--static-path-mount", "`--static`"),
    ("--harakiri", "`--timeout`"),
    ("-t", "`--timeout`"),
    ("--uid", "`--user`"),
    ("-u", "`--user`"),
    ("--gid", "`--group`"),
    ("-g", "`--group`"),
    ("--access-logfile", "`--access-log`"),
    ("--access-log-file", "`--access-log`"),
    ("--req-logger", "`--access-log`"),
    ("--logto", "`error_log` of [server] in daemun.toml"),
    ("--error-logfile", "`error_log` of [server] in daemun.toml"),
    ("--log-file", "`error_log` of [server] in daemun.toml"),
    ("--graceful-timeout", "`grace` of [server] in daemun.toml"),
    ("--keep-alive", "`keep_alive` of [server] in daemun.toml"),
    ("--backpressure", "`queue` of [app.NAME] in daemun.toml"),
    ("--backlog", "`queue` of [app.NAME] in daemun.toml"),
    ("--limit-request-line", "`max_request_line` of [server] in daemun.toml"),
    ("--limit-request-fields", "`max_fields` of [server] in daemun.toml"),
    ("--pid", "`--pid-file`"),
    ("--pidfile", "`--pid-file`"),
];

/// Options that have no counterpart, and why.
const NEEDLESS: &[(&str, &str)] = &[
    ("--reload", "`daemun dev` reloads by itself, `daemun serve` when it is told to (HUP)"),
    ("--noreload", "`daemun dev` knows `--no-reload`, and `daemun serve` reloads when it is told to (HUP)"),
    ("--daemon", "daemun stays in the foreground; let systemd or a container start it"),
    ("-D", "daemun stays in the foreground; let systemd or a container start it"),
    ("--daemonize", "daemun stays in the foreground; let systemd or a container start it"),
    ("--worker-class", "every worker has threads; see `--threads`"),
    ("-k", "every worker has threads; see `--threads`"),
    ("--master", "there always is a supervisor"),
    ("--enable-threads", "threads are always enabled"),
    ("--max-requests-jitter", "`--max-requests` has jitter already"),
    ("--interface", "it is WSGI"),
];

/// Options that a coming version will have.
const LATER_OPTIONS: &[&str] =
    &["--certfile", "--keyfile", "--ssl-certificate", "--ssl-keyfile", "--ssl-certfile", "--preload", "--debugger"];

/// What to say instead of clap's own message, where the wrong word is known.
pub(super) fn advice(error: &clap::Error) -> Option<String> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => command(context(ContextKind::InvalidSubcommand)?),
        ErrorKind::UnknownArgument => option(context(ContextKind::InvalidArg)?),
        _ => None,
    }
}

fn command(word: &str) -> Option<String> {
    if let Some((_, ours)) = COMMANDS.iter().find(|(theirs, _)| *theirs == word) {
        return Some(format!("there is no command `{word}`; use `daemun {ours}`"));
    }
    if LATER_COMMANDS.contains(&word) {
        return Some(format!("`daemun {word}` is not supported by this version"));
    }
    let target = word.contains([':', '/', '.', '=']);
    target.then(|| format!("a command is missing before `{word}`; use `daemun serve {word}`"))
}

fn option(word: &str) -> Option<String> {
    let name = word.split('=').next().unwrap_or(word);
    let find = |list: &[(&str, &'static str)]| list.iter().find(|(theirs, _)| *theirs == name).map(|&(_, text)| text);
    if let Some(ours) = find(OPTIONS) {
        return Some(format!("there is no option `{name}`; use {ours}"));
    }
    if let Some(reason) = find(NEEDLESS) {
        return Some(format!("there is no option `{name}`: {reason}"));
    }
    LATER_OPTIONS.contains(&name).then(|| format!("`{name}` is not supported by this version"))
}
