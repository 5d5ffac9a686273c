"""USR2 and `daemun upgrade`: the program on disk takes over in the same process, and nobody notices."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gate import Gate
from load import Load
from server import BINARY, DEADLINE, Server, alive, children, environment, eventually, front


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A copy of the program that can be replaced, as pip does."""
    (tmp_path / "bin").mkdir()
    return install(BINARY, tmp_path / "bin" / "daemun")


def install(source: Path, place: Path) -> Path:
    """Write a program beside its place and move it there: whoever runs the old one keeps it."""
    beside = place.with_suffix(".new")
    shutil.copy2(source, beside)
    beside.rename(place)
    return place


def command(program: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of this program."""
    return subprocess.run(
        [str(program), *arguments],
        cwd=cwd,
        env=environment({}),
        capture_output=True,
        text=True,
        timeout=DEADLINE * 2,
    )


def until_gone(pids: list[int]) -> None:
    """Wait until none of these is there."""
    end = time.monotonic() + DEADLINE
    while any(map(alive, pids)):
        assert time.monotonic() < end, [pid for pid in pids if alive(pid)]


def test_no_request_fails_while_the_program_is_replaced_under_load(flask: Path, program: Path) -> None:
    with (
        Server("app:app", "--workers", "2", cwd=flask, program=program) as server,
        Load(server.port, "/", clients=2) as kept,
        Load(server.port, "/", clients=2, keep=False) as fresh,
    ):
        for _ in range(3):
            before = children(server.pid)
            install(BINARY, program)
            told = command(program, "upgrade", cwd=flask)
            assert (told.returncode, told.stderr) == (0, "")
            assert f"serves (pid {server.pid})" in told.stdout
            assert Path(f"/proc/{server.pid}/exe").readlink() == program
            until_gone(before)
        assert server.get("/").text == "one"
    assert kept.answered > 50
    assert fresh.answered > 50
    assert kept.failures == fresh.failures == []


def test_what_is_in_flight_is_finished_by_those_who_began_it(flask: Path, program: Path, gate: Gate) -> None:
    with (
        Server("app:app", "--workers", "1", cwd=flask, program=program, env=gate.env) as server,
        ThreadPoolExecutor() as pool,
    ):
        held = pool.submit(server.get, "/held")
        gate.entered()
        before = front(server)
        server.send(signal.SIGUSR2)
        server.wait_for("upgraded from version")
        assert server.get("/").text == "one"
        assert alive(before)
        gate.open()
        assert held.result(DEADLINE).text == "finished"
        until_gone([before])
        assert server.stop() == 0


def test_a_program_that_does_not_run_is_not_taken(flask: Path, program: Path) -> None:
    with Server("app:app", "--workers", "1", cwd=flask, program=program) as server:
        broken = program.with_name("broken")
        broken.write_text("#!/bin/sh\necho 'this is not it' >&2\nexit 3\n")
        broken.chmod(0o755)
        install(broken, program)
        told = command(BINARY, "upgrade", cwd=flask)
        assert told.returncode == 1
        assert "the program before serves on" in told.stderr
        assert "this is not it" in told.stderr
        assert server.get("/").text == "one"
        assert command(BINARY, "status", "--check", cwd=flask).returncode == 0


def test_an_application_that_breaks_meanwhile_leaves_the_version_before_serving(flask: Path, program: Path) -> None:
    source = (flask / "app.py").read_text()
    with Server("app:app", "--workers", "1", cwd=flask, program=program) as server:
        (flask / "app.py").write_text("import a_module_that_is_not_there\n")
        told = command(program, "upgrade", cwd=flask)
        assert told.returncode == 1
        assert "the version before serves on" in told.stderr
        assert server.get("/").text == "one"
        assert command(program, "status", "--check", cwd=flask).returncode == 1
        (flask / "app.py").write_text(source.replace('"one"', '"mended"'))
        assert command(program, "reload", cwd=flask).returncode == 0
        # Both accept until the version before has asked its clients to close.
        server.until("/", "mended")
        status = json.loads(command(program, "status", "--json", cwd=flask).stdout)
        assert status["phase"] == "serving"
        assert server.stop() == 0


def test_a_stop_right_after_an_upgrade_leaves_nothing_behind(flask: Path, program: Path) -> None:
    with Server("app:app", "--workers", "1", cwd=flask, program=program) as server:
        before = children(server.pid)
        server.send(signal.SIGUSR2)
        server.wait_for("upgraded from version")
        everyone = [*before, *children(server.pid)]
        assert server.stop() == 0
        until_gone(everyone)


def test_unix_sockets_and_the_pid_file_live_on(flask: Path, program: Path) -> None:
    path = flask / "s.sock"
    arguments = ("app:app", "--workers", "1", "--listen", f"unix:{path}", "--pid-file", "the.pid")
    with Server(*arguments, cwd=flask, program=program) as server:
        inode = path.stat().st_ino
        server.send(signal.SIGUSR2)
        server.wait_for("upgraded from version")
        assert path.stat().st_ino == inode
        assert (flask / "the.pid").read_text() == f"{server.pid}\n"
        assert os.access(path, os.W_OK)
        assert server.stop() == 0
        assert not path.exists()
        assert not (flask / "the.pid").exists()


PHP = """
[upstream.php]
spawn = { command = ["php-cgi"], processes = 2 }
[[route]]
path = "*.php"
upstream = { name = "php", root = "site" }
"""


def test_no_request_fails_while_programs_that_are_upstreams_are_replaced_too(tmp_path: Path, program: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "pid.php").write_text("<?php echo getmypid();")
    (tmp_path / "site" / "held.php").write_text(
        "<?php touch('begun'); while (!file_exists('go')) usleep(1000); echo 'whole';"
    )
    (tmp_path / "daemun.toml").write_text(PHP)
    with (
        Server(cwd=tmp_path, program=program) as server,
        Load(server.port, "/pid.php", clients=2) as kept,
        Load(server.port, "/pid.php", clients=2, keep=False) as fresh,
        ThreadPoolExecutor() as pool,
    ):
        first = int(server.get("/pid.php").text)
        assert first in children(server.pid)
        held = pool.submit(server.get, "/held.php")
        eventually((tmp_path / "site" / "begun").exists, "it is asked for")
        before = children(server.pid)
        assert command(program, "upgrade", cwd=tmp_path).returncode == 0
        kept.more(30)
        fresh.more(30)
        # Both accept until the version before has asked its clients to close.
        eventually(lambda: server.get("/pid.php").text != str(first), "the new ones answer while one is held")
        (tmp_path / "site" / "go").touch()
        assert held.result(DEADLINE).text == "whole"
        until_gone(before)
        second = int(server.get("/pid.php").text)
        # The new ones are looked after as those before.
        os.kill(second, signal.SIGKILL)
        server.wait_for(rf"upstream php: .*php-cgi \(pid {second}\) was killed by signal 9")
        eventually(lambda: len(php(server)) == 2, "two programs, and none of those before")
        assert second not in php(server)
    assert kept.failures == fresh.failures == []


def php(server: Server) -> list[int]:
    """The PHP processes below the supervisor."""
    return [pid for pid in children(server.pid) if (Path(f"/proc/{pid}/comm").read_text() == "php-cgi\n")]
