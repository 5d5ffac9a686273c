"""`daemun.toml`: what it does, and how its faults are told."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from server import Server, run


def write(folder: Path, text: str, name: str = "daemun.toml") -> Path:
    """Write a file and give it."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.fixture
def portal(flask: Path) -> Path:
    """An application, files, a redirect and a fixed answer in one file."""
    write(flask, "body { color: red }", "assets/css/site.css")
    write(flask, "print('mine')", "assets/tool.py")
    write(
        flask,
        """\
include = ["sites/*.toml"]

[server]
listen = ["127.0.0.1:0"]

[app.portal]
wsgi = "app:app"
processes = 1
threads = 2
env = { COLOUR = "${COLOUR:-blue}" }

[[route]]
path = "/assets/*"
static = { root = "assets" }

[[route]]
path = "/old/*"
redirect = { to = "/new/{rest}", status = 308 }

[[route]]
path = "/*"
app = "portal"
""",
    )
    write(flask, '[[route]]\npath = "/robots.txt"\nrespond = { status = 200, body = "none" }\n', "sites/robots.toml")
    return flask


def test_each_route_answers_what_it_says(portal: Path) -> None:
    with Server(cwd=portal, listen="") as server:
        assert server.get("/").text == "one"
        sheet = server.get("/assets/css/site.css")
        assert (sheet.status, sheet.text) == (200, "body { color: red }")
        assert server.get("/assets/tool.py").status == 200, "a route that was written sends sources"
        moved = server.get("/old/a/b?c=d")
        assert (moved.status, moved.headers["Location"]) == (308, "/new/a/b?c=d")
        assert server.get("/assets").status in {301, 308}
        assert server.get("/robots.txt").text == "none"
        assert server.get("/robots.txt/more").status == 404


def test_the_file_is_found_in_the_folder_that_is_named(portal: Path) -> None:
    with Server(portal, cwd=portal.parent, listen="") as server:
        assert server.get("/robots.txt").text == "none"


def test_every_fault_is_told_at_once_with_its_place_and_the_nearest_name(tmp_path: Path) -> None:
    write(
        tmp_path,
        """\
[server]
lisen = ["127.0.0.1:0"]
grace = 25

[app.shop]
wsgi = "app:app"
thread = 4

[[route]]
path = "/*"
app = "shpo"
""",
    )
    done = run("serve", cwd=tmp_path)
    assert done.returncode == 2
    for place, wish in [(":2:", "listen"), (":3:", "25s"), (":7:", "threads"), (":11:", "shop")]:
        lines = [line for line in done.stderr.splitlines() if f"daemun.toml{place}" in line]
        assert lines, f"nothing about daemun.toml{place}\n{done.stderr}"
        assert any(wish in line for line in done.stderr.splitlines()), wish


def test_a_name_that_is_not_set_is_a_fault(tmp_path: Path) -> None:
    write(tmp_path, '[app.a]\nwsgi = "app:app"\nenv = { KEY = "${NOT_SET_ANYWHERE}" }\n')
    done = run("serve", cwd=tmp_path)
    assert done.returncode == 2
    assert "NOT_SET_ANYWHERE" in done.stderr


def test_names_come_from_the_env_file_and_the_flag_wins_over_the_file(portal: Path) -> None:
    write(
        portal,
        "import os\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [' '.join(os.environ.get(name, '-') for name in ('COLOUR', 'SECRET', 'DAEMUN_X')).encode()]\n",
        "app.py",
    )
    with Server(cwd=portal, listen="", env={"COLOUR": "green", "DAEMUN_LOG_LEVEL": "info"}) as server:
        assert server.get("/").text == "green - -"
    write(portal, "SECRET='a b'\n", "secrets.env")
    with Server("--env-file", portal / "secrets.env", "--env", "COLOUR=red", cwd=portal, listen="") as server:
        assert server.get("/").text == "red a b -"


def test_each_application_runs_in_its_own_python(tmp_path: Path) -> None:
    system = shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin")
    assert system, "this test needs a python3 of the system"
    write(
        tmp_path,
        "import sys\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [sys.prefix.encode()]\n",
        "app.py",
    )
    write(
        tmp_path,
        f"""\
[server]
listen = ["127.0.0.1:0"]

[app.one]
target = "."
processes = 1

[app.two]
wsgi = "app:app"
python = "{system}"
processes = 1

[[route]]
path = "/*"
app = "one"

[[route]]
host = "two.example"
path = "/*"
app = "two"

[[route]]
path = "/files/*"
static = {{ root = "files", missing = "next" }}
""",
    )
    write(tmp_path, "there", "files/a.txt")
    with Server("--config", tmp_path / "daemun.toml", cwd=tmp_path, listen="") as server:
        assert server.get("/").text == sys.prefix
        assert server.get("/", {"Host": "two.example"}).text != sys.prefix
        assert server.get("/files/a.txt").text == "there"
        assert server.get("/files/b.txt").text == sys.prefix, "the next best route"
        assert system in server.start_up
        assert "two.example/* -> application two" in server.start_up
