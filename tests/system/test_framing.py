"""Framing attacks through the whole program: each is one request, or refused and the connection closed.

The application writes down every request that reaches it. What stands behind an attack on the same connection is a
request of its own only if both sides of any proxy would agree that it is; `/smuggled` must never be among them.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from server import DEADLINE, Server
from wire import Wire, wire

# Writes down all that reaches it.
RECORDER = """\
import base64, json, threading

seen, lock = [], threading.Lock()

def application(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/json")])
    if environ["PATH_INFO"] == "/seen":
        with lock:
            found, seen[:] = list(seen), []
        return [json.dumps(found).encode()]
    with lock:
        seen.append([environ["REQUEST_METHOD"], environ["REQUEST_URI"], base64.b64encode(body).decode()])
    return [b"{}"]
"""

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


@dataclass(frozen=True)
class Case:
    """Bytes, and the bodies of the requests that they are; none for bytes that are to be refused."""

    data: bytes
    bodies: tuple[bytes, ...] | None = None

    @property
    def name(self) -> str:
        """What pytest shows."""
        return repr(self.data[:110])


def post(fields: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    """Build a POST with these lines, each ending in CRLF."""
    return b"POST /first HTTP/" + version + b"\r\nHost: a\r\n" + fields + b"\r\n" + body


def lengths() -> Iterator[Case]:
    """Content-Length."""
    spellings = [
        *(b"+3", b"-3", b"-0", b"+0", b"0x3", b"3.0", b"3e0", b"3,", b",3", b"3;", b"3 3", b"3, 4", b"3,4", b"three"),
        *(b"", b" ", b"\x0b3", b"3\x0b", b"3\x00", b'"3"', b"\xb3", b"3_0", b"0b11", b"3 ,", b"\t", b"1e1", b"0o3"),
        *(b"18446744073709551616", b"18446744073709551619", b"99999999999999999999999999", b"9223372036854775808"),
        *(b"340282366920938463463374607431768211459", "３".encode(), "٣".encode()),
    ]
    for spelling in spellings:
        yield Case(post(b"Content-Length: " + spelling + b"\r\n", b"abc" + SMUGGLED))
    for fields in [
        b"Content-Length: 3\r\nContent-Length: 4\r\n",
        b"Content-Length: 4\r\nContent-Length: 3\r\n",
        b"Content-Length: 0\r\nContent-Length: 3\r\n",
        b"Content-Length: 3\r\ncontent-length: 30\r\n",
        b"Content-Length : 3\r\n",
        b"Content-Length\t: 3\r\n",
        b" Content-Length: 3\r\n",
        b"\tContent-Length: 3\r\n",
        b"X: y\r\n Content-Length: 3\r\n",
        b"Content-Length:\r\n 3\r\n",
        b"Content-Length: 3\r\n 0\r\n",
        b"Content-Length: 3\n",
        b"Content-Length: 3\r\r\n",
        b"Content-Length: 3\rX: y\r\n",
        b"X: y\rContent-Length: 3\r\n",
        b"X: y\nContent-Length: 3\r\n",
        b"Content-Length: 3\r\n\rX: y\r\n",
        b"\x00Content-Length: 3\r\n",
        b"Content-Length\x00: 3\r\n",
        b"Content\x00-Length: 3\r\n",
        b"Content-Length\r\n",
        b"Content-Length 3\r\n",
        b"Content-L\xe9ngth: 3\r\n",
        b"Content Length: 3\r\n",
        b"(Content-Length): 3\r\n",
        b": 3\r\n",
    ]:
        yield Case(post(fields, b"abc" + SMUGGLED))
    yield Case(post(b"Content-Length: 0\r\n"), (b"",))
    yield Case(post(b"Content-Length: 3\r\n", b"abc"), (b"abc",))
    yield Case(post(b"Content-Length: \t3 \r\n", b"abc"), (b"abc",))
    yield Case(post(b"CONTENT-LENGTH:3\r\n", b"abc"), (b"abc",))
    # Several that agree may be one or be refused (RFC 9112, section 6.3).
    yield Case(post(b"Content-Length: 3\r\nContent-Length: 3\r\n", b"abc"), (b"abc", b"maybe"))
    yield Case(post(b"Content-Length: 3, 3\r\n", b"abc"), (b"abc", b"maybe"))
    yield Case(post(b"Content-Length: 003\r\n", b"abc"), (b"abc", b"maybe"))
    # A name that only looks the same is another field, and the body has no length.
    yield Case(post(b"Content_Length: 3\r\n"), (b"",))
    yield Case(post(b"X-Content-Length: 3\r\n"), (b"",))
    yield Case(post(b"Content-Length: %d\r\n" % len(SMUGGLED), SMUGGLED), (SMUGGLED,))


def codings() -> Iterator[Case]:
    """Transfer-Encoding."""
    body = b"3\r\nabc\r\n0\r\n\r\n"
    spellings = [
        *(b"xchunked", b"chunkedx", b"chunked,", b",chunked", b"chunked, chunked", b"chunked,identity", b"identity"),
        *(
            b"gzip",
            b"gzip, chunked",
            b"chunked, gzip",
            b"identity, chunked",
            b"chunked;q=1",
            b"chunked ;",
            b'"chunked"',
        ),
        *(b"\x0bchunked", b"chunked\x0b", b"chunked\x00", b"\x00chunked", b"chunked\x0c", b"chu nked", b"", b" ", b"x"),
        *(b"chunke", b"hunked", b"c\xc4\xb1unked", b"chunked\xa0", b"\xa0chunked", b"cow", b"chunked cow", b"trailers"),
        *(b"[chunked]", b"chunked\r\n x", b"\r\n chunked", b"chunked\xff", b"deflate", b"chunked, x", b"x, chunked"),
    ]
    for spelling in spellings:
        yield Case(post(b"Transfer-Encoding: " + spelling + b"\r\n", body + SMUGGLED))
        yield Case(post(b"Content-Length: 3\r\nTransfer-Encoding: " + spelling + b"\r\n", body + SMUGGLED))
    for fields in [
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 13\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding\t: chunked\r\n",
        b" Transfer-Encoding: chunked\r\n",
        b"X: y\r\n Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding:\n chunked\r\n",
        b"X: y\nTransfer-Encoding: chunked\r\n",
        b"X: y\rTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\n",
        b"Transfer-Encoding: chunked\r\r\n",
        b"Transfer-Encoding\x00: chunked\r\n",
        b"Transfer\xadEncoding: chunked\r\n\x00",
    ]:
        yield Case(post(fields, body + SMUGGLED))
    yield Case(post(b"Transfer-Encoding: chunked\r\n", body + SMUGGLED, b"1.0"))
    yield Case(post(b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n", body + SMUGGLED, b"1.0"))
    yield Case(post(b"Transfer-Encoding: chunked\r\n", body), (b"abc",))
    yield Case(post(b"transfer-encoding:\tCHUNKED \r\n", body), (b"abc",))
    # Other names are other fields.
    yield Case(post(b"Transfer_Encoding: chunked\r\n"), (b"",))
    yield Case(post(b"Transfer-Encodin: chunked\r\nContent-Length: 2\r\n", b"ab"), (b"ab",))


def chunks() -> Iterator[Case]:
    """The chunks themselves."""
    broken = [
        *(
            b"3\nabc\n0\n\n",
            b"3\r\nabc\n0\r\n\r\n",
            b"3\nabc\r\n0\r\n\r\n",
            b"3\rabc\r\n0\r\n\r\n",
            b"3\r\nabc0\r\n\r\n",
        ),
        *(b"3\r\nabcd\r\n0\r\n\r\n", b"4\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\r\n0\r\n\r\n", b"3\r\nabcXX0\r\n\r\n"),
        *(b"+3\r\nabc\r\n0\r\n\r\n", b"-3\r\nabc\r\n0\r\n\r\n", b"0x3\r\nabc\r\n0\r\n\r\n", b" 3\r\nabc\r\n0\r\n\r\n"),
        *(b"3 \r\nabc\r\n0\r\n\r\n", b"\t3\r\nabc\r\n0\r\n\r\n", b"3_\r\nabc\r\n0\r\n\r\n", b"g\r\nabc\r\n0\r\n\r\n"),
        *(b"\r\nabc\r\n0\r\n\r\n", b"3,\r\nabc\r\n0\r\n\r\n", b'"3"\r\nabc\r\n0\r\n\r\n', b"3\x00\r\nabc\r\n0\r\n\r\n"),
        *(b"10000000000000003\r\nabc\r\n0\r\n\r\n", b"ffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
        *(b"8000000000000000\r\nabc\r\n0\r\n\r\n", b"00000000000000000000000000000003\r\nabc\r\n0\r\n\r\n"),
        *(b"fffffffffffffffffff\r\nabc\r\n0\r\n\r\n", b"\xef\xbc\x93\r\nabc\r\n0\r\n\r\n", b"3;\nabc\r\n0\r\n\r\n"),
        *(b"3;a\nb\r\nabc\r\n0\r\n\r\n", b"3;a\rb\r\nabc\r\n0\r\n\r\n", b"3;a\x00\r\nabc\r\n0\r\n\r\n"),
        *(b'3;a="\r\nabc\r\n0\r\n\r\n"\nabc\r\n0\r\n\r\n'.replace(b'\r\n0\r\n\r\n"', b'\n"'),),
        *(b"3\r\nabc\r\n0\r\nX: y\nZ: z\r\n\r\n", b"3\r\nabc\r\n0\r\n X: y\r\n\r\n", b"3\r\nabc\r\n0\r\nX\r\n\r\n"),
        *(b"3\r\nabc\r\n0\r\nX : y\r\n\r\n", b"3\r\nabc\r\n0\r\n\rX: y\r\n\r\n", b"3\r\nabc\r\n0\r\n: y\r\n\r\n"),
        *(b"3\r\nabc\r\n00\n\r\n", b"3\r\nabc\r\n0\n\r\n", b"3\r\nabc\r\n0\r\r\n\r\n", b"3\r\nabc\r\n-0\r\n\r\n"),
        *(b"3\r\nabc\r\n0\r\n\n", b"3\r\nabc\r\n0\r\nX: \x00\r\n\r\n", b"3" + b";" * 100_000 + b"\r\nabc\r\n0\r\n\r\n"),
        *(b"3\r\nabc\r\n0\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", b"3\r\nabc\r\n\r\n0\r\n\r\n", b"z" * 100_000),
    ]
    for body in broken:
        yield Case(post(b"Transfer-Encoding: chunked\r\n", body + SMUGGLED))
    whole: list[tuple[bytes, bytes]] = [
        (b"0\r\n\r\n", b""),
        (b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", b"abc"),
        (b"3;name=value\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b'3;name="quoted"\r\nabc\r\n0\r\n\r\n', b"abc"),
        (b"A\r\n0123456789\r\na\r\n0123456789\r\n000\r\n\r\n", b"01234567890123456789"),
        (b"3\r\nabc\r\n0\r\nX-Trailer: y\r\nContent-Length: 50\r\n\r\n", b"abc"),
        (b"3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\nHost: evil\r\n\r\n", b"abc"),
        (b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED), SMUGGLED),
        (b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"),
    ]
    for body, wanted in whole:
        # A server may also refuse extensions and trailers that it does not like; it may not read on in them.
        maybe = (b"maybe",) if b";" in body or (b": " in body and b"GET" not in body) else ()
        yield Case(post(b"Transfer-Encoding: chunked\r\n", body), (wanted, *maybe))


def heads() -> Iterator[Case]:
    """Request lines, hosts and line ends."""
    lines = [
        *(
            b"GET /x",
            b"GET  /x HTTP/1.1",
            b"GET /x  HTTP/1.1",
            b"GET\t/x\tHTTP/1.1",
            b"GET /x HTTP/1.1 ",
            b"GET /x HTTP/2.0",
        ),
        *(
            b"GET /x HTTP/1.2x",
            b"GET /x HTTP/1",
            b"GET /x HTTP/11",
            b"GET /x HTTP/0.9",
            b"GET /x http/1.1",
            b"GET /x HTTP/01.1",
        ),
        *(
            b"GET /x HTTP/1.1\x00",
            b"GET /x\x00y HTTP/1.1",
            b"GET /x y HTTP/1.1",
            b"GET x HTTP/1.1",
            b" GET /x HTTP/1.1",
        ),
        *(b"G@T /x HTTP/1.1", b"GET/x HTTP/1.1", b"\x16\x03\x01\x02\x00\x01", b"GET /x\xa0HTTP/1.1"),
        *(b"GET http://a@b/x HTTP/1.1", b"GET //evil\\x HTTP/1.1\x0b", b"GET /x HTTP/1.1\r", b"CONNECT a:80 HTTP/1.1"),
        *(b"PRI * HTTP/2.0", b"", b"()", b"GET /\r\nx HTTP/1.1", b"GET /a\x7fb HTTP/1.1"),
    ]
    for line in lines:
        yield Case(line + b"\r\nHost: a\r\n\r\n" + SMUGGLED)
    for fields in [
        *(
            b"",
            b"Host: a\r\nHost: b\r\n",
            b"Host: a\r\nHost: a\r\n",
            b"Host: a b\r\n",
            b"Host: a/b\r\n",
            b"Host: a@b\r\n",
        ),
        *(b"Host: a, b\r\n", b"Host: a?b\r\n", b"Host: a#b\r\n", b"Host: a\\b\r\n", b"Host: <a>\r\n", b"Host: a:b\r\n"),
        *(
            b"Host: a\r\nX\r\n",
            b"Host: a\r\nX Y: z\r\n",
            b"Host: a\r\n: z\r\n",
            b"Host: a\r\nX: y\r\n z\r\n",
            b"Host : a\r\n",
        ),
        *(
            b"Host: a\r\nX: \x00\r\n",
            b"Host: a\r\nX: a\rb\r\n",
            b"Host: a\r\nX\x80: y\r\n",
            b" Host: a\r\n",
            b"Host: [::1\r\n",
        ),
        *(b"Host: a\r\nX: \x01\r\n", b"Host: a\r\nX: \x7f\r\n", b"Host: a:99999\r\n"),
    ]:
        yield Case(b"GET /first HTTP/1.1\r\n" + fields + b"\r\n" + SMUGGLED)
    yield Case(b"GET /first HTTP/1.1\nHost: a\n\n" + SMUGGLED)
    yield Case(b"GET /first HTTP/1.1\rHost: a\r\r" + SMUGGLED)
    yield Case(b"\x00" + SMUGGLED)
    yield Case(b"\n\n\nGET /first HTTP/1.1\r\nHost: a\r\n\n" + SMUGGLED)
    # Percent signs may stand in a name (RFC 3986, section 3.2.2).
    yield Case(b"GET /first HTTP/1.1\r\nHost: a%00\r\n\r\n", (b"", b"maybe"))
    # A GET may have a body, and it is a body.
    yield Case(
        b"GET /first HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(SMUGGLED), SMUGGLED), (SMUGGLED,)
    )
    # Words of other protocols do not end HTTP.
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
    yield Case(post(upgrade + b"Content-Length: 3\r\n", b"abc"), (b"abc",))
    yield Case(post(b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n", b"abc"), (b"abc",))
    # What one hop says of its own fields does not remove those that frame the message.
    yield Case(post(b"Connection: Content-Length\r\nContent-Length: 3\r\n", b"abc"), (b"abc", b"maybe"))
    yield Case(
        post(b"Connection: close, Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
        (b"abc", b"maybe"),
    )


CASES = [*lengths(), *codings(), *chunks(), *heads()]
FOLLOWING = b"GET /following-%s HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The recorder, in one process."""
    folder: Path = tmp_path_factory.mktemp("recorder")
    (folder / "app.py").write_text(RECORDER)
    (folder / "daemun.toml").write_text(
        '[server]\nheader_timeout = "2s"\n[app.recorder]\nwsgi = "app:application"\nprocesses = 1\nthreads = 1\n'
    )
    with Server(cwd=folder) as server:
        yield server


def seen(server: Server) -> list[tuple[str, str, bytes]]:
    """What has reached the application since the last look."""
    found = json.loads(server.get("/seen").body)
    return [(method, target, base64.b64decode(body)) for method, target, body in found]


def statuses(connection: Wire) -> list[int]:
    """The answers on this connection to its end, which must come."""
    found = []
    while (reply := connection.reply()) is not None:
        assert reply.complete
        found.append(reply.status)
    return found


def play(server: Server, data: bytes, split: int | None) -> list[int]:
    """Send it whole or in two, then say that there is no more; give the answers."""
    with wire(server.port) as connection:
        connection.socket.settimeout(DEADLINE)
        if split is not None:
            connection.send(data[:split])
            time.sleep(0)
        connection.send(data[split or 0 :])
        try:
            connection.half_close()
        except OSError:
            pass  # It has been refused already.
        return statuses(connection)


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 150
    assert len({case.data for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_attack_is_one_request_or_is_refused(server: Server, case: Case) -> None:
    # The same bytes in one piece and cut within, which must not change what they mean.
    middle = case.data.find(b"\r\n\r\n") + 3 if b"\r\n\r\n" in case.data else len(case.data) // 2
    for split in [None, middle]:
        if case.bodies is None:
            refused(server, case.data, split)
        else:
            read(server, case, split)


def refused(server: Server, data: bytes, split: int | None) -> None:
    """Nothing reaches the application, and the connection ends."""
    answers = play(server, data, split)
    reached = seen(server)
    assert reached == [], f"{data!r} was read as {reached}"
    assert len(answers) <= 1, answers
    assert all(400 <= status < 600 for status in answers), answers


def read(server: Server, case: Case, split: int | None) -> None:
    """One request with one body, and behind it the next."""
    assert case.bodies is not None
    tag = secrets.token_hex(4)
    answers = play(server, case.data + FOLLOWING % tag.encode(), split)
    reached = seen(server)
    if b"maybe" in case.bodies and reached == []:
        assert len(answers) == 1
        assert 400 <= answers[0] < 600
        return
    method = case.data.split(b" ", 1)[0].decode()
    wanted = [(method, "/first", case.bodies[0]), ("GET", f"/following-{tag}", b"")]
    # A connection may be closed behind a request; nothing else may be read.
    assert reached in (wanted, wanted[:1]), f"{case.data!r} was read as {reached}"
    assert answers == [200] * len(reached)


def test_a_body_of_which_nothing_was_read_is_not_the_next_request(server: Server) -> None:
    """The application does not see the path, but the front answers: the body behind it must go unread."""
    with wire(server.port) as connection:
        connection.send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(SMUGGLED), SMUGGLED))
        connection.half_close()
        answers = statuses(connection)
    assert len(answers) == 1
    assert seen(server) == []
