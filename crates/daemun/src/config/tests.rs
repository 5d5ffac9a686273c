use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

mod acme;
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

/// The faults that one line or section gives, each as it is printed.
const FAULTS: &[(&str, &str)] = &[
    ("[server]\ngraze = \"1s\"", "daemun.toml:2:1: unknown key `graze` in [server]; did you mean `grace`?"),
    ("[sever]", "daemun.toml:1:2: unknown key `sever`; did you mean `server`?"),
    (
        "[server]\ncolour = 1",
        "daemun.toml:2:1: unknown key `colour` in [server]; expected `listen`, `user`, `group`, `spool`, `max_spool`, `max_cgi_processes`, `header_timeout`, `keep_alive`, `grace`, `drain_delay`, `max_body`, `max_connections`, `max_connections_per_client`, `max_head`, `max_request_line`, `max_fields`, `access_log`, `error_log`, `event_loops`, `pid_file`, `redirect_https`, `hsts`, `trusted_proxies`, `monitor`, `health`, `control` or `state`",
    ),
    (
        "processes = 2\nlisten = '80'",
        "daemun.toml:1:1: `processes` stands outside of every table; it belongs under a line such as [app.shop]\ndaemun.toml:2:1: `listen` stands outside of every table; it belongs under [server]",
    ),
    (
        "workers = 2",
        "daemun.toml:1:1: unknown key `workers`; expected `include`, `server`, `tls`, `app`, `upstream`, `route` or `site`",
    ),
    (
        "[server]\ngrace = 25",
        "daemun.toml:2:9: `grace` in [server]: expected a duration such as \"25s\", found the number 25",
    ),
    (
        "[server]\ngrace = \"25\"",
        "daemun.toml:2:9: `grace` in [server]: expected a duration such as \"30s\", \"500ms\", \"10m\", \"1h\" or \"2d\", found \"25\"",
    ),
    (
        "[server]\nheader_timeout = \"0s\"",
        "daemun.toml:2:18: `header_timeout` in [server]: expected a duration longer than zero, found \"0s\"",
    ),
    (
        "[server]\nkeep_alive = \"99999d\"",
        "daemun.toml:2:14: `keep_alive` in [server]: expected at most \"3650d\", found \"99999d\"",
    ),
    (
        "[server]\nmax_body = \"10M\"",
        "daemun.toml:2:12: `max_body` in [server]: expected a size such as \"10MiB\" or \"1GB\", or a number of bytes, found \"10M\"",
    ),
    (
        "[server]\nmax_body = -1",
        "daemun.toml:2:12: `max_body` in [server]: expected a number of at least 0, found the number -1",
    ),
    (
        "[server]\nmax_body = 1.5",
        "daemun.toml:2:12: `max_body` in [server]: expected a size such as \"10MiB\", or a number of bytes, found the number 1.5",
    ),
    (
        "[server]\nmax_head = 10",
        "daemun.toml:2:12: `max_head` in [server]: expected a size from \"1KiB\" to \"16MiB\", found the number 10",
    ),
    (
        "[server]\nmax_connections = 0",
        "daemun.toml:2:19: `max_connections` in [server]: expected a number from 1 to 10000000, found the number 0",
    ),
    (
        "[server]\nevent_loops = \"auto\"",
        "daemun.toml:2:15: `event_loops` in [server]: expected a number from 1 to 1024, found \"auto\"",
    ),
    (
        "[server]\nlisten = \"https://0.0.0.0:443\"\n[[route]]\nrespond = { status = 204 }",
        "daemun.toml:2:10: https://0.0.0.0:443 needs a certificate: write [[tls]] with `cert` and `key` or `acme`, or give --tls-cert and --tls-key, or --domain",
    ),
    (
        "[server]\nlisten = \"https://example.com\"",
        "daemun.toml:2:10: `listen` in [server]: expected an address such as \"https://0.0.0.0:443\", found \"https://example.com\"",
    ),
    (
        "[server]\nhsts = \"1y\"\nredirect_https = 1",
        "daemun.toml:2:8: `hsts` in [server]: expected `true` or `false`, found \"1y\"\ndaemun.toml:3:18: `redirect_https` in [server]: expected `true` or `false`, found the number 1",
    ),
    (
        "[[tls]]\nhosts = [\"a b\", \"A.example\", \"a.example\"]\nkey = \"k\"\nclient_certificates = \"require\"\nacme = {}",
        "daemun.toml:2:10: `hosts` in [[tls]]: expected a name such as \"example.com\" or \"*.example.com\", found \"a b\"\ndaemun.toml:2:30: `hosts` in [[tls]]: `a.example` stands here twice\ndaemun.toml:3:7: `key` in [[tls]]: `acme` brings certificate and key: give the one or the other\ndaemun.toml:4:23: `client_certificates` in [[tls]]: it needs a `client_ca`: the file with the authorities of clients, in PEM",
    ),
    (
        "[server]\nlisten = [\"0.0.0.0:80\", { address = \"127.0.0.1:9000\", protocol = \"ftp\" }]",
        "daemun.toml:2:66: `protocol` in a listener: expected `http`, `fastcgi`, `scgi` or `uwsgi`, found \"ftp\"",
    ),
    (
        "[server]\nlisten = [{ address = \"127.0.0.1:80\", mode = \"660\" }]",
        "daemun.toml:2:46: `mode` in a listener: only a listener on a `unix:` address has it",
    ),
    (
        "[server]\nlisten = [{ address = \"unix:/x\", mode = \"999\" }, { mode = \"1\" }]",
        "daemun.toml:2:41: `mode` in a listener: expected access bits in octal such as \"660\", found \"999\"\ndaemun.toml:2:50: `listen` in [server]: a listener needs an `address`",
    ),
    (
        "[server]\nlisten = []",
        "daemun.toml:2:10: `listen` in [server]: expected a list of addresses such as [\"0.0.0.0:80\", \"unix:/run/daemun.sock\"], found an empty list",
    ),
    (
        "[server]\nlisten = [80, \"127.0.0.1:80\", 70000]",
        "daemun.toml:2:15: `listen` in [server]: `127.0.0.1:80` stands here twice\ndaemun.toml:2:31: `listen` in [server]: expected a number from 0 to 65535, found the number 70000",
    ),
    (
        "[server]\ntrusted_proxies = [\"10.0.0.0/8\", \"10.0.0.0/33\", \"proxy\"]",
        "daemun.toml:2:34: `trusted_proxies` in [server]: a network of 10.0.0.0 has at most 32 bits, found \"10.0.0.0/33\"\ndaemun.toml:2:49: `trusted_proxies` in [server]: expected an address or a network such as \"10.0.0.0/8\", found \"proxy\"",
    ),
    (
        "[server]\naccess_log = { path = \"-\", format = \"xml\" }",
        "daemun.toml:2:37: `format` in `access_log`: expected `combined`, `json` or a template such as \"$remote_addr $request $status\", found \"xml\"",
    ),
    (
        "[server]\naccess_log = { path = \"-\", format = \"$time\" }",
        "daemun.toml:2:37: `format` in `access_log`: there is no `$time`",
    ),
    (
        "[server]\nerror_log = { levle = \"info\" }",
        "daemun.toml:2:15: unknown key `levle` in `error_log`; did you mean `level`?",
    ),
    (
        "[server]\nerror_log = 3",
        "daemun.toml:2:13: `error_log` in [server]: expected a path, \"-\", or a table such as { path = \"-\", level = \"info\" }, found the number 3",
    ),
    ("[server]\nuser = \"\"", "daemun.toml:2:8: `user` in [server]: expected a name, found \"\""),
    (
        "[server]\nspool = \"${SPOOL}\"",
        "daemun.toml:2:9: `spool` in [server]: the environment has no variable `SPOOL`; set it, or give a default: `${SPOOL:-value}`",
    ),
    ("server = 1", "daemun.toml:1:10: `server`: expected a table under a line [server], found the number 1"),
    ("server = [1", "daemun.toml:1:12: not TOML: unclosed array, expected `]`"),
    ("[server]\n[server]", "daemun.toml:2:2: not TOML: duplicate key"),
    (
        "[[tls]]\n[upstream.a]\n[[site]]",
        "daemun.toml:1:1: a `cert` is missing: the file with the certificate, in PEM; or `acme`\ndaemun.toml:2:1: `a` in [upstream]: `servers` is missing: a list such as [\"http://10.0.0.5:8080\"]\ndaemun.toml:3:1: a site needs something that answers: a handler such as `app`, or a [[site.route]]",
    ),
    ("[app.shop]", "daemun.toml:1:1: [app.shop] needs one of `target`, `wsgi` and `mounts`, found none"),
    (
        "[app.shop]\nwsgi = \"a:b\"\ntarget = \".\"",
        "daemun.toml:1:1: [app.shop] needs one of `target`, `wsgi` and `mounts`, found `target` and `wsgi`\ndaemun.toml:3:10: `target` in [app.shop]: /T holds files and no application; write a [[route]] with static = { root = \".\" }",
    ),
    (
        "[app.shop]\nwsgi = \"shop.wsgi\"",
        "daemun.toml:2:8: `wsgi` in [app.shop]: expected `module:callable` or `module:factory()`, such as `shop.wsgi:application`, found \"shop.wsgi\"",
    ),
    (
        "[app.shop]\nwsgi = \"shop/wsgi.py:app\"",
        "daemun.toml:2:8: `wsgi` in [app.shop]: expected `module:callable` or `module:factory()`, found \"shop/wsgi.py:app\"",
    ),
    (
        "[app.shop]\nwsgi = \"shop.asgi:application\"",
        "daemun.toml:2:8: `wsgi` in [app.shop]: ASGI is not supported yet; name the WSGI callable instead of \"shop.asgi:application\"",
    ),
    (
        "[app.shop]\nwsgi = \"a:b\"\nprocesses = 0",
        "daemun.toml:3:13: `processes` in [app.shop]: expected a number from 1 to 1024, found the number 0",
    ),
    (
        "[app.shop]\nwsgi = \"a:b\"\nprocesses = \"many\"",
        "daemun.toml:3:13: `processes` in [app.shop]: expected a number from 1 to 1024 or \"auto\", found \"many\"",
    ),
    (
        "[app.shop]\nwsgi = \"a:b\"\nprocesses = \"${N}\"",
        "daemun.toml:3:13: `processes` in [app.shop]: expected a number from 1 to 1024 or \"auto\", found \"0\"",
    ),
    (
        "[app.shop]\nwsgi = \"a:b\"\nprocesses = { min = 4, max = 2 }",
        "daemun.toml:3:13: `processes` in [app.shop]: `min` is larger than `max`",
    ),
    (
        "[app.shop]\nwsgi = \"a:b\"\npreload = \"yes\"",
        "daemun.toml:3:11: `preload` in [app.shop]: expected `true`, `false` or \"auto\", found \"yes\"",
    ),
    (
        "[app.shop]\nwsgi = \"a:b\"\nready = \"healthz\"",
        "daemun.toml:3:9: `ready` in [app.shop]: expected a path such as \"/healthz\", found \"healthz\"",
    ),
    (
        "[app.shop]\nwsgi = \"a:b\"\nthreads = \"${N}\"",
        "daemun.toml:3:11: `threads` in [app.shop]: expected a number from 1 to 1024, found \"0\"",
    ),
    (
        "[app.shop]\nwsgi = \"a:b\"\nproceses = 2\ntimeuot = \"1s\"\nworkers = 2\nasgi = \"a:b\"",
        "daemun.toml:3:1: unknown key `proceses` in [app.shop]; did you mean `processes`?\ndaemun.toml:4:1: unknown key `timeuot` in [app.shop]; did you mean `timeout`?\ndaemun.toml:5:1: unknown key `workers` in [app.shop]; did you mean `processes`?\ndaemun.toml:6:1: `asgi` in [app.shop] is not supported by this version",
    ),
    (
        "[app.shop]\nwsgi = \"a:b\"\nqueue = { max = 1, size = 2 }",
        "daemun.toml:3:20: unknown key `size` in `queue` of [app.shop]; expected `max` or `timeout`",
    ),
    (
        "[app.shop]\nwsgi = \"a:b\"\nqueue = 5",
        "daemun.toml:3:9: `queue` in [app.shop]: expected a table such as { max = 1000, timeout = \"10s\" }, found the number 5",
    ),
    (
        "[app.shop]\nwsgi = \"a:b\"\nenv = { A = 1, \"B=\" = \"x\" }",
        "daemun.toml:3:13: `A` in `env` of [app.shop]: expected a string, found the number 1\ndaemun.toml:3:23: `B=` in `env` of [app.shop]: this cannot be the name of an environment variable",
    ),
    (
        "[app.shop]\nwsgi = \"a:b\"\nenv_file = \"none.env\"",
        "daemun.toml:3:12: cannot read none.env: No such file or directory (os error 2)",
    ),
    (
        "[app.shop]\nwsgi = \"a:b\"\ninherit_env = \"yes\"",
        "daemun.toml:3:15: `inherit_env` in [app.shop]: expected `true`, `false` or a list of names, found \"yes\"",
    ),
    ("[app.shop]\nwsgi = \"a:b\"\ndirectory = \"none\"", "daemun.toml:3:13: there is no folder /T/none"),
    (
        "[app.shop]\nwsgi = \"a:b\"\npython = \"none/bin/python\"",
        "daemun.toml:3:10: there is no interpreter /T/none/bin/python",
    ),
    ("[app.shop]\nwsgi = \"a:b\"\npython = \"python9\"", "daemun.toml:3:10: there is no `python9` on PATH"),
    (
        "[app.shop]\nmounts = { \"wiki\" = \"a:b\", \"/x\" = \"c\", \"/y\" = \"a:b\", \"/y/\" = \"a:c\" }",
        "daemun.toml:2:21: `wiki` in `mounts` of [app.shop]: expected a path such as `/wiki` to mount at, found \"wiki\"\ndaemun.toml:2:35: `/x` in `mounts` of [app.shop]: expected `module:callable` or `module:factory()`, such as `c:application`, found \"c\"\ndaemun.toml:2:62: `/y/` in `mounts` of [app.shop]: something is mounted at `/y/` already",
    ),
    (
        "[app.shop]\nmounts = {}",
        "daemun.toml:2:10: `mounts` in [app.shop]: expected at least one mount, found an empty table",
    ),
    (
        "[app.shop]\ntarget = \"files\"",
        "daemun.toml:2:10: `target` in [app.shop]: /T/files holds files and no application; write a [[route]] with static = { root = \"files\" }",
    ),
    (
        "[app.shop]\ntarget = \"none\"",
        "daemun.toml:2:10: `target` in [app.shop]: `none`: there is no such file or folder; expected a daemun.toml, a project folder, a Python file or module:callable",
    ),
    (
        "[app]\nwsgi = \"a:b\"",
        "daemun.toml:2:8: `wsgi` in [app]: expected a table under a line such as [app.shop], with `target` or `wsgi`, for `wsgi`, found \"a:b\"",
    ),
    (
        "[app.\"a b\"]\nwsgi = \"a:b\"",
        "daemun.toml:1:1: `a b` in [app]: the name of an application has letters, digits, `-`, `_` and `.` only",
    ),
    (
        "[[route]]\npath = \"/x\"",
        "daemun.toml:1:1: a route needs a handler: one of `static`, `app`, `cgi`, `upstream`, `redirect` and `respond`",
    ),
    (
        "[[route]]\napp = \"shpo\"\n[app.shop]\nwsgi = \"a:b\"",
        "daemun.toml:2:7: `app` in [[route]]: there is no application `shpo`; did you mean `shop`?",
    ),
    (
        "[[route]]\napp = \"shop\"",
        "daemun.toml:2:7: `app` in [[route]]: there is no application `shop`; write [app.shop]",
    ),
    (
        "[[route]]\napp = \"shop\"\nstatic = { root = \"static\" }",
        "daemun.toml:2:7: `app` in [[route]]: a route has exactly one handler, and this one has `static` already",
    ),
    ("[[route]]\ncgi = { root = \"x\" }", "daemun.toml:2:16: `root` in `cgi`: there is no folder /T/x"),
    (
        "[[route]]\nstatic = \"static\"",
        "daemun.toml:2:10: `static` in [[route]]: expected a table such as { root = \"static\" }, found \"static\"",
    ),
    (
        "[[route]]\nstatic = { index = [\"a/b\"] }",
        "daemun.toml:2:10: `static` in [[route]]: a `root` is missing: the folder whose files are sent",
    ),
    (
        "[[route]]\nstatic = { root = \"static\", missing = \"503\", listing = 1, index = [\"a/b\"] }",
        "daemun.toml:2:39: `missing` in `static`: expected \"404\", \"next\" or a path of the same route such as \"/index.html\", found \"503\"\ndaemun.toml:2:56: `listing` in `static`: expected `true` or `false`, found the number 1\ndaemun.toml:2:68: `index` in `static`: expected a file name without a folder, found \"a/b\"",
    ),
    (
        "[[route]]\nstatic = { root = \"daemun.toml\" }",
        "daemun.toml:2:19: `root` in `static`: expected a folder, found \"daemun.toml\"",
    ),
    (
        "[[route]]\npath = \"static/*\"\nhost = \"a:80\"\nrespond = {}",
        "daemun.toml:2:8: `path` in [[route]]: expected a path that starts with `/`, such as `/static/*`\ndaemun.toml:3:8: `host` in [[route]]: expected a host without a port: `a`",
    ),
    (
        "[[route]]\npath = \"/a/../b\"\nrespond = {}",
        "daemun.toml:2:8: `path` in [[route]]: no request can match it: rules see the path decoded, with dots and double slashes resolved",
    ),
    (
        "[[route]]\npath = \"/a/*\"\nrespond = {}\n[[route]]\npath = \"/a/*\"\nrespond = {}",
        "daemun.toml:4:1: a route for `/a/*` stands already at daemun.toml:1:1; which of them answers?",
    ),
    (
        "[[route]]\nhost = \"A.org\"\nrespond = {}\n\n[[route]]\nhost = \"a.org\"\nrespond = {}",
        "daemun.toml:5:1: a route for `/*` on host `a.org` stands already at daemun.toml:1:1; which of them answers?",
    ),
    (
        "[[route]]\nredirect = { to = \"//evil.example\" }",
        "daemun.toml:2:19: `to` in `redirect`: expected a location that starts with `/`, `{path}`, `http://`, `https://` or `{scheme}://`",
    ),
    (
        "[[route]]\nredirect = { to = \"https://a.example{rest}\" }",
        "daemun.toml:2:19: `to` in `redirect`: a `/` is missing between the host and what is inserted after it",
    ),
    (
        "[[route]]\nredirect = { to = \"/{name}\" }",
        "daemun.toml:2:19: `to` in `redirect`: `{name}` cannot be inserted; expected `{path}`, `{rest}`, `{query}`, `{host}`, `{port}` or `{scheme}`",
    ),
    (
        "[[route]]\nredirect = { to = \"/\", status = 200 }",
        "daemun.toml:2:33: `status` in `redirect`: expected the status 301, 302, 303, 307 or 308, found 200",
    ),
    (
        "[[route]]\nredirect = { status = 301 }",
        "daemun.toml:2:12: `redirect` in [[route]]: a `to` is missing: where the client is sent",
    ),
    (
        "[[route]]\nredirect = \"/new\"",
        "daemun.toml:2:12: `redirect` in [[route]]: expected a table such as { to = \"/new/{rest}\", status = 308 }, found \"/new\"",
    ),
    (
        "[[route]]\nrespond = { status = 204, body = \"x\" }",
        "daemun.toml:2:11: `respond` in [[route]]: a response with the status 204 has no body",
    ),
    (
        "[[route]]\nrespond = { status = 1000 }",
        "daemun.toml:2:22: `status` in `respond`: expected a number from 100 to 999, found the number 1000",
    ),
    (
        "[[route]]\nrespond = {}\nmethod = \"get\"",
        "daemun.toml:3:10: `method` in [[route]]: methods are written in capitals: \"GET\"",
    ),
    ("[route]\npath = \"/x\"", "daemun.toml:1:1: `route`: expected tables, each under a line [[route]], found a table"),
    (
        "include = \"sites/*.toml\"",
        "daemun.toml:1:11: `include`: expected a list of paths such as [\"sites/*.toml\"], found \"sites/*.toml\"",
    ),
    ("include = [\"none.toml\"]", "daemun.toml:1:12: cannot read none.toml: No such file or directory (os error 2)"),
];

#[test]
fn every_fault_says_its_place_what_was_expected_and_the_nearest_name() {
    let told = |text: &str, found: &str, want: &str| format!("{text}\n  found: {found}\n  want:  {want}\n");
    let wrong = FAULTS.iter().map(|(text, want)| (text, faults(text), want)).filter(|(_, found, want)| found != *want);
    let wrong: Vec<String> = wrong.map(|(text, found, want)| told(text, &found, want)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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
