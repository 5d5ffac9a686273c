#!/usr/bin/env python3
"""Shows where the time of a request goes in daemun: instructions by callgrind, samples by perf, system calls by strace.

python3 bench/profiling.py [--scenario hello,django,…] [--with callgrind,perf,strace] [--top N]

Instructions are the difference of two runs of different length, so that a start is in neither; they are the same on any
machine, busy or not. Sixteen connections ask in step. Needs what `scripts/require profile bench` installs.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import compare
from comparison import load, packages, processes, report
from comparison.peers import COMMANDS, Place, Setting
from comparison.peers.web import nginx_upstream
from comparison.scenarios import SCENARIOS, Scenario, WrongAnswerError, write_files
from comparison.servers import Program, ServerError, free_port

HERE = Path(__file__).resolve().parent
DEFAULT = ["hello", "django", "static1k", "post100k", "hop"]
CONNECTIONS = 16
# Requests of the short and of the long run under callgrind, which is fifty times as slow as the processor.
SHORT, LONG = 160, 800
# Seconds until the first right answer under callgrind.
READY = 240.0
# Between two attempts: whoever is under callgrind needs the processor.
PAUSE = 0.5
# Samples each second; not a divisor of what happens a thousand times a second.
FREQUENCY = "997"
Costs = dict[str, Counter[str]]


class ProfileError(Exception):
    """A program that looks into others did not."""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scenario", metavar="NAME,…", help=f"(default: {','.join(DEFAULT)})")
    parser.add_argument("--with", dest="tools", metavar="NAME,…", help=f"of {', '.join(TOOLS)} (default: all)")
    parser.add_argument("--top", type=int, default=12, metavar="N", help="rows of each table")
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help="under load, for perf and strace")
    parser.add_argument("--daemun", type=Path, default=compare.DAEMUN, metavar="PATH")
    parser.add_argument("--venv", type=Path, metavar="PATH", help="as for compare.py")
    return parser.parse_args()


@contextlib.contextmanager
def running(scenario: Scenario, setting: Setting, folder: Path, more: dict[str, str]) -> Iterator[Program]:
    """Run daemun, and what it asks if it is a proxy."""
    folder.mkdir()
    programs = []
    try:
        port = free_port()
        behind = folder / "upstream"
        behind.mkdir()
        if scenario.hop:
            programs.append(Program("upstream", port, nginx_upstream(port, behind), behind, {}))
            programs[0].wait_listening()
        given = Setting(**{**vars(setting), "upstream": port})
        own = free_port()
        command = COMMANDS["daemun"](given, Place(scenario, own, folder))
        programs.append(Program("daemun", own, command, folder, more))
        programs[-1].wait_listening()
        wait_right(scenario, programs[-1])
        yield programs[-1]
    finally:
        for program in reversed(programs):
            program.end()


def wait_right(scenario: Scenario, server: Program) -> None:
    """Wait for right answers: under callgrind an import takes a minute, and requests time out meanwhile."""
    until = time.monotonic() + READY
    while True:
        try:
            return scenario.check(server.port)
        except WrongAnswerError as error:
            if not server.tree():
                raise ServerError(f"{server.name} ended before it answered\n{server.said}") from error
            if time.monotonic() > until:
                raise WrongAnswerError(f"{error}\n{server.said}") from error
            time.sleep(PAUSE)


def ask(port: int, scenario: Scenario, count: int) -> None:
    """Ask exactly so often, on several connections in step."""
    request = scenario.request
    fields = {"Host": "127.0.0.1", **request.headers, **({"Content-Length": len(request.body)} if request.body else {})}
    lines = [f"{request.method} {request.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    wire = "\r\n".join([*lines, "", ""]).encode() + request.body
    clients = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(CONNECTIONS)]
    for _ in range(count // CONNECTIONS):
        for client in clients:
            client.sendall(wire)
        for client in clients:
            read_answer(client)
    for client in clients:
        client.close()


def read_answer(client: socket.socket) -> None:
    """Read one whole answer."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        more = client.recv(65536)
        if not more:
            raise ProfileError("the connection was closed before an answer")
        answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    if not head.startswith(b"HTTP/1.1 200") or length is None:
        raise ProfileError(f"a wrong answer: {head[:200]!r}")
    left = int(length[1]) - len(body)
    while left > 0:
        left -= len(client.recv(65536))


def callgrind(scenario: Scenario, setting: Setting, folder: Path, _seconds: float) -> Costs:
    """Give instructions of a request by role and function."""
    library = folder / "under_valgrind.so"
    source = HERE / "under_valgrind.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    totals: list[Costs] = []
    for number, count in enumerate((SHORT, LONG)):
        counts = folder / f"counts-{number}"
        counts.mkdir()
        # The front is another user where root starts it.
        counts.chmod(0o777)
        more = {"LD_PRELOAD": str(library), "BENCH_CALLGRIND": str(counts)}
        with running(scenario, setting, folder / f"callgrind-{number}", more) as server:
            ask(server.port, scenario, count)
        totals.append({role: instructions(counts, role) for role in ("front", "worker")})
    return {
        role: Counter(
            {name: round((own - totals[0][role][name]) / (LONG - SHORT)) for name, own in totals[1][role].items()}
        )
        for role in totals[1]
        # A folder of files and a proxy have no worker.
        if totals[1][role]
    }


def instructions(folder: Path, role: str) -> Counter[str]:
    """Sum what callgrind counted in all processes of a role, by function."""
    found: Counter[str] = Counter()
    for file in folder.glob(f"{role}.*"):
        done = subprocess.run(
            ["callgrind_annotate", "--auto=no", "--threshold=100", str(file)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ProfileError(f"callgrind_annotate: {done.stderr}")
        found += annotated(done.stdout)
    return found


def annotated(said: str) -> Counter[str]:
    """Read what callgrind_annotate says: instructions, their part, file and function, object."""
    found: Counter[str] = Counter()
    for line in said.splitlines():
        row = re.match(r"\s*([\d,]+) \([ \d.]+%\)\s+(\S.*?)(?: \[[^\]]*\])?$", line)
        if row and "PROGRAM TOTALS" not in line:
            _, _, name = row[2].partition(":")
            # The hash at the end of a Rust name is another one in each build.
            found[re.sub(r"(::h[0-9a-f]{16}|'\d+)$", "", name or row[2])] += int(row[1].replace(",", ""))
    return found


def perf(scenario: Scenario, setting: Setting, folder: Path, seconds: float) -> Costs:
    """Give samples by role and function, in thousandths of the role's."""
    costs: Costs = {}
    with running(scenario, setting, folder / "perf", {}) as server:
        # One after the other: of two at a time one may be left without samples.
        for role, pids in by_role(server).items():
            file = str(folder / f"{role}.perf")
            words = ["perf", "record", "-q", "-F", FREQUENCY, "-o", file, "-p", ",".join(pids)]
            process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            press(server, scenario, folder, seconds)
            process.send_signal(signal.SIGINT)
            _, wrong = process.communicate(timeout=60)
            words = ["perf", "report", "-i", file, "--stdio", "-s", "symbol", "-g", "none"]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ProfileError(f"perf: {wrong.decode(errors='replace')}{done.stderr}")
            costs[role] = sampled(done.stdout)
    return costs


def sampled(said: str) -> Counter[str]:
    """Read what perf report says: a part in a hundred, then `[k]` or `[.]` and the function."""
    found: Counter[str] = Counter()
    for line in said.splitlines():
        row = re.match(r"\s*([\d.]+)%\s+\[(.)\] (\S.*?)\s*(?:- *)*$", line)
        if row:
            found[row[3] + (" (kernel)" if row[2] == "k" else "")] += round(float(row[1]) * 10)
    return found


def strace(scenario: Scenario, setting: Setting, folder: Path, seconds: float) -> Costs:
    """Give system calls of a thousand requests by role."""
    costs: Costs = {}
    with running(scenario, setting, folder / "strace", {}) as server:
        for role, pids in by_role(server).items():
            file = folder / f"{role}.strace"
            words = ["strace", "-c", "-f", "-q", "-o", str(file), *(word for pid in pids for word in ("-p", pid))]
            process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            requests = press(server, scenario, folder, seconds)
            process.send_signal(signal.SIGINT)
            _, wrong = process.communicate(timeout=60)
            if not file.exists():
                raise ProfileError(f"strace: {wrong.decode(errors='replace')}")
            calls = called(file.read_text("utf-8"))
            costs[role] = Counter({name: round(count * 1000 / requests) for name, count in calls.items()})
    return costs


def called(said: str) -> Counter[str]:
    """Read what `strace -c` says: parts, seconds, microseconds of a call, calls, errors if any, name."""
    found: Counter[str] = Counter()
    for line in said.splitlines():
        row = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?([a-z_]\w*)$", line)
        if row and row[2] != "total":
            found[row[2]] += int(row[1])
    return found


def by_role(server: Program) -> dict[str, list[str]]:
    """Give the front's and the workers' process ids."""
    found: dict[str, list[str]] = {}
    for pid, role in processes.roles(server.tree()).items():
        if role in ("front", "worker"):
            found.setdefault(role, []).append(str(pid))
    return found


def press(server: Program, scenario: Scenario, folder: Path, seconds: float) -> int:
    """Ask as fast as it goes; give how often."""
    lua = load.script(scenario.request, folder)
    url = f"http://127.0.0.1:{server.port}{scenario.request.path}"
    return load.run(url, lua, seconds=seconds, connections=64).requests


TOOLS = {
    "callgrind": (callgrind, "instructions of a request"),
    "perf": (perf, "samples in a thousand, 64 connections"),
    "strace": (strace, "system calls of a thousand requests, 64 connections"),
}


def tell(title: str, costs: Costs, top: int) -> None:
    """Print the dearest of each role, as Markdown."""
    for role, counts in costs.items():
        whole = counts.total()
        if not whole:
            print(f"\n**{title}**, {role}: nothing was counted", flush=True)
        else:
            rows = [[f"`{name}`", f"{count:,}", f"{count / whole:.0%}"] for name, count in counts.most_common(top)]
            print(f"\n**{title}**, {role}: {whole:,}\n")
            print(report.Table(["", "count", "part"], rows).markdown(), flush=True)


def main() -> None:
    """Look into each scenario with each tool."""
    options = arguments()
    signal.signal(signal.SIGTERM, compare.terminated)
    names = compare.words(options.scenario, list(SCENARIOS), "scenario") or DEFAULT
    tools = compare.words(options.tools, list(TOOLS), "tool") or list(TOOLS)
    if not options.daemun.exists():
        raise compare.UsageError(f"{options.daemun} is not there; run:  cargo build --release")
    with compare.folder() as place:
        write_files(place / "files")
        compare.write_certificate(place / "certificate")
        setting = Setting(
            daemun=options.daemun.resolve(),
            venv=packages.venv(options.venv),
            files=place / "files",
            scripts=place,
            certificate=place / "certificate",
            # Nobody is refused: under callgrind sixteen pages take longer than a request may wait elsewhere.
            crowded=True,
        )
        for name in names:
            for tool in tools:
                folder = place / f"{name}-{tool}"
                folder.mkdir()
                function, says = TOOLS[tool]
                tell(f"{name}: {says}", function(SCENARIOS[name], setting, folder, options.seconds), options.top)


if __name__ == "__main__":
    try:
        main()
    except (compare.UsageError, packages.VenvError) as error:
        print(f"profile: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except (ProfileError, load.LoadError, WrongAnswerError, ServerError) as error:
        print(f"profile: {error}", file=sys.stderr)
        raise SystemExit(1) from None
