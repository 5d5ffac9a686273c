"""The live page on the monitor listener: what it tells, to whom, and how it looks in a browser."""

from __future__ import annotations

import json
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gate import Gate
from playwright.sync_api import Page
from server import DEADLINE, Server, eventually
from test_metrics import ask

Monitor = tuple[int, str]


def monitor(server: Server) -> Monitor:
    """Port and token of the monitor listener."""
    match = server.wait_for(r"monitor on http://127.0.0.1:(\d+)/\?token=([0-9a-f]{32})")
    return int(match[1]), match[2]


def live(where: Monitor, *, token: bool = True) -> dict[str, Any]:
    """What the page asks for."""
    headers = {"Authorization": f"Bearer {where[1]}"} if token else None
    told: dict[str, Any] = json.loads(ask(where[0], "/api/live", headers).text)
    return told


def shoot(page: Page, name: str, folder: Path) -> None:
    """Keep a picture."""
    shots = Path(os.environ.get("DEMO_SHOTS", folder))
    shots.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=shots / f"{name}.png", full_page=True)


def test_a_request_in_flight_is_told_with_its_place_and_its_stack(flask: Path, gate: Gate) -> None:
    arguments = ("app:app", "--workers", "1", "--threads", "1", "--monitor", "127.0.0.1:0")
    with Server(*arguments, cwd=flask, env=gate.env) as server, ThreadPoolExecutor() as pool:
        where = monitor(server)
        first = pool.submit(server.get, "/held?secret=1")
        gate.entered()
        second = pool.submit(server.get, "/pid?secret=2")
        eventually(lambda: len(live(where)["flights"]) == 2, "both are in flight")
        working, queued = live(where)["flights"]
        assert (working["target"], working["state"], working["app"]) == ("/held?secret=1", "working", "app")
        assert working["worker"] == [1, 0]
        assert (queued["target"], queued["worker"]) == ("/pid?secret=2", None)
        token = {"Authorization": f"Bearer {where[1]}"}
        stack = ask(where[0], f"/api/stack?id={working['id']}", token)
        assert re.search(r"app\.py\", line \d+ in held", stack.text), stack.text
        assert ask(where[0], "/api/stack?id=nobody", token).status == 404
        closed = live(where, token=False)
        assert "secret" not in json.dumps(closed)
        assert [flight["state"] for flight in closed["flights"]] == ["working", queued["state"]]
        assert ask(where[0], f"/api/stack?id={working['id']}").status == 403
        gate.open()
        assert first.result(DEADLINE).status == second.result(DEADLINE).status == 200
        eventually(lambda: live(where)["flights"] == [], "nothing is left")


def test_what_failed_and_who_died_are_remembered(flask: Path) -> None:
    with Server("app:app", "--workers", "1", "--monitor", "127.0.0.1:0", cwd=flask) as server:
        where = monitor(server)
        assert server.get("/boom?secret=3").status == 500
        pid = int(server.get("/pid").text)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: live(where)["status"]["deaths"], "the death is told")
        told = live(where)
        (failed,) = told["failed"]
        assert (failed["status"], failed["target"], failed["route"]) == (500, "/boom?secret=3", "/*")
        assert 0 < failed["application"] <= failed["answered"] <= failed["duration"]
        (death,) = told["status"]["deaths"]
        assert (death["app"], death["pid"], death["how"]) == ("app", pid, "was killed by signal 9 (SIGKILL)")
        assert f"app: worker 1 (pid {pid}) was killed" in death["text"]
        closed = live(where, token=False)
        assert closed["status"]["deaths"][0]["text"] == ""
        assert "secret" not in json.dumps(closed)
        assert json.loads(ask(where[0], "/api/status").text)["deaths"][0]["text"] == ""


def test_the_page_is_complete_in_itself_and_reads_only(flask: Path) -> None:
    with Server("app:app", "--workers", "1", "--monitor", "127.0.0.1:0", cwd=flask) as server:
        port, token = monitor(server)
        page = ask(port, f"/?token={token}")
        assert page.status == 200
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert page.headers["Referrer-Policy"] == "no-referrer"
        assert token not in page.text
        for part in re.findall(r'(?:href|src)="([^"]+)"', page.text):
            assert part.startswith("data:") or ask(port, f"/{part}").status == 200
        for path in ("/", "/live.js", "/api/live", "/api/stack"):
            assert ask(port, path, method="POST").status == 405
            answer = ask(port, path, {"Host": "attacker.example", "Origin": "http://attacker.example"})
            assert answer.status == 403
            assert "Access-Control-Allow-Origin" not in answer.headers


def test_without_a_monitor_listener_nothing_is_kept(flask: Path) -> None:
    with Server("app:app", "--workers", "1", "--health", "127.0.0.1:0", cwd=flask) as server:
        port = int(server.wait_for(r"health on http://127.0.0.1:(\d+)")[1])
        for path in ("/", "/live.js", "/api/live", "/api/stack?id=1"):
            assert ask(port, path).status == 404


def test_a_stuck_request_and_a_killed_worker_are_seen(flask: Path, gate: Gate, page: Page, tmp_path: Path) -> None:
    (flask / "files").mkdir()
    (flask / "files" / "a.txt").write_text("x" * 1000)
    arguments = ("app:app", "--workers", "2", "--threads", "2", "--monitor", "127.0.0.1:0")
    with (
        Server(*arguments, "--static", f"/files={flask / 'files'}", cwd=flask, env=gate.env) as server,
        ThreadPoolExecutor() as pool,
    ):
        port, token = monitor(server)
        troubles: list[str] = []
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda line: troubles.append(line.text) if line.type == "error" else None)
        page.goto(f"http://127.0.0.1:{port}/?token={token}")
        held = pool.submit(server.get, "/held?<script>")
        gate.entered()
        page.wait_for_selector("#flights td:has-text('/held?<script>')")
        for _ in range(20):
            server.get("/files/a.txt")
        server.get("/boom")
        told = live((port, token))
        stuck = told["flights"][0]["worker"][0]
        other = next(each for each in told["status"]["apps"]["app"]["workers"] if each["serial"] != stuck)
        os.kill(other["pid"], signal.SIGKILL)
        page.wait_for_selector("#deaths :text('was killed by signal 9')")
        page.wait_for_selector("#failed td:has-text('/boom')")
        page.wait_for_selector("#handlers h3:has-text('Static files')")
        page.locator("#flights button").first.focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("#flights pre:has-text('in held')")
        shoot(page, "live", tmp_path)
        page.emulate_media(color_scheme="dark")
        shoot(page, "live-dark", tmp_path)
        page.set_viewport_size({"width": 390, "height": 844})
        wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        assert not wide, "a phone scrolls down only"
        shoot(page, "live-phone", tmp_path)
        gate.open()
        held.result(DEADLINE)
        assert troubles == []


def test_without_the_token_the_page_says_where_it_stands(flask: Path, page: Page) -> None:
    with Server("app:app", "--workers", "1", "--monitor", "127.0.0.1:0", cwd=flask) as server:
        port, _ = monitor(server)
        server.get("/boom?secret=4")
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("#failed td:has-text('URL hidden')")
        assert page.is_visible("#closed")
        assert "secret" not in page.content()
