"""What stands between a route and its handler, seen on the wire."""

from __future__ import annotations

import base64
import signal
import subprocess
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from server import Answer, Server, json_lines
from wire import ask, wire

APP = '''\
import itertools
import json
import time

count = itertools.count()


def app(environ, start_response):
    """Tell what was asked; paths choose how."""
    path = environ["PATH_INFO"]
    kept = ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_URI", "REMOTE_USER", "HTTP_X_A", "HTTP_X_REQUEST_ID")
    seen = {name: environ[name] for name in kept if name in environ}
    seen["count"] = next(count)
    fields = [("Content-Type", "application/json")]
    if path.startswith("/stream"):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return stream(environ)
    if path.startswith("/cached"):
        fields.append(("Cache-Control", environ["QUERY_STRING"].replace("_", "=")))
    if path.startswith("/cached/cookie"):
        fields.append(("Set-Cookie", "a=b"))
    if path.startswith("/cached/vary"):
        fields.append(("Vary", "X-A"))
    if path.startswith("/cached/slow"):
        time.sleep(0.2)
    if path.startswith("/cached/tag"):
        fields.append(("ETag", '"same"'))
        if environ.get("HTTP_IF_NONE_MATCH") == '"same"':
            start_response("304 Not Modified", [("ETag", '"same"'), ("Cache-Control", "max-age=60")])
            return []
    if path.startswith("/broken"):
        raise ValueError("broken")
    if path.startswith("/missing"):
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"the application's own page"]
    seen["fill"] = "x" * (3000 if path.startswith("/large") else 0)
    fields.append(("X-Powered-By", "wsgi"))
    body = json.dumps(seen).encode()
    if path.startswith("/large"):
        fields += [("ETag", '"large"'), ("Content-Length", str(len(body)))]
    start_response("200 OK", fields)
    return [body]


def stream(environ):
    """Give one event, and the next only when the client has the first."""
    import os

    yield b"first\\n"
    while not os.path.exists(environ["QUERY_STRING"]):
        time.sleep(0.005)
    yield b"second\\n"
'''

CONFIG = """\
[server]
trusted_proxies = ["127.0.0.2"]
access_log = { format = "json", mask = ["token"] }

[app.one]
wsgi = "app:app"
processes = 1
threads = 8

[[route]]
path = "/*"
app = "one"
headers = { set = { "X-Set" = "yes" }, add = { "Link" = "</a>" }, remove = ["X-Powered-By"], security = true, \
request = { set = { "X-A" = "from us" } } }
server_timing = true

[[route]]
path = "/admin/*"
app = "one"
deny = ["127.0.0.0/8"]

[[route]]
path = "/staff/*"
app = "one"
allow = ["10.0.0.0/8"]

[[route]]
path = "/limited/*"
app = "one"
rate_limit = { per = "header:X-Key", rate = "1/h", burst = 2 }
headers = { cors = { origins = ["https://app.example.com"] } }

[[route]]
path = "/secret/*"
app = "one"
basic_auth = { file = "htpasswd", realm = "Staff" }
headers = { cors = { origins = ["https://app.example.com"], credentials = true, methods = ["PUT"] } }

[[route]]
path = "/small/*"
app = "one"
max_body = 10

[[route]]
path = "/big/*"
app = "one"
max_body = "200MiB"

[[route]]
path = "/user/*"
app = "one"
rewrite = { pattern = '^/user/(?<name>[^/]+)/(\\d+)$', to = "/show/{2}?name={name}" }

[[route]]
path = "/shop/*"
app = "one"
strip_prefix = true

[[route]]
path = "/large/*"
app = "one"
compress = true

[[route]]
path = "/stream/*"
app = "one"
compress = { least = 0 }

[[route]]
path = "/cached/*"
app = "one"
cache = { stale = "0s" }

[[route]]
path = "/cached/large/*"
app = "one"
cache = { ttl = "60s" }
compress = true
rewrite = "/large/{rest}"

[[route]]
path = "/broken/*"
app = "one"
errors = { 5xx = "sorry.html", 404 = "none.html" }
headers = { set = { "X-Set" = "also on errors" } }

[[route]]
path = "/missing/*"
app = "one"
errors = { 404 = "none.html" }

[[route]]
path = "/missing/intercepted/*"
app = "one"
errors = { 404 = "none.html", intercept = true }

[[route]]
path = "/files/*"
static = { root = "files" }
errors = { 404 = "none.html" }
compress = true
"""

# `s3cret` by bcrypt at its lowest cost, made by htpasswd.
USERS = "# those who may\nalice:{bcrypt}\nbob:$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site's folder."""
    folder = tmp_path_factory.mktemp("filters")
    bcrypt = "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
    (folder / "app.py").write_text(APP)
    (folder / "daemun.toml").write_text(CONFIG)
    (folder / "htpasswd").write_text(USERS.format(bcrypt=bcrypt))
    (folder / "sorry.html").write_text("<h1>Sorry</h1><p>{status} {reference}</p>")
    (folder / "none.html").write_text("<h1>Nothing here</h1>")
    (folder / "files").mkdir()
    (folder / "files" / "long.css").write_text("a { color: red }\n" * 20_000)
    (folder / "files" / "short.css").write_text("a {}")
    (folder / "files" / "photo.jpg").write_bytes(b"\xff\xd8" * 5000)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """One server for all that change nothing for one another."""
    with Server("daemun.toml", cwd=folder) as server:
        yield server


def login(name: str, password: str) -> dict[str, str]:
    """The field that a browser sends."""
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def told(answer: Answer) -> dict[str, object]:
    """What the application saw."""
    import json

    assert answer.status == 200, answer
    seen: dict[str, object] = json.loads(answer.text)
    return seen


def test_fields_are_set_added_and_removed_and_the_handler_sees_ours(server: Server) -> None:
    answer = server.get("/x", {"X-A": "from the client"})
    assert told(answer)["HTTP_X_A"] == "from us"
    assert answer.headers.get_all("X-Set") == ["yes"]
    assert answer.headers["Link"] == "</a>"
    assert answer.headers["X-Powered-By"] is None
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Strict-Transport-Security"] is None
    assert {part.split(";")[0].strip() for part in answer.headers["Server-Timing"].split(",")} == {
        "queue",
        "app",
        "total",
    }


@pytest.mark.parametrize(
    "path",
    [
        "/admin/x",
        "//admin/x",
        "/%61dmin/x",
        "/x/../admin/x",
        "/./admin/x",
        "/x/%2e%2e/admin/x",
        "/admin//x",
        "/%2561dmin/../admin/x",
    ],
)
def test_a_denied_path_is_denied_however_it_is_written(server: Server, path: str) -> None:
    reply = ask(server.port, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert reply.status == 403


def test_an_encoded_slash_is_no_folder_and_a_longer_name_is_another(server: Server) -> None:
    for path in ["/admin%2Fx", "/%2Fadmin/x", "/adminx", "/ADMIN/x", "/%2561dmin/x"]:
        reply = ask(server.port, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert reply.status == 200, path


def test_only_those_who_are_allowed_may_and_what_anybody_says_of_himself_does_not_count(server: Server) -> None:
    assert server.get("/staff/x", {"X-Forwarded-For": "10.1.2.3"}).status == 403


def test_too_many_requests_are_told_when_to_come_again(server: Server) -> None:
    statuses = [server.get("/limited/x", {"X-Key": "a"}).status for _ in range(3)]
    assert statuses == [200, 200, 429]
    answer = server.get("/limited/x", {"X-Key": "a", "Origin": "https://app.example.com"})
    assert answer.status == 429
    assert 0 < int(answer.headers["Retry-After"]) <= 3600
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    assert server.get("/limited/x", {"X-Key": "b"}).status == 200


def test_a_password_is_asked_for_and_the_application_sees_the_name(server: Server) -> None:
    answer = server.get("/secret/x")
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="Staff", charset="UTF-8"'
    for name, password in [("alice", "wrong"), ("mallory", "U*U"), ("alice", ""), ("", "")]:
        assert server.get("/secret/x", login(name, password)).status == 401
    for _ in range(2):
        assert told(server.get("/secret/x", login("alice", "U*U")))["REMOTE_USER"] == "alice"
    assert told(server.get("/secret/x", login("bob", "myPassword")))["REMOTE_USER"] == "bob"


def test_a_preflight_needs_no_password_and_other_origins_may_not_read(server: Server) -> None:
    asking = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "PUT"}
    answer = server.ask("/secret/x", "OPTIONS", headers={**asking, "Access-Control-Request-Headers": "x-a"})
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    assert answer.headers["Access-Control-Allow-Methods"] == "PUT"
    assert answer.headers["Access-Control-Allow-Headers"] == "x-a"
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    other = server.ask("/secret/x", "OPTIONS", headers={**asking, "Origin": "https://evil.example"})
    assert other.headers["Access-Control-Allow-Origin"] is None
    assert "Origin" in ", ".join(other.headers.get_all("Vary") or [])
    assert server.ask("/secret/x", "OPTIONS").status == 401


def test_a_body_is_held_to_what_the_route_allows(server: Server) -> None:
    assert server.ask("/small/x", "POST", b"1234567890").status == 200
    assert server.ask("/small/x", "POST", b"12345678901").status == 413
    chunked = (
        b"POST /small/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b"6\r\n123456\r\n5\r\n78901\r\n0\r\n\r\n"
    )
    assert ask(server.port, chunked).status == 413
    with wire(server.port) as slow:
        slow.send(chunked[:-14])
        slow.send(chunked[-14:])
        reply = slow.reply()
        assert reply is not None
        assert reply.status == 413
    head = "POST {} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n"
    larger = 150 * 1024 * 1024
    assert ask(server.port, head.format("/x", larger).encode()).status == 413
    assert ask(server.port, head.format("/big/x", larger).encode()).status == 100


def test_a_path_is_rewritten_for_the_handler_alone(server: Server) -> None:
    seen = told(server.get("/user/caf%C3%A9%26x%3D1/7?page=2"))
    assert seen["PATH_INFO"] == "/show/7"
    assert seen["QUERY_STRING"] == "name=caf%C3%A9%26x%3D1&page=2"
    assert seen["REQUEST_URI"] == "/user/caf%C3%A9%26x%3D1/7?page=2"
    assert told(server.get("/user/x"))["PATH_INFO"] == "/user/x"


def test_a_prefix_becomes_script_name_however_it_was_written(server: Server) -> None:
    for path in ["/shop/a%20b", "//shop/a%20b", "/%73hop/a%20b"]:
        reply = ask(server.port, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert b'"SCRIPT_NAME": "/shop", "PATH_INFO": "/a b"' in reply.body, path
    assert told(server.get("/shop/"))["PATH_INFO"] == "/"


def decoded(server: Server, path: str, coding: str) -> bytes:
    """What a client that knows all codings makes of an answer in this one."""
    url = f"http://127.0.0.1:{server.port}{path}"
    command = ["curl", "-sS", "--compressed", "-H", f"Accept-Encoding: {coding}", url]
    return subprocess.run(command, check=True, capture_output=True).stdout


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
@pytest.mark.parametrize("path", ["/large/x", "/files/long.css"])
def test_text_is_compressed_and_head_says_the_same(server: Server, coding: str, path: str) -> None:
    plain = server.get(path)
    answer = server.get(path, {"Accept-Encoding": coding})
    assert answer.headers["Content-Encoding"] == coding
    assert len(answer.body) < len(plain.body) / 2
    if path.startswith("/files"):
        assert decoded(server, path, coding) == plain.body
    else:
        assert b'"fill": "xxx' in decoded(server, path, coding)
    assert answer.headers["ETag"] == "W/" + plain.headers["ETag"].removeprefix("W/")
    assert "Accept-Encoding" in answer.headers["Vary"]
    assert "Accept-Encoding" in plain.headers["Vary"]
    head = server.ask(path, "HEAD", headers={"Accept-Encoding": coding})
    volatile = {"date"}
    fields = [(name.lower(), value) for name, value in answer.headers.items() if name.lower() not in volatile]
    assert [(name.lower(), value) for name, value in head.headers.items() if name.lower() not in volatile] == fields
    again = server.get(path, {"Accept-Encoding": coding, "If-None-Match": answer.headers["ETag"]})
    if path.startswith("/files"):
        assert (again.status, again.headers["ETag"]) == (304, answer.headers["ETag"])


def test_small_compressed_and_partial_answers_are_left_alone(server: Server) -> None:
    takes = {"Accept-Encoding": "gzip, br, zstd"}
    for path, more in [("/files/short.css", {}), ("/files/photo.jpg", {}), ("/files/long.css", {"Range": "bytes=0-9"})]:
        assert server.get(path, {**takes, **more}).headers["Content-Encoding"] is None, path
    assert server.get("/x", takes).headers["Content-Encoding"] is None


def test_an_event_is_not_held_back_by_compression(server: Server, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with wire(server.port) as connection:
        head = f"GET /stream/x?{flag} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n"
        connection.send(head.encode())
        reply = connection.head()
        assert reply is not None
        assert reply.get("Content-Encoding") == "gzip"
        unpacker = zlib.decompressobj(wbits=31)
        seen = b""
        while b"first\n" not in seen:
            chunk = connection.chunk()
            assert chunk, "the answer ended"
            seen += unpacker.decompress(chunk)
        assert not flag.exists()
        flag.touch()
        while chunk := connection.chunk():
            seen += unpacker.decompress(chunk)
        assert chunk == b"", "it ended as chunks do"
        assert unpacker.eof
    assert seen == b"first\nsecond\n"


def test_errors_get_own_pages_with_the_reference_of_the_log(server: Server) -> None:
    answer = server.get("/broken/x", {"Accept": "application/json"})
    assert answer.status == 500
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["X-Set"] == "also on errors"
    reference = answer.text.removeprefix("<h1>Sorry</h1><p>500 ").removesuffix("</p>")
    server.wait_for(f"reference {reference}")
    server.wait_for(f'"request_id":"{reference}"', server.access)
    assert server.ask("/broken/x", "HEAD").body == b""


def test_answers_of_a_handler_are_its_own_unless_they_are_intercepted(server: Server) -> None:
    assert server.get("/missing/x").text == "the application's own page"
    assert server.get("/missing/intercepted/x").text == "<h1>Nothing here</h1>"
    answer = server.get("/files/none.css")
    assert (answer.status, answer.text) == (404, "<h1>Nothing here</h1>")
    assert server.get("/files/long.css").status == 200


def test_a_fresh_answer_comes_from_memory(server: Server) -> None:
    first = server.get("/cached/a?max-age_60")
    second = server.get("/cached/a?max-age_60")
    assert first.headers["Cache-Status"] == "daemun; fwd=uri-miss; stored"
    assert second.headers["Cache-Status"].startswith("daemun; hit; ttl=")
    assert told(second)["count"] == told(first)["count"]
    assert int(second.headers["Age"]) >= 0
    head = server.ask("/cached/a?max-age_60", "HEAD")
    assert head.headers["Content-Length"] == str(len(first.body))
    assert told(server.get("/cached/a?max-age_61"))["count"] != told(first)["count"]
    assert server.ask("/cached/a?max-age_60", "POST", b"x").status == 200
    assert told(server.get("/cached/a?max-age_60"))["count"] != told(first)["count"]


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/cached/b?private,max-age_60", {}),
        ("/cached/b?no-store", {}),
        ("/cached/b?no-cache,max-age_60", {}),
        ("/cached/cookie?max-age_60", {}),
        ("/cached/c?max-age_60", {"Authorization": "Bearer x"}),
        ("/cached/d?", {}),
    ],
)
def test_what_is_for_one_client_is_never_kept(server: Server, path: str, headers: dict[str, str]) -> None:
    assert told(server.get(path, headers))["count"] != told(server.get(path, headers))["count"]


def test_answers_that_vary_are_kept_for_each_kind_of_request(server: Server) -> None:
    one, two = ({"X-A": "1"}, {"X-A": "2"})
    first = told(server.get("/cached/vary?max-age_60", one))
    second = told(server.get("/cached/vary?max-age_60", two))
    assert first["count"] != second["count"]
    assert told(server.get("/cached/vary?max-age_60", one)) == first
    assert told(server.get("/cached/vary?max-age_60", two)) == second


def test_a_stale_answer_is_asked_for_with_its_tag_and_stays(server: Server) -> None:
    first = server.get("/cached/tag?max-age_0")
    second = server.get("/cached/tag?max-age_0")
    assert second.headers["Cache-Status"].startswith("daemun; hit; fwd=stale; fwd-status=304")
    assert second.body == first.body
    assert server.get("/cached/tag?max-age_0").headers["Cache-Status"].startswith("daemun; hit; ttl=")
    assert server.get("/cached/tag?max-age_0", {"If-None-Match": '"same"'}).status == 304


def test_many_who_ask_for_the_same_cost_one_request(server: Server) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.get("/cached/slow?max-age_60"), range(8)))
    assert len({str(told(answer)["count"]) for answer in answers}) == 1


def test_a_compressed_answer_is_kept_compressed(server: Server) -> None:
    takes = {"Accept-Encoding": "gzip"}
    first = server.get("/cached/large/x", takes)
    second = server.get("/cached/large/x", {"Accept-Encoding": "gzip;q=1.0"})
    assert second.headers["Content-Encoding"] == "gzip"
    assert second.headers["Cache-Status"].startswith("daemun; hit")
    assert first.body == second.body
    assert server.get("/cached/large/x").headers["Content-Encoding"] is None


def test_counters_and_caches_outlive_a_reload(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    config = """\
[app.one]
wsgi = "app:app"
processes = 1

[[route]]
path = "/cached/*"
app = "one"
cache = true

[[route]]
path = "/limited/*"
app = "one"
rate_limit = { rate = "1/h", burst = 1 }
"""
    (tmp_path / "daemun.toml").write_text(config)
    with Server("daemun.toml", cwd=tmp_path) as server:
        kept = told(server.get("/cached/a?max-age_600"))
        assert server.get("/limited/x").status == 200
        (tmp_path / "daemun.toml").write_text(config + '[[route]]\npath = "/new"\nrespond = { body = "new" }\n')
        server.send(signal.SIGHUP)
        server.until("/new", "new")
        assert told(server.get("/cached/a?max-age_600")) == kept
        assert server.get("/limited/x").status == 429


def test_a_request_has_one_name_everywhere_and_secrets_stay_out_of_the_log(server: Server) -> None:
    seen = told(server.get("/x?token=s3cret", {"X-Request-ID": "mine"}))
    assert seen["HTTP_X_REQUEST_ID"] != "mine"
    server.wait_for(f'"request_id":"{seen["HTTP_X_REQUEST_ID"]}"', server.access)
    line = next(line for line in json_lines(server.access) if line["request_id"] == seen["HTTP_X_REQUEST_ID"])
    assert line["target"] == "/x?token=***"
    assert "s3cret" not in server.access.text + server.errors.text
