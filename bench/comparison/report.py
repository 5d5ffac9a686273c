"""Tables for people and JSON for programs: medians, and each server's ratio to the peer."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .rounds import BARE, Round


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align: the first column left, all others right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def one(line: Sequence[str]) -> str:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        return "  ".join(cells).rstrip()

    return "\n".join([one(lines[0]), "  ".join("-" * width for width in widths), *map(one, lines[1:])])


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """Give the medians of one server's rounds; errors are summed."""

    def median(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    roles = sorted({role for one in rounds for role in one.by_role})
    return {
        "cpu_us": median([one.cpu for one in rounds]),
        "cpu_us_min": min(one.cpu for one in rounds),
        "cpu_us_max": max(one.cpu for one in rounds),
        "user_us": median([one.user for one in rounds]),
        "system_us": median([one.system for one in rounds]),
        "by_role_us": {role: median([one.by_role.get(role, 0.0) for one in rounds]) for role in roles},
        "sleeps": median([one.sleeps for one in rounds]),
        "rate": median([one.rate for one in rounds]),
        "p50_ms": median([one.p50 for one in rounds]),
        "p99_ms": median([one.p99 for one in rounds]),
        "errors": sum(one.errors for one in rounds),
        "requests": sum(one.requests for one in rounds),
        "rounds": [asdict(one) for one in rounds],
    }


def _ratio(own: float, other: float | None) -> str:
    return f"{own / other:.2f}" if other else "-"


def rates(figures: dict[str, dict[str, Any]], peer: str) -> str:
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
        "errors",
    ]
    if bare is not None:
        head.insert(3, "added us")
    rows = []
    for name, one in figures.items():
        row = [
            name,
            f"{one['cpu_us']:.1f}",
            _ratio(one["cpu_us"], to.get("cpu_us")),
            f"{one['cpu_us_min']:.1f}..{one['cpu_us_max']:.1f}",
            f"{one['user_us']:.1f}+{one['system_us']:.1f}",
            f"{one['sleeps']:.2f}",
            f"{one['rate']:.0f}",
            _ratio(one["rate"], to.get("rate")),
            "-" if one["p50_ms"] is None else f"{one['p50_ms']:.2f}",
            "-" if one["p99_ms"] is None else f"{one['p99_ms']:.2f}",
            str(one["errors"]),
        ]
        if bare is not None:
            row.insert(3, f"{one['cpu_us'] - bare:.1f}")
        rows.append([*row, _parts(one["by_role_us"])])
    return table([*head, "by process"], rows)


def _parts(by_role: dict[str, float]) -> str:
    """Name what each kind of process takes, the largest first, without what takes nothing."""
    parts = sorted(by_role.items(), key=lambda part: -part[1])
    return " + ".join(f"{role} {microseconds:.1f}" for role, microseconds in parts if microseconds >= 0.05)


def idle(figures: dict[str, dict[str, list[int]]], peer: str) -> str:
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
                _ratio(base[name], base.get(peer)),
            ]
        )
    return table(["server", "without workers KiB", "of it", "workers KiB", "all KiB", f"/{peer}"], rows)


def starts(figures: dict[str, list[float]], peer: str) -> str:
    """Print the times to the first answer."""
    middle = {name: statistics.median(times) for name, times in figures.items()}
    rows = [
        [
            "(import alone)" if name == "import" else name,
            f"{middle[name]:.1f}",
            f"{min(times):.1f}..{max(times):.1f}",
            "-" if name == "import" else _ratio(middle[name], middle.get(peer)),
        ]
        for name, times in figures.items()
    ]
    return table(["server", "ms", "min..max", f"/{peer}"], rows)
