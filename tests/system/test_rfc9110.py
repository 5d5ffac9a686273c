"""What RFC 9110 and RFC 9112 ask of a server and of a gateway, where no other test has a reason of its own to look."""

from __future__ import annotations

import os
from email.utils import formatdate
from pathlib import Path

import pytest
from server import Server
from upstreams import Asked, Peer, Upstream, answer
from wire import Reply, wire


def passed_on(folder: Path, request: str, said: bytes = b"") -> tuple[Asked, Reply]:
    """Send a request through the gate; give what its server got, and what the client got."""

    def behaviour(upstream: Upstream, peer: Peer) -> None:
        while (asked := peer.request()) is not None:
            upstream.asked.append(asked)
            peer.send(said or answer(b"body"))

    with Upstream(behaviour=behaviour) as upstream:
        text = f'[upstream.b]\nservers = ["{upstream.url}"]\n[[route]]\npath = "/*"\nupstream = "b"\n'
        (folder / "daemun.toml").write_text(text)
        with Server(cwd=folder) as server, wire(server.port) as connection:
            connection.send(request.replace("\n", "\r\n").encode())
            reply = connection.reply()
    assert reply is not None
    (asked,) = upstream.asked
    return asked, reply


def test_an_absolute_target_is_forwarded_with_a_host_of_its_authority(tmp_path: Path) -> None:
    asked, _ = passed_on(tmp_path, "GET http://shop.example:81/a?b HTTP/1.1\nHost: other.example\n\n")
    assert (asked.line, asked.all("Host")) == ("GET /a?b HTTP/1.1", ["shop.example:81"])
    assert asked.all("X-Forwarded-Host") == ["shop.example:81"]


def test_http_1_0_without_a_host_is_answered(tmp_path: Path) -> None:
    asked, reply = passed_on(tmp_path, "GET /a HTTP/1.0\n\n")
    assert reply.status == 200
    (host,) = asked.all("Host")
    assert host.startswith("127.0.0.1:")


def test_lines_of_one_name_keep_their_order_on_their_way(tmp_path: Path) -> None:
    said = answer(b"", "200 OK", "Set-Cookie: a=1", "X-B: 1", "Set-Cookie: b=2", "X-B: 2")
    asked, reply = passed_on(tmp_path, "GET / HTTP/1.1\nHost: a\nX-A: 1\nX-C: c\nX-A: 2\nX-A: 0\n\n", said)
    assert asked.all("X-A") == ["1", "2", "0"]
    assert reply.all("Set-Cookie") == ["a=1", "b=2"]
    assert reply.all("X-B") == ["1", "2"]


def test_an_answer_without_a_date_gets_one(tmp_path: Path) -> None:
    _, reply = passed_on(tmp_path, "GET / HTTP/1.1\nHost: a\n\n")
    assert (reply.get("Date") or "").endswith(" GMT")


def test_fields_of_the_connection_to_a_server_go_no_further(tmp_path: Path) -> None:
    more = ("Connection: X-Hop, keep-alive", "X-Hop: 1", "Keep-Alive: timeout=5", "X-End: 1", "Proxy-Connection: close")
    _, reply = passed_on(tmp_path, "GET / HTTP/1.1\nHost: a\n\n", answer(b"", "200 OK", *more))
    for gone in ("X-Hop", "Keep-Alive", "Proxy-Connection"):
        assert reply.all(gone) == [], gone
    assert reply.all("X-End") == ["1"]
    assert reply.all("Connection") in ([], ["keep-alive"])


@pytest.mark.parametrize("kept", ["Max-Forwards: 3", "Via: 1.0 fred, 1.1 p.example", 'X-Unknown: "a, b"'])
def test_what_is_for_all_is_passed_on(tmp_path: Path, kept: str) -> None:
    asked, _ = passed_on(tmp_path, f"OPTIONS /a HTTP/1.1\nHost: a\n{kept}\n\n")
    name, _, value = kept.partition(": ")
    assert asked.all(name) == [value]


def test_credentials_for_a_proxy_go_no_further(tmp_path: Path) -> None:
    lines = "Proxy-Authorization: Basic YTpi\nAuthorization: Basic YzpkZQ=="
    asked, _ = passed_on(tmp_path, f"GET / HTTP/1.1\nHost: a\n{lines}\n\n")
    assert (asked.all("Proxy-Authorization"), asked.all("Authorization")) == ([], ["Basic YzpkZQ=="])


def test_an_expectation_that_was_answered_goes_no_further(tmp_path: Path) -> None:
    asked, _ = passed_on(tmp_path, "POST / HTTP/1.1\nHost: a\nExpect: 100-continue\nContent-Length: 3\n\nabc")
    assert (asked.all("Expect"), asked.body) == ([], b"abc")


def test_an_upgrade_in_http_1_0_is_ignored(tmp_path: Path) -> None:
    asked, reply = passed_on(tmp_path, "GET / HTTP/1.0\nHost: a\nConnection: upgrade\nUpgrade: websocket\n\n")
    assert (asked.all("Upgrade"), reply.status) == ([], 200)


def test_a_request_line_of_8000_octets_is_read(tmp_path: Path) -> None:
    target = "/" + "a" * 7980
    asked, reply = passed_on(tmp_path, f"GET {target} HTTP/1.1\nHost: a\n\n")
    assert (asked.line, reply.status) == (f"GET {target} HTTP/1.1", 200)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A file, old enough for its time to be believed."""
    (tmp_path / "index.html").write_text("0123456789")
    tmp_path.chmod(0o755)
    os.utime(tmp_path / "index.html", (784_111_777, 784_111_777))
    return tmp_path


def test_dates_are_read_in_their_three_forms_and_written_in_one(files: Path) -> None:
    forms = ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
    with Server(str(files), cwd=files) as server:
        assert server.get("/").headers["Last-Modified"] == forms[0] == formatdate(784_111_777, usegmt=True)
        for form in forms:
            assert server.get("/", {"If-Modified-Since": form}).status == 304, form
            assert server.get("/", {"If-Unmodified-Since": form}).status == 200, form
        assert server.get("/", {"If-Modified-Since": "06 Nov 1994"}).status == 200


def test_a_304_carries_what_the_200_said(files: Path) -> None:
    with Server(str(files), cwd=files) as server:
        whole = server.get("/")
        kept = server.get("/", {"If-None-Match": whole.headers["ETag"]})
        assert (kept.status, kept.body) == (304, b"")
        for name in ("ETag", "Cache-Control", "Vary", "Content-Location", "Expires"):
            assert kept.headers.get(name) == whole.headers.get(name), name
        assert kept.headers["Date"]


def test_a_method_that_a_file_does_not_know_is_a_405_with_allow(files: Path) -> None:
    with Server(str(files), cwd=files) as server:
        for method in ("POST", "DELETE", "BREW"):
            reply = server.ask("/", method)
            assert reply.status == 405, method
            assert {"GET", "HEAD"} <= {each.strip() for each in reply.headers["Allow"].split(",")}


def test_a_range_beyond_the_end_is_a_416_with_the_length(files: Path) -> None:
    with Server(str(files), cwd=files) as server:
        reply = server.get("/", {"Range": "bytes=100-"})
        assert (reply.status, reply.headers["Content-Range"]) == (416, "bytes */10")
        assert server.get("/", {"Range": "bytes=2-4"}).body == b"234"
        for ignored in ("lines=1-2", "bytes=4-2", "bytes="):
            assert server.get("/", {"Range": ignored}).status == 200, ignored
        assert server.ask("/", "HEAD", headers={"Range": "bytes=2-4"}).status in {200, 206}


def test_preconditions_are_looked_at_in_their_order(files: Path) -> None:
    with Server(str(files), cwd=files) as server:
        tag, date = server.get("/").headers["ETag"], "Sun, 06 Nov 1994 08:49:37 GMT"
        assert server.get("/", {"If-Match": '"other"', "If-None-Match": tag}).status == 412
        assert server.get("/", {"If-Match": tag, "If-Unmodified-Since": formatdate(0, usegmt=True)}).status == 200
        assert server.get("/", {"If-None-Match": '"other"', "If-Modified-Since": date}).status == 200
        assert server.get("/", {"If-None-Match": "W/" + tag.removeprefix("W/"), "Range": "bytes=0-1"}).status == 304
