"""`request_buffering = false`: an application reads a body while its client still sends it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from server import Server
from wire import wire

APP = """\
import hashlib

def application(environ, start_response):
    source, path = environ["wsgi.input"], environ["PATH_INFO"]
    if path == "/echo":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter(lambda: source.readline(), b"")
    if path == "/ignore":
        start_response("200 OK", [("Content-Length", "7")])
        return [b"ignored"]
    if path == "/first":
        first = source.read(5)
        start_response("200 OK", [("Content-Length", "5")])
        return [first]
    seen, digest = 0, hashlib.sha256()
    print("the application has begun")
    try:
        while True:
            piece = source.read(100_000)
            if not piece:
                break
            seen += len(piece)
            digest.update(piece)
    except Exception as error:
        print("read() raised", type(error).__mro__[1].__name__, "after", seen)
        raise
    body = ("%d %s %s" % (seen, digest.hexdigest(), environ.get("CONTENT_LENGTH"))).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Bodies are streamed to it."""
    (tmp_path / "up.py").write_text(APP)
    (tmp_path / "daemun.toml").write_text(
        '[app.up]\nwsgi = "up:application"\nprocesses = 1\nthreads = 2\n'
        '[[route]]\npath = "/*"\napp = "up"\nrequest_buffering = false\n'
    )
    with Server(cwd=tmp_path) as server:
        yield server


def test_a_line_is_answered_before_the_next_is_sent(server: Server) -> None:
    with wire(server.port) as connection:
        connection.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for line in [b"one\n", b"two\n"]:
            connection.send(b"%x\r\n%s\r\n" % (len(line), line))
            while line not in connection.rest:
                assert connection._more()
        connection.send(b"0\r\n\r\n")
        reply = connection.reply()
        assert reply is not None
        assert (reply.body, reply.complete) == (b"one\ntwo\n", True)


@pytest.mark.parametrize("size", [1, 65_536, 300_001, 5_000_000])
def test_every_byte_of_a_body_of_any_size_is_read(server: Server, size: int) -> None:
    import hashlib

    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    with wire(server.port) as connection:
        # In two parts, so that it does not come with its head.
        connection.send(b"POST /sum HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        connection.send(body)
        reply = connection.reply()
        assert reply is not None
        assert reply.body.decode() == f"{size} {hashlib.sha256(body).hexdigest()} {size}"
        # The connection goes on where the body ended.
        connection.send(b"GET /ignore HTTP/1.1\r\nHost: a\r\n\r\n")
        reply = connection.reply()
        assert reply is not None
        assert reply.body == b"ignored"


def test_reading_a_body_that_its_client_cuts_raises(server: Server) -> None:
    with wire(server.port) as connection:
        connection.send(b"POST /sum HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        connection.send(b"x" * 500)
        connection.half_close()
        server.wait_for(r"read\(\) raised ConnectionError after \d+")
    assert server.get("/ignore").text == "ignored"


def test_reading_a_body_whose_chunks_are_broken_raises(server: Server) -> None:
    with wire(server.port) as connection:
        connection.send(b"POST /sum HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        # Framing that comes with the head would be refused before anybody is asked.
        server.wait_for("the application has begun")
        connection.send(b"3\r\nabcX")
        reply = connection.reply()
        assert reply is not None
        assert reply.status == 400
        server.wait_for(r"read\(\) raised ConnectionError after")


def test_a_body_that_nobody_reads_does_not_hold_up_the_answer(server: Server) -> None:
    with wire(server.port) as connection:
        connection.send(b"POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
        connection.send(b"x" * 1000)
        reply = connection.reply()
        assert reply is not None
        assert reply.body == b"ignored"
    with wire(server.port) as connection:
        connection.send(b"POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n")
        connection.send(b"first" + b"x" * 100)
        reply = connection.reply()
        assert reply is not None
        assert reply.body == b"first"
