"""The applications of every scenario but Django's: as small as can be, so that what is measured is the server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

CHUNK = b"0123456789abcdef" * 4096


def hello(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Thirteen bytes."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])
    return [b"Hello, World!"]


def post(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Read the whole body; the answer shows that its length, beginning and end arrived."""
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    answer = b"%d %s %s" % (len(body), body[:4], body[-4:])
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]


def stream(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    """One MiB in sixteen chunks, without a length."""
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    for _ in range(16):
        yield CHUNK


def cached(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """1 KiB that a cache may keep for an hour."""
    line = b"The quick brown fox jumps over the lazy dog.\n"
    body = (line * 23)[:1024]
    fields = [("Content-Type", "text/plain"), ("Content-Length", "1024"), ("Cache-Control", "max-age=3600")]
    start_response("200 OK", fields)
    return [body]


def sleeper(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Thirteen bytes, below `/sleep` after a tenth of a second."""
    if environ["PATH_INFO"] == "/sleep":
        time.sleep(0.1)
    return hello(environ, start_response)


def waiting(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Thirteen bytes after 20 ms, as of a database or another server."""
    time.sleep(0.02)
    return hello(environ, start_response)


def either(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Thirteen bytes, or what a body was."""
    return (post if environ.get("CONTENT_LENGTH") else hello)(environ, start_response)


def sized(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """So many bytes as the path says."""
    count = int(environ["PATH_INFO"].rpartition("/")[2])
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(count))])
    return [(CHUNK * (count // len(CHUNK) + 1))[:count]]
