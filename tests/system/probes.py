"""A WSGI application of probes: each path is one way of using PEP 3333, and what happened can be asked for afterwards.

One process with several threads serves it, so that `/events` sees what the others have noted.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Environ = dict[str, Any]
Start = Callable[..., Callable[[bytes], None]]
Probe = Callable[[Environ, Start], Iterable[bytes]]

PLAIN = [("Content-Type", "text/plain")]
EVENTS: list[str] = []
PROBES: dict[str, Probe] = {}


def application(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Find the probe by the first part of the path."""
    name = environ["PATH_INFO"].split("/")[1].replace("-", "_")
    return PROBES[name](environ, start_response)


def hold() -> None:
    """Wait until the test lets go; `gate.Gate` is the other end."""
    with socket.create_connection(("127.0.0.1", int(os.environ["GATE_PORT"])), timeout=60) as gate:
        gate.sendall(b"in")
        gate.recv(2)


def probe(function: Probe) -> Probe:
    """Give a probe the path of its name."""
    PROBES[function.__name__] = function
    return function


class Noted:
    """An iterable that notes its end."""

    def __init__(self, name: str, pieces: Iterable[bytes]) -> None:
        self.name = name
        self.pieces = iter(pieces)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self.pieces)

    def close(self) -> None:
        EVENTS.append(f"close {self.name}")


@probe
def events(environ: Environ, start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    return [json.dumps(EVENTS).encode()]


@probe
def environment(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Every value: strings as they are, the rest by its kind."""
    start_response("200 OK", [("Content-Type", "application/json")])
    shown = {
        name: value if isinstance(value, str | bool | tuple) else f"<{type(value).__name__}>"
        for name, value in environ.items()
    }
    extra = {
        "kind": type(environ).__name__,
        "native": all(type(name) is str for name in environ),
        "leaked": sorted(name for name in os.environ if name in environ and not name.startswith("SERVER_")),
    }
    environ["changed"] = "by the application"
    return [json.dumps({"environ": shown, **extra}).encode()]


# === Answers ===


@probe
def whole(environ: Environ, start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    return [b"whole"]


@probe
def lazy(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """A generator: nothing happens before its first next()."""
    start_response("404 Not There At All", [("X-Lazy", "yes")])
    yield b"lazy"


@probe
def written(environ: Environ, start_response: Start) -> Iterable[bytes]:
    write = start_response("200 OK", PLAIN)
    write(b"one ")
    write(b"")
    write(b"two ")
    return [b"three"]


@probe
def written_late(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Use write() from within the iterable, which the PEP allows an application to do."""
    write = start_response("200 OK", PLAIN)
    write(b"a")
    hold()
    write(b"b")
    return []


@probe
def flushed(environ: Environ, start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    yield b"first "
    hold()
    yield b"second"


@probe
def replaced(environ: Environ, start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", [("X-First", "1")])
    try:
        raise ValueError("replaced on purpose")  # noqa: TRY301
    except ValueError:
        start_response("503 Replaced", [("X-Second", "2")], sys.exc_info())
    return [b"replaced"]


@probe
def replaced_after_nothing(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """An empty string sends no head, so that it can still be replaced."""
    start_response("200 OK", [("X-First", "1")])
    yield b""
    try:
        raise ValueError("replaced on purpose")  # noqa: TRY301
    except ValueError:
        start_response("503 Replaced", [("X-Second", "2")], sys.exc_info())
    yield b"replaced"


@probe
def too_late(environ: Environ, start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    yield b"begun"
    hold()
    try:
        raise LookupError("too late to replace")  # noqa: TRY301
    except LookupError as error:
        try:
            start_response("500 Oops", PLAIN, sys.exc_info())
        except LookupError as again:
            EVENTS.append(f"reraised {again is error}")
            raise


@probe
def twice(environ: Environ, start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    start_response("201 Created", PLAIN)
    return [b"twice"]


@probe
def never(environ: Environ, start_response: Start) -> Iterable[bytes]:
    return [b"without start_response"]


@probe
def never_and_empty(environ: Environ, start_response: Start) -> Iterable[bytes]:
    return []


@probe
def nothing(environ: Environ, start_response: Start) -> Any:
    start_response("200 OK", PLAIN)


@probe
def text(environ: Environ, start_response: Start) -> Any:
    start_response("200 OK", PLAIN)
    return ["not bytes"]


@probe
def text_streamed(environ: Environ, start_response: Start) -> Any:
    start_response("200 OK", PLAIN)
    return iter(["not bytes"])


@probe
def text_written(environ: Environ, start_response: Start) -> Any:
    start_response("200 OK", PLAIN)("not bytes")  # type: ignore[arg-type]
    return []


class Sequence:
    """Iterable by `__getitem__` alone."""

    def __getitem__(self, place: int) -> bytes:
        return [b"a", b"", b"b", b"c"][place]


class Sized(list[bytes]):
    """A list that wants to be closed."""

    def close(self) -> None:
        EVENTS.append("close sized")


ITERABLES: dict[str, Callable[[], Any]] = {
    "list": lambda: [b"a", b"", b"b", b"c"],
    "tuple": lambda: (b"a", b"", b"b", b"c"),
    "generator": lambda: (piece for piece in (b"", b"a", b"", b"b", b"c", b"")),
    "iterator": lambda: iter([b"a", b"b", b"c"]),
    "sequence": Sequence,
    "sized": lambda: Sized([b"abc"]),
    "noted": lambda: Noted("noted", [b"a", b"bc"]),
    "map": lambda: map(bytes, ([97], [98], [99])),
    "bytesio": lambda: io.BytesIO(b"abc"),
    "bytes": lambda: Noted("bytes", [b"abc"]),
}


@probe
def iterable(environ: Environ, start_response: Start) -> Any:
    start_response("200 OK", PLAIN)
    return ITERABLES[environ["QUERY_STRING"]]()


@probe
def empty(environ: Environ, start_response: Start) -> Any:
    start_response("200 OK", PLAIN)
    return {"list": [], "strings": [b"", b""], "generator": iter([]), "noted": Noted("empty", [b""])}[
        environ["QUERY_STRING"]
    ]


@probe
def answer(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Answer as the JSON in the body says."""
    said = json.loads(environ["wsgi.input"].read())
    start_response(said["status"], [tuple(pair) for pair in said.get("headers", [])])
    pieces = [piece.encode("latin-1") for piece in said.get("body", [])]
    if said.get("streamed"):
        return Noted("answer", pieces)
    return pieces


@probe
def odd(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Arguments to start_response that are none."""
    odd: dict[str, tuple[Any, Any]] = {
        "status-bytes": (b"200 OK", PLAIN),
        "status-number": (200, PLAIN),
        "status-short": ("200", PLAIN),
        "status-interim": ("100 Continue", PLAIN),
        "status-control": ("200 OK\r\nX-Evil: 1", PLAIN),
        "name-bytes": ("200 OK", [(b"X-A", "1")]),
        "name-colon": ("200 OK", [("X:A", "1")]),
        "name-space": ("200 OK", [("X A", "1")]),
        "name-empty": ("200 OK", [("", "1")]),
        "value-bytes": ("200 OK", [("X-A", b"1")]),
        "value-number": ("200 OK", [("X-A", 1)]),
        "value-crlf": ("200 OK", [("X-A", "1\r\nX-Evil: 1")]),
        "value-lf": ("200 OK", [("X-A", "1\nX-Evil: 1")]),
        "value-nul": ("200 OK", [("X-A", "1\0")]),
        "value-wide": ("200 OK", [("X-A", "\u20ac")]),
        "hop-connection": ("200 OK", [("Connection", "close")]),
        "hop-transfer": ("200 OK", [("Transfer-Encoding", "chunked")]),
        "hop-upgrade": ("200 OK", [("Upgrade", "h2c")]),
        "hop-keep-alive": ("200 OK", [("Keep-Alive", "timeout=5")]),
        "length-minus": ("200 OK", [("Content-Length", "-1")]),
        "length-text": ("200 OK", [("Content-Length", "five")]),
        "length-two": ("200 OK", [("Content-Length", "4"), ("Content-Length", "5")]),
        "pairs": ("200 OK", [("X-A",)]),
    }
    status, headers = odd[environ["QUERY_STRING"]]
    start_response(status, headers)
    return [b"body"]


@probe
def raises(environ: Environ, start_response: Start) -> Iterable[bytes]:
    raise RuntimeError("before anything")


@probe
def raises_started(environ: Environ, start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    raise RuntimeError("after start_response")


def failing() -> Iterator[bytes]:
    """One piece, then a failure."""
    yield b"begun"
    hold()
    raise RuntimeError("in the middle")


@probe
def raises_midway(environ: Environ, start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", PLAIN + ([("Content-Length", "10")] if environ["QUERY_STRING"] else []))
    return Noted("midway", failing())


@probe
def exits(environ: Environ, start_response: Start) -> Iterable[bytes]:
    sys.exit(3)


# === The body of a request ===


@probe
def body(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Read in the ways that the query names, one after the other."""
    source = environ["wsgi.input"]
    ways: dict[str, Callable[[], Any]] = {
        "read": source.read,
        "read-1": lambda: source.read(-1),
        "read0": lambda: source.read(0),
        "read3": lambda: source.read(3),
        "readline": source.readline,
        "readline2": lambda: source.readline(2),
        "readline3": lambda: source.readline(3),
        "readlines": source.readlines,
        "readlines1": lambda: source.readlines(1),
        "iter": lambda: list(source),
        "next": lambda: next(iter(source)),
    }
    found = []
    for way in environ["QUERY_STRING"].split(","):
        value = ways[way]()
        found.append([line.decode() for line in value] if isinstance(value, list) else value.decode())
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(found).encode()]


@probe
def digest(environ: Environ, start_response: Start) -> Iterable[bytes]:
    found, size = hashlib.sha256(), 0
    while piece := environ["wsgi.input"].read(65536):
        found.update(piece)
        size += len(piece)
    start_response("200 OK", PLAIN)
    said = environ.get("CONTENT_LENGTH", "none")
    return [f"{size} {said} {found.hexdigest()} {environ.get('HTTP_TRANSFER_ENCODING')}".encode()]


@probe
def swallow(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Read to what looks like the end, and note it."""
    EVENTS.append(f"swallowed {len(environ['wsgi.input'].read())}")
    start_response("200 OK", PLAIN)
    return [b"swallowed"]


@probe
def forget(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Begin a new list of events."""
    EVENTS.clear()
    start_response("200 OK", PLAIN)
    return [b"forgotten"]


@probe
def unread(environ: Environ, start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    return [b"unread"]


@probe
def hinted(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Hints ahead of the answer, where the server takes them."""
    if "wsgi.early_hints" in environ:
        environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload; as=style")])
    start_response("200 OK", PLAIN)
    return [b"hinted"]


@probe
def errors(environ: Environ, start_response: Start) -> Iterable[bytes]:
    stream = environ["wsgi.errors"]
    stream.write("errors: wrote 대문\n")
    stream.writelines(["errors: line one\n", "errors: line two\n"])
    stream.flush()
    print("errors: printed")
    start_response("200 OK", PLAIN)
    return [b"said"]


# === Files and streams ===

CONTENT = bytes(range(256)) * 512


def real_file() -> Any:
    """Open a file on a disk, below no name."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed by whoever sends it
    file.write(CONTENT)
    file.seek(0)
    return file


class Reader:
    """The least that file_wrapper must take: read() and perhaps close()."""

    def __init__(self) -> None:
        self._file = io.BytesIO(CONTENT)

    def read(self, size: int) -> bytes:
        return self._file.read(size)

    def close(self) -> None:
        EVENTS.append("close reader")


@probe
def wrapper(environ: Environ, start_response: Start) -> Any:
    kind, _, length = environ["QUERY_STRING"].partition(",")
    makers: dict[str, Callable[[], Any]] = {
        "file": real_file,
        "offset": real_file,
        "bytesio": lambda: io.BytesIO(CONTENT),
    }
    file = makers.get(kind, Reader)()
    if kind == "offset":
        file.seek(1000)
    start_response("200 OK", PLAIN + ([("Content-Length", length)] if length else []))
    wrapped = environ["wsgi.file_wrapper"](file, 8192)
    return (piece for piece in wrapped) if kind == "middleware" else wrapped


def endless() -> Iterator[bytes]:
    """More than any client takes."""
    for _ in range(1_000_000):
        yield b"x" * 65536


@probe
def stream(environ: Environ, start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    return Noted(environ["QUERY_STRING"], endless())


@probe
def megabytes(environ: Environ, start_response: Start) -> Iterable[bytes]:
    count = int(environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Length", str(count << 20))])
    return Noted("megabytes", (b"m" * (1 << 20) for _ in range(count)))


@probe
def held(environ: Environ, start_response: Start) -> Iterable[bytes]:
    hold()
    start_response("200 OK", PLAIN)
    return [b"held"]
