"""A WSGI callable in a loop, without a server: `bare.py MODULE:CALLABLE PATH SECONDS` prints what it costs, as JSON.

What a server adds is its processor time per request less this.
"""

from __future__ import annotations

import importlib
import io
import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

BATCH = 20


def environ(path: str) -> dict[str, Any]:
    """Give what a server would for this path: a new dictionary for each request."""
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "127.0.0.1:8000",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


def call(application: Callable[..., Iterable[bytes]], path: str) -> None:
    """Take one answer to its end, as PEP 3333 has it."""
    statuses: list[str] = []
    answer = application(environ(path), lambda status, *_rest: statuses.append(status))
    try:
        b"".join(answer)
    finally:
        if hasattr(answer, "close"):
            answer.close()
    if statuses != ["200 OK"]:
        raise SystemExit(f"the application answered {statuses}")


def main() -> None:
    """Warm up for a quarter of the time, then count."""
    module, _, name = sys.argv[1].partition(":")
    application = getattr(importlib.import_module(module), name)
    path, seconds = sys.argv[2], float(sys.argv[3])
    warm = time.monotonic() + seconds / 4
    while time.monotonic() < warm:
        call(application, path)
    requests = 0
    began, cpu = time.monotonic(), time.process_time()
    while time.monotonic() < began + seconds:
        for _ in range(BATCH):
            call(application, path)
        requests += BATCH
    print(json.dumps({"requests": requests, "seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}))


if __name__ == "__main__":
    main()
