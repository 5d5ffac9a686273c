"""What the logs say, and that they can be rotated."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

from server import DEADLINE, Server

COMBINED = re.compile(
    r'^127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /\?q=1 HTTP/1\.1" 200 3 "-" "a b"'
)


def lines(file: Path, wanted: int) -> list[str]:
    """Wait until a file has that many lines."""
    end = time.monotonic() + DEADLINE
    while True:
        found = file.read_text().splitlines() if file.exists() else []
        if len(found) >= wanted:
            return found
        assert time.monotonic() < end, found


def test_the_combined_format_is_what_other_programs_read(flask: Path) -> None:
    with Server("app:app", cwd=flask) as server:
        server.get("/?q=1", {"User-Agent": "a b"})
        server.wait_for(COMBINED, server.access)


def test_log_files_are_opened_anew_after_a_rotation(flask: Path) -> None:
    (flask / "daemun.toml").write_text(
        '[server]\nlisten = ["127.0.0.1:0"]\naccess_log = { path = "access.log", format = "json" }\n'
        'error_log = { path = "error.log" }\n[app.one]\nwsgi = "app:app"\n'
    )
    log, errors = flask / "access.log", flask / "error.log"
    with Server(cwd=flask, listen="") as server:
        server.get("/?first")
        assert json.loads(lines(log, 1)[0])["status"] == 200
        log.rename(flask / "access.log.1")
        errors.rename(flask / "error.log.1")
        server.send(signal.SIGUSR1)
        assert "logs reopened" in lines(errors, 1)[0]
        end = time.monotonic() + DEADLINE
        while not (log.exists() and log.read_text()):
            assert server.get("/?second").status == 200
            assert time.monotonic() < end
        assert "second" in lines(log, 1)[-1]
        assert server.stop() == 0
        assert server.access.lines == []


def test_a_server_with_both_logs_off_is_silent_but_for_its_start(flask: Path) -> None:
    with Server("app:app", "--access-log", "off", "--log-level", "error", cwd=flask) as server:
        server.get("/")
        assert server.stop() == 0
        assert server.access.lines == []
        assert [line for line in server.errors.lines if not line.startswith("daemun: ")] == []
