"""Servers behind FastCGI, SCGI and uwsgi: PHP as it is used, and servers that do what none should."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from gateways import END, STDERR, STDOUT, Records, record
from peers import free_port, program, started
from server import Server, children, eventually, exchange, front
from upstreams import Peer, Upstream

SITE = """
[upstream.php]
spawn = {{ command = ["php-cgi"], processes = 2{spawn} }}
[[route]]
path = "/media/*"
static = {{ root = "site/media" }}
[[route]]
path = "*.php"
upstream = {{ name = "php", root = "site"{route} }}
[[route]]
path = "/below.php/*"
upstream = {{ name = "php", root = "site" }}
[[route]]
path = "/*"
static = {{ root = "site", index = ["index.html", "index.php"], missing = "/index.php" }}
"""
INDEX = """<?php
echo json_encode([$_SERVER['REQUEST_METHOD'], $_SERVER['REQUEST_URI'], $_SERVER['SCRIPT_NAME'],
    $_SERVER['QUERY_STRING'], file_get_contents('php://input')]);
"""
INFO = """<?php
error_log("a complaint\nof two lines"); header('X-From: php'); header('Content-Type: application/json');
echo json_encode($_SERVER);
"""


def site(folder: Path, spawn: str = "", route: str = "") -> None:
    """Write a site of PHP scripts."""
    program("php-cgi")
    files = {
        "index.php": INDEX,
        "info.php": INFO,
        "below.php": INFO,
        "admin/index.php": "<?php echo 'admin';",
        "media/x.php": "<?php echo 'run';",
        "media/a.txt": "text",
        "local.php": "<?php header('Location: /admin/'); http_response_code(200); header_remove('Content-Type');",
        "gone.php": "<?php http_response_code(410); echo 'gone';",
        "pid.php": "<?php echo getmypid();",
        "count.php": "<?php $n = 0; $f = fopen('php://input', 'rb'); "
        "while (!feof($f)) $n += strlen(fread($f, 65536)); echo $n;",
        "large.php": "<?php for ($i = 0; $i < 300; $i++) echo str_repeat(chr(97 + $i % 26), 10000);",
    }
    for name, text in files.items():
        path = folder / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "daemun.toml").write_text(SITE.format(spawn=spawn, route=route))


def test_a_script_is_found_and_told_everything_php_wants(tmp_path: Path) -> None:
    site(tmp_path, route=', params = { APP_ENV = "prod", SERVER_SOFTWARE = "other" }')
    with Server(cwd=tmp_path) as server:
        reply = server.ask("/info.php?a=%20b", "POST", b"x=1", {"Content-Type": "application/x-www-form-urlencoded"})
        said = json.loads(reply.text)
        root = str((tmp_path / "site").resolve())
        for name, value in {
            "SCRIPT_FILENAME": f"{root}/info.php",
            "SCRIPT_NAME": "/info.php",
            "DOCUMENT_ROOT": root,
            "REQUEST_URI": "/info.php?a=%20b",
            "QUERY_STRING": "a=%20b",
            "REQUEST_METHOD": "POST",
            "CONTENT_LENGTH": "3",
            "CONTENT_TYPE": "application/x-www-form-urlencoded",
            "GATEWAY_INTERFACE": "CGI/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "REDIRECT_STATUS": "200",
            "APP_ENV": "prod",
            "SERVER_SOFTWARE": "other",
            "SERVER_PORT": str(server.port),
        }.items():
            assert said[name] == value, name
        below = json.loads(server.get("/below.php/a%20b/c").text)
        assert (below["SCRIPT_NAME"], below["PATH_INFO"]) == ("/below.php", "/a b/c")
        server.wait_for(r"a complaint$")
        server.wait_for(r"of two lines$")


def test_names_that_are_not_there_are_the_front_controllers(tmp_path: Path) -> None:
    site(tmp_path)
    with Server(cwd=tmp_path) as server:
        for path, method, body in [
            ("/", "GET", b""),
            ("/2026/11/hello/?page=2", "GET", b""),
            ("/wp-json/posts", "POST", b"{}"),
            ("/not-there.php", "PUT", b"x"),
        ]:
            query = path.partition("?")[2]
            reply = server.ask(path, method, body)
            assert json.loads(reply.text) == [method, path, "/index.php", query, body.decode()], path
        assert server.get("/admin/").text == "admin"
        assert server.get("/local.php").text == "admin"
        assert (server.get("/gone.php").status, server.get("/gone.php").text) == (410, "gone")


def test_an_uploaded_script_is_never_run_and_no_source_is_sent(tmp_path: Path) -> None:
    site(tmp_path)
    (tmp_path / "site" / "UPPER.PHP").write_text("<?php echo 'secret';")
    (tmp_path / "outside.php").write_text("<?php echo 'outside';")
    (tmp_path / "site" / "link.php").symlink_to("../outside.php")
    with Server(cwd=tmp_path) as server:
        assert server.get("/media/a.txt").text == "text"
        assert server.get("/media/x.php").status == 404
        for path in ["/UPPER.PHP", "/link.php", "/.hidden.php", "/media/a.txt/x.php", "/media/%2e%2e/media/x.php"]:
            reply = server.get(path)
            assert reply.status == 404, path
            assert "<?php" not in reply.text, path
            assert "run" not in reply.text, path
        # What follows a picture makes no script of it: the front controller answers, as for any other name.
        (tmp_path / "site" / "a.png").write_text("<?php echo 'run';")
        assert json.loads(server.get("/a.png/x.php").text)[2] == "/index.php"


def test_a_script_that_was_just_run_is_another_at_once(tmp_path: Path) -> None:
    site(tmp_path)
    outside = tmp_path / "outside.php"
    outside.write_text("<?php echo 'outside';")
    script = tmp_path / "site" / "gone.php"
    with Server(cwd=tmp_path) as server:
        for text in ("one", "two", "three"):
            (tmp_path / "site" / "next").write_text(f"<?php echo '{text}';")
            (tmp_path / "site" / "next").replace(script)
            assert [server.get("/gone.php").text for _ in range(3)] == [text] * 3
        script.unlink()
        assert json.loads(server.get("/gone.php").text)[2] == "/index.php"
        script.write_text("<?php echo 'back';")
        assert [server.get("/gone.php").text for _ in range(3)] == ["back"] * 3
        link = tmp_path / "site" / "link.php"
        link.symlink_to("../outside.php")
        link.replace(script)
        assert server.get("/gone.php").status == 404
        # The same below a folder of which the name was given to a link.
        assert [server.get("/admin/index.php").text for _ in range(3)] == ["admin"] * 3
        (tmp_path / "site" / "admin").rename(tmp_path / "elsewhere")
        (tmp_path / "elsewhere" / "index.php").write_text("<?php echo 'elsewhere';")
        (tmp_path / "site" / "admin").symlink_to("../elsewhere")
        assert server.get("/admin/index.php").status == 404


def test_bodies_go_both_ways_whole(tmp_path: Path) -> None:
    site(tmp_path)
    with Server(cwd=tmp_path) as server:
        for size in (0, 1, 65_528, 65_536, 3_000_000):
            assert server.ask("/count.php", "POST", b"x" * size).text == str(size)
        assert len(server.get("/large.php").body) == 3_000_000
        head = server.ask("/large.php", "HEAD")
        assert (head.status, head.body) == (200, b"")
        connection = server.connection()
        assert [exchange(connection, "/gone.php").text for _ in range(3)] == ["gone"] * 3
        connection.close()


def test_a_program_that_is_an_upstream_is_started_and_started_again(tmp_path: Path) -> None:
    site(tmp_path, spawn=', env = { GREETING = "hello" }')
    with Server(cwd=tmp_path) as server:
        first = int(server.get("/pid.php").text)
        assert first in children(server.pid)
        os.kill(first, signal.SIGKILL)
        server.wait_for(rf"upstream php: .*php-cgi \(pid {first}\) was killed by signal 9")
        assert server.get("/pid.php").status == 200
        assert json.loads(server.get("/info.php").text)["GREETING"] == "hello"
        before = {int(server.get("/pid.php").text) for _ in range(6)}
        server.send(signal.SIGHUP)
        server.wait_for("reload")
        assert int(server.get("/pid.php").text) in {*before, *children(server.pid)}
        pids = [pid for pid in children(server.pid) if pid != front(server)]
        assert server.stop() == 0
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "php-cgi is gone")


def fastcgi(folder: Path, url: str, more: str = "") -> None:
    """Write a file with one FastCGI server that gets everything."""
    (folder / "daemun.toml").write_text(
        f'[upstream.app]\nservers = ["{url}"]\n{more}\n[[route]]\npath = "/*"\nupstream = "app"\n'
    )


OK = record(STDOUT, b"Content-Type: text/plain\r\n\r\nok") + record(STDOUT) + record(END, bytes(8))


def test_a_connection_is_kept_while_each_answer_ends_well(tmp_path: Path) -> None:
    def behave(upstream: Upstream, peer: Peer) -> None:
        records = Records(peer.socket)
        while (request := records.request()) is not None:
            upstream.connections_of.append(peer.number)  # type: ignore[attr-defined]
            assert request.keeps
            peer.send(OK + (b"surplus" if request.variables["PATH_INFO"] == "/more" else b""))

    with Upstream(behaviour=behave) as upstream:
        upstream.connections_of = []  # type: ignore[attr-defined]
        fastcgi(tmp_path, f"fastcgi://127.0.0.1:{upstream.port}")
        with Server(cwd=tmp_path) as server:
            for path in ("/a", "/b", "/more", "/c", "/d"):
                assert server.get(path).text == "ok", path
        # Beside the one that the server was asked on what it can do.
        first, *_, last = connections = upstream.connections_of  # type: ignore[attr-defined]
        assert connections == [first, first, first, last, last]
        assert first != last


def test_processes_that_take_one_connection_each_are_given_up_to_those_who_wait(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:

        def child() -> None:
            """Serve one connection after another, as a process of php-fpm does."""
            with suppress(OSError):
                while True:
                    peer = Peer(listener.accept()[0], 0)
                    with suppress(OSError):
                        records = Records(peer.socket)
                        while records.request() is not None:
                            peer.send(OK)
                    peer.socket.close()

        fastcgi(tmp_path, f"fastcgi://127.0.0.1:{listener.getsockname()[1]}", "retries = 0")
        with Server(cwd=tmp_path) as server:
            for _ in range(2):
                threading.Thread(target=child, daemon=True).start()
            for count in (1, 1, 12, 1, 30):
                with ThreadPoolExecutor(count) as pool:
                    replies = list(pool.map(server.get, ["/"] * count))
                assert [reply.text for reply in replies] == ["ok"] * count
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("sent", "status", "told"),
    [
        (b"", 502, "without an answer"),
        (b"HTTP/1.1 200 OK\r\n\r\n", 502, "no FastCGI of version 1"),
        (record(STDOUT, b"no head at all\n\n") + record(END, bytes(8)), 502, "is not `Name: value`"),
        (record(END, bytes(8)), 502, "its answer is empty"),
        (record(STDOUT, b"X: y\r\n") + record(END, bytes(8)), 502, "ended within its head"),
        (record(STDOUT, b"X: y\r\n"), 502, "before the end of its answer"),
        (record(STDOUT, b"X: y\r\n\r\n", 2), 502, "a request that was not sent"),
        (record(END, b"\0\0\0\0\x02\0\0\0"), 502, "FCGI_OVERLOADED"),
        (record(END, b"\0"), 502, "has not the length"),
        (record(STDERR, b"PHP Fatal error\n") + record(STDOUT, b"Status: 500\n\n") + OK[-16:], 500, "PHP Fatal error"),
    ],
)
def test_an_answer_that_is_none_is_a_502_that_says_why(tmp_path: Path, sent: bytes, status: int, told: str) -> None:
    def behave(_upstream: Upstream, peer: Peer) -> None:
        if Records(peer.socket).request() is not None:
            peer.send(sent)

    with Upstream(behaviour=behave) as upstream:
        fastcgi(tmp_path, f"fastcgi://127.0.0.1:{upstream.port}", "retries = 0")
        with Server(cwd=tmp_path) as server:
            assert server.ask("/", "POST", b"x").status == status
            server.wait_for(told)


def test_an_answer_that_breaks_off_never_looks_whole(tmp_path: Path) -> None:
    def behave(_upstream: Upstream, peer: Peer) -> None:
        if (request := Records(peer.socket).request()) is None:
            return
        if request.variables["PATH_INFO"] == "/short":
            peer.send(record(STDOUT, b"Content-Length: 5\r\n\r\nabc") + record(END, bytes(8)))
        else:
            peer.send(record(STDOUT, b"Content-Type: text/plain\r\n\r\nabc"))

    with Upstream(behaviour=behave) as upstream:
        fastcgi(tmp_path, f"fastcgi://127.0.0.1:{upstream.port}")
        with Server(cwd=tmp_path) as server:
            for path in ("/short", "/cut"):
                with pytest.raises(http.client.IncompleteRead):
                    server.get(path)
                server.wait_for(r"the answer of fastcgi://.*(ended before its time|before the end of its answer)")


def test_a_flood_of_complaints_is_capped_and_hinders_nobody(tmp_path: Path) -> None:
    def behave(_upstream: Upstream, peer: Peer) -> None:
        if Records(peer.socket).request() is not None:
            for _ in range(200):
                peer.send(record(STDERR, b"z" * 999 + b"\n"))
            peer.send(OK)

    with Upstream(behaviour=behave) as upstream:
        fastcgi(tmp_path, f"fastcgi://127.0.0.1:{upstream.port}")
        with Server(cwd=tmp_path) as server:
            assert server.get("/").text == "ok"
            server.wait_for("more on standard error is left out")
            assert sum("zzzz" in line for line in server.errors.lines) < 80


def test_a_server_that_is_overloaded_sends_its_requests_to_another(tmp_path: Path) -> None:
    def refuse(_upstream: Upstream, peer: Peer) -> None:
        if Records(peer.socket).request() is not None:
            peer.send(record(END, b"\0\0\0\0\x02\0\0\0"))

    def behave(_upstream: Upstream, peer: Peer) -> None:
        records = Records(peer.socket)
        while records.request() is not None:
            peer.send(OK)

    with Upstream(behaviour=refuse) as one, Upstream(behaviour=behave) as other:
        text = f'servers = ["fastcgi://127.0.0.1:{one.port}", "fastcgi://127.0.0.1:{other.port}"]'
        (tmp_path / "daemun.toml").write_text(f'[upstream.app]\n{text}\n[[route]]\nupstream = "app"\n')
        with Server(cwd=tmp_path) as server:
            assert [server.ask("/", "POST", b"x").text for _ in range(4)] == ["ok"] * 4


def test_scgi_and_uwsgi_servers_are_asked_in_their_own_way(tmp_path: Path) -> None:
    heard: list[bytes] = []

    def behave(head: bytes) -> object:
        def run(_upstream: Upstream, peer: Peer) -> None:
            while b"the body" not in peer.rest and peer.more():
                pass
            heard.append(peer.rest)
            peer.send(head + b"Content-Type: text/plain\r\n\r\nanswered")

        return run

    for scheme, head in (("scgi", b"Status: 201 Made\r\n"), ("uwsgi", b"HTTP/1.1 201 Made\r\n")):
        with Upstream(behaviour=behave(head)) as upstream:  # type: ignore[arg-type]
            fastcgi(tmp_path, f"{scheme}://127.0.0.1:{upstream.port}")
            with Server(cwd=tmp_path) as server:
                reply = server.ask("/a%20b?q", "POST", b"the body")
                assert (reply.status, reply.text) == (201, "answered")
    scgi, uwsgi = heard
    assert scgi.split(b":", 1)[1].startswith(b"CONTENT_LENGTH\x008\0SCGI\x001\0")
    assert b"PATH_INFO\0/a b\0" in scgi
    assert scgi.endswith(b",the body")
    assert uwsgi[0] == 0
    assert int.from_bytes(uwsgi[1:3], "little") == len(uwsgi) - 4 - len(b"the body")
    assert b"\x09\0PATH_INFO\x04\0/a b" in uwsgi


APPLICATION = """
def application(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    text = "|".join([environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"], body.decode()])
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Server", "behind")])
    return [text.encode()] if environ["PATH_INFO"] == "/whole" else iter([text[:3].encode(), text[3:].encode()])
"""


@pytest.fixture
def common() -> Iterator[str]:
    """A folder that everybody may enter: the gate is another user than the server."""
    with tempfile.TemporaryDirectory(prefix="daemun-") as folder:
        Path(folder).chmod(0o755)
        yield folder


def test_uwsgi_answers_behind_the_gate(tmp_path: Path, common: str) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    port = free_port()
    plugin = ["--plugin", "python3"] if Path("/usr/lib/uwsgi/plugins").exists() else []
    command = [program("uwsgi", "uwsgi-core"), *plugin, "--uwsgi-socket", f"127.0.0.1:{port}"]
    command += ["--uwsgi-socket", f"{common}/sock", "--chmod-socket=666"]
    command += ["--wsgi-file", str(tmp_path / "app.py"), "--master", "--die-on-term", "--logto", str(tmp_path / "log")]
    with started(command, port, tmp_path / "log"):
        answers(tmp_path, f"uwsgi://127.0.0.1:{port}")
        answers(tmp_path, f"uwsgi://unix:{common}/sock")


def test_gunicorn_answers_behind_the_gate_over_uwsgi(tmp_path: Path, common: str) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--protocol",
        "uwsgi",
        "--bind",
        f"127.0.0.1:{port}",
        "--bind",
        f"unix:{common}/sock",
        "--umask",
        "0",
        "--chdir",
        str(tmp_path),
    ]
    command += ["--log-file", str(tmp_path / "log"), "app:application"]
    with started(command, port, tmp_path / "log"):
        answers(tmp_path, f"uwsgi://127.0.0.1:{port}")
        answers(tmp_path, f"uwsgi://unix:{common}/sock")


def answers(folder: Path, url: str) -> None:
    """See that an application answers whatever it is asked."""
    fastcgi(folder, url)
    with Server(cwd=folder, env={"PYTHONDONTWRITEBYTECODE": "1"}) as server:
        for path in ("/whole", "/pieces"):
            reply = server.ask(f"{path}?a=b", "POST", b"body")
            assert (reply.status, reply.text) == (200, f"POST|{path}|a=b|body"), path
