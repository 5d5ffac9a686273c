"""Virtual environments as an application's author would make them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from server import ROOT, environment

# Making an environment and installing a large framework, on a machine that does it for the first time.
INSTALLING = 600.0
CACHE = Path(os.environ.get("DAEMUN_ACCEPTANCE_ENVIRONMENTS", ROOT / ".tools" / "acceptance"))


def make_venv(name: str, python: str, *packages: str) -> Path:
    """Make an environment with these packages, which is kept between runs; give its folder."""
    folder = CACHE / name
    stamp = folder / "packages"
    if stamp.exists() and stamp.read_text().split() == list(packages):
        return folder
    call(python, "-m", "venv", "--clear", str(folder))
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    call(*pip, *packages)
    stamp.write_text(" ".join(packages))
    return folder


def call(*command: str, cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    """Run to the end; what it said."""
    done = subprocess.run(
        command, cwd=cwd, env=environment(env or {}), capture_output=True, text=True, timeout=INSTALLING
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout
