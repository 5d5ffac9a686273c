#!/usr/bin/env python3
"""Measures daemun beside other servers, in one run, in turns; see README.md for the method.

python3 bench/compare.py [--scenario NAME,…] [--server NAME,…] [--rounds N] [--seconds S] [--check]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from comparison import report, rounds
from comparison.load import LoadError
from comparison.scenarios import FILES, RESTS, SCENARIOS, WSGI_SERVERS, WrongAnswerError, write_files
from comparison.servers import APPLICATIONS, COMMANDS, ServerError, Setting

HERE = Path(__file__).resolve().parent
VENV = HERE.parent / ".bench" / "venv"
DAEMUN = HERE.parent / "target" / "release" / "daemun"
DEFAULT = ["hello", "hello11", "django", "post100k", "static1k", "static100k", "idle", "start"]
# Enough for one right answer to each connection.
CHECK_SECONDS = 0.5


class UsageError(Exception):
    """A word on the command line that means nothing, or a part that is missing."""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    names = ", ".join([*SCENARIOS, *RESTS])
    parser.add_argument("--scenario", metavar="NAME,…", help=f"of {names} (default: {','.join(DEFAULT)})")
    parser.add_argument("--server", metavar="NAME,…", help=f"of {', '.join(COMMANDS)}, bare (default: all that fit)")
    parser.add_argument("--peer", metavar="NAME", help="whom to compare with (default: granian, for files nginx)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help="of each server's turn in each round")
    parser.add_argument("--connections", type=int, default=64, metavar="N")
    parser.add_argument("--loops", type=int, default=1, metavar="N", help="event loops: daemun, Granian, nginx")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that run the application")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads for the application in each")
    parser.add_argument("--logs", action="store_true", help="with access logs, each to a file")
    parser.add_argument("--daemun", type=Path, default=DAEMUN, metavar="PATH")
    parser.add_argument("--venv", type=Path, metavar="PATH", help="with granian, gunicorn, django (default: made here)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures, each round's too")
    parser.add_argument("--check", action="store_true", help="only whether all answer rightly; no figures")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    return parser.parse_args()


def words(given: str | None, known: list[str], what: str) -> list[str]:
    """Split a list of names; unknown ones are faults."""
    names = given.split(",") if given else []
    for name in names:
        if name not in known:
            raise UsageError(f"unknown {what} {name!r}; known are {', '.join(known)}")
    return names


def venv(given: Path | None) -> Path:
    """Give the virtual environment of the servers; make it where none was given and none is."""
    path = given or VENV
    stamp, wanted = path / "requirements.txt", (HERE / "requirements.txt").read_text("utf-8")
    if given is None and not (stamp.exists() and stamp.read_text("utf-8") == wanted):
        print(f"compare: making {path}", file=sys.stderr)
        shutil.rmtree(path, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(path)], check=True)
        pip = [f"{path}/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(HERE / "requirements.txt")], check=True)
        stamp.write_text(wanted, "utf-8")
    if not (path / "bin" / "python").exists():
        raise UsageError(f"{path} is not a virtual environment")
    # The interpreter stays the one below the environment: resolving it would lose the packages.
    return path.absolute()


def machine(setting: Setting) -> dict[str, Any]:
    """Describe what must be known to read the figures."""
    versions = {"daemun": version([str(setting.daemun), "--version"])}
    for name in ("granian", "gunicorn"):
        versions[name] = version([f"{setting.venv}/bin/{name}", "--version"])
    for name in ("nginx", "lighttpd", "h2o"):
        versions[name] = version([shutil.which(name) or f"/usr/sbin/{name}", "-v"])
    versions["python"] = version([f"{setting.venv}/bin/python", "--version"])
    return {
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "load_at_start": os.getloadavg(),
        "versions": versions,
    }


def version(command: list[str]) -> str:
    """Ask a program; what is not there has none."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return "not there"
    return (done.stdout + done.stderr).strip().splitlines()[0] if done.stdout or done.stderr else "unknown"


@dataclasses.dataclass
class Run:
    """What was asked for, and the figures so far."""

    options: argparse.Namespace
    setting: Setting
    plan: rounds.Plan
    folder: Path
    results: dict[str, Any] = dataclasses.field(default_factory=dict)

    def tell(self, line: str) -> None:
        """Show that something moves."""
        if not self.options.quiet:
            print(f"  {line}", file=sys.stderr, flush=True)

    def servers(self, wanted: tuple[str, ...]) -> list[str]:
        """Those of the wanted that were asked for."""
        asked = words(self.options.server, [*COMMANDS, rounds.BARE], "server")
        return [name for name in wanted if not asked or name in asked]

    def scenario(self, name: str) -> None:
        """Measure and print one."""
        says = RESTS.get(name) or SCENARIOS[name].says
        print(f"\n{name}: {says}", flush=True)
        if name in RESTS:
            self._rest(name)
        else:
            self._rate(name)

    def _rest(self, name: str) -> None:
        names = self.servers(WSGI_SERVERS)
        peer = self.options.peer or "granian"
        if name == "idle":
            memory = rounds.idle(names, self.setting, self.folder, self.tell)
            self.results[name] = memory
            self._print(report.idle(memory, peer), names)
        else:
            times = 1 if self.options.check else rounds.STARTS
            taken = rounds.starts(names, self.setting, self.folder, self.tell, times)
            self.results[name] = taken
            self._print(report.starts(taken, peer), names)

    def _print(self, table: str, names: list[str]) -> None:
        print(f"right: {', '.join(names)}" if self.options.check else table, flush=True)

    def _rate(self, name: str) -> None:
        scenario = SCENARIOS[name]
        wanted = (*scenario.servers, rounds.BARE) if scenario.bare else scenario.servers
        names = self.servers(wanted)
        if not names:
            print("none of the servers asked for")
            return
        measured = rounds.rates(scenario, names, self.setting, self.plan, self.folder, self.tell)
        figures = {server: report.summary(each) for server, each in measured.items()}
        self.results[name] = figures
        if self.options.check:
            wrong = {server: one["errors"] for server, one in figures.items() if one["errors"]}
            if wrong:
                raise WrongAnswerError(f"{name}: errors under load: {wrong}")
            print(f"right: {', '.join(names)}", flush=True)
        else:
            usual = "apache" if scenario.script else "granian"
            peer = self.options.peer or scenario.peer or usual
            print(report.rates(figures, peer), flush=True)
            print("load average " + " ".join(f"{value:.1f}" for value in os.getloadavg()), flush=True)


def write_scripts(place: Path, scripts: list[str]) -> None:
    """Compile or copy the CGI programs that are asked for."""
    place.mkdir()
    for name in {script for script in scripts if script}:
        source = APPLICATIONS / "cgi" / name
        if source.suffix == ".c":
            compiler = shutil.which("cc")
            if compiler is None:
                raise UsageError("cc is not there; run:  apt-get install gcc libc6-dev")
            # Linked statically: what the loader does with libraries is a quarter of such a program, and no server's.
            subprocess.run([compiler, "-O2", "-static", "-o", str(place / source.stem), str(source)], check=True)
        else:
            shutil.copy(source, place)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Make a folder for configurations, files and logs; it goes at the end."""
    with tempfile.TemporaryDirectory(prefix="daemun-bench-") as name:
        # The front of a daemun that root starts, and nginx's workers, are other users.
        Path(name).chmod(0o755)
        yield Path(name)


def terminated(number: int, _frame: FrameType | None) -> NoReturn:
    """End by the way that ends the servers."""
    raise SystemExit(128 + number)


def main() -> None:
    """Run the scenarios in the order they were named."""
    options = arguments()
    signal.signal(signal.SIGTERM, terminated)
    names = words(options.scenario, [*SCENARIOS, *RESTS], "scenario") or DEFAULT
    if not options.daemun.exists():
        raise UsageError(f"{options.daemun} is not there; run:  cargo build --release")
    with folder() as place:
        write_files(place / "files")
        write_scripts(place / "scripts", [SCENARIOS[name].script for name in names if name in SCENARIOS])
        setting = Setting(
            daemun=options.daemun.resolve(),
            venv=venv(options.venv),
            files=place / "files",
            scripts=place / "scripts",
            loops=options.loops,
            workers=options.workers,
            threads=options.threads,
            logs=options.logs,
        )
        plan = rounds.Plan(options.rounds, options.seconds, min(1.0, options.seconds), options.connections)
        if options.check:
            plan = rounds.Plan(1, CHECK_SECONDS, 0.0, 4)
        run = Run(options, setting, plan, place)
        about = machine(setting)
        print(
            f"{about['cores']} cores, {plan.connections} connections, event loops {setting.loops}, "
            f"workers {setting.workers}, threads {setting.threads}, access log {'on' if setting.logs else 'off'}, "
            f"{plan.rounds} rounds of {plan.seconds:g} s, load average {about['load_at_start'][0]:.1f}"
        )
        print("; ".join(about["versions"].values()))
        for name in names:
            run.scenario(name)
        if options.json:
            given = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
            document = {"machine": about, "options": given, "files": FILES, "results": run.results}
            options.json.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    try:
        main()
    except UsageError as error:
        print(f"compare: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except (WrongAnswerError, ServerError, LoadError) as error:
        print(f"compare: {error}", file=sys.stderr)
        raise SystemExit(1) from None
