"""Fields behind a body, through the proxy: each way, over each pair of versions."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from frames import DATA, END_HEADERS, END_STREAM, at, block, frame, frames, headers
from frames import HEADERS as HEADERS_FRAME
from peers import program
from server import DEADLINE, Server
from test_proxy import configure
from upstreams import Peer, Upstream, answer
from wire import Reply, wire

# What may come behind a body, and some of what may not (RFC 9110, section 6.5.1).
BEHIND = [("grpc-status", "0"), ("x-digest", "a:b")]
NEVER = [("content-length", "5"), ("host", "evil"), ("set-cookie", "a=b"), ("x-forwarded-for", "6.6.6.6"), ("x_u", "1")]
SECTION = "".join(f"{name}: {value}\r\n" for name, value in BEHIND + NEVER).encode()


CHUNKED = ("Transfer-Encoding", "chunked")
CHUNKS = re.compile(rb"(\A|\r\n)0\r\n([^\r\n]+\r\n)*\r\n\Z")
# Requests as they came: fields, and everything behind the head.
BODIES: list[tuple[list[tuple[str, str]], bytes]] = []


def trailing(_: Upstream, peer: Peer) -> None:
    """Answer with chunks and fields behind them, and remember those of the request with its body."""
    while (head := peer.head()) is not None:
        length = next((int(value) for name, value in head[1] if name == "Content-Length"), 0)
        while not CHUNKS.search(peer.rest) if CHUNKED in head[1] else len(peer.rest) < length:
            if not peer.more():
                return
        body, peer.rest = peer.rest, b""
        BODIES.append((head[1], body))
        start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: grpc-status\r\n\r\n"
        peer.send(start + b"5\r\nhello\r\n5\r\nworld\r\n0\r\n" + SECTION + b"\r\n")


@contextmanager
def gates(tmp_path: Path, hops: int, more: str = "", route: str = "") -> Iterator[Server]:
    """Put gates before a server: each speaks HTTP/2 to the next one, and the last HTTP/1.1 to the server."""
    with ExitStack() as stack:
        upstream = stack.enter_context(Upstream(behaviour=trailing))
        BODIES.clear()
        url = upstream.url
        for number in range(hops):
            folder = tmp_path / str(number)
            folder.mkdir()
            configure(folder, url, more=more, route=route)
            server = stack.enter_context(Server(cwd=folder))
            url = f"h2c://127.0.0.1:{server.port}"
        yield server


# Without a gate between, through one hop of HTTP/2, and through two: both of a gate's sides speak HTTP/2 then.
HOPS = pytest.mark.parametrize("hops", [1, 2, 3])


@HOPS
@pytest.mark.parametrize("more", ["", 'response_buffering = { memory = "1B", disk = "1MB" }', 'hedge = "10s"'])
def test_fields_behind_an_answer_reach_the_client(tmp_path: Path, hops: int, more: str) -> None:
    with gates(tmp_path, hops, more) as server:
        with wire(server.port) as client:
            for _ in range(2):
                client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                reply = client.reply()
                assert reply is not None
                assert (reply.status, reply.body, reply.complete) == (200, b"helloworld", True)
                assert reply.trailers == BEHIND
        # curl writes those of HTTP/2 where it writes the head.
        told = tmp_path / "told"
        command: list[str | Path] = [
            program("curl"),
            "-sS",
            "--http2-prior-knowledge",
            "-D",
            told,
            f"http://127.0.0.1:{server.port}/",
        ]
        ran = subprocess.run(command, check=True, capture_output=True, timeout=DEADLINE)
        head, behind = told.read_text().replace("\r", "").split("\n\n", 1)
        assert (head.split("\n")[0].strip(), ran.stdout) == ("HTTP/2 200", b"helloworld")
        assert behind.split("\n") == [*(f"{name}: {value}" for name, value in BEHIND), ""]


def asked_over_http1(server: Server, head: str) -> Reply:
    """Send a body in chunks with fields behind it."""
    with wire(server.port) as client:
        start = f"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n{head}\r\n".encode()
        client.send(start + b"3\r\nabc\r\n0\r\n" + SECTION + b"\r\n")
        reply = client.reply()
        assert reply is not None
        return reply


@HOPS
@pytest.mark.parametrize("route", ["", "request_buffering = false"])
def test_fields_behind_a_request_reach_the_server(tmp_path: Path, hops: int, route: str) -> None:
    with gates(tmp_path, hops, route=route) as server:
        assert asked_over_http1(server, "Trailer: x-digest\r\nTE: trailers\r\nConnection: TE\r\n").status == 200
        with frames(server.port) as connection:
            fields = [pair for pair in BEHIND + NEVER if pair[0] not in {"content-length", "host"}]
            connection.send(headers(1, [*at("/", "POST"), ("te", "trailers")], END_HEADERS))
            connection.send(frame(DATA, 0, 1, b"abc"))
            connection.send(frame(HEADERS_FRAME, END_HEADERS | END_STREAM, 1, block(fields)))
            assert connection.result(1).body == b"helloworld"
        behind = "".join(f"{name}: {value}\r\n" for name, value in BEHIND).encode()
        for told, body in BODIES:
            assert body == b"3\r\nabc\r\n0\r\n" + behind + b"\r\n"
            assert ("TE", "trailers") in told
            assert ("Connection", "TE") in told
        assert len(BODIES) == 2


def test_a_body_without_bytes_may_have_fields_behind_it(tmp_path: Path) -> None:
    with gates(tmp_path, 2) as server:
        with wire(server.port) as client:
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx-a: b\r\n\r\n")
            reply = client.reply()
            assert reply is not None
            assert reply.status == 200
        assert [body for _, body in BODIES] == [b"0\r\nx-a: b\r\n\r\n"]


def test_a_route_that_changes_fields_is_not_got_round_by_those_behind_the_body(tmp_path: Path) -> None:
    with gates(tmp_path, 1, route='headers = { request = { remove = ["x-digest"] } }') as server:
        assert asked_over_http1(server, "").status == 200
        ((told, body),) = BODIES
        assert ("Content-Length", "3") in told
        assert body == b"abc"


def test_a_server_that_takes_only_lengths_gets_none(tmp_path: Path) -> None:
    """Whoever says a length cannot send more than that over HTTP/1.1, and the body is whole all the same."""
    with gates(tmp_path, 1, route="request_buffering = false") as server:
        with frames(server.port) as connection:
            connection.send(headers(1, [*at("/", "POST"), ("content-length", "3")], END_HEADERS))
            connection.send(frame(DATA, 0, 1, b"abc"))
            connection.send(frame(HEADERS_FRAME, END_HEADERS | END_STREAM, 1, block(BEHIND)))
            assert connection.result(1).body == b"helloworld"
        assert [body for _, body in BODIES] == [b"abc"]


def test_a_trailer_section_that_is_none_cuts_the_answer(tmp_path: Path) -> None:
    def wrong(_: Upstream, peer: Peer) -> None:
        if peer.head() is not None:
            start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
            peer.send(start + b"x: a\r\n b\r\n\r\n" + answer(b"stolen"))

    with Upstream(behaviour=wrong) as upstream:
        configure(tmp_path, upstream.url)
        with Server(cwd=tmp_path) as server, wire(server.port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            reply = client.reply()
            assert reply is None or reply.status == 502 or not reply.complete
