"""Writes the tour: each way as a link, with what `daemun explain` says of it.

Run as `python tour.py BINARY ADDRESS MONITOR` beside `daemun.toml`.
"""

from __future__ import annotations

import html
import subprocess
import sys
from pathlib import Path

WAYS = [
    ("/", "A Django application", "a guestbook with styles, a form and SQLite"),
    ("/static/guestbook/page.css", "Static files of Django", "found by themselves; pages name them by their hashes"),
    ("/files/", "Static files", "a folder with a listing; conditional requests and ranges"),
    ("/cgi-bin/clock", "A CGI program", "started for each request by a process of its own"),
    ("/pair/one", "Two applications in one process: the first", "mounted below its own path"),
    ("/pair/two", "Two applications in one process: the second", "the same process id"),
    ("/neighbour/hello", "An upstream", "another server, over the network"),
    ("/feed/news.xml", "An XSLT feed", "RSS that arrives as a page"),
    ("/old/tour/", "A redirect", "308, to where it is now"),
    ("/robots.txt", "A fixed answer", "made when the file was read"),
    ("/pair/one/slow", "A slow page", "8 s: look for its Python stack on the live page meanwhile"),
    (
        "/pair/one/crash",
        "A crash",
        "its worker dies of SIGSEGV, once more on another, and is then given up: 502; everybody else is served",
    ),
]
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Every way through the gate</title>
<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }}
pre {{ overflow-x: auto; font-size: .8rem }} li {{ margin: .5rem 0 }} summary {{ cursor: pointer }}</style></head>
<body><h1>Every way through the gate</h1>
<p>Open the <a href="{monitor}">live page</a> beside this one: what you ask for here flows there. URLs and stacks are
shown with the address that the start-up line prints, which ends in a token.</p>
<ul>{items}</ul></body></html>
"""
ITEM = (
    '<li><a href="{path}">{title}</a>: {text}<details><summary><code>daemun explain {path}</code></summary>'
    "<pre>{explained}</pre></details></li>\n"
)


def main() -> None:
    """Ask and write."""
    binary, address, monitor = sys.argv[1:]
    folder = Path(__file__).resolve().parent
    items = []
    for path, title, text in WAYS:
        told = subprocess.run(
            [binary, "explain", "--config", folder.parent / "daemun.toml", f"http://{address}{path}"],
            capture_output=True,
            text=True,
            check=False,
        )
        words = {"path": path, "title": title, "text": text, "explained": told.stdout or told.stderr}
        items.append(ITEM.format(**{name: html.escape(word) for name, word in words.items()}))
    (folder / "tour").mkdir(exist_ok=True)
    page = PAGE.format(items="".join(items), monitor=html.escape(f"http://{monitor}/"))
    (folder / "tour" / "index.html").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
