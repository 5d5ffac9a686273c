"""Which workers load the accelerator, in the whole program; what it does is told by the shim's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from server import Server

MAPS = """

def application(environ, start_response):
    with open("/proc/self/maps") as file:
        body = b"loaded" if "daemun_accelerator.so" in file.read() else b"not loaded"
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """Make an application that says whether its process has the accelerator."""
    (tmp_path / "maps.py").write_text(MAPS, "utf-8")
    return tmp_path


def test_workers_load_the_accelerator(maps: Path) -> None:
    with Server("maps:application", cwd=maps) as server:
        assert server.get("/").text == "loaded"


def test_the_accelerator_is_left_out_where_the_file_or_the_environment_says_so(maps: Path) -> None:
    with Server("maps:application", "--log-level", "debug", cwd=maps, env={"DAEMUN_ACCELERATOR": "off"}) as server:
        server.wait_for("app: workers run without the accelerator: not asked for")
        assert server.get("/").text == "not loaded"
    (maps / "daemun.toml").write_text('[app.maps]\nwsgi = "maps:application"\naccelerator = false\n', "utf-8")
    with Server(cwd=maps) as server:
        assert server.get("/").text == "not loaded"
