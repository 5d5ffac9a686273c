"""Fault injection: the n-th read, write, open, pipe or fork of supervisor, zygote and worker fails.

Meanwhile workers die, code is reloaded and the server is asked how it is. Whatever it was, nobody ends who should not,
nothing leaks, and afterwards requests, reloads and questions work. Some calls of each kind, chosen by
`DAEMUN_INJECT_SEED`, fail with every change; `DAEMUN_INJECT=all` lets each fail once, `2/5` the second fifth of them.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from injection import (
    EVERYTHING,
    FORKS,
    LARGE,
    NEVER,
    OPENS,
    OWN_READS,
    PIPES,
    READS,
    SENDS,
    SERVER,
    WAITS,
    WRITES,
    Fault,
    calls_in,
    chosen,
    descriptors,
    disturbed,
    failing,
    interpreters,
    lay_out,
    met,
    process,
    works,
)
from server import Server, children, eventually, front, run

FAULTS = [
    Fault("supervisor", "accept4,accept", "EMFILE"),
    Fault("supervisor", "accept4,accept", "ECONNABORTED"),
    Fault("supervisor", OWN_READS, "ENOMEM"),
    Fault("supervisor", OWN_READS, "EINTR"),
    # Not `write`: that is how its threads wake one another, and fails for nothing that the kernel can be short of.
    Fault("supervisor", SENDS, "ENOBUFS"),
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
    Fault("worker", WAITS, "EINTR"),
]


# What the application and the programs answer.
REQUESTS = [*EVERYTHING[2:], ("/", LARGE[:100_000], b"100000")]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A program and an application."""
    lay_out(tmp_path, SERVER)
    with Server(cwd=tmp_path, listen="") as server:
        yield server


def end_worker(server: Server) -> None:
    """Kill the worker, if there is one at the moment."""
    with suppress(ProcessLookupError, IndexError):
        os.kill(interpreters(server)[1], signal.SIGKILL)


def manage(server: Server, folder: Path) -> None:
    """What a supervisor does in its life: a death, a rotation, a question, a reload."""
    end_worker(server)
    disturbed(server, REQUESTS)
    server.send(signal.SIGUSR1)
    run("status", "--control", folder / "control", cwd=folder)
    run("reload", "--control", folder / "control", cwd=folder)
    disturbed(server, REQUESTS)


def fork(server: Server, folder: Path) -> None:
    """Have the zygote fork twice."""
    for _ in range(2):
        end_worker(server)
        disturbed(server, REQUESTS)


def work(server: Server, folder: Path) -> None:
    """Have the worker work, and be told to leave."""
    disturbed(server, REQUESTS)
    run("reload", "--control", folder / "control", cwd=folder)
    disturbed(server, REQUESTS)


SCENARIOS: dict[str, Callable[[Server, Path], None]] = {"supervisor": manage, "zygote": fork, "worker": work}


def is_whole(server: Server) -> bool:
    """Front, launcher, zygote and one worker are there, and nobody else."""
    there = children(server.pid)
    return len(there) == 4 and len(interpreters(server)) == 2


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_whatever_call_fails_the_server_is_whole_again(server: Server, fault: Fault, tmp_path: Path) -> None:
    play, log, control = SCENARIOS[fault.role], tmp_path / "trace", tmp_path / "control"
    works(server, REQUESTS)
    # Once undisturbed: how many calls there are, and what is open afterwards.
    with failing([process(server, fault.role)], fault, NEVER, log):
        play(server, tmp_path)
    works(server, REQUESTS)
    eventually(lambda: is_whole(server), "everybody is there")
    count = calls_in(log)
    assert count > 0, "no call was met"
    kept = [server.pid, front(server)]
    before = {pid: descriptors(pid) for pid in kept}
    numbers = chosen(fault, count)
    for number in numbers:
        with failing([process(server, fault.role)], fault, number, log):
            play(server, tmp_path)
        eventually(lambda: is_whole(server), f"everybody is there after call {number}:\n{server.errors.text}")
        told = run("reload", "--control", control, cwd=tmp_path)
        assert told.returncode == 0, f"call {number}: {told.stderr}\n{server.errors.text}"
        works(server, REQUESTS)
        assert run("status", "--check", "--control", control, cwd=tmp_path).returncode == 0
        assert [server.pid, front(server)] == kept, f"ended at call {number}:\n{server.errors.text}"
        assert "panicked" not in server.errors.text
        eventually(lambda: is_whole(server), f"nobody else is there after call {number}")
    eventually(lambda: all(descriptors(pid) <= most for pid, most in before.items()), f"as few files as {before}")
    print(f"{fault.name}: {len(numbers)} of {count} calls: {numbers}")


@pytest.mark.parametrize("number", [1, 2], ids=["its end", "the order for the next"])
def test_a_worker_that_died_is_replaced_although_nobody_was_told(server: Server, tmp_path: Path, number: int) -> None:
    """The first that is sent wakes the supervisor for the signal, the second tells the zygote to fork."""
    works(server, REQUESTS)
    log = tmp_path / "trace"
    with failing([server.pid], Fault("supervisor", "sendto", "ENOBUFS"), number, log):
        end_worker(server)
        eventually(lambda: met(log), "the call has failed")
        eventually(lambda: server.get("/").status == 200, "the next worker")
    eventually(lambda: is_whole(server), "everybody is there")


def pairs_in(log: Path) -> set[str]:
    """Give the sockets of packets that were made in pairs."""
    made = re.findall(r"socketpair\(AF_UNIX, SOCK_SEQPACKET.*", log.read_text())
    return {socket for line in made for socket in re.findall(r"\[(\d+)->", line)}


def read_in(log: Path) -> list[str]:
    """Give the sockets that were read by `recvfrom`, in their order."""
    return re.findall(r"recvfrom\(\d+<UNIX[A-Z-]*:\[(\d+)", log.read_text())


def own_pair(server: Server, log: Path) -> set[str]:
    """Give the sockets that were read and of which the supervisor has the other end too."""
    ends = set()
    for file in Path(f"/proc/{server.pid}/fd").iterdir():
        # One that is closed meanwhile is not it.
        with suppress(FileNotFoundError):
            ends.add(str(file.readlink()))
    known = re.findall(r"recvfrom\(\d+<UNIX[A-Z-]*:\[(\d+)->(\d+)", log.read_text())
    return {one for one, other in known if {f"socket:[{one}]", f"socket:[{other}]"} <= ends}


def test_the_call_that_is_left_out_reads_nothing_of_ours(server: Server, tmp_path: Path) -> None:
    """By `recvfrom` the supervisor reads two sockets of its libraries alone, and neither's read can fail but by EINTR.

    The one tells the event loop of signals: both ends are the supervisor's and nothing waits in it, so that the kernel
    neither sleeps nor asks for memory, and the library panics where it fails all the same. The other tells whether a
    program was started: of packets, made for that one start, its reader waits and may be interrupted.
    """
    works(server, REQUESTS)
    log, calls = tmp_path / "trace", "recvfrom,socketpair"
    with failing([server.pid], Fault("supervisor", calls, "EINTR"), NEVER, log, "-yy"):
        manage(server, tmp_path)
        eventually(lambda: is_whole(server), "everybody is there")
    of_starts, of_signals = pairs_in(log), own_pair(server, log)
    assert len(of_signals) == 1, log.read_text()
    assert of_starts & {*read_in(log)}, log.read_text()
    assert {*read_in(log)} <= of_starts | of_signals, log.read_text()
    # Nobody ends before the new zygote is started: the first read is that of its start.
    with failing([server.pid], Fault("supervisor", "recvfrom", "EINTR"), 1, log, "-yy"):
        told = run("reload", "--control", tmp_path / "control", cwd=tmp_path)
        assert told.returncode == 0, f"{told.stderr}\n{server.errors.text}"
    works(server, REQUESTS)
    assert met(log)
    first, again, *_ = read_in(log)
    assert first == again
    assert first not in of_signals
