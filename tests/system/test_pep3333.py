"""PEP 3333 over the wire: what an application may do and must get, with the real program between it and the client."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from gate import Gate
from probes import CONTENT, ITERABLES
from server import DEADLINE, Answer, Server
from wire import Reply, Wire, ask, wire

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    """One gate for all probes: only one of them holds at a time."""
    gate = Gate()
    yield gate
    gate.close()


@pytest.fixture(scope="module")
def server(gate: Gate) -> Iterator[Server]:
    """The probes in one process, so that what they noted can be asked for."""
    with Server("probes:application", "--workers", "1", "--threads", "4", cwd=HERE, env=gate.env) as server:
        yield server


def environ(server: Server, head: str) -> dict[str, Any]:
    """What an application gets for this head."""
    reply = ask(server.port, head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n")
    assert reply.status == 200, reply
    shown: dict[str, Any] = json.loads(reply.body)["environ"]
    return shown


def get(server: Server, target: str, version: str = "1.1") -> Reply:
    """A plain GET on a connection of its own."""
    return ask(server.port, f"GET {target} HTTP/{version}\r\nHost: a.test\r\n\r\n".encode())


def noted(server: Server, event: str) -> None:
    """Wait until a probe has noted this."""
    end = time.monotonic() + DEADLINE
    while event not in json.loads(server.get("/events").body):
        assert time.monotonic() < end, f"{event} was not noted"


def answer(server: Server, said: dict[str, Any], method: str = "POST", version: str = "1.1") -> Reply:
    """Have the application answer so."""
    body = json.dumps(said).encode()
    head = f"{method} /answer HTTP/{version}\r\nHost: a.test\r\nContent-Length: {len(body)}\r\n\r\n"
    return ask(server.port, head.encode() + body, method)


def is_alive(server: Server) -> None:
    """The one worker answers."""
    assert server.get("/whole").text == "whole"


# === The environment ===


def test_the_environment_is_a_dict_of_native_strings_that_may_be_changed(server: Server) -> None:
    found = json.loads(server.get("/environment").body)
    assert found["kind"] == "dict"
    assert found["native"]
    again = json.loads(server.get("/environment").body)
    assert "changed" not in again["environ"], "one request's changes reached the next"


def test_the_variables_that_must_be_there_are_there_and_never_empty(server: Server) -> None:
    found = environ(server, "GET /environment HTTP/1.1\nHost: a.test:81")
    assert found["REQUEST_METHOD"] == "GET"
    assert found["SERVER_NAME"] == "a.test"
    assert found["SERVER_PORT"] == str(server.port)
    assert found["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert found["HTTP_HOST"] == "a.test:81"
    assert found["REMOTE_ADDR"] == "127.0.0.1"
    assert (found["SCRIPT_NAME"], found["PATH_INFO"], found["QUERY_STRING"]) == ("", "/environment", "")


def test_server_name_and_port_are_there_without_a_host(server: Server) -> None:
    found = environ(server, "GET /environment HTTP/1.0")
    assert found["SERVER_PROTOCOL"] == "HTTP/1.0"
    assert found["SERVER_NAME"] == "127.0.0.1"
    assert found["SERVER_PORT"] == str(server.port)
    assert "HTTP_HOST" not in found


def test_the_path_is_decoded_once_into_latin_1(server: Server) -> None:
    found = environ(server, "GET /environment/%EB%8C%80%EB%AC%B8/a%2Fb%2520c?q=%41&%3D HTTP/1.1\nHost: a.test")
    assert found["PATH_INFO"].encode("latin-1").decode() == "/environment/대문/a/b%20c"
    assert found["QUERY_STRING"] == "q=%41&%3D"
    assert found["REQUEST_URI"] == "/environment/%EB%8C%80%EB%AC%B8/a%2Fb%2520c?q=%41&%3D"


def test_bytes_of_no_encoding_reach_the_application_as_latin_1(server: Server) -> None:
    found = environ(server, "GET /environment/%FF%FE HTTP/1.1\nHost: a.test\nX-Raw: \xe9\xff")
    assert found["PATH_INFO"] == "/environment/\xff\xfe"
    assert found["HTTP_X_RAW"] == "\xe9\xff"


def test_the_path_is_not_cleaned_up_for_applications(server: Server) -> None:
    found = environ(server, "GET /environment//a///b/ HTTP/1.1\nHost: a.test")
    assert found["PATH_INFO"] == "/environment//a///b/"


def test_content_type_and_length_are_there_only_if_they_were_sent(server: Server) -> None:
    found = environ(server, "GET /environment HTTP/1.1\nHost: a.test")
    assert {"CONTENT_TYPE", "CONTENT_LENGTH", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"}.isdisjoint(found)
    found = environ(server, "POST /environment HTTP/1.1\nHost: a.test\nContent-Type: a/b\nContent-Length: 0")
    assert (found["CONTENT_TYPE"], found["CONTENT_LENGTH"]) == ("a/b", "0")
    assert {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"}.isdisjoint(found)


def test_fields_become_variables_and_repeated_ones_are_joined(server: Server) -> None:
    found = environ(
        server,
        "GET /environment HTTP/1.1\nHost: a.test\nAccept: a\nx-UPPER-lower: 1\nAccept: b\nCookie: a=1\nCookie: b=2"
        "\nX-Empty:\nAuthorization: Basic eDp5",
    )
    assert found["HTTP_ACCEPT"] == "a, b"
    assert found["HTTP_X_UPPER_LOWER"] == "1"
    assert found["HTTP_COOKIE"] == "a=1; b=2"
    assert found["HTTP_X_EMPTY"] == ""
    assert found["HTTP_AUTHORIZATION"] == "Basic eDp5"


def test_fields_that_would_deceive_the_application_are_left_out(server: Server) -> None:
    found = environ(
        server,
        "GET /environment HTTP/1.1\nHost: a.test\nProxy: http://evil.test\nX_Real_User: root\nContent_Length: 9"
        "\nX-Forwarded-For: 6.6.6.6\nX-Forwarded-Proto: https\nX-Forwarded-Host: evil.test\nForwarded: for=6.6.6.6"
        "\nTE: trailers\nConnection: x-hop\nKeep-Alive: 5",
    )
    gone = {"HTTP_PROXY", "HTTP_X_REAL_USER", "HTTP_FORWARDED", "HTTP_CONNECTION", "HTTP_KEEP_ALIVE", "HTTP_TE"}
    assert gone.isdisjoint(found)
    assert "CONTENT_LENGTH" not in found
    assert found["HTTP_X_FORWARDED_FOR"] == "127.0.0.1"
    assert found["HTTP_X_FORWARDED_PROTO"] == "http"
    assert found["HTTP_X_FORWARDED_HOST"] == "a.test"
    assert found["wsgi.url_scheme"] == "http"


def test_nothing_of_the_process_environment_is_in_the_request_environment(gate: Gate) -> None:
    secrets = {**gate.env, "SECRET_KEY": "hidden", "HTTP_SECRET": "hidden"}
    with Server("probes:application", cwd=HERE, env=secrets) as server:
        found = json.loads(server.get("/environment").body)
    assert found["leaked"] == []
    assert "hidden" not in json.dumps(found["environ"])


def test_the_wsgi_variables_are_true_to_the_set_up(server: Server, gate: Gate) -> None:
    found = environ(server, "GET /environment HTTP/1.1\nHost: a.test")
    assert found["wsgi.version"] == [1, 0]
    assert found["wsgi.url_scheme"] == "http"
    assert found["wsgi.run_once"] is False
    assert (found["wsgi.multithread"], found["wsgi.multiprocess"]) == (True, False)
    assert found["wsgi.input_terminated"] is True
    assert {"wsgi.input", "wsgi.errors", "wsgi.file_wrapper"} <= found.keys()
    with Server("probes:application", "--workers", "2", "--threads", "1", cwd=HERE, env=gate.env) as other:
        found = environ(other, "GET /environment HTTP/1.1\nHost: a.test")
    assert (found["wsgi.multithread"], found["wsgi.multiprocess"]) == (False, True)


def test_a_mount_is_the_script_name(gate: Gate) -> None:
    with Server("/=probes:application", "/below=probes:application", cwd=HERE, env=gate.env) as server:
        found = environ(server, "GET /environment/x HTTP/1.1\nHost: a.test")
        assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == ("", "/environment/x")
        found = environ(server, "GET /below/environment/x?y HTTP/1.1\nHost: a.test")
        assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == ("/below", "/environment/x")
        assert found["QUERY_STRING"] == "y"


# === start_response and write ===


def test_a_generator_may_call_start_response_at_its_first_next(server: Server) -> None:
    reply = get(server, "/lazy")
    assert (reply.status, reply.reason, reply.get("X-Lazy"), reply.body) == (404, "Not There At All", "yes", b"lazy")


def test_what_is_written_comes_before_what_is_returned(server: Server) -> None:
    assert get(server, "/written").body == b"one two three"


@pytest.mark.parametrize("path", ["flushed", "written-late"])
def test_a_piece_is_sent_before_the_next_is_asked_for(server: Server, gate: Gate, path: str) -> None:
    first, second = (b"first ", b"second") if path == "flushed" else (b"a", b"b")
    with wire(server.port) as connection:
        connection.send(f"GET /{path} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode())
        gate.entered()
        begun = b""
        while first not in begun.partition(b"\r\n\r\n")[2]:
            begun += connection.first()
        assert second + b"\r\n" not in begun.partition(b"\r\n\r\n")[2], "the application still waits"
        gate.open()
        connection.rest = begun
        reply = connection.reply()
    assert reply is not None
    assert reply.body == first + second


def test_exc_info_replaces_an_answer_that_has_not_begun(server: Server) -> None:
    for path in ["/replaced", "/replaced_after_nothing"]:
        reply = get(server, path)
        assert (reply.status, reply.reason, reply.body) == (503, "Replaced", b"replaced")
        assert (reply.get("X-First"), reply.get("X-Second")) == (None, "2")


def test_exc_info_is_raised_again_once_the_answer_has_begun(server: Server, gate: Gate) -> None:
    with ThreadPoolExecutor() as pool:
        reply = pool.submit(get, server, "/too_late")
        gate.entered()
        gate.open()
        assert not reply.result(DEADLINE).complete
    noted(server, "reraised True")
    server.wait_for("LookupError: too late to replace")


def test_start_response_twice_is_an_error(server: Server) -> None:
    assert get(server, "/twice").status == 500
    server.wait_for("start_response was called twice")


@pytest.mark.parametrize("path", ["/never", "/never_and_empty", "/nothing", "/text", "/text_written"])
def test_an_application_that_breaks_the_rules_is_answered_500(server: Server, path: str) -> None:
    reply = get(server, path)
    assert reply.status == 500
    assert b"Traceback" not in reply.body
    is_alive(server)


def test_text_in_a_stream_is_an_error(server: Server) -> None:
    assert get(server, "/text_streamed").status == 500
    server.wait_for("must yield bytes")


ODD = [
    *("status-bytes", "status-number", "status-short", "status-interim", "status-control"),
    *("name-bytes", "name-colon", "name-space", "name-empty"),
    *("value-bytes", "value-number", "value-crlf", "value-lf", "value-nul", "value-wide"),
    *("hop-connection", "hop-transfer", "hop-upgrade", "hop-keep-alive"),
    *("length-minus", "length-text", "length-two", "pairs"),
]


@pytest.mark.parametrize("kind", ODD)
def test_a_head_that_is_none_is_refused(server: Server, kind: str) -> None:
    reply = get(server, f"/odd?{kind}")
    assert reply.status == 500, reply
    assert reply.get("X-Evil") is None
    assert reply.body != b"body"


def test_status_reason_and_headers_arrive_as_they_were_given(server: Server) -> None:
    headers = [
        ("X-B", "2"),
        ("Set-Cookie", "a=1"),
        ("X-A", "  spaced\tout "),
        ("Set-Cookie", "b=2"),
        ("x-lower", "\xe9"),
    ]
    reply = answer(server, {"status": "299 Not  Known To Anybody", "headers": headers, "body": ["x"]})
    assert (reply.status, reply.reason) == (299, "Not  Known To Anybody")
    ours = [(name, value) for name, value in reply.fields if name in {"X-A", "X-B", "Set-Cookie", "x-lower"}]
    assert ours == [(name, value.strip()) for name, value in headers]


def test_date_and_server_are_added_unless_they_were_given(server: Server) -> None:
    reply = answer(server, {"status": "200 OK", "body": ["x"]})
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", reply.get("Date") or "")
    given = [("Date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("Server", "mine")]
    reply = answer(server, {"status": "200 OK", "headers": given, "body": ["x"]})
    assert reply.get("Date") == given[0][1]
    assert reply.get("Server") == "mine"


# === The iterable ===


@pytest.mark.parametrize("kind", sorted(ITERABLES))
def test_every_iterable_is_sent_whole(server: Server, kind: str) -> None:
    assert get(server, f"/iterable?{kind}").body == b"abc"
    assert get(server, f"/iterable?{kind}", "1.0").body == b"abc"


@pytest.mark.parametrize("kind", ["list", "strings", "generator", "noted"])
def test_an_empty_answer_is_an_answer(server: Server, kind: str) -> None:
    reply = get(server, f"/empty?{kind}")
    assert (reply.status, reply.body, reply.complete) == (200, b"", True)


def test_close_is_called_however_the_answer_ends(server: Server, gate: Gate) -> None:
    get(server, "/iterable?noted")
    noted(server, "close noted")
    get(server, "/iterable?sized")
    noted(server, "close sized")
    get(server, "/empty?noted")
    noted(server, "close empty")
    with ThreadPoolExecutor() as pool:
        reply = pool.submit(get, server, "/raises_midway")
        gate.entered()
        gate.open()
        reply.result(DEADLINE)
    noted(server, "close midway")
    ask(server.port, b"HEAD /stream?head HTTP/1.1\r\nHost: a.test\r\n\r\n", "HEAD")
    noted(server, "close head")


def test_close_is_called_when_the_client_has_gone(server: Server) -> None:
    with wire(server.port) as connection:
        connection.send(b"GET /stream?gone HTTP/1.1\r\nHost: a.test\r\n\r\n")
        connection.first()
    noted(server, "close gone")
    is_alive(server)


def test_a_length_is_added_where_the_whole_answer_is_known(server: Server) -> None:
    assert get(server, "/whole").get("Content-Length") == "5"
    assert get(server, "/iterable?tuple").get("Content-Length") == "3"


def test_without_a_length_the_body_is_chunked_or_ends_with_the_connection(server: Server) -> None:
    reply = get(server, "/iterable?noted")
    assert (reply.get("Content-Length"), reply.get("Transfer-Encoding")) == (None, "chunked")
    with wire(server.port) as connection:
        connection.send(b"GET /iterable?noted HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        old = connection.reply()
        assert old is not None
        assert (old.body, old.get("Transfer-Encoding")) == (b"abc", None)
        assert connection.ended()


@pytest.mark.parametrize("streamed", [False, True])
def test_a_body_longer_than_its_length_is_cut_to_it(server: Server, streamed: bool) -> None:
    said = {
        "status": "200 OK",
        "headers": [("Content-Length", "4")],
        "body": ["abc", "def", "ghi"],
        "streamed": streamed,
    }
    body = json.dumps(said).encode()
    with wire(server.port) as connection:
        head = f"POST /answer HTTP/1.1\r\nHost: a.test\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        connection.send(head + body)
        reply = connection.reply()
        assert reply is not None
        assert (reply.body, reply.complete) == (b"abcd", True)
        # What follows is the next answer or the end, never the surplus.
        connection.send(b"GET /whole HTTP/1.1\r\nHost: a.test\r\n\r\n")
        following = connection.reply()
        assert following is None or following.body == b"whole"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_body_shorter_than_its_length_is_not_a_clean_end(server: Server, streamed: bool) -> None:
    said = {"status": "200 OK", "headers": [("Content-Length", "10")], "body": ["abc"], "streamed": streamed}
    reply = answer(server, said)
    assert not reply.complete
    assert reply.body in {b"", b"abc"}


@pytest.mark.parametrize("path", ["/whole", "/iterable?noted", "/written", "/wrapper?file", "/megabytes?2"])
def test_head_has_the_fields_of_get_and_no_body(server: Server, path: str) -> None:
    with wire(server.port) as connection:
        connection.send(f"HEAD {path} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode())
        head = connection.reply("HEAD")
        connection.send(f"GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode())
        full = connection.reply()
    assert head is not None
    assert full is not None
    assert (head.status, head.get("Content-Type")) == (full.status, full.get("Content-Type"))
    assert head.get("Content-Length") in {None, full.get("Content-Length"), str(len(full.body))}


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_without_content_has_none(server: Server, status: str, streamed: bool) -> None:
    body = json.dumps({"status": status, "body": ["must not be sent"], "streamed": streamed}).encode()
    with wire(server.port) as connection:
        connection.send(b"POST /answer HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        reply = connection.reply()
        assert reply is not None
        assert str(reply.status) == status[:3]
        assert reply.get("Transfer-Encoding") is None
        connection.send(b"GET /whole HTTP/1.1\r\nHost: a\r\n\r\n")
        following = connection.reply()
        assert following is None or following.body == b"whole"


@pytest.mark.parametrize("path", ["/raises", "/raises_started", "/exits"])
def test_an_exception_before_the_answer_is_a_500_without_its_text(server: Server, path: str) -> None:
    reply = get(server, path)
    assert (reply.status, reply.complete) == (500, True)
    assert b"before anything" not in reply.body
    is_alive(server)


@pytest.mark.parametrize("query", ["", "?length"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_exception_in_mid_stream_is_not_a_clean_end(server: Server, gate: Gate, query: str, version: str) -> None:
    with wire(server.port) as connection:
        connection.send(f"GET /raises_midway{query} HTTP/{version}\r\nHost: a.test\r\n\r\n".encode())
        gate.entered()
        gate.open()
        if version == "1.0" and not query:
            assert is_reset(connection), "a close would pass for the end of the body"
        else:
            reply = connection.reply()
            assert reply is not None
            assert not reply.complete
    server.wait_for("RuntimeError: in the middle")


def is_reset(connection: Wire) -> bool:
    """Whether the connection is torn down rather than closed."""
    try:
        while connection.socket.recv(65536):
            pass
    except ConnectionResetError:
        return True
    return False


# === wsgi.input and wsgi.errors ===

BODY = b"line one\nline two\n\nlast"
WAYS: list[tuple[str, list[Any]]] = [
    ("read", [BODY.decode()]),
    ("read-1", [BODY.decode()]),
    ("read,read,readline", [BODY.decode(), "", ""]),
    ("read0,read3,read3,read", ["", "lin", "e o", "ne\nline two\n\nlast"]),
    ("readline,readline,readline,readline,readline", ["line one\n", "line two\n", "\n", "last", ""]),
    ("readline2,readline,read", ["li", "ne one\n", "line two\n\nlast"]),
    ("readlines", [["line one\n", "line two\n", "\n", "last"]]),
    ("readlines1,read", [["line one\n"], "line two\n\nlast"]),
    ("readline,iter", ["line one\n", ["line two\n", "\n", "last"]]),
    ("next,read3,iter", ["line one\n", "lin", ["e two\n", "\n", "last"]]),
]


@pytest.mark.parametrize(("ways", "wanted"), WAYS)
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_input_is_exact_in_every_way_of_reading(server: Server, ways: str, wanted: list[Any], framing: str) -> None:
    if framing == "length":
        data = b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
    else:
        pieces = [BODY[start : start + 5] for start in range(0, len(BODY), 5)]
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        data = b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    reply = ask(server.port, f"POST /body?{ways} HTTP/1.1\r\nHost: a.test\r\n".encode() + data)
    assert json.loads(reply.body) == wanted


def test_input_ends_where_the_body_ends_and_not_where_the_connection_does(server: Server) -> None:
    with wire(server.port) as connection:
        request = b"POST /body?read,read HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc"
        connection.send(request + request + b"GET /body?read HTTP/1.1\r\nHost: a.test\r\n\r\n")
        replies = [connection.reply() for _ in range(3)]
    assert [json.loads(reply.body) for reply in replies if reply] == [["abc", ""], ["abc", ""], [""]]


def test_a_chunked_body_has_a_length_and_no_transfer_encoding(server: Server) -> None:
    chunks = b"3\r\nabc\r\n4\r\ndefg\r\n0\r\nX-Trailer: 1\r\n\r\n"
    reply = ask(server.port, b"POST /digest HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
    size, said, _, encoding = reply.body.decode().split()
    assert (size, said, encoding) == ("7", "7", "None")


def test_a_body_that_nobody_reads_does_not_disturb_the_next_request(server: Server) -> None:
    with wire(server.port) as connection:
        for size in [3, 40_000, 2_000_000]:
            connection.send(b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
            reply = connection.reply()
            assert reply is not None
            assert reply.body == b"unread"


def test_a_client_that_waits_for_the_word_to_go_on_gets_it(server: Server) -> None:
    with wire(server.port) as connection:
        head = b"POST /body?read HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        connection.send(head)
        interim = connection.reply()
        assert interim is not None
        assert interim.status == 100
        connection.send(b"abc")
        reply = connection.reply()
    assert reply is not None
    assert json.loads(reply.body) == ["abc"]


def test_a_cut_body_never_reaches_the_application(server: Server) -> None:
    for framing in [b"Content-Length: 10\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\na\r\nabc"]:
        with wire(server.port) as connection:
            connection.send(b"POST /stream?cut HTTP/1.1\r\nHost: a\r\n" + framing)
            connection.half_close()
            reply = connection.reply()
            assert reply is None or reply.status == 400
    assert "close cut" not in json.loads(server.get("/events").body)


def test_errors_and_prints_reach_the_log_and_not_the_answer(server: Server) -> None:
    assert get(server, "/errors").body == b"said"
    for line in ["errors: wrote 대문", "errors: line one", "errors: line two"]:
        server.wait_for(line)


# === Files ===


@pytest.mark.parametrize("kind", ["file", "offset", "bytesio", "reader", "middleware"])
def test_file_wrapper_sends_what_is_left_of_any_file(server: Server, kind: str) -> None:
    reply = get(server, f"/wrapper?{kind}")
    wanted = CONTENT[1000:] if kind == "offset" else CONTENT
    assert reply.body == wanted
    assert reply.complete
    if kind == "reader":
        noted(server, "close reader")


@pytest.mark.parametrize("kind", ["file", "bytesio"])
def test_file_wrapper_sends_no_more_than_the_length_that_was_said(server: Server, kind: str) -> None:
    reply = get(server, f"/wrapper?{kind},1000")
    assert (reply.body, reply.complete) == (CONTENT[:1000], True)


@pytest.mark.parametrize("kind", ["file", "bytesio"])
def test_file_wrapper_that_holds_less_than_was_said_is_not_a_clean_end(server: Server, kind: str) -> None:
    reply = get(server, f"/wrapper?{kind},{len(CONTENT) + 1}")
    assert reply.status == 500 or not reply.complete


# === Threads ===


def test_a_slow_request_does_not_hold_up_the_others(server: Server, gate: Gate) -> None:
    with ThreadPoolExecutor() as pool:
        held = pool.submit(server.get, "/held")
        gate.entered()
        for _ in range(20):
            is_alive(server)
        gate.open()
        result: Answer = held.result(DEADLINE)
        assert result.text == "held"


# === The validator of the standard library ===

VALIDATED = """\
from wsgiref.validate import validator
import flask

def plain(environ, start_response):
    body = environ["wsgi.input"].read(100)
    environ["wsgi.errors"].write("validated\\n")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"validated ", body]

site = flask.Flask(__name__)

# It does not read the body: where wsgi.input_terminated is set Werkzeug calls read() without a size, as files allow and
# the validator does not.
@site.route("/", methods=["GET", "POST"])
def index():
    return "flask " + flask.request.args["q"]

plain, site = validator(plain), validator(site)
"""
DJANGO = """
from wsgiref.validate import validator
application = validator(application)
"""


@pytest.mark.parametrize("name", ["plain", "site"])
def test_the_validator_finds_nothing_wrong(tmp_path: Path, name: str) -> None:
    (tmp_path / "app.py").write_text(VALIDATED)
    with Server(f"app:{name}", cwd=tmp_path) as server:
        for method, body in [("GET", None), ("POST", b"body"), ("HEAD", None), ("POST", b"x" * 50)]:
            found = server.ask("/?q=1", method, body)
            assert found.status == 200, server.errors.text
            assert method == "HEAD" or found.body == (b"validated " + (body or b"") if name == "plain" else b"flask 1")
        assert "AssertionError" not in server.errors.text


def test_the_validator_finds_nothing_wrong_around_django(startproject: Callable[[], Path]) -> None:
    project = startproject()
    with (project / "shop" / "wsgi.py").open("a") as file:
        file.write(DJANGO)
    with Server(project, cwd=project) as server:
        assert server.get("/").status == 200
        assert server.ask("/admin/login/", "POST", b"username=a").status == 403
        assert "AssertionError" not in server.errors.text
