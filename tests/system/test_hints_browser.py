"""`early_hints = "learn"` in a browser: it asks for what a page needs while the application is still at the page."""

from __future__ import annotations

import base64
import hashlib
import http.client
import shutil
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from authority import Authority, openssl
from gate import Gate
from hints import pages
from playwright.sync_api import Page, sync_playwright
from server import DEADLINE, Server

# Browsers that are asked, and how long each may take to heed a hint.
VISITS = 5
PATIENCE = 10.0

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
PAGE = '<!doctype html><head><link rel="stylesheet" href="/static/a.css"></head><body>a page</body>'
APP = f"""\
from gate import hold

state = {{"visits": 0}}

def application(environ, start_response):
    # Browsers ask for an icon as well.
    state["visits"] += environ["PATH_INFO"] == "/"
    if environ["PATH_INFO"] == "/" and state["visits"] > 1:
        hold()
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    return [{PAGE!r}.encode()]
"""
FILE = """\
[server]
listen = ["https://127.0.0.1:0"]

[[tls]]
cert = "site.pem"
key = "site.key"

""" + pages("body { color: rgb(1, 2, 3) }", fields='headers = { set = { "Cache-Control" = "max-age=60" } }')


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The application, its configuration and its certificate."""
    site = tmp_path / "site"
    site.mkdir()
    Authority(site).sign("site", "localhost")
    (site / "gate.py").write_text(Gate.MODULE)
    (site / "pages.py").write_text(APP)
    (site / "daemun.toml").write_text(FILE)
    return site


def soon(is_so: Callable[[], bool]) -> bool:
    """Whether it becomes so while a browser may be expected to act."""
    end = time.monotonic() + PATIENCE
    while not is_so() and time.monotonic() < end:
        time.sleep(0.05)
    return is_so()


@contextmanager
def browsing(site: Path, profile: Path) -> Iterator[Page]:
    """A page of a browser that trusts the site's key: early hints count for nothing where a certificate is in doubt."""
    chromium = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
    assert chromium, "no Chromium; run:  scripts/require chromium"
    openssl("pkey", "-in", site / "site.key", "-pubout", "-outform", "DER", "-out", site / "key.der", cwd=site)
    key = base64.b64encode(hashlib.sha256((site / "key.der").read_bytes()).digest()).decode()
    flags = [*FLAGS, f"--ignore-certificate-errors-spki-list={key}"]
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(profile, executable_path=chromium, args=flags)
        try:
            yield context.pages[0] if context.pages else context.new_page()
        finally:
            context.close()


def test_a_browser_asks_for_the_style_while_the_application_is_at_the_page(
    site: Path, tmp_path: Path, gate: Gate
) -> None:
    with Server(cwd=site, env=gate.env, listen="") as server:
        # Somebody was here before.
        trust = ssl.create_default_context(cafile=site / "authority.pem")
        with closing(http.client.HTTPSConnection("localhost", server.port, timeout=DEADLINE, context=trust)) as other:
            other.request("GET", "/", headers={"Sec-Fetch-Mode": "navigate"})
            assert other.getresponse().read() == PAGE.encode()
        # A busy Chromium drops a hint that comes within the millisecond of its request (seen in its network log: the
        # 103 is in the session and never in the request). Then another one is asked.
        for visit in range(VISITS):
            with browsing(site, tmp_path / f"profile {visit}") as page:
                seen = len(server.access.text)
                # `goto` waits for an answer, which is not to come yet.
                home = f"https://localhost:{server.port}/"
                page.evaluate("url => { setTimeout(() => location.assign(url), 0) }", home)
                gate.entered()
                is_heeded = soon(lambda: '"GET /static/a.css HTTP/2.0" 200 ' in server.access.text[seen:])  # noqa: B023
                assert '"GET / HTTP/2.0"' not in server.access.text[seen:]
                gate.open()
                page.wait_for_url(home)
                assert page.eval_on_selector("body", "body => getComputedStyle(body).color") == "rgb(1, 2, 3)"
                # What was asked for ahead is what the page uses.
                assert not is_heeded or server.access.text[seen:].count('"GET /static/a.css ') == 1
            if is_heeded:
                return
        pytest.fail(f"{VISITS} browsers did not heed the hint")
