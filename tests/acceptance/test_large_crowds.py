"""Crowds of clients that are slow, idle, greedy or many, at the figures of larger sites."""

from __future__ import annotations

import resource
import socket
import ssl
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from server import Server, front, resident

MIB = 1 << 20
APPLICATION = """\
def application(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"fine"]
"""
CONFIGURATION = """\
[server]
listen = ["127.0.0.1:0"{more}]
max_connections = 20000
max_body = "2GiB"
header_timeout = "120s"
{server}
[app.a]
wsgi = "application:application"
processes = 1
threads = 4
[[route]]
path = "/files/*"
static = {{ root = "files" }}
[[route]]
path = "/*"
app = "a"
{tls}
"""


@pytest.fixture(autouse=True)
def files() -> Iterator[None]:
    """As many descriptors as the crowd needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def configured(folder: Path, server: str = "", more: str = "", tls: str = "") -> Path:
    """An application, files, and limits that let a crowd in."""
    (folder / "application.py").write_text(APPLICATION)
    (folder / "files").mkdir()
    (folder / "files" / "small.txt").write_text("small")
    (folder / "files" / "large.bin").write_bytes(bytes(8 * MIB))
    (folder / "daemun.toml").write_text(CONFIGURATION.format(server=server, more=more, tls=tls))
    return folder


def crowd(stack: ExitStack, port: int, count: int, data: bytes) -> list[socket.socket]:
    """Open so many connections, each with these bytes, until the stack is left."""
    opened = []
    for number in range(count):
        # Ports of one address end; loopback has many addresses.
        client = stack.enter_context(socket.socket())
        client.bind((f"127.0.{1 + number // 5000}.1", 0))
        client.connect(("127.0.0.1", port))
        client.sendall(data)
        opened.append(client)
    return opened


def test_a_crowd_of_slow_clients_is_not_noticed_by_the_others(tmp_path: Path) -> None:
    with Server(cwd=configured(tmp_path), listen="") as server, ExitStack() as stack:
        server.get("/")
        crowd(stack, server.port, 1000, b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow:")
        crowd(stack, server.port, 200, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nx")
        crowd(stack, server.port, 200, b"GET /files/large.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        took, failures = [], 0
        connection = server.connection()
        for number in range(2000):
            began = time.monotonic()
            connection.request("GET", "/" if number % 2 else "/files/small.txt")
            reply = connection.getresponse()
            failures += reply.status != 200 or reply.read() not in {b"fine", b"small"}
            took.append((time.monotonic() - began) * 1000)
        connection.close()
        took.sort()
        print(f"behind 1400 slow clients: median {statistics.median(took):.2f} ms, p99 {took[1980]:.2f} ms")
        assert failures == 0
        assert took[1980] < 20


@pytest.mark.parametrize(("secure", "most"), [(False, 4096), (True, 20_480)], ids=["plain", "tls"])
def test_10000_idle_connections_cost_little(tmp_path: Path, secure: bool, most: int) -> None:
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-keyout", "k.pem", "-out", "c.pem", "-subj", "/CN=a"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    tls = '[[tls]]\ncert = "c.pem"\nkey = "k.pem"\n' if secure else ""
    folder = configured(tmp_path, tls=tls)
    if secure:
        text = (folder / "daemun.toml").read_text()
        (folder / "daemun.toml").write_text(text.replace('"127.0.0.1:0"', '"https://127.0.0.1:0"'))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = b"GET /files/small.txt HTTP/1.1\r\nHost: a\r\n\r\n"
    with Server(cwd=folder, listen="") as server, ExitStack() as stack:
        ask_all(stack, server.port, 100, request, context if secure else None)
        before = resident(front(server))
        ask_all(stack, server.port, 10_000, request, context if secure else None)
        each = (resident(front(server)) - before) / 10_000
        print(f"an idle connection holds {each:.0f} bytes{' with TLS' if secure else ''}")
        assert each < most


def ask_all(stack: ExitStack, port: int, count: int, request: bytes, context: ssl.SSLContext | None) -> None:
    """Open so many connections and have one request answered on each."""
    for client in crowd(stack, port, count, b""):
        spoken = stack.enter_context(context.wrap_socket(client)) if context else client
        spoken.sendall(request)
        while b"small" not in spoken.recv(4096).partition(b"\r\n\r\n")[2]:
            pass


def test_100_clients_that_announce_a_gigabyte_are_held_to_what_they_send(tmp_path: Path) -> None:
    with Server(cwd=configured(tmp_path), listen="") as server, ExitStack() as stack:
        server.get("/")
        before = highest = resident(front(server))
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n"
        clients = crowd(stack, server.port, 100, head)
        block, done = bytes(MIB), threading.Event()

        def send() -> None:
            for _ in range(4):
                for client in clients:
                    client.sendall(block)
            done.set()

        threading.Thread(target=send, daemon=True).start()
        while not done.wait(0.02):
            highest = max(highest, resident(front(server)))
        assert server.get("/").text == "fine"
        print(f"100 bodies of 1 GB, 4 MiB of each sent: {(highest - before) >> 20} MiB more in the front")
        assert highest - before < 100 * MIB
