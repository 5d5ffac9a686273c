"""A fast request beside a slow one, in one process with idle threads: the fast one is answered at once."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from server import Server
from wire import wire

APP = """\
import time

def application(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(1.5)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
    return [b"fine"]
"""
FAST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"


def test_an_answer_is_not_held_back_behind_a_slow_request(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    late = 0
    with Server("app:application", "--workers", "1", "--threads", "4", cwd=tmp_path) as server:
        for _ in range(10):
            with ExitStack() as stack:
                busy = stack.enter_context(wire(server.port))
                # While the application is fast, the front keeps a few requests on their way to a thread.
                for _ in range(300):
                    busy.send(FAST * 8)
                    for _ in range(8):
                        assert busy.reply() is not None
                clients = [stack.enter_context(wire(server.port)) for _ in range(6)]
                slow = stack.enter_context(wire(server.port))
                began = time.monotonic()
                for place, client in enumerate(clients):
                    client.send(FAST)
                    if place == 3:
                        slow.send(SLOW)
                for client in clients:
                    assert client.reply() is not None
                late += time.monotonic() - began > 1
                assert slow.reply() is not None
    assert late == 0, f"{late} of 10 times a fast request waited for a slow one"
