"""Our own pages as visitors have them: errors and listings, in a browser by day and by night, and for programs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page
from server import Server
from test_demo import shoot

# Relative luminance and contrast as WCAG 2.2 defines them; the page's own colours, whatever lies beneath.
CONTRASTS = """() => {
    const parts = colour => colour.match(/[\\d.]+/g).map(Number);
    const light = part => part <= 0.04045 * 255 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4;
    const luminance = colour => {
        const [red, green, blue] = parts(colour).map(light);
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const paper = luminance(getComputedStyle(document.body).backgroundColor);
    const written = [...document.querySelectorAll("body *")].filter(element =>
        [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim()));
    return written.map(element => {
        const [low, high] = [luminance(getComputedStyle(element).color), paper].sort((one, other) => one - other);
        return [element.tagName, (high + 0.05) / (low + 0.05)];
    });
}"""
ROUTES = """\
[[route]]
path = "/*"
static = { root = "root", listing = true }

[[route]]
path = "/programs/*"
cgi = { root = "programs" }
"""
REFERENCE = re.compile(r"\b[0-9a-f]{16}\b")


def browse(page: Page, url: str, name: str, folder: Path) -> None:
    """Look at a page in both schemes and on a phone: everything can be read, and nothing is amiss."""
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    # That an error was answered is said there too, and meant.
    is_meant = re.compile("Failed to load resource: the server responded with a status of")
    page.on("console", lambda line: None if is_meant.match(line.text) else troubles.append(line.text))
    papers = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(url)
        contrasts: list[Any] = page.evaluate(CONTRASTS)
        assert contrasts
        assert min(ratio for _, ratio in contrasts) >= 7, contrasts
        papers.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        shoot(page, f"{name}-{scheme}", folder)
    assert len(papers) == 2, "one for the day and one for the night"
    size = page.viewport_size
    page.set_viewport_size({"width": 390, "height": 844})
    wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    assert not wide, "a phone scrolls down only"
    if size is not None:
        page.set_viewport_size(size)
    assert page.get_attribute("html", "lang") == "en"
    assert page.title()
    assert len(page.query_selector_all("h1")) == 1
    assert troubles == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files whose names would be markup, and a folder to go into."""
    root = tmp_path / "root"
    (root / "deep <b>").mkdir(parents=True)
    (root / "deep <b>" / "a.txt").write_text("deep")
    (root / '<img src=x onerror="document.title=1">.txt').write_text("text")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "broken").write_text("#!/bin/sh\nexit 1\n")
    (programs / "broken").chmod(0o755)
    (tmp_path / "daemun.toml").write_text(ROUTES)
    return tmp_path


def test_errors_and_listings_can_be_read_by_everybody(folder: Path, page: Page) -> None:
    with Server("daemun.toml", cwd=folder) as server:
        home = f"http://127.0.0.1:{server.port}"
        browse(page, f"{home}/programs/broken", "page-error", folder)
        assert "500" in page.inner_text("h1")
        reference = REFERENCE.search(page.inner_text("main"))
        assert reference
        server.wait_for(f"reference {reference[0]}")
        browse(page, f"{home}/nothing/here", "page-missing", folder)
        assert "404" in page.inner_text("h1")
        browse(page, f"{home}/", "page-listing", folder)
        names = [link.inner_text() for link in page.query_selector_all("td a")]
        assert names == ["deep <b>/", '<img src=x onerror="document.title=1">.txt'], "as they are, and not as markup"
        # By keyboard alone: the first link that leads into the folder.
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent") == names[0]:
                break
        page.keyboard.press("Enter")
        page.wait_for_selector("text=a.txt")
        assert page.evaluate("fetch('a.txt').then(() => 'it ran', () => 'forbidden')") == "forbidden", "the policy"


def test_programs_and_terminals_have_errors_in_their_own_form(folder: Path) -> None:
    with Server("daemun.toml", cwd=folder) as server:
        told = server.get("/programs/broken", {"Accept": "application/json"})
        assert told.headers["Content-Type"] == "application/json"
        assert json.loads(told.text)["status"] == 500
        plain = server.get("/programs/broken", {"Accept": "*/*"})
        assert plain.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert plain.text.startswith("500 Internal Server Error")
        page = server.get("/programs/broken", {"Accept": "text/html,*/*;q=0.8"})
        assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
        for answer in (told, plain, page):
            assert not re.search(r"daemun/?\d|\d+\.\d+\.\d+", answer.text), "no version"
            reference = REFERENCE.search(answer.text)
            assert reference
            server.wait_for(f"reference {reference[0]}")
