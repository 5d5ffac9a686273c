"""A feed in a browser that is giving XSLT up: with daemun a page, as it always was.

With `FEED_SHOTS` the browser's pictures stay in that folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright
from server import ROOT, Server

EXAMPLE = ROOT / "examples" / "feed"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A page of a browser."""
    chromium = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
    assert chromium, "no Chromium; run:  scripts/require chromium"
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=chromium, args=FLAGS, viewport={"width": 640, "height": 400}
        )
        try:
            yield context.pages[0] if context.pages else context.new_page()
        finally:
            context.close()


def test_a_feed_is_a_page_in_a_browser(page: Page, tmp_path: Path) -> None:
    shots = Path(os.environ.get("FEED_SHOTS", tmp_path))
    with Server(cwd=EXAMPLE, env={"LISTEN": "127.0.0.1:0"}, listen="") as server:
        page.goto(f"http://127.0.0.1:{server.port}/news.xml")
        page.screenshot(path=shots / "feed-with.png")
        assert page.inner_text("h1") == "News of the gate"
        assert page.get_attribute("li a", "href") == "https://example.com/xslt"
        assert page.evaluate("document.contentType") == "text/html"
        # Only what is on the page: no banner of the browser's.
        assert "XSLT" not in page.inner_text("body").replace("Browsers give XSLT up", "")
    plain = tmp_path / "plain"
    shutil.copytree(EXAMPLE / "public", plain)
    with Server(plain, cwd=tmp_path) as server:
        page.goto(f"http://127.0.0.1:{server.port}/news.xml")
        page.screenshot(path=shots / "feed-without.png")
        # What it makes of it is the browser's own affair; that it is the document is not.
        assert "xml" in str(page.evaluate("document.contentType")) or page.query_selector("li a") is not None
