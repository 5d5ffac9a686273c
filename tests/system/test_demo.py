"""`make demo`: the site that it makes, over the wire and in a browser.

With `DEMO_SHOTS` the browser's pictures stay in that folder.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page
from server import BINARY, ROOT, Server, run

# Making the environment and installing Django, on a machine that does it for the first time.
PREPARING = 600.0


@pytest.fixture(scope="module")
def demo() -> Path:
    """The prepared demo; the environment is kept between runs, the site is made anew."""
    folder = ROOT / ".demo" / "test"
    shutil.rmtree(folder / "site", ignore_errors=True)
    done = subprocess.run(
        ["scripts/demo", "--prepare"],
        cwd=ROOT,
        env={**os.environ, "DEMO_DIR": str(folder), "DAEMUN_BINARY": str(BINARY)},
        capture_output=True,
        text=True,
        timeout=PREPARING,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def server(demo: Path) -> Iterator[Server]:
    """The demo's server and its neighbour, as `scripts/demo` starts them."""
    # In the script it ends with the server; here with the test.
    program = [sys.executable, str(demo / "site" / "ways" / "neighbour.py"), "0", str(os.getpid())]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as neighbour:
        assert neighbour.stdout is not None
        upstream = f"127.0.0.1:{neighbour.stdout.readline().strip()}"
        env = {"VIRTUAL_ENV": str(demo / "venv"), "DEMO_MONITOR": "127.0.0.1:0", "DEMO_UPSTREAM": upstream}
        try:
            with Server(demo / "site", cwd=ROOT, env=env) as server:
                yield server
                assert server.stop() == 0
        finally:
            neighbour.terminate()


def shoot(page: Page, name: str, folder: Path) -> None:
    """Keep a picture."""
    shots = Path(os.environ.get("DEMO_SHOTS", folder))
    shots.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=shots / f"{name}.png", full_page=True)


def style(page: Page, selector: str, name: str) -> str:
    """What the browser made of the style sheets."""
    value = page.eval_on_selector(selector, f"element => getComputedStyle(element)[{name!r}]")
    return str(value)


def test_styles_and_pictures_come_under_hashed_names_and_are_kept(server: Server) -> None:
    answer = server.get("/")
    assert answer.status == 200
    links = re.findall(r'(?:href|src)="(/static/[^"]+)"', answer.text)
    assert len(links) == 4
    for link in links:
        assert re.search(r"\.[0-9a-f]{12}\.", link)
        file = server.get(link)
        assert file.status == 200, link
        assert "immutable" in file.headers["Cache-Control"], link
        again = server.get(link, {"If-None-Match": file.headers["ETag"]})
        assert (again.status, again.body) == (304, b""), link
    assert server.get("/admin/login/").status == 200
    for secret in ["/secret_key", "/db.sqlite3", "/static/../secret_key"]:
        assert server.get(secret).status in {400, 404}


def test_every_way_of_the_tour_answers_and_is_explained(server: Server) -> None:
    tour = server.get("/tour/")
    ways = dict(re.findall(r'<li><a href="([^"]+)">.*?<pre>(.*?)</pre>', tour.text, re.DOTALL))
    assert len(ways) == 12
    for path, explained in ways.items():
        assert "daemun.toml" in explained, (path, explained)
        status = server.get(path).status if path not in {"/pair/one/slow", "/pair/one/crash"} else None
        assert status in {200, 308, None}, (path, status)
    assert "a program of its own" in server.get("/cgi-bin/clock").text
    assert "the neighbour" in server.get("/neighbour/hello").text
    assert "<h1>News of the gate</h1>" in server.get("/feed/news.xml").text
    first, second = (server.get(f"/pair/{name}").text for name in ("one", "two"))
    process = re.compile(r"in process (\d+), mounted at /pair/(\w+)")
    assert [found[2] for found in (process.search(first), process.search(second)) if found] == ["one", "two"]
    assert process.search(first)[1] == process.search(second)[1], "one process"  # type: ignore[index]
    assert server.get("/pair/one/crash").status == 502
    assert server.get("/").status == 200


def test_a_visitor_writes_into_the_book(server: Server, page: Page, tmp_path: Path) -> None:
    failures: list[str] = []
    page.on("response", lambda response: failures.append(response.url) if response.status >= 400 else None)
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.goto(f"http://127.0.0.1:{server.port}/")
    # Bootstrap's blue, and the picture that the style sheet names under its hashed name.
    assert style(page, "nav", "backgroundColor") == "rgb(13, 110, 253)"
    assert re.search(r"gate\.[0-9a-f]{12}\.svg", style(page, "body", "backgroundImage"))
    assert page.eval_on_selector("#gate", "image => image.complete && image.naturalWidth > 0")
    shoot(page, "guestbook", tmp_path)

    page.fill("#id_name", "대문 <visitor>")
    page.fill("#id_message", "written through a form, checked by CSRF, kept by SQLite")
    page.click("#write")
    page.wait_for_selector("#entries strong")
    assert page.inner_text("#entries li:first-child strong") == "대문 <visitor>"
    shoot(page, "guestbook-written", tmp_path)
    assert failures == []


def test_the_administration_works_and_looks_as_it_should(
    server: Server, demo: Path, page: Page, tmp_path: Path
) -> None:
    page.goto(f"http://127.0.0.1:{server.port}/admin/")
    page.fill("#id_username", "admin")
    page.fill("#id_password", (demo / "admin-password").read_text().strip())
    page.click("input[type=submit]")
    page.wait_for_selector("#user-tools")
    assert style(page, "#header", "backgroundColor") == "rgb(65, 118, 144)"
    shoot(page, "admin", tmp_path)


def test_the_second_visit_asks_for_no_style_again(server: Server, page: Page) -> None:
    home = f"http://127.0.0.1:{server.port}/"
    page.goto(home, wait_until="networkidle")
    names = page.eval_on_selector_all("link[rel=stylesheet]", "links => links.map(link => new URL(link.href).pathname)")
    assert names
    for name in names:
        assert re.search(r"\.[0-9a-f]{12}\.css$", name)
        server.wait_for(re.escape(f'"GET {name} HTTP/1.1" 200 '), server.access)
    page.goto("about:blank")
    page.goto(f"{home}?again", wait_until="networkidle")
    assert style(page, "nav", "backgroundColor") == "rgb(13, 110, 253)"
    # Whatever was asked for stands in the log before this.
    server.get("/the-end")
    server.wait_for(r'"GET /the-end ', server.access)
    assert '"GET /?again HTTP/1.1" 200 ' in server.access.text
    for name in names:
        assert server.access.text.count(f'"GET {name} ') == 1, "it was not in the browser's cache"


def look(page: Page, server: Server) -> dict[str, str]:
    """What the browser makes of the guestbook and of the administration's door; nothing is missing there."""
    missing: list[str] = []
    page.on("response", lambda response: missing.append(response.url) if response.status >= 400 else None)
    found = {}
    for path, selectors in {
        "/": ["nav", "#gate", "#write", "body"],
        "/admin/login/": ["#header", ".submit-row input"],
    }.items():
        page.goto(f"http://127.0.0.1:{server.port}{path}", wait_until="networkidle")
        for selector in selectors:
            for name in ("backgroundColor", "color", "fontFamily", "borderRadius", "paddingLeft"):
                found[f"{path} {selector} {name}"] = style(page, selector, name)
    assert page.eval_on_selector_all("link[rel=stylesheet]", "links => links.length")
    assert missing == []
    return found


def test_it_looks_alike_without_collecting_and_after_it(demo: Path, page: Page, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    shutil.copytree(demo / "site", folder, ignore=shutil.ignore_patterns("staticfiles"))
    settings = folder / "demo" / "settings.py"
    deployed = settings.read_text()
    env = {"VIRTUAL_ENV": str(demo / "venv"), "DEMO_MONITOR": "127.0.0.1:0", "DEMO_UPSTREAM": "127.0.0.1:9"}
    looks, names = [], []
    for debug, command in ((True, "dev"), (True, "serve"), (False, "serve")):
        settings.write_text(deployed.replace("DEBUG = False", f"DEBUG = {debug}"))
        if not debug:
            assert not (folder / "staticfiles").exists(), "nothing was collected until now"
            done = run("collect", cwd=folder, env=env)
            assert done.returncode == 0, done.stderr
        with Server(folder, cwd=folder, env=env, command=command) as server:
            looks.append(look(page, server))
            shoot(page, f"{command}-{'before' if debug else 'after'}-collecting", tmp_path)
            names.append(re.findall(r'href="/static/([^"]+\.css)"', server.get("/").text))
            caching = [server.get(f"/static/{name}").headers["Cache-Control"] or "" for name in names[-1]]
            assert [("immutable" in one) for one in caching] == [not debug for _ in caching]
    assert looks[0] == looks[1] == looks[2]
    assert names[0] == names[1] != names[2]
    assert all(re.search(r"\.[0-9a-f]{12}\.css$", name) for name in names[2])
