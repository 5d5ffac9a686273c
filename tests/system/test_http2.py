"""HTTP/2 through the whole program: what is understood, what is refused, and what it may cost."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import frames as h2
import pytest
from frames import WINDOW, Fields, at, frame, frames, headers, reset, settings, window_update, with_field, without
from gate import Gate
from server import DEADLINE, Server, front, resident
from upstreams import Peer, Upstream, answer

APPLICATION = """\
import json
import signal
from gate import hold

ran = []

def application(environ, start_response):
    path = environ["PATH_INFO"]
    ran.append(path)
    if path == "/held":
        hold()
    if path == "/midway":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return midway()
    if path == "/early":
        environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload")])
    if path == "/large":
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3000000")])
        return [b"x" * 1_000_000] * 3
    if path == "/lost":
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            ran.append(f"lost {error}")
            raise
    said = {name: value for name, value in environ.items() if isinstance(value, str)}
    body = environ["wsgi.input"].read() if path != "/unread" else b""
    answer = json.dumps({"environ": said, "body": len(body), "ran": ran}).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [answer]

def midway():
    yield b"beginning"
    raise RuntimeError("the test asked for it")
"""

CONFIGURATION = """\
[server]
listen = ["127.0.0.1:0"]
keep_alive = "1s"
max_body = "60kB"
[app.a]
wsgi = "app:application"
processes = 1
threads = 1
[[route]]
path = "/static/*"
static = { root = "static" }
[[route]]
path = "/*"
app = "a"
"""


@pytest.fixture
def server(tmp_path: Path, gate: Gate) -> Iterator[Server]:
    """One thread, and files."""
    (tmp_path / "app.py").write_text(APPLICATION)
    (tmp_path / "gate.py").write_text(Gate.MODULE)
    (tmp_path / "daemun.toml").write_text(CONFIGURATION)
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "a.txt").write_text("a file")
    (tmp_path / "static" / "large").write_bytes(bytes(range(256)) * 20_000)
    with Server("--config", "daemun.toml", cwd=tmp_path, env=gate.env, listen="") as server:
        yield server


def test_a_request_reaches_the_application_as_http_1_1_would_bring_it(server: Server) -> None:
    """And the access log says HTTP/2.0."""
    crumbs = [("cookie", "a=1"), ("cookie", "b=2"), ("x-token", "t"), ("te", "trailers")]
    with frames(server.port) as connection:
        result = connection.ask(1, [*at("/p%20q?x=y", "POST"), *crumbs, ("content-length", "5")], b"12345")
        assert (result.status, result.reset) == (200, None)
        said = json.loads(result.body)
        environ = said["environ"]
        assert said["body"] == 5
        assert environ["HTTP_COOKIE"] == "a=1; b=2"
        assert (environ["PATH_INFO"], environ["QUERY_STRING"], environ["REQUEST_URI"]) == ("/p q", "x=y", "/p%20q?x=y")
        assert (environ["HTTP_HOST"], environ["SERVER_NAME"]) == ("a.example", "a.example")
        assert (environ["HTTP_X_TOKEN"], environ["CONTENT_LENGTH"]) == ("t", "5")
        assert (environ["SERVER_PROTOCOL"], environ["wsgi.url_scheme"]) == ("HTTP/2.0", "http")
        assert "HTTP_TE" not in environ
    server.wait_for(r'"POST /p%20q\?x=y HTTP/2\.0" 200 ', server.access)


def test_files_heads_and_large_bodies_come_whole(server: Server) -> None:
    """Each on a stream of one connection."""
    with frames(server.port) as connection:
        assert connection.ask(1, at("/static/a.txt")).body == b"a file"
        head = connection.ask(3, at("/static/a.txt", "HEAD"))
        assert (head.status, head.body, head.reset) == (200, b"", None)
        assert connection.ask(5, at("/static/large")).body == bytes(range(256)) * 20_000
        assert len(connection.ask(7, at("/large")).body) == 3_000_000
        assert connection.ask(9, at("/static/none")).status == 404
        options = connection.ask(11, at("*", "OPTIONS"))
        assert (options.status, options.body) == (200, b"")


def test_early_hints_go_ahead_of_the_answer(server: Server) -> None:
    """As a HEADERS frame of their own."""
    with frames(server.port) as connection:
        assert connection.ask(1, at("/early")).statuses == [103, 200]


def test_a_100_is_sent_when_the_handler_wants_the_body(server: Server) -> None:
    """And the body is taken then."""
    with frames(server.port) as connection:
        fields = [*at("/", "POST"), ("expect", "100-continue"), ("content-length", "3")]
        connection.send(headers(1, fields, h2.END_HEADERS))
        assert connection.until(h2.HEADERS, 1).status == 100
        connection.send(frame(h2.DATA, h2.END_STREAM, 1, b"abc"))
        assert json.loads(connection.result(1).body)["body"] == 3


REFUSED: dict[str, Fields] = {
    "a Host that differs": with_field(("host", "b.example")),
    "no authority": without(":authority"),
    "user information": [*without(":authority"), (":authority", "u@a.example")],
    "an authority with a space": [*without(":authority"), (":authority", "a b")],
    "a value with a space before it": with_field(("x-a", " b")),
    "a value with a tab behind it": with_field(("x-a", "b\t")),
    "two lengths": with_field(("content-length", "0"), ("content-length", "0")),
    "a length that is none": with_field(("content-length", "+1")),
    "an absolute path": [*without(":path"), (":path", "http://a.example/")],
    "a path without a slash": [*without(":path"), (":path", "a")],
    "an empty path": [*without(":path"), (":path", "")],
    "a path with a space": [*without(":path"), (":path", "/a b")],
    "a path above the root": [*without(":path"), (":path", "/../a")],
    "a NUL in the path": [*without(":path"), (":path", "/%00")],
    "an asterisk with GET": [*without(":path"), (":path", "*")],
    "an unknown expectation": with_field(("expect", "200-ok")),
    "connection": with_field(("connection", "close")),
    "keep-alive": with_field(("keep-alive", "1")),
    "proxy-connection": with_field(("proxy-connection", "close")),
    "transfer-encoding": with_field(("transfer-encoding", "chunked")),
    "upgrade": with_field(("upgrade", "h2c")),
    "te: gzip": with_field(("te", "gzip")),
    "upper case in a name": with_field(("X-A", "b")),
    "a line end in a value": with_field(("x-a", "b\r\nx-c: d")),
    "a NUL in a value": with_field(("x-a", "b\0")),
    "a colon in a name": with_field(("x:a", "b")),
    "an empty name": with_field(("", "b")),
    "no method": without(":method"),
    "no scheme": without(":scheme"),
    "no path": without(":path"),
    "two paths": with_field((":path", "/b")),
    "an unknown pseudo-field": with_field((":other", "b")),
    "a status": with_field((":status", "200")),
    "a pseudo-field behind a field": [*without(":path"), ("x-a", "b"), (":path", "/")],
    "CONNECT": [(":method", "CONNECT"), (":authority", "a.example:443")],
}


@pytest.mark.parametrize("fields", REFUSED.values(), ids=REFUSED)
def test_a_request_that_is_malformed_never_reaches_the_application(server: Server, fields: Fields) -> None:
    """It gets a 4xx or 501, or its stream is reset; the connection goes on or ends, and the next request is its own."""
    with frames(server.port) as connection:
        connection.send(headers(1, fields))
        found = connection.next()
        while found is not None and found.kind not in {h2.HEADERS, h2.RST_STREAM, h2.GOAWAY}:
            found = connection.next()
        assert found is not None
        if found.kind == h2.HEADERS:
            assert found.status in {400, 417, 501}
        else:
            assert found.code == h2.PROTOCOL_ERROR
    with frames(server.port) as connection:
        assert json.loads(connection.ask(1, at("/next")).body)["ran"] == ["/next"]


def test_a_body_that_is_not_as_long_as_it_said_is_a_protocol_error(server: Server) -> None:
    """Shorter or longer; what the application reads of it never ends well."""
    with frames(server.port) as connection:
        for stream, length in [(1, "4"), (3, "2")]:
            result = connection.ask(stream, [*at("/lost", "POST"), ("content-length", length)], b"abc")
            assert result.reset == h2.PROTOCOL_ERROR
        ran = json.loads(connection.ask(5, at("/")).body)["ran"]
        assert all(path.startswith(("/lost", "lost ")) for path in ran[:-1])


def test_a_body_that_is_too_long_is_a_413(server: Server) -> None:
    """Told before it is sent, or found while it comes."""
    with frames(server.port) as connection:
        connection.send(headers(1, [*at("/", "POST"), ("content-length", str(1 << 21))], h2.END_HEADERS))
        assert connection.until(h2.HEADERS, 1).status == 413
    with frames(server.port) as connection:
        connection.send(headers(1, at("/", "POST"), h2.END_HEADERS))
        connection.send(frame(h2.DATA, 0, 1, bytes(16_000)) * 4)
        result = connection.result(1)
        assert (result.status, result.reset) == (413, None)
        assert connection.until(h2.RST_STREAM).code == h2.NO_ERROR


def test_an_answer_that_breaks_is_reset_and_never_looks_whole(server: Server) -> None:
    """The other streams of the connection live. A reset may overtake what waits to be written (RFC 9113, 6.4)."""
    with frames(server.port) as connection:
        result = connection.ask(1, at("/midway"))
        assert result.reset == h2.INTERNAL_ERROR
        assert (result.status, result.body) in {(200, b"beginning"), (200, b""), (None, b"")}
        assert connection.ask(3, at("/")).status == 200


def test_a_request_that_is_taken_back_never_runs(server: Server, gate: Gate) -> None:
    """While it waits for a worker it costs nothing; the one that runs is logged as taken back."""
    with frames(server.port) as connection:
        connection.send(headers(1, at("/held")))
        gate.entered()
        connection.send(headers(3, at("/cancelled")) + reset(3))
        server.wait_for(r'"GET /cancelled HTTP/2\.0" 499 ', server.access)
        connection.send(headers(5, at("/after")))
        gate.open()
        assert json.loads(connection.result(5).body)["ran"] == ["/held", "/after"]


def test_rapid_reset_is_cut(server: Server, gate: Gate) -> None:
    """CVE-2023-44487: requests that are taken back as soon as they are sent."""
    with frames(server.port) as connection:
        connection.send(headers(1, at("/held")))
        gate.entered()
        for stream in range(3, 403, 2):
            connection.send(headers(stream, at("/rapid")) + reset(stream))
        assert connection.ending() == h2.ENHANCE_YOUR_CALM
        gate.open()
    with frames(server.port) as connection:
        assert "/rapid" not in json.loads(connection.ask(1, at("/")).body)["ran"]


PROVOKED = {"a window that is too large": WINDOW + 65535, "a window that does not grow": 0}


@pytest.mark.parametrize("more", PROVOKED.values(), ids=PROVOKED)
def test_resets_that_the_client_provokes_are_cut(server: Server, gate: Gate, more: int) -> None:
    """CVE-2025-8671, MadeYouReset: the client makes us reset its streams."""
    with frames(server.port) as connection:
        connection.send(headers(1, at("/held")))
        gate.entered()
        for stream in range(3, 403, 2):
            connection.send(headers(stream, at("/provoked")) + window_update(stream, more))
        assert connection.ending() in {h2.ENHANCE_YOUR_CALM, h2.PROTOCOL_ERROR}
        gate.open()
    with frames(server.port) as connection:
        assert "/provoked" not in json.loads(connection.ask(1, at("/")).body)["ran"]


def test_a_head_without_end_is_cut(server: Server) -> None:
    """CONTINUATION flood (CVE-2024-27316): frames of a head that never ends."""
    more = frame(h2.CONTINUATION, 0, 1, block_of_fields(16_000))
    before = resident(front(server))
    with frames(server.port) as connection:
        connection.send(headers(1, at("/"), h2.END_STREAM))
        for _ in range(200):
            connection.send(more)
        assert connection.ending() in {h2.ENHANCE_YOUR_CALM, h2.PROTOCOL_ERROR}
    assert resident(front(server)) - before < 4 << 20


def block_of_fields(size: int) -> bytes:
    """Fields of about so many bytes."""
    return h2.block([("x-a", "b" * 100)] * (size // 106))


def test_an_hpack_bomb_is_refused_within_the_limit_of_heads(server: Server) -> None:
    """One large field that is remembered, then named again and again by a byte: a little too much, and 600 times."""
    before = resident(front(server))
    for times, told in [(20, h2.HEADERS), (10_000, h2.GOAWAY)]:
        bomb = b"\x40\x03x-b" + h2.integer(4000, 7) + b"b" * 4000 + b"\xbe" * times
        with frames(server.port) as connection:
            connection.send(frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, h2.block(at("/bomb")) + bomb))
            found = connection.until(told)
            assert found.status == 431 if told == h2.HEADERS else found.code == h2.ENHANCE_YOUR_CALM
    assert resident(front(server)) - before < 4 << 20


FLOODS = {
    "pings": frame(h2.PING, 0, 0, bytes(8)),
    "settings": settings((h2.MAX_CONCURRENT_STREAMS, 1)),
    "priorities": frame(h2.PRIORITY, 0, 1, struct.pack("!IB", 3, 1)),
    "window updates": window_update(0, 1),
    "unknown frames": frame(99, 0, 0, bytes(8)),
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_frames_that_bring_nothing_are_cut(server: Server, flood: bytes) -> None:
    """CVE-2019-9512, 9515 and 9513: cheap to send, and each one work."""
    before = resident(front(server))
    with frames(server.port) as connection:
        for _ in range(64):
            connection.send(flood * (65_536 // len(flood)))
        assert connection.ending() == h2.ENHANCE_YOUR_CALM
    assert resident(front(server)) - before < 16 << 20


def test_empty_data_frames_are_cut(server: Server) -> None:
    """CVE-2019-9518."""
    with frames(server.port) as connection:
        connection.send(headers(1, at("/unread", "POST"), h2.END_HEADERS))
        for _ in range(400):
            connection.send(frame(h2.DATA, 0, 1) * 1000)
        assert connection.ending() == h2.ENHANCE_YOUR_CALM


def test_streams_beyond_the_limit_are_refused_and_may_be_sent_again(server: Server, gate: Gate) -> None:
    """The limit stands in our settings."""
    with frames(server.port) as connection:
        said = connection.until(h2.SETTINGS).payload
        limits = dict(struct.unpack("!HI", said[place : place + 6]) for place in range(0, len(said), 6))
        most = limits[h2.MAX_CONCURRENT_STREAMS]
        connection.send(headers(1, at("/held")))
        gate.entered()
        for stream in range(3, 2 * most + 3, 2):
            connection.send(headers(stream, at("/waits")))
        assert connection.until(h2.RST_STREAM).code == h2.REFUSED_STREAM
        gate.open()


def test_a_client_that_opens_no_window_does_not_stay(server: Server) -> None:
    """Answers wait in memory for as long as an idle connection is kept, and no longer."""
    with frames(server.port, (h2.INITIAL_WINDOW_SIZE, 0)) as connection:
        for stream in range(1, 101, 2):
            connection.send(headers(stream, at("/static/a.txt")))
        assert connection.ending() == h2.NO_ERROR
    server.wait_for(r'"GET /static/a.txt HTTP/2\.0" 200 ', server.access)


def test_an_idle_connection_ends_with_a_goodbye(server: Server) -> None:
    """After `keep_alive`; a ping is no request."""
    with frames(server.port) as connection:
        assert connection.ask(1, at("/static/a.txt")).status == 200
        connection.send(frame(h2.PING, 0, 0, bytes(8)))
        assert connection.ending() == h2.NO_ERROR


def test_a_preface_that_is_none_is_answered_in_http_1_1(server: Server) -> None:
    """What only begins like one is a request like any other."""
    for text, status in [
        (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b"505"),
        (b"PATCH /static/a.txt HTTP/1.1\r\n\r\n", b"400"),
    ]:
        done = subprocess.run(
            ["curl", "-s", "--max-time", "20", "--output", "-", f"telnet://127.0.0.1:{server.port}"],
            input=text,
            capture_output=True,
            timeout=DEADLINE,
        )
        assert done.stdout.startswith(b"HTTP/1.1 " + status), done.stdout


def test_what_is_in_flight_is_finished_when_the_server_stops(server: Server, gate: Gate) -> None:
    """The client is told by GOAWAY; the connection ends with the last answer."""
    with frames(server.port) as connection:
        connection.send(headers(1, at("/held")))
        gate.entered()
        server.send(signal.SIGTERM)
        connection.until(h2.GOAWAY)
        gate.open()
        result = connection.result(1)
        assert (result.status, result.reset) == (200, None)
        connection.ending()
    assert server.exit_code() == 0


def test_an_idle_connection_does_not_delay_a_stop(server: Server) -> None:
    """It gets a GOAWAY; the grace of 25 s is not needed."""
    with frames(server.port) as connection:
        assert connection.ask(1, at("/static/a.txt")).status == 200
        server.send(signal.SIGTERM)
        assert connection.ending() == h2.NO_ERROR
        assert server.exit_code() == 0
    assert "grace is over" not in server.errors.text


def test_many_clients_at_once_are_all_answered(server: Server) -> None:
    """By a load generator that knows the protocol better than we do."""
    url = f"http://127.0.0.1:{server.port}/static/a.txt"
    done = subprocess.run(
        ["h2load", "-n", "2000", "-c", "8", "-m", "32", url], capture_output=True, text=True, timeout=DEADLINE
    )
    assert "2000 succeeded, 0 failed, 0 errored" in done.stdout, done.stdout


def test_an_answer_has_no_fields_of_the_connection(tmp_path: Path) -> None:
    """Those of a server behind, and what its Connection names, end at the gate (RFC 9113, 8.2.2)."""

    def behave(upstream: Upstream, peer: Peer) -> None:
        while peer.request() is not None:
            hop = ["Connection: keep-alive, X-Hop", "Keep-Alive: timeout=5", "X-Hop: 1", "Proxy-Connection: close"]
            peer.send(answer(b"here", "200 OK", *hop, "Upgrade: h2c", "X-Kept: yes"))

    with Upstream(behaviour=behave) as upstream:
        (tmp_path / "daemun.toml").write_text(
            f'[upstream.a]\nservers = ["{upstream.url}"]\n[[route]]\npath = "/*"\nupstream = "a"\n'
        )
        with Server(cwd=tmp_path) as server:
            command = ["curl", "-sS", "--http2-prior-knowledge", "-i", f"http://127.0.0.1:{server.port}/"]
            said = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True).stdout
    head, _, body = said.partition("\n\n")
    names = {line.partition(":")[0].lower() for line in head.splitlines()[1:]}
    assert (head.split()[:2], body) == (["HTTP/2", "200"], "here")
    assert "x-kept" in names
    assert not names & {"connection", "keep-alive", "x-hop", "proxy-connection", "upgrade", "transfer-encoding"}
