"""At a limit what is new is refused quickly, by name in the log, and what is there goes on."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from server import BINARY, DEADLINE, Server, front, run
from wire import Reply, Wire

CONFIGURATION = """\
[server]
listen = [{listen}]
{server}

[[route]]
path = "/*"
respond = {{ status = 200, body = "here" }}
"""


def configured(folder: Path, server: str = "", listen: str = '"127.0.0.1:0"') -> Path:
    """A server without an application."""
    (folder / "daemun.toml").write_text(CONFIGURATION.format(server=server, listen=listen))
    return folder


def ask(wire: Wire, head: str = "") -> Reply | None:
    """One request on a connection."""
    wire.send(f"GET / HTTP/1.1\r\nHost: a\r\n{head}\r\n".encode())
    return wire.reply()


def test_a_connection_too_many_hears_503_at_once_and_the_others_go_on(tmp_path: Path) -> None:
    with Server(cwd=configured(tmp_path, "max_connections = 3"), listen="") as server, ExitStack() as stack:
        wires = [Wire(server.port) for _ in range(3)]
        for wire in wires:
            stack.callback(wire.close)
            reply = ask(wire)
            assert reply is not None
            assert reply.status == 200
        for _ in range(5):
            late = Wire(server.port)
            refused = ask(late)
            late.close()
            assert refused is not None
            assert (refused.status, refused.get("Retry-After")) == (503, "1")
            assert refused.get("Connection") == "close"
        server.wait_for(r"refused with 503: 3 are open \(`max_connections` in \[server\]\)")
        assert server.errors.text.count("max_connections") == 1, "once an interval"
        reply = ask(wires[0])
        assert reply is not None
        assert reply.status == 200
        wires[1].close()
        end = time.monotonic() + DEADLINE
        while True:
            again = Wire(server.port)
            answer = ask(again)
            again.close()
            if answer is not None and answer.status == 200:
                break
            assert time.monotonic() < end


def test_one_client_cannot_take_all_connections(tmp_path: Path) -> None:
    folder = configured(tmp_path, "max_connections_per_client = 2")
    with Server(cwd=folder, listen="") as server, ExitStack() as stack:
        for _ in range(2):
            wire = Wire(server.port)
            stack.callback(wire.close)
            assert ask(wire) is not None
        late = Wire(server.port)
        refused = ask(late)
        late.close()
        assert refused is not None
        assert refused.status == 503
        server.wait_for(r"127.0.0.1 has 2 open \(`max_connections_per_client` in \[server\]\)")
        with socket.socket() as other:
            other.bind(("127.0.0.2", 0))
            other.settimeout(DEADLINE)
            other.connect(("127.0.0.1", server.port))
            other.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert other.recv(100).startswith(b"HTTP/1.1 200")


def test_what_is_more_than_a_limit_is_told_with_the_limits_key(tmp_path: Path) -> None:
    settings = 'max_body = "1KiB"\nmax_head = "2KiB"\nmax_fields = 5\nmax_request_line = "1KiB"\nheader_timeout = "1s"'
    with Server(cwd=configured(tmp_path, settings), listen="") as server, ExitStack() as stack:
        for status, key, request in [
            (413, "max_body", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n"),
            (431, "max_head", f"GET / HTTP/1.1\r\nHost: a\r\nX-A: {'a' * 2048}\r\n\r\n"),
            (431, "max_fields", "GET / HTTP/1.1\r\nHost: a\r\n" + "X-A: a\r\n" * 5 + "\r\n"),
            (414, "max_request_line", f"GET /{'a' * 1024} HTTP/1.1\r\nHost: a\r\n\r\n"),
            (408, "header_timeout", "GET / HTTP/1.1\r\nHost: a\r\n"),
        ]:
            wire = Wire(server.port)
            stack.callback(wire.close)
            wire.send(request.encode())
            reply = wire.reply()
            assert reply is not None
            assert (reply.status, key.encode() in reply.body) == (status, False)
            server.wait_for(rf"was refused: .*; `{key}` in \[server\] says what may be")


def test_without_descriptors_accepting_pauses_and_comes_back(tmp_path: Path) -> None:
    program = tmp_path / "limited"
    program.write_text(f'#!/bin/sh\nulimit -n 80\nexec {BINARY} "$@"\n')
    program.chmod(0o755)
    with Server(cwd=configured(tmp_path), listen="", program=program) as server, ExitStack() as stack:
        worker = front(server)
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
        for one in held:
            stack.callback(one.close)
        server.wait_for("accepting pauses: .*ulimit -n")
        ticks = os.sysconf("SC_CLK_TCK")

        def busy() -> float:
            fields = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / ticks

        # Over some seconds, because a tick is a hundredth of one.
        before, began = busy(), time.monotonic()
        with socket.socket() as waiting:
            waiting.settimeout(4)
            waiting.connect(("127.0.0.1", server.port))
            waiting.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            try:
                waiting.recv(1)
                raise AssertionError("there was no descriptor left")
            except TimeoutError:
                pass
        assert (busy() - before) / (time.monotonic() - began) < 0.05, "it waits, it does not spin"
        for one in held:
            one.close()
        wire = Wire(server.port)
        stack.callback(wire.close)
        reply = ask(wire)
        assert reply is not None
        assert reply.status == 200


def test_where_the_spool_takes_no_files_bodies_are_kept_in_memory_up_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "application.py").write_text(
        "def application(environ, start_response):\n"
        "    body = environ['wsgi.input'].read()\n"
        "    start_response('200 OK', [])\n"
        "    return [b'%d' % len(body)]\n"
    )
    # A folder in which nobody makes files, root included.
    (tmp_path / "daemun.toml").write_text('[server]\nspool = "/proc/self"\n[app.a]\nwsgi = "application:application"\n')
    with Server(cwd=tmp_path) as server:
        server.wait_for(r"no file can be made in /proc/self \(.*\): request bodies .* in memory, 64 MiB .* `spool`")
        assert server.ask("/", "POST", b"x" * 5_000_000).text == "5000000"
        assert server.ask("/", "POST", bytes((64 << 20) + 1)).status == 507
        server.wait_for(r"request bodies have reached 64 MiB, all that is kept in memory where `spool` \(/proc/self\)")
        # What was refused has given its room back.
        assert server.ask("/", "POST", bytes(50 << 20)).text == str(50 << 20)


def test_a_full_disk_costs_lines_and_no_requests(tmp_path: Path) -> None:
    server_section = 'access_log = "/dev/full"\nhealth = "127.0.0.1:0"'
    with Server(cwd=configured(tmp_path, server_section), listen="") as server:
        for _ in range(20):
            assert server.get("/").text == "here"
        server.wait_for("lines of the access log were lost")
        health = Wire(int(server.wait_for(r"health on http://127.0.0.1:(\d+)")[1]))
        health.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        reply = health.reply()
        health.close()
        assert reply is not None
        lines = [line for line in reply.body.decode().splitlines() if line.startswith("daemun_log_lines_lost_total")]
        assert int(lines[0].split()[1]) > 0


PROXY = '{ address = "127.0.0.1:0", proxy_protocol = true }'
TELL = """
[app.tell]
wsgi = "tell:app"
processes = 1
"""
APP = """
def app(environ, start_response):
    start_response("200 OK", [])
    names = ("REMOTE_ADDR", "SERVER_PORT", "wsgi.url_scheme", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO")
    return [" ".join(environ[name] for name in names).encode()]
"""


def telling(folder: Path, trusted: str) -> Path:
    """A server whose application tells who the client is."""
    (folder / "tell.py").write_text(APP)
    (folder / "daemun.toml").write_text(f"[server]\nlisten = [{PROXY}]\ntrusted_proxies = [{trusted}]\n{TELL}")
    return folder


def test_a_trusted_proxy_says_who_the_client_is(tmp_path: Path) -> None:
    signature = b"\r\n\r\n\0\r\nQUIT\n"
    ends = socket.inet_aton("192.0.2.1") + socket.inet_aton("192.0.2.9") + struct.pack(">HH", 5000, 8080)
    secure = b"\x20\0\x05\x01\0\0\0\0"
    headers = {
        b"PROXY TCP4 192.0.2.1 192.0.2.9 5000 8080\r\n": "192.0.2.1 8080 http 192.0.2.1 http",
        b"PROXY TCP6 2001:db8::1 ::1 5000 80\r\n": "2001:db8::1 80 http 2001:db8::1 http",
        signature + b"\x21\x11" + struct.pack(">H", 12) + ends: "192.0.2.1 8080 http 192.0.2.1 http",
        signature + b"\x21\x11" + struct.pack(">H", 20) + ends + secure: "192.0.2.1 8080 https 192.0.2.1 https",
    }
    with Server(cwd=telling(tmp_path, '"127.0.0.1"'), listen="") as server:
        own = {b"PROXY UNKNOWN\r\n", signature + b"\x20\0\0\0"}
        for header, want in [*headers.items(), *((header, f"127.0.0.1 {server.port} http") for header in own)]:
            for pieces in ([header], [header[at : at + 1] for at in range(len(header))]):
                wire = Wire(server.port)
                for piece in pieces:
                    wire.send(piece)
                reply = ask(wire)
                wire.close()
                assert reply is not None
                assert reply.body.decode().startswith(want), header


def test_a_trusted_proxy_without_a_header_is_closed_and_a_client_that_sends_one_is_refused(tmp_path: Path) -> None:
    with Server(cwd=telling(tmp_path, '"127.0.0.1"'), listen="") as server:
        for first in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"PROXY TCP4 x y 1 2\r\n", b"PROXY " + b"x" * 300):
            wire = Wire(server.port)
            wire.send(first)
            assert wire.ended()
            wire.close()
        server.wait_for("a PROXY header was expected")
    (tmp_path / "other").mkdir()
    with Server(cwd=telling(tmp_path / "other", '"192.0.2.0/24"'), listen="") as server:
        wire = Wire(server.port)
        wire.send(b"PROXY TCP4 192.0.2.1 192.0.2.9 5000 80\r\n")
        reply = ask(wire)
        wire.close()
        assert reply is not None
        assert reply.status == 400


def test_a_user_that_does_not_exist_is_a_mistake_in_the_configuration(tmp_path: Path) -> None:
    told = run("serve", cwd=configured(tmp_path, 'user = "nobody-of-this-name"'))
    assert told.returncode == 2
    assert "there is no user `nobody-of-this-name`" in told.stderr


def test_access_bits_of_a_unix_socket_change_with_a_reload(tmp_path: Path) -> None:
    def listen(mode: str) -> str:
        return f'"127.0.0.1:0", {{ address = "unix:s.sock", mode = "{mode}" }}'

    with Server(cwd=configured(tmp_path, listen=listen("600")), listen="") as server:
        path = tmp_path / "s.sock"
        inode = path.stat().st_ino
        assert path.stat().st_mode & 0o777 == 0o600
        configured(tmp_path, listen=listen("666"))
        server.send(signal.SIGHUP)
        server.wait_for("reloaded")
        assert (path.stat().st_mode & 0o777, path.stat().st_ino) == (0o666, inode)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.settimeout(DEADLINE)
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")


def test_a_refused_reload_leaves_no_socket_behind(tmp_path: Path) -> None:
    with Server(cwd=configured(tmp_path), listen="") as server, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        configured(tmp_path, listen=f'"127.0.0.1:0", "unix:new.sock", "127.0.0.1:{port}"')
        told = run("reload", cwd=tmp_path)
        assert told.returncode == 1
        assert "is in use by" in told.stderr
        assert not (tmp_path / "new.sock").exists()
        assert server.get("/").text == "here"


def test_from_one_address_to_all_on_the_same_port_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with Server(cwd=configured(tmp_path, listen='"127.0.0.1:0"'), listen="") as server:
        port = server.port
        configured(tmp_path, listen=f'"0.0.0.0:{port}"')
        told = run("reload", cwd=tmp_path)
        assert told.returncode == 1
        assert f"0.0.0.0:{port} overlaps 127.0.0.1:{port}, on which this server listens" in told.stderr
        assert server.get("/").text == "here"


def test_orphans_of_an_application_are_reaped(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import subprocess\n"
        "def app(environ, start_response):\n"
        "    pid = subprocess.check_output(['sh', '-c', 'sleep 0 & echo $!'])\n"
        "    start_response('200 OK', [])\n"
        "    return [pid]\n"
    )
    with Server("app:app", "--workers", "1", cwd=tmp_path) as server:
        pid = int(server.get("/").text)
        end = time.monotonic() + DEADLINE
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < end, subprocess.check_output(["ps", "-fp", str(pid)], text=True)
