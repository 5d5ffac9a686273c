"""Large pieces of answers, which a worker lays on its shelf: whoever asks, by whatever way, gets them byte for byte.

Each lane's thread lays its pieces in blocks of memory and finds them free again once the client has them.
"""

from __future__ import annotations

import json
import random
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from authority import Authority
from gate import Gate
from server import DEADLINE, Server, eventually
from wire import Reply, Wire, wire

APPLICATION = """\
import json, os, random
from gate import hold

closed = []

def content(size):
    return random.Random(size).randbytes(size)

class Pieces:
    def __init__(self, name, size, piece, then=None):
        self.name, self.then = name, then
        body = content(size)
        self.pieces = iter([body[at : at + piece] for at in range(0, size, piece)])

    def __iter__(self):
        return self

    def __next__(self):
        piece = next(self.pieces, None)
        if piece is not None:
            return piece
        if self.then:
            then, self.then = self.then, None
            return then()
        raise StopIteration

    def close(self):
        closed.append(self.name)

def die():
    hold()
    os._exit(1)

def wait():
    hold()
    return b"end"

def endless():
    while True:
        yield b"x" * 65536

def lying(lane):
    # How many blocks of this lane's shelf are taken.
    first = lane.page_start + 128
    return 128 - lane.page[first : first + 128].count(0)

def application(environ, start_response):
    kind, size, piece = (environ["PATH_INFO"].strip("/").split("/")[-3:] + ["0", "0"])[:3]
    size, piece = int(size), int(piece)
    headers = [("Content-Type", "text/plain")]
    if kind == "length":
        headers.append(("Content-Length", str(size)))
    elif kind == "more":
        headers.append(("Content-Length", str(size - 100_000)))
    elif kind == "less":
        headers.append(("Content-Length", str(size + 100_000)))
    if kind == "none":
        start_response("204 No Content", [])
        return Pieces(kind, size, piece)
    write = start_response("200 OK", headers)
    if kind == "whole":
        return [content(size)]
    if kind == "write":
        body = content(size)
        for at in range(0, size, piece):
            write(body[at : at + piece])
        return []
    if kind == "state":
        lane = environ["wsgi.early_hints"].__self__
        return [json.dumps({"lying": lying(lane), "closed": closed}).encode()]
    if kind == "endless":
        return Chained(endless())
    return Pieces(kind, size, piece, {"dies": die, "waits": wait}.get(kind))

class Chained:
    def __init__(self, pieces):
        self.pieces = pieces

    def __iter__(self):
        return self.pieces

    def close(self):
        closed.append("endless")
"""

SETTINGS = """\
[server]
listen = ["http://127.0.0.1:0", "https://127.0.0.1:0", "unix:gate.sock"]
access_log = { path = "access.log" }
[[tls]]
cert = "plain.pem"
key = "plain.key"
[app.a]
wsgi = "app:application"
processes = 1
threads = %d
[[route]]
path = "/packed/*"
app = "a"
compress = { least = 0 }
[[route]]
path = "/kept/*"
app = "a"
cache = { ttl = "60s" }
[[route]]
path = "/*"
app = "a"
"""

KIB = 1 << 10
SIZES = [16 * KIB - 1, 16 * KIB, 64 * KIB, 64 * KIB + 1, 300_000, 3 << 20]
# What curl is told, by the way that it asks.
WAYS: dict[str, list[str]] = {
    "HTTP/1.1": ["--http1.1", "http://localhost:{plain}"],
    "HTTP/1.0": ["--http1.0", "http://localhost:{plain}"],
    "a Unix socket": ["--unix-socket", "{folder}/gate.sock", "http://localhost"],
    "TLS": ["--http1.1", "--cacert", "{folder}/authority.pem", "https://localhost:{secure}"],
    "HTTP/2": ["--http2", "--cacert", "{folder}/authority.pem", "https://localhost:{secure}"],
    "HTTP/2 without TLS": ["--http2-prior-knowledge", "http://localhost:{plain}"],
    "compressed": ["--http1.1", "--compressed", "http://localhost:{plain}/packed"],
    "kept": ["--http1.1", "http://localhost:{plain}/kept"],
}


def content(size: int) -> bytes:
    """Bytes that are the same in each run and nowhere repeat."""
    return random.Random(size).randbytes(size)


class Site:
    """A server with all kinds of listeners in front of one application, and a gate that this stops at."""

    def __init__(self, folder: Path, threads: int) -> None:
        (folder / "app.py").write_text(APPLICATION)
        (folder / "gate.py").write_text(Gate.MODULE)
        (folder / "daemun.toml").write_text(SETTINGS % threads)
        Authority(folder).sign("plain", "localhost")
        self.folder = folder
        self.gate = Gate()
        self.server = Server("--config", "daemun.toml", cwd=folder, listen="", env=self.gate.env)

    def __enter__(self) -> Site:
        self.server.__enter__()
        self.plain = int(self.server.wait_for(r"listening on http://[^ ]+:(\d+)")[1])
        self.secure = int(self.server.wait_for(r"listening on https://[^ ]+:(\d+)")[1])
        self.server.port = self.plain
        return self

    def __exit__(self, *error: object) -> None:
        self.gate.close()
        self.server.__exit__(*error)  # type: ignore[arg-type]

    def fetch(self, way: str, path: str) -> bytes:
        """Ask as a user would, by curl."""
        words = [word.format(plain=self.plain, secure=self.secure, folder=self.folder) for word in WAYS[way]]
        words[-1] += path
        return subprocess.run(
            ["curl", "--silent", "--show-error", "--fail", "--resolve", f"localhost:{self.secure}:127.0.0.1", *words],
            capture_output=True,
            check=True,
            timeout=DEADLINE,
        ).stdout

    def state(self) -> dict[str, object]:
        """Say what the lane's thread sees of its shelf, and whose `close` was called."""
        found: dict[str, object] = json.loads(self.server.get("/state").body)
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Many lanes."""
    with Site(tmp_path_factory.mktemp("laid"), 4) as site:
        yield site


@pytest.fixture
def single(tmp_path: Path) -> Iterator[Site]:
    """One lane, so that each request meets what the last one left there."""
    with Site(tmp_path, 1) as site:
        yield site


def ask(site: Site, path: str, method: str = "GET") -> Reply:
    """Send one request over HTTP/1.1."""
    with wire(site.plain) as connection:
        connection.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        reply = connection.reply(method)
        assert reply is not None
        return reply


@contextmanager
def slow(site: Site, path: str) -> Iterator[Callable[[], bytes]]:
    """Ask and read nothing, over a socket whose buffers do not grow; what is given reads it all."""
    with closing(socket.socket(socket.AF_UNIX)) as client:
        client.settimeout(DEADLINE)
        client.connect(str(site.folder / "gate.sock"))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        # The answer has begun: whoever asks the same thread from now on comes behind it.
        assert client.recv(1, socket.MSG_PEEK) == b"H"

        def read() -> bytes:
            data = b""
            while piece := client.recv(1 << 20):
                data += piece
            return data.split(b"\r\n\r\n", 1)[1]

        yield read


@pytest.mark.parametrize("way", WAYS)
def test_every_client_gets_every_size_byte_for_byte(site: Site, way: str) -> None:
    for size in SIZES:
        for kind in ("whole", "stream", "length", "write"):
            for piece in (16 * KIB, 100_000) if kind != "whole" else (0,):
                assert site.fetch(way, f"/{kind}/{size}/{piece}") == content(size), (kind, size, piece)


def test_answers_of_several_threads_are_not_mixed_up(site: Site) -> None:
    sizes = [40_000 + 10_007 * number for number in range(60)]
    with ThreadPoolExecutor(8) as clients:
        replies = clients.map(lambda size: ask(site, f"/stream/{size}/30000"), sizes)
    for size, reply in zip(sizes, replies, strict=True):
        assert reply.complete
        assert reply.body == content(size)


def test_an_answer_is_cut_to_the_length_that_was_declared_and_never_looks_whole_when_it_is_shorter(site: Site) -> None:
    reply = ask(site, "/more/400000/65536")
    assert (reply.complete, reply.body) == (True, content(400_000)[:300_000])
    reply = ask(site, "/less/400000/65536")
    assert (reply.complete, reply.body) == (False, content(400_000))
    assert reply.get("Content-Length") == "500000"


def test_an_answer_without_a_body_has_none(site: Site) -> None:
    with wire(site.plain) as connection:
        for method, path, length in (
            ("HEAD", "/length/400000/65536", "400000"),
            ("HEAD", "/stream/400000/65536", None),
            ("GET", "/none/400000/65536", None),
            ("GET", "/length/400000/65536", "400000"),
        ):
            connection.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            reply = connection.reply(method)
            assert reply is not None
            assert reply.get("Content-Length") == length
            assert len(reply.body) == (400_000 if path.startswith("/length") and method == "GET" else 0)


def test_the_access_log_tells_how_many_bytes_of_a_body_were_sent(site: Site) -> None:
    assert ask(site, "/stream/345678/65536").complete
    log = site.folder / "access.log"
    eventually(lambda: '"GET /stream/345678/65536 HTTP/1.1" 200 345678 ' in log.read_text(), "its line")


def test_a_piece_is_there_before_the_next_is_made(single: Site) -> None:
    with wire(single.plain) as connection:
        connection.send(b"GET /waits/40000/20000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.head() is not None
        single.gate.entered()
        chunks = [connection.chunk(), connection.chunk()]
        assert b"".join(chunk or b"" for chunk in chunks) == content(40_000)
        single.gate.open()
        assert [connection.chunk(), connection.chunk()] == [b"end", b""]


def test_who_reads_slowly_holds_up_no_later_answer_of_the_same_thread(single: Site) -> None:
    # More than fits into the socket, and little enough for the thread to be done with it.
    with slow(single, "/whole/400000") as read:
        # The thread is past it, and most of it lies there still.
        lying = single.state()["lying"]
        assert isinstance(lying, int)
        assert lying > 16
        for size in (100_000, 250_000, 1_000_000):
            reply = ask(single, f"/length/{size}/65536")
            assert (reply.complete, reply.body) == (True, content(size))
        assert read() == content(400_000)
    eventually(lambda: single.state()["lying"] == 0, "everything was given back")


def test_several_who_read_slowly_each_get_their_own(single: Site) -> None:
    sizes = [400_000, 410_000, 420_000]
    paths = [f"/whole/{size}" for size in sizes]
    with slow(single, paths[0]) as one, slow(single, paths[1]) as two, slow(single, paths[2]) as three:
        assert ask(single, "/whole/1000000").body == content(1_000_000)
        assert [three(), one(), two()] == [content(sizes[2]), content(sizes[0]), content(sizes[1])]
    eventually(lambda: single.state()["lying"] == 0, "everything was given back")


def test_who_goes_away_midway_leaves_nothing_lying(single: Site) -> None:
    with wire(single.plain) as connection:
        connection.send(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.head() is not None
        assert connection.chunk() == b"x" * 65536
    eventually(lambda: single.state() == {"lying": 0, "closed": ["endless"]}, "it was told, and all is given back")
    with slow(single, "/whole/400000"):
        assert single.state()["lying"] != 0
    eventually(lambda: single.state()["lying"] == 0, "what a client never read is given back")
    assert ask(single, "/stream/300000/65536").body == content(300_000)


def test_what_a_worker_had_said_before_it_was_killed_is_delivered_and_never_looks_whole(single: Site) -> None:
    with wire(single.plain) as connection:
        connection.send(b"GET /dies/200000/65536 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        single.gate.entered()
        single.gate.open()
        reply = connection.reply()
    assert reply is not None
    assert (reply.complete, reply.body) == (False, content(200_000))
    eventually(lambda: single.server.get("/whole/70000").body == content(70_000), "another worker answers")


def test_a_client_that_pipelines_gets_its_answers_in_order(single: Site) -> None:
    with closing(Wire(single.plain)) as connection:
        sizes = [100_000, 20, 300_000, 65_537]
        connection.send(b"".join(b"GET /length/%d/65536 HTTP/1.1\r\nHost: localhost\r\n\r\n" % size for size in sizes))
        for size in sizes:
            reply = connection.reply()
            assert reply is not None
            assert reply.body == content(size)
