"""A seeded differential test: what clients write, what the gate makes of it, and what a strict reader behind it gets.

One request in, at most one out: whatever bytes come, the server behind the gate never sees a request that a strict
reader does not find in them, at the same place and with the same body.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path

import strict
from server import Server
from upstreams import Peer, Upstream, answer
from wire import Wire

# 20 s of a debug build when nothing else runs. DAEMUN_FUZZ_TIMES makes it longer.
MESSAGES = 1200 * int(os.environ.get("DAEMUN_FUZZ_TIMES", "1"))
SEED = int(os.environ.get("DAEMUN_FUZZ_SEED", "20260101"))

PARTS = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"\r\n ", b"\x0b", b"\xa0", b"\x85", b"#", b"?", b"//",
    b"/../",
    b"%2f", b"%00", b"0\r\n\r\n", b"1\r\nZ\r\n", b"0", b"10000000000000000", b"0x3", b"+3", b"-1", b"3;a=b", b"3 ",
    b"_",
    b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"content-length : 5\r\n", b"Content_Length: 4\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding: gzip, chunked\r\n",
    b"Transfer-Encoding:\x0bchunked\r\n", b"transfer-encoding: Chunked \r\n", b"Transfer_Encoding: chunked\r\n",
    b"Connection: close\r\n", b"Connection: content-length\r\n", b"Connection: transfer-encoding, host\r\n",
    b"Host: b\r\n", b"Expect: 100-continue\r\n", b"TE: trailers\r\n", b"Trailer: X-A\r\n", b"Upgrade: h2c\r\n",
    b" HTTP/1.0\r\n", b" HTTP/1.1\r\n", b" HTTP/1.9\r\n", b"http://b/", b"*", b"GET /inner HTTP/1.1\r\nHost: a\r\n\r\n",
]  # fmt: skip


def bases() -> list[bytes]:
    """Messages that are well."""
    get = b"GET /one HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\r\n"
    length = b"POST /two HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world"
    chunked = (
        b"POST /three HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX-T: u\r\n\r\n"
    )
    old = b"POST /four HTTP/1.0\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc"
    inner = (
        b"PUT /five HTTP/1.1\r\nHost: a\r\nContent-Length: 38\r\n\r\nGET /inner HTTP/1.1\r\nHost: a\r\nX: abc\r\n\r\n"
    )
    whole = b"OPTIONS http://c.example/six?q HTTP/1.1\r\nHost: c.example\r\n\r\n"
    return [get, length, chunked, old, inner, whole, get + length, chunked + get, length + chunked + old, inner + inner]


def mutated(chance: random.Random) -> bytes:
    """Give a message with some changes."""
    data = bytearray(chance.choice(bases()))
    for _ in range(chance.randint(0, 3)):
        at = chance.randint(0, len(data))
        until = min(len(data), at + chance.randint(0, 12))
        kind = chance.randint(0, 5)
        if kind == 0 and at < len(data):
            data[at] = chance.randrange(256)
        elif kind == 1:
            data[at:at] = chance.choice(PARTS)
        elif kind == 2:
            data[at:until] = chance.choice(PARTS)
        elif kind == 3:
            del data[at:until]
        elif kind == 4:
            data[at:at] = data[at:until]
        else:
            # Where fields begin: more of them change what a message means.
            line = data.find(b"\r\n") + 2
            data[line:line] = chance.choice(PARTS)
    return bytes(data)


@dataclass
class Recorder:
    """A server that takes nothing but what is strictly a request."""

    # Whether a request may be cut: its client left while it was being passed on.
    may_be_cut: bool
    seen: list[strict.Request] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __call__(self, upstream: Upstream, peer: Peer) -> None:
        """Note each request, and whatever is none."""
        while True:
            try:
                request, peer.rest = strict.read(peer.rest)
            except strict.NotWhole:
                if peer.more():
                    continue
                if peer.rest and not self.may_be_cut:
                    self.wrong.append(f"half a request: {peer.rest!r}")
                return
            except strict.NotARequest as error:
                self.wrong.append(f"{error}: {peer.rest!r}")
                return
            if peer.rest:
                self.wrong.append(f"behind a request came {peer.rest!r}")
            self.seen.append(request)
            peer.send(answer(b"seen"))


def test_one_request_in_is_at_most_one_out(tmp_path: Path) -> None:
    print(f"DAEMUN_FUZZ_SEED={SEED}")
    chance = random.Random(SEED)
    run(tmp_path, [mutated(chance) for _ in range(MESSAGES)])


def test_one_request_in_is_at_most_one_out_where_bodies_are_streamed(tmp_path: Path) -> None:
    print(f"DAEMUN_FUZZ_SEED={SEED + 1}")
    chance = random.Random(SEED + 1)
    run(tmp_path, [mutated(chance) for _ in range(MESSAGES // 2)], streamed=True)


ROUTE = """\
[server]
header_timeout = "2s"

[upstream.strict]
servers = ["URL"]
retries = 0

[[route]]
path = "/*"
upstream = "strict"
"""


def run(folder: Path, messages: list[bytes], streamed: bool = False) -> None:
    """Send each message on a connection of its own; compare what came out with what a strict reader finds in it."""
    recorder = Recorder(may_be_cut=streamed)
    with Upstream(behaviour=recorder) as upstream:
        text = ROUTE.replace("URL", upstream.url) + ("request_buffering = false\n" if streamed else "")
        (folder / "daemun.toml").write_text(text)
        with Server(cwd=folder) as server:
            passed = 0
            for number, message in enumerate(messages):
                place = f"message {number}, {message!r}"
                recorder.seen.clear()
                wire = Wire(server.port)
                wire.send(message)
                wire.half_close()
                while wire.reply() is not None:
                    pass
                wire.close()
                out = list(recorder.seen)
                passed += len(out)
                assert not recorder.wrong, f"{place}: {recorder.wrong}"
                found = iter(strict.all_of(message))
                for got in out:
                    # In their order; one that has no canonical path is answered by the gate itself.
                    assert any((got.method, got.body) == (sent.method, sent.body) for sent in found), f"{place}: {out}"
                    assert got.all("content-length") in ([], [str(len(got.body))]), f"{place}: {got}"
            # A gate that lets nothing through would pass.
            assert passed > len(messages) // 4
