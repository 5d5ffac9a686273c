"""Clients that are there beside those that are measured, as a program of its own so that its time is nobody's.

python -m comparison.crowd slow PORT COUNT             a byte a second on each connection, half heads and half bodies
python -m comparison.crowd held PORT COUNT PATH [tls]  each asks once and then waits

It says `ready` when all are connected, and on the end of its standard input what became of them, as JSON.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"a" * 4000
BODY = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000\r\n\r\n"
# The connections of one part send their byte together, a second after their last.
PARTS = 20
# Until a crowd is there: ten thousand handshakes on a busy core.
READY = 300.0
# For how long idle connections are opened: ten thousand handshakes take twenty seconds of a core that is not busy.
GATHER = 90.0


class CrowdError(Exception):
    """The crowd could not be gathered."""


class Slow:
    """A client that sends a byte at a time, and comes back when it is hung up on."""

    def __init__(self, port: int, *, posts: bool) -> None:
        self._port = port
        self._posts = posts
        self.again = 0
        self._connect()

    def _connect(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        self._socket.setblocking(False)
        self._sent = 0
        if self._posts:
            self._socket.send(BODY)

    def step(self) -> None:
        """Send a byte; begin anew where the server has ended it."""
        try:
            with contextlib.suppress(BlockingIOError):
                if not self._socket.recv(65536):
                    raise ConnectionResetError
            self._sent += self._socket.send(b"x" if self._posts else HEAD[self._sent : self._sent + 1])
        except BlockingIOError:
            return
        except OSError:
            self._socket.close()
            self.again += 1
            with contextlib.suppress(OSError):
                self._connect()


def slow(port: int, count: int) -> dict[str, int]:
    """Send slowly until standard input ends."""
    clients = [Slow(port, posts=bool(number % 2)) for number in range(count)]
    print("ready", flush=True)
    part = 0
    while not select.select([sys.stdin], [], [], 1 / PARTS)[0]:
        for client in clients[part::PARTS]:
            client.step()
        part = (part + 1) % PARTS
    return {"clients": count, "hung_up_on": sum(client.again for client in clients)}


def held(port: int, path: str, count: int, *, secure: bool) -> dict[str, int]:
    """Ask once on each connection, and hold them all until standard input ends."""
    from .scenarios import unverified

    context = unverified() if secure else None
    size = 13 if path == "/" else 1024
    connections: list[socket.socket] = []
    # Where a server takes no more, or the slower the more there are, those that came are the figure.
    until = time.monotonic() + GATHER
    with contextlib.suppress(OSError):
        while len(connections) < count and time.monotonic() < until:
            connections.append(_asked(port, path, size, context))
    print("ready", flush=True)
    sys.stdin.read()
    return {"clients": count, "held": sum(map(is_open, connections))}


def _asked(port: int, path: str, size: int, context: ssl.SSLContext | None) -> socket.socket:
    """Give a connection that has asked once and been answered whole."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    if context:
        connection = context.wrap_socket(connection)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    answer = b""
    while len(answer.partition(b"\r\n\r\n")[2]) < size:
        more = connection.recv(65536)
        if not more:
            raise ConnectionResetError
        answer += more
    connection.setblocking(False)
    return connection


def is_open(connection: socket.socket) -> bool:
    """Whether the server has not ended it; what TLS sends behind a handshake is no end."""
    try:
        while connection.recv(65536):
            pass
    except OSError as error:
        # In TLS "would block" is an error of its own, SSLWantReadError.
        return isinstance(error, BlockingIOError) or type(error).__name__ == "SSLWantReadError"
    return False


class Beside:
    """A crowd that is there."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.became: dict[str, int] = {}

    def end(self) -> None:
        """Let it go, and learn what became of it."""
        if self._process.poll() is None or not self.became:
            said, _ = self._process.communicate(timeout=60)
            if self._process.returncode == 0:
                self.became = json.loads(said)


@contextlib.contextmanager
def beside(*words: str) -> Iterator[Beside]:
    """Gather a crowd; it is let go at the end of the block, if not before."""
    command = [sys.executable, "-m", "comparison.crowd", *words]
    process = subprocess.Popen(
        command,
        cwd=Path(__file__).resolve().parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    crowd = Beside(process)
    try:
        if not select.select([process.stdout], [], [], READY)[0] or process.stdout.readline() != "ready\n":
            process.kill()
            raise CrowdError(f"the crowd did not come: {process.communicate()[1][-2000:]}")
        yield crowd
        crowd.end()
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Be the crowd that the words name."""
    kind, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    became = slow(port, count) if kind == "slow" else held(port, sys.argv[4], count, secure=sys.argv[5:] == ["tls"])
    print(json.dumps(became), flush=True)


if __name__ == "__main__":
    main()
