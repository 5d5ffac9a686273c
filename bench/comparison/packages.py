"""What is measured, and where: the virtual environment of the servers, versions, the machine."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from .peers import Setting
from .peers.setting import program

HERE = Path(__file__).resolve().parents[1]
VENV = HERE.parent / ".bench" / "venv"

# How each says its version, and of which package manager it is.
PROGRAMS = {
    "nginx": ["-v"],
    "apache2": ["-v"],
    "lighttpd": ["-v"],
    "h2o": ["-v"],
    "haproxy": ["-v"],
    "caddy": ["version"],
}
PACKAGES = ["granian", "gunicorn", "pyuwsgi", "bjoern", "fastpysgi", "waitress", "whitenoise", "django", "wagtail"]
MISSING = "not there"

PACKAGE_VERSIONS = """
import importlib.metadata, sys
for name in sys.argv[1:]:
    try:
        print(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        print(name, "not there")
"""


class VenvError(Exception):
    """The virtual environment of the servers is not there and cannot be made."""


def venv(given: Path | None) -> Path:
    """Give the virtual environment of the servers; make it where none was given and none is."""
    path = given or VENV
    stamp, wanted = path / "requirements.txt", (HERE / "requirements.txt").read_text("utf-8")
    if given is None and not (stamp.exists() and stamp.read_text("utf-8") == wanted):
        print(f"compare: making {path}", file=sys.stderr)
        if stamp.exists():
            shutil.rmtree(path, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(path)], check=True)
        # What could not be installed is tried again by the next run: only a whole environment is stamped.
        if install(path, wanted):
            stamp.write_text(wanted, "utf-8")
    if not (path / "bin" / "python").exists():
        raise VenvError(f"{path} is not a virtual environment")
    # The interpreter stays the one below the environment: resolving it would lose the packages.
    return path.absolute()


def install(path: Path, wanted: str) -> bool:
    """Install all packages, or all but those that cannot be (bjoern is compiled); say whether all are there."""
    pip = [f"{path}/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if not subprocess.run([*pip, "-r", str(HERE / "requirements.txt")], check=False).returncode:
        return True
    lines = [line for line in wanted.splitlines() if line and not line.startswith("#")]
    lacking = [line for line in lines if subprocess.run([*pip, line], check=False, capture_output=True).returncode]
    if lacking:
        print(f"compare: cannot be installed: {', '.join(lacking)}; the tables go without", file=sys.stderr)
    return not lacking


def machine(setting: Setting) -> dict[str, Any]:
    """Describe what must be known to read the figures."""
    python = [f"{setting.venv}/bin/python", "-c", PACKAGE_VERSIONS, *PACKAGES]
    done = subprocess.run(python, capture_output=True, text=True, check=False)
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "processor": _first(Path("/proc/cpuinfo"), "model name"),
        "memory": _first(Path("/proc/meminfo"), "MemTotal"),
        "system": _first(Path("/etc/os-release"), "PRETTY_NAME").strip('"'),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "load_at_start": os.getloadavg()[0],
        "daemun": version([str(setting.daemun), "--version"]),
        "python": version([f"{setting.venv}/bin/python", "--version"]),
        "packages": done.stdout.splitlines(),
        "programs": [f"{name} {number(version([program(name), *words]))}" for name, words in PROGRAMS.items()],
    }


def _first(file: Path, name: str) -> str:
    """Give the value of the first line that begins with the name, or nothing."""
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    found = next((line for line in lines if line.startswith(name)), "")
    return found.replace("=", ":", 1).partition(":")[2].strip()


def number(said: str) -> str:
    """Give the version in what a program says of itself."""
    found = re.search(r"\d+\.\d+(\.\d+)*", said)
    return found[0] if found else said


def version(command: list[str]) -> str:
    """Ask a program; what is not there has none."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return MISSING
    return (done.stdout + done.stderr).strip().splitlines()[0] if done.stdout or done.stderr else "unknown"
