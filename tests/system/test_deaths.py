"""Whatever process is killed, the service comes back by itself, and nothing outlives the supervisor."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

from server import DEADLINE, Server, alive, children


def command(pid: int) -> list[str]:
    """Give the words that a process was started with."""
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def front(server: Server) -> int:
    """Give the front's process id."""
    (pid,) = [pid for pid in children(server.pid) if "--role=front" in command(pid)]
    return pid


def zygote(server: Server) -> int:
    """Give the process id of the only zygote: it was there before the workers that it has forked."""
    return min(pid for pid in children(server.pid) if any("daemun_worker" in word for word in command(pid)))


def test_a_front_that_is_killed_is_back_with_the_same_workers(flask: Path) -> None:
    with Server("app:app", "--workers", "1", cwd=flask) as server:
        worker = server.get("/pid").text
        killed = front(server)
        os.kill(killed, signal.SIGKILL)
        server.wait_for(rf"front \(pid {killed}\) was killed by signal 9")
        assert server.until("/pid", worker)
        assert front(server) != killed
        assert server.stop() == 0


def test_a_zygote_that_is_killed_costs_nothing_but_the_next_fork(flask: Path) -> None:
    with Server("app:app", "--workers", "2", cwd=flask) as server:
        worker = int(server.get("/pid").text)
        killed = zygote(server)
        os.kill(killed, signal.SIGKILL)
        server.wait_for(rf"the zygote \(pid {killed}\) was killed by signal 9")
        assert server.get("/").text == "one"
        # The next one forks.
        os.kill(worker, signal.SIGKILL)
        server.wait_for(rf"worker \d+ \(pid {worker}\) was killed by signal 9")
        end = time.monotonic() + DEADLINE
        while len(children(server.pid)) < 4:
            assert time.monotonic() < end, "front, zygote and two workers"
        assert server.get("/").text == "one"
        assert server.stop() == 0


def test_zygote_and_worker_killed_together_are_both_replaced(flask: Path) -> None:
    with Server("app:app", "--workers", "1", cwd=flask) as server:
        worker, first = int(server.get("/pid").text), zygote(server)
        for pid in [first, worker]:
            os.kill(pid, signal.SIGKILL)
        answer = server.get("/pid")
        assert answer.status == 200, answer
        assert int(answer.text) != worker


def listens(port: int) -> bool:
    """Whether somebody accepts there. Binding it instead would also fail where a client's own end has that number."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return False
    return True


def test_a_supervisor_that_is_killed_frees_its_port_and_the_next_one_sweeps(flask: Path) -> None:
    with Server("app:app", cwd=flask) as server:
        server.get("/")
        below, port = children(server.pid), server.port
        server.send(signal.SIGKILL)
        server.exit_code()
        end = time.monotonic() + DEADLINE
        while any(alive(pid) for pid in below):
            assert time.monotonic() < end, "a process outlived its supervisor"
        # A process whose first thread is a zombie may have others that are still ending, with its sockets.
        while listens(port):
            assert time.monotonic() < end, "the port is still taken"


def test_an_orphan_of_the_application_is_reaped(flask: Path) -> None:
    (flask / "app.py").write_text("""\
import subprocess

def app(environ, start_response):
    # The shell ends at once; what it started in the background falls to the supervisor.
    done = subprocess.run(["sh", "-c", "true & echo $!"], capture_output=True, text=True)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [done.stdout.strip().encode()]
""")
    with Server("app:app", "--workers", "1", cwd=flask) as server:
        orphan = Path("/proc") / server.get("/").text
        end = time.monotonic() + DEADLINE
        while orphan.exists():
            assert time.monotonic() < end, "a zombie was left"


def test_more_and_fewer_processes_by_signal(flask: Path) -> None:
    with Server("app:app", "--workers", "1", cwd=flask) as server:
        server.get("/")
        end = time.monotonic() + DEADLINE
        for number, wanted in [(signal.SIGTTIN, 4), (signal.SIGTTIN, 5), (signal.SIGTTOU, 4), (signal.SIGTTOU, 3)]:
            server.send(number)
            while len(children(server.pid)) != wanted:
                assert time.monotonic() < end, f"front, zygote and {wanted - 2} workers"
            assert server.get("/").text == "one"
        assert server.stop() == 0
