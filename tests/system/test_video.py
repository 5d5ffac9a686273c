"""A film in a browser: whoever jumps in it loads what comes then, and not all that lies before."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from playwright.sync_api import Page
from server import Server, eventually
from test_demo import shoot

CONFIG = """\
[server]
access_log = { format = "$uri $status $http_range" }

[[route]]
path = "/*"
static = { root = "public" }
"""

# Two seconds of noise, so that nothing can be left out, again and again: 40 s and some 40 MB.
NOISE = "testsrc2=size=640x480:rate=10:duration=2,noise=alls=80:allf=t"
TIMES = 20
PAGE = "<!doctype html><title>Film</title><video src=film.webm controls muted preload=metadata width=640></video>"


def film(folder: Path) -> None:
    """Make one that every browser can play."""
    program = shutil.which("ffmpeg")
    assert program, "no ffmpeg; run:  scripts/require chromium"
    quiet = [program, "-v", "error", "-y"]
    vp8 = ["-c:v", "libvpx", "-b:v", "9M", "-deadline", "realtime", "-cpu-used", "8", "-threads", "2"]
    subprocess.run([*quiet, "-f", "lavfi", "-i", NOISE, *vp8, "short.webm"], cwd=folder, check=True, timeout=300)
    again = ["-stream_loop", str(TIMES - 1), "-i", "short.webm", "-c", "copy", "film.webm"]
    subprocess.run([*quiet, *again], cwd=folder, check=True, timeout=60)
    (folder / "short.webm").unlink()


def test_a_film_is_played_from_where_the_visitor_jumps_to(tmp_path: Path, page: Page) -> None:
    public = tmp_path / "public"
    public.mkdir()
    film(public)
    (public / "index.html").write_text(PAGE)
    (tmp_path / "daemun.toml").write_text(CONFIG)
    size = (public / "film.webm").stat().st_size
    assert size > 20_000_000, "all of it would be loaded ahead"
    with Server("daemun.toml", cwd=tmp_path) as server:
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.wait_for_function("document.querySelector('video').readyState >= 1")
        assert page.evaluate("document.querySelector('video').duration") > TIMES
        page.evaluate("document.querySelector('video').currentTime = 33")
        page.wait_for_function("(v => !v.seeking && v.readyState >= 2)(document.querySelector('video'))")
        page.evaluate("document.querySelector('video').play()")
        page.wait_for_function("document.querySelector('video').currentTime > 34")
        assert page.evaluate("document.querySelector('video').error") is None
        shoot(page, "film", tmp_path)
        page.goto("about:blank")

        def beginnings() -> list[int]:
            """Where the parts began that were asked for and sent."""
            lines = [line.split() for line in server.access.lines if line.startswith("/film.webm 206 bytes=")]
            return [int(line[2].removeprefix("bytes=").partition("-")[0]) for line in lines]

        eventually(lambda: any(size / 2 < begin < 0.95 * size for begin in beginnings()), "the part in the middle")
