"""Wagtail as its tutorial makes it, served without a word of configuration and used with a browser.

With `DEMO_SHOTS` the browser's pictures stay in that folder.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Request, sync_playwright
from server import Server, run
from venvs import call, make_venv

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    # Pictures of people come from elsewhere, which is none of our business.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
PASSWORD = "correct horse battery staple"


@pytest.fixture(scope="module")
def venv() -> Path:
    """Wagtail and nothing else."""
    return make_venv("wagtail-site", "python3", "wagtail")


@pytest.fixture(scope="module")
def folder(venv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`wagtail start mysite`, migrated, with an administrator."""
    folder = tmp_path_factory.mktemp("wagtail")
    call(str(venv / "bin" / "wagtail"), "start", "mysite", str(folder))
    python = str(venv / "bin" / "python")
    call(python, "manage.py", "migrate", "--verbosity", "0", cwd=folder)
    account = {"DJANGO_SUPERUSER_PASSWORD": PASSWORD}
    words = ["createsuperuser", "--noinput", "--username", "admin", "--email", "admin@example.com"]
    call(python, "manage.py", *words, cwd=folder, env=account)
    return folder


@pytest.fixture(scope="module")
def server(venv: Path, folder: Path) -> Iterator[Server]:
    """It, served from its folder without a word."""
    with Server(cwd=folder, env={"VIRTUAL_ENV": str(venv)}) as server:
        yield server
        assert server.stop() == 0


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page of a browser that knows nothing yet."""
    chromium = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
    assert chromium, "no Chromium; run:  scripts/require chromium"
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("browser"),
            executable_path=chromium,
            args=FLAGS,
            viewport={"width": 1280, "height": 900},
        )
        context.set_default_timeout(20_000)
        try:
            yield context.pages[0] if context.pages else context.new_page()
        finally:
            context.close()


def shoot(page: Page, name: str, folder: Path) -> None:
    """Keep a picture."""
    shots = Path(os.environ.get("DEMO_SHOTS", folder))
    shots.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=shots / f"wagtail-{name}.png")


def picture(path: Path, side: int) -> Path:
    """Write a PNG of noise, so that it stays large: three bytes a pixel."""
    rows = b"".join(b"\0" + os.urandom(side * 3) for _ in range(side))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")
    )
    return path


def note(failures: list[str], request: Request) -> None:
    """Keep what was not answered well."""
    response = request.response()
    if response is None or response.status >= 400:
        failures.append(f"{request.method} {request.url}: {response.status if response else 'no answer'}")


def test_wagtail_works_in_a_browser(server: Server, page: Page, tmp_path: Path) -> None:
    home = f"http://127.0.0.1:{server.port}"
    failures: list[str] = []
    page.on("requestfinished", lambda request: note(failures, request))

    page.goto(f"{home}/admin/")
    style = page.eval_on_selector("button[type=submit]", "element => getComputedStyle(element).backgroundColor")
    assert style not in {"rgba(0, 0, 0, 0)", "rgb(239, 239, 239)"}, "the button has no style"
    shoot(page, "login", tmp_path)

    page.fill("input[name=username]", "admin")
    page.fill("input[name=password]", PASSWORD)
    page.click("button[type=submit]")
    page.wait_for_selector("#wagtail-sidebar a")
    shoot(page, "home", tmp_path)

    image = picture(tmp_path / "noise.png", 1300)
    assert image.stat().st_size > 4 << 20
    page.goto(f"{home}/admin/images/add/")
    page.set_input_files("input[type=file]", image)
    page.fill("input[name=title]", "noise")
    shoot(page, "upload", tmp_path)
    page.eval_on_selector("form[enctype]", "form => form.requestSubmit()")
    page.wait_for_url(re.compile(r"/admin/images/$"))
    page.wait_for_selector("img[src^='/media/']")
    source = page.get_attribute("img[src^='/media/']", "src")
    assert source is not None
    assert source.startswith("/media/")
    media = server.get(source)
    assert media.status == 200
    assert media.headers["Content-Type"].startswith("image/")
    shoot(page, "images", tmp_path)
    page.wait_for_function("""() => {
        const image = document.querySelector("img[src^='/media/']");
        return image && image.complete && image.naturalWidth > 0;
    }""")
    shoot(page, "images", tmp_path)

    # The home page's own type is the only one of a fresh project; a page below it is made and published.
    page.goto(f"{home}/admin/pages/add/home/homepage/3/")
    page.fill("input[name=title]", "대문 — a gate")
    # It stands on another tab.
    page.eval_on_selector("input[name=slug]", "input => { input.value = 'gate'; }")
    shoot(page, "edit", tmp_path)
    page.eval_on_selector("[name=action-publish]", "button => button.click()")
    page.wait_for_url(re.compile(r"/admin/pages/(?!add)"))
    page.goto(f"{home}/gate/")
    assert page.title() == "대문 — a gate"
    shoot(page, "published", tmp_path)
    assert failures == []


def test_the_files_of_the_finders_come_with_a_warning(server: Server) -> None:
    assert "mysite.settings.dev" in server.start_up
    assert re.search(r"(?i)warning.*DEBUG", server.start_up), server.start_up
    links = re.findall(r'href="(/static/[^"]+\.css[^"]*)"', server.get("/admin/login/").text)
    assert links
    for link in links:
        sheet = server.get(link)
        assert (sheet.status, sheet.headers["Content-Type"].split(";")[0]) == (200, "text/css"), link


def look(page: Page, url: str) -> dict[str, str]:
    """What the browser makes of the login page's styles."""
    page.goto(url, wait_until="networkidle")
    names = ["backgroundColor", "color", "fontFamily", "borderRadius", "paddingLeft"]
    script = "(element, names) => names.map(name => getComputedStyle(element)[name])"
    return dict(zip(names, page.eval_on_selector("button[type=submit]", script, names), strict=True))


def test_after_collecting_production_looks_as_development_did(
    server: Server, venv: Path, folder: Path, page: Page, tmp_path: Path
) -> None:
    page.context.clear_cookies()
    before = look(page, f"http://127.0.0.1:{server.port}/admin/login/")
    shoot(page, "before-collecting", tmp_path)
    local = folder / "mysite" / "settings" / "local.py"
    local.write_text(f"SECRET_KEY = {'production ' * 5!r}\nALLOWED_HOSTS = ['127.0.0.1']\n")
    env = {"VIRTUAL_ENV": str(venv), "DJANGO_SETTINGS_MODULE": "mysite.settings.production"}
    try:
        # Its storage keeps a manifest: without one each page is a 500, and the start says so.
        with Server(cwd=folder, env=env) as uncollected:
            assert "[D106]" in uncollected.start_up
            assert uncollected.get("/admin/login/").status == 500
        collected = run("collect", cwd=folder, env=env)
        assert collected.returncode == 0, collected.stderr
        failures: list[str] = []
        page.on("requestfinished", lambda request: note(failures, request))
        with Server(cwd=folder, env=env) as production:
            assert "DEBUG" not in production.start_up
            after = look(page, f"http://127.0.0.1:{production.port}/admin/login/")
            shoot(page, "after-collecting", tmp_path)
            links = re.findall(r'(?:href|src)="(/static/[^"]+\.(?:css|js)[^"]*)"', production.get("/admin/login/").text)
            assert links
            for link in links:
                answer = production.get(link, {"Accept-Encoding": "br, gzip"})
                assert re.search(r"\.[0-9a-f]{12}\.", link), link
                assert answer.status == 200, link
                assert "immutable" in answer.headers["Cache-Control"], link
        assert failures == []
    finally:
        local.unlink()
    assert after == before
