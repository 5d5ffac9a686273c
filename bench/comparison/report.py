"""Tables for people and JSON for programs: medians, and each server's ratio to the peer."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .rounds import BARE, IMPORT, Round
from .scenarios import RESTS
from .servers import Absent


@dataclass(frozen=True)
class Table:
    """A head and rows; the first column is left, all others right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """Align it for a terminal."""
        lines = [list(self.head), *map(list, self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.head))]

        def one(line: Sequence[str]) -> str:
            cells = [line[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
            return "  ".join(cells).rstrip()

        return "\n".join([one(lines[0]), "  ".join("-" * width for width in widths), *map(one, lines[1:])])

    def markdown(self) -> str:
        """Write it as a table of Markdown."""

        def one(line: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"

        rule = "| --- |" + " ---: |" * (len(self.head) - 1)
        return "\n".join([one(self.head), rule, *map(one, self.rows)])


def summary(rounds: Sequence[Round], memory: int | None = None) -> dict[str, Any]:
    """Give the medians of one server's rounds; errors are summed."""

    def median(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    roles = sorted({role for one in rounds for role in one.by_role})
    return {
        "cpu_us": median([one.cpu for one in rounds]),
        "cpu_us_min": min((one.cpu for one in rounds if one.cpu is not None), default=None),
        "cpu_us_max": max((one.cpu for one in rounds if one.cpu is not None), default=None),
        "user_us": median([one.user for one in rounds]),
        "system_us": median([one.system for one in rounds]),
        "by_role_us": {role: median([one.by_role.get(role, 0.0) for one in rounds]) for role in roles},
        "sleeps": median([one.sleeps for one in rounds]),
        "rate": median([one.rate for one in rounds]),
        "p50_ms": median([one.p50 for one in rounds]),
        "p99_ms": median([one.p99 for one in rounds]),
        "pss_kib": memory,
        "errors": sum(one.errors for one in rounds),
        "requests": sum(one.requests for one in rounds),
        "rounds": [asdict(one) for one in rounds],
    }


def ratio(own: float | None, other: float | None) -> str:
    """Give one figure's part of another; what is less than nothing, as a start that beats the import, has none."""
    return f"{own / other:.2f}" if own is not None and own >= 0 and other and other > 0 else "-"


def _told(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def rates(figures: dict[str, dict[str, Any]], peer: str) -> Table:
    """Print one scenario's summaries."""
    bare = figures.get(BARE, {}).get("cpu_us")
    to = figures.get(peer, {})
    other = f"/{peer}"
    head = [
        "server",
        "cpu us/req",
        other,
        "min..max",
        "user+sys",
        "sleeps/req",
        "req/s",
        other,
        "p50 ms",
        "p99 ms",
        "PSS MiB",
        "errors",
    ]
    if bare is not None:
        head.insert(3, "added us")
    rows = []
    for name, one in figures.items():
        row = [
            name,
            _told(one["cpu_us"]),
            ratio(one["cpu_us"], to.get("cpu_us")),
            f"{_told(one['cpu_us_min'])}..{_told(one['cpu_us_max'])}",
            f"{_told(one['user_us'])}+{_told(one['system_us'])}",
            _told(one["sleeps"], 2),
            f"{one['rate']:.0f}",
            ratio(one["rate"], to.get("rate")),
            _told(one["p50_ms"], 2),
            _told(one["p99_ms"], 2),
            _told(one["pss_kib"] and one["pss_kib"] / 1024),
            str(one["errors"]),
        ]
        if bare is not None:
            row.insert(3, _told(one["cpu_us"] - bare))
        rows.append([*row, _parts(one["by_role_us"])])
    return Table([*head, "by process"], rows)


def _parts(by_role: dict[str, float]) -> str:
    """Name what each kind of process takes, the largest first, without what takes nothing."""
    parts = sorted(by_role.items(), key=lambda part: -part[1])
    return " + ".join(f"{role} {microseconds:.1f}" for role, microseconds in parts if microseconds >= 0.05)


def idle(figures: dict[str, dict[str, list[int]]], peer: str) -> Table:
    """Print the memory: what is there once, and the workers."""
    rows = []
    base = {name: sum(map(sum, by_role.values())) for name, by_role in figures.items()}
    for name, by_role in figures.items():
        workers = by_role.get("worker", [])
        rest = {role: sum(kib) for role, kib in by_role.items() if role != "worker"}
        rows.append(
            [
                name,
                str(sum(rest.values())),
                " + ".join(f"{role} {kib}" for role, kib in rest.items()),
                " + ".join(map(str, workers)) or "-",
                str(base[name]),
                ratio(base[name], base.get(peer)),
            ]
        )
    return Table(["server", "without workers KiB", "of it", "workers KiB", "all KiB", f"/{peer}"], rows)


def starts(figures: dict[str, list[float]], peer: str) -> Table:
    """Print the times to the first answer."""
    middle = {name: statistics.median(times) for name, times in figures.items()}
    rows = [
        [
            "(import alone)" if name == IMPORT else name,
            f"{middle[name]:.1f}",
            f"{min(times):.1f}..{max(times):.1f}",
            "-" if name == IMPORT else ratio(middle[name], middle.get(peer)),
        ]
        for name, times in figures.items()
    ]
    return Table(["server", "ms", "min..max", f"/{peer}"], rows)


def held(figures: dict[str, dict[str, int]], peer: str) -> Table:
    """Print what an idle connection adds; a server that has ended some of them holds fewer."""
    other = per_connection(figures[peer]) if peer in figures else None
    rows = [
        [
            name,
            _told(per_connection(one), 0),
            ratio(per_connection(one), other),
            str(one["before"]),
            str(one["after"]),
            f"{one['kept']} of {one['asked']}",
        ]
        for name, one in figures.items()
    ]
    return Table(["server", "bytes each", f"/{peer}", "KiB without", "KiB with them", "kept"], rows)


def per_connection(one: dict[str, int]) -> float | None:
    """Give the bytes that a kept connection adds; a server that has given back more than that has no figure."""
    more = one["after"] - one["before"]
    return more * 1024 / one["kept"] if one["kept"] and more >= 0 else None


def collect(figures: dict[str, dict[str, list[dict[str, float]]]], peer: str) -> Table:
    """Print what each build costs, and its ratio to the peer's same build of the same storage."""
    rows = []
    for storage, by_build in figures.items():
        cpu = {build: statistics.median(cost["cpu"] for cost in costs) for build, costs in by_build.items()}
        for build, costs in by_build.items():
            wall = statistics.median(cost["wall"] for cost in costs)
            other = cpu.get(f"{peer}, {build.partition(', ')[2]}")
            rows.append([f"{storage}: {build}", f"{cpu[build]:.2f}", ratio(cpu[build], other), f"{wall:.2f}"])
    return Table(["storage and build", "cpu s", f"/{peer}", "wall s"], rows)


def table(name: str, figures: Any, peer: str) -> Table:
    """Print any scenario's figures, as they are in the file."""
    own: dict[str, Callable[[Any, str], Table]]
    own = {"idle": idle, "start": starts, "held": held, "held-tls": held, "collect": collect}
    return own[name](figures, peer) if name in RESTS else rates(figures, peer)


def lacking(absent: Absent) -> str:
    """Say who is not in a table, and why: the first and the last line of what was said."""
    by_reason: dict[str, list[str]] = {}
    for name, said in absent.items():
        lines = [line.strip() for line in said.splitlines() if line.strip()] or ["?"]
        first = lines[0].removeprefix(f"{name}: ")
        reason = first if len(lines) == 1 else f"{first}: {lines[-1]}"
        by_reason.setdefault(reason.replace("\n", " ")[:300], []).append(name)
    return "; ".join(f"not measured: {', '.join(names)} ({reason})" for reason, names in by_reason.items())
