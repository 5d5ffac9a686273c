"""What is the same for all servers of a run, and where one of them runs."""

from __future__ import annotations

import os
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..scenarios import Scenario

APPLICATIONS = Path(__file__).resolve().parents[2] / "applications"


@dataclass(frozen=True)
class Setting:
    """What is the same for all servers of a run."""

    daemun: Path
    venv: Path
    files: Path
    # The folder of the CGI programs.
    scripts: Path
    # The folder of `cert.pem`, `key.pem` and `both.pem`.
    certificate: Path
    loops: int = 1
    workers: int = 1
    threads: int = 1
    logs: bool = False
    # The port of the server that proxies ask.
    upstream: int = 0
    # How many connections a server must be able to hold.
    most: int = 4096
    # Whether more of them come than a server takes where nobody has told it to.
    crowded: bool = False


@dataclass(frozen=True)
class Place:
    """Where one server runs: its scenario, its port, a folder for its configuration and logs."""

    scenario: Scenario
    port: int
    folder: Path
    # Whether a warm interpreter forks for each request.
    reuse: bool = False

    def write(self, name: str, lines: list[str]) -> Path:
        """Write a configuration, without the lines that are empty."""
        file = self.folder / name
        file.write_text("\n".join(line for line in lines if line) + "\n", "utf-8")
        return file


def program(name: str) -> str:
    """Find a server: Debian has them in /usr/sbin, which is not on everybody's PATH."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin") or f"/usr/sbin/{name}"


def files_open(setting: Setting) -> int:
    """Give how many files a server may have open: two for each connection, and no more than the system lets us."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2 * setting.most if hard == resource.RLIM_INFINITY else min(2 * setting.most, hard)


def is_root() -> bool:
    """Whether a server would become another user, who cannot enter the run's folder."""
    return os.geteuid() == 0
