"""The examples do what their page says."""

from __future__ import annotations

import re

from peers import program
from server import ROOT, Server

EXAMPLES = ROOT / "examples"


def test_the_site_of_files() -> None:
    with Server(cwd=EXAMPLES / "site", env={"LISTEN": "127.0.0.1:0"}, listen="") as server:
        assert "without any Python" in server.get("/").text
        assert server.get("/css/site.css").headers["Content-Type"].startswith("text/css")
        moved = server.get("/start.html")
        assert (moved.status, moved.headers["Location"]) == (308, "/")
        assert "User-agent" in server.get("/robots.txt").text


def test_the_scripts_of_cgi() -> None:
    with Server(cwd=EXAMPLES / "cgi") as server:
        assert "the query is: name=Ada" in server.get("/cgi-bin/hello?name=Ada").text
        assert "<h1>Hello, &lt;Ada&gt;!</h1>" in server.get("/py/hello.py?name=<Ada>").text
        assert server.get("/").headers["Location"].endswith("/cgi-bin/hello")


def test_hello_flask() -> None:
    with Server("app:app", cwd=EXAMPLES / "hello-flask") as server:
        assert "Hello from Flask" in server.get("/").text


def test_the_least_django_project_has_its_styles() -> None:
    with Server(cwd=EXAMPLES / "django-minimal") as server:
        page = server.get("/")
        link = re.search(r'href="(.*\.css)"', page.text)
        assert link is not None
        assert "#2f4858" in server.get(link[1]).text


def test_the_php_site() -> None:
    program("php-cgi")
    with Server(cwd=EXAMPLES / "php") as server:
        assert "PHP behind daemun" in server.get("/").text
        assert "/a/permalink" in server.get("/a/permalink").text
        assert server.get("/media/note.txt").text == "A file of a visitor.\n"
