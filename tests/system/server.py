"""Starts the real program, reads what it says, asks it over the wire, and stops it by its own process id.

Nothing here sleeps: each wait is for a line, an exit or an answer, and has a deadline.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BINARY = Path(os.environ.get("DAEMUN_BINARY", TARGET / "debug" / "daemun"))
LISTENING = re.compile(r"daemun: listening on https?://(?P<host>[^ ]+):(?P<port>\d+)")
# A debug build, Django's import and two busy cores; what hangs is found all the same.
DEADLINE = 60.0


@dataclass
class Answer:
    """A response, read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode()


class Log:
    """The lines of one stream, in the order in which they came."""

    def __init__(self, stream: IO[str], changed: threading.Condition) -> None:
        self._stream = stream
        self._changed = changed
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self._stream:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    def finish(self) -> None:
        """Read what is left once the program has ended."""
        self._thread.join(DEADLINE)
        self._stream.close()

    @property
    def text(self) -> str:
        """Everything so far."""
        return "\n".join(self.lines)


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Give the environment of a shell in which this Python's virtual environment was activated, and no more."""
    kept = {name: value for name, value in os.environ.items() if name in {"HOME", "LANG", "LC_ALL", "PATH", "TMPDIR"}}
    kept["PATH"] = str(Path(sys.prefix) / "bin") + os.pathsep + kept.get("PATH", "")
    return {**kept, "VIRTUAL_ENV": sys.prefix, "PYTHONDONTWRITEBYTECODE": "1", **extra}


class Server:
    """`daemun serve …` (or another `command`) on a port of the kernel's choice, from first line to exit code."""

    def __init__(
        self,
        *arguments: str | Path,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        listen: str = "127.0.0.1:0",
        program: Path = BINARY,
        command: str = "serve",
        close_fds: bool = True,
    ) -> None:
        assert program.exists(), f"{program} is not built; run:  make build"
        words = [str(program), command, *map(str, arguments)]
        if listen:
            words += ["--listen", listen]
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            words,
            cwd=cwd,
            env=environment(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            close_fds=close_fds,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.access = Log(self._process.stdout, self._changed)
        self.errors = Log(self._process.stderr, self._changed)
        self.port = 0

    def __enter__(self) -> Server:
        try:
            self._listens()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if error is not None:
            last = "\n".join(self.access.lines[-20:])
            print(f"--- what the server said ---\n{self.errors.text}\n--- end of the access log ---\n{last}")

    def _listens(self) -> None:
        self.port = int(self.wait_for(LISTENING)["port"])

    def starts(self) -> bool:
        """Whether it comes to listen; else it has ended."""
        try:
            self._listens()
        except AssertionError:
            if self._process.poll() is None:
                raise
            return False
        return True

    @property
    def pid(self) -> int:
        """The supervisor."""
        return self._process.pid

    @property
    def start_up(self) -> str:
        """What was said before requests were answered."""
        return LISTENING.split(self.errors.text, maxsplit=1)[0]

    def wait_for(self, pattern: str | re.Pattern[str], log: Log | None = None) -> re.Match[str]:
        """Wait for a line on standard error (or in `log`), the ones before included."""
        log = log or self.errors
        end = time.monotonic() + DEADLINE
        seen = 0
        with self._changed:
            while True:
                for line in log.lines[seen:]:
                    seen += 1
                    if match := re.search(pattern, line):
                        return match
                # A program that has ended says no more; what it said may still be on its way through the pipe.
                ended = self._process.poll() is not None
                if not self._changed.wait(0.2) and ended and seen == len(log.lines):
                    raise AssertionError(f"exit {self._process.returncode} without {pattern!r}:\n{self.errors.text}")
                if time.monotonic() > end:
                    raise AssertionError(f"no line {pattern!r} within {DEADLINE:.0f} s:\n{self.errors.text}")

    def connection(self) -> http.client.HTTPConnection:
        """Open a connection of one's own."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask on a new connection."""
        connection = self.connection()
        try:
            return exchange(connection, path, method, body, headers)
        finally:
            connection.close()

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET on a new connection."""
        return self.ask(path, headers=headers)

    def until(self, path: str, wanted: str) -> list[Answer]:
        """Ask again and again until the answer is `wanted`; give all answers. None may be missing."""
        end = time.monotonic() + DEADLINE
        answers: list[Answer] = []
        while time.monotonic() < end:
            answers.append(self.get(path))
            if answers[-1].status == 200 and answers[-1].text == wanted:
                return answers
        raise AssertionError(f"{path} never became {wanted!r}; last: {answers[-1:]}")

    def send(self, number: signal.Signals) -> None:
        """Signal the supervisor."""
        self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop, and give the exit code."""
        self.send(number)
        return self.exit_code()

    def ended(self, within: float) -> bool:
        """Whether the program ends within so many seconds."""
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            return False
        return True

    def exit_code(self) -> int:
        """Wait for the end, and give the exit code."""
        code = self._process.wait(DEADLINE)
        self.errors.finish()
        self.access.finish()
        return code

    def _end(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self.errors.finish()
        self.access.finish()


def eventually(holds: Callable[[], bool], what: str) -> None:
    """Ask again and again until it holds."""
    end = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < end, f"not within {DEADLINE:.0f} s: {what}"


def exchange(
    connection: http.client.HTTPConnection,
    path: str,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request and its answer."""
    connection.request(method, path, body, dict(headers or {}))
    response = connection.getresponse()
    return Answer(response.status, response.headers, response.read())


def run(*arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `daemun …` to its end."""
    assert BINARY.exists(), f"{BINARY} is not built; run:  make build"
    return subprocess.run(
        [str(BINARY), *map(str, arguments)],
        cwd=cwd,
        env=environment(env or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


def json_lines(log: Log) -> Sequence[Mapping[str, object]]:
    """Every line of the log as JSON."""
    return [json.loads(line) for line in log.lines]


def children(pid: int) -> list[int]:
    """Give the processes below `pid`, all generations. One that ends meanwhile has none."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, task.read_text().split()):
                found += [child, *children(child)]
    except (FileNotFoundError, ProcessLookupError):
        return found
    return found


def alive(pid: int) -> bool:
    """Whether the process is there and not merely waited for."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def front(server: Server) -> int:
    """Give the process that holds the clients' connections: our own program, below the supervisor."""
    for child in children(server.pid):
        if b"--role=front" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
            return child
    raise AssertionError(f"no front below {server.pid}")


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
