"""HUP: everything anew without a failed request, or nothing."""

from __future__ import annotations

import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gate import Gate
from load import Load
from server import DEADLINE, Server, children, eventually

BASE = """\
[server]
listen = ["127.0.0.1:0"{listen}]

[app.one]
wsgi = "app:app"
processes = 1
"""
OTHER = """\

[app.two]
wsgi = "two:app"
processes = 1

[[route]]
path = "/two/*"
app = "two"

[[route]]
path = "/*"
app = "one"
"""
TWO = (
    "def app(environ, start_response):\n"
    "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
    "    return [b'second']\n"
)


def listens(port: int) -> bool:
    """Whether anybody does."""
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """Give a port that nobody has at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_no_request_fails_while_code_is_reloaded_under_load(flask: Path) -> None:
    with Server("app:app", "--workers", "2", cwd=flask) as server, Load(server.port, "/", 4, never_closed=True) as load:
        source = (flask / "app.py").read_text()
        for number in range(3):
            (flask / "app.py").write_text(source.replace('"one"', f'"version {number}"'))
            server.send(signal.SIGHUP)
            server.until("/", f"version {number}")
    assert load.answered > 0
    assert load.failures == []


def test_what_is_in_flight_is_finished_once_by_the_code_that_began_it(flask: Path, gate: Gate) -> None:
    with (
        Server("app:app", "--workers", "1", "--threads", "4", cwd=flask, env=gate.env) as server,
        ThreadPoolExecutor() as pool,
    ):
        held = pool.submit(server.ask, "/held", "POST")
        gate.entered()
        source = (flask / "app.py").read_text()
        (flask / "app.py").write_text(source.replace('"one"', '"two"').replace('"finished"', '"repeated"'))
        server.send(signal.SIGHUP)
        server.until("/", "two")
        gate.open()
        assert held.result(DEADLINE).text == "finished"


def test_a_stop_is_quick_however_many_threads_there_are(flask: Path) -> None:
    with Server("app:app", "--workers", "3", "--threads", "8", cwd=flask) as server:
        server.get("/")
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 8, "nothing is in flight"


def test_signals_that_come_at_once_are_one_reload_and_the_last_one_counts(flask: Path) -> None:
    with Server("app:app", "--workers", "1", cwd=flask) as server:
        source = (flask / "app.py").read_text()
        for number in range(20):
            (flask / "app.py").write_text(source.replace('"one"', f'"version {number}"'))
            server.send(signal.SIGHUP)
        server.until("/", "version 19")
        server.stop()
        assert server.errors.text.count("reloaded") < 20


def test_code_that_is_mended_while_the_broken_one_is_imported_is_loaded(flask: Path) -> None:
    with Server("app:app", "--workers", "1", cwd=flask) as server:
        source = (flask / "app.py").read_text()
        for _ in range(3):
            (flask / "app.py").write_text("import a_module_that_is_not_there\n")
            server.send(signal.SIGHUP)
        (flask / "app.py").write_text(source.replace('"one"', '"mended"'))
        server.send(signal.SIGHUP)
        server.until("/", "mended")


def test_a_traceback_is_logged_line_by_line(flask: Path) -> None:
    with Server("app:app", cwd=flask) as server:
        (flask / "app.py").write_text("def broken():\n    raise ValueError('told')\n\nbroken()\n")
        server.send(signal.SIGHUP)
        last = server.wait_for(r"ValueError: told$")
        assert " error: " in last.string
        assert server.wait_for(r"error: +File .*app\.py., line 4")
        assert server.wait_for("the old code serves on")
        assert "daemun_worker.py" not in server.errors.text
        assert server.get("/").text == "one"


def test_a_mistake_in_the_file_leaves_everything_as_it_is(flask: Path) -> None:
    file = flask / "daemun.toml"
    file.write_text(BASE.format(listen=""))
    with Server(cwd=flask, listen="") as server:
        file.write_text("[app.one]\nwsgi = 3\n")
        server.send(signal.SIGHUP)
        server.wait_for(r"daemun\.toml:2:8: ")
        assert server.get("/").text == "one"


def test_routes_listeners_and_applications_come_and_go(flask: Path) -> None:
    port = free_port()
    (flask / "two.py").write_text(TWO)
    file = flask / "daemun.toml"
    file.write_text(BASE.format(listen=""))
    with Server(cwd=flask, listen="") as server:
        assert server.get("/two/").status == 404
        before = set(children(server.pid))
        for _ in range(2):
            file.write_text(BASE.format(listen=f', "127.0.0.1:{port}"') + OTHER)
            server.send(signal.SIGHUP)
            server.until("/two/", "second")
            with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as connection:
                connection.sendall(b"GET /two/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                assert connection.makefile("rb").read().endswith(b"second")
            file.write_text(BASE.format(listen=""))
            server.send(signal.SIGHUP)
            eventually(lambda: server.get("/two/").status == 404, "the route is gone")
            eventually(lambda: not listens(port), "the listener is gone")
        assert server.get("/").text == "one"
        eventually(lambda: len(set(children(server.pid))) <= len(before), "what was replaced is gone")
        assert server.stop() == 0
        assert "panic" not in server.errors.text


def test_one_application_that_cannot_be_imported_answers_503_alone(flask: Path) -> None:
    (flask / "two.py").write_text("import a_module_that_is_not_there\n" + TWO)
    (flask / "daemun.toml").write_text(BASE.format(listen="") + OTHER)
    with Server(cwd=flask, listen="") as server:
        assert server.get("/").text == "one"
        assert server.get("/two/").status == 503
        assert "a_module_that_is_not_there" in server.errors.text
        # What was broken before may stay broken: the other one is loaded all the same.
        source = (flask / "app.py").read_text()
        (flask / "app.py").write_text(source.replace('"one"', '"new"'))
        server.send(signal.SIGHUP)
        server.until("/", "new")
        assert server.get("/two/").status == 503
        (flask / "two.py").write_text(TWO)
        server.send(signal.SIGHUP)
        server.until("/two/", "second")
