#!/usr/bin/env python3
"""A feed of 50 kB: kept, beside a file of that size; made anew, beside xsltproc's own transform time.

python3 bench/xslt/feed.py --daemun target/release/daemun
"""

from __future__ import annotations

import argparse
import http.client
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from comparison import load, processes
from comparison.scenarios import Request
from comparison.servers import free_port

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "feed" / "public"
ITEM = """    <item>
      <title>News number {number} of the gate</title>
      <link>https://example.com/news/{number}</link>
      <pubDate>Tue, 17 Nov 2026 09:00:00 GMT</pubDate>
      <description>{text}</description>
    </item>
"""
TEXT = "Feeds go on looking like pages, since the server carries their stylesheets out &amp; browsers need not. " * 2
CONFIG = """
[server]
listen = ["127.0.0.1:{port}"]
event_loops = 1
access_log = "off"

[[route]]
path = "/*"
static = {{ root = "public" }}

[[route]]
path = "/feeds/*"
static = {{ root = "public" }}
xslt = {{ stylesheet = "public/feed.xsl" }}
"""
# xsltproc --repeat transforms so often.
REPEATED = 20


def feed(size: int, mark: int = 0) -> str:
    """Give an RSS feed of about this many bytes; another mark gives another feed."""
    head = f'<?xml version="1.0" encoding="UTF-8"?>\n<rss version="2.0">\n  <channel>\n    <title>Feed {mark}</title>\n'
    parts = [head, "    <link>https://example.com/</link>\n    <description>What passes</description>\n"]
    number = 0
    while sum(map(len, parts)) < size - 300:
        number += 1
        parts.append(ITEM.format(number=number, text=TEXT))
    return "".join(parts) + "  </channel>\n</rss>\n"


@contextmanager
def serving(daemun: Path, folder: Path) -> Iterator[tuple[int, int]]:
    """Serve the folder: its process id and port."""
    port = free_port()
    (folder / "daemun.toml").write_text(CONFIG.format(port=port))
    process = subprocess.Popen([daemun, "serve"], cwd=folder, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "listening on" in line:
                break
        yield process.pid, port
    finally:
        process.terminate()
        process.communicate()


def get(connection: http.client.HTTPConnection, path: str) -> bytes:
    """Give the body of a good answer."""
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{path}: {answer.status}: {body[:200]!r}")
    return body


def kept(daemun: Path, folder: Path, rounds: int, seconds: float) -> None:
    """Processor time of a feed that is kept, and of a file as long as its page."""
    with serving(daemun, folder) as (pid, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        page = get(connection, "/feeds/feed.xml")
        (folder / "public" / "page.html").write_bytes(page)
        figures: dict[str, list[float]] = {"/page.html": [], "/feeds/feed.xml": []}
        lua = load.script(Request(), folder)
        for path in figures:
            load.run(f"http://127.0.0.1:{port}{path}", lua, seconds=1.0, connections=32)
        for _ in range(rounds):
            for path, found in figures.items():
                before = processes.tree(pid)
                seen = load.run(f"http://127.0.0.1:{port}{path}", lua, seconds=seconds, connections=32)
                after = processes.tree(pid)
                if seen.errors:
                    raise SystemExit(f"{path}: {seen.errors} errors")
                spent = processes.spent(before, after, processes.roles(after))
                found.append(spent.seconds * 1e6 / seen.requests)
        file, own = (statistics.median(figures[path]) for path in figures)
    ratios = [one / other for one, other in zip(figures["/feeds/feed.xml"], figures["/page.html"], strict=True)]
    print(f"kept: page of {len(page)} bytes {own:.1f} us, file of that size {file:.1f} us of processor time")
    print(f"kept: {own / file:.2f} of the file (by round {min(ratios):.2f} to {max(ratios):.2f})")


def timing(folder: Path) -> float:
    """Milliseconds that xsltproc takes to parse, transform and write, by its own clock, without what is done once."""
    command = ["xsltproc", "--timing", "--repeat", "public/feed.xsl", "public/feed.xml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    applied = re.search(r"Applying stylesheet \d+ times took ([\d.]+) ms", done.stderr)
    saved = re.search(r"Saving result took ([\d.]+) ms", done.stderr)
    if applied is None or saved is None:
        raise SystemExit(f"xsltproc told no times:\n{done.stderr}")
    return float(applied[1]) / REPEATED + float(saved[1])


def anew(daemun: Path, folder: Path, times: int) -> None:
    """Time of a feed that nobody has asked for, on one connection, beside xsltproc's of such a feed, in turns."""
    with serving(daemun, folder) as (pid, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        # Every transformer compiles the stylesheet once.
        for number in range(16):
            (folder / "public" / f"warm{number}.xml").write_text(feed(50_000, -number - 1))
            get(connection, f"/feeds/warm{number}.xml")
        own, theirs = [], []
        before = processes.tree(pid)
        for number in range(times):
            (folder / "public" / f"feed{number}.xml").write_text(feed(50_000, number + 1))
            begun = time.perf_counter()
            get(connection, f"/feeds/feed{number}.xml")
            own.append((time.perf_counter() - begun) * 1e3)
            if number % 10 == 0:
                theirs.append(timing(folder))
        spent = processes.spent(before, processes.tree(pid), {}).seconds * 1e3 / times
    ours, peer = statistics.median(own), statistics.median(theirs)
    print(f"anew: {ours:.2f} ms until the page is there, {spent:.2f} ms of processor time, xsltproc {peer:.2f} ms")
    print(f"anew: {ours / peer:.2f} of xsltproc's transform time")


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--daemun", type=Path, required=True, help="an optimised binary")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--times", type=int, default=200, help="feeds that are made anew")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="daemun-feed-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "public").mkdir()
        for sheet in EXAMPLE.glob("*.xsl"):
            (folder / "public" / sheet.name).write_bytes(sheet.read_bytes())
        (folder / "public" / "feed.xml").write_text(feed(50_000))
        kept(given.daemun.resolve(), folder, given.rounds, given.seconds)
        anew(given.daemun.resolve(), folder, given.times)


if __name__ == "__main__":
    main()
