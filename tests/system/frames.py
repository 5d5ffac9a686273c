"""Speaks HTTP/2 frame by frame (RFC 9113), for what no client library would send."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from server import DEADLINE

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK = 1, 4, 1
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = range(4)
REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 7, 8, 11
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 3, 4
WINDOW = (1 << 31) - 1 - 65535
# The static table's statuses (RFC 7541, appendix A), and the codes of digits (appendix B).
STATUSES = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}
DIGITS = {"00000": "0", "00001": "1", "00010": "2"} | {f"{0x19 + digit - 3:06b}": str(digit) for digit in range(3, 10)}

Fields = Sequence[tuple[str, str]]
GET: Fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a.example"), (":path", "/")]


@dataclass
class Frame:
    """A frame as it stood on the wire."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error code of a RST_STREAM or GOAWAY."""
        at = 0 if self.kind == RST_STREAM else 4
        return int(struct.unpack("!I", self.payload[at : at + 4])[0])

    @property
    def status(self) -> int:
        """The status of a HEADERS frame, which comes first in it."""
        first = self.payload[0]
        if first & 0x80:
            return STATUSES[first & 0x7F]
        length = self.payload[1] & 0x7F
        bits, text = "".join(f"{byte:08b}" for byte in self.payload[2 : 2 + length]), ""
        while len(text) < 3:
            digit = next(code for code in DIGITS if bits.startswith(code))
            text, bits = text + DIGITS[digit], bits[len(digit) :]
        return int(text)


@dataclass
class Result:
    """What became of a stream."""

    statuses: list[int]
    body: bytes
    # The code of a RST_STREAM, or nothing where the stream ended well.
    reset: int | None

    @property
    def status(self) -> int | None:
        """The final status."""
        return self.statuses[-1] if self.statuses else None


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Put a frame together."""
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def integer(value: int, prefix: int) -> bytes:
    """Write an integer of HPACK, in the low bits of the first byte."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes([value])
    data, value = bytes([most]), value - most
    while value >= 128:
        data, value = data + bytes([value & 127 | 128]), value >> 7
    return data + bytes([value])


def block(fields: Fields) -> bytes:
    """Write fields as literals that are not remembered."""
    parts = []
    for pair in fields:
        name, value = (text.encode("latin-1") for text in pair)
        parts.append(b"\0" + integer(len(name), 7) + name + integer(len(value), 7) + value)
    return b"".join(parts)


def headers(stream: int, fields: Fields, flags: int = END_HEADERS | END_STREAM) -> bytes:
    """Put a HEADERS frame together."""
    return frame(HEADERS, flags, stream, block(fields))


def window_update(stream: int, more: int) -> bytes:
    """Put a WINDOW_UPDATE frame together."""
    return frame(WINDOW_UPDATE, 0, stream, struct.pack("!I", more))


def reset(stream: int, code: int = CANCEL) -> bytes:
    """Put a RST_STREAM frame together."""
    return frame(RST_STREAM, 0, stream, struct.pack("!I", code))


def settings(*pairs: tuple[int, int]) -> bytes:
    """Put a SETTINGS frame together."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack("!HI", *pair) for pair in pairs))


def with_field(*more: tuple[str, str]) -> Fields:
    """Give the fields of a GET with more behind."""
    return [*GET, *more]


def without(name: str) -> Fields:
    """Give the fields of a GET but this one."""
    return [pair for pair in GET if pair[0] != name]


def at(path: str, method: str = "GET") -> Fields:
    """Give the fields of a request for this path."""
    return [(":method", method), (":scheme", "http"), (":authority", "a.example"), (":path", path)]


class Frames:
    """A connection of one's own that has said its preface."""

    def __init__(self, connection: socket.socket, *pairs: tuple[int, int]) -> None:
        self.socket = connection
        self.rest = b""
        self.seen: list[Frame] = []
        self.send(PREFACE + settings(*pairs))

    def send(self, data: bytes) -> None:
        """Send these bytes; a server that has had enough may have closed."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def next(self) -> Frame | None:
        """Read the next frame, or nothing if the connection ended; settings and pings are answered."""
        while len(self.rest) < 9 or len(self.rest) < 9 + int.from_bytes(self.rest[:3], "big"):
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self.rest += data
        length = int.from_bytes(self.rest[:3], "big")
        kind, flags, stream = struct.unpack("!BBI", self.rest[3:9])
        found = Frame(kind, flags, stream, self.rest[9 : 9 + length])
        self.rest = self.rest[9 + length :]
        self.seen.append(found)
        if kind in {SETTINGS, PING} and not flags & ACK:
            self.send(frame(kind, ACK, 0, found.payload if kind == PING else b""))
        return found

    def until(self, kind: int, stream: int | None = None) -> Frame:
        """Read up to a frame of this kind."""
        while (found := self.next()) is not None:
            if found.kind == kind and stream in {None, found.stream}:
                return found
        raise AssertionError(f"the connection ended without a frame of kind {kind}: {self.seen[-5:]}")

    def result(self, stream: int) -> Result:
        """Read what becomes of a stream, while its windows stay open."""
        result = Result([], b"", None)
        while (found := self.next()) is not None:
            if found.stream != stream:
                continue
            # Behind the final one stand trailers.
            if found.kind == HEADERS and (result.status or 100) < 200:
                result.statuses.append(found.status)
            if found.kind == DATA:
                result.body += found.payload
                if found.payload:
                    self.send(window_update(0, len(found.payload)))
                    if not found.flags & END_STREAM:
                        self.send(window_update(stream, len(found.payload)))
            if found.kind == RST_STREAM:
                result.reset = found.code
                return result
            if found.kind in {HEADERS, DATA} and found.flags & END_STREAM:
                return result
        raise AssertionError(f"the connection ended in stream {stream}: {self.seen[-5:]}")

    def ask(self, stream: int, fields: Fields, body: bytes | None = None) -> Result:
        """Ask, and read what becomes of it."""
        if body is None:
            self.send(headers(stream, fields))
        else:
            self.send(headers(stream, fields, END_HEADERS) + frame(DATA, END_STREAM, stream, body))
        return self.result(stream)

    def ending(self) -> int | None:
        """Read to the end of the connection; give the code of the last GOAWAY."""
        code = None
        while (found := self.next()) is not None:
            if found.kind == GOAWAY:
                code = found.code
        return code


@contextmanager
def frames(port: int, *pairs: tuple[int, int]) -> Iterator[Frames]:
    """Open a connection of one's own with these settings, and close it."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Frames(connection, *pairs)
