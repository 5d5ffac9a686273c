#!/usr/bin/env python3
"""Measures how servers scale, and draws it: against connections, processes, threads and the size of a body.

python3 bench/scaling.py [--sweep NAME,…] [--seconds S] [--rounds N] [--json FILE] [--plots FOLDER]
python3 bench/scaling.py --draw FILE… --plots FOLDER    # draws what was measured before, in one run or in several

The processor time of each request and the 99th of a hundred latencies, medians over the rounds; see README.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import compare
from comparison import packages, plots, report, rounds
from comparison.peers import COMMANDS, Setting
from comparison.scenarios import SCENARIOS, Request, Scenario, write_files
from comparison.servers import ServerError

SIZES = [100, 1000, 10_000, 100_000, 1_000_000, 10_000_000]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """One picture: what is on its axis, who is in it, and what is asked at a value."""

    title: str
    axis: str
    values: list[int]
    servers: list[str]
    # The same at each value, or made of it.
    scenario: Scenario | Callable[[int], Scenario]
    # Which member of the setting or of the plan is the value; none where the scenario is made of it.
    member: str = ""


def _answer(size: int) -> Scenario:
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    return dataclasses.replace(
        SCENARIOS["hello"], name=f"sized{size}", request=Request(path=f"/{size}"), application="plain:sized", body=body
    )


def _post(size: int) -> Scenario:
    body = (b"0123456789" * (size // 10 + 1))[:size]
    right = b"%d %s %s" % (size, body[:4], body[-4:])
    request = Request(method="POST", headers={"Content-Type": "application/octet-stream"}, body=body)
    return dataclasses.replace(SCENARIOS["post100k"], name=f"post{size}", request=request, body=right)


WSGI = ["daemun", "granian", "gunicorn", "bjoern", "fastpysgi"]
SWEEPS = {
    "connections": Sweep(
        "13 bytes from WSGI, by connections",
        "connections",
        [1, 10, 100, 1000, 10_000],
        ["daemun", "granian", "bjoern", "fastpysgi", "waitress"],
        SCENARIOS["hello"],
        "connections",
    ),
    "files": Sweep(
        "a file of 1 KiB, by connections",
        "connections",
        [1, 10, 100, 1000, 10_000],
        ["daemun", "nginx", "lighttpd", "h2o", "caddy"],
        SCENARIOS["static1k"],
        "connections",
    ),
    "processes": Sweep(
        "13 bytes from WSGI, by processes",
        "processes",
        [1, 2, 4, 8],
        ["daemun", "granian", "gunicorn", "uwsgi", "bjoern", "fastpysgi"],
        SCENARIOS["hello"],
        "workers",
    ),
    "threads": Sweep(
        "13 bytes from WSGI, by threads of one process",
        "threads",
        [1, 2, 4, 8, 16],
        ["daemun", "granian", "gunicorn", "uwsgi", "waitress"],
        SCENARIOS["hello"],
        "threads",
    ),
    "answers": Sweep("an answer from WSGI, by its size", "bytes", SIZES[:5], WSGI, _answer),
    "posts": Sweep("a body posted to WSGI, by its size", "bytes", SIZES[:5], WSGI, _post),
}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sweep", metavar="NAME,…", help=f"of {', '.join(SWEEPS)} (default: all)")
    parser.add_argument("--server", metavar="NAME,…", help="only these of each sweep's")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="of each server's turn in each round")
    parser.add_argument("--connections", type=int, default=64, metavar="N", help="where they are not the axis")
    parser.add_argument("--loops", type=int, default=1, metavar="N", help="event loops")
    parser.add_argument("--daemun", type=Path, default=compare.DAEMUN, metavar="PATH")
    parser.add_argument("--venv", type=Path, metavar="PATH", help="as for compare.py")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="where a picture of each sweep goes")
    parser.add_argument("--draw", type=Path, nargs="+", metavar="FILE", help="measure nothing: draw these --json files")
    parser.add_argument("--check", action="store_true", help="only whether all answer rightly, at two values of each")
    return parser.parse_args()


def measure(sweep: Sweep, value: int, options: argparse.Namespace, setting: Setting, folder: Path) -> dict[str, Any]:
    """Measure all servers of a sweep at one value of its axis."""
    plan = rounds.Plan(options.rounds, options.seconds, min(1.0, options.seconds), options.connections)
    if options.check:
        plan = rounds.Plan(1, compare.CHECK_SECONDS, 0.0, 4)
    if sweep.member == "connections":
        # The client opens them all before it counts much: ten thousand take seconds.
        plan = dataclasses.replace(plan, connections=value, seconds=plan.seconds + value / 2500)
    elif sweep.member == "workers":
        setting = dataclasses.replace(setting, workers=value)
    elif sweep.member == "threads":
        setting = dataclasses.replace(setting, threads=value)
    scenario = sweep.scenario(value) if callable(sweep.scenario) else sweep.scenario
    asked = compare.words(options.server, [*COMMANDS], "server")
    names = [name for name in sweep.servers if not asked or name in asked]
    work = rounds.Work(setting, plan, folder / f"{sweep.axis}-{value}", lambda _line: None)
    measured = rounds.rates(scenario, names, work)
    for name, why in work.absent.items():
        print(f"scaling: {name}: {why}", file=sys.stderr, flush=True)
        if options.check:
            raise ServerError(f"{name} was not measured")
    return {name: report.summary(each, measured.memory.get(name)) for name, each in measured.rounds.items()}


def run(options: argparse.Namespace, place: Path) -> None:
    """Measure each sweep: its axis, and by server and value the summaries."""
    write_files(place / "files")
    compare.write_certificate(place / "certificate")
    most = compare.allow_connections(10_000)
    setting = Setting(
        daemun=options.daemun.resolve(),
        venv=packages.venv(options.venv),
        files=place / "files",
        scripts=place,
        certificate=place / "certificate",
        loops=options.loops,
        most=most + 500,
    )
    done: dict[str, Any] = {"machine": packages.machine(setting), "sweeps": {}}
    for name in compare.words(options.sweep, list(SWEEPS), "sweep") or SWEEPS:
        sweep = SWEEPS[name]
        values = [value for value in sweep.values if value <= most or sweep.member != "connections"]
        points: dict[str, Any] = {}
        for value in values[:2] if options.check else values:
            (place / name).mkdir(exist_ok=True)
            for server, figures in measure(sweep, value, options, setting, place / name).items():
                points.setdefault(server, {})[value] = figures
                cpu, p99 = figures["cpu_us"], figures["p99_ms"]
                print(f"{name} {value} {server}: {cpu} us, p99 {p99} ms, errors {figures['errors']}", flush=True)
        done["sweeps"][name] = {"title": sweep.title, "axis": sweep.axis, "servers": points}
        # What is there is there, should the next one fail.
        write(options, done)


def write(options: argparse.Namespace, done: dict[str, Any]) -> None:
    """Write the figures, and draw them."""
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(done, indent=1) + "\n", "utf-8")
    if options.plots:
        options.plots.mkdir(parents=True, exist_ok=True)
        for name, sweep in done["sweeps"].items():
            (options.plots / f"{name}.svg").write_text(plots.picture(sweep), "utf-8")


def main() -> None:
    """Measure or read, then draw."""
    options = arguments()
    signal.signal(signal.SIGTERM, compare.terminated)
    if options.draw:
        options.json = None
        for file in options.draw:
            write(options, json.loads(file.read_text("utf-8")))
    elif not options.daemun.exists():
        raise compare.UsageError(f"{options.daemun} is not there; run:  cargo build --release")
    else:
        with compare.folder() as place:
            run(options, place)


if __name__ == "__main__":
    try:
        main()
    except (compare.UsageError, packages.VenvError) as error:
        print(f"scaling: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except rounds.FAULTS as error:
        print(f"scaling: {error}", file=sys.stderr)
        raise SystemExit(1) from None
