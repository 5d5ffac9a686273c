"""Fault injection: the n-th read, write, open, pipe, bind or fork fails while the server starts.

Whatever it was: it says why and ends, leaving nobody behind, or it serves as if nothing had been. Some calls of each
kind, chosen by `DAEMUN_INJECT_SEED`, fail with every change; `DAEMUN_INJECT=all` lets each fail once, `2/5` the second
fifth of them.
"""

from __future__ import annotations

import collections
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from injection import (
    FORKS,
    NEVER,
    OPENS,
    OWN_READS,
    PIPES,
    SENDS,
    SERVER,
    Fault,
    calls_in,
    chosen,
    disturbed,
    lay_out,
    let_go,
    process,
    starting,
    works,
)
from server import Server, children, eventually, run

FILES = "mkdir,mkdirat,chmod,fchmod,fchmodat,chown,fchown,lchown,fchownat,flock,rename,renameat,renameat2"
# Not `prlimit64`: it also reads a limit, which the kernel refuses nobody and the library takes for certain.
RIGHTS = "setresuid,setresgid,setgroups,setpgid,prctl"

FAULTS = [
    Fault(role, calls, error)
    for role in ("supervisor", "front")
    for calls, error in (
        (OWN_READS, "EIO"),
        (OWN_READS, "EINTR"),
        (SENDS, "ENOBUFS"),
        (OPENS, "EMFILE"),
        (PIPES, "EMFILE"),
        (FORKS, "EAGAIN"),
        (RIGHTS, "EPERM"),
    )
] + [
    Fault("supervisor", "bind,listen,setsockopt,getsockname", "EADDRINUSE"),
    Fault("supervisor", FILES, "EACCES"),
]

# Says the kernel who inherits orphans.
SET_CHILD_SUBREAPER = 36


@pytest.fixture
def orphans() -> Iterator[None]:
    """Whoever loses its parent below us becomes our child, for the time of a test."""
    kernel = ctypes.CDLL(None, use_errno=True)
    assert kernel.prctl(SET_CHILD_SUBREAPER, 1) == 0
    yield
    assert kernel.prctl(SET_CHILD_SUBREAPER, 0) == 0


def left() -> list[int]:
    """Give the processes below us that are not ours."""
    for pid in children(os.getpid()):
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            # Somebody else's child, which has ended or not.
            continue
    return children(os.getpid())


def outcome(server: Server, role: str) -> str:
    """Whether it serves, wholly, or has ended with a reason. From then on nothing fails any more."""
    if not server.starts():
        assert server.exit_code() > 0, f"ended by a signal or as if all were well:\n{server.errors.text}"
        assert server.errors.text.strip(), "it says nothing"
        return "refused"
    disturbed(server)
    eventually(lambda: len(children(server.pid)) == 4, f"everybody is there:\n{server.errors.text}")
    let_go(process(server, role))
    works(server)
    return "served"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
@pytest.mark.usefixtures("orphans")
def test_whatever_call_fails_at_the_start_it_serves_or_says_why(fault: Fault, tmp_path: Path) -> None:
    lay_out(tmp_path, SERVER)
    log, control = tmp_path / "trace", tmp_path / "control"
    before = left()
    with starting(fault, NEVER, log, tmp_path) as server:
        assert outcome(server, fault.role) == "served", server.errors.text
        count = calls_in(log)
        assert server.stop() == 0
    eventually(lambda: left() == before, "nobody is left")
    numbers, outcomes = chosen(fault, count), collections.Counter[str]()
    for number in numbers:
        with starting(fault, number, log, tmp_path) as server:
            came = outcome(server, fault.role)
            if came == "served":
                done = run("status", "--check", "--control", control, cwd=tmp_path)
                assert done.returncode == 0, f"call {number}: {done.stdout}{done.stderr}\n{server.errors.text}"
                assert server.stop() == 0, f"call {number}:\n{server.errors.text}"
            assert "panicked" not in server.errors.text, f"call {number}:\n{server.errors.text}"
            print(f"--- {fault.name} {number}: {came}\n{server.errors.text if came == 'refused' else ''}")
        eventually(lambda: left() == before, f"nobody is left after call {number}: {left()}")
        outcomes[came] += 1
    print(f"{fault.name}: {len(numbers)} of {count} calls: {dict(outcomes)}")
