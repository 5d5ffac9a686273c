"""Words on the command line, ports, and what is found in a folder."""

from __future__ import annotations

import re
from pathlib import Path

from server import Server, children, json_lines, run


def test_a_callable_is_served_by_its_name(flask: Path) -> None:
    with Server("app:app", cwd=flask) as server:
        assert server.get("/").text == "one"
        assert server.ask("/length", "POST", b"x" * 100_000).text == "100000"
        assert server.get("/nowhere").status == 404


def test_a_folder_with_app_py_is_served_without_a_word(flask: Path) -> None:
    with Server(cwd=flask) as server:
        assert server.get("/").text == "one"


def test_a_factory_is_called(tmp_path: Path) -> None:
    (tmp_path / "site_factory.py").write_text(
        "from flask import Flask\ndef make():\n    app = Flask(__name__)\n"
        "    app.add_url_rule('/', view_func=lambda: 'made')\n    return app\n"
    )
    with Server("site_factory:make()", cwd=tmp_path) as server:
        assert server.get("/").text == "made"


def test_several_callables_stand_below_their_mounts(flask: Path) -> None:
    (flask / "wiki.py").write_text(
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [(environ['SCRIPT_NAME'] + '|' + environ['PATH_INFO']).encode()]\n"
    )
    with Server("/=app:app", "/wiki=wiki:app", cwd=flask) as server:
        assert server.get("/").text == "one"
        assert server.get("/wiki/page").text == "/wiki|/page"


def test_a_folder_with_nothing_to_serve_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    done = run("serve", cwd=tmp_path)
    assert done.returncode == 2
    for name in ["daemun.toml", "manage.py", "wsgi.py", "app.py", "main.py", "index.html"]:
        assert name in done.stderr


def test_a_folder_of_files_is_served_when_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<p>hello")
    (tmp_path / "secret.sqlite3").write_text("rows")
    (tmp_path / ".env").write_text("KEY=1")
    tmp_path.chmod(0o755)
    with Server(tmp_path, cwd=tmp_path.parent) as server:
        assert server.get("/").text == "<p>hello"
        assert server.get("/secret.sqlite3").status == 404
        assert server.get("/.env").status == 404


def test_a_second_server_on_the_same_port_is_refused_with_the_holders_name(flask: Path) -> None:
    with Server("app:app", cwd=flask) as server:
        done = run("serve", "app:app", "--listen", f"127.0.0.1:{server.port}", cwd=flask)
        assert done.returncode == 1
        assert str(server.port) in done.stderr
        assert "daemun" in done.stderr.replace("daemun:", "")
        named = {int(number) for number in re.findall(r"\d+", done.stderr)}
        assert named & {server.pid, *children(server.pid)}, done.stderr
        assert server.get("/").status == 200


def test_the_platforms_port_is_listened_on_for_everybody(flask: Path) -> None:
    with Server("app:app", cwd=flask, env={"PORT": "0"}, listen="") as server:
        assert "listening on http://0.0.0.0:" in server.errors.text
        assert server.get("/").text == "one"


def test_the_access_log_is_json_when_asked(flask: Path) -> None:
    with Server("app:app", "--log-format", "json", cwd=flask) as server:
        server.get("/?a=1", {"User-Agent": 'a "quoted" one'})
        server.get("/nowhere")
        server.wait_for(r"/nowhere", server.access)
        first, second = json_lines(server.access)
        assert "GET" in first.values()
        assert 200 in first.values()
        assert 404 in second.values()
        assert any(value == 'a "quoted" one' for value in first.values())


def test_the_access_log_goes_to_standard_output_and_nothing_else_does(flask: Path) -> None:
    with Server("app:app", cwd=flask) as server:
        server.get("/boom")
        server.wait_for(r'"GET /boom HTTP/1.1" 500', server.access)
        server.wait_for("the test asked for it")
        assert server.stop() == 0
        assert len(server.access.lines) == 1


def test_a_word_from_another_program_gets_the_right_one(tmp_path: Path) -> None:
    for word, right in [("runserver", "daemun dev"), ("collectstatic", "daemun collect"), ("serv", "serve")]:
        done = run(word, cwd=tmp_path)
        assert done.returncode == 2, word
        assert right in done.stderr, word
    done = run("serve", "--bind", "127.0.0.1:0", cwd=tmp_path)
    assert done.returncode == 2
    assert "--listen" in done.stderr
