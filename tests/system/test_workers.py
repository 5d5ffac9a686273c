"""How many workers there are, how long they live, what they fork from, and what is asked of them first."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gate import Gate
from server import DEADLINE, Server, children

APP = """\
import os, sys, time
from gate import hold

kept = []

def application(environ, start_response):
    path = environ["PATH_INFO"]
    status, body = "200 OK", b"fine"
    if path == "/pid":
        body = str(os.getpid()).encode()
    elif path == "/held":
        hold()
    elif path == "/grow":
        kept.append(bytearray(os.urandom(1) * (96 << 20)))
    elif path == "/kill":
        os.kill(os.getpid(), 9)
    elif path == "/healthz":
        body = environ["HTTP_HOST"].encode()
        print("asked for", path, "of", environ["HTTP_HOST"])
        if os.path.exists("broken"):
            status = "500 Broken"
    start_response(status, [("Content-Length", str(len(body)))])
    return [body]
"""


def project(folder: Path, more: str, before: str = "") -> Path:
    """The application with these settings, and with this before it."""
    (folder / "gate.py").write_text(Gate.MODULE)
    (folder / "site_app.py").write_text(before + APP)
    (folder / "daemun.toml").write_text(f'[app.site]\nwsgi = "site_app:application"\n{more}\n')
    return folder


def workers(server: Server) -> set[int]:
    """The Python processes but the zygote, which is the oldest."""
    found = {}
    for pid in children(server.pid):
        try:
            if b"daemun_worker.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        except OSError:
            continue
    found.pop(min(found, key=lambda pid: (found[pid], pid)))
    return set(found)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a state."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, what
        os.sched_yield()


def test_processes_start_on_demand_and_end_when_idle(tmp_path: Path, gate: Gate) -> None:
    settings = 'processes = { min = 0, max = 2, idle = "2s" }\nthreads = 1'
    with Server(cwd=project(tmp_path, settings), env=gate.env) as server:
        assert workers(server) == set(), "nothing is asked for yet"
        assert server.get("/").text == "fine"
        assert len(workers(server)) == 1
        with ThreadPoolExecutor() as pool:
            first = pool.submit(server.get, "/held")
            gate.entered()
            second = pool.submit(server.get, "/held")
            gate.entered()
            assert len(workers(server)) == 2
            third = pool.submit(server.get, "/")
            gate.open()
            assert [each.result(DEADLINE).status for each in (first, second, third)] == [200, 200, 200]
        server.wait_for("has nothing to do: 0 processes")
        until(lambda: workers(server) == set(), "all have ended")
        assert server.get("/").text == "fine", "and the next one comes at once"
        assert server.stop() == 0


def test_a_worker_above_its_memory_limit_is_replaced_without_a_failed_request(tmp_path: Path) -> None:
    with Server(cwd=project(tmp_path, 'processes = 1\nmemory_limit = "80MiB"')) as server:
        before = server.get("/pid").text
        assert server.get("/grow").status == 200
        server.wait_for(r"worker \d+ is replaced: it uses \d+ MiB of memory \(`memory_limit`\)")
        until(lambda: server.get("/pid").text != before, "another worker answers")


def test_a_worker_of_age_is_replaced(tmp_path: Path) -> None:
    with Server(cwd=project(tmp_path, 'processes = 1\nlifetime = "1s"')) as server:
        before = server.get("/pid").text
        server.wait_for(r"is replaced: it has lived for \d+ s \(`lifetime`\)")
        until(lambda: server.get("/pid").text != before, "another worker answers")


def test_a_killed_worker_is_back_at_once(tmp_path: Path) -> None:
    with Server(cwd=project(tmp_path, "processes = 1")) as server:
        # One that has lived for a while: a death right after the start might be the application's own.
        pid = int(server.get("/pid").text)
        os.kill(pid, signal.SIGKILL)
        answer = server.get("/pid")
        assert answer.status == 200
        assert int(answer.text) != pid
        certificate = server.wait_for(
            r"site: worker 1 \(pid \d+\) was killed by signal 9 \(SIGKILL\) after [\d.]+ s and 1 requests, "
            r"with at most \d+ MiB of memory, under CPython 3\.\d+\.\d+; it is replaced"
        )
        assert certificate


def test_a_deadly_get_takes_two_workers_and_nobody_with_it(tmp_path: Path, gate: Gate) -> None:
    """The bystander is on the thread beside it, and both may be sent once more: each to a worker of its own."""
    with (
        Server(cwd=project(tmp_path, "processes = 1\nthreads = 2"), env=gate.env) as server,
        ThreadPoolExecutor() as pool,
    ):
        bystander = pool.submit(server.get, "/held")
        gate.entered()
        deadly = pool.submit(server.get, "/kill")
        # It has begun anew, in a worker that does nothing else.
        server.wait_for("GET /held was being served by worker .* it is sent to another, once")
        gate.entered()
        gate.open()
        assert bystander.result(DEADLINE).status == 200
        assert deadly.result(DEADLINE).status == 502
        until(lambda: len(re.findall("was killed by signal 9", server.errors.text)) == 2, "two have died")
        assert server.get("/").text == "fine"
        assert len(re.findall("was killed by signal 9", server.errors.text)) == 2


THREADED = """\
import socket, threading, time
threading.Thread(target=time.sleep, args=(3600,), daemon=True, name="left-behind").start()
listening = socket.create_server(("127.0.0.1", 0))
"""


def test_an_import_that_leaves_threads_or_sockets_behind_is_done_in_each_worker(tmp_path: Path) -> None:
    asked = "import threading\nALIVE = [thread.name for thread in threading.enumerate()]\n"
    more = "\ndef names(environ, start_response):\n    import threading\n"
    more += "    body = ','.join(thread.name for thread in threading.enumerate()).encode()\n"
    more += "    start_response('200 OK', [('Content-Length', str(len(body)))])\n    return [body]\n"
    for preload, alive in (("", True), ("preload = true", False), ("preload = false", True)):
        folder = tmp_path / (preload.replace(" ", "") or "auto")
        folder.mkdir()
        project(folder, f"processes = 2\n{preload}", THREADED + asked)
        with (folder / "site_app.py").open("a") as file:
            file.write(more)
        text = (folder / "daemun.toml").read_text()
        (folder / "daemun.toml").write_text(text.replace(":application", ":names"))
        with Server(cwd=folder) as server:
            assert ("left-behind" in server.get("/").text) is alive, preload
            if preload != "preload = false":
                server.wait_for(r"thread.* left-behind.*socket.* 127\.0\.0\.1:\d+")
            assert server.stop() == 0


def test_new_code_that_is_not_ready_does_not_take_over(tmp_path: Path) -> None:
    with Server(cwd=project(tmp_path, 'processes = 1\nready = "/healthz"')) as server:
        server.wait_for("asked for /healthz of localhost")
        pid = server.get("/pid").text
        (tmp_path / "broken").write_text("")
        server.send(signal.SIGHUP)
        server.wait_for("`ready` asked for /healthz of localhost, and the answer was 500 Broken: localhost")
        server.wait_for("reload refused.*did not answer `ready` well")
        assert server.get("/pid").text == pid
        (tmp_path / "broken").unlink()
        server.send(signal.SIGHUP)
        server.wait_for("reloaded")
        until(lambda: server.get("/pid").text != pid, "the new code serves")


def test_a_start_that_is_not_ready_fails(tmp_path: Path) -> None:
    project(tmp_path, 'processes = 1\nready = "/healthz"')
    (tmp_path / "broken").write_text("")
    server = Server(cwd=tmp_path)
    assert server.exit_code() == 1
    assert "did not answer `ready` well" in server.errors.text


HOOKS = """\
def before_fork(worker):
    print("hook before_fork", worker.app, worker.serial)

def worker_started(worker):
    print("hook worker_started", worker.app, worker.serial, worker.threads, worker.pid > 1)

def worker_stopping(worker):
    print("hook worker_stopping", worker.serial)

def request_started(worker, environ):
    print("hook request_started", environ["PATH_INFO"])
    raise RuntimeError("a hook that fails")

def request_finished(worker, environ, status, seconds):
    print("hook request_finished", environ["PATH_INFO"], status, seconds >= 0)
"""


def test_hooks_are_called_at_their_turns_and_their_errors_harm_nobody(tmp_path: Path) -> None:
    (tmp_path / "hooks.py").write_text(HOOKS)
    with Server(cwd=project(tmp_path, 'processes = 1\nhooks = "hooks.py"')) as server:
        assert server.get("/").text == "fine"
        for line in [
            "hook before_fork site 1",
            "hook worker_started site 1 4 True",
            "hook request_started /",
            "the hook request_started failed",
            "a hook that fails",
            "hook request_finished / 200 OK True",
        ]:
            server.wait_for(line)
        assert server.stop() == 0
        assert "hook worker_stopping 1" in server.errors.text


def test_hooks_that_cannot_be_loaded_are_a_failed_start(tmp_path: Path) -> None:
    (tmp_path / "hooks.py").write_text("def worker_start(worker):\n    pass\n")
    server = Server(cwd=project(tmp_path, 'hooks = "hooks.py"'))
    assert server.exit_code() == 1
    assert "it defines none of before_fork, worker_started" in server.errors.text


def test_a_line_that_is_printed_is_written_whole(tmp_path: Path) -> None:
    (tmp_path / "printing.py").write_text("""\
import os, socket, sys

def application(environ, start_response):
    start_response("200 OK", [])
    body = []
    for stream in (sys.stdout, sys.stderr):
        # Each write is a packet.
        read, write = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        before = os.dup(stream.fileno())
        os.dup2(write.fileno(), stream.fileno())
        print("several", "pieces", 3, file=stream)
        os.dup2(before, stream.fileno())
        os.close(before)
        body.append(read.recv(1000))
    return body
""")
    with Server("printing:application", cwd=tmp_path) as server:
        assert server.get("/").text == "several pieces 3\n" * 2
