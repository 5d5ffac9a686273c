"""Six frameworks behind daemun, with each of three checkers of PEP 3333 between it and them, as its own middleware."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import ROOT, Server

# Made by `scripts/require frameworks`.
ENVIRONMENT = Path(os.environ.get("DAEMUN_FRAMEWORKS", ROOT / ".tools" / "frameworks"))
CHECKERS = {
    "wsgiref": "wsgiref.validate:validator",
    "paste": "paste.lint:middleware",
    "webtest": "webtest.lint:middleware",
}
FRAMEWORKS = ["django", "flask", "bottle", "pyramid", "falcon", "cherrypy"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """For each checker one application with all frameworks mounted below it."""
    python = ENVIRONMENT / "bin" / "python"
    assert python.exists(), f"{python} is not there; run:  scripts/require frameworks"
    mounts = ", ".join(f'"/{name}" = "frameworks:in_{name}"' for name in FRAMEWORKS)
    lines = []
    for name, checker in CHECKERS.items():
        lines += [f"[app.{name}]", f'directory = "{Path(__file__).parent}"', f'python = "{python}"']
        lines += [f'middleware = ["{checker}"]', f"mounts = {{ {mounts} }}", "processes = 1"]
        lines += ["[[route]]", f'host = "{name}.test"', 'path = "/*"', f'app = "{name}"']
    folder = tmp_path_factory.mktemp("frameworks")
    (folder / "daemun.toml").write_text("\n".join(lines))
    with Server(cwd=folder) as server:
        yield server


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("checker", CHECKERS)
def test_no_checker_finds_anything_between_us_and_a_framework(server: Server, checker: str, framework: str) -> None:
    host = {"Host": f"{checker}.test"}
    said = len(server.errors.lines)

    greeting = server.get(f"/{framework}/", host)
    assert (greeting.status, greeting.text) == (200, "Hello, 대문")
    assert "seen=yes" in greeting.headers["Set-Cookie"]
    head = server.ask(f"/{framework}/", "HEAD", headers=host)
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(greeting.body)))

    body = os.urandom(200_000)
    octets = {**host, "Content-Type": "application/octet-stream"}
    assert server.ask(f"/{framework}/echo", "POST", body, octets).body == body
    form = {**host, "Content-Type": "application/x-www-form-urlencoded"}
    assert server.ask(f"/{framework}/form", "POST", b"other=1&word=gate", form).text == "gate"

    assert server.get(f"/{framework}/stream", host).body == b"one\ntwo\nthree\n"
    away = server.get(f"/{framework}/away", host)
    assert away.status in {302, 303}
    # Relative, as it was given, or made whole with the place of the mount.
    assert away.headers["Location"] in {
        "echo",
        f"/{framework}/echo",
        f"http://{checker}.test/{framework}/echo",
        f"http://{checker}.test:{server.port}/{framework}/echo",
    }
    assert server.get(f"/{framework}/nowhere", host).status == 404

    told = "\n".join(server.errors.lines[said:])
    # What was not closed is told by the checker once the iterator is collected.
    assert "AssertionError" not in told
    assert "Warning" not in told
    assert "without being closed" not in told
