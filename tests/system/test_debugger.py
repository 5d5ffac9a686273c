"""An editor starts `python -m daemun dev` under debugpy, and its breakpoints stop the application's requests."""

from __future__ import annotations

import os
import re
import signal
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
from server import BINARY, DEADLINE, ROOT, alive, children, environment

APP = """\
word = "imported"

def application(environ, start_response):
    answer = "untouched"
    body = answer.encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
"""


class Editor:
    """What an editor does with its configuration to launch a module."""

    def __init__(self, folder: Path, breakpoints: dict[str, list[int]]) -> None:
        self._breakpoints = breakpoints
        self._joined: list[adapter.Session] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "debugpy.adapter"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment({}),
        )
        self.session = adapter.over(self.process)
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

    def worker(self) -> adapter.Session:
        """Take over the next process that joins."""
        wanted = self.session.event("debugpyAttach")
        session = adapter.at(wanted["connect"]["host"], wanted["connect"]["port"])
        self._joined.append(session)
        session.begin("attach", self._breakpoints, **wanted)
        return session

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
        for session in [self.session, *self._joined]:
            session.close()


@pytest.fixture
def editor(tmp_path: Path) -> Iterator[Editor]:
    """An editor with a breakpoint in the application's function, and one in its import."""
    path = tmp_path / "app.py"
    path.write_text(APP)
    editor = Editor(tmp_path, {str(path): [1, 5]})
    yield editor
    editor.close()


def stopped(session: adapter.Session) -> tuple[int, int, int]:
    """Wait until it stops at a breakpoint: the thread, the line, the frame."""
    event = session.event("stopped")
    assert event["reason"] == "breakpoint"
    frames = session.answer(session.request("stackTrace", threadId=event["threadId"]))["stackFrames"]
    return event["threadId"], frames[0]["line"], frames[0]["id"]


def test_breakpoints_stop_import_and_request_and_the_answer_can_be_changed(editor: Editor) -> None:
    worker = editor.worker()
    thread, line, _ = stopped(worker)
    assert line == 1, "the import"
    worker.answer(worker.request("continue", threadId=thread))
    port = editor.listening()
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
    assert answers == [b"mended"]
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
