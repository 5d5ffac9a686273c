"""One server under test: its command line, its start on a free port, its end by its own process id."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from . import processes
from .scenarios import Scenario, WrongAnswerError

APPLICATIONS = Path(__file__).resolve().parents[1] / "applications"
# Django's import on a busy core takes seconds.
START_DEADLINE = 30.0
# What has not ended by itself then is killed.
END_DEADLINE = 10.0
POLL = 0.002


class ServerError(Exception):
    """A server could not be started or ended before its time."""


@dataclass(frozen=True)
class Setting:
    """What is the same for all servers of a run."""

    daemun: Path
    venv: Path
    files: Path
    # The folder of the CGI programs.
    scripts: Path
    loops: int = 1
    workers: int = 1
    threads: int = 1
    logs: bool = False


@dataclass(frozen=True)
class Place:
    """Where one server runs: its scenario, its port, a folder for its configuration and logs."""

    scenario: Scenario
    port: int
    folder: Path
    # Whether a warm interpreter forks for each request.
    reuse: bool = False


def daemun(setting: Setting, place: Place) -> list[str]:
    """One front and its workers; everything stands in the file."""
    log = f'{{ path = "{place.folder}/access.log" }}' if setting.logs else '"off"'
    lines = [
        "[server]",
        f'listen = ["127.0.0.1:{place.port}"]',
        f"event_loops = {setting.loops}",
        f"access_log = {log}",
    ]
    if place.scenario.application:
        lines += [
            "[app.bench]",
            f'wsgi = "{place.scenario.application}"',
            f'directory = "{APPLICATIONS}"',
            f'python = "{setting.venv}/bin/python"',
            f"processes = {setting.workers}",
            f"threads = {setting.threads}",
        ]
    elif place.scenario.script:
        reuse = f', reuse = "fork", warm = {json.dumps(WARM)}' if place.reuse else ""
        lines += ["[[route]]", 'path = "/cgi-bin/*"', f'cgi = {{ root = "{setting.scripts}"{reuse} }}']
    else:
        lines += ["[[route]]", 'path = "/*"', f'static = {{ root = "{setting.files}" }}']
    file = place.folder / "daemun.toml"
    file.write_text("\n".join(lines) + "\n", "utf-8")
    return [str(setting.daemun), "serve", "--config", str(file)]


def daemun_cache(setting: Setting, place: Place) -> list[str]:
    """An application whose answers its route keeps."""
    application = replace(place.scenario, application="plain:cached")
    command = daemun(setting, replace(place, scenario=application))
    with (place.folder / "daemun.toml").open("a", encoding="utf-8") as file:
        file.write('[[route]]\npath = "/*"\napp = "bench"\ncache = true\n')
    return command


def daemun_threads(setting: Setting, place: Place) -> list[str]:
    """With four threads in each worker, whatever the others have."""
    return daemun(replace(setting, threads=4), place)


def granian(setting: Setting, place: Place) -> list[str]:
    """As its documentation has WSGI; HTTP/1 only and no WebSocket, as in its own measurements."""
    return [
        f"{setting.venv}/bin/granian",
        *("--interface", "wsgi", "--http", "1", "--no-ws", "--host", "127.0.0.1", "--port", str(place.port)),
        *("--workers", str(setting.workers), "--blocking-threads", str(setting.threads)),
        *("--runtime-threads", str(setting.loops), "--log-level", "warning"),
        "--access-log" if setting.logs else "--no-access-log",
        place.scenario.application,
    ]


def gunicorn(setting: Setting, place: Place) -> list[str]:
    """Its synchronous worker, or its threads when more than one is asked for."""
    return [
        f"{setting.venv}/bin/gunicorn",
        *("--bind", f"127.0.0.1:{place.port}", "--workers", str(setting.workers), "--log-level", "warning"),
        *(("--threads", str(setting.threads)) if setting.threads > 1 else ()),
        *(("--access-logfile", f"{place.folder}/access.log") if setting.logs else ()),
        place.scenario.application,
    ]


NGINX = """
daemon off;
{user}
worker_processes {loops};
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    types {{ text/plain txt; }}
    gzip_static on;
    access_log {log};
    sendfile on;
    open_file_cache max=1000 inactive=60s;
    open_file_cache_valid 60s;
    # Its default closes a connection after 1000 requests.
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {files};
    }}
}}
"""


def nginx(setting: Setting, place: Place) -> list[str]:
    """For files, with its cache of open files and without its log."""
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    file = place.folder / "nginx.conf"
    text = NGINX.format(
        # As root its workers would become a user who cannot enter this folder.
        user="user root;" if os.geteuid() == 0 else "",
        loops=setting.loops,
        folder=place.folder,
        log=f"{place.folder}/access.log combined" if setting.logs else "off",
        port=place.port,
        files=setting.files,
    )
    file.write_text(text, "utf-8")
    return [program, "-e", f"{place.folder}/error.log", "-c", str(file)]


def lighttpd_files(setting: Setting, place: Place) -> list[str]:
    """For files; it knows them by its cache of what stat said, and opens them anew."""
    program = shutil.which("lighttpd") or "/usr/sbin/lighttpd"
    file = place.folder / "lighttpd.conf"
    lines = [
        f'server.document-root = "{setting.files}"',
        'server.bind = "127.0.0.1"',
        f"server.port = {place.port}",
        f'server.errorlog = "{place.folder}/error.log"',
        'mimetype.assign = (".txt" => "text/plain")',
        # Its default closes a connection after 1000 requests.
        "server.max-keep-alive-requests = 65535",
        f"server.max-worker = {setting.loops if setting.loops > 1 else 0}",
    ]
    if setting.logs:
        lines += ['server.modules += ("mod_accesslog")', f'accesslog.filename = "{place.folder}/access.log"']
    file.write_text("\n".join(lines) + "\n", "utf-8")
    return [program, "-D", "-f", str(file)]


def h2o(setting: Setting, place: Place) -> list[str]:
    """For files; it keeps them open by itself."""
    file = place.folder / "h2o.yaml"
    lines = [
        f"num-threads: {setting.loops}",
        "listen:",
        "  host: 127.0.0.1",
        f"  port: {place.port}",
        f"error-log: {place.folder}/error.log",
        "file.send-compressed: ON",
        *([f"access-log: {place.folder}/access.log"] if setting.logs else []),
        # As root it would become a user who cannot enter this folder.
        *(["user: root"] if os.geteuid() == 0 else []),
        "hosts:",
        "  default:",
        "    paths:",
        "      /:",
        f"        file.dir: {setting.files}",
    ]
    file.write_text("\n".join(lines) + "\n", "utf-8")
    return [shutil.which("h2o") or "/usr/bin/h2o", "-m", "worker", "-c", str(file)]


def daemun_fork(setting: Setting, place: Place) -> list[str]:
    """For Python scripts, with an interpreter that is started once."""
    return daemun(setting, replace(place, reuse=True))


APACHE = """
ServerName localhost
ServerRoot {folder}
DefaultRuntimeDir {folder}
Listen 127.0.0.1:{port}
PidFile {folder}/apache.pid
ErrorLog {folder}/error.log
{modules}
{user}
StartServers 1
ServerLimit 1
ThreadsPerChild 64
MaxRequestWorkers 64
KeepAlive On
MaxKeepAliveRequests 0
ScriptSock {folder}/cgid
ScriptAlias /cgi-bin/ {scripts}/
<Directory {scripts}>
    Require all granted
</Directory>
{log}
"""
APACHE_MODULES = ["mpm_event", "authz_core", "alias", "cgid", "unixd"]


def apache(setting: Setting, place: Place) -> list[str]:
    """With mod_cgid, whose process forks for each request; nothing loaded that CGI does not need."""
    folder = Path("/usr/lib/apache2/modules")
    modules = [f"LoadModule {name}_module {folder}/mod_{name}.so" for name in APACHE_MODULES]
    # Debian has compiled some of them in.
    modules = [line for line in modules if Path(line.rpartition(" ")[2]).exists()]
    file = place.folder / "apache.conf"
    text = APACHE.format(
        folder=place.folder,
        port=place.port,
        scripts=setting.scripts,
        modules="\n".join(modules),
        user="User daemon\nGroup daemon" if os.geteuid() == 0 else "",
        log=f"CustomLog {place.folder}/access.log %h" if setting.logs else "",
    )
    file.write_text(text, "utf-8")
    program = shutil.which("apache2") or shutil.which("httpd") or "/usr/sbin/apache2"
    return [program, "-DFOREGROUND", "-f", str(file)]


LIGHTTPD = """
server.bind = "127.0.0.1"
server.port = {port}
server.document-root = "{scripts}"
server.errorlog = "{folder}/error.log"
server.max-keep-alive-requests = 1000000000
server.modules = ( "mod_alias", "mod_cgi" )
{log}
alias.url = ( "/cgi-bin/" => "{scripts}/" )
$HTTP["url"] =~ "^/cgi-bin/" {{ cgi.assign = ( "" => "" ) }}
"""


def lighttpd_scripts(setting: Setting, place: Place) -> list[str]:
    """With mod_cgi; it forks by itself."""
    log = (
        f'server.modules += ( "mod_accesslog" )\naccesslog.filename = "{place.folder}/access.log"'
        if setting.logs
        else ""
    )
    file = place.folder / "lighttpd.conf"
    file.write_text(LIGHTTPD.format(folder=place.folder, port=place.port, scripts=setting.scripts, log=log), "utf-8")
    return [shutil.which("lighttpd") or "/usr/sbin/lighttpd", "-D", "-f", str(file)]


def lighttpd(setting: Setting, place: Place) -> list[str]:
    """For files and for CGI programs."""
    return (lighttpd_scripts if place.scenario.script else lighttpd_files)(setting, place)


# What the Python script imports.
WARM = ["datetime", "html", "json", "urllib.parse"]

COMMANDS: dict[str, Callable[[Setting, Place], list[str]]] = {
    "daemun": daemun,
    "daemun-cache": daemun_cache,
    "daemun-threads": daemun_threads,
    "granian": granian,
    "gunicorn": gunicorn,
    "nginx": nginx,
    "apache": apache,
    "lighttpd": lighttpd,
    "daemun-fork": daemun_fork,
    "h2o": h2o,
}


def environment() -> dict[str, str]:
    """Give as little as a service manager does: nothing of the caller's Python or of DAEMUN_* goes in."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "PATH", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONPATH": str(APPLICATIONS)}


class Server:
    """A started server; `began` is the moment before its exec."""

    def __init__(self, name: str, setting: Setting, scenario: Scenario, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.name = name
        self.port = free_port()
        self._output = folder / "output.log"
        # Programs that nobody waits for are in nobody's sum: their time is known to a group alone.
        self.group = processes.Group.new(f"{os.getpid()}-{self.port}") if scenario.script else None
        command = COMMANDS[name](setting, Place(scenario, self.port, folder))
        if self.group:
            command = self.group.entering(command)
        with self._output.open("wb") as output:
            self.began = time.monotonic()
            try:
                self._process = subprocess.Popen(
                    command,
                    cwd=APPLICATIONS,
                    env=environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    # A terminal's Ctrl-C is for the harness, which then ends each server.
                    start_new_session=True,
                )
            except FileNotFoundError as error:
                raise ServerError(f"{name}: {command[0]} is not there") from error

    @property
    def pid(self) -> int:
        """The process that was started; all others descend from it."""
        return self._process.pid

    @property
    def said(self) -> str:
        """What it has written so far, the end of it."""
        return self._output.read_text("utf-8", "replace")[-4000:]

    def tree(self) -> list[processes.Process]:
        """Its living processes."""
        return processes.tree(self.pid)

    def wait_listening(self) -> None:
        """Wait until a connection is taken."""
        until = time.monotonic() + START_DEADLINE
        while True:
            if self._process.poll() is not None:
                raise ServerError(f"{self.name}: exit {self._process.returncode} at its start\n{self.said}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            if time.monotonic() > until:
                raise ServerError(f"{self.name}: not listening after {START_DEADLINE:.0f} s\n{self.said}")
            time.sleep(POLL)

    def end(self) -> None:
        """TERM to the first process; KILL to what is left of its tree after a while."""
        all_of_it = self.tree()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(END_DEADLINE)
        except subprocess.TimeoutExpired:
            all_of_it += [process for process in self.tree() if process not in all_of_it]
            self._process.kill()
            self._process.wait(END_DEADLINE)
        if not processes.wait_gone(all_of_it, 2.0):
            processes.end(all_of_it, signal.SIGKILL)
            processes.wait_gone(all_of_it, 2.0)
        if self.group:
            self.group.remove()


def free_port() -> int:
    """Give a loopback port that nobody holds at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(names: list[str], setting: Setting, scenario: Scenario, folder: Path) -> Iterator[list[Server]]:
    """Start the servers, all listening and answering rightly; end them all, whatever happens."""
    servers: list[Server] = []
    try:
        for name in names:
            servers.append(Server(name, setting, scenario, folder / f"{scenario.name}-{name}"))
        for server in servers:
            server.wait_listening()
            try:
                scenario.check(server.port)
            except WrongAnswerError as error:
                raise WrongAnswerError(f"{server.name}: {error}\n{server.said}") from error
        yield servers
    finally:
        for server in servers:
            server.end()
