"""Applications and processes that die, hang and misbehave: nobody else notices."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import misdeeds
import pytest
from load import Load
from server import DEADLINE, Server, children, front


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The bad application."""
    shutil.copy(misdeeds.__file__, tmp_path / "bad.py")
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    """The bad application with a short timeout, in two processes with two threads."""
    (folder / "daemun.toml").write_text(
        '[app.bad]\nwsgi = "bad:application"\nprocesses = 2\nthreads = 2\ntimeout = "2s"\n'
    )
    with Server(cwd=folder) as server:
        yield server


def workers(server: Server) -> dict[int, int]:
    """Process ids of the Python processes below the supervisor, each with its parent."""
    found = {}
    for child in children(server.pid):
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes()
            parent = int(re.findall(r"^PPid:\s+(\d+)", Path(f"/proc/{child}/status").read_text(), re.MULTILINE)[0])
        except (OSError, IndexError):
            continue
        if b"daemun_worker.py" in command:
            found[child] = parent
    return found


def zygote(server: Server) -> int:
    """The Python process from which the workers are forked: the oldest one."""
    return min(
        workers(server), key=lambda pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    )


def is_served_again(server: Server, within: float = DEADLINE) -> None:
    """Both workers answer, whatever has happened."""
    end = time.monotonic() + within
    good = 0
    while good < 20:
        good = good + 1 if server.get("/").status == 200 else 0
        assert time.monotonic() < end, "it does not come back"


# What may become of the request itself.
MISDEEDS = {
    "/segfault": {502},
    "/leave": {502},
    "/kill-self": {502},
    "/system-exit": {500},
    "/keyboard": {500},
    "/memory": {500},
    "/recursion": {500, 502},
    "/hoard": {500, 502},
    "/open-files": {500, 502},
    "/sleep": {504},
    "/spin": {504},
    "/deadlock": {504},
    "/close-all": {200, 502},
    "/close-standard": {200},
    "/fork": {200},
    "/fork-exit": {200},
    "/threads": {200},
    "/printing": {200},
    "/terminate": {200},
    "/chdir": {200},
    "/umask": {200},
}


@pytest.mark.parametrize("path", MISDEEDS)
def test_a_misdeed_is_answered_and_nobody_else_notices(server: Server, path: str) -> None:
    with Load(server.port, "/", clients=2, wanted=b"fine") as load:
        load.more(20)
        for _ in range(2):
            # A POST: nothing is sent a second time, so that each misdeed happens once.
            answer = server.ask(path, method="POST", body=b"x")
            assert answer.status in MISDEEDS[path], (answer.status, answer.text[:200])
            assert answer.body
            # What was in flight beside it is sent once more; only once, so the next worker is to live a little.
            load.more(100)
    assert load.failures == [], load.summary
    is_served_again(server)
    # Nothing that was done keeps the server from ending; threads of the application get their few seconds.
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 15


def test_what_an_application_prints_is_in_the_log_and_not_in_an_answer(server: Server) -> None:
    assert server.get("/printing").text == "fine"
    server.wait_for("printed to stdout", server.errors)
    server.wait_for("printed while imported", server.errors)


def test_a_get_whose_worker_dies_is_sent_once_more(server: Server, folder: Path) -> None:
    answer = server.get("/once")
    assert (answer.status, answer.text) == (200, "second")
    assert (folder / "tries").read_text() == "GET\nGET\n"


def test_a_post_whose_worker_dies_is_answered_502_and_never_sent_again(server: Server, folder: Path) -> None:
    answer = server.ask("/once", method="POST", body=b"x")
    assert answer.status == 502
    assert (folder / "tries").read_text() == "POST\n"


def test_a_get_that_kills_every_worker_is_given_up(server: Server) -> None:
    assert server.get("/kill-self").status == 502
    is_served_again(server)


def test_the_dead_worker_is_named_with_what_it_was_serving(server: Server) -> None:
    server.ask("/segfault?why", method="POST", body=b"x")
    server.wait_for(r"(?i)sigsegv|signal 11")
    server.wait_for(r"POST /segfault\?why")


def test_a_stop_does_not_wait_for_a_worker_that_is_due(server: Server) -> None:
    """The second in a row waits 100 ms, and the stop comes within."""
    for _ in range(2):
        server.ask("/kill-self", method="POST", body=b"x")
    server.wait_for("in a row")
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 15


def test_a_request_past_its_timeout_is_504_while_others_go_on(server: Server) -> None:
    with ThreadPoolExecutor() as pool:
        began = time.monotonic()
        stuck = [pool.submit(server.get, "/sleep"), pool.submit(server.get, "/spin")]
        with Load(server.port, "/", clients=1, wanted=b"fine") as load:
            answers = [each.result(DEADLINE).status for each in stuck]
        assert answers == [504, 504]
        assert 2 <= time.monotonic() - began < 8
        assert load.answered > 10
        assert load.failures == [], load.summary
    is_served_again(server)


def test_the_service_comes_back_whatever_is_killed(server: Server) -> None:
    with Load(server.port, "/", clients=6, wanted=b"fine") as load:
        load.more()
        for who in ["worker", "zygote", "front"]:
            before = len(load.failures)
            pid = {
                "worker": lambda: next(pid for pid in workers(server) if pid != zygote(server)),
                "zygote": lambda: zygote(server),
                "front": lambda: front(server),
            }[who]()
            os.kill(pid, signal.SIGKILL)
            load.more(400)
            failed = load.failures[before:]
            print(f"{who}: {len(failed)} failed {failed}")
            if who == "front":
                # Each client had one request in the killed process, and may find its next connection refused.
                assert len(failed) <= 12, failed
                assert all(kind in BROKEN for _, kind in failed), failed
            else:
                assert failed == []
    assert server.stop() == 0


# How a client sees that its connection is gone.
BROKEN = {"ConnectionResetError", "RemoteDisconnected", "BrokenPipeError", "IncompleteRead"}
