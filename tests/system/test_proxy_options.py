"""What an upstream does when asked to: reading ahead of slow clients, avoiding slow servers, asking two at once."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from server import Server, eventually, front, resident
from test_proxy import configure
from upstreams import Peer, Upstream, answer
from wire import wire

MIB = 1 << 20
BLOCK = bytes(range(256)) * 4096


class Large:
    """A server that sends so many MiB, and knows when they are out."""

    def __init__(self, blocks: int, fields: str = "") -> None:
        self.blocks, self.fields, self.sent = blocks, fields, threading.Event()

    def __call__(self, upstream: Upstream, peer: Peer) -> None:
        """Answer every request."""
        while (asked := peer.request()) is not None:
            upstream.asked.append(asked)
            peer.send(f"HTTP/1.1 200 OK\r\nContent-Length: {self.blocks * MIB}\r\n{self.fields}\r\n".encode())
            for _ in range(self.blocks):
                peer.send(BLOCK)
            self.sent.set()


def test_a_slow_client_holds_no_server_while_it_reads_and_no_memory_either(tmp_path: Path) -> None:
    large = Large(64)
    with Upstream(behaviour=large) as upstream:
        configure(tmp_path, upstream.url, more="max_connections = 1")
        with Server(cwd=tmp_path) as server, wire(server.port) as client:
            before = resident(front(server))
            client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
            head = client.head()
            assert head is not None
            # The client has read nothing of the body: the server is done, and free for the next one.
            assert large.sent.wait(60)
            with wire(server.port) as other:
                other.send(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
                assert other.head() is not None
            eventually(lambda: len(upstream.asked) == 2, "the server has two requests")
            assert [asked.connection for asked in upstream.asked] == [0, 0]
            assert resident(front(server)) - before < 24 * MIB
            for _ in range(64):
                while len(client.rest) < MIB:
                    client.rest += client.socket.recv(MIB)
                assert client.rest[:MIB] == BLOCK
                client.rest = client.rest[MIB:]
            assert client.rest == b""


def test_with_a_full_spool_the_server_waits_and_the_answer_is_whole(tmp_path: Path) -> None:
    for more, spool in [("", 'max_spool = "1MiB"'), ('response_buffering = { memory = "64KiB", disk = "3MiB" }', "")]:
        large = Large(24)
        with Upstream(behaviour=large) as upstream:
            configure(tmp_path, upstream.url, more=more)
            file = tmp_path / "daemun.toml"
            file.write_text(f"[server]\n{spool}\n" + file.read_text())
            with Server(cwd=tmp_path) as server, wire(server.port) as client:
                client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
                reply = client.reply()
                assert reply is not None
                assert reply.body == BLOCK * 24


def test_an_answer_that_is_cut_stays_cut_behind_what_was_read_ahead(tmp_path: Path) -> None:
    def cut(_: Upstream, peer: Peer) -> None:
        if peer.request() is not None:
            peer.send(f"HTTP/1.1 200 OK\r\nContent-Length: {9 * MIB}\r\n\r\n".encode() + BLOCK * 8)

    with Upstream(behaviour=cut) as upstream:
        configure(tmp_path, upstream.url)
        with Server(cwd=tmp_path) as server, wire(server.port) as client:
            client.send(b"GET /cut HTTP/1.1\r\nHost: a\r\n\r\n")
            reply = client.reply()
            assert reply is not None
            assert (reply.complete, reply.body == BLOCK * 8) == (False, True)


def test_what_is_there_is_sent_at_once(tmp_path: Path) -> None:
    go = threading.Event()

    def events(_: Upstream, peer: Peer) -> None:
        if peer.request() is not None:
            peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _number in range(5):
                peer.send(b"5\r\nevent\r\n")
                go.wait()
                go.clear()
            peer.send(b"0\r\n\r\n")

    for more in ("", "response_buffering = false"):
        with Upstream(behaviour=events) as upstream:
            configure(tmp_path, upstream.url, more=more)
            with Server(cwd=tmp_path) as server, wire(server.port) as client:
                client.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
                assert client.head() is not None
                for _ in range(5):
                    assert client.chunk() == b"event"
                    go.set()
                assert client.chunk() == b""


def test_cookies_are_rewritten_where_that_is_asked_for(tmp_path: Path) -> None:
    def login(_: Upstream, peer: Peer) -> None:
        while peer.request() is not None:
            cookies = ["a=1; Domain=127.0.0.1; Path=/; Secure", "b=2; path=/cart", "c=3; Domain=example.com"]
            peer.send(answer(b"", "200 OK", *(f"Set-Cookie: {cookie}" for cookie in cookies)))

    with Upstream(behaviour=login) as upstream:
        configure(tmp_path, upstream.url, more="rewrite_cookies = true")
        file = tmp_path / "daemun.toml"
        file.write_text(file.read_text().replace('path = "/*"', 'path = "/shop/*"\nstrip_prefix = "/shop"'))
        with Server(cwd=tmp_path) as server:
            cookies = server.get("/shop/").headers.get_all("Set-Cookie")
            assert cookies == ["a=1; Path=/shop; Secure", "b=2; Path=/shop/cart", "c=3; Domain=example.com"]


def test_a_server_that_is_slower_than_the_others_is_left_alone(tmp_path: Path) -> None:
    def slow(upstream: Upstream, peer: Peer) -> None:
        while (asked := peer.request()) is not None:
            upstream.asked.append(asked)
            time.sleep(0.7)
            peer.send(answer(b"slow"))

    with Upstream("slow", slow) as bad, Upstream("good") as good, Upstream("fine") as fine:
        options = 'slow = { times = 2, over = "300ms", answers = 3 }\neject = "1h"'
        configure(tmp_path, bad.url, good.url, fine.url, more=options)
        with Server(cwd=tmp_path) as server:
            line = f"{bad.url} gets nothing for 3600 s: its answers take"

            def is_told() -> bool:
                server.get("/")
                return line in server.errors.text

            eventually(is_told, "the slow one is left alone")
            assert {server.get("/").text for _ in range(6)} == {"good / 0", "fine / 0"}


def test_a_second_server_is_asked_where_the_first_takes_long(tmp_path: Path) -> None:
    def hang(upstream: Upstream, peer: Peer) -> None:
        if (asked := peer.request()) is not None:
            upstream.asked.append(asked)
            while peer.more():
                pass

    with Upstream("bad", hang) as bad, Upstream("good") as good:
        options = 'hedge = "50ms"\nread_timeout = "3s"\nfailures = 100'
        configure(tmp_path, bad.url, f'{{ url = "{good.url}", backup = true }}', more=options)
        with Server(cwd=tmp_path) as server:
            assert server.get("/x").text == "good /x 0"
            assert server.ask("/x", "PUT", b"abc").text == "good /x 3"
            assert server.ask("/x", "POST", b"order").status == 504
            assert [asked.line.split(" ")[0] for asked in bad.asked] == ["GET", "PUT", "POST"]
            assert [asked.line.split(" ")[0] for asked in good.asked] == ["GET", "PUT"]


def test_the_first_server_may_still_answer_where_the_second_fails(tmp_path: Path) -> None:
    go = threading.Event()

    def late(upstream: Upstream, peer: Peer) -> None:
        if (asked := peer.request()) is not None:
            upstream.asked.append(asked)
            go.wait()
            peer.send(answer(b"late"))

    def broken(_: Upstream, peer: Peer) -> None:
        if peer.request() is not None:
            peer.reset()
            go.set()

    with Upstream("late", late) as one, Upstream("broken", broken) as other:
        configure(tmp_path, one.url, f'{{ url = "{other.url}", backup = true }}', more='hedge = "50ms"')
        with Server(cwd=tmp_path) as server:
            assert server.get("/").text == "late"
