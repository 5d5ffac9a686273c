"""``python -m daemun …``: becomes the program ``daemun`` that lies in the same environment, with the same arguments."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

PROGRAM = "daemun"


def candidates() -> list[Path]:
    """Where an installer may have put the program, best first."""
    folders = [sysconfig.get_path("scripts")]
    user = os.name + "_user"
    if user in sysconfig.get_scheme_names():
        folders.append(sysconfig.get_path("scripts", user))
    # `pip install --target DIR` puts scripts into DIR/bin, beside the package.
    folders.append(str(Path(__file__).resolve().parent.parent / "bin"))
    return [Path(folder) / PROGRAM for folder in folders if folder]


def find() -> Path | None:
    """Find the program: in this environment, else on ``PATH``."""
    for path in candidates():
        if path.is_file() and os.access(path, os.X_OK):
            return path
    on_path = shutil.which(PROGRAM)
    return Path(on_path) if on_path else None


def main() -> None:
    """Replace this process by the program: signals and exit codes are its own."""
    path = find()
    if path is None:
        looked = ", ".join(str(candidate.parent) for candidate in candidates())
        sys.exit(
            f"daemun: the program is not installed in this environment (looked in {looked} and on PATH)\n"
            f"daemun: run:  {sys.executable} -m pip install --force-reinstall daemun"
        )
    os.execv(path, [str(path), *sys.argv[1:]])  # noqa: S606 - this is what the module is for


if __name__ == "__main__":
    main()
