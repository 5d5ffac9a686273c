"""Hosts of the test's own: network namespaces on one switch, whose cables can be cut and which can be frozen."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

CLONE_NEWNET = 0x40000000
# The network that the tests began in, kept by a descriptor.
HOME = f"/proc/self/fd/{os.open('/proc/self/ns/net', os.O_RDONLY | os.O_CLOEXEC)}"


def ip(*words: str) -> str:
    """Run the program of that name."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


def enter(path: str | Path) -> None:
    """Have this thread, and what it starts, use another network."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.setns(file, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(file)


class Hosts:
    """Hosts by name, each with an address of 10.77.0.0/24, in the order of the names from 1 on."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.address = {name: f"10.77.0.{number}" for number, name in enumerate(names, 1)}
        self.frozen: list[int] = []

    def _space(self, name: str) -> str:
        return f"daemun-{os.getpid()}-{name}"

    def __enter__(self) -> Hosts:
        try:
            switch = self._space("switch")
            ip("netns", "add", switch)
            ip("-n", switch, "link", "add", "bridge", "type", "bridge")
            ip("-n", switch, "link", "set", "bridge", "up")
            for name in self.names:
                space = self._space(name)
                ip("netns", "add", space)
                ip("-n", switch, "link", "add", name, "type", "veth", "peer", "name", "cable", "netns", space)
                ip("-n", switch, "link", "set", name, "master", "bridge", "up")
                ip("-n", space, "link", "set", "lo", "up")
                ip("-n", space, "address", "add", f"{self.address[name]}/24", "dev", "cable")
                ip("-n", space, "link", "set", "cable", "up")
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.thaw()
        self._remove()

    def _remove(self) -> None:
        for name in (*self.names, "switch"):
            with suppress(AssertionError):
                ip("netns", "delete", self._space(name))

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Be on this host: programs that are started, and sockets that are made."""
        enter(f"/run/netns/{self._space(name)}")
        try:
            yield
        finally:
            enter(HOME)

    def cut(self, name: str) -> None:
        """Cut a host's cable at the switch: no other host is told."""
        ip("-n", self._space("switch"), "link", "set", name, "down")

    def mend(self, name: str) -> None:
        """Plug it in again."""
        ip("-n", self._space("switch"), "link", "set", name, "up")

    def freeze(self, name: str) -> None:
        """Stop every program on a host; its kernel goes on."""
        for pid in map(int, ip("netns", "pids", self._space(name)).split()):
            os.kill(pid, signal.SIGSTOP)
            self.frozen.append(pid)

    def thaw(self) -> None:
        """Let them go on."""
        while self.frozen:
            with suppress(ProcessLookupError):
                os.kill(self.frozen.pop(), signal.SIGCONT)
