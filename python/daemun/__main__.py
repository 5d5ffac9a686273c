"""``python -m daemun …``: becomes the program ``daemun`` that lies in the same environment, with the same arguments.

Under a debugger (``debugpy`` or PyCharm's, as editors start it) it stays beside the program instead: the editor's
session is with this process, and the workers of ``daemun dev`` join it.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
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


def debugger() -> str | None:
    """Find the debugger that this process was started under, and how another process joins it."""
    pydevd, debugpy = sys.modules.get("pydevd"), sys.modules.get("debugpy")
    setup = getattr(getattr(pydevd, "SetupHolder", None), "setup", None)
    if not setup or pydevd is None or pydevd.__file__ is None:
        return None
    if not setup.get("multiprocess") and not setup.get("multiproc"):
        sys.stderr.write(
            "daemun: no breakpoint will stop the application: it runs in a process of its own, and the debugger was "
            "told to leave such alone (`subProcess`; in PyCharm: attach to subprocess automatically)\n"
        )
        return None
    if debugpy is None or debugpy.__file__ is None:
        # PyCharm's own. What is to be run is the other process's affair.
        left = {name: value for name, value in setup.items() if name not in {"file", "module", "cmd-line"}}
        return json.dumps({"setup": left, "path": str(Path(pydevd.__file__).resolve().parent)})
    return json.dumps(
        {
            "host": setup["client"],
            "port": setup["port"],
            "token": setup.get("client-access-token"),
            "own_token": setup.get("access-token"),
            "pid": os.getpid(),
            "path": str(Path(debugpy.__file__).parent.parent),
        }
    )


def end_with_parent() -> None:
    """An editor ends its session with KILL: what it has started must not stay."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def run_beside(arguments: list[str], wish: str) -> int:
    """Run the program and wait for it; what a terminal sends reaches both, what a process sends is passed on."""
    environment = {**os.environ, "DAEMUN_INTERNAL_DEBUGGER": wish}
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    program = subprocess.Popen(  # noqa: S603 - as below
        arguments,
        env=environment,
        preexec_fn=end_with_parent,  # noqa: PLW1509 - it calls the kernel, and nothing else
        restore_signals=True,
    )
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: program.send_signal(number))
    code = program.wait()
    return code if code >= 0 else 128 - code


def main() -> None:
    """Replace this process by the program: signals and exit codes are its own."""
    path = find()
    if path is None:
        looked = ", ".join(str(candidate.parent) for candidate in candidates())
        sys.exit(
            f"daemun: the program is not installed in this environment (looked in {looked} and on PATH)\n"
            f"daemun: run:  {sys.executable} -m pip install --force-reinstall daemun"
        )
    wish = debugger()
    if wish is not None:
        sys.exit(run_beside([str(path), *sys.argv[1:]], wish))
    os.execv(path, [str(path), *sys.argv[1:]])  # noqa: S606 - this is what the module is for


if __name__ == "__main__":
    main()
