"""PyCharm starts `python -m daemun dev` under its own debugger, and its breakpoints stop import and requests."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pycharm import Ide, Process
from server import BINARY, DEADLINE, ROOT, Log, Server, alive, children, environment, eventually

APP = """\
word = "imported"

def application(environ, start_response):
    answer = "untouched"
    body = answer.encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
"""


@dataclass
class Session:
    """The editor with what it has started."""

    ide: Ide
    app: Path
    program: subprocess.Popen[str]
    log: Log
    said: threading.Condition

    def worker(self) -> Process:
        """Take the next process with a breakpoint in the application's import and one in its function."""
        return self.ide.process({str(self.app): [1, 5]})

    def listening(self) -> int:
        """Wait until the server says where it listens."""
        with self.said:
            assert self.said.wait_for(lambda: "listening on" in self.log.text, DEADLINE), self.log.text
        found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", self.log.text)
        assert found
        return int(found[1])


def begun(folder: Path, *options: str) -> Iterator[Session]:
    """Start as a configuration of PyCharm's does that runs a module."""
    app = folder / "app.py"
    app.write_text(APP)
    ide = Ide()
    found = importlib.util.find_spec("pydevd_pycharm")
    assert found is not None, "not installed; run:  make test"
    assert found.origin is not None
    debugger = Path(found.origin).with_name("pydevd.py")
    variables = environment({"PYTHONPATH": str(ROOT / "python")})
    variables["PATH"] = f"{BINARY.parent}:{variables['PATH']}"
    where = ["--client", "127.0.0.1", "--port", str(ide.port)]
    module = ["--module", "--file", "daemun", "dev", "app:application", "--listen", "127.0.0.1:0"]
    program = subprocess.Popen(
        [sys.executable, str(debugger), *options, *where, *module],
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stderr is not None
    said = threading.Condition()
    session = Session(ide, app, program, Log(program.stderr, said), said)
    yield session
    below = children(program.pid)
    # As its button does that stops everything.
    program.kill()
    program.wait(DEADLINE)
    ide.close()
    eventually(lambda: not any(alive(pid) for pid in below), "the server outlived the editor's session")
    session.log.finish()


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """The usual one."""
    yield from begun(tmp_path, "--multiprocess")


def ask(port: int, answers: list[str]) -> threading.Thread:
    """Ask in a thread of its own."""
    server = Server.__new__(Server)
    server.port = port
    asking = threading.Thread(target=lambda: answers.append(server.get("/").text))
    asking.start()
    return asking


def mended(worker: Process, port: int) -> list[str]:
    """Ask, change the answer where the request stops, and give what came."""
    answers: list[str] = []
    asking = ask(port, answers)
    thread, frame, line = worker.stopped()
    assert line == 5, "the request"
    worker.change(thread, frame, "answer", "'mended'")
    worker.resume(thread)
    asking.join(DEADLINE)
    return answers


def test_breakpoints_stop_import_and_request_and_those_after_a_change(session: Session) -> None:
    # The process that was started: its breakpoints are in code that others run.
    session.ide.process({})
    worker = session.worker()
    thread, _, line = worker.stopped()
    assert line == 1, "the import"
    worker.resume(thread)
    port = session.listening()
    assert mended(worker, port) == ["mended"]
    answers: list[str] = []
    asking = ask(port, answers)
    held, _, line = worker.stopped()
    assert line == 5
    session.app.write_text(APP.replace("untouched", "changed"))
    after = session.worker()
    thread, _, line = after.stopped()
    assert line == 1, "the import after the change"
    after.resume(thread)
    assert mended(after, port) == ["mended"]
    assert not answers, "it is still held"
    worker.resume(held)
    asking.join(DEADLINE)
    assert answers == ["untouched"], "the code that it began with"


def test_a_debugger_that_leaves_processes_alone_is_told_of(tmp_path: Path) -> None:
    for session in begun(tmp_path):
        session.ide.process({})
        port = session.listening()
        assert "no breakpoint will stop the application" in session.log.text
        answers: list[str] = []
        ask(port, answers).join(DEADLINE)
        assert answers == ["untouched"]
