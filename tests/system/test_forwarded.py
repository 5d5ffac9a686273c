"""What proxies say of a request: heard from those that are trusted, and from nobody else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from server import Server
from upstreams import Upstream
from wire import ask

APPLICATION = """\
import json

TOLD = ["HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST", "HTTP_FORWARDED", "wsgi.url_scheme"]

def application(environ, start_response):
    host = environ.get("HTTP_X_FORWARDED_HOST")
    if environ["PATH_INFO"].startswith("/secure") and environ["wsgi.url_scheme"] == "http":
        query = environ["QUERY_STRING"]
        where = "https://" + host + environ["PATH_INFO"] + ("?" + query if query else "")
        start_response("301 Moved Permanently", [("Location", where)])
        return [b""]
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([environ.get(name) for name in TOLD]).encode()]
"""


def configured(folder: Path, server: str, route: str = "") -> Path:
    """An application behind perhaps a proxy."""
    (folder / "application.py").write_text(APPLICATION)
    text = f'[server]\nlisten = ["127.0.0.1:0"]\n{server}\n[app.a]\nwsgi = "application:application"\nprocesses = 1\n'
    (folder / "daemun.toml").write_text(f'{text}[[route]]\npath = "/*"\napp = "a"\n{route}\n')
    return folder


TRUSTED = 'trusted_proxies = ["127.0.0.1", "10.0.0.0/8"]'
SAID = [
    ("Forwarded: for=203.0.113.9;proto=https;host=shop.example", "203.0.113.9, 127.0.0.1", "shop.example", "https"),
    ('Forwarded: For="[2001:db8::17]:4711";Proto=HTTPS', "2001:db8::17, 127.0.0.1", "a", "https"),
    ("Forwarded: for=6.6.6.6, for=203.0.113.9;proto=https,for=10.0.0.2",
     "203.0.113.9, 10.0.0.2, 127.0.0.1", "a", "https"),
    ("Forwarded: for=203.0.113.9\r\nForwarded: for=10.0.0.2;proto=https",
     "203.0.113.9, 10.0.0.2, 127.0.0.1", "a", "https"),
    ('Forwarded: for="6.6.6.6, for=203.0.113.9;proto=https', "203.0.113.9, 127.0.0.1", "a", "https"),
    ("Forwarded: for=6.6.6.6;proto=https, for=unknown", "127.0.0.1", "a", "http"),
    ("Forwarded: nonsense", "127.0.0.1", "a", "http"),
    ("Forwarded: host=b/c;proto=gopher", "127.0.0.1", "a", "http"),
    # A proxy that writes these lets a client's Forwarded through.
    ("Forwarded: for=6.6.6.6;proto=https\r\nX-Forwarded-For: 203.0.113.9", "203.0.113.9, 127.0.0.1", "a", "http"),
]  # fmt: skip


def test_forwarded_of_a_trusted_proxy_counts(tmp_path: Path) -> None:
    log = 'access_log = { path = "-", format = "json" }'
    with Server(cwd=configured(tmp_path, f"{TRUSTED}\n{log}"), listen="") as server:
        for lines, client, host, scheme in SAID:
            reply = ask(server.port, f"GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\nConnection: close\r\n\r\n".encode())
            assert json.loads(reply.body) == [client, host, None, scheme], lines
        for client in ("203.0.113.9", "2001:db8::17"):
            server.wait_for(client, server.access)


def test_forwarded_of_a_stranger_is_not_heard(tmp_path: Path) -> None:
    with Server(cwd=configured(tmp_path, ""), listen="") as server:
        for lines, *_ in SAID:
            reply = ask(server.port, f"GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\nConnection: close\r\n\r\n".encode())
            assert json.loads(reply.body) == ["127.0.0.1", "a", None, "http"], lines


def test_rules_about_clients_look_at_forwarded_too(tmp_path: Path) -> None:
    with Server(cwd=configured(tmp_path, TRUSTED, 'deny = ["203.0.113.0/24"]'), listen="") as server:
        for client, status in [("203.0.113.9", 403), ("198.51.100.1", 200)]:
            reply = ask(server.port, f"GET / HTTP/1.1\r\nHost: a\r\nForwarded: for={client}\r\n\r\n".encode())
            assert reply.status == status, client


def test_a_server_behind_is_told_the_same_in_the_fields_it_knows(tmp_path: Path) -> None:
    with Upstream() as upstream:
        text = (
            f'[server]\n{TRUSTED}\n[upstream.b]\nservers = ["{upstream.url}"]\n[[route]]\npath = "/*"\nupstream = "b"\n'
        )
        (tmp_path / "daemun.toml").write_text(text)
        with Server(cwd=tmp_path) as server:
            server.get("/", {"Host": "a", "Forwarded": "for=203.0.113.9;proto=https;host=shop.example"})
    (asked,) = upstream.asked
    names = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded")
    assert [asked.all(name) for name in names] == [["203.0.113.9, 127.0.0.1"], ["https"], ["shop.example"], []]


@pytest.mark.parametrize("said", ["X-Forwarded-Proto: https", "Forwarded: proto=https"])
def test_a_redirect_in_a_circle_is_told_once_with_the_line_to_add(tmp_path: Path, said: str) -> None:
    line = 'trusted_proxies = ["127.0.0.1/32"]'
    with Server(cwd=configured(tmp_path, ""), listen="") as server:
        for _ in range(3):
            reply = ask(server.port, f"GET /secure?a=b HTTP/1.1\r\nHost: a\r\n{said}\r\n\r\n".encode())
            assert (reply.status, reply.get("Location")) == (301, "https://a/secure?a=b")
        server.wait_for(r"is not believed, .* add to \[server\]: trusted_proxies = \[\"127.0.0.1/32\"\]")
        assert server.errors.text.count(line) == 1
    with Server(cwd=configured(tmp_path, line), listen="") as server:
        reply = ask(server.port, f"GET /secure?a=b HTTP/1.1\r\nHost: a\r\n{said}\r\n\r\n".encode())
        assert reply.status == 200
        assert "is not believed" not in server.errors.text


def test_a_redirect_that_leads_elsewhere_is_not_told(tmp_path: Path) -> None:
    with Server(cwd=configured(tmp_path, ""), listen="") as server:
        for lines in ("", "X-Forwarded-Proto: http\r\n"):
            reply = ask(server.port, f"GET /secure HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode())
            assert reply.status == 301
        assert "is not believed" not in server.errors.text
