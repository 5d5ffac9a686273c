//! `daemun init`: a configuration file for what is found here; or what systemd or Docker needs to run it.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use super::USAGE;
use super::arguments::InitArguments;
use crate::config::{self, Configuration, Environment, HandlerSettings, Wishes};

/// Writes or prints what is asked for.
pub(super) fn run(arguments: &InitArguments, environment: &Environment) -> ExitCode {
    let wishes = Wishes { targets: arguments.targets.clone(), ..Wishes::default() };
    let configuration = match config::gather(&wishes, environment) {
        Ok(configuration) => configuration,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(USAGE);
        }
    };
    if arguments.systemd {
        print!("{}", systemd(&configuration, arguments, environment));
        return ExitCode::SUCCESS;
    }
    if arguments.docker {
        print!("{}", docker(&configuration, arguments, environment));
        return ExitCode::SUCCESS;
    }
    if let Some(file) = configuration.files.first() {
        eprintln!("daemun: {} is there already", environment.shown(file));
        return ExitCode::FAILURE;
    }
    let path = environment.directory.join("daemun.toml");
    // Never over a file that somebody wrote.
    let written = OpenOptions::new().write(true).create_new(true).open(&path);
    match written.and_then(|mut file| file.write_all(toml(&configuration, environment).as_bytes())) {
        Ok(()) => {
            println!("wrote {}; look at it, then: daemun serve", environment.shown(&path));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("daemun: cannot write {}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}

/// The file: what was found, written out, and what one would change first as comments.
fn toml(configuration: &Configuration, environment: &Environment) -> String {
    let mut out = String::from(
        "# Every key is told in the manual, docs/manual/daemun-toml.md. Relative paths are relative to this file.\n\n\
         [server]\nlisten = [\"127.0.0.1:8000\"]\n# health = \"127.0.0.1:9181\"        # /healthz, /readyz, /metrics\n\
         # trusted_proxies = [\"127.0.0.1\"]  # whose X-Forwarded-* count\n",
    );
    // Writing into memory cannot fail.
    for app in &configuration.apps {
        let _ = writeln!(out, "\n[app.{}]", key(&app.name));
        if let [mount] = &app.mounts[..] {
            let _ = writeln!(out, "wsgi = {}", quoted(&mount.callable));
        } else {
            let mounts =
                app.mounts.iter().map(|mount| format!("{} = {}", quoted(&mount.path), quoted(&mount.callable)));
            let _ = writeln!(out, "mounts = {{ {} }}", mounts.collect::<Vec<_>>().join(", "));
        }
        let directory = relative(&app.directory, environment);
        if directory != "." {
            let _ = writeln!(out, "directory = {}", quoted(&directory));
        }
        let _ = writeln!(out, "# processes = {}\n# threads = {}", app.processes, app.threads);
    }
    for route in &configuration.routes {
        let HandlerSettings::Static(files) = &route.handler else { continue };
        let Some(root) = files.roots.first() else { continue };
        let root = relative(&root.path, environment);
        let path = route.rule.path.to_string();
        let _ = writeln!(out, "\n[[route]]\npath = {}\nstatic = {{ root = {} }}", quoted(&path), quoted(&root));
    }
    out
}

/// A path as it stands in a file in the current folder.
fn relative(path: &Path, environment: &Environment) -> String {
    match path.strip_prefix(&environment.directory) {
        Ok(inside) if inside.as_os_str().is_empty() => ".".to_owned(),
        Ok(inside) => inside.display().to_string(),
        Err(_) => path.display().to_string(),
    }
}

/// A basic string (TOML, section "String").
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn key(name: &str) -> String {
    let bare = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if bare { name.to_owned() } else { quoted(name) }
}

/// What stands behind `daemun serve`.
fn target(configuration: &Configuration, arguments: &InitArguments) -> String {
    match configuration.files.first() {
        Some(file) => format!(" --config {}", file.display()),
        None => arguments.targets.iter().fold(String::new(), |text, target| text + " " + target),
    }
}

/// The name of the service: that of the folder.
fn name(environment: &Environment) -> String {
    let name = environment.directory.file_name().and_then(|name| name.to_str()).unwrap_or("site");
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c.to_ascii_lowercase() } else { '-' };
    let name: String = name.chars().map(safe).collect();
    if name.trim_matches('-').is_empty() { "site".to_owned() } else { name }
}

fn systemd(configuration: &Configuration, arguments: &InitArguments, environment: &Environment) -> String {
    let (name, target) = (name(environment), target(configuration, arguments));
    let program = environment.executable.as_deref().unwrap_or(Path::new("/usr/local/bin/daemun")).display().to_string();
    let (folder, grace) = (environment.directory.display(), configuration.server.grace.as_secs());
    // A little more than we need ourselves: what is over is cut by us, with a line that says so.
    let stop = grace + configuration.server.drain_delay.as_secs() + 5;
    let place = match configuration.files.first() {
        Some(file) => format!("--config {}", file.display()),
        None => format!("--directory {folder}"),
    };
    let user = configuration.server.user.as_deref().unwrap_or("www-data");
    let listen: Vec<String> = configuration
        .server
        .listeners
        .iter()
        .map(|listener| listener.address.to_string())
        .map(|address| format!("ListenStream={}\n", address.strip_prefix("unix:").unwrap_or(&address)))
        .collect();
    let listen = listen.concat();
    format!(
        "# ---- /etc/systemd/system/daemun-{name}.service\n\
         [Unit]\nDescription=daemun: {folder}\nAfter=network-online.target\nWants=network-online.target\n\n\
         [Service]\nType=notify\nExecStart={program} serve{target}\nExecReload={program} reload {place}\nWorkingDirectory={folder}\nUser={user}\n\
         # Workers obey daemun, not the signal that the group gets.\nKillMode=mixed\nTimeoutStopSec={stop}\n\
         Restart=on-failure\nWatchdogSec=30\n\
         RuntimeDirectory=daemun-{name}\nStateDirectory=daemun-{name}\nLogsDirectory=daemun\n\
         LimitNOFILE=65536\nAmbientCapabilities=CAP_NET_BIND_SERVICE\nNoNewPrivileges=yes\n\
         ProtectSystem=full\nPrivateDevices=yes\nProtectKernelTunables=yes\nProtectControlGroups=yes\n\n\
         [Install]\nWantedBy=multi-user.target\n\n\
         # ---- /etc/systemd/system/daemun-{name}.socket (optional: the port is open from boot, and through every restart)\n\
         [Socket]\n{listen}NoDelay=true\nBacklog=4096\n\n[Install]\nWantedBy=sockets.target\n\n\
         # ---- /etc/logrotate.d/daemun-{name} (where access_log and error_log name files below /var/log/daemun)\n\
         /var/log/daemun/*.log {{\n    daily\n    rotate 14\n    compress\n    delaycompress\n    missingok\n    notifempty\n\
         \x20   sharedscripts\n    postrotate\n        systemctl kill --kill-whom=main --signal=USR1 daemun-{name}.service\n\
         \x20   endscript\n}}\n\n\
         # ---- to install them: write each part to the file above it, then\n\
         # systemctl daemon-reload\n# systemctl enable --now daemun-{name}.service\n\
         # after a change: daemun reload    (in {folder}; or systemctl reload daemun-{name})\n\
         # after pip install --upgrade daemun: daemun upgrade\n"
    )
}

/// Two stages: what builds is not in what runs. `deploy/Dockerfile` is the one of a Django project (a test compares them).
fn docker(configuration: &Configuration, arguments: &InitArguments, environment: &Environment) -> String {
    let is_there = |name: &str| environment.directory.join(name).is_file();
    let install = if is_there("requirements.txt") {
        "COPY requirements.txt .\nRUN /opt/site/bin/pip install --no-cache-dir daemun -r requirements.txt\n"
    } else if is_there("pyproject.toml") {
        "WORKDIR /build\nCOPY . .\nRUN /opt/site/bin/pip install --no-cache-dir daemun .\n"
    } else {
        "RUN /opt/site/bin/pip install --no-cache-dir daemun\n"
    };
    let file = configuration.files.first().map(|file| relative(file, environment));
    // Found by itself: the command is as short as the one at the shell.
    let file = file.filter(|file| file != "daemun.toml");
    let mut words: Vec<&str> = file.iter().flat_map(|file| ["--config", file]).collect();
    words.extend(arguments.targets.iter().map(String::as_str));
    // The words are a JSON array there.
    let given = words.iter().fold(String::new(), |text, word| format!("{text}, {}", serde_json::Value::from(*word)));
    let collect = if configuration.apps.iter().any(|app| app.django) {
        format!(
            "# Static files are part of the image: every container has the same, and none writes at start. SECRET_KEY is asked\n\
             # for by many settings, and is none of the image's.\n\
             RUN [\"env\", \"SECRET_KEY=only-for-collecting\", \"daemun\", \"collect\", \"--cache\", \"off\"{given}]\n"
        )
    } else {
        String::new()
    };
    format!(
        "# daemun init --docker > Dockerfile && docker build -t site .\n\
         # docker run --rm --read-only --tmpfs /tmp -p 8000:8000 site\n#\n\
         # What is none of the image's belongs into .dockerignore: .git, .venv, .env, db.sqlite3, __pycache__\n\
         FROM python:3.13-slim AS build\nRUN python -m venv /opt/site\n{install}\n\
         FROM python:3.13-slim\nCOPY --from=build /opt/site /opt/site\nWORKDIR /srv/site\nCOPY . .\n\
         ENV PATH=/opt/site/bin:$PATH VIRTUAL_ENV=/opt/site PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1\n{collect}\
         # daemun reaps orphans and obeys TERM as process 1: no init is needed, and no root.\n\
         USER 10001\nEXPOSE 8000 9181\n\
         HEALTHCHECK CMD [\"python\", \"-c\", \"import urllib.request; urllib.request.urlopen('http://127.0.0.1:9181/healthz')\"]\n\
         STOPSIGNAL SIGTERM\n\
         CMD [\"daemun\", \"serve\", \"--listen\", \"0.0.0.0:8000\", \"--health\", \"0.0.0.0:9181\", \"--monitor\", \"127.0.0.1:9180\"{given}]\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_safe_where_they_stand() {
        let environment = |folder: &str| Environment { directory: folder.into(), ..Environment::default() };
        assert_eq!(name(&environment("/srv/My Shop!")), "my-shop-");
        assert_eq!(name(&environment("/")), "site");
        assert_eq!((key("shop"), key("a.b")), ("shop".to_owned(), "\"a.b\"".to_owned()));
    }
}
