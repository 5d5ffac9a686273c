"""Servers behind the gate: each answers as its test says, also as no server should, and remembers what it was asked."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType

from server import DEADLINE


@dataclass
class Asked:
    """A request as it arrived."""

    line: str
    fields: list[tuple[str, str]]
    body: bytes
    # Which connection it came over, counted from 0.
    connection: int

    def all(self, name: str) -> list[str]:
        """Every value of a field, in order."""
        return [value for key, value in self.fields if key.lower() == name.lower()]


class Peer:
    """One connection from the gate."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.socket = sock
        self.number = number
        self.rest = b""

    def more(self) -> bool:
        """Read on; false at the end."""
        try:
            data = self.socket.recv(65536)
        except OSError:
            return False
        self.rest += data
        return bool(data)

    def head(self) -> tuple[str, list[tuple[str, str]]] | None:
        """Read the head of a request, or nothing where no more comes."""
        while b"\r\n\r\n" not in self.rest:
            if not self.more():
                return None
        head, self.rest = self.rest.split(b"\r\n\r\n", 1)
        line, *lines = head.decode("latin-1").split("\r\n")
        pairs = [line.split(": ", 1) for line in lines]
        return line, [(pair[0], pair[1]) for pair in pairs]

    def request(self) -> Asked | None:
        """Read a request with its body."""
        head = self.head()
        if head is None:
            return None
        line, fields = head
        length = next((int(value) for key, value in fields if key.lower() == "content-length"), 0)
        while len(self.rest) < length:
            if not self.more():
                return None
        body, self.rest = self.rest[:length], self.rest[length:]
        return Asked(line, fields, body, self.number)

    def send(self, data: bytes) -> None:
        """Send these bytes; the gate may have had enough."""
        with suppress(OSError):
            self.socket.sendall(data)

    def reset(self) -> None:
        """Tear the connection down."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()


def answer(body: bytes, status: str = "200 OK", *fields: str) -> bytes:
    """Write a plain answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


Behaviour = Callable[["Upstream", Peer], None]


def plain(upstream: Upstream, peer: Peer) -> None:
    """Answer every request with the upstream's name, the target and the length of the body."""
    while (asked := peer.request()) is not None:
        upstream.asked.append(asked)
        target = asked.line.split(" ")[1]
        peer.send(answer(f"{upstream.name} {target} {len(asked.body)}".encode()))


@dataclass
class Upstream:
    """A server with one behaviour."""

    name: str = "a"
    behaviour: Behaviour = plain
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    host: str = "127.0.0.1"
    port: int = 0

    def __enter__(self) -> Upstream:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self.listener = socket.create_server((self.host, self.port), family=family)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                sock.settimeout(DEADLINE)
                self.open.append(sock)
                peer = Peer(sock, self.connections)
                self.connections += 1
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: Peer) -> None:
        with suppress(OSError):
            self.behaviour(self, peer)
            peer.socket.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in self.open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


@contextmanager
def unused_port() -> Iterator[int]:
    """Give a port that refuses connections: it is bound, and nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]
