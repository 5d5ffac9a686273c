"""The measuring program asks the right questions: each scenario starts and is answered rightly. No figure is judged."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from server import BINARY, DEADLINE, ROOT

FILES = "static1k,static100k,static10m,precompressed,cached1k"
SCENARIOS = f"hello,hello11,django,post100k,stream1m,{FILES},cgi-c,cgi-python,start"
SERVERS = "daemun,daemun-cache,bare"


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not there; run:  scripts/require bench")
def test_every_scenario_of_the_measuring_program_is_answered_rightly() -> None:
    program = [sys.executable, str(ROOT / "bench" / "compare.py"), "--check", "--quiet"]
    options = ["--scenario", SCENARIOS, "--server", SERVERS, "--daemun", str(BINARY), "--venv", sys.prefix]
    done = subprocess.run([*program, *options], capture_output=True, text=True, timeout=2 * DEADLINE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("right: daemun") == SCENARIOS.count(",") + 1


def test_an_unknown_scenario_ends_with_the_known_ones() -> None:
    program = [sys.executable, str(ROOT / "bench" / "compare.py"), "--scenario", "helo"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 2
    assert "unknown scenario 'helo'; known are hello, " in done.stderr
