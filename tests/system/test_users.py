"""Who the processes run as. Only root can choose."""

from __future__ import annotations

import http.client
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import BINARY, DEADLINE, LISTENING, Server, alive, children, environment, exchange

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes as another user")

APPLICATION = """\
import os

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [" ".join([str(os.getuid()), *(os.environ.get(name, "-") for name in ("HOME", "USER", "LOGNAME"))]).encode()]
"""
# One that everybody may run, wherever the tests' own lies.
PYTHON = shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin")
NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def everybodys(tmp_path: Path) -> Iterator[Path]:
    """A folder that everybody can reach, with an application and the program."""
    assert PYTHON, "these tests need a python3 of the system"
    folder = Path("/var/tmp") / f"system-test-{os.getpid()}"
    folder.mkdir(mode=0o755)
    (folder / "app.py").write_text(APPLICATION)
    shutil.copy(BINARY, folder / "daemun")
    yield folder
    shutil.rmtree(folder)


def test_the_application_runs_as_its_user_and_the_front_as_nobody_else(everybodys: Path) -> None:
    with Server("app:app", "--user", "nobody", "--python", str(PYTHON), cwd=everybodys) as server:
        assert server.get("/").text == f"{NOBODY.pw_uid} {NOBODY.pw_dir} nobody nobody"
        below = children(server.pid)
        # A process that forbids inspection belongs to root in /proc; its status tells.
        users = {int(line.split()[1]) for pid in below for line in status(pid) if line.startswith("Uid:")}
        assert NOBODY.pw_uid in users
        assert len(users) == 2
        assert 0 not in users
        server.send(signal.SIGKILL)
        server.exit_code()
        end = time.monotonic() + DEADLINE
        while any(alive(pid) for pid in below):
            assert time.monotonic() < end, "a process of another user outlived its supervisor"


def test_a_reload_changes_the_user(everybodys: Path) -> None:
    file = everybodys / "daemun.toml"
    text = f'[server]\nlisten = ["127.0.0.1:0"]\n[app.one]\nwsgi = "app:app"\npython = "{PYTHON}"\nuser = "%s"\n'
    file.write_text(text % "nobody")
    with Server(cwd=everybodys, listen="") as server:
        assert server.get("/").text.startswith(f"{NOBODY.pw_uid} ")
        other = pwd.getpwnam("daemon")
        file.write_text(text % "daemon")
        server.send(signal.SIGHUP)
        server.until("/", f"{other.pw_uid} {other.pw_dir} daemon daemon")
        assert server.stop() == 0


def status(pid: int) -> list[str]:
    """Give the lines of a process's status."""
    return Path(f"/proc/{pid}/status").read_text().splitlines()


def test_another_user_than_root_serves_all_the_same(everybodys: Path) -> None:
    home = everybodys / "home"
    home.mkdir()
    os.chown(home, NOBODY.pw_uid, NOBODY.pw_gid)
    process = subprocess.Popen(
        [everybodys / "daemun", "serve", "app:app", "--listen", "127.0.0.1:0", "--python", str(PYTHON)],
        cwd=everybodys,
        env={**environment({"HOME": str(home)}), "TMPDIR": str(home)},
        user=NOBODY.pw_uid,
        group=NOBODY.pw_gid,
        extra_groups=[],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if match := LISTENING.search(line):
                break
        else:
            raise AssertionError("it ended")
        connection = http.client.HTTPConnection("127.0.0.1", int(match["port"]), timeout=DEADLINE)
        assert exchange(connection, "/").text == f"{NOBODY.pw_uid} {home} - -"
        connection.close()
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert list(home.iterdir()) == [], "sockets were left behind"
