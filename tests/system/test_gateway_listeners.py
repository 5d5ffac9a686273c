"""An application that is offered to other web servers, over FastCGI, SCGI and uwsgi."""

from __future__ import annotations

import json
import re
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gateways import (
    ABORT,
    BEGIN,
    END,
    GET_VALUES,
    PARAMS,
    STDIN,
    STDOUT,
    UNKNOWN,
    VALUES,
    Records,
    ask_fastcgi,
    ask_scgi,
    ask_uwsgi,
    pairs,
    read_pairs,
    record,
    until_end,
)
from peers import free_port, program, started
from server import DEADLINE, Server
from wire import ask

APPLICATION = """
import json
from pathlib import Path

def endless():
    while not Path(__file__).with_name("enough").exists():
        yield b"x" * 100000

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/large":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter([b"x" * 100000] * 30)
    if path == "/endless":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return endless()
    if path == "/broken":
        start_response("200 OK", [("Content-Type", "text/plain")])
        def broken():
            yield b"half"
            raise ValueError("broken")
        return broken()
    body = environ["wsgi.input"].read()
    names = ["REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_URI", "REMOTE_ADDR", "HTTP_HOST",
             "wsgi.url_scheme", "HTTP_X_FORWARDED_FOR", "CONTENT_TYPE", "HTTP_X_TWICE", "REMOTE_USER"]
    said = {name: environ.get(name) for name in names}
    said["body"] = len(body)
    text = json.dumps(said).encode()
    start_response("201 Made", [("Content-Type", "application/json"), ("Content-Length", str(len(text)))])
    return [text]
"""


@contextmanager
def offered(folder: Path, protocol: str, more: str = "") -> Iterator[tuple[Server, Path]]:
    """Offer an application on a Unix socket, and over HTTP beside it."""
    (folder / "app.py").write_text(APPLICATION)
    path = folder / "app.sock"
    (folder / "daemun.toml").write_text(
        f'[server]\nlisten = ["127.0.0.1:0", {{ address = "unix:{path}", protocol = "{protocol}" }}]\n{more}\n'
        f'[app.app]\nwsgi = "app:application"\n'
    )
    with Server(cwd=folder, listen="") as server:
        yield server, path


@contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    """Connect to a Unix socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(str(path))
        yield sock


NGINX = """
daemon off; master_process off; pid {run}/nginx.pid; error_log {run}/nginx.log;
events {{}}
http {{
    access_log off; client_body_temp_path {run}/b; proxy_temp_path {run}/p; fastcgi_temp_path {run}/f;
    uwsgi_temp_path {run}/u; scgi_temp_path {run}/s; client_max_body_size 0;
    upstream app {{ server unix:{sock}; keepalive 4; }}
    server {{ listen 127.0.0.1:{port};
        location / {{ include /etc/nginx/{include}; {directives} }}
        location /wiki/ {{ include /etc/nginx/{include}; {mounted} {directives} }} }}
}}
"""
PASS = {
    "uwsgi": ("uwsgi_params", "uwsgi_pass unix:{sock};", ""),
    "scgi": ("scgi_params", "scgi_pass unix:{sock};", ""),
    "fastcgi": (
        "fastcgi_params",
        "fastcgi_pass app; fastcgi_keep_conn on;",
        "fastcgi_split_path_info ^(/wiki)(/.*)$; fastcgi_param SCRIPT_NAME $fastcgi_script_name; "
        "fastcgi_param PATH_INFO $fastcgi_path_info;",
    ),
}


@pytest.mark.parametrize("protocol", ["uwsgi", "scgi", "fastcgi"])
def test_nginx_in_front_cannot_tell_it_from_the_server_before(tmp_path: Path, protocol: str) -> None:
    with offered(tmp_path, protocol) as (_, path):
        path.chmod(0o666)
        include, directives, _mounted = PASS[protocol]
        port = free_port()
        directives = directives.format(sock=path)
        text = NGINX.format(run=tmp_path, sock=path, port=port, include=include, directives=directives, mounted="")
        (tmp_path / "nginx.conf").write_text(text)
        command = [program("nginx"), "-e", str(tmp_path / "nginx.log"), "-c", str(tmp_path / "nginx.conf")]
        with started(command, port, tmp_path / "nginx.log"):
            request = (
                b"POST /a%20b//c?x=%31 HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-For: 6.6.6.6\r\n"
                b"Content-Type: text/plain\r\nContent-Length: 4\r\nX-Twice: 1\r\n\r\nbody"
            )
            for _ in range(5):
                reply = ask(port, request)
                said = json.loads(reply.body)
                assert reply.status == 201
                assert said["REQUEST_METHOD"] == "POST"
                assert (said["QUERY_STRING"], said["REQUEST_URI"]) == ("x=%31", "/a%20b//c?x=%31")
                assert (said["SCRIPT_NAME"], said["REMOTE_ADDR"]) == ("", "127.0.0.1")
                assert re.sub("/+", "/", said["PATH_INFO"]) == "/a b/c"
                assert (said["HTTP_HOST"], said["HTTP_X_FORWARDED_FOR"]) == ("shop.example", "127.0.0.1")
                assert (said["body"], said["CONTENT_TYPE"], said["HTTP_X_TWICE"]) == (4, "text/plain", "1")
            assert len(ask(port, b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").body) == 3_000_000
            big = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n" + b"y" * 2_000_000
            assert json.loads(ask(port, big).body)["body"] == 2_000_000
            assert ask(port, b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD").status == 201


ASKS: dict[str, Callable[..., bytes]] = {
    "uwsgi": ask_uwsgi,
    "scgi": ask_scgi,
    "fastcgi": lambda variables, body=b"": ask_fastcgi(variables, body, keeps=False),
}
SAID = {
    "REQUEST_METHOD": "GET",
    "REQUEST_URI": "/wiki/x?q",
    "SCRIPT_NAME": "/wiki",
    "PATH_INFO": "/x",
    "QUERY_STRING": "q",
    "REMOTE_ADDR": "192.0.2.9",
    "REMOTE_USER": "ada",
    "HTTPS": "on",
    "HTTP_HOST": "a.example",
}


def output(protocol: str, sock: socket.socket) -> bytes:
    """Read an answer."""
    return Records(sock).answer()[0] if protocol == "fastcgi" else until_end(sock)


@pytest.mark.parametrize("protocol", ["uwsgi", "scgi", "fastcgi"])
def test_what_a_trusted_peer_says_of_its_client_is_taken(tmp_path: Path, protocol: str) -> None:
    with offered(tmp_path, protocol) as (server, path), connected(path) as sock:
        sock.sendall(ASKS[protocol](SAID, b"four"))
        head, body = output(protocol, sock).split(b"\r\n\r\n", 1)
        begin = b"HTTP/1.1 201 Made" if protocol == "uwsgi" else b"Status: 201 Made"
        assert head.startswith(begin)
        said = json.loads(body)
        assert (said["SCRIPT_NAME"], said["PATH_INFO"], said["REMOTE_ADDR"]) == ("/wiki", "/x", "192.0.2.9")
        assert (said["wsgi.url_scheme"], said["REMOTE_USER"], said["body"]) == ("https", "ada", 4)
        server.wait_for(r'192\.0\.2\.9 .*"GET /wiki/x\?q', server.access)


@pytest.mark.parametrize("protocol", ["uwsgi", "scgi", "fastcgi"])
def test_nobody_else_says_who_the_client_is(tmp_path: Path, protocol: str) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    port = free_port()
    (tmp_path / "daemun.toml").write_text(
        f'[server]\nlisten = ["127.0.0.1:0", {{ address = "127.0.0.1:{port}", protocol = "{protocol}" }}]\n'
        f'[app.app]\nwsgi = "app:application"\n'
    )
    with (
        Server(cwd=tmp_path, listen="") as server,
        socket.create_connection(("127.0.0.1", port), DEADLINE) as sock,
    ):
        server.wait_for(f"listening on {protocol}://127.0.0.1:{port}")
        assert "trusted_proxies" in server.start_up
        sock.sendall(ASKS[protocol](SAID))
        said = json.loads(output(protocol, sock).split(b"\r\n\r\n", 1)[1])
        assert (said["SCRIPT_NAME"], said["PATH_INFO"], said["REMOTE_ADDR"]) == ("", "/wiki/x", "127.0.0.1")
        assert (said["wsgi.url_scheme"], said["REMOTE_USER"]) == ("http", None)


def test_a_connection_carries_several_requests_one_after_another_and_at_once(tmp_path: Path) -> None:
    with offered(tmp_path, "fastcgi") as (_, path), connected(path) as sock:
        records = Records(sock)
        for number in (1, 1, 7):
            sock.sendall(ask_fastcgi(SAID, number=number))
            assert b'"/wiki"' in records.answer()[0]
        # The body of the first comes last: the second is answered meanwhile.
        first = record(BEGIN, struct.pack(">HB5x", 1, 1), 1)
        first += record(PARAMS, pairs({**SAID, "CONTENT_LENGTH": "3"}), 1) + record(PARAMS, b"", 1)
        sock.sendall(first + ask_fastcgi(SAID, b"seven77", 2))
        ends: list[int] = []
        while not ends:
            got = records.next()
            assert got is not None
            ends += [got[1]] if got[0] == END else []
        assert ends == [2]
        sock.sendall(record(STDIN, b"abc", 1) + record(STDIN, b"", 1))
        assert b'"body": 3' in records.answer()[0]


def test_long_answers_on_one_connection_take_turns(tmp_path: Path) -> None:
    with offered(tmp_path, "fastcgi") as (_, path), connected(path) as sock:
        numbers = {3, 5, 7}
        for number in sorted(numbers):
            sock.sendall(ask_fastcgi({**SAID, "PATH_INFO": "/endless"}, number=number))
        records, said, ended = Records(sock), set[int](), set[int]()
        while ended != numbers:
            kind, number, content = records.next() or (0, 0, b"")
            assert kind in {STDOUT, END}, "the connection ended"
            if kind == END:
                # Each has its turn while the others still have more to say than the connection takes.
                assert said == numbers
                ended.add(number)
            elif b"xxx" in content:
                said.add(number)
                if said == numbers:
                    (tmp_path / "enough").touch()


def test_an_answer_that_fails_ends_its_connection_once_the_others_are_through(tmp_path: Path) -> None:
    with offered(tmp_path, "fastcgi") as (server, path), connected(path) as sock:
        records = Records(sock)
        begun = record(BEGIN, struct.pack(">HB5x", 1, 1), 1)
        begun += record(PARAMS, pairs({**SAID, "CONTENT_LENGTH": "3"}), 1) + record(PARAMS, b"", 1)
        sock.sendall(begun + record(STDIN, b"a", 1) + ask_fastcgi({**SAID, "PATH_INFO": "/broken"}, number=2))
        server.wait_for("the connection was reset")
        sock.sendall(ask_fastcgi(SAID, number=3))
        outputs, ends = {1: b"", 2: b"", 3: b""}, []
        while (got := records.next()) is not None:
            kind, number, content = got
            if kind == END:
                ends.append((number, content))
            else:
                outputs[number] += content
            if ends and number == 3:
                sock.sendall(record(STDIN, b"bc", 1) + record(STDIN, b"", 1))
        # Nothing begins on it any more, the first has all of its answer, and the second no end.
        assert ends == [(3, b"\0\0\0\0\x02\0\0\0"), (1, bytes(8))]
        assert b'"body": 3' in outputs[1]
        assert outputs[2].endswith(b"half")


def test_what_fastcgi_can_ask_besides_is_answered(tmp_path: Path) -> None:
    with offered(tmp_path, "fastcgi") as (_, path), connected(path) as sock:
        records = Records(sock)
        sock.sendall(record(GET_VALUES, pairs({"FCGI_MPXS_CONNS": "", "FCGI_OTHER": ""}), 0))
        kind, number, content = records.next() or (0, 0, b"")
        assert (kind, number, read_pairs(content)) == (VALUES, 0, {"FCGI_MPXS_CONNS": "1"})
        sock.sendall(record(77, b"?", 0))
        assert records.next() == (UNKNOWN, 0, b"\x4d" + bytes(7))
        sock.sendall(record(BEGIN, struct.pack(">HB5x", 3, 1), 4))
        assert records.next() == (END, 4, b"\0\0\0\0\x03\0\0\0")
        sock.sendall(record(BEGIN, struct.pack(">HB5x", 1, 1), 5) + record(ABORT, b"", 5))
        assert records.next() == (END, 5, b"\0\0\0\x01\0\0\0\0")
        sock.sendall(ask_fastcgi(SAID))
        assert records.answer()[0].startswith(b"Status: 201")


def test_a_ping_is_answered(tmp_path: Path) -> None:
    with offered(tmp_path, "uwsgi") as (_, path), connected(path) as sock:
        sock.sendall(bytes([100, 0, 0, 0]))
        assert until_end(sock) == bytes([100, 0, 0, 1])


@pytest.mark.parametrize(
    ("protocol", "sent"),
    [
        ("uwsgi", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + bytes(0x4547)),
        ("uwsgi", bytes([0, 3, 0, 0, 9, 0, 65])),
        ("scgi", b"GET / HTTP/1.1\r\n\r\n"),
        ("scgi", b"5:hello,"),
        ("fastcgi", b"GET / HTTP/1.1\r\n\r\n"),
        ("fastcgi", record(BEGIN, b"\0\1")),
        ("fastcgi", record(6, b"output", 1)),
    ],
)
def test_what_is_not_the_protocol_ends_the_connection(tmp_path: Path, protocol: str, sent: bytes) -> None:
    with offered(tmp_path, protocol) as (server, path):
        with connected(path) as sock:
            sock.sendall(sent)
            assert until_end(sock) == b""
        server.wait_for(f"a {protocol} connection of unix: was ended")
        with connected(path) as sock:
            sock.sendall(ASKS[protocol](SAID))
            assert b"201 Made" in output(protocol, sock)


@pytest.mark.parametrize("protocol", ["uwsgi", "scgi", "fastcgi"])
def test_a_request_that_is_none_is_refused_in_words(tmp_path: Path, protocol: str) -> None:
    with offered(tmp_path, protocol) as (_, path), connected(path) as sock:
        sock.sendall(ASKS[protocol]({**SAID, "REQUEST_METHOD": "NO SUCH"}))
        assert b" 400 Bad Request\r\n" in output(protocol, sock)


@pytest.mark.parametrize("protocol", ["uwsgi", "scgi", "fastcgi"])
def test_half_an_answer_never_passes_for_all_of_it(tmp_path: Path, protocol: str) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    port = free_port()
    (tmp_path / "daemun.toml").write_text(
        f'[server]\nlisten = ["127.0.0.1:0", {{ address = "127.0.0.1:{port}", protocol = "{protocol}" }}]\n'
        f'trusted_proxies = ["127.0.0.1"]\n[app.app]\nwsgi = "app:application"\n'
    )
    with (
        Server(cwd=tmp_path, listen="") as server,
        socket.create_connection(("127.0.0.1", port), DEADLINE) as sock,
    ):
        sock.sendall(ASKS[protocol]({**SAID, "PATH_INFO": "/broken"}))
        with pytest.raises((ConnectionResetError, AssertionError)):
            output(protocol, sock)
        server.wait_for("the connection was reset")


def test_a_stop_ends_idle_connections_and_finishes_requests(tmp_path: Path) -> None:
    with offered(tmp_path, "fastcgi") as (server, path), connected(path) as idle, connected(path) as busy:
        idle.sendall(ask_fastcgi(SAID))
        assert b"201 Made" in Records(idle).answer()[0]
        begun = record(BEGIN, struct.pack(">HB5x", 1, 1)) + record(PARAMS, pairs({**SAID, "CONTENT_LENGTH": "3"}))
        busy.sendall(begun + record(PARAMS) + record(STDIN, b"a"))
        busy.sendall(record(GET_VALUES, b"", 0))
        records = Records(busy)
        assert records.next() == (VALUES, 0, b"")
        server.send(signal.SIGTERM)
        assert idle.recv(1) == b""
        busy.sendall(record(STDIN, b"bc") + record(STDIN))
        assert b'"body": 3' in records.answer()[0]
        assert busy.recv(1) == b""
        assert server.exit_code() == 0
