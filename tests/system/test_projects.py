"""Django projects that are not alone, or not at the root: each has its own styles, wherever it is asked for them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from server import Server, run
from test_django import DEPLOYED, MANIFEST, Startproject, stylesheets

ANY_HOST = "DEBUG = False\nALLOWED_HOSTS = ['*']\nSTATICFILES_DIRS = [BASE_DIR / 'own']\n"
UPLOADS = "MEDIA_URL = 'media/'\nMEDIA_ROOT = BASE_DIR / 'uploads'\n"
SERVER = '[server]\nlisten = ["127.0.0.1:0"]\n[app.one]\ntarget = "one"\n[app.two]\ntarget = "two"\n'
HOSTS = """
[[site]]
hosts = ["one.example", "www.one.example"]
app = "one"

[[site]]
hosts = ["*.two.example"]
app = "two"
"""
BELOW = """
[[route]]
path = "/one/*"
app = "one"
strip_prefix = true

[[route]]
path = "/two/*"
app = "two"
strip_prefix = true
"""

Pair = Callable[[str], Path]


@pytest.fixture
def pair(startproject: Startproject, tmp_path: Path) -> Pair:
    """Two projects, each with a style and an upload of its own under the same names."""

    def make(configuration: str) -> Path:
        for name in ("one", "two"):
            project = startproject(ANY_HOST + UPLOADS, name)
            for folder in ("own", "uploads"):
                (project / folder).mkdir()
                (project / folder / "a.css").write_text(f"/* {folder} of {name} */")
        (tmp_path / "daemun.toml").write_text(SERVER + configuration)
        return tmp_path

    return make


def assert_own_files(server: Server, name: str, prefix: str, headers: Mapping[str, str]) -> None:
    """What the project's page links is there, and what is there is the project's."""
    page = server.get(f"{prefix}/admin/login/", headers)
    links = stylesheets(page)
    assert links
    for link in links:
        assert link.startswith(f"{prefix}/static/"), link
        assert server.get(link, headers).status == 200, link
    for url, folder in (("static", "own"), ("media", "uploads")):
        assert server.get(f"{prefix}/{url}/a.css", headers).text == f"/* {folder} of {name} */"


def test_projects_on_hosts_of_their_own_have_their_own_files(pair: Pair) -> None:
    with Server(cwd=pair(HOSTS), listen="") as server:
        assert_own_files(server, "one", "", {"Host": "one.example"})
        assert_own_files(server, "two", "", {"Host": "any.two.example"})
        assert server.get("/static/a.css", {"Host": "else.example"}).status == 421


def test_projects_below_prefixes_of_one_host_have_their_own_files(pair: Pair) -> None:
    folder = pair(BELOW)
    with Server(cwd=folder, listen="") as server:
        for name in ("one", "two"):
            assert_own_files(server, name, f"/{name}", {})
        assert server.get("/static/a.css").status == 404
    told = json.loads(run("explain", "/two/static/a.css", "--json", cwd=folder).stdout)
    assert "STATIC_URL" in json.dumps(told)
    assert str(folder / "two" / "own" / "a.css") in json.dumps(told)


def test_projects_that_want_the_same_url_are_told(pair: Pair) -> None:
    folder = pair(BELOW.replace("strip_prefix = true\n", ""))
    said = r"two: /static/\* is another project's already .*, so these files are not served"
    with Server(cwd=folder, listen="") as server:
        assert re.search(said, server.start_up)
        assert server.get("/static/a.css").text == "/* own of one */"
    checked = json.loads(run("check", "--json", cwd=folder).stdout)
    assert any(re.search(said, finding["message"]) for finding in checked["findings"]), checked


@pytest.mark.parametrize("url", ["static/", "/shop/static/"])
def test_behind_a_proxy_that_strips_a_prefix_files_are_found_with_and_without_it(
    startproject: Startproject, url: str
) -> None:
    project = startproject(DEPLOYED + f"FORCE_SCRIPT_NAME = '/shop'\nSTATIC_URL = {url!r}\n")
    with Server(project, cwd=project) as server:
        # The proxy has stripped the path of the page, and will strip those of its files.
        links = stylesheets(server.get("/admin/login/"))
        assert links
        for link in links:
            assert link.startswith("/shop/static/"), link
            assert server.get(link.removeprefix("/shop")).status == 200, link
            assert server.get(link).status == 200, link


@pytest.mark.parametrize("command", ["dev", "serve"])
def test_with_debug_what_changes_in_a_source_is_seen_at_once(startproject: Startproject, command: str) -> None:
    project = startproject("STATICFILES_DIRS = [BASE_DIR / 'own']\n")
    (project / "own").mkdir()
    with Server(project, cwd=project, command=command) as server:
        for number in range(5):
            (project / "own" / "a.css").write_text(f"/* {number} */")
            (project / "own" / f"{number}.css").write_text("new")
            answer = server.get("/static/a.css")
            assert (answer.text, answer.headers["Cache-Control"]) == (f"/* {number} */", "no-cache")
            assert server.get(f"/static/{number}.css").text == "new"
        (project / "own" / "a.css").unlink()
        assert server.get("/static/a.css").status == 404


def test_neither_the_file_system_nor_the_project_is_sent_as_a_static_file(startproject: Startproject) -> None:
    project = startproject(DEPLOYED + "STATIC_ROOT = '/'\n")
    with Server(project, cwd=project) as server:
        assert "[D102]" in server.start_up
        assert server.get("/static/etc/passwd").status == 404
        assert stylesheets(server.get("/admin/login/"))
    settings = project / "shop" / "settings.py"
    settings.write_text(settings.read_text() + "STATIC_ROOT = BASE_DIR\n")
    with Server(project, "--collect", cwd=project) as server:
        assert server.get("/static/admin/css/base.css").status == 200
        for name in ("shop/settings.py", "db.sqlite3", "manage.py"):
            assert (project / name).exists()
            assert server.get(f"/static/{name}").status == 404, name


WHITENOISE = """
WHITENOISE_ROOT = BASE_DIR / "root"
WHITENOISE_INDEX_FILE = True
WHITENOISE_MAX_AGE = None
WHITENOISE_ALLOW_ALL_ORIGINS = False
WHITENOISE_STATIC_PREFIX = "/moved/"
WHITENOISE_CHARSET = "iso-8859-1"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = True
WHITENOISE_ADD_HEADERS_FUNCTION = print
"""


def test_each_setting_of_whitenoise_is_followed_or_told(startproject: Startproject) -> None:
    project = startproject(DEPLOYED + MANIFEST + WHITENOISE)
    (project / "root" / "docs").mkdir(parents=True)
    for folder in ("", "docs/"):
        (project / "root" / folder / "index.html").write_text(f"the index of /{folder}")
    with Server(project, "--collect", cwd=project) as server:
        for name in ("CHARSET", "USE_FINDERS", "ADD_HEADERS_FUNCTION"):
            assert f"WHITENOISE_{name} is not followed" in server.start_up
        # The index of the root, and of a folder below it.
        assert [server.get(path).text for path in ("/", "/docs/")] == ["the index of /", "the index of /docs/"]
        moved = server.get("/docs")
        assert (moved.status, moved.headers["Location"]) == (301, "/docs/")
        plain = server.get("/moved/admin/css/base.css")
        assert (plain.status, plain.headers["Cache-Control"]) == (200, None)
        assert plain.headers["Access-Control-Allow-Origin"] is None
        names = json.loads((project / "staticfiles" / "staticfiles.json").read_text())["paths"]
        hashed = server.get("/moved/" + names["admin/css/base.css"])
        assert "immutable" in hashed.headers["Cache-Control"]
        # Nothing else is at the place of STATIC_URL.
        assert server.get("/static/admin/css/base.css").status == 404
