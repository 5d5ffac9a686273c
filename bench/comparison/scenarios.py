"""What is asked, and what must be answered."""

from __future__ import annotations

import gzip
import http.client
import os
from dataclasses import dataclass, field
from pathlib import Path

BROWSER = {
    # With Host, eleven.
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.5",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Connection": "keep-alive",
    "Cookie": "sessionid=0123456789abcdef0123456789abcdef; csrftoken=0123456789abcdef0123456789abcdef",
    "Upgrade-Insecure-Requests": "1",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "none",
}
BODY = b"0123456789" * 10_000
WSGI_SERVERS = ("daemun", "granian", "gunicorn")
STATIC_SERVERS = ("daemun", "nginx", "lighttpd", "h2o")
CGI_SERVERS = ("daemun", "apache", "lighttpd")
# An answer that has not come by then never will.
DEADLINE = 20.0


class WrongAnswerError(Exception):
    """A server did not answer as it must: its figures would mean nothing."""


@dataclass(frozen=True)
class Request:
    """What each connection asks again and again."""

    path: str = "/"
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Scenario:
    """One row of questions: an application or a folder, a request, and the right answer."""

    name: str
    says: str
    request: Request
    servers: tuple[str, ...]
    # module:callable in bench/applications; empty for files.
    application: str = ""
    # The whole body, or (with `contains`) a part of it.
    body: bytes = b""
    contains: bytes = b""
    # Whether the application's own cost is measured by its side.
    bare: bool = False
    # Whom to compare with; else by what is asked for.
    peer: str = ""
    # A CGI program in bench/applications/cgi.
    script: str = ""
    # How many ask at once, where that is not what was asked for.
    connections: int = 0

    def check(self, port: int) -> None:
        """Ask twice on one connection; complain unless both answers are right."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        try:
            for _ in range(2):
                self._ask(connection)
        except (OSError, http.client.HTTPException) as error:
            raise WrongAnswerError(f"{self.name}: {type(error).__name__}: {error}") from error
        finally:
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        request = self.request
        connection.request(request.method, request.path, body=request.body or None, headers=request.headers)
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise WrongAnswerError(f"{self.name}: status {response.status}, not 200: {body[:200]!r}")
        right = self.contains in body if self.contains else body == self.body
        if not right:
            raise WrongAnswerError(f"{self.name}: a wrong body of {len(body)} bytes: {body[:200]!r}")


def file_of(size: int) -> bytes:
    """Give the contents of the file of so many bytes."""
    line = b"The quick brown fox jumps over the lazy dog.\n"
    return (line * (size // len(line) + 1))[:size]


def write_files(folder: Path) -> None:
    """Write the files of the static scenarios, as they would lie there: not written a moment ago."""
    folder.mkdir()
    for name, size in FILES.items():
        (folder / name).write_bytes(file_of(size))
    (folder / f"{PACKED}.gz").write_bytes(packed())
    for path in folder.iterdir():
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 3600))


def packed() -> bytes:
    """Give the compressed sibling of a file."""
    return gzip.compress(file_of(FILES[PACKED]), 9, mtime=0)


FILES = {"1k.txt": 1024, "100k.txt": 100 * 1024, "10m.txt": 10_000_000, "page.txt": 20 * 1024}
# The file that lies there compressed too.
PACKED = "page.txt"


def _wsgi(name: str, says: str, application: str, body: bytes, request: Request | None = None) -> Scenario:
    return Scenario(name, says, request or Request(), WSGI_SERVERS, application=application, body=body)


def _static(name: str, says: str, file: str) -> Scenario:
    return Scenario(name, says, Request(path=f"/{file}"), STATIC_SERVERS, body=file_of(FILES[file]), peer="nginx")


def _cgi(name: str, says: str, script: str, path: str, body: bytes, servers: tuple[str, ...]) -> Scenario:
    # As many as keep the processors busy: with 64, most of what is measured is programs in each other's way.
    return Scenario(name, says, Request(path=path), servers, body=body, script=script, connections=8)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        _wsgi("hello", "13 bytes from WSGI, one request header", "plain:hello", b"Hello, World!"),
        _wsgi(
            "hello11",
            "13 bytes from WSGI, a browser's eleven request headers",
            "plain:hello",
            b"Hello, World!",
            Request(headers=BROWSER),
        ),
        Scenario(
            "django",
            "one Django page with a template, a new project's middleware, no database",
            Request(),
            WSGI_SERVERS,
            application="pages.wsgi:application",
            contains=b"<h1>A &amp; B</h1>",
            bare=True,
        ),
        _wsgi(
            "post100k",
            "100,000 bytes posted to WSGI, read whole",
            "plain:post",
            b"100000 0123 6789",
            Request(method="POST", headers={"Content-Type": "application/octet-stream"}, body=BODY),
        ),
        Scenario(
            "threads",
            "13 bytes from WSGI, daemun with four threads in its worker beside daemun with one",
            Request(),
            ("daemun-threads", "daemun"),
            application="plain:hello",
            body=b"Hello, World!",
            peer="daemun",
        ),
        _wsgi("stream1m", "1 MiB from WSGI in 16 chunks, no length", "plain:stream", b"0123456789abcdef" * 65536),
        _static("static1k", "a file of 1 KiB", "1k.txt"),
        _static("static100k", "a file of 100 KiB", "100k.txt"),
        _static("static10m", "a file of 10 MB", "10m.txt"),
        Scenario(
            "precompressed",
            "a file of 20 KiB whose gzip sibling is sent",
            Request(path=f"/{PACKED}", headers={"Accept-Encoding": "gzip, deflate, br"}),
            ("daemun", "nginx", "h2o"),
            body=packed(),
            peer="nginx",
        ),
        Scenario(
            "cached1k",
            "1 KiB of an application out of the cache of its route, beside a file of 1 KiB",
            Request(path="/1k.txt"),
            ("daemun-cache", "daemun"),
            body=file_of(FILES["1k.txt"]),
            peer="daemun",
        ),
        _cgi("cgi-c", "13 bytes from a CGI program in C", "hello.c", "/cgi-bin/hello", b"Hello, World!", CGI_SERVERS),
        _cgi(
            "cgi-python",
            'a CGI script in Python; daemun-fork is the same with `reuse = "fork"`',
            "hello.py",
            "/cgi-bin/hello.py?name=you",
            b'{"greeting": "Hello, you!", "since": "2026-01-01T00:00:00"}',
            (*CGI_SERVERS, "daemun-fork"),
        ),
    )
}
# Not rates: these have their own measure in `rounds`.
RESTS = {
    "idle": "memory at rest with the hello application, after ten requests: PSS in KiB",
    "start": "from exec to the first right answer, less the application's own import: milliseconds",
}
