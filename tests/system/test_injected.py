"""Fault injection: each accept, read, write, open, pipe and fork of front and launcher in a short scenario fails once.

Whatever it was, nobody ends who should not, nothing leaks, and the next request works.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from injection import FORKS, Fault, descriptors, disturbed, failing, lay_out, met, process, works
from server import Server, eventually, front

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
    Fault("launcher", FORKS, "EAGAIN"),
    Fault("launcher", "pipe2,pipe,socketpair,openat,pidfd_open", "EMFILE"),
    Fault("launcher", "recvmsg,read", "ENOMEM"),
    Fault("launcher", "sendmsg,write", "EPIPE"),
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Files, a program, an application."""
    lay_out(tmp_path, 'listen = ["127.0.0.1:0"]\nevent_loops = 1')
    with Server(cwd=tmp_path, listen="") as server:
        yield server


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_whatever_call_fails_the_next_request_works(server: Server, fault: Fault, tmp_path: Path) -> None:
    works(server)
    whole, others = process(server, fault.role), [server.pid, front(server)]
    before = {pid: descriptors(pid) for pid in {whole, *others}}
    log = tmp_path / "trace"
    for number in range(1, MOST):
        with failing([whole], fault, number, log):
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
