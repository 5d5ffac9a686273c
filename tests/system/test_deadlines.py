"""`timeout` and `stream_idle`: the stack at half, then a 504, an exception in the thread, a new worker."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from server import DEADLINE, Server, alive
from wire import wire

APP = """\
import os, threading, time

lock = threading.Lock()
lock.acquire()

def spin_in_the_view():
    while True:
        pass

def sleep_in_the_view(seconds):
    time.sleep(seconds)

def application(environ, start_response):
    path = environ["PATH_INFO"]
    body = b"fine"
    if path == "/spin":
        spin_in_the_view()
    elif path == "/c":
        sum(range(10 ** 12))
    elif path == "/sleep":
        sleep_in_the_view(600)
    elif path == "/nap":
        sleep_in_the_view(3)
    elif path == "/deadlock":
        lock.acquire()
    elif path == "/caught":
        try:
            spin_in_the_view()
        except Exception:
            print("caught by except Exception")
    elif path == "/pid":
        body = str(os.getpid()).encode()
    elif path == "/silent":
        def pieces():
            yield b"first"
            sleep_in_the_view(600)
        start_response("200 OK", [])
        return pieces()
    elif path == "/long":
        def pieces():
            for _ in range(12):
                time.sleep(0.25)
                yield b"x"
        start_response("200 OK", [])
        return pieces()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def settings(folder: Path, more: str) -> Path:
    """The application with these settings."""
    (folder / "late.py").write_text(APP)
    (folder / "daemun.toml").write_text(f'[app.late]\nwsgi = "late:application"\n{more}\n')
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One process of two threads, so that a stuck one has a neighbour."""
    with Server(cwd=settings(tmp_path, 'processes = 1\nthreads = 2\ntimeout = "2s"')) as server:
        yield server


@pytest.mark.parametrize(
    ("path", "where"),
    [("/spin", "spin_in_the_view"), ("/sleep", "sleep_in_the_view"), ("/c", "application")],
)
def test_half_of_the_time_brings_the_stack_of_that_thread(server: Server, path: str, where: str) -> None:
    assert server.get(path + "?a=b").status == 504
    line = server.wait_for(rf"warning: late: worker \d+ \(pid \d+\) has been at GET {path}\?a=b for 1\.\d s")
    first = server.errors.lines.index(line.string) + 1
    assert re.search(rf'File ".*late\.py", line \d+ in {where}', server.errors.lines[first]), server.errors.text
    # The other thread waits for a request: its stack is ours, and is not shown.
    assert "daemun_worker.py" not in server.errors.text


def test_a_loop_in_python_is_ended_by_an_exception_and_its_worker_leaves_by_itself(server: Server) -> None:
    pid = int(server.get("/pid").text)
    answer = server.get("/spin")
    assert answer.status == 504
    reference = re.search(r"Reference: ([0-9a-f]+)", answer.text)
    assert reference is not None
    server.wait_for(rf"no answer within 2\.\d s.*504, reference {reference[1]}")
    server.wait_for("error in GET /spin")
    server.wait_for("TimedOut")
    assert server.get("/").text == "fine"
    end = time.monotonic() + DEADLINE
    while alive(pid):
        assert time.monotonic() < end, "a worker that was interrupted is retired"
    assert "was killed" not in server.errors.text
    assert int(server.get("/pid").text) != pid


def test_except_exception_does_not_catch_the_end_of_the_time(server: Server) -> None:
    assert server.get("/caught").status == 504
    server.wait_for("TimedOut")
    assert "caught by" not in server.errors.text


@pytest.mark.parametrize("path", ["/sleep", "/deadlock", "/c"])
def test_what_does_not_yield_is_ended_with_its_process(server: Server, path: str) -> None:
    pid = int(server.get("/pid").text)
    assert server.get(path).status == 504
    assert server.get("/").text == "fine"
    end = time.monotonic() + DEADLINE
    while alive(pid):
        assert time.monotonic() < end, "it has to be killed"


def test_other_requests_of_an_interrupted_worker_finish(server: Server) -> None:
    with ThreadPoolExecutor() as pool:
        stuck = pool.submit(server.get, "/sleep")
        server.wait_for("has been at GET /sleep")
        # Begun now, on the other thread of the same worker, and done after that one has had its 504.
        other = pool.submit(server.get, "/long")
        assert stuck.result(DEADLINE).status == 504
        assert other.result(DEADLINE).text == "x" * 12


def test_a_request_after_an_interrupted_one_is_not_hit(tmp_path: Path) -> None:
    with Server(cwd=settings(tmp_path, 'processes = 1\nthreads = 4\ntimeout = "300ms"')) as server:
        for _ in range(3):
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(server.get, ["/spin", "/", "/pid", "/", "/", "/pid", "/"]))
            assert answers[0].status == 504
            assert {answer.status for answer in answers[1:]} <= {200, 504}
            assert server.get("/").text == "fine"


def test_a_stream_that_falls_silent_is_cut(tmp_path: Path) -> None:
    with (
        Server(cwd=settings(tmp_path, 'processes = 1\nthreads = 2\nstream_idle = "1s"')) as server,
        wire(server.port) as connection,
    ):
        connection.send(b"GET /silent HTTP/1.1\r\nHost: a\r\n\r\n")
        reply = connection.reply()
        assert reply is not None
        assert (reply.status, reply.body, reply.complete) == (200, b"first", False)
        server.wait_for("/silent.*cut")
        # One that is slow and goes on lives for longer than that.
        assert server.get("/long").text == "x" * 12


def test_a_stream_may_be_silent_for_longer_than_the_timeout(tmp_path: Path) -> None:
    with Server(cwd=settings(tmp_path, 'processes = 1\ntimeout = "1s"')) as server:
        assert server.get("/long").text == "x" * 12
