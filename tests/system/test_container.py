"""As containers start programs: process 1, a root that cannot be written, no root's rights."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from server import BINARY, Server, children, eventually, front, resident

APPLICATION = """\
import os, subprocess, sys

def application(environ, start_response):
    body = environ["wsgi.input"].read()
    if environ["PATH_INFO"] == "/orphan":
        # Its child outlives it: process 1 is to reap it.
        subprocess.run(["sh", "-c", "sleep 0.1 & exit"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getppid()} {os.getuid()} {len(body)}".encode()]
"""

# One that every user may run: that of the tests may lie in a home.
PYTHON = "/usr/bin/python3"

# Everything is read-only, but for a small /tmp in memory and /dev/shm; the folder of the site is shown as it is.
INSIDE = """\
#!/bin/sh
exec unshare --mount --pid --fork --kill-child --mount-proc sh -c '
  mount --bind {folder} /mnt && mount --rbind / / && mount -o remount,bind,ro / || exit 9
  mount -t tmpfs tmpfs /tmp && mount -t tmpfs tmpfs /run && mkdir /tmp/site || exit 9
  mount --bind /mnt /tmp/site && mount -o remount,bind,ro /tmp/site && cd /tmp/site || exit 9
  exec setpriv --reuid 4242 --regid 4242 --clear-groups /tmp/site/daemun "$@"
' sh "$@"
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The program in a container of its own."""
    tmp_path.chmod(0o755)
    (tmp_path / "application.py").write_text(APPLICATION)
    program = tmp_path / "contained"
    # Where every user may run it and no mount hides it.
    shutil.copy(BINARY, tmp_path / "daemun")
    program.write_text(INSIDE.format(folder=tmp_path))
    program.chmod(0o755)
    return program


def test_process_1_without_rights_on_a_root_that_cannot_be_written(program: Path, tmp_path: Path) -> None:
    with Server(
        "application:application", "--workers", "1", "--python", PYTHON, cwd=tmp_path, program=program
    ) as server:
        parent, user, length = server.ask("/", "POST", b"x" * 20_000).text.split()
        assert (parent, user, length) == ("1", "4242", "20000")
        # Larger than what is held in memory: /var/tmp cannot be written.
        parent, user, length = server.ask("/", "POST", b"x" * 3_000_000).text.split()
        assert length == "3000000"
        for _ in range(5):
            assert server.get("/orphan").status == 200
        everybody = children(server.pid)
        eventually(lambda: not any(is_zombie(pid) for pid in children(server.pid)), "orphans are reaped")
        assert resident(front(server)) > 0
        supervisor = next(pid for pid in everybody if inner(pid) == 1)
        os.kill(supervisor, signal.SIGTERM)
        assert server.exit_code() == 0


def inner(pid: int) -> int:
    """The number that a process has for itself."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("NSpid:")).split()[-1])


def is_zombie(pid: int) -> bool:
    """Whether a process has ended and nobody has asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
