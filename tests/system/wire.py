"""Speaks HTTP/1.1 byte by byte, for what no client library would send, and reads answers one after the other."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from server import DEADLINE

# Answers without content, whatever their fields say (RFC 9110, section 6.4.1).
BODILESS = {204, 304}


@dataclass
class Reply:
    """One answer as it stood on the wire."""

    status: int
    reason: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    # Whether the body ended as its framing announced; one that is cut did not.
    complete: bool = True
    # The sizes of the chunks, where there were any.
    chunks: list[int] = field(default_factory=list)
    # The fields behind them.
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        """Every value of a field, in order."""
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The value of a field that stands there at most once."""
        values = self.all(name)
        assert len(values) < 2, f"{name} stands there {len(values)} times: {values}"
        return values[0] if values else None


class Wire:
    """A connection of one's own."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""

    def send(self, data: bytes) -> None:
        """Send these bytes; a server that has had enough may have closed."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def reply(self, method: str = "GET") -> Reply | None:
        """Read the next answer, or nothing if the connection ended; interim answers are answers."""
        reply = self.head()
        if reply is not None and method != "HEAD" and reply.status not in BODILESS and reply.status >= 200:
            self._body(reply)
        return reply

    def head(self) -> Reply | None:
        """Read the next answer's head alone."""
        head = self._until(b"\r\n\r\n")
        if head is None:
            return None
        line, *lines = head.decode("latin-1").split("\r\n")
        version, status, reason = line.split(" ", 2)
        assert version in {"HTTP/1.1", "HTTP/1.0"}, line
        pairs = [(name, value.strip()) for name, _, value in (each.partition(":") for each in lines)]
        return Reply(int(status), reason, pairs)

    def chunk(self) -> bytes | None:
        """Read the next chunk as it comes; the last one is empty, and of one that is cut there is nothing."""
        line = self._until(b"\r\n")
        if line is None:
            return None
        size = int(line, 16)
        while len(self.rest) < size + 2 and self._more():
            pass
        if len(self.rest) < size + 2:
            return None
        found, end, self.rest = self.rest[:size], self.rest[size : size + 2], self.rest[size + 2 :]
        assert end == b"\r\n"
        return found

    def _body(self, reply: Reply) -> None:
        length = reply.get("Content-Length")
        if reply.get("Transfer-Encoding") == "chunked":
            assert length is None, "both framings"
            self._chunks(reply)
        elif length is not None:
            while len(self.rest) < int(length) and self._more():
                pass
            reply.body, self.rest = self.rest[: int(length)], self.rest[int(length) :]
            reply.complete = len(reply.body) == int(length)
        else:
            while self._more():
                pass
            reply.body, self.rest = self.rest, b""

    def _chunks(self, reply: Reply) -> None:
        while (line := self._until(b"\r\n")) is not None:
            size = int(line, 16)
            if size == 0:
                reply.complete = self._trailers(reply)
                return
            while len(self.rest) < size + 2 and self._more():
                pass
            reply.body += self.rest[:size]
            if len(self.rest) < size + 2:
                break
            assert self.rest[size : size + 2] == b"\r\n"
            self.rest = self.rest[size + 2 :]
            reply.chunks.append(size)
        reply.complete = False

    def _trailers(self, reply: Reply) -> bool:
        while line := self._until(b"\r\n"):
            name, _, value = line.decode("latin-1").partition(":")
            reply.trailers.append((name, value.strip()))
        return line is not None

    def _until(self, end: bytes) -> bytes | None:
        while end not in self.rest:
            if not self._more():
                return None
        found, self.rest = self.rest.split(end, 1)
        return found

    def _more(self) -> bool:
        try:
            data = self.socket.recv(1 << 20)
        except ConnectionResetError:
            return False
        self.rest += data
        return bool(data)

    def ended(self) -> bool:
        """Whether the server closes without another byte."""
        return not self.rest and not self._more()

    def first(self) -> bytes:
        """Whatever comes next, one byte at the least unless it ends."""
        if not self.rest:
            self._more()
        found, self.rest = self.rest, b""
        return found

    def half_close(self) -> None:
        """Say that there will be no more."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Go away."""
        self.socket.close()


@contextmanager
def wire(port: int) -> Iterator[Wire]:
    """Open a connection of one's own, and close it."""
    opened = Wire(port)
    try:
        yield opened
    finally:
        opened.close()


def ask(port: int, data: bytes, method: str = "GET") -> Reply:
    """Send one request on a connection of its own."""
    with wire(port) as connection:
        connection.send(data)
        reply = connection.reply(method)
        assert reply is not None, "no answer"
        return reply
