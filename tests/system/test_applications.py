"""Several applications, mounts, middleware and factories; faults of configuration; errors that frameworks swallow."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from server import Server

PLAIN = """\
def application(environ, start_response):
    body = (environ["SCRIPT_NAME"] + "|" + environ["PATH_INFO"] + "|" + environ.get("via", "")).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]

def make(name="made"):
    def made(environ, start_response):
        environ["via"] = environ.get("via", "") + name
        return application(environ, start_response)
    return made

class Outer:
    def __init__(self, app):
        self.app = app
    def __call__(self, environ, start_response):
        environ["via"] = environ.get("via", "") + "outer "
        return self.app(environ, start_response)

def inner(app):
    def wrapped(environ, start_response):
        environ["via"] = environ.get("via", "") + "inner "
        return app(environ, start_response)
    return wrapped
"""


def test_mounts_share_a_process_and_middleware_is_around_each_outermost_first(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(PLAIN)
    (tmp_path / "daemun.toml").write_text(
        '[app.portal]\nmounts = { "/" = "plain:application", "/wiki" = "plain:make()", "/wiki/deep" = "plain:make()"}\n'
        'middleware = ["plain:Outer", "plain:inner"]\nprocesses = 1\n'
    )
    with Server(cwd=tmp_path) as server:
        assert server.get("/").text == "|/|outer inner "
        assert server.get("/wiki").text == "/wiki||outer inner made"
        assert server.get("/wiki/a%20b").text == "/wiki|/a b|outer inner made"
        assert server.get("/wikipedia").text == "|/wikipedia|outer inner "
        assert server.get("/wiki/deep/x").text == "/wiki/deep|/x|outer inner made"


def test_two_django_projects_in_one_process_are_refused_with_the_mend(
    tmp_path: Path, startproject: Callable[..., Path]
) -> None:
    first = startproject("", "first")
    (first / "other").mkdir()
    for name in ["__init__", "settings", "urls", "wsgi"]:
        text = (first / "shop" / f"{name}.py").read_text()
        (first / "other" / f"{name}.py").write_text(text.replace("shop.", "other."))
    (first / "daemun.toml").write_text(
        '[app.both]\nmounts = { "/" = "shop.wsgi:application", "/other" = "other.wsgi:application" }\n'
    )
    server = Server(cwd=first)
    assert server.exit_code() == 2
    assert "settings" in server.errors.text
    assert "give each an [app] of its own" in server.errors.text


def test_applications_have_folders_environments_and_pythons_of_their_own(tmp_path: Path) -> None:
    source = """\
import os, sys
def application(environ, start_response):
    body = "|".join([os.getcwd(), os.environ.get("WHO", ""), sys.implementation.name, sys.path[0]]).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
    for name in ["one", "two"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.py").write_text(source)
    (tmp_path / "daemun.toml").write_text(f"""\
[app.one]
wsgi = "same:application"
directory = "one"
env = {{ WHO = "first" }}
python = "{sys.executable}"
processes = 1
[app.two]
wsgi = "same:application"
directory = "two"
env = {{ WHO = "second" }}
python = "pypy3"
processes = 1
[[route]]
path = "/one/*"
app = "one"
[[route]]
path = "/two/*"
app = "two"
""")
    with Server(cwd=tmp_path) as server:
        assert server.get("/one/").text == f"{tmp_path}/one|first|cpython|{tmp_path}/one"
        assert server.get("/two/").text == f"{tmp_path}/two|second|pypy|{tmp_path}/two"


def test_one_broken_application_answers_503_alone_and_is_mended_by_a_reload(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(PLAIN)
    (tmp_path / "bad.py").write_text("import no_such_module_at_all\n")
    (tmp_path / "daemun.toml").write_text(
        '[app.good]\nwsgi = "good:application"\n[app.bad]\nwsgi = "bad:application"\n'
        '[[route]]\npath = "/good/*"\napp = "good"\n[[route]]\npath = "/bad/*"\napp = "bad"\n'
    )
    with Server(cwd=tmp_path) as server:
        server.wait_for("bad: import of bad failed: no_such_module_at_all is not installed for .*python")
        assert server.get("/bad/").status == 503
        assert server.get("/good/").status == 200
        (tmp_path / "bad.py").write_text(PLAIN)
        server.send(signal.SIGHUP)
        server.wait_for("reloaded")
        assert server.get("/bad/").status == 200


FAULTS = [
    (
        "nothing:application",
        "",
        r"there is no module nothing; looked in sys\.path\[0\]=.* and the packages of .*python",
    ),
    ("mod:aplication", "def application(e, s): pass", "did you mean mod:application?"),
    ("mod:application", "async def application(scope, receive, send): pass", "mod:application is an ASGI application"),
    (
        "mod:application",
        "class App:\n    async def __call__(self, scope, receive, send): pass\napplication = App()",
        "is an ASGI application: daemun serves WSGI",
    ),
    ("mod:application", "def application(scope): pass", r"has the wrong signature.*this one takes \(scope\)"),
    ("mod:application", "application = 3", "it is a int; a WSGI application is called with environ and start_response"),
    ("mod:make", "def make():\n    pass", r"if it makes the application, write mod:make\(\)"),
    ("mod:make()", "def make():\n    raise ValueError('no database')", "ValueError: no database"),
    ("mod:application", "raise SystemExit(4)", r"the module called sys\.exit\(4\) while it was imported"),
    ("mod:application", "x = (", "SyntaxError"),
]


@pytest.mark.parametrize(("target", "source", "said"), FAULTS, ids=[str(number) for number in range(len(FAULTS))])
def test_what_cannot_be_served_is_one_clear_error(tmp_path: Path, target: str, source: str, said: str) -> None:
    import re

    (tmp_path / "mod.py").write_text(source + "\n")
    (tmp_path / "daemun.toml").write_text(f'[app.x]\nwsgi = "{target}"\n')
    server = Server(cwd=tmp_path)
    assert server.exit_code() == 1
    assert re.search(said, server.errors.text), server.errors.text
    assert "daemun_worker.py" not in server.errors.text


def test_a_wrong_python_and_a_missing_folder_are_faults_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "mod.py").write_text(PLAIN)
    (tmp_path / "daemun.toml").write_text(
        '[app.x]\nwsgi = "mod:application"\npython = "/no/such/python"\n'
        '[app.y]\nwsgi = "mod:application"\ndirectory = "nowhere"\n'
    )
    server = Server(cwd=tmp_path)
    assert server.exit_code() == 2
    assert "daemun.toml:3" in server.errors.text
    assert "/no/such/python" in server.errors.text
    assert "nowhere" in server.errors.text


URLS = """
from django.http import HttpResponse
from django.urls import path

def boom(request):
    raise ZeroDivisionError("asked for by the test")

urlpatterns = [path("boom", boom), path("fine", lambda request: HttpResponse("fine"))]
"""


@pytest.mark.parametrize("configured", [False, True])
def test_an_error_that_django_answers_is_logged_once(startproject: Callable[..., Path], configured: bool) -> None:
    settings = 'DEBUG = False\nALLOWED_HOSTS = ["*"]\n'
    if configured:
        settings += (
            'LOGGING = {"version": 1, "disable_existing_loggers": False, "handlers": {"console": '
            '{"class": "logging.StreamHandler"}}, "root": {"handlers": ["console"]}}\n'
        )
    folder = startproject(settings)
    (folder / "shop" / "urls.py").write_text(URLS)
    with Server(cwd=folder) as server:
        assert server.get("/boom?a=b").status == 500
        assert server.get("/fine").text == "fine"
        assert server.stop() == 0
    text = server.errors.text
    assert text.count("ZeroDivisionError: asked for by the test") == 1, text
    assert ("error in GET /boom?a=b" in text) is not configured


FLASK = """\
import logging
from flask import Flask

logging.getLogger("shop").addHandler(HANDLER)
app = Flask(__name__)

@app.get("/boom")
def boom():
    raise ZeroDivisionError("asked for by the test")
"""


@pytest.mark.parametrize("handler", ["logging.NullHandler()", "logging.StreamHandler()"])
def test_an_error_that_flask_answers_is_logged_once(tmp_path: Path, handler: str) -> None:
    (tmp_path / "shop.py").write_text(FLASK.replace("HANDLER", handler))
    with Server("shop:app", cwd=tmp_path) as server:
        assert server.get("/boom").status == 500
        assert server.stop() == 0
    assert server.errors.text.count("ZeroDivisionError: asked for by the test") == 1, server.errors.text


def test_pypy_is_there() -> None:
    """The interpreter that one of the tests above needs."""
    assert subprocess.run(["pypy3", "-c", "print(1)"], check=True, capture_output=True).stdout == b"1\n"
