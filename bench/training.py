#!/usr/bin/env python3
"""Sends an ordinary site's traffic through a daemun that counts what it runs, for scripts/guided.

python3 bench/training.py [--daemun PATH] [--seconds S]

A small shop: its files, pages, forms and uploads, from the disk, from an application of its own and from a second
daemun over HTTP, FastCGI, SCGI and uwsgi, with what browsers and crawlers send, right and wrong. None of it is asked
for by compare.py: a program that is laid out by the questions of its examination would only have learned those. Needs
what `scripts/require bench` installs.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import json
import os
import random
import re
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import compare
from comparison import load
from comparison.peers import APPLICATIONS
from comparison.scenarios import BROWSER, DEADLINE
from comparison.servers import Program, ServerError, free_port

CRAWLER = {"User-Agent": "crawler/1.0 (+https://crawler.example/)", "Accept": "*/*"}
SCRIPT = {**BROWSER, "Accept": "application/json", "X-Requested-With": "XMLHttpRequest", "Sec-Fetch-Dest": "empty"}
FORM = {**BROWSER, "Content-Type": "application/x-www-form-urlencoded", "Origin": "http://localhost"}
# Names and lengths of the files; of text, a compressed sibling lies beside.
FILES = {
    "robots.txt": 190,
    "pixel.gif": 850,
    "icon.svg": 2_900,
    "site.css": 14_300,
    "site.js": 37_000,
    "thing.jpg": 23_000,
    "hero.jpg": 88_000,
    "font.woff2": 61_000,
    "manual.pdf": 410_000,
    "film.mp4": 3_100_000,
}
TEXT = (".css", ".js", ".svg", ".txt")
GATEWAYS = ("fastcgi", "scgi", "uwsgi")
# Clients at once; a few are alone in their turn of the event loop.
CROWDS = (64, 6)


class TrainingError(Exception):
    """The traffic did not do what it must: the profile would be of something else."""


@dataclass(frozen=True)
class Ask:
    """A request, how often it comes among the others, and the status of its answer."""

    weight: int
    path: str
    status: int = 200
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=lambda: BROWSER)
    body: bytes = b""


def asks() -> list[Ask]:
    """Give the traffic: a page, what belongs to it, what is asked again, what goes wrong."""
    pages = [Ask(3, prefix + path) for prefix in ("", "/behind") for path in ("/", "/item/7", "/item/1001", "/api/x")]
    files = [
        Ask(4 if length < 100_000 else 1, f"/files/{name}") for name, length in FILES.items() if length < 1_000_000
    ]
    plain = [Ask(2, f"/files/{name}", headers=CRAWLER) for name in ("robots.txt", "pixel.gif", "icon.svg", "site.css")]
    since = {**BROWSER, "If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}
    again = [Ask(2, f"/files/{name}", 304, headers=since) for name in ("site.css", "site.js", "hero.jpg")]
    part = {**BROWSER, "Range": "bytes=100000-299999"}
    close = {**CRAWLER, "Connection": "close"}
    big = b"an upload, as of a picture\n" * 3_000
    return [
        *pages,
        *files,
        *plain,
        *again,
        *(Ask(1, f"/{gateway}/item/3") for gateway in GATEWAYS),
        *(Ask(1, f"/{gateway}/cart", 303, "POST", FORM, b"id=12&count=1") for gateway in GATEWAYS),
        Ask(3, "/api/items?from=24&sort=name", headers=SCRIPT),
        Ask(2, "/kept/item/5"),
        Ask(2, "/packed/"),
        Ask(2, "/cart", 303, "POST", FORM, b"id=77&count=2&note=as+a+gift%2C+please"),
        Ask(1, "/behind/cart", 303, "POST", FORM, b"id=12&count=1"),
        Ask(1, "/upload", 200, "POST", BROWSER, big[:9_000]),
        Ask(1, "/upload", 200, "PUT", CRAWLER, big),
        Ask(1, "/behind/upload", 200, "POST", BROWSER, big),
        Ask(1, "/report"),
        Ask(1, "/behind/report", headers=CRAWLER),
        Ask(1, "/files/film.mp4", 206, headers=part),
        Ask(1, "/files/hero.jpg", method="HEAD", headers=CRAWLER),
        Ask(1, "/item/8", method="HEAD", headers=CRAWLER),
        Ask(1, "/files/", 404),
        Ask(1, "/files/gone.css", 404),
        Ask(1, "/wp-login.php", 404, headers=CRAWLER),
        Ask(1, "/files/%2e%2e/secret", 404, headers=CRAWLER),
        Ask(1, "/files/site.css", 405, "DELETE", CRAWLER),
        Ask(1, "/old/things", 308),
        Ask(1, "/ping", headers=CRAWLER),
        Ask(1, "/files/robots.txt", headers=close),
        Ask(1, "/item/9", headers=close),
    ]


# What HTTP/2 is asked, which h2load asks with GET alone.
OVER_HTTP2 = [
    "/",
    "/files/site.css",
    "/files/icon.svg",
    "/files/hero.jpg",
    "/item/7",
    "/api/items?from=2",
    "/behind/item/4",
]


def script(folder: Path) -> Path:
    """Write the traffic for wrk, which asks in the same shuffled order each time; it waits for the body of a HEAD."""
    order = [ask for ask in asks() for _ in range(ask.weight) if ask.method != "HEAD"]
    random.Random(1).shuffle(order)
    lines = ["local all, at = {}, 0", "init = function()"]
    for ask in order:
        named = ", ".join(f"[{json.dumps(name)}] = {json.dumps(value)}" for name, value in ask.headers.items())
        body = json.dumps(ask.body.decode("ascii")) if ask.body else "nil"
        lines.append(
            f"all[#all + 1] = wrk.format({json.dumps(ask.method)}, {json.dumps(ask.path)}, {{{named}}}, {body})"
        )
    lines += ["end", "request = function() at = at % #all + 1; return all[at] end"]
    path = folder / "traffic.lua"
    path.write_text("\n".join(lines) + load.DONE.replace("STATUS", "0"), "utf-8")
    return path


def write_files(folder: Path) -> None:
    """Write the site's files: of no pattern, text apart."""
    folder.mkdir()
    chance = random.Random(2)
    for name, length in FILES.items():
        content = b"a { color: #123456 }\n" * (length // 21) if name.endswith(TEXT) else chance.randbytes(length)
        (folder / name).write_bytes(content)
        if name.endswith(TEXT) and length > 1_000:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))


def behind(port: int, folder: Path) -> list[str]:
    """Configure the application server that the other one asks."""
    sockets = [f'{{ address = "unix:{folder}/{name}", protocol = "{name}", mode = "666" }}' for name in GATEWAYS]
    listen = ", ".join([f'"127.0.0.1:{port}"', *sockets])
    return ["[server]", f"listen = [{listen}]", "event_loops = 1", 'access_log = "off"', *application()]


def front(port: int, secure: int, upstream: int, folder: Path) -> list[str]:
    """Configure the web server: every kind of route that many sites have."""
    lines = [
        "[server]",
        f'listen = ["127.0.0.1:{port}", "https://127.0.0.1:{secure}"]',
        "event_loops = 1",
        f'access_log = "{folder}/access.log"',
        "[[tls]]",
        f'cert = "{folder}/certificate/cert.pem"',
        f'key = "{folder}/certificate/key.pem"',
        *application(),
        "[upstream.behind]",
        f'servers = ["http://127.0.0.1:{upstream}"]',
    ]
    for name in GATEWAYS:
        lines += [f"[upstream.{name}]", f'servers = ["{name}://unix:{folder}/behind/{name}"]']
    routes = {
        "/files/*": f'static = {{ root = "{folder}/files" }}',
        "/kept/*": 'app = "shop"\nstrip_prefix = true\ncache = true',
        "/packed/*": 'app = "shop"\nstrip_prefix = true\ncompress = true',
        "/old/*": 'redirect = { to = "/new/{rest}", status = 308 }',
        "/ping": 'respond = { status = 200, body = "pong\\n" }',
        "/*": 'app = "shop"\nheaders = { set = { "X-Content-Type-Options" = "nosniff" } }',
    }
    routes |= {f"/{name}/*": f'upstream = "{name}"\nstrip_prefix = true' for name in ("behind", *GATEWAYS)}
    for path, route in routes.items():
        lines += ["[[route]]", f'path = "{path}"', route]
    return lines


def application() -> list[str]:
    """Configure the shop, in this interpreter."""
    places = [f'directory = "{APPLICATIONS}"', f'python = "{sys.executable}"']
    return ["[app.shop]", 'wsgi = "shop:application"', *places, "processes = 1"]


def check(port: int) -> None:
    """Ask for each once."""
    for ask in asks():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        try:
            connection.request(ask.method, ask.path, ask.body or None, ask.headers)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise TrainingError(f"{ask.method} {ask.path}: {type(error).__name__}: {error}") from error
        finally:
            connection.close()
        if response.status != ask.status:
            raise TrainingError(f"{ask.method} {ask.path}: {response.status}, not {ask.status}: {body[:200]!r}")


def sure(counted: load.Load) -> int:
    """Give the answers of a run in which nothing went wrong."""
    if counted.errors or not counted.requests:
        raise TrainingError(f"of {counted.requests} answers {counted.errors} did not come or were not read")
    return counted.requests


def train(daemun: Path, seconds: float, folder: Path) -> int:
    """Run all of it; give the answers that were counted."""
    write_files(folder / "files")
    compare.write_certificate(folder / "certificate")
    lua = script(folder)
    port, secure, upstream = free_port(), free_port(), free_port()
    (folder / "behind").mkdir()
    (folder / "front").mkdir()
    # Counts are written by a process that may be another user than the one that wrote there before.
    os.umask(0)
    # The front of a daemun that root starts makes its sockets and logs as another user too.
    (folder / "behind").chmod(0o777)
    programs = []
    try:
        for name, number, lines in (
            ("behind", upstream, behind(upstream, folder / "behind")),
            ("front", port, front(port, secure, upstream, folder)),
        ):
            config = folder / f"{name}.toml"
            config.write_text("\n".join(lines) + "\n", "utf-8")
            config.chmod(0o644)
            command = [str(daemun), "serve", "--config", str(config)]
            programs.append(Program(name, number, command, folder / name, {}))
            programs[-1].wait_listening()
        check(port)
        answered = 0
        for scheme, number in (("http", port), ("https", secure)):
            for crowd in CROWDS:
                url = f"{scheme}://127.0.0.1:{number}/"
                answered += sure(load.run(url, lua, seconds=seconds, connections=crowd))
        for path in OVER_HTTP2:
            url = f"https://127.0.0.1:{secure}{path}"
            answered += sure(load.over_http2(url, folder, seconds=seconds / len(OVER_HTTP2), connections=8))
        check(port)
    except (ServerError, TrainingError, load.LoadError) as error:
        said = "\n".join(program.said for program in programs)
        raise TrainingError(f"{error}\n{said}") from error
    finally:
        for program in reversed(programs):
            program.end()
    with (folder / "access.log").open(encoding="utf-8") as log:
        failed = [line for line in log if re.search(r'" 5\d\d ', line)]
    if failed:
        raise TrainingError(f"{len(failed)} answers were errors, the first one: {failed[0]}")
    return answered


def main() -> None:
    """Train, and say how much that was."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--daemun", type=Path, default=compare.DAEMUN, metavar="PATH")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of each of five kinds of traffic")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, compare.terminated)
    with compare.folder() as place:
        answered = train(options.daemun.resolve(), options.seconds, place)
    print(f"training: {answered} requests were answered")


if __name__ == "__main__":
    try:
        main()
    except (compare.UsageError, TrainingError) as error:
        print(f"training: {error}", file=sys.stderr)
        raise SystemExit(1) from None
