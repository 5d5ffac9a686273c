"""Servers that speak HTTP/2: nginx, a daemun behind TLS, and some that do as no server should."""

from __future__ import annotations

import os
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from authority import Authority
from frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    NO_ERROR,
    PREFACE,
    REFUSED_STREAM,
    block,
    frame,
    reset,
    settings,
)
from peers import program, started
from server import Server
from test_proxy import configure
from test_proxy_tls import secured
from upstreams import Peer, Upstream, unused_port
from wire import wire

CONFIGURATION = """\
daemon off; master_process off; pid {run}/nginx.pid; error_log {run}/nginx.log;
events {{ worker_connections 256; }}
http {{
    access_log off; client_body_temp_path {run}; proxy_temp_path {run}; fastcgi_temp_path {run};
    uwsgi_temp_path {run}; scgi_temp_path {run}; keepalive_requests 1000;
    server {{
        listen 127.0.0.1:{port} http2;
        location / {{ return 200 "$server_protocol $request_method $host $request_uri $connection $http_x_kept"; }}
        location /file {{ alias {run}/file; }}
    }}
}}
"""


@contextmanager
def nginx(run: Path) -> Iterator[str]:
    """Run nginx with HTTP/2 in the clear; give its URL."""
    with unused_port() as port:
        pass
    (run / "file").write_bytes(bytes(range(256)) * 16384)
    (run / "nginx.conf").write_text(CONFIGURATION.format(run=run, port=port))
    command = [program("nginx"), "-e", str(run / "nginx.log"), "-c", str(run / "nginx.conf")]
    with started(command, port, run / "nginx.log") as listening:
        yield f"h2c://127.0.0.1:{listening}"


def test_nginx_is_asked_over_one_connection_by_many(tmp_path: Path) -> None:
    with nginx(tmp_path) as url:
        configure(tmp_path, url, more='health = { path = "/", body = "HTTP/2.0", interval = "100ms" }')
        with Server(cwd=tmp_path) as server:
            headers = {"Host": "shop.example", "X-Kept": "yes", "Connection": "X-Hop", "X-Hop": "1"}
            reply = server.ask("/a%2Fb?x=%20y", "POST", b"body", headers)
            words = reply.text.split(" ")
            assert [*words[:4], words[5]] == ["HTTP/2.0", "POST", "shop.example", "/a%2Fb?x=%20y", "yes"]
            # Each event loop has one of its own.
            numbers = {words[4], *(server.get("/").text.split(" ")[4] for _ in range(40))}
            assert len(numbers) <= (os.cpu_count() or 1)
            assert server.get("/file").body == (tmp_path / "file").read_bytes()
            file = server.ask("/file", "HEAD").headers
            assert file["Content-Length"] == str(256 * 16384)
            # nginx wants the very date.
            assert server.get("/file", {"If-Modified-Since": file["Last-Modified"]}).status == 304
            # Upgrades are for HTTP/1.1 alone: nginx answers what it was asked.
            with wire(server.port) as client:
                client.send(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                upgraded = client.reply()
                assert upgraded is not None
                assert upgraded.status == 200


def test_many_large_answers_at_a_time_are_each_their_own(tmp_path: Path) -> None:
    with nginx(tmp_path) as url:
        configure(tmp_path, url)
        wanted = (tmp_path / "file").read_bytes()
        with Server(cwd=tmp_path) as server:
            right: list[bool] = []

            def one() -> None:
                right.append(server.get("/file").body == wanted)

            threads = [threading.Thread(target=one) for _ in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert right == [True] * 16


def test_a_server_behind_tls_agrees_to_http2_and_gets_bodies_of_any_size(tmp_path: Path) -> None:
    authority, app = Authority(tmp_path), tmp_path / "app"
    app.mkdir()
    own = authority.sign("localhost", "localhost")
    (app / "app.py").write_text(
        "def application(environ, start_response):\n"
        "    body = environ['wsgi.input'].read()\n"
        "    start_response('200 OK', [('X-Protocol', environ['SERVER_PROTOCOL'])])\n"
        "    return [body[::-1]]\n"
    )
    (app / "daemun.toml").write_text(
        '[server]\nlisten = ["https://127.0.0.1:0"]\n'
        f'[[tls]]\ncert = "{own.cert}"\nkey = "{own.key}"\n[app.echo]\nwsgi = "app:application"\n'
    )
    with Server(cwd=app, listen="") as behind:
        configure(tmp_path, f"h2://localhost:{behind.port}", more=f'tls = {{ ca_file = "{authority.cert}" }}')
        with Server(cwd=tmp_path) as server:
            for size in (0, 1, 70_000, 3_000_000):
                body = bytes(range(250)) * (size // 250) + b"x" * (size % 250)
                reply = server.ask("/", "PUT", body)
                assert (reply.status, reply.body == body[::-1]) == (200, True), size
                assert reply.headers["X-Protocol"] == "HTTP/2.0"
        configure(tmp_path, f"h2://127.0.0.1:{behind.port}", more=f'tls = {{ ca_file = "{authority.cert}" }}')
        with Server(cwd=tmp_path) as server:
            assert server.get("/").status == 502
            server.wait_for("not valid for name")


def test_a_server_that_does_not_agree_to_http2_gets_no_request(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.sign("localhost", "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.cert, own.key)
    with secured(context) as upstream:
        configure(tmp_path, f"h2://localhost:{upstream.port}", more=f'tls = {{ ca_file = "{authority.cert}" }}')
        with Server(cwd=tmp_path) as server:
            assert server.get("/").status == 502
            server.wait_for("does not agree to HTTP/2")
        assert upstream.asked == []


def begin(peer: Peer) -> bool:
    """Shake hands, and read until the head of a request is there."""
    while len(peer.rest) < len(PREFACE):
        if not peer.more():
            return False
    assert peer.rest.startswith(PREFACE)
    peer.rest = peer.rest[len(PREFACE) :]
    peer.send(settings())
    return head(peer) > 0


def head(peer: Peer) -> int:
    """Read until the head of the next request; give its stream."""
    while True:
        while len(peer.rest) < 9 or len(peer.rest) < 9 + int.from_bytes(peer.rest[:3], "big"):
            if not peer.more():
                return 0
        length, kind = int.from_bytes(peer.rest[:3], "big"), peer.rest[3]
        stream = int.from_bytes(peer.rest[5:9], "big")
        peer.rest = peer.rest[9 + length :]
        if kind == HEADERS:
            return stream


def answered(stream: int, body: bytes) -> bytes:
    """Answer in two frames."""
    fields = block([(":status", "200")])
    return frame(HEADERS, END_HEADERS, stream, fields) + frame(DATA, END_STREAM, stream, body)


Behaviour = Callable[[Upstream, Peer], None]


def misbehaving(reply: Callable[[int], bytes]) -> Behaviour:
    """Make a server that answers the first request of a connection with these bytes."""

    def behave(_: Upstream, peer: Peer) -> None:
        if begin(peer):
            peer.send(reply(1))
            while peer.more():
                pass

    return behave


def cleartext(upstream: Upstream) -> str:
    """Give the URL of a server that speaks HTTP/2 in the clear."""
    return upstream.url.replace("http://", "h2c://")


def test_what_was_not_begun_goes_to_another_server_whatever_the_method(tmp_path: Path) -> None:
    goaway = frame(GOAWAY, 0, 0, struct.pack("!II", 0, NO_ERROR))
    for reply in (lambda stream: reset(stream, REFUSED_STREAM), lambda _: goaway):
        with Upstream("bad", misbehaving(reply)) as bad, Upstream("good") as good:
            configure(tmp_path, cleartext(bad), f'{{ url = "{good.url}", backup = true }}', more="failures = 100")
            with Server(cwd=tmp_path) as server:
                assert server.ask("/", "POST", b"abc").text == "good / 3"


def test_what_may_have_been_begun_is_never_sent_twice(tmp_path: Path) -> None:
    for reply in (lambda stream: reset(stream, 2), lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n"):
        with Upstream("bad", misbehaving(reply)) as bad, Upstream("good") as good:
            configure(tmp_path, cleartext(bad), f'{{ url = "{good.url}", backup = true }}', more="failures = 100")
            with Server(cwd=tmp_path) as server:
                assert server.ask("/", "POST", b"abc").status == 502
                assert server.get("/").text == "good / 0"


def test_an_answer_that_is_cut_or_hangs_never_looks_whole(tmp_path: Path) -> None:
    begun = frame(HEADERS, END_HEADERS, 1, block([(":status", "200")])) + frame(DATA, 0, 1, b"some")
    for reply in (lambda _: begun + reset(1, 2), lambda _: begun):
        with Upstream("bad", misbehaving(reply)) as bad:
            configure(tmp_path, cleartext(bad), more='read_timeout = "300ms"')
            with Server(cwd=tmp_path) as server, wire(server.port) as client:
                client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                answer = client.reply()
                assert answer is None or not answer.complete
    with Upstream("bad", misbehaving(lambda _: b"")) as bad:
        configure(tmp_path, cleartext(bad), more='read_timeout = "300ms"')
        with Server(cwd=tmp_path) as server:
            assert server.get("/").status == 504


def test_a_connection_that_ends_between_requests_costs_none(tmp_path: Path) -> None:
    def once(_: Upstream, peer: Peer) -> None:
        if begin(peer):
            peer.send(answered(1, b"fine"))
            # The next request finds a connection that ends.
            head(peer)

    with Upstream(behaviour=once) as upstream:
        configure(tmp_path, cleartext(upstream), more="failures = 1")
        with Server(cwd=tmp_path) as server:
            assert [server.get("/").text for _ in range(6)] == ["fine"] * 6
            assert "gets nothing" not in server.errors.text
