"""`make demo`: the site that it makes, over the wire and in a browser.

With `DEMO_SHOTS` the browser's pictures stay in that folder.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page
from server import BINARY, ROOT, Server

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
    """The demo's server, as `scripts/demo` starts it."""
    with Server(demo / "site", cwd=ROOT, env={"VIRTUAL_ENV": str(demo / "venv")}) as server:
        yield server
        assert server.stop() == 0


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
