"""What waits in a crowd is answered several at a time; nothing is held behind a call that lasts."""

from __future__ import annotations

import selectors
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from gate import Gate
from server import DEADLINE, Server
from wire import Wire

WARM = 40

# Neither fast nor slow: answers that the front has written together while many others wait.
APP = """\
import time
from gate import hold

calls = 0

def application(environ, start_response):
    global calls
    calls += 1
    end = time.perf_counter() + 0.0006
    while time.perf_counter() < end:
        pass
    if environ["PATH_INFO"] == "/held":
        with open("before", "w") as file:
            file.write(str(calls - 1))
        hold()
    body = environ["QUERY_STRING"].encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


# The same, but the answer is an iterable that goes on behind its only piece, as those of frameworks may.
LONGER = APP.replace(
    """\
    return [body]
""",
    """\
    def pieces():
        yield body
        if body == b"20":
            hold()
    return pieces()
""",
)


@pytest.mark.parametrize("accelerator", ["true", "false"])
def test_an_answer_does_not_wait_for_what_its_iterable_does_behind_it(
    tmp_path: Path, gate: Gate, accelerator: str
) -> None:
    with warm(tmp_path, gate, LONGER, f"accelerator = {accelerator}") as server:
        crowd = [Wire(server.port) for _ in range(40)]
        for number, connection in enumerate(crowd):
            connection.send(f"GET /?{number} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode())
        gate.entered()
        answers(crowd[20], 20)
        gate.open()
        for number in set(range(len(crowd))) - {20}:
            answers(crowd[number], number)


@pytest.mark.parametrize("accelerator", ["true", "false"])
@pytest.mark.parametrize("threads", [1, 2])
def test_finished_answers_of_a_crowd_do_not_wait_for_a_call_that_lasts(
    tmp_path: Path, gate: Gate, accelerator: str, threads: int
) -> None:
    with warm(tmp_path, gate, APP, f"accelerator = {accelerator}\nthreads = {threads}") as server:
        crowd = [Wire(server.port) for _ in range(40)]
        paths = [f"/{'held' if number == 20 else ''}?{number}" for number in range(len(crowd))]
        for connection, path in zip(crowd, paths, strict=True):
            connection.send(f"GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode())
        gate.entered()
        # A thread alone has finished those that it was called for before; a second one takes all the others.
        before = int((tmp_path / "before").read_text()) - WARM
        with selectors.DefaultSelector() as waiting:
            for number, connection in enumerate(crowd):
                waiting.register(connection.socket, selectors.EVENT_READ, number)
            answered: set[int] = set()
            while len(answered) < (before if threads == 1 else len(crowd) - 1):
                ready = waiting.select(DEADLINE)
                assert ready, f"{len(answered)} of {before} that were finished have their answer"
                for key, _ in ready:
                    waiting.unregister(key.fileobj)
                    answers(crowd[key.data], key.data)
                    answered.add(key.data)
        gate.open()
        for number in set(range(len(crowd))) - answered:
            answers(crowd[number], number)


@contextmanager
def warm(folder: Path, gate: Gate, program: str, settings: str) -> Iterator[Server]:
    """One process of this program, which the front has seen to be fast."""
    (folder / "gate.py").write_text(Gate.MODULE)
    (folder / "crowd.py").write_text(program)
    (folder / "daemun.toml").write_text(f'[app.crowd]\nwsgi = "crowd:application"\nprocesses = 1\n{settings}\n')
    with Server(cwd=folder, env=gate.env) as server:
        for _ in range(WARM):
            assert server.get("/?warm").text == "warm"
        yield server


def answers(connection: Wire, number: int) -> None:
    """Read the answer of this request."""
    with closing(connection.socket):
        answer = connection.reply()
        assert answer is not None
        assert (answer.status, answer.body) == (200, str(number).encode())
