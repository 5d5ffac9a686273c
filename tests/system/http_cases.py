"""Bytes that servers may read differently, each with what comes of them where RFC 9110 and 9112 are read strictly.

Every message is sent with another request right behind it, to a server that hands all requests on to the recorder
below: what the recorder has read is what the server made of the message.
"""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import strict
from compared import Case

SECOND = b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
REFUSED = "400, closed"


@dataclass(frozen=True)
class Asked:
    """A server that is asked, and how long it may say nothing before it counts as waiting."""

    port: int
    patience: float


class Recorder(socketserver.StreamRequestHandler):
    """Answers each request with what it has read, and what it cannot read with 499."""

    def handle(self) -> None:
        data, told = b"", False
        while True:
            try:
                request, data = strict.read(data)
            except strict.NotWhole:
                if not told and re.search(rb"(?i)\r\nexpect: *100-continue\r\n", data):
                    told = self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n") > 0
                try:
                    more = self.connection.recv(65536)
                except OSError:
                    return
                if not more:
                    return
                data += more
                continue
            except strict.NotARequest as error:
                self.say("499 Not A Request", str(error).partition(" ")[0])
                return
            host = ", ".join(request.all("host"))
            size = f" +{len(request.body)}" if request.body else ""
            self.say("200 OK", f"{request.method} {request.target} of {host}{size}")

    def say(self, status: str, text: str) -> None:
        with contextlib.suppress(OSError):
            self.wfile.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode("latin-1"))


@contextmanager
def recorder() -> Iterator[int]:
    """Listen behind the servers."""

    class Listener(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 128

    with Listener(("127.0.0.1", 0), Recorder) as listener:
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield int(listener.server_address[1])
        finally:
            listener.shutdown()
            thread.join()


def said(asked: Asked, message: bytes) -> str:
    """What a server says to these bytes, and whether it then closes."""
    data, end = b"", ", closed"
    with socket.create_connection(("127.0.0.1", asked.port), timeout=asked.patience) as wire:
        with contextlib.suppress(ConnectionError):
            wire.sendall(message + SECOND)
        try:
            while part := wire.recv(65536):
                data += part
        except TimeoutError:
            end = ", waits"
        except ConnectionError:
            end = ", reset"
    replies = list(answers(data))
    if replies and replies[-1] == "GET /next of a":
        replies[-1], end = "the next", ""
    return ", ".join(replies) + end if replies else end.removeprefix(", ")


def answers(data: bytes) -> Iterator[str]:
    """Every answer: its status, or what the recorder has read."""
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        line = re.match(rb"HTTP/1\.[01] (\d{3}) ?", head)
        if line is None:
            yield "an answer without a head"
            return
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        body, data = rest, b""
        if int(line[1]) < 200:
            body, data = b"", rest
        elif re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
            body, data = strict.chunks(rest)
        elif length:
            body, data = rest[: int(length[1])], rest[int(length[1]) :]
        said = body.decode("latin-1") if line[1] == b"200" else ""
        yield re.sub(r"127\.0\.0\.1:\d+", "the server behind", said) or line[1].decode()


def case(says: str, source: str, message: bytes, right: str = REFUSED) -> Case[Asked]:
    """One question."""
    return Case(says, source, lambda asked: said(asked, message), right)


def fields(says: str, source: str, lines: bytes, right: str = REFUSED, body: bytes = b"0\r\n\r\n") -> Case[Asked]:
    """A POST with these fields, and a body that is five bytes, or one empty chunk."""
    return case(says, source, b"POST / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n\r\n" + body, right)


def chunks(says: str, source: str, body: bytes, right: str = REFUSED) -> Case[Asked]:
    """A POST with this chunked body."""
    return fields(says, source, b"Transfer-Encoding: chunked", right, body)


def get(says: str, source: str, lines: bytes, right: str = REFUSED) -> Case[Asked]:
    """A request without a body: these lines are its head."""
    return case(says, source, lines + b"\r\n\r\n", right)


HOST = b"\r\nHost: a"

FRAMING = [
    fields("`Content-Length: 5`", "6.2", b"Content-Length: 5", "POST / of a +5, the next"),
    fields("`Transfer-Encoding: chunked`", "7.1", b"Transfer-Encoding: chunked", "POST / of a, the next"),
    fields("Both", "6.1", b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
    fields("Both, `Content-Length: 0` last", "6.1", b"Transfer-Encoding: chunked\r\nContent-Length: 0"),
    fields(
        "Both, and `Connection: content-length`",
        "6.1",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: content-length",
    ),
    fields("`Content-Length: 5` twice", "6.3", b"Content-Length: 5\r\nContent-Length: 5"),
    fields("`Content-Length: 5` and `6`", "6.3", b"Content-Length: 5\r\nContent-Length: 6"),
    fields("`Content-Length: 5, 5`", "6.3", b"Content-Length: 5, 5"),
    fields("`Content-Length: +5`", "6.3", b"Content-Length: +5"),
    fields("`Content-Length: 0x5`", "6.3", b"Content-Length: 0x5"),
    fields("`Content-Length: -1`", "6.3", b"Content-Length: -1"),
    fields("`Content-Length:` without a value", "6.3", b"Content-Length:"),
    fields("`Content-Length: 5 5`", "6.3", b"Content-Length: 5 5"),
    fields("`Content-Length: 005`", "6.2", b"Content-Length: 005", "POST / of a +5, the next"),
    fields("A Content-Length above 2^64", "6.2", b"Content-Length: 18446744073709551621"),
    fields("`Content-Length : 5`", "5.1", b"Content-Length : 5"),
    fields("`Content_Length: 5`", "ours", b"Content_Length: 5", "POST / of a, 400, closed"),
    fields("`Transfer-Encoding : chunked`", "5.1", b"Transfer-Encoding : chunked"),
    fields("`Transfer-Encoding: chunked` behind a space", "5.2", b"X: y\r\n Transfer-Encoding: chunked"),
    fields("`Transfer-Encoding:`, folded", "5.2", b"Transfer-Encoding:\r\n chunked"),
    fields("`Transfer-Encoding: xchunked`", "6.1", b"Transfer-Encoding: xchunked"),
    fields("`Transfer-Encoding: identity`", "6.1", b"Transfer-Encoding: identity"),
    fields("`Transfer-Encoding: gzip, chunked`", "6.1", b"Transfer-Encoding: gzip, chunked", "501, closed"),
    fields("`Transfer-Encoding: chunked, identity`", "6.3", b"Transfer-Encoding: chunked, identity"),
    fields("`Transfer-Encoding: chunked` twice", "6.3", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    fields("`Transfer-Encoding: chunked, chunked`", "7", b"Transfer-Encoding: chunked, chunked"),
    fields("`Transfer-Encoding: ,chunked`", "6.1", b"Transfer-Encoding: ,chunked"),
    fields('`Transfer-Encoding: "chunked"`', "6.1", b'Transfer-Encoding: "chunked"'),
    fields("`Transfer-Encoding: Chunked`", "7", b"Transfer-Encoding: Chunked", "POST / of a, the next"),
    fields("`Transfer-Encoding:` vertical tab `chunked`", "5.5", b"Transfer-Encoding: \x0bchunked"),
    fields("`Transfer-Encoding: chunked` with a NUL behind it", "5.5", b"Transfer-Encoding: chunked\0"),
    case(
        "Chunked in HTTP/1.0",
        "6.1",
        b"POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    get(
        "GET with `Content-Length: 0`", "6.3", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0", "GET / of a, the next"
    ),
    case(
        "GET with a body",
        "9110, 9.3.1",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "GET / of a +5, the next",
    ),
]
CHUNKS = [
    chunks("Chunks `5` and `0`", "7.1", b"5\r\nhello\r\n0\r\n\r\n", "POST / of a +5, the next"),
    chunks("Chunk size `0x5`", "7.1", b"0x5\r\nhello\r\n0\r\n\r\n"),
    chunks("Chunk size `+5`", "7.1", b"+5\r\nhello\r\n0\r\n\r\n"),
    chunks("Chunk size ` 5`", "7.1", b" 5\r\nhello\r\n0\r\n\r\n"),
    chunks("Chunk size `5 `", "7.1", b"5 \r\nhello\r\n0\r\n\r\n"),
    chunks("Chunk size without digits", "7.1", b"\r\nhello\r\n0\r\n\r\n"),
    chunks("Chunk size `5` with 16 zeros before it", "7.1", b"00000000000000005\r\nhello\r\n0\r\n\r\n"),
    chunks("A chunk size above 2^64", "7.1", b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    chunks("A chunk size that ends in a bare LF", "7.1", b"5\nhello\r\n0\r\n\r\n"),
    chunks("A chunk that ends in a bare LF", "7.1", b"5\r\nhello\n0\r\n\r\n"),
    chunks("A chunk with a byte too many", "7.1", b"5\r\nhelloX\r\n0\r\n\r\n"),
    chunks("A chunk with `XX` for its end", "7.1", b"5\r\nhelloXX0\r\n\r\n"),
    chunks("An extension", "7.1.1", b"5;a=b\r\nhello\r\n0\r\n\r\n", "POST / of a +5, the next"),
    chunks("An extension with a bare LF", "7.1.1", b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    chunks("An extension with a bare CR", "7.1.1", b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    chunks("A quoted extension over two lines", "7.1.1", b'5;a="\r\nhello\r\n0\r\n\r\n'),
    chunks("A trailer", "7.1.2", b"5\r\nhello\r\n0\r\nX-T: u\r\n\r\n", "POST / of a +5, the next"),
    chunks(
        "A trailer that frames",
        "9110, 6.5.1",
        b"5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n",
        "POST / of a +5, the next",
    ),
    chunks("A trailer that is no field", "7.1.2", b"5\r\nhello\r\n0\r\nGET /inner HTTP/1.1\r\n\r\n"),
    chunks("The last chunk ends in a bare LF", "7.1", b"5\r\nhello\r\n0\n\r\n"),
]
LINES = [
    case("Lines that end in a bare LF", "2.2", b"GET / HTTP/1.1\nHost: a\n\n"),
    case("One line that ends in a bare LF", "2.2", b"GET / HTTP/1.1\r\nX: y\nHost: a\r\n\r\n"),
    case("A head that ends in a bare LF", "2.2", b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
    get("A bare CR within a value", "2.2", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\rZ: 1"),
    get("A bare CR before a CRLF", "2.2", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r"),
    get("A CRLF before the request line", "2.2", b"\r\nGET / HTTP/1.1" + HOST, "GET / of a, the next"),
    get("A space before the first field", "2.2", b"GET / HTTP/1.1\r\n X: y" + HOST),
    get("A folded value", "5.2", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z"),
    get("A NUL in a value", "5.5", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\0z"),
    get("A control character in a value", "5.5", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\x01z"),
    get("A field without a colon", "5.1", b"GET / HTTP/1.1\r\nHost: a\r\nX"),
    get("A field without a name", "5.1", b"GET / HTTP/1.1\r\nHost: a\r\n: y"),
    get("A space in a name", "5.1", b"GET / HTTP/1.1\r\nHost: a\r\nX Y: z"),
    get("A parenthesis in a name", "5.1", b"GET / HTTP/1.1\r\nHost: a\r\nX(: z"),
]
TARGETS = [
    get("Two spaces in the request line", "3", b"GET  / HTTP/1.1" + HOST),
    get("A tab in the request line", "3", b"GET\t/ HTTP/1.1" + HOST),
    get("A space at the end of the request line", "3", b"GET / HTTP/1.1 " + HOST),
    get("`get`", "9110, 9.1", b"get / HTTP/1.1" + HOST, "get / of a, the next"),
    get("`G@T`", "9110, 9.1", b"G@T / HTTP/1.1" + HOST),
    get("A method that nobody knows", "9110, 9.1", b"BREW / HTTP/1.1" + HOST, "BREW / of a, the next"),
    get("`CONNECT a:80`", "9110, 9.3.6", b"CONNECT a:80 HTTP/1.1" + HOST, "501, closed"),
    get("`TRACE`", "9110, 9.3.8", b"TRACE / HTTP/1.1" + HOST, "TRACE / of a, the next"),
    get("`OPTIONS *`", "3.2.4", b"OPTIONS * HTTP/1.1" + HOST, "200, the next"),
    get("`GET *`", "3.2.4", b"GET * HTTP/1.1" + HOST),
    get("A target without a slash", "3.2", b"GET x HTTP/1.1" + HOST),
    get("A fragment in the target", "3.2", b"GET /x#y HTTP/1.1" + HOST),
    get("A space in the target", "3.2", b"GET /x y HTTP/1.1" + HOST),
    get("`%00` in the target", "ours", b"GET /%00 HTTP/1.1" + HOST, "400, the next"),
    get("`%` without digits in the target", "3.2", b"GET /%zz HTTP/1.1" + HOST, "400, the next"),
    get("`/../x`", "ours", b"GET /../x HTTP/1.1" + HOST, "400, the next"),
    get("A byte above 127 in the target", "3.2", b"GET /\xe9 HTTP/1.1" + HOST),
    get("A control character in the target", "3.2", b"GET /\x01 HTTP/1.1" + HOST),
    get("`http://a/x`", "3.2.2", b"GET http://a/x HTTP/1.1" + HOST, "GET /x of a, the next"),
    get("`http://b/x` with `Host: a`", "3.2.2", b"GET http://b/x HTTP/1.1" + HOST, "GET /x of b, the next"),
    get("`http://user@a/x`", "9110, 4.2.4", b"GET http://user@a/x HTTP/1.1" + HOST),
    get("`ftp://a/x`", "3.2.2", b"GET ftp://a/x HTTP/1.1" + HOST),
]
HOSTS = [
    get("No Host", "3.2", b"GET / HTTP/1.1"),
    get(
        "No Host in HTTP/1.0",
        "3.2",
        b"GET / HTTP/1.0\r\nConnection: keep-alive",
        "GET / of the server behind, the next",
    ),
    get("Two Hosts", "3.2", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b"),
    get("The same Host twice", "3.2", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a"),
    get("An empty Host", "3.2", b"GET / HTTP/1.1\r\nHost:"),
    get("`Host: a/b`", "3.2", b"GET / HTTP/1.1\r\nHost: a/b"),
    get("`Host: u@a`", "3.2", b"GET / HTTP/1.1\r\nHost: u@a"),
    get("`Host: a, b`", "3.2", b"GET / HTTP/1.1\r\nHost: a, b"),
    get("`Host: a:x`", "3.2", b"GET / HTTP/1.1\r\nHost: a:x"),
    get("`Host: a:99999`", "3.2", b"GET / HTTP/1.1\r\nHost: a:99999"),
    get("`Host : a`", "5.1", b"GET / HTTP/1.1\r\nHost : a"),
    get("`Host: <a>`", "3.2", b"GET / HTTP/1.1\r\nHost: <a>"),
]
VERSIONS = [
    case("HTTP/0.9", "2.3", b"GET /\r\n\r\n"),
    get("`HTTP/1.2`", "2.3", b"GET / HTTP/1.2" + HOST, "GET / of a, the next"),
    get("`HTTP/2.0`", "2.3", b"GET / HTTP/2.0" + HOST, "505, closed"),
    get("`HTTP/1.10`", "2.3", b"GET / HTTP/1.10" + HOST),
    get("`http/1.1`", "2.3", b"GET / http/1.1" + HOST),
    get("`HTTP/ 1.1`", "2.3", b"GET / HTTP/ 1.1" + HOST),
    get("HTTP/1.0", "9.3", b"GET / HTTP/1.0" + HOST, "GET / of a, closed"),
    get(
        "HTTP/1.0 with `Connection: keep-alive`",
        "9.3",
        b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive",
        "GET / of a, the next",
    ),
    get("`Connection: close`", "9.6", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close", "GET / of a, closed"),
    get(
        "`Upgrade: h2c`",
        "9110, 7.8",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c",
        "GET / of a, the next",
    ),
    fields(
        "`Expect: 100-continue`, the body sent with it",
        "9110, 10.1.1",
        b"Expect: 100-continue\r\nContent-Length: 5",
        "POST / of a +5, the next",
    ),
    fields("`Expect: something`", "9110, 10.1.1", b"Expect: something\r\nContent-Length: 5", "417, closed"),
]

CASES = [*FRAMING, *CHUNKS, *LINES, *TARGETS, *HOSTS, *VERSIONS]
