"""`wsgi.early_hints`: a 103 goes ahead of the answer, to those who can take it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gate import Gate
from server import Server
from wire import wire

APP = """\
from gate import hold

kept = []

def application(environ, start_response):
    early_hints = environ["wsgi.early_hints"]
    path = environ["PATH_INFO"]
    if path == "/hints":
        early_hints([("Link", "</a.css>; rel=preload; as=style")])
        early_hints({"Link": "</b.js>; rel=preload; as=script"})
    elif path == "/held":
        early_hints([("Link", "</a.css>; rel=preload")])
        hold()
    elif path == "/bad":
        try:
            early_hints([("Link", "a\\r\\nSet-Cookie: b")])
        except Exception as error:
            start_response("200 OK", [("Content-Length", "7")])
            return [b"refused"]
    elif path == "/framing":
        early_hints([("Content-Length", "3"), ("X-Kept", "yes")])
    elif path == "/keep":
        kept.append(early_hints)
    elif path == "/late":
        def body():
            yield b"fi"
            early_hints([("Link", "</late>")])
            yield b"ne"
        start_response("200 OK", [("Content-Length", "4")])
        return body()
    elif path == "/other":
        import threading
        thread = threading.Thread(target=kept[0], args=([("X-Other", "yes")],))
        thread.start()
        thread.join()
    start_response("200 OK", [("Content-Length", "4")])
    return [b"fine"]
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One thread, so that every request meets the same lane."""
    (tmp_path / "gate.py").write_text(Gate.MODULE)
    (tmp_path / "hints.py").write_text(APP)
    with Server("hints:application", "--workers", "1", "--threads", "1", cwd=tmp_path) as server:
        yield server


def test_hints_go_ahead_of_the_answer_in_their_order(server: Server) -> None:
    with wire(server.port) as connection:
        for _ in range(2):
            connection.send(b"GET /hints HTTP/1.1\r\nHost: a\r\n\r\n")
            replies = [connection.reply() for _ in range(3)]
            assert [reply.status for reply in replies if reply] == [103, 103, 200]
            assert [reply.get("Link") for reply in replies if reply] == [
                "</a.css>; rel=preload; as=style",
                "</b.js>; rel=preload; as=script",
                None,
            ]
            assert replies[0] is not None
            assert replies[0].reason == "Early Hints"
            assert replies[2] is not None
            assert replies[2].body == b"fine"


def test_hints_are_there_while_the_application_is_still_at_work(tmp_path: Path, gate: Gate) -> None:
    (tmp_path / "gate.py").write_text(Gate.MODULE)
    (tmp_path / "hints.py").write_text(APP)
    with (
        Server("hints:application", cwd=tmp_path, env=gate.env) as server,
        wire(server.port) as connection,
    ):
        connection.send(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")
        hint = connection.reply()
        assert hint is not None
        assert hint.status == 103
        gate.entered()
        gate.open()
        answer = connection.reply()
        assert answer is not None
        assert (answer.status, answer.body) == (200, b"fine")


def test_a_client_of_http_1_0_gets_the_answer_alone(server: Server) -> None:
    with wire(server.port) as connection:
        connection.send(b"GET /hints HTTP/1.0\r\nHost: a\r\n\r\n")
        answer = connection.reply()
        assert answer is not None
        assert (answer.status, answer.body) == (200, b"fine")


def test_hints_that_would_split_the_response_are_an_error_of_the_application(server: Server) -> None:
    assert server.get("/bad").text == "refused"


def test_fields_of_framing_are_left_out_of_hints(server: Server) -> None:
    with wire(server.port) as connection:
        connection.send(b"GET /framing HTTP/1.1\r\nHost: a\r\n\r\n")
        hint = connection.reply()
        assert hint is not None
        assert hint.fields == [("X-Kept", "yes")]
        answer = connection.reply()
        assert answer is not None
        assert answer.body == b"fine"


def test_hints_after_the_head_go_nowhere(server: Server) -> None:
    with wire(server.port) as connection:
        connection.send(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = connection.reply()
        assert answer is not None
        assert (answer.status, answer.body) == (200, b"fine")


def test_a_callable_that_was_kept_reaches_no_other_request_from_another_thread(server: Server) -> None:
    server.get("/keep")
    with wire(server.port) as connection:
        connection.send(b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = connection.reply()
        assert answer is not None
        assert (answer.status, answer.body) == (200, b"fine")
