"""Signals, reloads and deaths, with requests in flight."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gate import Gate
from server import DEADLINE, Server, alive, children, exchange


def test_term_finishes_what_is_in_flight_and_exits_0(flask: Path, gate: Gate) -> None:
    with Server("app:app", cwd=flask, env=gate.env) as server, ThreadPoolExecutor() as pool:
        held = pool.submit(server.get, "/held")
        gate.entered()
        server.send(signal.SIGTERM)
        gate.open()
        assert held.result(DEADLINE).text == "finished"
        assert server.exit_code() == 0


def test_term_does_not_wait_for_idle_connections(flask: Path) -> None:
    with Server("app:app", cwd=flask) as server:
        connection = server.connection()
        assert exchange(connection, "/").text == "one"
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 10, "far below keep_alive and grace"
        connection.close()


def test_a_second_int_stops_at_once(flask: Path, gate: Gate) -> None:
    with Server("app:app", cwd=flask, env=gate.env) as server, ThreadPoolExecutor() as pool:
        held = pool.submit(server.get, "/held")
        gate.entered()
        server.send(signal.SIGINT)
        began = time.monotonic()
        # The first one may still be on its way when the second comes: the kernel merges them.
        while not server.ended(within=0.1) and time.monotonic() - began < 20:
            server.send(signal.SIGINT)
        assert time.monotonic() - began < 20, "below the grace of 25 s"
        assert held.exception(DEADLINE) is not None or held.result().status >= 500
        gate.open()


def test_nothing_is_left_behind(flask: Path) -> None:
    with Server("app:app", "--workers", "2", cwd=flask) as server:
        server.get("/")
        below = children(server.pid)
        assert below
        assert server.stop() == 0
        assert [pid for pid in below if alive(pid)] == []


def test_hup_loads_the_new_code_and_keeps_connections(flask: Path) -> None:
    with Server("app:app", cwd=flask) as server:
        kept = server.connection()
        assert exchange(kept, "/").text == "one"
        assert kept.sock is not None
        ours = kept.sock.getsockname()
        source = (flask / "app.py").read_text()
        (flask / "app.py").write_text(source.replace('"one"', '"two"'))
        server.send(signal.SIGHUP)
        answers = server.until("/", "two")
        assert {answer.status for answer in answers} == {200}
        assert exchange(kept, "/").text == "two"
        assert kept.sock is not None
        assert kept.sock.getsockname() == ours, "the connection was closed"
        kept.close()


def test_hup_with_broken_code_keeps_the_old_code(flask: Path) -> None:
    with Server("app:app", cwd=flask) as server:
        (flask / "app.py").write_text("import a_module_that_is_not_there\n")
        server.send(signal.SIGHUP)
        server.wait_for("a_module_that_is_not_there")
        assert server.get("/").text == "one"


def test_a_killed_worker_is_replaced_and_nobody_is_hung_up_on(flask: Path) -> None:
    with Server("app:app", "--workers", "1", cwd=flask) as server:
        worker = int(server.get("/pid").text)
        assert worker in children(server.pid)
        os.kill(worker, signal.SIGKILL)
        answer = server.get("/pid")
        assert answer.status == 200, answer
        assert int(answer.text) != worker


def test_a_worker_killed_in_the_middle_of_a_request_is_told_to_the_client(flask: Path, gate: Gate) -> None:
    with (
        Server("app:app", "--workers", "1", cwd=flask, env=gate.env) as server,
        ThreadPoolExecutor() as pool,
    ):
        worker = int(server.get("/pid").text)
        held = pool.submit(server.get, "/held")
        gate.entered()
        os.kill(worker, signal.SIGKILL)
        # An idempotent request of which nothing was answered is sent once more, to the next worker.
        gate.entered()
        gate.open()
        assert held.result(DEADLINE).text == "finished"
        assert str(worker) in server.wait_for(rf"\b{worker}\b.*(?i:sigkill|signal 9|killed)").string


def test_a_supervisor_that_is_killed_leaves_nothing_behind(flask: Path) -> None:
    with Server("app:app", cwd=flask) as server:
        server.get("/")
        below = children(server.pid)
        assert below
        server.send(signal.SIGKILL)
        server.exit_code()
        end = time.monotonic() + DEADLINE
        while any(alive(pid) for pid in below):
            assert time.monotonic() < end, "a process outlived its supervisor"
            os.sched_yield()
