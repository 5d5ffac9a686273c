"""Clients that are slow, idle or greedy: the others do not notice, and memory stays where it was."""

from __future__ import annotations

import hashlib
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from server import Server, front, resident
from wire import ask, wire

SYSTEM = Path(__file__).resolve().parents[1] / "system"
MIB = 1 << 20


@pytest.fixture
def server() -> Iterator[Server]:
    """The probes in one process with two threads."""
    arguments = ("probes:application", "--workers", "1", "--threads", "2")
    with Server(*arguments, cwd=SYSTEM) as server:
        yield server


def held_open(stack: ExitStack, server: Server, count: int, data: bytes) -> None:
    """Open so many connections, each with these bytes, until the stack is left."""
    for _ in range(count):
        client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
        client.sendall(data)


def test_200_slow_heads_and_200_slow_bodies_hold_nobody_up(server: Server) -> None:
    with ExitStack() as stack:
        held_open(stack, server, 200, b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow:")
        held_open(stack, server, 200, b"POST /digest HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nx")
        took = []
        for _ in range(100):
            began = time.monotonic()
            assert server.get("/whole").text == "whole"
            took.append((time.monotonic() - began) * 1000)
        took.sort()
        print(f"behind 400 slow clients: median {statistics.median(took):.1f} ms, p99 {took[98]:.1f} ms")
        assert took[98] < 500


def test_idle_connections_cost_little(server: Server) -> None:
    server.get("/whole")
    with ExitStack() as stack:
        before = resident(front(server))
        for _ in range(1000):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
            client.sendall(b"GET /whole HTTP/1.1\r\nHost: a\r\n\r\n")
            while b"whole" not in client.recv(4096).partition(b"\r\n\r\n")[2]:
                pass
        each = (resident(front(server)) - before) / 1000
        print(f"an idle connection holds {each:.0f} bytes")
        assert each < 8192


def test_bodies_announced_too_long_are_refused_at_once_for_no_memory(server: Server) -> None:
    server.get("/whole")
    before = resident(front(server))
    with ExitStack() as stack:
        began = time.monotonic()
        clients = [stack.enter_context(wire(server.port)) for _ in range(100)]
        for client in clients:
            client.send(b"POST /digest HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")
        for client in clients:
            reply = client.reply()
            assert reply is not None
            assert reply.status == 413
        took = time.monotonic() - began
        grown = resident(front(server)) - before
    print(f"100 refused in {took * 1000:.0f} ms, {grown >> 10} KiB more")
    assert took < 5
    assert grown < 4 * MIB


def test_100_readers_that_stop_hold_less_than_a_megabyte_each(server: Server) -> None:
    with Server("probes:application", "--workers", "1", "--threads", "100", cwd=SYSTEM) as many, ExitStack() as stack:
        many.get("/whole")
        before = resident(front(many))
        held_open(stack, many, 100, b"GET /stream?stopped HTTP/1.1\r\nHost: a\r\n\r\n")
        end = time.monotonic() + 5
        highest = 0
        while time.monotonic() < end:
            highest = max(highest, resident(front(many)) - before)
            time.sleep(0.1)
        print(f"a reader that stops holds {highest / 100 / 1024:.0f} KiB")
        assert highest < 100 * MIB


def test_the_largest_body_arrives_and_one_byte_more_is_refused(server: Server) -> None:
    server.get("/whole")
    before = highest = resident(front(server))
    block, wanted = bytes(range(256)) * 4096, hashlib.sha256()
    with wire(server.port) as connection:
        connection.send(b"POST /digest HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (100 * MIB))
        for _ in range(100):
            connection.send(block)
            wanted.update(block)
            highest = max(highest, resident(front(server)))
        reply = connection.reply()
    assert reply is not None
    assert reply.body.decode().split()[:3] == [str(100 * MIB), str(100 * MIB), wanted.hexdigest()]
    print(f"front: {(highest - before) >> 10} KiB more while 100 MiB came in")
    assert highest - before < 30 * MIB
    over = ask(server.port, b"POST /digest HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (100 * MIB + 1))
    assert over.status == 413


def test_200_megabytes_are_streamed_for_no_memory(server: Server) -> None:
    server.get("/whole")
    before = highest = resident(front(server))
    size = 0
    with wire(server.port) as connection:
        connection.send(b"GET /megabytes?200 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        while data := connection.socket.recv(MIB):
            size += len(data)
            highest = max(highest, resident(front(server)))
    assert size > 200 * MIB
    print(f"front: {(highest - before) >> 10} KiB more while 200 MiB went out")
    assert highest - before < 10 * MIB
