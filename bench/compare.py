#!/usr/bin/env python3
"""Measures daemun beside other servers, in one run, in turns; see README.md for the method.

python3 bench/compare.py [--scenario NAME,…] [--server NAME,…] [--rounds N] [--seconds S] [--check]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from comparison import collecting, document, extract, report, rounds
from comparison.document import BEGIN, END, Document, DocumentError
from comparison.packages import VenvError, machine, venv
from comparison.peers import APPLICATIONS, COMMANDS, Setting
from comparison.scenarios import (
    FILES,
    GROUPS,
    HELD_SERVERS,
    RESTS,
    SCENARIOS,
    SECURE_HELD_SERVERS,
    WSGI_SERVERS,
    says,
    usual_peer,
    write_files,
)
from comparison.servers import Absent, ServerError

HERE = Path(__file__).resolve().parent
DAEMUN = HERE.parent / "target" / "release" / "daemun"
# Enough for one right answer to each connection.
CHECK_SECONDS = 0.5
CHECK_CROWD = 20
# Whose absence is a fault also where figures are wanted.
OURS = "daemun"


class UsageError(Exception):
    """A word on the command line that means nothing, or a part that is missing."""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    names = ", ".join([*SCENARIOS, *RESTS])
    groups = ", ".join(GROUPS)
    parser.add_argument("--scenario", metavar="NAME,…", help=f"of {names}, or of their groups {groups} (default: all)")
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
    parser.add_argument(
        "--extract",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="the short tables, as --markdown; *.ko.md in Korean",
    )
    parser.add_argument(
        "--from",
        dest="given",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="measure nothing: the tables of these --json files",
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


@dataclasses.dataclass
class Run:
    """What was asked for, and the figures so far."""

    options: argparse.Namespace
    setting: Setting
    plan: rounds.Plan
    folder: Path
    document: Document

    def tell(self, line: str) -> None:
        """Show that something moves."""
        if not self.options.quiet:
            print(f"  {line}", file=sys.stderr, flush=True)

    def servers(self, wanted: tuple[str, ...]) -> list[str]:
        """Those of the wanted that were asked for."""
        asked = words(self.options.server, [*COMMANDS, rounds.BARE], "server")
        return [name for name in wanted if not asked or name in asked]

    def scenario(self, name: str) -> None:
        """Measure and print one; who cannot be measured is said, and does not end the run."""
        print(f"\n{name}: {says(name)}", flush=True)
        work = rounds.Work(self.setting, self.plan, self.folder, self.tell)
        peer = self.options.peer or usual_peer(name)
        figures: Any = None
        try:
            figures = self._rest(name, work) if name in RESTS else self._rate(name, work)
        except (*rounds.FAULTS, collecting.CollectError) as error:
            work.absent[OURS] = str(error)
        if figures is None and not work.absent:
            print("none of the servers asked for")
            return
        self.document["results"][name] = {"peer": peer, "table": figures}
        self.document["absent"][name] = work.absent
        for server, why in work.absent.items():
            print(f"compare: {name}: {server}: {why}", file=sys.stderr, flush=True)
        if self.options.check:
            answered = ["daemun", "collectstatic"] if name == "collect" else list(figures or ())
            there = [server for server in answered if server not in work.absent and server != rounds.IMPORT]
            print(f"right: {', '.join(there)}", flush=True)
        elif figures:
            print(report.table(name, figures, peer).text(), flush=True)
            print("load average " + " ".join(f"{value:.1f}" for value in os.getloadavg()), flush=True)
        if work.absent:
            print(report.lacking(work.absent), flush=True)

    def _rest(self, name: str, work: rounds.Work) -> Any:
        if name == "collect":
            # Compressing takes half a minute, which says nothing about an answer.
            storages = ["plain"] if self.options.check else [*collecting.STORAGES]
            built = collecting.builds(self.setting, min(self.plan.rounds, 3), storages)
            return {
                storage: {build: [dataclasses.asdict(cost) for cost in costs] for build, costs in each.items()}
                for storage, each in built.items()
            }
        names = self.servers({"held": HELD_SERVERS, "held-tls": SECURE_HELD_SERVERS}.get(name, WSGI_SERVERS))
        if not names:
            return None
        if name == "idle":
            return rounds.idle(names, work)
        if name == "start":
            return rounds.starts(names, work, 1 if self.options.check else rounds.STARTS)
        held = rounds.held(names, work, secure=name == "held-tls")
        if self.options.check:
            work.absent.update(
                {who: f"kept {one.kept} of {one.asked}" for who, one in held.items() if one.kept < one.asked}
            )
        return {server: dataclasses.asdict(one) for server, one in held.items()}

    def _rate(self, name: str, work: rounds.Work) -> Any:
        scenario = SCENARIOS[name]
        wanted = (*scenario.servers, rounds.BARE) if scenario.bare else scenario.servers
        names = self.servers(wanted)
        if not names:
            return None
        write_script(self.setting.scripts, scenario.script)
        taken = rounds.rates(scenario, names, work)
        figures = {server: report.summary(each, taken.memory.get(server)) for server, each in taken.rounds.items()}
        if self.options.check and not scenario.crowd:
            wrong = {server: one["errors"] for server, one in figures.items() if one["errors"]}
            work.absent.update({server: f"{count} errors under load" for server, count in wrong.items()})
        return figures

    def faults(self) -> dict[str, Absent]:
        """Give what may not be: where only answers are looked at, any absence; else daemun's own."""
        absent: dict[str, Absent] = self.document["absent"]
        ours = {
            name: {server: why for server, why in each.items() if self._counts(server)} for name, each in absent.items()
        }
        return {name: each for name, each in ours.items() if each}

    def _counts(self, server: str) -> bool:
        return bool(self.options.check) or server.partition("-")[0] == OURS


def write(options: argparse.Namespace, figures: Document) -> None:
    """Write what was asked for."""
    if options.json and not options.given:
        document.write(options.json, figures)
    if options.markdown:
        document.place(options.markdown, document.tables(figures))
    for page in options.extract:
        document.place(page, extract.extract(figures, extract.words_of(page)))


def write_script(place: Path, name: str) -> None:
    """Compile or copy the CGI program of a scenario that has one."""
    place.mkdir(exist_ok=True)
    source = APPLICATIONS / "cgi" / name
    if source.suffix == ".c":
        compiler = shutil.which("cc")
        if compiler is None:
            raise ServerError("cc is not there; run:  scripts/require bench")
        # Linked statically: what the loader does with libraries is a quarter of such a program, and no server's.
        subprocess.run([compiler, "-O2", "-static", "-o", str(place / source.stem), str(source)], check=True)
    elif name:
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
    """Measure, or make the tables of what was measured."""
    options = arguments()
    signal.signal(signal.SIGTERM, terminated)
    if options.given:
        write(options, document.read(options.given))
        return
    asked = words(options.scenario, [*SCENARIOS, *RESTS, *GROUPS], "scenario")
    names = list(dict.fromkeys(one for name in asked for one in GROUPS.get(name, [name]))) or [*SCENARIOS, *RESTS]
    if not options.daemun.exists():
        raise UsageError(f"{options.daemun} is not there; run:  cargo build --release")
    with folder() as place:
        run = prepare(options, place)
        print("\n".join(document.head(run.document)))
        began = time.monotonic()
        for number, name in enumerate(names, 1):
            minutes = (time.monotonic() - began) / 60
            run.tell(f"scenario {number} of {len(names)}, after {minutes:.0f} min: {name}")
            run.scenario(name)
            # What is there is there, should the run be cut off.
            write(options, run.document)
    if faults := run.faults():
        raise ServerError("; ".join(f"{name}: {report.lacking(each)}" for name, each in faults.items()))


def prepare(options: argparse.Namespace, place: Path) -> Run:
    """Write what the servers serve, and describe the machine."""
    write_files(place / "files")
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
    asked: dict[str, Any] = {name: getattr(plan, name) for name in ("rounds", "seconds", "connections", "held")}
    asked |= {name: getattr(setting, name) for name in ("loops", "workers", "threads", "logs")}
    return Run(options, setting, plan, place, document.new(machine(setting), asked, FILES))


if __name__ == "__main__":
    try:
        main()
    except (UsageError, VenvError, DocumentError) as error:
        print(f"compare: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except (*rounds.FAULTS, collecting.CollectError) as error:
        print(f"compare: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
