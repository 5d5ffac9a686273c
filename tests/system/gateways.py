"""FastCGI, SCGI and uwsgi as the other side speaks them: servers behind the gate, and web servers before it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from server import DEADLINE
from upstreams import Peer

BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, STDERR = range(1, 8)
GET_VALUES, VALUES, UNKNOWN = 9, 10, 11


def record(kind: int, content: bytes = b"", number: int = 1) -> bytes:
    """Write a FastCGI record."""
    return struct.pack(">BBHHBx", 1, kind, number, len(content), 0) + content


def length(size: int) -> bytes:
    """Write the length of a name or value."""
    return bytes([size]) if size < 128 else struct.pack(">I", size | 1 << 31)


def pairs(values: Mapping[str, str]) -> bytes:
    """Write names and values as FastCGI has them."""
    text = b""
    for name, value in values.items():
        text += length(len(name)) + length(len(value)) + name.encode() + value.encode()
    return text


def read_pairs(text: bytes) -> dict[str, str]:
    """Read names and values."""
    found, at = {}, 0
    while at < len(text):
        sizes = []
        for _ in range(2):
            if text[at] < 128:
                sizes.append(text[at])
                at += 1
            else:
                sizes.append(struct.unpack_from(">I", text, at)[0] & 0x7FFFFFFF)
                at += 4
        name = text[at : at + sizes[0]]
        found[name.decode()] = text[at + sizes[0] : at + sum(sizes)].decode("latin-1")
        at += sum(sizes)
    return found


@dataclass
class Request:
    """A request as a FastCGI server hears it."""

    number: int
    keeps: bool
    variables: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Records:
    """One side of a FastCGI connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        sock.settimeout(DEADLINE)

    def exactly(self, size: int) -> bytes:
        """Read that many bytes, or fewer at the end."""
        data = b""
        while len(data) < size and (more := self.socket.recv(size - len(data))):
            data += more
        return data

    def next(self) -> tuple[int, int, bytes] | None:
        """Read a record: kind, number, content; nothing at the end."""
        header = self.exactly(8)
        if len(header) < 8:
            return None
        _, kind, number, size, padding = struct.unpack(">BBHHBx", header)
        content = self.exactly(size)
        self.exactly(padding)
        return kind, number, content

    def request(self) -> Request | None:
        """Read a whole request."""
        request, params = None, b""
        while (got := self.next()) is not None:
            kind, number, content = got
            if kind == BEGIN:
                request = Request(number, bool(content[2] & 1))
            elif request is not None and kind == PARAMS:
                params += content
                if not content:
                    request.variables = read_pairs(params)
            elif request is not None and kind == STDIN:
                request.body += content
                if not content:
                    return request
        return None

    def answer(self) -> tuple[bytes, bytes]:
        """Read an answer up to its end: the output, and how it ended."""
        output = b""
        while (got := self.next()) is not None:
            kind, _, content = got
            if kind == STDOUT:
                output += content
            elif kind == END:
                return output, content
        raise AssertionError(f"the connection ended within an answer: {output!r}")


def ask_fastcgi(variables: Mapping[str, str], body: bytes = b"", number: int = 1, *, keeps: bool = True) -> bytes:
    """Write a request."""
    begin = record(BEGIN, struct.pack(">HB5x", 1, keeps), number)
    params = record(PARAMS, pairs(variables), number) + record(PARAMS, b"", number)
    stdin = (record(STDIN, body, number) if body else b"") + record(STDIN, b"", number)
    return begin + params + stdin


def ask_scgi(variables: Mapping[str, str], body: bytes = b"") -> bytes:
    """Write a request."""
    text = f"CONTENT_LENGTH\0{len(body)}\0SCGI\x001\0" + "".join(f"{k}\0{v}\0" for k, v in variables.items())
    return f"{len(text)}:{text},".encode() + body


def ask_uwsgi(variables: Mapping[str, str], body: bytes = b"", modifier: int = 0) -> bytes:
    """Write a request."""
    said = {**variables, "CONTENT_LENGTH": str(len(body)) if body else ""}
    parts = [part.encode() for pair in said.items() for part in pair]
    text = b"".join(struct.pack("<H", len(part)) + part for part in parts)
    return struct.pack("<BHB", modifier, len(text), 0) + text + body


def until_end(sock: socket.socket) -> bytes:
    """Read up to the end of the connection."""
    sock.settimeout(DEADLINE)
    data = b""
    while more := sock.recv(65536):
        data += more
    return data


def told(variables: Mapping[str, str]) -> bytes:
    """Answer with what the variables say of the script, as CGI has it."""
    fields = [f"X-{name.replace('_', '-')}: {variables.get(name, '')}" for name in ("SCRIPT_NAME", "PATH_INFO")]
    fields += [f"X-Script: {variables.get('SCRIPT_FILENAME', '')}", "Content-Type: text/plain"]
    # Other servers' words are bytes; ours came from bytes that were read so.
    return ("Status: 200 OK\r\n" + "\r\n".join(fields) + "\r\n\r\nhello").encode("latin-1")


def tell_fastcgi(_: object, peer: Peer) -> None:
    """Answer each request with what it says of its script."""
    records = Records(peer.socket)
    while (asked := records.request()) is not None:
        output = record(STDOUT, told(asked.variables), asked.number) + record(STDOUT, b"", asked.number)
        peer.send(output + record(END, bytes(8), asked.number))
        if not asked.keeps:
            return


def tell_scgi(_: object, peer: Peer) -> None:
    """Answer one request."""
    size = b""
    while (byte := peer.socket.recv(1)) not in {b":", b""}:
        size += byte
    # With the comma behind it: what is left unread would tear the connection down.
    names = Records(peer.socket).exactly(int(size) + 1).decode("latin-1").split("\0")
    peer.send(told(dict(zip(names[::2], names[1::2], strict=False))))


def tell_uwsgi(_: object, peer: Peer) -> None:
    """Answer one request."""
    records = Records(peer.socket)
    _, size, _ = struct.unpack("<BHB", records.exactly(4))
    text, values = records.exactly(size), []
    while text:
        (count,) = struct.unpack_from("<H", text)
        values.append(text[2 : 2 + count].decode("latin-1"))
        text = text[2 + count :]
    peer.send(told(dict(zip(values[::2], values[1::2], strict=False))).replace(b"Status:", b"HTTP/1.1", 1))
