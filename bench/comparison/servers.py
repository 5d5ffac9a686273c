"""One server under test: its command line, its start on a free port, its end by its own process id."""

from __future__ import annotations

import contextlib
import os
import random
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
# Below what the system gives to clients and to whoever binds port 0: a server takes seconds until it binds its own.
PORTS = range(10_240, 32_768)
# What could not be measured, and why.
Absent = dict[str, str]


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
        threads, logs = max(setting.threads, scenario.threads), setting.logs or scenario.logs
        setting = replace(setting, threads=threads, logs=logs)
        command = COMMANDS[name](setting, Place(scenario, port, folder))
        if self.group:
            command = self.group.entering(command)
        try:
            super().__init__(name, port, command, folder, {"BENCH_FILES": str(setting.files)})
        except ServerError:
            if self.group:
                self.group.remove()
            raise

    def end(self) -> None:
        """End its processes, then its group."""
        super().end()
        if self.group:
            self.group.remove()


def free_port() -> int:
    """Give a loopback port that nobody holds at this moment, and that nobody is given who does not name it."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ServerError("of a hundred ports none is free")


@contextlib.contextmanager
def running(
    names: list[str], setting: Setting, scenario: Scenario, folder: Path, absent: Absent | None = None
) -> Iterator[list[Server]]:
    """Start the servers, all listening and answering rightly; end them all, whatever happens.

    One that does not start or answers wrongly is put among the absent where these are wanted, else it is a fault.
    """
    programs: list[Program] = []
    try:
        if scenario.hop:
            place = folder / f"{scenario.name}-upstream"
            place.mkdir(parents=True)
            port = free_port()
            programs.append(Program("upstream", port, nginx_upstream(port, place), place, {}))
            programs[0].wait_listening()
            setting = replace(setting, upstream=port)
        servers: dict[str, Server] = {}
        for name in names:
            with _absent_or_raised(name, absent):
                servers[name] = Server(name, setting, scenario, folder / f"{scenario.name}-{name}")
                programs.append(servers[name])
        for name, server in servers.items():
            with _absent_or_raised(name, absent):
                _wait_right(server, scenario)
        yield [server for name, server in servers.items() if not absent or name not in absent]
    finally:
        for program in reversed(programs):
            program.end()


def _wait_right(server: Server, scenario: Scenario) -> None:
    try:
        server.wait_listening()
        scenario.check(server.port)
    except WrongAnswerError as error:
        said = server.said
        server.end()
        raise WrongAnswerError(f"{server.name}: {error}\n{said}") from error
    except ServerError:
        server.end()
        raise


@contextlib.contextmanager
def _absent_or_raised(name: str, absent: Absent | None) -> Iterator[None]:
    try:
        yield
    except (ServerError, WrongAnswerError) as error:
        if absent is None:
            raise
        absent[name] = str(error)
