#!/usr/bin/env python3
"""Measures what the live page costs while somebody looks at it: processor time of the server at 100 requests a second.

python3 bench/page.py [--daemun BINARY] [--rounds 3] [--seconds 10] [--shot FILE]

A Chromium without a screen looks, started by Playwright. Rounds without the page and with it come in turn, over the
same load and the same server; without a page the monitor listener is there all the same.
"""

from __future__ import annotations

import argparse
import http.client
import re
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from comparison import processes
from comparison.peers import APPLICATIONS
from comparison.servers import START_DEADLINE, environment, free_port
from playwright.sync_api import Browser, Page, sync_playwright
from workers import daemun

HERE = Path(__file__).resolve().parent
RATE = 100
SETTLE = 2.0
POLLS = 2000
Taken = dict[str, float]


class Load(threading.Thread):
    """The same number of requests each second over one kept connection, each at its own moment."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port, self.done, self.errors, self.answered = port, threading.Event(), 0, 0

    def run(self) -> None:
        """Ask until told to end; what is late is made up for."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        due = time.monotonic()
        while not self.done.wait(max(0.0, due - time.monotonic())):
            due += 1 / RATE
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            self.answered += 1
            self.errors += answer.status != 200
        connection.close()


def taken(pid: int) -> Taken:
    """Processor seconds of each role of the tree: the scheduler's own, in nanoseconds, of all threads that live."""
    tree = processes.tree(pid)
    named = processes.roles(tree)
    found: Taken = {}
    for process in tree:
        tasks = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
        spent = sum(int(task.read_text("ascii").split()[0]) for task in tasks) / 1e9
        found[named[process.pid]] = found.get(named[process.pid], 0.0) + spent
    return found


def look(pid: int, load: Load, seconds: float) -> Taken:
    """Percent of one processor by role, over so many seconds."""
    time.sleep(SETTLE)
    began, before, answered = time.monotonic(), taken(pid), load.answered
    time.sleep(seconds)
    after, passed = taken(pid), time.monotonic() - began
    rate = (load.answered - answered) / passed
    if not 0.95 * RATE <= rate <= 1.05 * RATE or load.errors:
        raise SystemExit(f"the load was {rate:.1f} requests a second, with {load.errors} errors")
    return {role: 100 * (after[role] - before.get(role, 0.0)) / passed for role in after}


def page_of(browser: Browser, url: str) -> tuple[Page, list[int]]:
    """Open the page, and count what it asks for."""
    page, asked = browser.new_page(), [0]

    def count(_: object) -> None:
        asked[0] += 1

    page.on("response", count)
    page.goto(url)
    page.wait_for_selector("#routes tr")
    return page, asked


def measure(browser: Browser, pid: int, url: str, load: Load, settings: argparse.Namespace) -> None:
    """Take all rounds and print them."""
    closed: list[Taken] = []
    opened: list[Taken] = []
    for number in range(settings.rounds):
        closed.append(look(pid, load, settings.seconds))
        page, asked = page_of(browser, url)
        opened.append(look(pid, load, settings.seconds))
        # Playwright hears of answers only while it is asked something.
        page.title()
        if asked[0] < settings.seconds:
            raise SystemExit(f"the page asked only {asked[0]} times")
        if settings.shot and number == 0:
            page.screenshot(path=settings.shot, full_page=True)
        page.close()
    print(f"{RATE} requests a second, percent of one processor, medians of {settings.rounds} rounds")
    print(f"  {'':10} {'closed':>8} {'open':>8} {'page':>8}  (all rounds: closed, open)")
    roles = sorted({role for each in closed + opened for role in each})
    for role in [*roles, "all"]:
        rows = [
            [sum(each.values()) if role == "all" else each.get(role, 0.0) for each in kind] for kind in (closed, opened)
        ]
        without, beside = map(statistics.median, rows)
        every = ", ".join(" ".join(f"{value:.2f}" for value in row) for row in rows)
        print(f"  {role:10} {without:8.2f} {beside:8.2f} {beside - without:8.2f}  ({every})")


def polls(pid: int, url: str) -> None:
    """Ask again and again for what the page asks for, with nothing beside it: no noise hides what one look costs."""
    address, _, token = url.removeprefix("http://").partition("/?token=")
    connection = http.client.HTTPConnection(address, timeout=30)
    before = taken(pid)
    for _ in range(POLLS):
        connection.request("GET", "/api/live", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        size = len(answer.read())
        if answer.status != 200:
            raise SystemExit(f"the page's question was answered {answer.status}")
    connection.close()
    spent = sum(taken(pid).values()) - sum(before.values())
    each = spent / POLLS
    print(f"one look of the page costs {each * 1e6:.0f} us for {size} bytes; two a second are {200 * each:.3f} %")


def main() -> None:
    """Read the words, start the server, its load and a browser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--daemun", type=Path, default=HERE.parent / "target" / "release" / "daemun")
    parser.add_argument("--python", default="/usr/bin/python3")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--shot", type=Path, help="keep a picture of the page")
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        port, folder = free_port(), Path(name)
        lines = [
            'wsgi = "plain:hello"',
            f'directory = "{APPLICATIONS}"',
            f'python = "{settings.python}"',
            "processes = 2",
        ]
        command = [*daemun(settings.daemun.resolve(), folder, port, lines), "--monitor", "127.0.0.1:0"]
        with (folder / "said").open("w+") as said:
            server = subprocess.Popen(command, env=environment(), stdin=subprocess.DEVNULL, stdout=said, stderr=said)
            try:
                url = monitor(server, folder / "said")
                polls(server.pid, url)
                load = Load(port)
                load.start()
                try:
                    with sync_playwright() as playwright:
                        browser = playwright.chromium.launch(executable_path=settings.chromium, args=["--no-sandbox"])
                        measure(browser, server.pid, url, load, settings)
                        browser.close()
                finally:
                    load.done.set()
                    load.join()
            finally:
                server.terminate()
                server.wait(30)


def monitor(server: subprocess.Popen[bytes], said: Path) -> str:
    """Wait until the server listens; the address of its page, with the token."""
    until = time.monotonic() + START_DEADLINE
    while "listening on" not in (text := said.read_text("utf-8")):
        if server.poll() is not None or time.monotonic() > until:
            raise SystemExit(f"the server does not listen:\n{text}")
        time.sleep(0.05)
    found = re.search(r"monitor on (\S+)", text)
    if found is None:
        raise SystemExit(f"no monitor listener:\n{text}")
    return found[1]


if __name__ == "__main__":
    main()
