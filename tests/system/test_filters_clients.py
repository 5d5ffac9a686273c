"""Filters that ask who the client is, behind proxies and without, and the one that bounds the time of a handler."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import DEADLINE, Server
from wire import Reply, Wire

PROXY = "127.0.0.2"

APP = '''\
import os
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def app(environ, start_response):
    """Tell who asks; below `/slow/`, once there is a file `open`."""
    if environ["PATH_INFO"].startswith("/slow/"):
        while not os.path.exists(os.path.join(HERE, "open")):
            time.sleep(0.005)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["REMOTE_ADDR"].encode()]
'''

CONFIG = """\
[server]
trusted_proxies = ["127.0.0.2", "10.0.0.0/8"]

[app.one]
wsgi = "app:app"
processes = 1
threads = 4

[[route]]
path = "/*"
app = "one"

[[route]]
path = "/staff/*"
app = "one"
allow = ["192.0.2.0/24", "2001:db8::/32"]
deny = ["192.0.2.66"]

[[route]]
path = "/limited/*"
app = "one"
rate_limit = { rate = "1/h", burst = 2 }

[[route]]
path = "/api/*"
app = "one"
headers = { cors = { origins = ["https://app.example.com", "https://*.example.org"], methods = ["PUT", "DELETE"], \
headers = ["X-Key", "Content-Type"], expose = ["X-Total"], max_age = "2h" } }

[[route]]
path = "/open/*"
app = "one"
headers = { cors = true }

[[route]]
path = "/slow/*"
app = "one"
timeout = "200ms"

[[route]]
path = "/slow/patient/*"
app = "one"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site's folder."""
    folder = tmp_path_factory.mktemp("clients")
    (folder / "app.py").write_text(APP)
    (folder / "daemun.toml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """One server for all."""
    with Server("daemun.toml", cwd=folder) as server:
        yield server


def ask_from(server: Server, source: str, path: str, *fields: str) -> Reply:
    """Ask from an address of this machine."""
    wire = Wire(server.port)
    wire.socket.close()
    wire.socket = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE, source_address=(source, 0))
    head = "".join(f"{field}\r\n" for field in fields)
    wire.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n".encode())
    reply = wire.reply()
    wire.socket.close()
    assert reply is not None
    return reply


@pytest.mark.parametrize(
    ("source", "field", "status"),
    [
        (PROXY, "X-Forwarded-For: 192.0.2.1", 200),
        (PROXY, "X-Forwarded-For: 192.0.2.66", 403),
        (PROXY, "X-Forwarded-For: 198.51.100.1", 403),
        (PROXY, "X-Forwarded-For: 2001:db8::7", 200),
        # What the client wrote itself stands first; the proxies behind it say who it was.
        (PROXY, "X-Forwarded-For: 192.0.2.1, 198.51.100.1", 403),
        (PROXY, "X-Forwarded-For: 198.51.100.1, 192.0.2.1, 10.0.0.1", 200),
        (PROXY, "X-Other: 1", 403),
        ("127.0.0.1", "X-Forwarded-For: 192.0.2.1", 403),
        ("127.0.0.1", "Forwarded: for=192.0.2.1", 403),
        ("127.0.0.3", "X-Real-IP: 192.0.2.1", 403),
    ],
)
def test_who_may_is_decided_by_the_client_that_trusted_proxies_name(
    server: Server, source: str, field: str, status: int
) -> None:
    assert ask_from(server, source, "/staff/x", field).status == status


def test_clients_behind_one_proxy_are_counted_apart_and_cannot_change_their_name(server: Server) -> None:
    def limited(source: str, field: str) -> int:
        return ask_from(server, source, "/limited/x", field).status

    assert [limited(PROXY, "X-Forwarded-For: 203.0.113.1") for _ in range(3)] == [200, 200, 429]
    assert [limited(PROXY, "X-Forwarded-For: 203.0.113.2") for _ in range(3)] == [200, 200, 429]
    for number in range(3):
        assert limited(PROXY, f"X-Forwarded-For: 198.51.100.{number}, 203.0.113.1") == 429
    # Who is no proxy is himself, whatever he says.
    assert [limited("127.0.0.4", f"X-Forwarded-For: 203.0.113.{number}") for number in range(10, 13)] == [200, 200, 429]
    # One household is one client: a /64 of IPv6.
    statuses = [limited(PROXY, f"X-Forwarded-For: 2001:db8:0:1::{number}") for number in range(1, 4)]
    assert statuses == [200, 200, 429]
    assert limited(PROXY, "X-Forwarded-For: 2001:db8:0:2::1") == 200


def preflight(server: Server, path: str, origin: str, *fields: str) -> Reply:
    """What a browser asks before it sends what a form could not."""
    wire = Wire(server.port)
    head = "".join(f"{field}\r\n" for field in (f"Origin: {origin}", "Access-Control-Request-Method: PUT", *fields))
    wire.send(f"OPTIONS {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n".encode())
    reply = wire.reply("OPTIONS")
    wire.socket.close()
    assert reply is not None
    return reply


def test_a_preflight_is_told_what_the_route_allows(server: Server) -> None:
    for origin in ["https://app.example.com", "https://a.b.example.org"]:
        reply = preflight(server, "/api/x", origin, "Access-Control-Request-Headers: x-key")
        assert (reply.status, reply.body) == (204, b"")
        assert reply.get("Access-Control-Allow-Origin") == origin
        assert reply.get("Access-Control-Allow-Methods") == "PUT, DELETE"
        assert reply.get("Access-Control-Allow-Headers") == "X-Key, Content-Type"
        assert reply.get("Access-Control-Max-Age") == "7200"
        assert reply.get("Access-Control-Allow-Credentials") is None
        assert "Origin" in ", ".join(reply.all("Vary"))


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "http://app.example.com", "https://app.example.com.evil.example", "https://example.org",
     "https://evilexample.org", "null"],
)  # fmt: skip
def test_other_origins_are_told_nothing(server: Server, origin: str) -> None:
    reply = preflight(server, "/api/x", origin)
    assert not [name for name, _ in reply.fields if name.lower().startswith("access-control-allow-origin")]
    answer = server.get("/api/x", {"Origin": origin})
    assert answer.status == 200, "the browser keeps it from the page; others never see CORS"
    assert answer.headers["Access-Control-Allow-Origin"] is None
    assert "Origin" in answer.headers["Vary"]


def test_answers_to_allowed_origins_may_be_read(server: Server) -> None:
    answer = server.get("/api/x", {"Origin": "https://app.example.com"})
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    assert answer.headers["Access-Control-Expose-Headers"] == "X-Total"
    answer = server.get("/open/x", {"Origin": "https://anybody.example"})
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Access-Control-Allow-Credentials"] is None


def test_an_options_that_is_no_preflight_reaches_the_application(server: Server) -> None:
    answer = server.ask("/api/x", "OPTIONS", headers={"Origin": "https://app.example.com"})
    assert (answer.status, answer.text) == (200, "127.0.0.1")


def test_a_route_bounds_the_time_of_its_handler_and_others_keep_theirs(server: Server, folder: Path) -> None:
    answer = server.get("/slow/x")
    assert answer.status == 504
    server.wait_for(r"/slow/x.* 504 ", server.access)
    waiting = server.connection()
    waiting.request("GET", "/slow/patient/x")
    assert server.get("/slow/y").status == 504, "which began later and ended before"
    (folder / "open").touch()
    assert waiting.getresponse().status == 200
    waiting.close()
    assert server.get("/slow/x").status == 200
    (folder / "open").unlink()
