"""Connections through the proxy that one side closes for sending and still reads from."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
from server import Server, eventually, front
from test_proxy import configure
from upstreams import Peer, Upstream
from wire import wire

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"
CHUNK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
# What a server sends before it closes its sending half, and what the client gets: status and body, or nothing whole.
CLOSED = {
    "before the answer": (b"", (502, None)),
    "in the status line": (b"HTTP/1.1 200", (502, None)),
    "in the head": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", (502, None)),
    "after an interim answer": (b"HTTP/1.1 103 Early Hints\r\n\r\n", (502, None)),
    "in a body with a length": (HELLO, None),
    "in a body in chunks": (CHUNK, None),
    "before the last chunk": (CHUNK + b"5\r\nworld\r\n", None),
    "in the trailers": (CHUNK + b"0\r\nX-A: b\r\n", None),
    "after a body with a length": (HELLO + b"world", (200, b"helloworld")),
    "after a body in chunks": (CHUNK + b"5\r\nworld\r\n0\r\n\r\n", (200, b"helloworld")),
    "after trailers": (CHUNK + b"5\r\nworld\r\n0\r\nX-A: b\r\n\r\n", (200, b"helloworld")),
    "after a body that ends so": (b"HTTP/1.1 200 OK\r\n\r\nhelloworld", (200, b"helloworld")),
    "after an answer without a body": (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
}


@pytest.mark.parametrize("place", CLOSED)
def test_a_server_that_closes_its_half_is_answered_for_by_what_was_whole(tmp_path: Path, place: str) -> None:
    sent, want = CLOSED[place]

    def close(upstream: Upstream, peer: Peer) -> None:
        if (asked := peer.request()) is not None:
            upstream.asked.append(asked)
            peer.send(sent)
            peer.socket.shutdown(socket.SHUT_WR)
            # It would still take what comes: nothing may.
            while peer.more():
                pass
            upstream.asked[-1].body = peer.rest

    with Upstream(behaviour=close) as upstream:
        configure(tmp_path, upstream.url, more="failures = 100\nretries = 0")
        with Server(cwd=tmp_path) as server:
            for _ in range(2):
                with wire(server.port) as client:
                    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                    reply = client.reply()
                    while reply is not None and reply.status == 103:
                        reply = client.reply()
                    if want is None:
                        assert reply is None or reply.status == 502 or not reply.complete
                        continue
                    assert reply is not None
                    assert (reply.status, reply.complete) == (want[0], True)
                    assert want[1] is None or reply.body == want[1]
        # Such a connection is not used again, and closed by us too.
        assert [asked.connection for asked in upstream.asked] == [0, 1]
        eventually(lambda: all(asked.body == b"" for asked in upstream.asked), "both ends are closed")


def test_a_server_that_has_closed_its_half_before_it_was_asked_costs_a_502_and_no_more(tmp_path: Path) -> None:
    def close(upstream: Upstream, peer: Peer) -> None:
        peer.socket.shutdown(socket.SHUT_WR)
        if (asked := peer.request()) is not None:
            upstream.asked.append(asked)

    with Upstream(behaviour=close) as bad, Upstream("good") as good:
        configure(tmp_path, bad.url, more="failures = 100")
        with Server(cwd=tmp_path) as server:
            assert server.ask("/", "POST", b"abc").status == 502
        configure(tmp_path, bad.url, f'{{ url = "{good.url}", backup = true }}', more="failures = 100")
        with Server(cwd=tmp_path) as server:
            assert server.get("/").text == "good / 0"


def test_a_client_that_closes_its_half_with_its_request_is_answered(tmp_path: Path) -> None:
    """As `printf … | nc` does: both lie in the socket before the gate looks."""
    with Upstream() as upstream:
        configure(tmp_path, upstream.url)
        with Server(cwd=tmp_path) as server, wire(server.port) as client:
            pid = front(server)
            os.kill(pid, signal.SIGSTOP)
            try:
                client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
                client.half_close()
            finally:
                os.kill(pid, signal.SIGCONT)
            reply = client.reply()
            assert reply is not None
            assert (reply.status, reply.body) == (200, b"a / 3")
            assert client.ended()
        assert [asked.body for asked in upstream.asked] == [b"abc"]


@pytest.mark.parametrize("framing", ["Content-Length: 10", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("route", ["", "request_buffering = false"])
def test_a_request_that_its_client_closes_midway_is_done_by_no_server(tmp_path: Path, framing: str, route: str) -> None:
    seen: list[bytes] = []

    def read(_: Upstream, peer: Peer) -> None:
        if peer.head() is not None:
            while peer.more():
                pass
            seen.append(peer.rest)

    with Upstream(behaviour=read) as upstream:
        configure(tmp_path, upstream.url, route=route)
        with Server(cwd=tmp_path) as server, wire(server.port) as client:
            client.send(f"POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n3\r\nabc\r\n".encode())
            client.half_close()
            reply = client.reply()
            assert reply is not None
            assert reply.status == 400
        # Where it is passed on as it comes, the server sees that it is not whole.
        eventually(lambda: len(seen) == upstream.connections == (1 if route else 0), "the server has seen the end")
        assert all(body in {b"3\r\nabc\r\n", b""} for body in seen)


def test_a_tunnel_is_closed_one_half_at_a_time(tmp_path: Path) -> None:
    def tunnel(_: Upstream, peer: Peer) -> None:
        if peer.head() is None:
            return
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nfirst")
        while peer.more():
            pass
        peer.send(b"heard " + peer.rest)

    with Upstream(behaviour=tunnel) as upstream:
        configure(tmp_path, upstream.url)
        with Server(cwd=tmp_path) as server, wire(server.port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
            head = client.head()
            assert head is not None
            assert head.status == 101
            client.send(b"all of it")
            client.half_close()
            said = b""
            while more := client.first():
                said += more
            assert said == b"firstheard all of it"
