"""What is asked, and what must be answered."""

from __future__ import annotations

import gzip
import http.client
import os
import ssl
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
WSGI_SERVERS = ("daemun", "granian", "gunicorn", "uwsgi", "bjoern", "fastpysgi", "waitress")
# Those that have an access log.
LOGGING_SERVERS = ("daemun", "granian", "gunicorn", "uwsgi")
# Those that can wait for several things at a time in one process.
THREADED_SERVERS = ("daemun", "granian", "gunicorn", "uwsgi", "waitress")
STATIC_SERVERS = ("daemun", "nginx", "lighttpd", "h2o", "apache", "caddy", "whitenoise")
PROXIES = ("daemun", "nginx", "haproxy", "h2o", "caddy", "lighttpd")
SECURE_SERVERS = ("daemun", "nginx", "h2o", "lighttpd", "apache", "caddy")
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
    # Whether over TLS, where HTTP/2 is agreed upon.
    secure: bool = False
    # Whether another server is asked.
    hop: bool = False
    # Who asks: "wrk"; "h2load" over HTTP/2; "handshakes", which only shakes hands.
    client: str = "wrk"
    # How many slow clients are there beside; a server that answers nobody then has that as its figure.
    crowd: int = 0
    # Threads of each worker, where more are needed than was asked for.
    threads: int = 1
    # Whether access logs are written, each to a file.
    logs: bool = False
    # The right status; the body of a refusal is its server's own.
    status: int = 200

    def check(self, port: int) -> None:
        """Ask twice, where it can be on one connection; complain unless both answers are right."""
        connection = self._connection(port)
        try:
            for _ in range(2):
                self._ask(connection)
        except (OSError, http.client.HTTPException) as error:
            raise WrongAnswerError(f"{self.name}: {type(error).__name__}: {error}") from error
        finally:
            connection.close()

    def _connection(self, port: int) -> http.client.HTTPConnection:
        if not self.secure:
            return http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        return http.client.HTTPSConnection("127.0.0.1", port, timeout=DEADLINE, context=unverified())

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        request = self.request
        connection.request(request.method, request.path, body=request.body or None, headers=request.headers)
        response = connection.getresponse()
        body = response.read()
        if response.status != self.status:
            raise WrongAnswerError(f"{self.name}: status {response.status}, not {self.status}: {body[:200]!r}")
        if self.status != 200:
            return
        right = self.contains in body if self.contains else body == self.body
        if not right:
            raise WrongAnswerError(f"{self.name}: a wrong body of {len(body)} bytes: {body[:200]!r}")


def unverified() -> ssl.SSLContext:
    """Trust the certificate of this run, which nobody has signed."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


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
        _wsgi(
            "hello",
            "13 bytes from WSGI, two request headers",
            "plain:hello",
            b"Hello, World!",
            Request(headers={"User-Agent": "wrk"}),
        ),
        _wsgi(
            "hello11",
            "13 bytes from WSGI, a browser's eleven request headers",
            "plain:hello",
            b"Hello, World!",
            Request(headers=BROWSER),
        ),
        Scenario(
            "hello-log",
            "the same with access logs, each to a file; not of servers that have none",
            Request(headers=BROWSER),
            LOGGING_SERVERS,
            application="plain:hello",
            body=b"Hello, World!",
            logs=True,
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
        # What a server adds stands out of it: the view alone takes a quarter of the page's time, and varies by less.
        Scenario(
            "django-short",
            "13 bytes from a Django view, a new project's middleware, no template",
            Request(path="/short"),
            WSGI_SERVERS,
            application="pages.wsgi:application",
            body=b"Hello, World!",
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
        Scenario(
            "wait20",
            "13 bytes from WSGI after 20 ms of waiting, 16 threads in each worker",
            Request(),
            THREADED_SERVERS,
            application="plain:waiting",
            body=b"Hello, World!",
            threads=16,
        ),
        Scenario(
            "slow",
            "13 bytes from WSGI beside 1,000 clients that send a byte a second, half of them heads and half bodies",
            Request(),
            WSGI_SERVERS,
            application="plain:either",
            body=b"Hello, World!",
            crowd=1000,
        ),
        _wsgi("stream1m", "1 MiB from WSGI in 16 chunks, no length", "plain:stream", b"0123456789abcdef" * 65536),
        _static("static1k", "a file of 1 KiB", "1k.txt"),
        Scenario(
            "static1k-log",
            "the same with access logs, each to a file",
            Request(path="/1k.txt"),
            ("daemun", "nginx", "lighttpd", "h2o", "apache", "caddy"),
            body=file_of(FILES["1k.txt"]),
            peer="nginx",
            logs=True,
        ),
        _static("static100k", "a file of 100 KiB", "100k.txt"),
        _static("static10m", "a file of 10 MB", "10m.txt"),
        Scenario(
            "precompressed",
            "a file of 20 KiB whose gzip sibling is sent",
            Request(path=f"/{PACKED}", headers={"Accept-Encoding": "gzip, deflate, br"}),
            ("daemun", "nginx", "h2o", "caddy"),
            body=packed(),
            peer="nginx",
        ),
        Scenario(
            "http2",
            "a file of 1 KiB over HTTP/2 and TLS, 16 streams on each of 16 connections",
            Request(path="/1k.txt"),
            SECURE_SERVERS,
            body=file_of(FILES["1k.txt"]),
            peer="nginx",
            connections=16,
            secure=True,
            client="h2load",
        ),
        Scenario(
            "handshake",
            "a whole TLS handshake, no request",
            Request(path="/1k.txt"),
            SECURE_SERVERS,
            body=file_of(FILES["1k.txt"]),
            peer="nginx",
            connections=1,
            secure=True,
            client="handshakes",
        ),
        Scenario(
            "connect",
            "a file of 1 KiB, each on a connection of its own",
            Request(path="/1k.txt", headers={"Connection": "close"}),
            STATIC_SERVERS,
            body=file_of(FILES["1k.txt"]),
            peer="nginx",
        ),
        Scenario(
            "refused",
            "a request with two hosts, which must be refused, each on a connection of its own",
            Request(path="/1k.txt", headers={"Host": "one", "host": "two"}),
            ("daemun", "nginx", "lighttpd"),
            peer="nginx",
            status=400,
        ),
        Scenario(
            "hop",
            "13 bytes through one proxy from a server that has them at once, connections kept where it can",
            Request(headers={"User-Agent": "wrk"}),
            PROXIES,
            body=b"Hello, World!",
            peer="nginx",
            hop=True,
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
# Whose idle connections are looked at: with a worker's answer before them, or a file's. Gunicorn's synchronous worker
# keeps none, Apache no more than it has threads for.
HELD_SERVERS = ("daemun", "granian", "uwsgi", "bjoern", "fastpysgi", "waitress", "nginx", "h2o", "lighttpd", "caddy")
SECURE_HELD_SERVERS = tuple(name for name in SECURE_SERVERS if name != "apache")
# What can be asked for with one word: parts of a whole run.
GROUPS = {
    "wsgi": [name for name, one in SCENARIOS.items() if one.application],
    "web": [name for name, one in SCENARIOS.items() if not one.application],
}
# Not rates: these have their own measure.
RESTS = {
    "idle": "memory at rest with the hello application, after ten requests: PSS in KiB",
    "start": "from exec to the first right answer, less the application's own import: milliseconds",
    "held": "10,000 idle connections, each after one request: what they add to the memory",
    "held-tls": "the same over TLS",
    "collect": "static files of Django, Wagtail and REST framework collected, into an empty folder and once more",
}
GROUPS["rest"] = [*RESTS]
# Whom a measure compares with.
REST_PEERS = {"idle": "granian", "start": "granian", "held": "nginx", "held-tls": "nginx", "collect": "collectstatic"}


def usual_peer(name: str) -> str:
    """Whom a scenario compares with where nobody else was asked for."""
    if name in REST_PEERS:
        return REST_PEERS[name]
    scenario = SCENARIOS[name]
    return scenario.peer or ("apache" if scenario.script else "granian")


def says(name: str) -> str:
    """What a scenario asks."""
    return RESTS.get(name) or SCENARIOS[name].says
