"""Calls of a process that fail at a place of our choice.

The kernel's answers are changed by strace, so that every way to make a call is met.
"""

from __future__ import annotations

import collections
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from server import DEADLINE, Server, children, eventually, front

# Beyond whatever a short scenario does.
NEVER = 60_000


@dataclass(frozen=True)
class Fault:
    """Calls of a process that fail, and how."""

    role: str
    calls: str
    error: str
    # Whether processes that it forks meanwhile meet the same.
    descends: bool = False

    @property
    def name(self) -> str:
        """What pytest shows."""
        heirs = " and heirs" if self.descends else ""
        return f"{self.role}{heirs} {self.calls.split(',')[0]} {self.error}"


def words(pid: int) -> list[bytes]:
    """Give the words that a process was started with; none of one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def began(pid: int) -> tuple[int, int]:
    """When a process began; the earlier number goes first where the clock does not tell."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]), pid
    except (FileNotFoundError, ProcessLookupError):
        return 0, pid


def interpreters(server: Server) -> list[int]:
    """The Python processes, the oldest first: of one application, the zygote and then its workers."""
    of_shim = (pid for pid in children(server.pid) if any(b"daemun_worker" in word for word in words(pid)))
    return sorted(of_shim, key=began)


def process(server: Server, role: str) -> int:
    """Give the process with this role."""
    if role == "supervisor":
        return server.pid
    if role == "front":
        return front(server)
    if role in {"zygote", "worker"}:
        return interpreters(server)[0 if role == "zygote" else -1]
    for child in children(server.pid):
        if f"--role={role}".encode() in words(child):
            return child
    raise AssertionError(f"no {role} below {server.pid}")


@contextmanager
def failing(pid: int, fault: Fault, number: int, log: Path) -> Iterator[None]:
    """Let the n-th of these calls fail in each thread."""
    tracing = ["strace", "-qq", "-o", str(log), "-e", "signal=none"]
    # The supervisor's children are processes of other roles, and not meant.
    if fault.role not in {"supervisor", "zygote"} or fault.descends:
        tracing += ["-f", "-p", str(pid)]
    else:
        tracing += [word for task in tasks(pid) for word in ("-p", task.name)]
    # Where a kernel has no such call, strace is asked not to mind.
    calls = ",".join(f"?{call}" for call in fault.calls.split(","))
    tracing += ["-e", f"trace={calls}", "-e", f"inject={calls}:error={fault.error}:when={number}"]
    tracer = subprocess.Popen(tracing, stderr=subprocess.PIPE, text=True)
    try:
        eventually(lambda: tracer.poll() is not None or all(traced(task, tracer.pid) for task in tasks(pid)), "traced")
        assert tracer.poll() is None, tracer.stderr.read() if tracer.stderr else ""
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=DEADLINE)


def met(log: Path) -> bool:
    """Whether a call has failed."""
    return "(INJECTED)" in log.read_text()


def calls_in(log: Path) -> int:
    """How many calls the busiest thread has made. Where only one was traced its number is left out."""
    found = re.findall(r"^(?:(\d+) +)?\w+\(", log.read_text(), re.MULTILINE)
    return max(collections.Counter(found).values(), default=0)


def tasks(pid: int) -> list[Path]:
    """Give the threads of a process."""
    return list(Path(f"/proc/{pid}/task").iterdir())


def traced(task: Path, tracer: int) -> bool:
    """Whether a thread is traced, or has ended."""
    try:
        return f"\nTracerPid:\t{tracer}\n" in (task / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def descriptors(pid: int) -> int:
    """Count the open files of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
