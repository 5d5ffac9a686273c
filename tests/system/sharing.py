"""A FastCGI server that takes several requests on a connection, or says so, and answers as its test says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from gateways import ABORT, BEGIN, END, GET_VALUES, PARAMS, STDIN, STDOUT, VALUES, Records, pairs, read_pairs, record
from server import Answer, Server, eventually
from upstreams import Peer, Upstream

SHARES = {"FCGI_MPXS_CONNS": "1"}


@dataclass
class Call:
    """A request that has arrived whole, and where."""

    peer: Peer
    number: int
    variables: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def path(self) -> str:
        """What was asked for."""
        return self.variables["PATH_INFO"]

    def head(self, length: int | None = None) -> bytes:
        """Begin an answer."""
        fields = b"" if length is None else f"Content-Length: {length}\r\n".encode()
        return record(STDOUT, b"Content-Type: text/plain\r\n" + fields + b"\r\n", self.number)

    def text(self, text: str) -> bytes:
        """Go on with it."""
        return record(STDOUT, text.encode(), self.number)

    def end(self, ending: int = 0) -> bytes:
        """End it."""
        return record(END, bytes([0, 0, 0, 0, ending, 0, 0, 0]), self.number)

    def answer(self, text: str | None = None) -> None:
        """Answer with this text, else with the path and the length of the body."""
        text = f"{self.path} {len(self.body)}" if text is None else text
        self.peer.send(self.head(len(text)) + self.text(text) + record(STDOUT, b"", self.number) + self.end())


@dataclass
class Application:
    """What a server does. Its methods run in the threads of the connections, one at a time."""

    says: Mapping[str, str] | bytes | None
    arrived: Callable[[Application, Call], None] = lambda _, call: call.answer()
    questions: int = 0
    calls: list[Call] = field(default_factory=list)
    # Those that wait to be answered, where a test keeps them.
    waiting: list[Call] = field(default_factory=list)
    aborted: list[tuple[int, int]] = field(default_factory=list)
    closed: set[int] = field(default_factory=set)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __call__(self, _upstream: Upstream, peer: Peer) -> None:
        """Serve a connection to its end."""
        records, begun = Records(peer.socket), dict[int, tuple[Call, bytes]]()
        while (got := records.next()) is not None:
            kind, number, content = got
            with self.lock:
                if kind == GET_VALUES:
                    if not self.tell(peer):
                        return
                elif kind == BEGIN:
                    assert number not in begun, "the number is in use"
                    begun[number] = (Call(peer, number), b"")
                elif kind == ABORT:
                    self.aborted.append((peer.number, number))
                elif number in begun:
                    call, params = begun[number]
                    if kind == PARAMS:
                        begun[number] = (call, params + content)
                    elif kind == STDIN and content:
                        call.body += content
                    elif kind == STDIN:
                        call.variables = read_pairs(params)
                        self.calls.append(call)
                        del begun[number]
                        self.arrived(self, call)
        self.closed.add(peer.number)

    def tell(self, peer: Peer) -> bool:
        """Answer what is asked for once, before requests; false to end the connection."""
        self.questions += 1
        if isinstance(self.says, bytes):
            peer.send(self.says)
        elif self.says is not None:
            peer.send(record(VALUES, pairs(self.says), 0))
        return self.says is not None


def gate(folder: Path, upstream: Upstream, more: str = "") -> Server:
    """Put the gate before it, with one event loop: all requests can share one connection."""
    (folder / "daemun.toml").write_text(
        f'[server]\nevent_loops = 1\n[upstream.app]\nservers = ["fastcgi://127.0.0.1:{upstream.port}"]\n{more}\n'
        f'[[route]]\npath = "/*"\nupstream = "app"\n'
    )
    return Server(cwd=folder)


def until_shared(server: Server, application: Application) -> None:
    """Ask until a request is not the first of its connection: one that has it for itself always is."""

    def shares() -> bool:
        assert server.get("/first").text == "/first 0"
        return application.calls[-1].number > 1

    eventually(shares, "requests share a connection")


def together(server: Server, paths: Sequence[str]) -> list[Answer]:
    """Ask for all of them at once."""
    with ThreadPoolExecutor(len(paths)) as pool:
        return list(pool.map(server.get, paths))
