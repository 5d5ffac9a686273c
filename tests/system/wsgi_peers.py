"""gunicorn, waitress, uWSGI, mod_wsgi and Granian over one WSGI application, each set up as its own guide has it."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from peers import free_port
from server import DEADLINE, ROOT, environment

# Made by `scripts/require wsgi-peers`.
ENVIRONMENT = Path(os.environ.get("DAEMUN_WSGI_PEERS", ROOT / ".tools" / "wsgi-peers"))
PROGRAMS = ["gunicorn", "waitress-serve", "uwsgi", "mod_wsgi-express", "granian"]


@dataclass(frozen=True)
class Setup:
    """What is served, and by how many; options of the server's own are named as they are named there."""

    module: str
    folder: Path
    run: Path
    processes: int = 1
    threads: int = 4
    # Seconds that a request may take.
    timeout: int = 0
    # Requests after which a process is replaced.
    max_requests: int = 0
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """A server that answers: its port, its first process, whether HUP (or what it calls so) loads the code anew."""

    port: int
    pid: int
    said: Callable[[], str]
    reload: signal.Signals | None
    lingers: float


class NoSuchOptionError(Exception):
    """The server has nothing of the kind."""


def gunicorn(setup: Setup, port: int) -> list[str]:
    """With threads, as its guide advises for more than one request at a time."""
    words = ["gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", str(setup.processes)]
    words += ["--threads", str(setup.threads), "--graceful-timeout", "5", f"{setup.module}:application"]
    words += ["--timeout", str(setup.timeout)] if setup.timeout else []
    return words + (["--max-requests", str(setup.max_requests)] if setup.max_requests else [])


def waitress(setup: Setup, port: int) -> list[str]:
    """One process, which is all it has."""
    if setup.timeout or setup.max_requests:
        raise NoSuchOptionError
    return ["waitress-serve", f"--listen=127.0.0.1:{port}", f"--threads={setup.threads}", f"{setup.module}:application"]


def uwsgi(setup: Setup, port: int) -> list[str]:
    """With its HTTP router and a master."""
    words = ["uwsgi", "--http", f"127.0.0.1:{port}", "--master", "--need-app", "--die-on-term", "--enable-threads"]
    words += ["--processes", str(setup.processes), "--threads", str(setup.threads)]
    words += ["--module", f"{setup.module}:application", "--pythonpath", str(setup.folder)]
    words += ["--harakiri", str(setup.timeout)] if setup.timeout else []
    # Without the second option no worker is replaced in its first minute.
    return words + (
        ["--max-requests", str(setup.max_requests), "--min-worker-lifetime", "1"] if setup.max_requests else []
    )


def mod_wsgi(setup: Setup, port: int) -> list[str]:
    """In Apache, in daemon mode, by its own `mod_wsgi-express`."""
    words = ["mod_wsgi-express", "start-server", "--host", "127.0.0.1", "--port", str(port), "--log-to-terminal"]
    words += ["--server-root", str(setup.run / "apache"), "--working-directory", str(setup.folder)]
    words += ["--processes", str(setup.processes), "--threads", str(setup.threads)]
    words += ["--user", "daemon", "--group", "daemon"] if os.geteuid() == 0 else []
    words += ["--request-timeout", str(setup.timeout)] if setup.timeout else []
    words += ["--maximum-requests", str(setup.max_requests)] if setup.max_requests else []
    return [*words, "--application-type", "module", setup.module]


def granian(setup: Setup, port: int) -> list[str]:
    """WSGI with threads for the application; what failed is started again, which it does not do by itself."""
    if setup.timeout or setup.max_requests:
        raise NoSuchOptionError
    words = ["granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
    words += ["--workers", str(setup.processes), "--blocking-threads", str(setup.threads)]
    return [*words, f"{setup.module}:application"]


COMMANDS = {"gunicorn": gunicorn, "waitress": waitress, "uWSGI": uwsgi, "mod_wsgi": mod_wsgi, "Granian": granian}
RELOADS = {
    "gunicorn": signal.SIGHUP,
    "waitress": None,
    "uWSGI": signal.SIGHUP,
    "mod_wsgi": signal.SIGUSR1,
    "Granian": signal.SIGHUP,
}


@contextmanager
def serving(name: str, setup: Setup) -> Iterator[Peer]:
    """Run one of them until the end of the block; it answers when the block begins."""
    port = free_port()
    words = COMMANDS[name](setup, port)
    setup.run.mkdir(parents=True, exist_ok=True)
    setup.run.chmod(0o777)
    log = setup.run / "output.log"
    # uWSGI begins anew with the interpreter that the environment was made from, and does not find itself there.
    packages = next((ENVIRONMENT / "lib").glob("python3*/site-packages"))
    env = {**environment(setup.env), "VIRTUAL_ENV": str(ENVIRONMENT), "PYTHONPATH": f"{setup.folder}:{packages}"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(ENVIRONMENT / "bin" / words[0]), *words[1:]],
            cwd=setup.folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # What it leaves behind is found by its session.
            start_new_session=True,
        )
    try:
        wait_answering(port, process, log)
        yield Peer(port, process.pid, lambda: log.read_text(errors="replace"), RELOADS[name], 10.0)
    finally:
        end(process)


def wait_answering(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until it answers: some listen long before."""
    until = time.monotonic() + DEADLINE
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/whole")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        said = log.read_text(errors="replace")
        assert process.poll() is None, f"{process.args!r} ended: {said}"
        assert time.monotonic() < until, f"{process.args!r} never answered: {said}"


def end(process: subprocess.Popen[bytes]) -> None:
    """TERM, and KILL to what is left of its session."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(DEADLINE)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            found = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(found[3]) == process.pid and found[0] != "Z":
            os.kill(int(stat.parent.name), signal.SIGKILL)


def version(name: str) -> str:
    """Which one it is, as its package says."""
    package = {"uWSGI": "pyuwsgi", "mod_wsgi": "mod_wsgi"}.get(name, name.lower())
    program = f"import importlib.metadata as m; print(m.version({package!r}))"
    asked = subprocess.run([ENVIRONMENT / "bin" / "python", "-c", program], capture_output=True, text=True)
    return asked.stdout.strip()


def missing() -> list[str]:
    """Programs that a comparison needs and that are not there."""
    return [name for name in PROGRAMS if not (ENVIRONMENT / "bin" / name).exists()]
