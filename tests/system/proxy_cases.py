"""What servers do that they should not, and what a proxy's client gets of it."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from compared import Case
from upstreams import Peer, Upstream, answer
from wire import Reply, Wire

# How long a proxy is told to wait for a server.
TIMEOUT = 1
HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"
CHUNK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
CHUNKED = CHUNK + b"0\r\n\r\n"
# More than the buffers of two sockets take: or a request is out before its answer is read, and the connection rightly
# used again.
LARGE = b"x" * 24_000_000


@dataclass(frozen=True)
class Asked:
    """Who is asked, and how long."""

    port: int
    patience: float


@dataclass(frozen=True)
class Deed:
    """What a server does where this path is asked for: what it sends, and how it ends."""

    sends: bytes = b""
    # `keep` goes on with the next request, `close` and `reset` end the connection, `half` ends one direction of it,
    # `hang` does nothing more.
    ends: str = "keep"
    # Nothing is read beyond the head before it answers.
    early: bool = False


def misbehave(_: Upstream, peer: Peer) -> None:
    """Do what the path says, and answer `/next` as it should be."""
    while True:
        head = peer.head()
        if head is None:
            return
        path = head[0].split(" ")[1]
        deed = DEEDS.get(path, Deed(answer(path.encode())))
        if not deed.early:
            length = next((int(value) for name, value in head[1] if name.lower() == "content-length"), 0)
            while len(peer.rest) < length and peer.more():
                pass
            peer.rest = peer.rest[length:]
        peer.send(deed.sends)
        if deed.ends == "half":
            peer.socket.shutdown(socket.SHUT_WR)
        elif deed.ends == "reset":
            peer.reset()
            return
        if deed.early or deed.ends in {"half", "hang"}:
            while peer.more():
                pass
            return
        if deed.ends == "close":
            return


def request(path: str, method: str = "GET", body: bytes = b"") -> bytes:
    """Write a request."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nHost: a\r\n{length}\r\n".encode() + body


def final(wire: Wire, method: str = "GET") -> Reply | None:
    """Read the final answer."""
    reply = wire.reply(method)
    while reply is not None and reply.status < 200:
        reply = wire.reply(method)
    return reply


def told(reply: Reply | None) -> str:
    """Say what an answer is. One that shows that it is not whole is the same whether it was begun or not."""
    if reply is None or not reply.complete or reply.status in {500, 502, 503}:
        return "an error"
    body = reply.body.decode("latin-1") if reply.status < 400 else ""
    return " ".join([str(reply.status), *([body] if len(body) < 40 else [f"{len(body)} bytes"])]).strip()


def ask(asked: Asked, path: str, method: str) -> str:
    """Ask for this, then for others on the same connection and on new ones: each has to get what is its own."""
    body = LARGE if method == "POST" else b""
    wire = Wire(asked.port)
    wire.socket.settimeout(asked.patience)
    try:
        wire.send(request(path, method, body))
        first = told(final(wire, method))
        right = 0
        for number in range(6):
            wire.send(request(f"/next{number}"))
            reply = final(wire)
            if reply is None:
                # It was closed, as it may be.
                wire.close()
                wire = Wire(asked.port)
                wire.socket.settimeout(asked.patience)
                wire.send(request(f"/next{number}"))
                reply = final(wire)
            right += reply is not None and (reply.status, reply.body) == (200, f"/next{number}".encode())
    finally:
        wire.close()
    return first if right == 6 else f"{first}, then {6 - right} of 6 wrong"


DEEDS: dict[str, Deed] = {}
CASES: list[Case[Asked]] = []


def case(says: str, source: str, right: str, deed: Deed, method: str = "GET") -> None:
    """Note a deed and what is right."""
    path = f"/{len(CASES)}"
    DEEDS[path] = deed
    CASES.append(Case(says, source, lambda asked: ask(asked, path, method), right))


ERROR = "an error"
case("An answer", "RFC 9110, 15.3.1", "200 fine", Deed(answer(b"fine")))
case("Reset instead of an answer", "RFC 9110, 15.6.3", ERROR, Deed(ends="reset"))
case("Reset in the head", "RFC 9110, 15.6.3", ERROR, Deed(b"HTTP/1.1 200 OK\r\nContent-Le", "reset"))
case("Reset in a body with a length", "RFC 9112, 8", ERROR, Deed(HELLO, "reset"))
case("Reset in a body in chunks", "RFC 9112, 8", ERROR, Deed(CHUNK, "reset"))
case("Closed instead of an answer", "RFC 9110, 15.6.3", ERROR, Deed(ends="close"))
case("Closed in the head", "RFC 9112, 8", ERROR, Deed(b"HTTP/1.1 200 OK\r\nContent-Le", "close"))
case("Closed in a body with a length", "RFC 9112, 8", ERROR, Deed(HELLO, "close"))
case("Closed in a body in chunks", "RFC 9112, 8", ERROR, Deed(CHUNK, "close"))
case("Closed before the last chunk's end", "RFC 9112, 8", ERROR, Deed(CHUNK + b"0\r\n", "close"))
case("Closed as the end of a body", "RFC 9112, 6.3", "200 fine", Deed(b"HTTP/1.1 200 OK\r\n\r\nfine", "close"))
case("Half-closed instead of an answer", "RFC 9112, 9.6", ERROR, Deed(ends="half"))
case("Half-closed in the head", "RFC 9112, 9.6", ERROR, Deed(b"HTTP/1.1 200 OK\r\nContent-Le", "half"))
case("Half-closed in a body with a length", "RFC 9112, 9.6", ERROR, Deed(HELLO, "half"))
case("Half-closed in a body in chunks", "RFC 9112, 9.6", ERROR, Deed(CHUNK, "half"))
case("Half-closed behind an answer", "RFC 9112, 9.6", "200 fine", Deed(answer(b"fine"), "half"))
case("Hangs instead of an answer", "RFC 9110, 15.6.5", "504", Deed(ends="hang"))
case("Hangs in the head", "RFC 9110, 15.6.5", "504", Deed(b"HTTP/1.1 200 OK\r\nContent-Le", "hang"))
case("Hangs in a body with a length", "RFC 9112, 8", ERROR, Deed(HELLO, "hang"))
case("Hangs in a body in chunks", "RFC 9112, 8", ERROR, Deed(CHUNK, "hang"))
case("Speaks SSH", "RFC 9112, 4", ERROR, Deed(b"SSH-2.0-OpenSSH_9.9\r\n", "close"))
case("Sends bytes of no protocol", "RFC 9112, 4", ERROR, Deed(bytes(range(256)) * 40, "close"))
case("A status that is no number", "RFC 9112, 4", ERROR, Deed(b"HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n"))
case("Both a length and chunks", "RFC 9112, 6.3", ERROR, Deed(CHUNKED.replace(b"\r\nT", b"\r\nContent-Length: 2\r\nT")))
case(
    "Two lengths",
    "RFC 9112, 6.3",
    ERROR,
    Deed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", "close"),
)
case("A length that is none", "RFC 9112, 6.3", ERROR, Deed(HELLO.replace(b"10", b"-5"), "close"))
case("A chunk whose size is none", "RFC 9112, 7.1", ERROR, Deed(CHUNKED.replace(b"5\r\nh", b"xyz\r\nh"), "close"))
case(
    "A chunk that is longer than its size", "RFC 9112, 7.1", ERROR, Deed(CHUNKED.replace(b"hello", b"hello!"), "close")
)
case(
    "A 101 that nobody asked for",
    "RFC 9110, 15.2.2",
    ERROR,
    Deed(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nbytes", "close"),
)
case(
    "Answers before it has read 24 MB",
    "RFC 9112, 9.5",
    "413",
    Deed(answer(b"too large", "413 Content Too Large"), early=True),
    "POST",
)
case("Two answers", "RFC 9112, 9.2", "200 first", Deed(answer(b"first") + answer(b"stolen")))
case("Two answers, the first in chunks", "RFC 9112, 9.2", "200 hello", Deed(CHUNKED + answer(b"stolen")))
case("Surplus bytes behind an answer", "RFC 9112, 9.2", "200 first", Deed(answer(b"first") + b"surplus"))
case("An answer to HEAD with a body", "RFC 9110, 9.3.2", "200", Deed(answer(b"stolen")), "HEAD")
case("A 204 with a body", "RFC 9110, 15.3.5", "204", Deed(b"HTTP/1.1 204 No Content\r\n\r\n" + answer(b"stolen")))
