"""Static routes as a `daemun.toml` writes them: what `try_files`, `autoindex` and `gzip_static` are for elsewhere."""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
from collections.abc import Iterator

import pytest
from server import Server
from wire import Reply, wire

# Above what fits into one packet, so that parts are parts of something.
FILM = bytes(range(256)) * 40
STYLE = "a { color: red }\n" * 100

APP = """\
def app(environ, start_response):
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length).decode()
    said = f"app {environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']} {body}"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [said.encode()]
"""

CONFIGURATION = """\
[server]
listen = ["127.0.0.1:0"]
trusted_proxies = ["127.0.0.2/32"]
access_log = { path = "-", format = "$status $request_uri $request_id $route", mask = ["token"] }

[app.site]
target = "app:app"
processes = 1

[[route]]
path = "/*"
app = "site"

# The condition puts it before the application.
[[route]]
path = "/*"
method = "GET"
static = { root = "public", missing = "next" }

[[route]]
path = "/files/*"
static = { root = "public", missing = "next" }

[[route]]
path = "/page/*"
static = { root = "spa", missing = "/index.html" }

[[route]]
path = "/plain/*"
static = { root = "public", max_age = "1h", types = { ".css" = "text/x-own" }, headers = { "X-Own" = "yes" } }
server_timing = true

[[route]]
path = "/list/*"
static = { root = "public", listing = true }
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A site with files before an application, a single page, a folder that is listed, and one with fields."""
    folder = tmp_path_factory.mktemp("site")
    files = {
        "public/film.bin": FILM,
        "public/a.css": STYLE.encode(),
        "public/empty.txt": b"",
        "public/folder/index.html": b"<p>folder",
        "public/docs/b.txt": b"b",
        "public/docs/<b>&.txt": b"escaped",
        "public/.env": b"SECRET=1",
        "spa/index.html": b"<p>page",
        "spa/.git/config": b"[core]",
        "app.py": APP.encode(),
        "daemun.toml": CONFIGURATION.encode(),
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "public/a.css.gz").write_bytes(gzip.compress(STYLE.encode(), 9))
    # Known for long: a date is a strong validator only of what was not changed in the same second.
    os.utime(folder / "public/film.bin", (1_700_000_000, 1_700_000_000))
    (folder / "public/out.txt").symlink_to(folder / "app.py")
    with Server(cwd=folder, listen="") as server:
        yield server


def ask(server: Server, line: str, *fields: str, body: bytes = b"") -> Reply:
    """Send one request as it stands here."""
    length = [f"Content-Length: {len(body)}"] if body else []
    head = "\r\n".join([f"{line} HTTP/1.1", "Host: a", *fields, *length, "", ""])
    with wire(server.port) as connection:
        connection.send(head.encode() + body)
        reply = connection.reply(line.split(" ")[0])
    assert reply is not None
    assert reply.complete
    return reply


# === missing ===


def test_with_next_a_file_answers_where_there_is_one_and_the_application_elsewhere(server: Server) -> None:
    assert ask(server, "GET /film.bin").body == FILM
    assert ask(server, "GET /folder/").body == b"<p>folder"
    assert ask(server, "GET /shop/cart?a=1").body == b"app GET /shop/cart?a=1 "
    # A folder without an index would answer nothing: it is the application's.
    assert ask(server, "GET /docs/").body == b"app GET /docs/? "
    assert ask(server, "GET /docs").body == b"app GET /docs? "
    assert ask(server, "GET /").body == b"app GET /? "
    assert ask(server, "GET /files/film.bin").body == FILM
    assert ask(server, "GET /files/gone").body == b"app GET /files/gone? "
    # Of two that decline the next is asked each time.
    assert ask(server, "GET /files/").body == b"app GET /files/? "


def test_with_next_the_body_and_the_method_of_what_is_absent_reach_the_application(server: Server) -> None:
    for path in ["/shop/cart", "/files/cart"]:
        assert ask(server, f"POST {path}", body=b"two").body == f"app POST {path}? two".encode()
        assert ask(server, f"DELETE {path}").body == f"app DELETE {path}? ".encode()
    assert ask(server, "POST /film.bin", body=b"two").body == b"app POST /film.bin? two"
    head = ask(server, "HEAD /shop/cart")
    assert (head.status, head.body) == (200, b"")


def test_with_next_what_is_there_is_never_the_applications(server: Server) -> None:
    for path in ["/.env", "/out.txt"]:
        assert ask(server, f"GET {path}").status == 404, path
        assert ask(server, f"POST /files{path}", body=b"x").status == 404, path
    refused = ask(server, "POST /files/film.bin", body=b"x")
    assert (refused.status, refused.get("Allow")) == (405, "GET, HEAD, OPTIONS")
    assert ask(server, "GET /film.bin", 'If-Match: "other"').status == 412


def test_a_page_that_routes_by_itself_answers_for_every_name_that_is_not_there(server: Server) -> None:
    page = ask(server, "GET /page/")
    assert page.body == b"<p>page"
    for path in ["/page/users/7?tab=a", "/page/users/7/", "/page/deep/a.b"]:
        reply = ask(server, f"GET {path}")
        assert (reply.status, reply.body) == (200, b"<p>page"), path
        assert reply.get("Content-Type") == "text/html; charset=utf-8"
        assert reply.get("ETag") == page.get("ETag")
    assert ask(server, "GET /page/users/7", f"If-None-Match: {page.get('ETag')}").status == 304
    assert ask(server, "HEAD /page/users/7").get("Content-Length") == "7"
    assert ask(server, "GET /page/.git/config").status == 404
    assert ask(server, "POST /page/users/7", body=b"x").status == 405


# === Methods and preconditions ===


def test_options_and_other_methods_are_told_what_a_file_has(server: Server) -> None:
    options = ask(server, "OPTIONS /plain/film.bin")
    assert (options.status, options.get("Allow"), options.body) == (204, "GET, HEAD, OPTIONS", b"")
    for method in ["PUT", "DELETE", "PATCH", "get", "BREW"]:
        reply = ask(server, f"{method} /plain/film.bin")
        assert (reply.status, reply.get("Allow")) == (405, "GET, HEAD, OPTIONS"), method


def test_head_says_what_get_does(server: Server) -> None:
    for path in ["film.bin", "a.css", "empty.txt", "folder/", "folder", "gone", "docs/"]:
        for fields in ([], ["Accept-Encoding: gzip"]):
            get, head = (ask(server, f"{method} /plain/{path}", *fields) for method in ("GET", "HEAD"))
            changing = {"date", "x-request-id", "server-timing"}
            told = [[field for field in one.fields if field[0].lower() not in changing] for one in (get, head)]
            assert (get.status, told[0]) == (head.status, told[1]), path
            assert head.body == b""


def test_a_part_comes_only_of_the_file_that_the_client_has(server: Server) -> None:
    whole = ask(server, "GET /plain/film.bin")
    tag, modified = whole.get("ETag"), whole.get("Last-Modified")
    part = ["Range: bytes=10-19"]
    for known in (tag, modified):
        reply = ask(server, "GET /plain/film.bin", *part, f"If-Range: {known}")
        assert (reply.status, reply.body) == (206, FILM[10:20])
        assert reply.get("Content-Range") == f"bytes 10-19/{len(FILM)}"
    for other in (f"W/{tag}", '"other"', "Thu, 01 Jan 1970 00:00:00 GMT", "nonsense"):
        reply = ask(server, "GET /plain/film.bin", *part, f"If-Range: {other}")
        assert (reply.status, reply.body) == (200, FILM), other


def test_preconditions_that_fail_are_told(server: Server) -> None:
    whole = ask(server, "GET /plain/film.bin")
    tag, modified = whole.get("ETag"), whole.get("Last-Modified")
    old = "Thu, 01 Jan 1970 00:00:00 GMT"
    for fields, status in [
        ([f"If-Unmodified-Since: {old}"], 412),
        ([f"If-Unmodified-Since: {modified}"], 200),
        ([f"If-Match: {tag}", f"If-Unmodified-Since: {old}"], 200),
        (['If-Match: "a", "b"'], 412),
        ([f'If-Match: "a", {tag}'], 200),
        (["If-Match: *"], 200),
        ([f"If-Match: W/{tag}"], 412),
        ([f'If-None-Match: "a", W/{tag}'], 304),
        (["If-None-Match: *"], 304),
        ([f"If-Modified-Since: {modified}"], 304),
        (['If-None-Match: "a"', f"If-Modified-Since: {modified}"], 200),
        (["If-Unmodified-Since: nonsense"], 200),
    ]:
        assert ask(server, "GET /plain/film.bin", *fields).status == status, fields


def test_several_parts_come_in_one_answer_and_never_more_than_twice_the_file(server: Server) -> None:
    two = ask(server, "GET /plain/film.bin", "Range: bytes=0-9,100-109")
    kind = two.get("Content-Type") or ""
    boundary = re.fullmatch(r'multipart/byteranges; ?boundary="?([^"]+)"?', kind)
    assert two.status == 206
    assert boundary
    parts = two.body.split(b"--" + boundary[1].encode())
    assert [part.split(b"\r\n\r\n", 1)[1][:10] for part in parts[1:3]] == [FILM[0:10], FILM[100:110]]
    assert f"Content-Range: bytes 100-109/{len(FILM)}".lower().encode() in parts[2].lower()
    many = ",".join(f"{start}-{start + 1}" for start in range(0, 8000, 4))
    for ranges in (many, ",".join(["0-"] * 1000), ",".join(["0-10000"] * 60), "0-0," * 60 + "5-"):
        reply = ask(server, "GET /plain/film.bin", f"Range: bytes={ranges}")
        assert reply.status in {200, 206}
        assert len(reply.body) <= 2 * len(FILM)
    beyond = ask(server, "GET /plain/film.bin", f"Range: bytes={len(FILM)}-")
    assert (beyond.status, beyond.get("Content-Range")) == (416, f"bytes */{len(FILM)}")


# === What a route says ===


def test_a_variant_that_lies_beside_is_sent_with_the_type_of_its_file(server: Server) -> None:
    plain = ask(server, "GET /plain/a.css")
    packed = ask(server, "GET /plain/a.css", "Accept-Encoding: gzip, br")
    assert (plain.get("Content-Encoding"), packed.get("Content-Encoding")) == (None, "gzip")
    assert gzip.decompress(packed.body) == plain.body == STYLE.encode()
    assert plain.get("Content-Type") == packed.get("Content-Type") == "text/x-own"
    assert plain.get("Vary") == packed.get("Vary") == "Accept-Encoding"
    assert plain.get("ETag") != packed.get("ETag")
    same = ask(server, "GET /plain/a.css", "Accept-Encoding: gzip", f"If-None-Match: {packed.get('ETag')}")
    assert (same.status, same.get("Vary"), same.get("ETag")) == (304, "Accept-Encoding", packed.get("ETag"))


def test_a_route_says_how_long_files_are_kept_and_adds_fields(server: Server) -> None:
    reply = ask(server, "GET /plain/film.bin")
    assert (reply.get("Cache-Control"), reply.get("X-Own")) == ("public, max-age=3600", "yes")
    assert reply.get("X-Content-Type-Options") == "nosniff"


def test_a_folder_wants_its_slash_and_never_names_another_host(server: Server) -> None:
    reply = ask(server, "GET /plain/folder?a=b")
    assert (reply.status, reply.get("Location")) == (301, "/plain/folder/?a=b")
    for path in ["//plain/folder", "//evil.example/%2e%2e/plain/folder", "/plain//folder", "//folder"]:
        where = ask(server, f"GET {path}").get("Location")
        assert where is None or re.match(r"/(?!/)", where), (path, where)


def test_a_listing_is_sorted_escaped_and_leaves_out_what_is_not_sent(server: Server) -> None:
    page = ask(server, "GET /list/docs/", "Accept: text/html")
    assert page.get("Content-Type") == "text/html; charset=utf-8"
    text = page.body.decode()
    assert "&lt;b&gt;&amp;.txt" in text
    assert "<b>" not in text
    assert "default-src 'none'" in (page.get("Content-Security-Policy") or "")
    listed = json.loads(ask(server, "GET /list/", "Accept: application/json").body)
    names = [entry["name"] for entry in listed]
    assert names == ["docs", "folder", "a.css", "a.css.gz", "empty.txt", "film.bin"]
    by_size = json.loads(ask(server, "GET /list/?sort=size&order=desc", "Accept: application/json").body)
    assert by_size[2]["name"] == "film.bin"
    assert ask(server, "GET /plain/docs/").status == 404


# === Sight ===


def test_in_production_answers_say_where_their_time_went_where_that_is_asked_for(server: Server) -> None:
    assert "total;dur=" in (ask(server, "GET /plain/film.bin").get("Server-Timing") or "")
    assert ask(server, "GET /film.bin").get("Server-Timing") is None


def test_a_template_of_the_log_has_the_names_and_hides_secrets(server: Server) -> None:
    assert ask(server, "GET /plain/hidden?token=hush&a=1").status == 404
    server.wait_for("/plain/hidden", server.access)
    line = next(line for line in server.access.text.splitlines() if "/plain/hidden" in line)
    assert re.fullmatch(r"404 /plain/hidden\?token=\*\*\*&a=1 \w+ daemun\.toml:\d+:\d+", line), line
    assert "hush" not in server.access.text


def test_the_name_of_a_request_is_taken_from_trusted_proxies_alone(server: Server) -> None:
    names = {}
    for client in ("127.0.0.1", "127.0.0.2"):
        with socket.create_connection(("127.0.0.1", server.port), source_address=(client, 0)) as connection:
            lines = [f"GET /named/{client} HTTP/1.1", "Host: a", "X-Request-ID: theirs-1", "Connection: close", "", ""]
            connection.sendall("\r\n".join(lines).encode())
            while connection.recv(65536):
                pass
        server.wait_for(f"/named/{client}", server.access)
        line = next(line for line in server.access.text.splitlines() if f"/named/{client}" in line)
        names[client] = line.split()[2]
    assert names["127.0.0.2"] == "theirs-1"
    assert re.fullmatch(r"[0-9a-f]{16}", names["127.0.0.1"])
