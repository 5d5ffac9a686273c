"""`early_hints = "learn"`: what a page's head named last goes ahead of it, to those who understand."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from gate import Gate
from hints import pages
from server import Server, run
from wire import wire

HEAD = '<!doctype html><head><link rel="stylesheet" href="/static/a.css">'
LINK = "</static/a.css>; rel=preload; as=style"
APP = (
    f"HEAD = {HEAD!r}\n"
    + """\
import gzip, os
from gate import hold

state = {"held": False}

def application(environ, start_response):
    path, fields = environ["PATH_INFO"], [("Content-Type", "text/html; charset=utf-8")]
    status, page = "200 OK", HEAD.encode() + b"</head><body>" + b"x" * 3000
    if path == "/held":
        if state["held"]:
            hold()
        state["held"] = True
    elif path == "/changing":
        page = page.replace(b"a.css", environ["QUERY_STRING"].encode())
    elif path == "/packed":
        page = gzip.compress(page)
        fields.append(("Content-Encoding", "gzip"))
    elif path == "/brotli":
        fields.append(("Content-Encoding", "br"))
    elif path == "/streamed":
        def pieces(page=page):
            for at in range(0, len(page), 7):
                yield page[at:at + 7]
        page = pieces()
    elif path == "/broken":
        def pieces(page=page):
            yield HEAD.encode()
            raise ValueError("midway")
        page = pieces()
    elif path == "/personal":
        fields.append(("Set-Cookie", "session=1"))
    elif path == "/private":
        fields.append(("Cache-Control", "private, max-age=60"))
    elif path == "/text":
        fields[0] = ("Content-Type", "text/plain")
    elif path == "/gone":
        status = environ["QUERY_STRING"].replace("+", " ") or status
    start_response(status, fields)
    return [page] if isinstance(page, bytes) else page
"""
)
FILE = pages("a {}", routes='[[route]]\npath = "/off/*"\napp = "pages"\nearly_hints = "off"\n')
NAVIGATION = {"Sec-Fetch-Mode": "navigate"}


def prepare(folder: Path) -> Path:
    """Write the application and its configuration."""
    (folder / "gate.py").write_text(Gate.MODULE)
    (folder / "pages.py").write_text(APP)
    (folder / "daemun.toml").write_text(FILE)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all: each test has a path of its own."""
    with Server(cwd=prepare(tmp_path_factory.mktemp("hints"))) as server:
        yield server


def ask(
    server: Server, path: str, fields: Mapping[str, str] = NAVIGATION, method: str = "GET", version: str = "1.1"
) -> list[str]:
    """Ask on a connection of its own, to the end; the links that came ahead of the answer."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "a.example", **fields}.items())
    links: list[str] = []
    with wire(server.port) as connection:
        connection.send(f"{method} {path} HTTP/{version}\r\n{lines}\r\n".encode())
        while (reply := connection.reply(method)) is not None:
            if reply.status != 103:
                return links
            link = reply.get("Link")
            assert link is not None
            links.append(link)
    raise AssertionError("no answer")


def test_what_a_page_named_is_there_the_next_time_while_the_application_is_at_work(tmp_path: Path, gate: Gate) -> None:
    with Server(cwd=prepare(tmp_path), env=gate.env) as server:
        assert ask(server, "/held") == []
        with wire(server.port) as connection:
            connection.send(b"GET /held HTTP/1.1\r\nHost: a.example\r\nSec-Fetch-Mode: navigate\r\n\r\n")
            hint = connection.reply()
            assert hint is not None
            assert (hint.status, hint.reason, hint.fields) == (103, "Early Hints", [("Link", LINK)])
            gate.entered()
            gate.open()
            answer = connection.reply()
            assert answer is not None
            assert answer.status == 200
            assert answer.body.startswith(HEAD.encode())


def test_the_query_counts_for_nothing_and_the_last_page_for_all(server: Server) -> None:
    assert ask(server, "/changing?one.css") == []
    assert ask(server, "/changing?two.css") == [LINK.replace("a.css", "one.css")]
    assert ask(server, "/changing?two.css") == [LINK.replace("a.css", "two.css")]
    # A page that names nothing that leads anywhere is told about no more.
    assert ask(server, '/changing?">') == [LINK.replace("a.css", "two.css")]


@pytest.mark.parametrize("path", ["/whole", "/streamed", "/packed"])
def test_a_page_is_read_however_it_comes_and_comes_as_it_is(server: Server, path: str) -> None:
    assert ask(server, path) == []
    assert ask(server, path) == [LINK]
    answer = server.get(path)
    page = gzip.decompress(answer.body) if path == "/packed" else answer.body
    assert page == HEAD.encode() + b"</head><body>" + b"x" * 3000


@pytest.mark.parametrize("path", ["/brotli", "/personal", "/private", "/text", "/off/page"])
def test_what_is_not_to_be_learned_is_not(server: Server, path: str) -> None:
    assert ask(server, path) == []
    assert ask(server, path) == []


def test_a_page_that_broke_says_nothing(server: Server) -> None:
    for _ in range(2):
        assert ask(server, "/broken") == []


def test_nobody_learns_what_was_said_to_somebody_known(server: Server) -> None:
    for secret in ({"Cookie": "session=1"}, {"Authorization": "Basic YTpi"}):
        assert ask(server, "/known", {**NAVIGATION, **secret}) in ([], [LINK])
        assert ask(server, "/known", {**NAVIGATION, **secret}) == [LINK]
    assert ask(server, "/known") == []
    assert ask(server, "/known") == [LINK]


def test_another_host_is_another_page(server: Server) -> None:
    assert ask(server, "/host") == []
    assert ask(server, "/host", {**NAVIGATION, "Host": "b.example"}) == []
    assert ask(server, "/host", {**NAVIGATION, "Host": "A.Example"}) == [LINK]


def test_only_those_who_navigate_are_told(server: Server) -> None:
    assert ask(server, "/told") == []
    assert ask(server, "/told", {}) == []
    assert ask(server, "/told", {"Sec-Fetch-Mode": "cors"}) == []
    assert ask(server, "/told", version="1.0") == []
    assert ask(server, "/told", method="HEAD") == []
    assert ask(server, "/told", {**NAVIGATION, "Content-Length": "0"}, method="POST") == []
    assert ask(server, "/told") == [LINK]


def test_a_page_that_is_gone_is_forgotten_and_a_fault_says_nothing_of_it(server: Server) -> None:
    assert ask(server, "/gone") == []
    assert ask(server, "/gone?503+Busy") == [LINK]
    assert ask(server, "/gone?304+Not+Modified") == [LINK]
    assert ask(server, "/gone?404+Not+Found") == [LINK]
    assert ask(server, "/gone") == []


def test_without_the_setting_nothing_is_learned(tmp_path: Path) -> None:
    prepare(tmp_path)
    (tmp_path / "daemun.toml").write_text(FILE.replace('early_hints = "learn"\n', ""))
    with Server(cwd=tmp_path) as server:
        assert ask(server, "/page") == []
        assert ask(server, "/page") == []


def test_explain_names_it_where_it_counts(tmp_path: Path) -> None:
    prepare(tmp_path)
    told = run("explain", "/page", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "early_hints" in told.stdout
    assert "daemun.toml:5:1" in told.stdout
    assert "early_hints" not in run("explain", "/static/a.css", cwd=tmp_path).stdout


def test_a_wrong_word_is_a_fault(tmp_path: Path) -> None:
    prepare(tmp_path)
    (tmp_path / "daemun.toml").write_text(FILE.replace('"learn"', '"lern"'))
    told = run("serve", cwd=tmp_path)
    assert told.returncode == 2
    assert "daemun.toml:5:" in told.stderr
    assert 'expected "learn" or "off", found "lern"' in told.stderr
