//! What is told of a `daemun.toml` that is wrong: one line for each way to be so.

use super::faults;

/// The faults that one line or section gives, each as it is printed.
const FAULTS: &[(&str, &str)] = &[
    ("[server]\ngraze = \"1s\"", "daemun.toml:2:1: unknown key `graze` in [server]; did you mean `grace`?"),
    ("[sever]", "daemun.toml:1:2: unknown key `sever`; did you mean `server`?"),
    (
        "[server]\ncolour = 1",
        "daemun.toml:2:1: unknown key `colour` in [server]; expected `listen`, `user`, `group`, `spool`, `max_spool`, `max_cgi_processes`, `header_timeout`, `keep_alive`, `grace`, `drain_delay`, `max_body`, `max_connections`, `max_connections_per_client`, `max_head`, `max_request_line`, `max_fields`, `access_log`, `error_log`, `traces`, `event_loops`, `pid_file`, `redirect_https`, `hsts`, `trusted_proxies`, `monitor`, `health`, `control` or `state`",
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
