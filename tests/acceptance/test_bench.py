"""Every server that daemun is measured against answers every scenario rightly, each installed as `make bench` does."""

from __future__ import annotations

import subprocess
import sys

import pytest
from server import BINARY, ROOT

sys.path.insert(0, str(ROOT / "bench"))

from comparison.scenarios import RESTS, SCENARIOS


@pytest.mark.parametrize("scenario", [*SCENARIOS, *RESTS])
def test_every_server_answers(scenario: str) -> None:
    program = [sys.executable, str(ROOT / "bench" / "compare.py"), "--check", "--quiet"]
    given = ["--scenario", scenario, "--daemun", str(BINARY)]
    # The first one makes the environment, with all its packages.
    done = subprocess.run([*program, *given], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "right: " in done.stdout
