"""What a service manager sees: sockets that it passes, words that it wants, and files that `init` writes for it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import BINARY, DEADLINE, ROOT, Server, eventually, run


class Manager:
    """The socket of a service manager, and the words that came."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(DEADLINE)

    def word(self) -> dict[str, str]:
        """The next message that is no sign of life."""
        while True:
            lines = self._socket.recv(4096).decode().splitlines()
            if lines != ["WATCHDOG=1"]:
                return dict(line.split("=", 1) for line in lines)

    def sign_of_life(self) -> None:
        """Wait for one."""
        while self._socket.recv(4096) != b"WATCHDOG=1":
            pass

    def close(self) -> None:
        """Nobody listens any more."""
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """A service manager."""
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


def test_start_reload_upgrade_and_stop_are_told(flask: Path, manager: Manager) -> None:
    with Server("app:app", "--workers", "1", cwd=flask, env={"NOTIFY_SOCKET": str(manager.path)}) as server:
        ready = manager.word()
        assert ready["READY"] == "1"
        assert ready["MAINPID"] == str(server.pid)
        assert ready["STATUS"].startswith("serving 1 application: app:app")
        server.send(signal.SIGHUP)
        reloading = manager.word()
        assert reloading["RELOADING"] == "1"
        assert int(reloading["MONOTONIC_USEC"]) > 0
        assert manager.word()["READY"] == "1"
        (flask / "app.py").write_text("import a_module_that_is_not_there\n")
        server.send(signal.SIGHUP)
        assert manager.word()["RELOADING"] == "1"
        assert manager.word()["READY"] == "1", "a refused reload is over too"
        server.send(signal.SIGTERM)
        assert manager.word()["STOPPING"] == "1"
        assert server.exit_code() == 0


def test_an_upgrade_is_a_reload_of_the_same_process(flask: Path, manager: Manager) -> None:
    with Server("app:app", "--workers", "1", cwd=flask, env={"NOTIFY_SOCKET": str(manager.path)}) as server:
        assert manager.word()["READY"] == "1"
        server.send(signal.SIGUSR2)
        assert manager.word()["RELOADING"] == "1"
        assert manager.word()["MAINPID"] == str(server.pid)


def test_the_watchdog_is_fed(flask: Path, manager: Manager) -> None:
    variables = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "200000"}
    with Server("app:app", "--workers", "1", cwd=flask, env=variables):
        for _ in range(3):
            manager.sign_of_life()


def test_what_the_manager_says_is_for_the_server_alone(flask: Path, manager: Manager) -> None:
    with (flask / "app.py").open("a") as source:
        source.write("\n@app.get('/env')\ndef env():\n    return ' '.join(sorted(os.environ))\n")
    variables = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "10000000", "LISTEN_PID": "1", "SHOWN": "x"}
    with Server("app:app", "--workers", "1", cwd=flask, env=variables) as server:
        seen = server.get("/env").text.split()
        assert "SHOWN" in seen
        assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_PID"} & set(seen)


ACTIVATE = """\
import os, socket, sys
sockets = [socket.socket(fileno=int(number)) for number in sys.argv[1].split(",")]
for at, one in enumerate(sockets):
    os.dup2(one.fileno(), 10 + at)
for at in range(len(sockets)):
    os.dup2(10 + at, 3 + at, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(sockets)))
os.execv(sys.argv[2], sys.argv[2:])
"""


class Activated(Server):
    """A server that was started with sockets, as systemd does."""

    def __init__(self, sockets: list[socket.socket], *arguments: str, cwd: Path) -> None:
        numbers = ",".join(str(one.fileno()) for one in sockets)
        wrapper = cwd / "activate.sh"
        wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} {cwd / "activate.py"} {numbers} {BINARY} "$@"\n')
        wrapper.chmod(0o755)
        (cwd / "activate.py").write_text(ACTIVATE)
        for one in sockets:
            os.set_inheritable(one.fileno(), True)
        super().__init__(*arguments, cwd=cwd, listen="", program=wrapper, close_fds=False)


def test_passed_sockets_are_listened_on_where_nothing_else_is_said(flask: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [one.getsockname()[1], other.getsockname()[1]]
        with Activated([one, other], "app:app", "--workers", "1", cwd=flask) as server:
            for port in ports:
                server.port = port
                assert server.get("/").text == "one"
            server.send(signal.SIGUSR2)
            server.wait_for("upgraded from version")
            assert server.get("/").text == "one"


def test_passed_sockets_are_taken_for_the_addresses_that_are_asked_for(flask: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        port = one.getsockname()[1]
        arguments = ("app:app", "--workers", "1", "--listen", f"127.0.0.1:{port}")
        with Activated([one, other], *arguments, cwd=flask) as server:
            assert server.port == port
            assert server.get("/").text == "one"
            unused = other.getsockname()[1]
            server.wait_for(f"a socket on 127.0.0.1:{unused} was passed, but no listener is for it")


def test_init_writes_a_file_that_serves(flask: Path) -> None:
    told = run("init", cwd=flask)
    assert told.returncode == 0, told.stderr
    text = (flask / "daemun.toml").read_text()
    assert 'wsgi = "app:app"' in text
    (flask / "daemun.toml").write_text(text.replace("127.0.0.1:8000", "127.0.0.1:0"))
    with Server(cwd=flask, listen="") as server:
        assert server.get("/").text == "one"
    again = run("init", cwd=flask)
    assert (again.returncode, again.stdout) == (1, "")
    assert "daemun.toml is there already" in again.stderr


def test_init_prints_units_that_systemd_understands(flask: Path) -> None:
    text = run("init", "--systemd", cwd=flask).stdout
    parts = re.split(r"^# ---- ", text, flags=re.MULTILINE)[1:]
    service = next(part for part in parts if ".service\n" in part.splitlines()[0] + "\n")
    for line in ("Type=notify", f"WorkingDirectory={flask}", "KillMode=mixed", "WatchdogSec=30"):
        assert line in service.splitlines()
    assert f"ExecStart={BINARY} serve" in service
    assert "ListenStream=127.0.0.1:8000" in text
    assert "--signal=USR1" in text
    # Nothing but sections, keys and comments.
    for line in service.splitlines()[1:]:
        assert re.fullmatch(r"(\[\w+\]|\w+=.*|#.*|)", line), line


def test_init_prints_an_image(flask: Path) -> None:
    (flask / "requirements.txt").write_text("flask\n")
    text = run("init", "--docker", cwd=flask).stdout
    assert "pip install --no-cache-dir daemun -r requirements.txt" in text
    assert "USER 10001" in text
    assert 'CMD ["daemun", "serve", "--listen", "0.0.0.0:8000"' in text
    assert "collect" not in text, "there is nothing to collect"
    named = run("init", "--docker", "app:app", cwd=flask).stdout
    assert named == text.replace('"127.0.0.1:9180"]', '"127.0.0.1:9180", "app:app"]')


def test_the_image_that_lies_here_is_the_one_that_init_prints(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples" / "django-minimal", tmp_path, dirs_exist_ok=True)
    (tmp_path / "requirements.txt").write_text("django\n")
    told = run("init", "--docker", cwd=tmp_path)
    assert told.stdout == (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8"), told.stderr


def test_on_kubernetes_a_stop_lets_the_balancer_learn_of_it(flask: Path) -> None:
    variables = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    with Server("app:app", "--workers", "1", cwd=flask, env=variables) as server:
        server.send(signal.SIGTERM)
        server.wait_for("stopping")
        eventually(lambda: server.get("/").headers["Connection"] == "close", "connections end")
        # New connections are still taken; an INT ends the delay.
        assert server.get("/").text == "one"
        server.send(signal.SIGINT)
        assert server.exit_code() == 0
