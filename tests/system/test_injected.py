"""Fault injection: each accept, read, write, open, pipe and fork of front and launcher in a short scenario fails once.

Whatever it was, nobody ends who should not, nothing leaks, and the next request works.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest
from injection import Fault, descriptors, failing, met, process
from server import Server, eventually, front

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
event_loops = 1

[app.a]
wsgi = "application:application"
processes = 1
threads = 2

[[route]]
path = "/files/*"
static = { root = "files" }

[[route]]
path = "/programs/*"
cgi = { root = "programs" }

[[route]]
path = "/*"
app = "a"
"""

# More than fits into memory where bodies wait.
LARGE = b"x" * 1_000_000
REQUESTS: list[tuple[str, bytes | None, bytes]] = [
    ("/files/small.txt", None, b"small"),
    ("/files/large.bin", None, LARGE),
    ("/", None, b"0"),
    ("/", LARGE, b"%d" % len(LARGE)),
    ("/programs/echo.sh", b"said", b"said"),
]

# A scenario has some tens of calls of a kind; beyond it nothing fails and the search ends.
MOST = 60


FAULTS = [
    Fault("front", "accept4,accept", "EMFILE"),
    Fault("front", "accept4,accept", "ECONNABORTED"),
    # Not of packets: whoever sends those is a process of ours, and does not reset.
    Fault("front", "recvfrom,readv,read,pread64", "ECONNRESET"),
    Fault("front", "recvfrom,recvmsg,readv,read,pread64", "ENOMEM"),
    Fault("front", "recvmsg,readv,pread64,sendmsg,writev,sendfile", "EINTR"),
    Fault("front", "sendto,sendmsg,writev,sendfile,splice", "EPIPE"),
    Fault("front", "sendto,sendmsg,writev,sendfile,splice", "ENOBUFS"),
    Fault("front", "write,pwrite64,pwritev,ftruncate,fallocate", "ENOSPC"),
    Fault("front", "pread64,sendfile,splice,openat2", "EIO"),
    Fault("front", "openat,openat2,open,newfstatat,fstat,statx", "EMFILE"),
    Fault("front", "pipe2,pipe,socketpair,memfd_create,dup,fcntl", "EMFILE"),
    Fault("launcher", "fork,vfork,clone,clone3", "EAGAIN"),
    Fault("launcher", "pipe2,pipe,socketpair,openat,pidfd_open", "EMFILE"),
    Fault("launcher", "recvmsg,read", "ENOMEM"),
    Fault("launcher", "sendmsg,write", "EPIPE"),
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Files, a program, an application."""
    (tmp_path / "application.py").write_text(APPLICATION)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "small.txt").write_text("small")
    (tmp_path / "files" / "large.bin").write_bytes(LARGE)
    (tmp_path / "programs").mkdir()
    script = tmp_path / "programs" / "echo.sh"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    (tmp_path / "daemun.toml").write_text(CONFIGURATION)
    with Server(cwd=tmp_path, listen="") as server:
        yield server


def works(server: Server) -> None:
    """Every request is answered as it should be."""
    for path, body, wanted in REQUESTS:
        reply = server.ask(path, "GET" if body is None else "POST", body)
        assert (reply.status, reply.body == wanted) == (200, True), f"{path}: {reply.status}\n{server.errors.text}"


def disturbed(server: Server) -> None:
    """Ask for everything; what fails does so at once, by an answer or the connection's end."""
    for path, body, _ in REQUESTS:
        try:
            server.ask(path, "GET" if body is None else "POST", body)
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException):
            pass


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_whatever_call_fails_the_next_request_works(server: Server, fault: Fault, tmp_path: Path) -> None:
    works(server)
    whole, others = process(server, fault.role), [server.pid, front(server)]
    before = {pid: descriptors(pid) for pid in {whole, *others}}
    log = tmp_path / "trace"
    for number in range(1, MOST):
        with failing(whole, fault, number, log):
            disturbed(server)
        works(server)
        assert process(server, fault.role) == whole, f"{fault.role} ended at call {number}:\n{server.errors.text}"
        assert [server.pid, front(server)] == others
        if not met(log):
            break
    else:
        raise AssertionError(f"still failing at call {MOST}")
    assert number > 1, "no call was met"
    eventually(lambda: all(descriptors(pid) <= count for pid, count in before.items()), f"as few files as {before}")
