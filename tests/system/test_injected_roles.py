"""Fault injection: the n-th read, write, open, pipe or fork of supervisor, zygote and worker fails.

Meanwhile workers die, code is reloaded and the server is asked how it is. Whatever it was, nobody ends who should not,
nothing leaks, and afterwards requests, reloads and questions work. Some calls of each kind, chosen by
`DAEMUN_INJECT_SEED`, fail with every change; `DAEMUN_INJECT=all` lets each fail once.
"""

from __future__ import annotations

import http.client
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from injection import NEVER, Fault, calls_in, descriptors, failing, interpreters, process
from server import Server, children, eventually, front, run

SEED = int(os.environ.get("DAEMUN_INJECT_SEED", "1"))
EACH = os.environ.get("DAEMUN_INJECT") == "all"
# How many calls of a kind fail where not each of them does.
SAMPLE = 2

APPLICATION = """\
def application(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % len(body)]
"""

SCRIPT = """\
#!/bin/sh
printf 'Content-Type: text/plain\\n\\n'
cat
"""

CONFIGURATION = """\
[server]
listen = ["127.0.0.1:0"]
access_log = "access.log"
control = "control"
event_loops = 1

[app.a]
wsgi = "application:application"
processes = 1
threads = 2
queue = { timeout = "500ms" }

[[route]]
path = "/programs/*"
cgi = { root = "programs" }

[[route]]
path = "/*"
app = "a"
"""

LARGE = b"x" * 2_000_000

READS = "recvfrom,recvmsg,readv,read,pread64"
WRITES = "sendto,sendmsg,writev,write,pwrite64"
OPENS = "openat,openat2,open,newfstatat,fstat,statx,readlinkat,readlink"
PIPES = "pipe2,pipe,socketpair,socket,memfd_create,dup,dup3,fcntl,epoll_ctl"
FORKS = "fork,vfork,clone,clone3"

FAULTS = [
    Fault("supervisor", "accept4,accept", "EMFILE"),
    Fault("supervisor", "accept4,accept", "ECONNABORTED"),
    # Not `recvfrom`: so its event loop also reads the socket by which a signal's handler wakes it, which cannot fail.
    Fault("supervisor", "recvmsg,readv,read,pread64", "ENOMEM"),
    Fault("supervisor", "recvmsg,readv,read,pread64", "EINTR"),
    # Not `write`: that is how its threads wake one another, and fails for nothing that the kernel can be short of.
    Fault("supervisor", "sendto,sendmsg,writev", "ENOBUFS"),
    Fault("supervisor", OPENS, "EMFILE"),
    Fault("supervisor", PIPES, "EMFILE"),
    Fault("supervisor", FORKS, "EAGAIN"),
    Fault("zygote", READS, "EINTR"),
    Fault("zygote", READS, "ENOMEM"),
    Fault("zygote", WRITES, "ENOBUFS"),
    Fault("zygote", FORKS, "EAGAIN"),
    Fault("zygote", PIPES, "EMFILE"),
    Fault("zygote", PIPES, "EMFILE", descends=True),
    Fault("zygote", OPENS, "EMFILE", descends=True),
    Fault("zygote", READS, "ENOMEM", descends=True),
    Fault("zygote", WRITES, "EPIPE", descends=True),
    Fault("zygote", FORKS, "EAGAIN", descends=True),
    Fault("worker", READS, "EINTR"),
    Fault("worker", READS, "ENOMEM"),
    Fault("worker", WRITES, "EINTR"),
    Fault("worker", WRITES, "ENOBUFS"),
    Fault("worker", OPENS, "EMFILE"),
    Fault("worker", "poll,ppoll,select,pselect6,epoll_wait,epoll_pwait", "EINTR"),
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A program and an application."""
    (tmp_path / "application.py").write_text(APPLICATION)
    (tmp_path / "programs").mkdir()
    script = tmp_path / "programs" / "echo.sh"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    (tmp_path / "daemun.toml").write_text(CONFIGURATION)
    with Server(cwd=tmp_path, listen="") as server:
        yield server


REQUESTS: list[tuple[str, bytes | None, bytes]] = [
    ("/", None, b"0"),
    ("/", LARGE[:100_000], b"100000"),
    ("/", LARGE, b"%d" % len(LARGE)),
    ("/programs/echo.sh", b"said", b"said"),
]


def works(server: Server) -> None:
    """Every request is answered as it should be."""
    for path, body, wanted in REQUESTS:
        reply = server.ask(path, "GET" if body is None else "POST", body)
        assert (reply.status, reply.body == wanted) == (200, True), f"{path}: {reply.status}\n{server.errors.text}"


def ask(server: Server) -> None:
    """Ask for everything; what fails does so at once, by an answer or the connection's end."""
    for path, body, _ in REQUESTS:
        try:
            server.ask(path, "GET" if body is None else "POST", body)
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException):
            pass


def end_worker(server: Server) -> None:
    """Kill the worker, if there is one at the moment."""
    with suppress(ProcessLookupError, IndexError):
        os.kill(interpreters(server)[1], signal.SIGKILL)


def manage(server: Server, folder: Path) -> None:
    """What a supervisor does in its life: a death, a rotation, a question, a reload."""
    end_worker(server)
    ask(server)
    server.send(signal.SIGUSR1)
    run("status", "--control", folder / "control", cwd=folder)
    run("reload", "--control", folder / "control", cwd=folder)
    ask(server)


def fork(server: Server, folder: Path) -> None:
    """Have the zygote fork twice."""
    for _ in range(2):
        end_worker(server)
        ask(server)


def work(server: Server, folder: Path) -> None:
    """Have the worker work, and be told to leave."""
    ask(server)
    run("reload", "--control", folder / "control", cwd=folder)
    ask(server)


SCENARIOS: dict[str, Callable[[Server, Path], None]] = {"supervisor": manage, "zygote": fork, "worker": work}


def is_whole(server: Server) -> bool:
    """Front, launcher, zygote and one worker are there, and nobody else."""
    there = children(server.pid)
    return len(there) == 4 and len(interpreters(server)) == 2


def numbers(fault: Fault, count: int) -> list[int]:
    """Which of the calls fail."""
    everything = range(1, count + 1)
    if EACH or count <= SAMPLE:
        return list(everything)
    # Near the begin all differ; far behind most are the same again.
    return sorted(random.Random(f"{SEED} {fault.name}").sample(everything, SAMPLE))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_whatever_call_fails_the_server_is_whole_again(server: Server, fault: Fault, tmp_path: Path) -> None:
    play, log, control = SCENARIOS[fault.role], tmp_path / "trace", tmp_path / "control"
    works(server)
    # Once undisturbed: how many calls there are, and what is open afterwards.
    with failing(process(server, fault.role), fault, NEVER, log):
        play(server, tmp_path)
    works(server)
    eventually(lambda: is_whole(server), "everybody is there")
    count = calls_in(log)
    assert count > 0, "no call was met"
    kept = [server.pid, front(server)]
    before = {pid: descriptors(pid) for pid in kept}
    chosen = numbers(fault, count)
    for number in chosen:
        with failing(process(server, fault.role), fault, number, log):
            play(server, tmp_path)
        eventually(lambda: is_whole(server), f"everybody is there after call {number}:\n{server.errors.text}")
        told = run("reload", "--control", control, cwd=tmp_path)
        assert told.returncode == 0, f"call {number}: {told.stderr}\n{server.errors.text}"
        works(server)
        assert run("status", "--check", "--control", control, cwd=tmp_path).returncode == 0
        assert [server.pid, front(server)] == kept, f"ended at call {number}:\n{server.errors.text}"
        assert "panicked" not in server.errors.text
        eventually(lambda: is_whole(server), f"nobody else is there after call {number}")
    eventually(lambda: all(descriptors(pid) <= most for pid, most in before.items()), f"as few files as {before}")
    print(f"{fault.name}: {len(chosen)} of {count} calls: {chosen}")
