"""One server under test: its command line, its start on a free port, its end by its own process id."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from . import processes
from .peers import APPLICATIONS, COMMANDS, Place, Setting
from .peers.web import nginx_upstream
from .scenarios import Scenario, WrongAnswerError

# Django's import on a busy core takes seconds.
START_DEADLINE = 30.0
# What has not ended by itself then is killed.
END_DEADLINE = 10.0
POLL = 0.002


class ServerError(Exception):
    """A server could not be started or ended before its time."""


def environment() -> dict[str, str]:
    """Give as little as a service manager does: nothing of the caller's Python or of DAEMUN_* goes in."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "PATH", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONPATH": str(APPLICATIONS)}


class Program:
    """A started program that listens; `began` is the moment before its exec."""

    def __init__(self, name: str, port: int, command: list[str], folder: Path, more: dict[str, str]) -> None:
        self.name = name
        self.port = port
        self._output = folder / "output.log"
        with self._output.open("wb") as output:
            self.began = time.monotonic()
            try:
                self._process = subprocess.Popen(
                    command,
                    cwd=APPLICATIONS,
                    env={**environment(), **more},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    # A terminal's Ctrl-C is for the harness, which then ends each server.
                    start_new_session=True,
                )
            except FileNotFoundError as error:
                raise ServerError(f"{name}: {command[0]} is not there; run:  scripts/require bench") from error

    @property
    def pid(self) -> int:
        """The process that was started; all others descend from it."""
        return self._process.pid

    @property
    def said(self) -> str:
        """What it has written so far, the end of it."""
        return self._output.read_text("utf-8", "replace")[-4000:]

    def tree(self) -> list[processes.Process]:
        """Its living processes."""
        return processes.tree(self.pid)

    def wait_listening(self) -> None:
        """Wait until a connection is taken."""
        until = time.monotonic() + START_DEADLINE
        while True:
            if self._process.poll() is not None:
                raise ServerError(f"{self.name}: exit {self._process.returncode} at its start\n{self.said}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            if time.monotonic() > until:
                raise ServerError(f"{self.name}: not listening after {START_DEADLINE:.0f} s\n{self.said}")
            time.sleep(POLL)

    def end(self) -> None:
        """TERM to the first process; KILL to what is left of its tree after a while."""
        all_of_it = self.tree()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(END_DEADLINE)
        except subprocess.TimeoutExpired:
            all_of_it += [process for process in self.tree() if process not in all_of_it]
            self._process.kill()
            self._process.wait(END_DEADLINE)
        if not processes.wait_gone(all_of_it, 2.0):
            processes.end(all_of_it, signal.SIGKILL)
            processes.wait_gone(all_of_it, 2.0)


class Server(Program):
    """One server under test."""

    def __init__(self, name: str, setting: Setting, scenario: Scenario, folder: Path) -> None:
        folder.mkdir(parents=True)
        port = free_port()
        # Programs that nobody waits for are in nobody's sum: their time is known to a group alone.
        self.group = processes.Group.new(f"{os.getpid()}-{port}") if scenario.script else None
        setting = replace(setting, threads=max(setting.threads, scenario.threads))
        command = COMMANDS[name](setting, Place(scenario, port, folder))
        if self.group:
            command = self.group.entering(command)
        super().__init__(name, port, command, folder, {"BENCH_FILES": str(setting.files)})

    def end(self) -> None:
        """End its processes, then its group."""
        super().end()
        if self.group:
            self.group.remove()


def free_port() -> int:
    """Give a loopback port that nobody holds at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(names: list[str], setting: Setting, scenario: Scenario, folder: Path) -> Iterator[list[Server]]:
    """Start the servers, all listening and answering rightly; end them all, whatever happens."""
    programs: list[Program] = []
    try:
        if scenario.hop:
            place = folder / f"{scenario.name}-upstream"
            place.mkdir(parents=True)
            port = free_port()
            programs.append(Program("upstream", port, nginx_upstream(port, place), place, {}))
            programs[0].wait_listening()
            setting = replace(setting, upstream=port)
        servers = []
        for name in names:
            servers.append(Server(name, setting, scenario, folder / f"{scenario.name}-{name}"))
            programs.append(servers[-1])
        for server in servers:
            server.wait_listening()
            try:
                scenario.check(server.port)
            except WrongAnswerError as error:
                raise WrongAnswerError(f"{server.name}: {error}\n{server.said}") from error
        yield servers
    finally:
        for program in reversed(programs):
            program.end()
