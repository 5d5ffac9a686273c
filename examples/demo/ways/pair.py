"""Two applications for one process, and two pages that go wrong: one crashes its worker, one is stuck."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any

Environ = dict[str, Any]
Start = Callable[[str, list[tuple[str, str]]], object]


def one(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Answer, crash or wait, as the path says."""
    path = environ["PATH_INFO"]
    if path == "/crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if path == "/slow":
        wait_for_a_database()
    return text(
        start_response, f"the first application, in process {os.getpid()}, mounted at {environ['SCRIPT_NAME']}\n"
    )


def two(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Answer."""
    return text(
        start_response, f"the second application, in process {os.getpid()}, mounted at {environ['SCRIPT_NAME']}\n"
    )


def wait_for_a_database() -> None:
    """Take as long as a query without an index."""
    time.sleep(8)


def text(start_response: Start, answer: str) -> Iterable[bytes]:
    """Plain text."""
    body = answer.encode()
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
