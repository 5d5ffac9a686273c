"""Measures: rounds of load on all servers of a scenario in turn, memory at rest, time to the first answer."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import crowd, load, processes
from .crowd import CrowdError
from .load import LoadError
from .peers import APPLICATIONS, Setting
from .scenarios import SCENARIOS, WSGI_SERVERS, Scenario, WrongAnswerError
from .servers import START_DEADLINE, Absent, Server, ServerError, environment, running

# The application alone, beside the servers.
BARE = "bare"
# Its import alone, beside the starts.
IMPORT = "import"
STARTS = 7
# Connections from which a server may need to be told that they come.
CROWDED = 100
# Bytes of a body from which answers are counted by what came of them.
LARGE = 64 * 1024
# Between an answer and the look at the memory: what a server does after it has answered.
SETTLE = 1.0
POLL = 0.001
# Seconds after which a round without an answer is the server's fault.
PATIENCE = 30.0
Tell = Callable[[str], None]
# What costs a server its row, not the run.
FAULTS = (ServerError, WrongAnswerError, LoadError, CrowdError, subprocess.TimeoutExpired)


@dataclass(frozen=True)
class Plan:
    """How long, how often, with how many connections."""

    rounds: int
    seconds: float
    warm: float
    connections: int
    # How many of a scenario's slow clients are there, and how many idle connections are held.
    slow: int = 1000
    held: int = 10_000


@dataclass(frozen=True)
class Round:
    """One server's share of one round. Processor time in microseconds per request, or None where none was answered."""

    cpu: float | None
    user: float | None
    system: float | None
    by_role: dict[str, float]
    # Voluntary context switches per request.
    sleeps: float | None
    requests: int
    rate: float
    errors: int
    p50: float | None
    p99: float | None
    # Of the machine, over the last minute, when the round ended.
    load: float


@dataclass(frozen=True)
class Held:
    """A server's memory in KiB without and with idle connections, and how many of them it had kept."""

    before: int
    after: int
    asked: int
    kept: int


@dataclass(frozen=True)
class Work:
    """What one measure is given, and whom it could not measure."""

    setting: Setting
    plan: Plan
    folder: Path
    tell: Tell
    absent: Absent = field(default_factory=dict)


@dataclass(frozen=True)
class Rates:
    """The rounds of each server, and the memory of all its processes in KiB (PSS) after the last of them."""

    rounds: dict[str, list[Round]]
    memory: dict[str, int | None]


def rates(scenario: Scenario, names: list[str], work: Work) -> Rates:
    """Start all servers, then go round them; what disturbs the machine disturbs each of them alike."""
    plan, folder, absent = work.plan, work.folder, work.absent
    figures: dict[str, list[Round]] = {name: [] for name in names}
    memory: dict[str, int | None] = {}
    setting = replace(work.setting, crowded=is_crowded(scenario, plan))

    def took(name: str, number: int, one: Round) -> None:
        figures[name].append(one)
        said = "no answer" if one.cpu is None else f"{one.cpu:.1f} us"
        work.tell(f"{scenario.name} {number}/{plan.rounds} {name} {said}")

    with running([name for name in names if name != BARE], setting, scenario, folder, absent) as servers:
        load.script(scenario.request, folder, refused=scenario.status != 200)
        if plan.warm:
            for server in _present(servers, absent):
                with _left_out(server.name, absent):
                    _load(server, scenario, folder, plan.warm, plan.connections)
        for number in range(1, plan.rounds + 1):
            for server in _present(servers, absent):
                with _left_out(server.name, absent):
                    took(server.name, number, _beside(server, scenario, folder, plan))
            if BARE in names and BARE not in absent:
                with _left_out(BARE, absent):
                    took(BARE, number, _bare(scenario, setting, plan.seconds))
        for server in _present(servers, absent):
            with _left_out(server.name, absent):
                memory[server.name] = _memory(server) if os.geteuid() == 0 else None
                scenario.check(server.port)
    return Rates({name: rounds for name, rounds in figures.items() if name not in absent}, memory)


def _present(servers: list[Server], absent: Absent) -> Iterator[Server]:
    """Give those that can still be measured; one that failed is ended, so that it disturbs nobody."""
    for server in servers:
        if server.name in absent:
            server.end()
        else:
            yield server


@contextlib.contextmanager
def _left_out(name: str, absent: Absent) -> Iterator[None]:
    try:
        yield
    except FAULTS as error:
        absent[name] = str(error)


def is_crowded(scenario: Scenario, plan: Plan) -> bool:
    """Whether so many connections come that answering nobody is a server's figure, not its fault."""
    return scenario.crowd > 0 or plan.connections >= CROWDED


def _load(server: Server, scenario: Scenario, folder: Path, seconds: float, connections: int) -> load.Load:
    connections = scenario.connections or connections
    if scenario.client == "handshakes":
        return load.handshakes(server.port, seconds=seconds)
    url = f"{'https' if scenario.secure else 'http'}://127.0.0.1:{server.port}{scenario.request.path}"
    if scenario.client == "h2load":
        return load.over_http2(url, folder, seconds=seconds, connections=connections)
    return load.run(url, folder / "request.lua", seconds=seconds, connections=connections)


def _beside(server: Server, scenario: Scenario, folder: Path, plan: Plan) -> Round:
    """One round, with a crowd there if the scenario has one."""
    if not scenario.crowd:
        return _round(server, scenario, folder, plan)
    with crowd.beside("slow", str(server.port), str(min(scenario.crowd, plan.slow))):
        return _round(server, scenario, folder, plan)


def _round(server: Server, scenario: Scenario, folder: Path, plan: Plan) -> Round:
    """One round; again and longer where the machine was too busy for one answer in so short a time."""
    seconds = plan.seconds
    while (taken := _once(server, scenario, folder, plan, seconds)) is None:
        if seconds > PATIENCE:
            raise WrongAnswerError(f"{server.name}: {scenario.name}: no request was answered\n{server.said}")
        seconds *= 4
    return taken


def _once(server: Server, scenario: Scenario, folder: Path, plan: Plan, seconds: float) -> Round | None:
    """One round of so many seconds, if anything was answered in it."""
    before = server.tree()
    slept = processes.sleeps(before)
    grouped = server.group.spent() if server.group else (0.0, 0.0)
    seen = _load(server, scenario, folder, seconds, plan.connections)
    after = server.tree()
    if not after:
        raise ServerError(f"{server.name} ended during {scenario.name}\n{server.said}")
    # Of large answers as many are on their way when time is over as have come: who serves all alike has fewer whole.
    is_large = len(scenario.body) >= LARGE
    answers = seen.bytes / len(scenario.body) if is_large else float(seen.requests)
    if not answers:
        if is_crowded(scenario, plan):
            return Round(None, None, None, {}, None, 0, 0.0, seen.errors, None, None, os.getloadavg()[0])
        return None
    slept = processes.sleeps(after) - slept
    spent = processes.spent(before, after, processes.roles(after))
    if server.group:
        user, system = (now - then for now, then in zip(server.group.spent(), grouped, strict=True))
        spent = processes.Spent(user=user, system=system, by_role=spent.by_role)

    def each(seconds: float) -> float:
        return seconds * 1e6 / answers

    return Round(
        cpu=each(spent.seconds),
        user=each(spent.user),
        system=each(spent.system),
        by_role={role: each(seconds) for role, seconds in spent.by_role.items()},
        sleeps=slept / answers,
        requests=seen.requests,
        rate=answers / seen.seconds,
        errors=seen.errors,
        p50=seen.p50,
        p99=seen.p99,
        load=os.getloadavg()[0],
    )


def _bare(scenario: Scenario, setting: Setting, seconds: float) -> Round:
    command = [f"{setting.venv}/bin/python", "bare.py", scenario.application, scenario.request.path, str(seconds)]
    done = subprocess.run(
        command, cwd=APPLICATIONS, env=environment(), capture_output=True, text=True, timeout=seconds + 60, check=False
    )
    if done.returncode:
        raise WrongAnswerError(f"bare: {scenario.name}: exit {done.returncode}\n{done.stderr[-4000:]}")
    said = json.loads(done.stdout)
    cpu = said["cpu"] * 1e6 / said["requests"]
    return Round(
        cpu=cpu,
        user=cpu,
        system=0.0,
        by_role={},
        sleeps=0.0,
        requests=said["requests"],
        rate=said["requests"] / said["seconds"],
        errors=0,
        p50=None,
        p99=None,
        load=os.getloadavg()[0],
    )


def idle(names: list[str], work: Work) -> dict[str, dict[str, list[int]]]:
    """Give the PSS in KiB of each server's processes by role.

    One server at a time: pages that two of them map would count half for each.
    """
    figures: dict[str, dict[str, list[int]]] = {}
    for name in names:
        with _left_out(name, work.absent):
            figures[name] = _idle(name, work.setting, work.folder / "idle")
            work.tell(f"idle {name} {figures[name]}")
    return figures


def _idle(name: str, setting: Setting, folder: Path) -> dict[str, list[int]]:
    scenario = SCENARIOS["hello"]
    with running([name], setting, scenario, folder) as servers:
        for _ in range(4):
            scenario.check(servers[0].port)
        time.sleep(SETTLE)
        tree = servers[0].tree()
        named = processes.roles(tree)
        by_role: dict[str, list[int]] = {}
        for process in tree:
            kib = processes.proportional_kib(process.pid)
            if kib is None:
                raise ServerError(f"{name}: the memory of {process.pid} may not be read; run as root")
            by_role.setdefault(named[process.pid], []).append(kib)
        return by_role


def starts(names: list[str], work: Work, times: int = STARTS) -> dict[str, list[float]]:
    """Give the milliseconds from exec to the first right answer, less what Python and the import alone take."""
    scenario = SCENARIOS["hello"]
    absent = work.absent
    imports = [_import_time(work.setting, scenario) for _ in range(times)]
    own = statistics.median(imports)
    work.tell(f"start: python and the import alone {own:.1f} ms")
    figures: dict[str, list[float]] = {IMPORT: imports, **{name: [] for name in names}}
    for number in range(times):
        for name in names:
            if name not in absent:
                with _left_out(name, absent):
                    figures[name].append(_start(name, work.setting, work.folder / f"start-{number}-{name}") - own)
                    work.tell(f"start {number + 1}/{times} {name} {figures[name][-1]:.1f} ms")
    return {name: times for name, times in figures.items() if name not in absent}


def _start(name: str, setting: Setting, folder: Path) -> float:
    scenario = SCENARIOS["hello"]
    server = Server(name, setting, scenario, folder)
    try:
        return (_first_answer(server, scenario) - server.began) * 1e3
    finally:
        server.end()


def _import_time(setting: Setting, scenario: Scenario) -> float:
    module = scenario.application.partition(":")[0]
    began = time.monotonic()
    command = [f"{setting.venv}/bin/python", "-c", f"import {module}"]
    subprocess.run(command, cwd=APPLICATIONS, env=environment(), timeout=START_DEADLINE, check=True)
    return (time.monotonic() - began) * 1e3


def _first_answer(server: Server, scenario: Scenario) -> float:
    until = server.began + START_DEADLINE
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=START_DEADLINE)
        try:
            connection.request("GET", scenario.request.path)
            response = connection.getresponse()
            if response.status == 200 and response.read() == scenario.body:
                return time.monotonic()
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        if time.monotonic() > until:
            raise ServerError(f"{server.name}: no right answer after {START_DEADLINE:.0f} s\n{server.said}")
        time.sleep(POLL)


def held(names: list[str], work: Work, *, secure: bool) -> dict[str, Held]:
    """Give the memory that idle connections add to each server, one server at a time.

    What the kernel holds for a socket is the same for all and in nobody's sum.
    """
    figures: dict[str, Held] = {}
    for name in names:
        with _left_out(name, work.absent):
            figures[name] = _held(name, work, secure=secure)
            work.tell(f"held {name} {figures[name]}")
    return figures


def _held(name: str, work: Work, *, secure: bool) -> Held:
    scenario = SCENARIOS["hello" if name in WSGI_SERVERS and not secure else "static1k"]
    scenario, setting = replace(scenario, secure=secure), replace(work.setting, crowded=True)
    words = [scenario.request.path, *(["tls"] if secure else [])]
    wanted = work.plan.held
    with running([name], setting, scenario, work.folder / f"held{'-tls' if secure else ''}") as servers:
        time.sleep(SETTLE)
        before = _memory(servers[0])
        try:
            with crowd.beside("held", str(servers[0].port), str(wanted), *words) as idlers:
                time.sleep(SETTLE)
                after = _memory(servers[0])
                idlers.end()
        except CrowdError as error:
            raise ServerError(f"{name}: {error}\n{servers[0].said}") from error
    return Held(before, after, wanted, idlers.became.get("held", 0))


def _memory(server: Server) -> int:
    """Give the PSS of all its processes."""
    known = [processes.proportional_kib(process.pid) for process in server.tree()]
    if None in known:
        raise ServerError(f"{server.name}: the memory of one of its processes may not be read; run as root")
    return sum(kib for kib in known if kib is not None)
