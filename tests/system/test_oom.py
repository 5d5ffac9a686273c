"""A worker that the kernel ends because memory has run out: a control group with a limit, and who fills it."""

from __future__ import annotations

import os
import re
import shlex
import stat
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress
from pathlib import Path

import pytest
from server import BINARY, DEADLINE, Server, eventually, front

# Room for the supervisor, the front, the zygote and two workers, and far below what the application takes.
LIMIT = 320 << 20

APP = """\
import os

def application(environ, start_response):
    body = str(os.getpid()).encode()
    if environ["PATH_INFO"] == "/eat" or (environ["PATH_INFO"] == "/eat_once" and not os.path.exists("eaten")):
        open("eaten", "w").close()
        kept = []
        while len(kept) < 1024:
            kept.append(b"x" * (1 << 20))
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""

SETTINGS = '[app.eater]\nwsgi = "eater:application"\nprocesses = 2\nthreads = 2\n'


def made_group() -> Path | None:
    """Make a control group with a limit of memory, of version 2 or of version 1; none where we may not."""
    name = f"daemun-test-{os.getpid()}-{time.monotonic_ns()}"
    own = Path("/proc/self/cgroup").read_text()
    match = re.search(r"^0::(/.*)$", own, re.MULTILINE)
    second = Path("/sys/fs/cgroup" + (match[1] if match else "/")) / name
    first = Path("/sys/fs/cgroup/memory") / name
    for group, limits in (
        (second, {"memory.max": LIMIT, "memory.swap.max": 0}),
        (first, {"memory.limit_in_bytes": LIMIT, "memory.memsw.limit_in_bytes": LIMIT}),
    ):
        try:
            group.mkdir()
        except OSError:
            continue
        if not (group / "cgroup.procs").exists():
            # No control group: beside those of version 1 stands an ordinary folder.
            group.rmdir()
            continue
        try:
            for file, limit in limits.items():
                # Whether swap counts is not the same on every kernel.
                with suppress(OSError) if "sw" in file else nullcontext():
                    (group / file).write_text(str(limit))
        except OSError:
            group.rmdir()
            continue
        return group
    return None


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group with a limit; the kernel removes it once nobody is in it."""
    made = made_group()
    if made is None:
        pytest.skip("no control group with a limit of memory can be made here: run as root, or delegate one")
    yield made
    end = time.monotonic() + DEADLINE
    while made.exists() and time.monotonic() < end:
        with suppress(OSError):
            made.rmdir()


@pytest.fixture
def limited(tmp_path: Path, group: Path) -> Iterator[Server]:
    """The program in that group, with everything that it starts."""
    (tmp_path / "eater.py").write_text(APP)
    (tmp_path / "daemun.toml").write_text(SETTINGS)
    start = tmp_path / "start"
    start.write_text(f'#!/bin/sh\necho $$ > {shlex.quote(str(group))}/cgroup.procs\nexec {BINARY} "$@"\n')
    start.chmod(start.stat().st_mode | stat.S_IXUSR)
    with Server(cwd=tmp_path, program=start) as server:
        yield server


def test_a_get_whose_worker_the_oom_killer_took_is_answered_by_another(limited: Server) -> None:
    clients = front(limited)
    with closing(limited.connection()) as kept_one:
        kept_one.request("GET", "/")
        assert kept_one.getresponse().read()
        answer = limited.get("/eat_once")
        assert answer.status == 200
        certificate = limited.wait_for(
            r"worker \d+ \(pid (\d+)\) was killed by signal 9 \(SIGKILL\) by the kernel's OOM killer: memory had run "
            r"out after .* with at most (\d+) MiB of memory, .*serving GET /eat_once for [\d.]+ s"
        )
        assert int(certificate[1]) != int(answer.text)
        assert int(certificate[2]) > 100, "its memory at the end"
        # Whoever else is connected sees nothing of it.
        kept_one.request("GET", "/")
        assert kept_one.getresponse().read()
    assert front(limited) == clients


def test_a_get_that_eats_up_the_memory_of_two_workers_is_not_sent_to_a_third(limited: Server) -> None:
    assert limited.get("/eat").status == 502
    told = "by the kernel's OOM killer"
    eventually(lambda: limited.errors.text.count(told) == 2, "two certificates")
    limited.wait_for(r"OOM killer.*serving GET /eat \(its second worker: it is given up\) for [\d.]+ s")
    assert limited.get("/").status == 200
    assert limited.errors.text.count(told) == 2
