#!/usr/bin/env python3
"""Measures daemun beside other servers, in one run, in turns; see README.md for the method.

python3 bench/compare.py [--scenario NAME,…] [--server NAME,…] [--rounds N] [--seconds S] [--check]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from comparison import collecting, report, rounds
from comparison.collecting import CollectError
from comparison.crowd import CrowdError
from comparison.load import LoadError
from comparison.peers import APPLICATIONS, COMMANDS, Setting
from comparison.peers.setting import program
from comparison.scenarios import (
    FILES,
    HELD_SERVERS,
    REST_PEERS,
    RESTS,
    SCENARIOS,
    SECURE_HELD_SERVERS,
    WSGI_SERVERS,
    WrongAnswerError,
    write_files,
)
from comparison.servers import ServerError

HERE = Path(__file__).resolve().parent
VENV = HERE.parent / ".bench" / "venv"
DAEMUN = HERE.parent / "target" / "release" / "daemun"
# Enough for one right answer to each connection.
CHECK_SECONDS = 0.5
CHECK_CROWD = 20
# Between these lines of a file go the tables of the last run.
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


class UsageError(Exception):
    """A word on the command line that means nothing, or a part that is missing."""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    names = ", ".join([*SCENARIOS, *RESTS])
    parser.add_argument("--scenario", metavar="NAME,…", help=f"of {names} (default: all)")
    parser.add_argument("--server", metavar="NAME,…", help=f"of {', '.join(COMMANDS)}, bare (default: all that fit)")
    parser.add_argument("--peer", metavar="NAME", help="whom to compare with (default: granian, for files nginx)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="of each server's turn in each round")
    parser.add_argument("--connections", type=int, default=64, metavar="N")
    parser.add_argument("--held", type=int, default=10_000, metavar="N", help="idle connections that are held")
    parser.add_argument(
        "--loops", type=int, default=1, metavar="N", help="event loops: daemun, Granian, web servers and proxies"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that run the application")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads for the application in each")
    parser.add_argument("--logs", action="store_true", help="with access logs, each to a file")
    parser.add_argument("--daemun", type=Path, default=DAEMUN, metavar="PATH")
    parser.add_argument("--venv", type=Path, metavar="PATH", help="with granian, gunicorn, django (default: made here)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures, each round's too")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help=f"the tables; between {BEGIN} and {END} if it has them"
    )
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


# How each says its version, and of which package manager it is.
VERSIONS = {
    "nginx": ["-v"],
    "apache2": ["-v"],
    "lighttpd": ["-v"],
    "h2o": ["-v"],
    "haproxy": ["-v"],
    "caddy": ["version"],
}
PACKAGES = ["granian", "gunicorn", "pyuwsgi", "bjoern", "fastpysgi", "waitress", "whitenoise", "django", "wagtail"]

PACKAGE_VERSIONS = """
import importlib.metadata, sys
for name in sys.argv[1:]:
    try:
        print(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        pass
"""


def machine(setting: Setting) -> dict[str, Any]:
    """Describe what must be known to read the figures."""
    versions = {"daemun": version([str(setting.daemun), "--version"])}
    versions["python"] = version([f"{setting.venv}/bin/python", "--version"])
    python = [f"{setting.venv}/bin/python", "-c", PACKAGE_VERSIONS, *PACKAGES]
    done = subprocess.run(python, capture_output=True, text=True, check=False)
    versions |= {line.split()[0]: line for line in done.stdout.splitlines()}
    for name, words in VERSIONS.items():
        versions[name] = f"{name} {number(version([program(name), *words]))}"
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "processor": _first(Path("/proc/cpuinfo"), "model name"),
        "memory": _first(Path("/proc/meminfo"), "MemTotal"),
        "system": _first(Path("/etc/os-release"), "PRETTY_NAME").strip('"'),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "load_at_start": os.getloadavg(),
        "versions": versions,
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
    # What was printed, as Markdown.
    tables: list[str] = dataclasses.field(default_factory=list)

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
        self.tables.append(f"**{name}**: {says}")
        if name in RESTS:
            self._rest(name)
        else:
            self._rate(name)

    def _rest(self, name: str) -> None:
        peer = self.options.peer or REST_PEERS[name]
        names = self.servers({"held": HELD_SERVERS, "held-tls": SECURE_HELD_SERVERS}.get(name, WSGI_SERVERS))
        if not names and name != "collect":
            print("none of the servers asked for")
            return
        if name == "idle":
            memory = rounds.idle(names, self.setting, self.folder, self.tell)
            self._print(name, report.idle(memory, peer), names, memory)
        elif name == "start":
            times = 1 if self.options.check else rounds.STARTS
            taken = rounds.starts(names, self.setting, self.folder, self.tell, times)
            self._print(name, report.starts(taken, peer), names, taken)
        elif name == "collect":
            built = collecting.builds(
                # Compressing takes half a minute, which says nothing about an answer.
                self.setting,
                min(self.plan.rounds, 3),
                ["plain"] if self.options.check else [*collecting.STORAGES],
            )
            plain = {
                key: {row: [dataclasses.asdict(cost) for cost in costs] for row, costs in each.items()}
                for key, each in built.items()
            }
            self._print(name, report.collect(built, peer), ["daemun", "collectstatic"], plain)
        else:
            held = rounds.held(names, self.setting, self.plan, self.folder, self.tell, secure=name == "held-tls")
            lost = {server: one.kept for server, one in held.items() if one.kept < one.asked}
            if lost and self.options.check:
                raise WrongAnswerError(f"{name}: of {self.plan.held} connections were kept: {lost}")
            plain = {server: dataclasses.asdict(one) for server, one in held.items()}
            self._print(name, report.held(held, peer), names, plain)

    def _print(self, name: str, table: report.Table, names: list[str], figures: Any) -> None:
        self.results[name] = figures
        self.tables.append(table.markdown())
        print(f"right: {', '.join(names)}" if self.options.check else table.text(), flush=True)

    def _rate(self, name: str) -> None:
        scenario = SCENARIOS[name]
        wanted = (*scenario.servers, rounds.BARE) if scenario.bare else scenario.servers
        names = self.servers(wanted)
        if not names:
            print("none of the servers asked for")
            return
        measured = rounds.rates(scenario, names, self.setting, self.plan, self.folder, self.tell)
        figures = {server: report.summary(each) for server, each in measured.items()}
        wrong = {server: one["errors"] for server, one in figures.items() if one["errors"]}
        if wrong and self.options.check and not scenario.crowd:
            raise WrongAnswerError(f"{name}: errors under load: {wrong}")
        usual = "apache" if scenario.script else "granian"
        self._print(name, report.rates(figures, self.options.peer or scenario.peer or usual), names, figures)
        if not self.options.check:
            print("load average " + " ".join(f"{value:.1f}" for value in os.getloadavg()), flush=True)

    def write(self, about: dict[str, Any], head: str) -> None:
        """Write what was asked for."""
        if self.options.json:
            given = {key: str(value) if isinstance(value, Path) else value for key, value in vars(self.options).items()}
            document = {"machine": about, "options": given, "files": FILES, "results": self.results}
            self.options.json.parent.mkdir(parents=True, exist_ok=True)
            self.options.json.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
        if self.options.markdown:
            place(self.options.markdown, "\n\n".join([head, *self.tables]))


def place(file: Path, text: str) -> None:
    """Put the text between the two lines of a file that has them; else the file is the text."""
    old = file.read_text("utf-8") if file.exists() else ""
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}" if begin and end else text + "\n", "utf-8")


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


def write_certificate(folder: Path) -> None:
    """Make a certificate that nobody has signed, and its key, which servers that are other users read too."""
    folder.mkdir()
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
    words += ["-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    try:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
    except FileNotFoundError as error:
        raise UsageError("openssl is not there; run:  apt-get install openssl") from error
    (folder / "key.pem").chmod(0o644)


def allow_connections(wanted: int) -> int:
    """Give how many connections a process may have, as many as are wanted where the system lets us."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(wanted, hard - 1000) if hard != resource.RLIM_INFINITY else wanted


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
    names = words(options.scenario, [*SCENARIOS, *RESTS], "scenario") or [*SCENARIOS, *RESTS]
    if not options.daemun.exists():
        raise UsageError(f"{options.daemun} is not there; run:  cargo build --release")
    with folder() as place:
        write_files(place / "files")
        write_scripts(place / "scripts", [SCENARIOS[name].script for name in names if name in SCENARIOS])
        write_certificate(place / "certificate")
        held = allow_connections(options.held)
        setting = Setting(
            daemun=options.daemun.resolve(),
            venv=venv(options.venv),
            files=place / "files",
            scripts=place / "scripts",
            certificate=place / "certificate",
            loops=options.loops,
            workers=options.workers,
            threads=options.threads,
            logs=options.logs,
            # Room for those that come beside.
            most=held + 500,
        )
        plan = rounds.Plan(options.rounds, options.seconds, min(1.0, options.seconds), options.connections, held=held)
        if options.check:
            plan = rounds.Plan(1, CHECK_SECONDS, 0.0, 4, CHECK_CROWD, CHECK_CROWD)
        run = Run(options, setting, plan, place)
        about = machine(setting)
        head = [
            f"{about['date']}; {about['processor']}, {about['memory']}, {about['system']}, Linux {about['kernel']}",
            f"{about['cores']} cores, {plan.connections} connections, event loops {setting.loops}, "
            f"workers {setting.workers}, threads {setting.threads}, access log {'on' if setting.logs else 'off'}, "
            f"{plan.rounds} rounds of {plan.seconds:g} s, load average {about['load_at_start'][0]:.1f}",
            "; ".join(about["versions"].values()),
        ]
        print("\n".join(head))
        for name in names:
            run.scenario(name)
            # What is there is there, should the next one fail.
            run.write(about, ".\n".join(head) + ".")


if __name__ == "__main__":
    try:
        main()
    except UsageError as error:
        print(f"compare: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except (WrongAnswerError, ServerError, LoadError, CrowdError, CollectError) as error:
        print(f"compare: {error}", file=sys.stderr)
        raise SystemExit(1) from None
