"""Breakpoints of an editor stop the application's import and requests.

The editor starts `python -m daemun dev` under debugpy, or attaches to what `daemun dev --debugger` has listening.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import adapter
import pytest
from server import BINARY, DEADLINE, ROOT, Server, alive, children, environment, run

APP = """\
word = "imported"

def application(environ, start_response):
    answer = "untouched"
    body = answer.encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
"""


class Editor:
    """What every editor does with the processes that join its session."""

    def __init__(self, session: adapter.Session, breakpoints: dict[str, list[int]]) -> None:
        self.session = session
        self._breakpoints = breakpoints
        self._joined: list[adapter.Session] = []

    def worker(self) -> adapter.Session:
        """Take over the next process that joins."""
        wanted = self.session.event("debugpyAttach")
        session = adapter.at(wanted["connect"]["host"], wanted["connect"]["port"])
        self._joined.append(session)
        session.begin("attach", self._breakpoints, **wanted)
        return session

    def close(self) -> None:
        """Hang up."""
        for session in [self.session, *self._joined]:
            session.close()


class Launching(Editor):
    """What an editor does with its configuration to launch a module."""

    def __init__(self, folder: Path, breakpoints: dict[str, list[int]]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "debugpy.adapter"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment({}),
        )
        super().__init__(adapter.over(self.process), breakpoints)
        variables = environment({"PYTHONPATH": str(ROOT / "python")})
        variables["PATH"] = f"{BINARY.parent}:{variables['PATH']}"
        self.session.begin(
            "launch",
            breakpoints,
            module="daemun",
            args=["dev", "app:application", "--listen", "127.0.0.1:0"],
            cwd=str(folder),
            env=variables,
            python=[sys.executable],
            console="internalConsole",
            redirectOutput=True,
            subProcess=True,
        )
        self.pid = int(self.session.event("process")["systemProcessId"])

    def listening(self) -> int:
        """Wait until the server says where it listens."""
        said = ""
        while not (found := re.search(r"listening on http://127\.0\.0\.1:(\d+)", said)):
            said += self.session.event("output")["output"]
        return int(found[1])

    def stop(self) -> None:
        """Press the button that ends the session."""
        self.session.answer(self.session.request("disconnect", terminateDebuggee=True))

    def close(self) -> None:
        """Close the editor, whatever it still runs."""
        for pid in [*children(self.process.pid), self.process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(DEADLINE)
        super().close()


class Attaching(Editor):
    """What an editor does with its configuration to attach."""

    def __init__(self, port: int, breakpoints: dict[str, list[int]]) -> None:
        super().__init__(adapter.at("127.0.0.1", port), breakpoints)
        self.session.begin("attach", {}, connect={"host": "127.0.0.1", "port": port}, subProcess=True)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """The application's file."""
    path = tmp_path / "app.py"
    path.write_text(APP)
    return path


@pytest.fixture
def editor(app: Path) -> Iterator[Launching]:
    """An editor with a breakpoint in the application's function, and one in its import."""
    editor = Launching(app.parent, {str(app): [1, 5]})
    yield editor
    editor.close()


@pytest.fixture
def server(tmp_path: Path, app: Path) -> Iterator[Server]:
    """A server to which editors attach."""
    with Server("app:application", "--debugger", "0", cwd=tmp_path, command="dev") as server:
        yield server


@pytest.fixture
def attached(server: Server, app: Path) -> Iterator[Attaching]:
    """An editor with the same breakpoints, when the application has been imported already."""
    editor = Attaching(attachable(server), {str(app): [1, 5]})
    yield editor
    editor.close()


def attachable(server: Server) -> int:
    """Give the port to which an editor attaches."""
    return int(server.wait_for(r"daemun: debugger: an editor attaches to 127\.0\.0\.1:(\d+)")[1])


def stopped(session: adapter.Session) -> tuple[int, int, int]:
    """Wait until it stops at a breakpoint: the thread, the line, the frame."""
    event = session.event("stopped")
    assert event["reason"] == "breakpoint"
    frames = session.answer(session.request("stackTrace", threadId=event["threadId"]))["stackFrames"]
    return event["threadId"], frames[0]["line"], frames[0]["id"]


def test_breakpoints_stop_import_and_request_and_the_answer_can_be_changed(editor: Launching) -> None:
    worker = editor.worker()
    thread, line, _ = stopped(worker)
    assert line == 1, "the import"
    worker.answer(worker.request("continue", threadId=thread))
    port = editor.listening()
    assert mended(worker, port) == [b"mended"]
    below = children(editor.pid)
    assert below
    editor.stop()
    end = time.monotonic() + DEADLINE
    while any(alive(pid) for pid in below):
        assert time.monotonic() < end, "the server outlived the editor's session"


def local(session: adapter.Session, frame: int) -> int:
    """Give what stands for the local variables of a frame."""
    scopes = session.answer(session.request("scopes", frameId=frame))["scopes"]
    return int(scopes[0]["variablesReference"])


def mended(worker: adapter.Session, port: int) -> list[bytes]:
    """Ask, change the answer where the request stops, and give what came."""
    answers: list[bytes] = []

    def ask() -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=DEADLINE) as answer:
            answers.append(answer.read())

    asking = threading.Thread(target=ask)
    asking.start()
    thread, line, frame = stopped(worker)
    assert line == 5, "the request"
    worker.answer(
        worker.request("setVariable", variablesReference=local(worker, frame), name="answer", value="'mended'")
    )
    worker.answer(worker.request("continue", threadId=thread))
    asking.join(DEADLINE)
    return answers


def test_an_editor_that_attaches_keeps_its_breakpoints_over_a_change(
    server: Server, attached: Attaching, app: Path
) -> None:
    worker = attached.worker()
    assert mended(worker, server.port) == [b"mended"]
    app.write_text(APP.replace("untouched", "changed"))
    after = attached.worker()
    thread, line, _ = stopped(after)
    assert line == 1, "the import after the change"
    after.answer(after.request("continue", threadId=thread))
    # Requests wait for the new code: it is the next worker that stops.
    assert mended(after, server.port) == [b"mended"]


def test_a_request_that_a_debugger_holds_outlives_a_change(server: Server, attached: Attaching, app: Path) -> None:
    worker = attached.worker()
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(server.get("/").text))
    asking.start()
    held, line, _ = stopped(worker)
    assert line == 5
    app.write_text(APP.replace("untouched", "changed"))
    after = attached.worker()
    thread, _, _ = stopped(after)
    after.answer(after.request("continue", threadId=thread))
    assert mended(after, server.port) == [b"mended"]
    assert not answers, "it is still held"
    worker.answer(worker.request("continue", threadId=held))
    asking.join(DEADLINE)
    assert answers == ["untouched"], "the code that it began with"


def test_without_an_editor_requests_are_answered_and_one_may_come_late_leave_and_come_again(
    server: Server, app: Path
) -> None:
    assert server.get("/").text == "untouched"
    for _ in range(2):
        editor = Attaching(attachable(server), {str(app): [5]})
        worker = editor.worker()
        assert mended(worker, server.port) == [b"mended"]
        # What holds the worker is let go first, as editors do.
        worker.answer(worker.request("disconnect"))
        editor.session.answer(editor.session.request("disconnect"))
        editor.close()
        assert server.get("/").text == "untouched"


def test_an_editor_that_ends_what_it_is_attached_to_stops_the_server(server: Server, attached: Attaching) -> None:
    attached.worker()
    below = children(server.pid)
    attached.session.answer(attached.session.request("disconnect", terminateDebuggee=True))
    assert server.exit_code() == 0
    assert "the debugger has been ended: stopping" in server.errors.text
    # The adapter is there for the editor until that hangs up.
    attached.close()
    end = time.monotonic() + DEADLINE
    while any(alive(pid) for pid in below):
        assert time.monotonic() < end, "something of the server is left"


def test_a_debugger_that_cannot_be_is_told_with_its_cure(tmp_path: Path, app: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True, timeout=DEADLINE)
    lacking = run("dev", "app:application", "--debugger", "0", "--python", bare, cwd=tmp_path)
    assert lacking.returncode == 1
    assert f"has no debugpy; run:  {bare}/bin/python -m pip install debugpy" in lacking.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run("dev", "app:application", "--debugger", str(port), cwd=tmp_path)
    assert refused.returncode == 1
    assert f"--debugger: debugpy does not listen on 127.0.0.1:{port}" in refused.stderr
    misplaced = run("dev", "--debugger", "app:application", cwd=tmp_path)
    assert misplaced.returncode == 2
    assert "write it first: daemun dev app:application --debugger" in misplaced.stderr
