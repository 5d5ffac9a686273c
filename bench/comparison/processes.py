"""Processor time and memory of a process and all its living descendants, from /proc; and their end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Process:
    """One process at one moment; a process id alone can come to mean another process."""

    pid: int
    parent: int
    started: int
    user: float
    system: float

    @property
    def seconds(self) -> float:
        """Processor time, that of the children it has waited for included."""
        return self.user + self.system


def read(pid: int) -> Process | None:
    """Read /proc/PID/stat; None if the process has gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the name in parentheses and may hold anything; what follows the last one does not.
    fields = text[text.rindex(")") + 2 :].split()
    if fields[0] in "ZX":
        return None
    user, system, child_user, child_system = (int(field) for field in fields[11:15])
    return Process(
        pid=pid,
        parent=int(fields[1]),
        started=int(fields[19]),
        user=(user + child_user) / TICKS,
        system=(system + child_system) / TICKS,
    )


def tree(root: int) -> list[Process]:
    """Give the process and its living descendants, the eldest first."""
    children: dict[int, list[Process]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (process := read(int(folder.name))):
            children.setdefault(process.parent, []).append(process)
    first = read(root)
    found = [first] if first else []
    for process in found:
        found += children.get(process.pid, [])
    return sorted(found, key=lambda process: (process.started, process.pid))


def roles(processes: Iterable[Process]) -> dict[int, str]:
    """Name what each process of one server is for, by its command line: process id to role."""
    named: dict[int, str] = {}
    for process in processes:
        try:
            words = Path(f"/proc/{process.pid}/cmdline").read_text("utf-8", "replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            words = [""]
        if "--role=front" in words:
            named[process.pid] = "front"
        elif not named:
            named[process.pid] = "parent"
        elif any(word.endswith("daemun_worker.py") for word in words) and "zygote" not in named.values():
            # It imports the application once, and its younger siblings are its forks.
            named[process.pid] = "zygote"
        elif "resource_tracker" in " ".join(words):
            named[process.pid] = "tracker"
        else:
            named[process.pid] = "worker"
    return named


def sleeps(processes: Iterable[Process]) -> int:
    """Count the voluntary context switches of all threads that live, none of those that have ended."""
    count = 0
    for process in processes:
        # Any of them may end between two lines of this.
        tasks: list[Path] = []
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            tasks = list(Path(f"/proc/{process.pid}/task").iterdir())
        for task in tasks:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                lines = (task / "status").read_text("utf-8", "replace").splitlines()
                count += sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches:"))
    return count


@dataclass(frozen=True)
class Spent:
    """Processor seconds between two looks at a tree."""

    user: float
    system: float
    by_role: dict[str, float]

    @property
    def seconds(self) -> float:
        """User and system together."""
        return self.user + self.system


def spent(before: list[Process], after: list[Process], named: dict[int, str]) -> Spent:
    """Give the difference of two looks at a tree.

    The sums are over the whole tree: time of a child that ended meanwhile is in its parent's children's time.
    """
    by_role: dict[str, float] = {}
    for sign, processes in ((-1, before), (1, after)):
        for process in processes:
            role = named.get(process.pid, "other")
            by_role[role] = by_role.get(role, 0.0) + sign * process.seconds
    return Spent(
        user=sum(process.user for process in after) - sum(process.user for process in before),
        system=sum(process.system for process in after) - sum(process.system for process in before),
        by_role=by_role,
    )


class Group:
    """A control group of one server: knows the time of all that ever ran in it, waited for or not."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def new(cls, name: str) -> Group | None:
        """Make one below our own; None where the kernel has none (cgroup 2) or we may not."""
        mounts = (line.split() for line in Path("/proc/mounts").read_text("utf-8").splitlines())
        mount = next((Path(words[1]) for words in mounts if words[2] == "cgroup2"), None)
        own = next(
            (line[4:] for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines() if line.startswith("0::/")),
            None,
        )
        if mount is None or own is None:
            return None
        folder = mount / own / f"daemun-bench-{name}"
        try:
            folder.mkdir()
        except OSError:
            return None
        return cls(folder)

    def entering(self, command: list[str]) -> list[str]:
        """Give the command that enters the group and then becomes `command`."""
        return ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self._folder / "cgroup.procs"), *command]

    def spent(self) -> tuple[float, float]:
        """Seconds of user and of system time so far."""
        lines = (line.split() for line in (self._folder / "cpu.stat").read_text("ascii").splitlines())
        known = {name: int(value) / 1e6 for name, value in lines}
        return known["user_usec"], known["system_usec"]

    def remove(self) -> None:
        """Take it away; one in which something still runs stays."""
        with contextlib.suppress(OSError):
            self._folder.rmdir()


def proportional_kib(pid: int) -> int | None:
    """Proportional set size in KiB; None where it may not be read (another user's process)."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


def alive(process: Process) -> bool:
    """Whether this very process still runs."""
    now = read(process.pid)
    return now is not None and now.started == process.started


def end(processes: list[Process], number: signal.Signals) -> None:
    """Signal those of the processes that still are what they were."""
    for process in processes:
        if alive(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)


def wait_gone(processes: list[Process], deadline: float) -> bool:
    """Wait until none of them runs, for at most so many seconds."""
    until = time.monotonic() + deadline
    while any(alive(process) for process in processes):
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True
