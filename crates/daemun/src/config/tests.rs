use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

mod acme;
mod faults;
mod filters;

use super::*;
use crate::app::{InheritEnv, Mount, Preload};
use crate::listener::Address;
use crate::router::{HostPattern, PathPattern};
use crate::static_files::Missing;
use crate::telemetry::{Format, Level, Sink};

/// A folder with these files; a `python3` that can be "found" lies in `bin`.
fn tree(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "bin/python3", "");
    for (name, text) in files {
        write(folder.path(), name, text);
    }
    folder
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    if name.contains("bin/") {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn surroundings(folder: &TempDir, variables: &[(&str, &str)]) -> Environment {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    all.insert("PATH".to_owned(), folder.path().join("bin").display().to_string());
    all.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Environment { variables: all, directory: folder.path().to_path_buf(), executable: None, cores: 3 }
}

/// The faults of a `daemun.toml` with this text, one a line, the folder written as `/T`.
fn faults(text: &str) -> String {
    let folder = tree(&[("daemun.toml", text), ("static/a.css", ""), ("files/index.html", "")]);
    let error = gather(&Wishes::default(), &surroundings(&folder, &[("X", "x"), ("N", "0")])).unwrap_err();
    error.to_string().replace(&folder.path().display().to_string(), "/T")
}

fn valid(text: &str) -> Configuration {
    let folder = tree(&[("daemun.toml", text), ("static/a.css", "")]);
    let environment = surroundings(&folder, &[("NAME", "value"), ("N", "7")]);
    gather(&Wishes::default(), &environment).map_err(|error| error.to_string()).unwrap()
}

#[test]
fn a_whole_file_is_read_into_the_settings_of_the_rooms() {
    let configuration = valid(
        r#"
        [server]
        listen = ["0.0.0.0:80", { address = "unix:run/d.sock", mode = "660", group = "www-data" }, 8001]
        user = "www-data"
        spool = "spool"
        max_spool = "1GiB"
        header_timeout = "5s"
        keep_alive = "0s"
        grace = "1m"
        drain_delay = "500ms"
        max_body = 1000
        max_connections = 5
        max_head = "32KiB"
        event_loops = 1
        access_log = { path = "access.log", format = "json" }
        error_log = { path = "-", level = "debug" }

        [app.wiki]
        wsgi = "wiki.wsgi:application"
        processes = "${N}"
        threads = 2
        env = { A = "${NAME}", B = "${NONE:-b}" }
        inherit_env = ["LANG"]
        timeout = "1m30s"
        queue = { max = 10, timeout = "1s" }
        max_requests = 100
        stream_idle = "5m"
        memory_limit = "512MiB"
        lifetime = "24h"
        preload = false
        ready = "/healthz"
        middleware = ["paste.gzipper:middleware"]
        user = "wiki"

        [app.portal]
        mounts = { "/" = "portal:app", "/wiki/" = "wiki:make()" }
        processes = { min = 0, max = 3, idle = "1m" }

        [[route]]
        app = "wiki"
        [[route]]
        host = "*.Example.org"
        path = "*.php"
        redirect = { to = "/new/{rest}" }
        [[route]]
        path = "/static/*"
        static = { root = ["static", "/srv"], missing = "/index.html", manifest = true, allow_names = [".htaccess"] }
        [[route]]
        path = "/gone"
        respond = { status = 410, body = "gone" }
        "#,
    );
    let server = &configuration.server;
    let told: Vec<String> = server.listeners.iter().map(|listener| listener.address.to_string()).collect();
    assert_eq!((told[0].as_str(), told[2].as_str()), ("0.0.0.0:80", "127.0.0.1:8001"));
    assert!(told[1].starts_with("unix:/") && told[1].ends_with("/run/d.sock"));
    assert_eq!((server.listeners[1].mode, server.listeners[1].group.as_deref()), (Some(0o660), Some("www-data")));
    assert_eq!((server.limits.max_body, server.limits.max_connections, server.limits.max_head), (1000, 5, 32 * 1024));
    assert_eq!((server.grace, server.drain_delay), (Duration::from_secs(60), Duration::from_millis(500)));
    assert_eq!((server.event_loops, server.max_spool), (1, 1 << 30));
    assert!(matches!(&server.telemetry.access.sink, Sink::File(path) if path.is_absolute()));
    assert_eq!((server.telemetry.access.format.clone(), server.telemetry.error.level), (Format::Json, Level::Debug));

    let [portal, wiki] = &configuration.apps[..] else { panic!("two applications") };
    assert_eq!((portal.name.as_str(), portal.mounts.len(), portal.processes, portal.threads), ("portal", 2, 3, 4));
    assert_eq!(portal.mounts[1], Mount { path: "/wiki".to_owned(), callable: "wiki:make()".to_owned() });
    assert_eq!((wiki.processes, wiki.threads, wiki.max_requests), (7, 2, Some(100)));
    assert_eq!((portal.min_processes, portal.idle, portal.preload), (0, Duration::from_secs(60), Preload::Auto));
    assert_eq!((wiki.min_processes, wiki.memory_limit, wiki.preload), (7, Some(512 << 20), Preload::Never));
    assert_eq!((wiki.stream_idle, wiki.lifetime), (Some(Duration::from_secs(300)), Some(Duration::from_hours(24))));
    assert_eq!(wiki.ready.as_deref(), Some("/healthz"));
    assert_eq!(
        (wiki.timeout, wiki.queue_timeout, wiki.queue_max),
        (Duration::from_secs(90), Duration::from_secs(1), 10)
    );
    assert_eq!(wiki.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(), ["A=value", "B=b"]);
    assert_eq!(wiki.inherit_env, InheritEnv::Names(vec!["LANG".to_owned()]));
    assert!(!wiki.django && wiki.directory.is_absolute() && wiki.python.ends_with("bin/python3"));

    let [app, redirect, files, gone] = &configuration.routes[..] else { panic!("four routes") };
    assert_eq!(app.handler, HandlerSettings::App("wiki".to_owned()));
    assert_eq!(redirect.rule.host, HostPattern::Below(".example.org".to_owned()));
    assert_eq!(redirect.rule.path, PathPattern::Prefix { prefix: "/".to_owned(), suffix: ".php".to_owned() });
    assert_eq!(redirect.rule.origin, "daemun.toml:41:9");
    assert_eq!(redirect.handler, HandlerSettings::Redirect { to: "/new/{rest}".to_owned(), status: 302 });
    let HandlerSettings::Static(files) = &files.handler else { panic!("files") };
    assert_eq!((files.roots.len(), &files.missing), (2, &Missing::File("/index.html".to_owned())));
    assert!(files.manifest && !files.refuse_sources);
    assert!(matches!(&gone.handler, HandlerSettings::Respond { status: 410, .. }));
    assert_eq!(configuration.warnings, ["[app.portal] is started, but no route leads to it [D405]"]);
}

#[test]
fn the_only_application_gets_every_path_that_is_not_taken() {
    let app = "[app.shop]\nwsgi = 'shop:app'\n";
    let origins = |text: &str| -> Vec<String> {
        valid(text).routes.into_iter().map(|route| format!("{} {}", route.rule.path, route.rule.origin)).collect()
    };
    assert_eq!(origins(app), ["/* the only application"]);
    let files = "[[route]]\npath = '/static/*'\nstatic = { root = 'static' }\n";
    assert_eq!(origins(&format!("{app}{files}")), ["/static/* daemun.toml:3:1", "/* the only application"]);
    assert_eq!(origins(&format!("{app}[[route]]\npath = '/shop/*'\napp = 'shop'")), ["/shop/* daemun.toml:3:1"]);
    assert_eq!(origins(&format!("{app}[[route]]\nrespond = {{}}")), ["/* daemun.toml:3:1"]);
}

#[test]
fn included_files_add_up_and_what_stands_twice_is_told_with_both_places() {
    let app = "[app.shop]\nwsgi = 'shop:app'\ndirectory = 'code'\n";
    let folder = tree(&[
        ("daemun.toml", "include = ['sites/*.toml']\n[server]\ngrace = '1s'\n"),
        ("sites/a.toml", app),
        ("sites/b.toml", "[server]\nkeep_alive = '9s'\n[[route]]\napp = 'shop'\npath = '/b/*'\n"),
        ("sites/code/shop.py", ""),
    ]);
    let environment = surroundings(&folder, &[]);
    let configuration = gather(&Wishes::default(), &environment).unwrap();
    assert_eq!(configuration.server.grace, Duration::from_secs(1));
    assert_eq!(configuration.server.limits.keep_alive, Duration::from_secs(9));
    assert_eq!(configuration.apps[0].directory, folder.path().join("sites/code"));
    assert_eq!(configuration.routes[0].rule.origin, "sites/b.toml:3:1");
    let files = ["daemun.toml", "sites/a.toml", "sites/b.toml"].map(|name| folder.path().join(name));
    assert_eq!(configuration.files, files);

    write(folder.path(), "sites/c.toml", &format!("include = []\n[server]\ngrace = '2s'\n{app}"));
    let error = gather(&Wishes::default(), &environment).unwrap_err();
    let want = "sites/c.toml:1:1: unknown key `include`; expected `server`, `tls`, `app`, `upstream`, `route` or `site`\n\
                sites/c.toml:3:1: `grace` in [server] stands already at daemun.toml:3:1\n\
                sites/c.toml:4:1: [app.shop] stands already at sites/a.toml:1:1";
    assert_eq!(error.to_string(), want);

    write(folder.path(), "sites/c.toml", "[server\n");
    let error = gather(&Wishes::default(), &environment).unwrap_err();
    assert_eq!(error.faults.len(), 1);
    assert!(error.to_string().starts_with("sites/c.toml:1:8: not TOML: "), "{error}");
}

#[test]
fn variables_of_a_file_stand_below_those_of_the_table() {
    let folder = tree(&[
        ("daemun.toml", "[app.a]\nwsgi = 'a:b'\nenv_file = 'a.env'\nenv = { B = 'table' }\n"),
        ("a.env", "A=file\nB=file\nC='open\n"),
        ("flag.env", "B=flag file\nD=flag file\n"),
    ]);
    let environment = surroundings(&folder, &[]);
    let error = gather(&Wishes::default(), &environment).unwrap_err();
    assert_eq!(error.to_string(), "a.env:3:1: the quote around the value of C is not closed");
    write(folder.path(), "a.env", "A=file\nB=file\n");
    let wishes = Wishes {
        env: vec![Wish::new("D= flag ", "--env")],
        env_files: vec![Wish::new("flag.env", "--env-file")],
        ..Wishes::default()
    };
    let env = gather(&wishes, &environment).unwrap().apps.remove(0).env;
    let told: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(told, ["A=file", "B=flag file", "D= flag "]);
}

#[test]
fn an_option_goes_before_the_file_and_the_file_before_the_platform() {
    let folder = tree(&[(
        "daemun.toml",
        "[server]\nlisten = ['127.0.0.1:1']\n[app.a]\nwsgi = 'a:b'\nprocesses = 5\ntimeout = '9s'\n",
    )]);
    let platform = [("PORT", "2"), ("WEB_CONCURRENCY", "6")];
    let environment = surroundings(&folder, &platform);
    let configuration = gather(&Wishes::default(), &environment).unwrap();
    assert_eq!(configuration.server.listeners[0].address.to_string(), "127.0.0.1:1");
    assert_eq!(configuration.apps[0].processes, 5);
    assert_eq!(
        configuration.warnings,
        ["PORT is 2, but the server listens on 127.0.0.1:1: the platform may not reach it"]
    );
    let wishes = Wishes {
        listen: vec![Wish::new("3", "--listen"), Wish::new("unix:s", "--listen")],
        processes: Some(Wish::new("auto", "--processes")),
        timeout: Some(Wish::new("7", "--timeout")),
        ..Wishes::default()
    };
    let configuration = gather(&wishes, &environment).unwrap();
    assert_eq!(configuration.server.listeners[0].address.to_string(), "127.0.0.1:3");
    assert_eq!(configuration.server.listeners[1].address, Address::Unix(folder.path().join("s")));
    assert_eq!((configuration.apps[0].processes, configuration.apps[0].timeout), (3, Duration::from_secs(7)));

    let folder = tree(&[("app.py", "app = 1\n")]);
    let configuration = gather(&Wishes::default(), &surroundings(&folder, &platform)).unwrap();
    assert_eq!(configuration.server.listeners[0].address.to_string(), "0.0.0.0:2");
    assert_eq!(configuration.apps[0].processes, 6);
    let configuration = gather(&Wishes::default(), &surroundings(&folder, &[("PORT", "")])).unwrap();
    assert_eq!(configuration.server.listeners[0].address.to_string(), "127.0.0.1:8000");
    assert_eq!((configuration.apps[0].processes, configuration.apps[0].threads), (3, 4));
}

#[test]
fn a_wrong_option_is_told_by_its_name() {
    let folder = tree(&[("app.py", "app = 1\n")]);
    let wish = |value: &str, origin: &str| Some(Wish::new(value, origin));
    let wishes = Wishes {
        listen: vec![Wish::new("https://1.2.3.4:443", "--listen"), Wish::new("x", "--port")],
        processes: wish("0", "--processes"),
        threads: wish("x", "DAEMUN_THREADS"),
        python: wish("none", "--python"),
        directory: wish("none", "--directory"),
        env: vec![Wish::new("x", "--env")],
        env_files: vec![Wish::new("none.env", "--env-file")],
        statics: vec![Wish::new("static", "--static"), Wish::new("/s=none", "--static")],
        timeout: wish("0", "--timeout"),
        max_requests: wish("0", "--max-requests"),
        log_format: wish("xml", "--log-format"),
        log_level: wish("loud", "--log-level"),
        targets: vec!["app:app".to_owned()],
        ..Wishes::default()
    };
    let error = gather(&wishes, &surroundings(&folder, &[("PORT", "x")])).unwrap_err().to_string();
    let want = "\
        --directory: there is no folder /T/none\n\
        --env: expected KEY=VALUE, found \"x\"\n\
        --env-file: cannot read none.env: No such file or directory (os error 2)\n\
        --listen: https://1.2.3.4:443 needs a certificate: write [[tls]] with `cert` and `key` or `acme`, or give --tls-cert and --tls-key, or --domain\n\
        --log-format: expected `combined`, `json` or a template such as \"$remote_addr $request $status\", found \"xml\"\n\
        --log-level: expected `error`, `warning`, `info` or `debug`, found \"loud\"\n\
        --max-requests: expected a number of at least 1, found \"0\"\n\
        --port: expected PORT, HOST:PORT, http://HOST:PORT, [::]:PORT, unix:PATH or fd:N, found \"x\"\n\
        --processes: expected a number from 1 to 1024 or \"auto\", found \"0\"\n\
        --python: there is no `none` on PATH\n\
        --static: expected URL=DIR such as \"/static=staticfiles\", found \"static\"\n\
        --static: there is no folder /T/none\n\
        --timeout: expected a duration longer than zero, found \"0s\"\n\
        DAEMUN_THREADS: expected a number from 1 to 1024, found \"x\"\n\
        PORT: expected a number from 0 to 65535, found \"x\"";
    assert_eq!(error.replace(&folder.path().display().to_string(), "/T"), want);
}

#[test]
fn folders_of_the_command_line_never_send_sources() {
    let folder = tree(&[("app.py", "app = 1\n"), ("files/a.txt", "")]);
    let wishes = Wishes { statics: vec![Wish::new("/static/=files", "--static")], ..Wishes::default() };
    let configuration = gather(&wishes, &surroundings(&folder, &[])).unwrap();
    assert_eq!(configuration.routes[0].rule.path.to_string(), "/static/*");
    let HandlerSettings::Static(files) = &configuration.routes[0].handler else { panic!("files") };
    assert!(files.refuse_sources);
    assert_eq!(files.roots[0].path, folder.path().join("files"));
    assert_eq!(configuration.routes[1].handler, HandlerSettings::App("app".to_owned()));
}
