"""Sites that are CGI programs of Debian, in a browser; and a script of the days of Python 2 under the newest Python.

With `DEMO_SHOTS` the browser's pictures stay in that folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Response, sync_playwright
from server import Server
from test_cgi_git import commit, git
from test_pythons import INTERPRETERS
from venvs import make_venv

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
CONFIGURATION = """
[[route]]
path = "/gitweb/*.cgi"
cgi = {{ root = "/usr/share/gitweb", env = {{ GITWEB_CONFIG = "{folder}/gitweb.conf" }} }}

[[route]]
path = "/gitweb/*"
static = {{ root = "/usr/share/gitweb" }}

[[route]]
path = "/gitweb/"
redirect = {{ to = "/gitweb/gitweb.cgi", status = 302 }}

[[route]]
path = "/cgit/*"
cgi = {{ root = "/usr/lib/cgit", program = "/usr/lib/cgit/cgit.cgi", env = {{ CGIT_CONFIG = "{folder}/cgitrc" }} }}

[[route]]
path = "/cgit-css/*"
static = {{ root = "/usr/share/cgit" }}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve a project with two commits through gitweb and cgit."""
    folder = tmp_path_factory.mktemp("sites")
    folder.chmod(0o755)
    git("init", "--quiet", "--initial-branch=main", "author", cwd=folder)
    commit(folder / "author", "first.txt", b"one\n")
    commit(folder / "author", "second <&>.txt", "대문\n".encode())
    git("clone", "--quiet", "--bare", "author", "srv/project.git", cwd=folder)
    (folder / "srv/project.git/description").write_text("A gate and its house\n")
    (folder / "gitweb.conf").write_text(f'$projectroot = "{folder}/srv";\n$git_temp = "{folder}";\n')
    (folder / "cgitrc").write_text(
        f"css=/cgit-css/cgit.css\nlogo=/cgit-css/cgit.png\nvirtual-root=/cgit\nscan-path={folder}/srv\n"
    )
    (folder / "daemun.toml").write_text(CONFIGURATION.format(folder=folder))
    with Server(cwd=folder) as server:
        yield server
        assert server.stop() == 0


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A page of a browser that complains about every answer that is none."""
    chromium = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
    assert chromium, "no Chromium; run:  scripts/require chromium"
    failures: list[str] = []

    def look(response: Response) -> None:
        if response.status >= 400 and not response.url.endswith("favicon.ico"):
            failures.append(f"{response.status} {response.url}")

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=chromium, args=FLAGS, viewport={"width": 1200, "height": 700}
        )
        try:
            page = context.pages[0] if context.pages else context.new_page()
            page.on("response", look)
            yield page
        finally:
            context.close()
    assert failures == []


def shoot(page: Page, name: str, folder: Path) -> None:
    """Keep a picture."""
    shots = Path(os.environ.get("DEMO_SHOTS", folder))
    shots.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=shots / f"{name}.png")


def test_gitweb_shows_a_project_in_a_browser(server: Server, page: Page, tmp_path: Path) -> None:
    page.goto(f"http://127.0.0.1:{server.port}/gitweb/")
    assert page.inner_text("table.project_list").count("project.git") == 1
    page.click("a.list:has-text('project.git')")
    assert "A gate and its house" in page.content()
    page.click("a:text-is('tree') >> nth=0")
    shoot(page, "gitweb-tree", tmp_path)
    page.click("table.tree a.list:has-text('second')")
    assert "대문" in page.inner_text("body")
    # Its style sheet came too.
    assert page.eval_on_selector("div.page_header", "e => getComputedStyle(e).backgroundColor") == "rgb(217, 216, 209)"
    shoot(page, "gitweb-blob", tmp_path)


def test_cgit_shows_a_project_in_a_browser(server: Server, page: Page, tmp_path: Path) -> None:
    page.goto(f"http://127.0.0.1:{server.port}/cgit/")
    page.click("a:text-is('project')" if page.query_selector("a:text-is('project')") else "a:text-is('project.git')")
    shoot(page, "cgit-summary", tmp_path)
    page.click("a:text-is('log')")
    assert "second" in page.inner_text("table.list")
    page.click("a:has-text('second')")
    assert "대문" in page.inner_text("table.diff")
    assert page.eval_on_selector("#cgit", "e => getComputedStyle(e).fontFamily") == "sans-serif"
    shoot(page, "cgit-commit", tmp_path)


LEGACY = """\
#!{python}
import cgi, cgitb
cgitb.enable()
form = cgi.FieldStorage()
print("Content-Type: text/html")
print()
upload = form["file"] if "file" in form else None
size = len(upload.file.read()) if upload is not None else 0
print("%s|%s|%d" % (form.getfirst("name", "nobody"), ",".join(form.getlist("many")), size))
"""


@pytest.mark.parametrize("reuse", ["", ', reuse = "fork", python = "{python}", warm = ["cgi"]'], ids=["plain", "reuse"])
def test_a_script_with_the_old_cgi_module_runs_under_the_newest_python(tmp_path: Path, reuse: str) -> None:
    newest = max(
        (name for name in INTERPRETERS if name.startswith("cpython")), key=lambda name: int(name.split(".")[1])
    )
    python = make_venv("legacy-cgi", INTERPRETERS[newest], "legacy-cgi") / "bin" / "python"
    (tmp_path / "cgi-bin").mkdir()
    script = tmp_path / "cgi-bin" / "form.py"
    script.write_text(LEGACY.format(python=python))
    script.chmod(0o755)
    settings = reuse.format(python=python)
    (tmp_path / "daemun.toml").write_text(f'[[route]]\npath = "/cgi-bin/*"\ncgi = {{ root = "cgi-bin"{settings} }}\n')
    with Server(cwd=tmp_path) as server:
        assert server.get("/cgi-bin/form.py?name=Ada&many=1&many=2").text == "Ada|1,2|0\n"
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert server.ask("/cgi-bin/form.py", "POST", b"name=Eve&many=3", form).text == "Eve|3|0\n"
        body = (
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            + b"x" * 300_000
            + b"\r\n--b--\r\n"
        )
        many = server.ask("/cgi-bin/form.py", "POST", body, {"Content-Type": "multipart/form-data; boundary=b"})
        assert many.text == "nobody||300000\n"
