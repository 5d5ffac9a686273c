"""`daemun dev`: what a person at work on an application sees."""

from __future__ import annotations

import http.client
import os
import pty
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import Startproject
from gate import Gate
from server import BINARY, DEADLINE, Server, alive, children, environment, eventually

HTML = {"Accept": "text/html,*/*;q=0.8"}


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A folder with a WSGI application in `app.py` that names its process."""
    (tmp_path / "app.py").write_text("""\
import os

WORD = "one"

def app(environ, start_response):
    if environ["PATH_INFO"] == "/boom":
        raise ValueError("the <test> asked for it")
    if environ["PATH_INFO"] == "/debug":
        answer = "unseen"
        breakpoint()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [answer.encode()]
    start_response("200 OK", [("Content-Type", "text/html")])
    return [("<p>%s</p>" % (os.getpid() if environ["PATH_INFO"] == "/pid" else WORD)).encode()]
""")
    return tmp_path


def dev(*arguments: str | Path, cwd: Path, env: dict[str, str] | None = None) -> Server:
    """`daemun dev …`."""
    return Server(*arguments, cwd=cwd, env=env, command="dev")


def rewrite(path: Path, old: str, new: str) -> None:
    """Change a file as an editor does: written beside it, and put in its place."""
    text = path.read_text()
    assert old in text
    beside = path.with_name("." + path.name)
    beside.write_text(text.replace(old, new))
    beside.replace(path)


def until(server: Server, path: str, wanted: str, headers: dict[str, str] | None = None) -> http.client.HTTPMessage:
    """Ask until the answer holds `wanted`, whatever its status; give its headers."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        answer = server.get(path, headers)
        if wanted in answer.text:
            return answer.headers
    raise AssertionError(f"{path} never held {wanted!r}; last: {answer.text[:2000]}")


def test_a_changed_view_is_served_and_no_request_fails_meanwhile(plain: Path) -> None:
    with dev("app:app", cwd=plain) as server:
        assert server.get("/").text == "<p>one</p>"
        ended = threading.Event()
        answers: list[tuple[int, str]] = []

        def ask() -> None:
            while not ended.is_set():
                answer = server.get("/")
                answers.append((answer.status, answer.text))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: (200, "<p>one</p>") in answers, "an answer of the first code")
            for old, new in [("one", "two"), ("two", "three"), ("three", "four")]:
                rewrite(plain / "app.py", f'WORD = "{old}"', f'WORD = "{new}"')
                until(server, "/", new)
            eventually(lambda: (200, "<p>four</p>") in answers, "an answer of the last code")
        finally:
            ended.set()
            for thread in threads:
                thread.join()
        assert {status for status, _ in answers} == {200}


def test_a_request_that_comes_during_a_reload_waits_for_the_new_code(plain: Path, gate: Gate) -> None:
    (plain / "gate.py").write_text(Gate.MODULE)
    with dev("app:app", cwd=plain, env=gate.env) as server, ThreadPoolExecutor() as pool:
        rewrite(plain / "app.py", 'WORD = "one"', 'WORD = "late"\nimport gate\ngate.hold()')
        gate.entered()
        # The import is under way: whoever asks now gets what comes of it.
        asked = pool.submit(server.get, "/")
        static = pool.submit(server.get, "/.daemun/refresh.js")
        assert static.result(DEADLINE).status == 200
        assert not asked.done()
        gate.open()
        assert asked.result(DEADLINE).text == "<p>late</p>"


def test_a_template_change_shows_and_the_worker_stays(startproject: Startproject) -> None:
    folder = startproject("TEMPLATES[0]['DIRS'] = [BASE_DIR / 'pages']\n")
    (folder / "pages").mkdir()
    (folder / "pages" / "home.html").write_text("first")
    (folder / "shop" / "urls.py").write_text("""\
import os
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import path

urlpatterns = [
    path("", lambda request: render(request, "home.html")),
    path("pid", lambda request: HttpResponse(str(os.getpid()))),
]
""")
    with dev(cwd=folder) as server:
        worker = server.get("/pid").text
        assert server.get("/").text == "first"
        (folder / "pages" / "home.html").write_text("second")
        until(server, "/", "second")
        assert server.get("/pid").text == worker
        # The settings are those of manage.py.
        assert "settings shop.settings: set by manage.py" in server.start_up


def test_a_syntax_error_shows_in_the_browser_while_others_serve(plain: Path) -> None:
    (plain / "other.py").write_text((plain / "app.py").read_text())
    (plain / "daemun.toml").write_text("""\
[app.main]
wsgi = "app:app"
[app.other]
wsgi = "other:app"
[[route]]
path = "/*"
app = "main"
[[route]]
path = "/other/*"
app = "other"
""")
    with dev(cwd=plain) as server:
        assert server.get("/").status == 200
        rewrite(plain / "app.py", 'WORD = "one"', "WORD = = 1")
        until(server, "/", "SyntaxError", HTML)
        answer = server.get("/", HTML)
        assert answer.status == 500
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "app.py:3" in answer.text
        assert "WORD = = 1" in answer.text
        assert "daemun_worker.py" not in answer.text
        # A program gets the same as text.
        answer = server.get("/")
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert 'app.py", line 3' in answer.text
        assert server.get("/other/").text == "<p>one</p>"
        rewrite(plain / "app.py", "WORD = = 1", 'WORD = "mended"')
        until(server, "/", "mended")


def test_an_application_that_is_broken_at_the_start_shows_it_and_is_loaded_once_mended(plain: Path) -> None:
    rewrite(plain / "app.py", "import os", "import os, nowhere_to_be_found")
    with dev("app:app", cwd=plain) as server:
        answer = server.get("/", HTML)
        assert answer.status == 500
        assert "nowhere_to_be_found" in answer.text
        rewrite(plain / "app.py", "import os, nowhere_to_be_found", "import os")
        until(server, "/", "<p>one</p>")


def test_an_exception_is_a_page_with_its_lines_and_stands_in_the_log(plain: Path) -> None:
    with dev("app:app", cwd=plain) as server:
        answer = server.get("/boom", HTML)
        assert answer.status == 500
        assert "app.py:7 in app" in answer.text
        assert "ValueError: the &lt;test&gt; asked for it" in answer.text
        assert "<test>" not in answer.text
        server.wait_for("ValueError: the <test> asked for it")
        assert "daemun_development.py" not in server.errors.text
        assert server.get("/boom").headers["Content-Type"] == "text/plain; charset=utf-8"


def test_flask_shows_its_errors_too(flask: Path) -> None:
    with dev("app:app", cwd=flask) as server:
        answer = server.get("/boom", HTML)
        assert answer.status == 500
        assert "RuntimeError: the test asked for it" in answer.text
        assert "in boom" in answer.text
        server.wait_for("RuntimeError: the test asked for it")
        assert server.errors.text.count("RuntimeError: the test asked for it") == 1


def test_a_configuration_that_is_wrong_is_told_and_the_old_one_serves_on(plain: Path) -> None:
    file = plain / "daemun.toml"
    file.write_text('[app.main]\nwsgi = "app:app"\n')
    with dev(cwd=plain) as server:
        rewrite(file, "wsgi", "wsgy")
        server.wait_for("wsgy")
        assert server.get("/").text == "<p>one</p>"
        rewrite(file, 'wsgy = "app:app"', 'wsgi = "app:app"\nenv = { A = "b" }')
        server.wait_for("info: reloaded")
        assert server.get("/").text == "<p>one</p>"


def test_changes_are_found_by_looking_where_nobody_tells_of_them(plain: Path) -> None:
    with dev("app:app", "--poll", cwd=plain) as server:
        rewrite(plain / "app.py", 'WORD = "one"', 'WORD = "two"')
        until(server, "/", "two")


def test_another_folder_is_watched_where_it_is_named(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "more.py").write_text("")
    with dev("app:app", "--watch", elsewhere, cwd=plain) as server:
        worker = server.get("/pid").text
        (elsewhere / "more.py").write_text("1\n")
        server.wait_for("info: reloaded")
        assert server.get("/pid").text != worker


def test_without_reload_nothing_changes(plain: Path) -> None:
    with dev("app:app", "--no-reload", cwd=plain) as server:
        worker = server.get("/pid").text
        rewrite(plain / "app.py", 'WORD = "one"', 'WORD = "two"')
        server.send(signal.SIGHUP)  # HUP, which is acted on: whatever came before it would have been seen.
        server.wait_for("info: reloaded")
        assert server.errors.text.count("changed: loading") == 0
        until(server, "/", "two")
        assert server.get("/pid").text != worker


def next_event(response: http.client.HTTPResponse) -> str:
    """Give the number of a change, as a page hears of it."""
    while not (line := response.readline()).startswith(b"data: "):
        assert line
    return line[6:].decode().strip()


def test_pages_hear_of_changes_and_carry_the_script_only_where_asked_for(plain: Path) -> None:
    with dev("app:app", "--refresh", cwd=plain) as server:
        page = server.get("/").text
        assert page == '<p>one</p><script src="/.daemun/refresh.js" async></script>'
        assert "EventSource" in server.get("/.daemun/refresh.js").text
        connection = server.connection()
        connection.request("GET", "/.daemun/changes")
        response = connection.getresponse()
        assert response.headers["Content-Type"] == "text/event-stream"
        first = next_event(response)
        (plain / "style.css").write_text("p {}")
        assert next_event(response) != first
        response.close()
        connection.close()
    with dev("app:app", cwd=plain) as server:
        assert "script" not in server.get("/").text


def test_answers_say_where_their_time_went_and_the_log_is_readable(plain: Path) -> None:
    with dev("app:app", cwd=plain) as server:
        timing = server.get("/").headers["Server-Timing"]
        assert re.fullmatch(r"queue;dur=[0-9.]+, app;dur=[0-9.]+, total;dur=[0-9.]+", timing)
        server.wait_for(r"^\d\d:\d\d:\d\d  200  GET /  10 B  [0-9.]+ ms$", server.access)


def test_unapplied_migrations_are_told(startproject: Startproject) -> None:
    folder = startproject()
    (folder / "db.sqlite3").unlink()
    with dev(cwd=folder) as server:
        assert "unapplied migration(s). Your project may not work properly" in server.start_up
        assert "DEBUG is True" not in server.start_up
        # Straight from the sources, as runserver does.
        assert server.get("/static/admin/css/base.css").status == 200


class Terminal:
    """`daemun dev …` in the foreground of a terminal of its own."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self.ours, theirs = pty.openpty()
        self.text = ""
        self.process = subprocess.Popen(
            [str(BINARY), "dev", *arguments, "--listen", "127.0.0.1:0"],
            cwd=cwd,
            env=environment({"TERM": "dumb", "PYTHON_COLORS": "0"}),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            # A new session has no terminal until it takes one.
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # noqa: PLW1509
        )
        os.close(theirs)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Read until the terminal shows this."""
        end = time.monotonic() + DEADLINE
        while not (match := re.search(pattern, self.text)):
            assert time.monotonic() < end, self.text
            if select.select([self.ours], [], [], 0.5)[0]:
                self.text += os.read(self.ours, 65536).decode(errors="replace")
        return match

    def type(self, text: str) -> None:
        """Type."""
        os.write(self.ours, text.encode())

    def close(self) -> None:
        """End it, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.ours)


@pytest.fixture
def terminal(plain: Path) -> Iterator[Terminal]:
    """A terminal in which the application is developed."""
    terminal = Terminal("app:app", cwd=plain)
    yield terminal
    terminal.close()


def test_a_debugger_has_the_terminal_and_nobody_hurries_it(terminal: Terminal, plain: Path) -> None:
    port = int(terminal.wait_for(r"listening on http://127\.0\.0\.1:(\d+)")[1])
    answers: list[bytes] = []

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        connection.request("GET", "/debug")
        answers.append(connection.getresponse().read())
        connection.close()

    thread = threading.Thread(target=ask)
    thread.start()
    terminal.wait_for(r"\(Pdb\) ")
    terminal.type("answer = 'typed'\n")
    terminal.wait_for(r"typed'[\s\S]*\(Pdb\) ")
    # What changes meanwhile is loaded for others; the one at the prompt is left alone.
    rewrite(plain / "app.py", 'WORD = "one"', 'WORD = "two"')
    terminal.wait_for("info: reloaded")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"<p>two</p>"
    connection.close()
    terminal.type("c\n")
    thread.join(DEADLINE)
    assert answers == [b"typed"]


def test_ctrl_c_stops_at_once_even_at_a_debuggers_prompt(terminal: Terminal) -> None:
    port = int(terminal.wait_for(r"listening on http://127\.0\.0\.1:(\d+)")[1])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    connection.request("GET", "/debug")
    terminal.wait_for(r"\(Pdb\) ")
    below = children(terminal.process.pid)
    assert below
    terminal.type("\x03")
    assert terminal.process.wait(DEADLINE) == 0
    end = time.monotonic() + DEADLINE
    while any(alive(pid) for pid in below):
        assert time.monotonic() < end
    connection.close()
