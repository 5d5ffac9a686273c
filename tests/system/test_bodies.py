"""Bodies of every size through the whole program, byte for byte, with the front's memory in view."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from server import DEADLINE, Server, front, resident
from wire import Reply, wire

HERE = Path(__file__).parent
MIB = 1 << 20
# Around the borders between a body in the frame, in the arena, and in a file.
SIZES = [0, 1, 32767, 32768, 32769, 65535, 65536, 100_000, MIB - 1, MIB, MIB + 1, 3 * MIB]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The probes in one process, so that what they noted can be asked for."""
    with Server("probes:application", "--workers", "1", cwd=HERE) as server:
        yield server


def bytes_of(size: int) -> bytes:
    """Bytes that are the same in each run and nowhere repeat."""
    return random.Random(size).randbytes(size)


def chunked(body: bytes) -> bytes:
    """Cut in pieces of many sizes."""
    cutter = random.Random(len(body))
    data, at = b"", 0
    while at < len(body):
        piece = body[at : at + cutter.choice([1, 7, 4096, 65535, 200_000])]
        data += b"%x\r\n%s\r\n" % (len(piece), piece)
        at += len(piece)
    return data + b"0\r\n\r\n"


def post(server: Server, body: bytes, framing: str) -> Reply:
    """Send a body to where it is counted."""
    with wire(server.port) as connection:
        if framing == "length":
            framed = b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        else:
            framed = b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body)
        connection.send(b"POST /digest HTTP/1.1\r\nHost: a\r\n" + framed)
        reply = connection.reply()
        assert reply is not None
        return reply


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_bodies_of_every_size_arrive_byte_for_byte(server: Server, framing: str) -> None:
    for size in SIZES:
        body = bytes_of(size)
        found, said, digest, _ = post(server, body, framing).body.decode().split()
        assert (int(found), digest) == (size, hashlib.sha256(body).hexdigest()), size
        # RFC 3875, section 4.1.2: the length is told where there is a body, and a chunked one has been counted.
        assert said == str(size) or (size == 0 and said == "none"), size


def test_bodies_that_arrive_at_once_are_not_mixed_up(server: Server) -> None:
    sizes = [100_000, MIB, 32769, 65535, MIB + 1, 20_000] * 8

    def check(size: int, number: int) -> None:
        body = number.to_bytes(4, "big") + bytes_of(size)
        framing = "chunked" if number % 3 == 0 else "length"
        found, said, digest, _ = post(server, body, framing).body.decode().split()
        assert (int(found), int(said)) == (len(body), len(body))
        assert digest == hashlib.sha256(body).hexdigest()

    with ThreadPoolExecutor(12) as pool:
        for done in [pool.submit(check, size, number) for number, size in enumerate(sizes)]:
            done.result(DEADLINE)


@pytest.mark.parametrize("head", ["Content-Length: 1000000000", "Content-Length: 104857601"])
def test_a_body_that_is_announced_too_long_is_refused_before_it_comes(server: Server, head: str) -> None:
    with wire(server.port) as connection:
        connection.send(f"POST /digest HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n".encode())
        reply = connection.reply()
        assert reply is not None
        assert reply.status == 413
        assert reply.get("Connection") == "close"


def test_a_client_that_asks_first_is_refused_without_being_told_to_go_on(server: Server) -> None:
    with wire(server.port) as connection:
        connection.send(
            b"POST /digest HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\nExpect: 100-continue\r\n\r\n"
        )
        reply = connection.reply()
        assert reply is not None
        assert reply.status == 413


def test_a_chunked_body_is_refused_where_it_becomes_too_long(tmp_path: Path) -> None:
    (tmp_path / "daemun.toml").write_text(
        f'[server]\nmax_body = "64KiB"\n[app.probes]\nwsgi = "probes:application"\ndirectory = "{HERE}"\n'
    )
    with Server(cwd=tmp_path) as server:
        assert post(server, bytes_of(65536), "chunked").status == 200
        assert post(server, bytes_of(65537), "chunked").status == 413
        assert post(server, bytes_of(65536), "length").status == 200


def test_a_large_answer_passes_through_without_being_held(server: Server) -> None:
    server.get("/whole")
    before = resident(front(server))
    digest, size = hashlib.sha256(), 0
    with wire(server.port) as connection:
        connection.send(b"GET /megabytes?100 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        highest = before
        while data := connection.socket.recv(MIB):
            size += len(data)
            digest.update(data)
            highest = max(highest, resident(front(server)))
    assert size > 100 * MIB
    print(f"front: {before >> 10} KiB before, at most {highest >> 10} KiB while 100 MiB passed")
    assert highest - before < 10 * MIB


def test_a_client_that_stops_reading_holds_up_its_application_and_fills_no_memory(server: Server) -> None:
    server.get("/whole")
    before = resident(front(server))
    with wire(server.port) as connection:
        connection.socket.setsockopt(1, 8, 4096)  # A receive buffer that is full at once.
        connection.send(b"GET /stream?stopped HTTP/1.1\r\nHost: a\r\n\r\n")
        connection.first()
        end = time.monotonic() + 2
        highest = before
        while time.monotonic() < end:
            # Others go on meanwhile, and what is held stays small.
            assert server.get("/whole").text == "whole"
            highest = max(highest, resident(front(server)))
        assert highest - before < 2 * MIB
    end = time.monotonic() + DEADLINE
    while "close stopped" not in json.loads(server.get("/events").body):
        assert time.monotonic() < end, "the application was not told that its client has gone"
