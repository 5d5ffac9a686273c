"""Pictures of a sweep: two panels of lines over logarithmic axes, as SVG that needs nothing but itself."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Colours that people who tell red from green badly can tell (Okabe and Ito), on white and on black.
COLOURS = ["#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]
WIDTH, HEIGHT = 860, 380
PANEL, TALL, TOP, LEFT, GAP = 330, 240, 50, 64, 90
STYLE = (
    "text{font:12px sans-serif;fill:#444}.grid{stroke:#8884;stroke-width:1}.line{fill:none;stroke-width:2}"
    "@media (prefers-color-scheme:dark){text{fill:#bbb}}"
)


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis from the first value to the last, over so many pixels."""

    first: float
    last: float
    pixels: float

    @classmethod
    def around(cls, values: Sequence[float], pixels: float) -> Axis:
        """Give an axis that holds all values, and ends at a 1, 2 or 5 of some ten."""
        steps = sorted({step for value in values for step in _steps(value)})
        first = max(step for step in steps if step <= min(values))
        last = min(step for step in steps if step >= max(values))
        return cls(first, last if last > first else first * 2, pixels)

    def at(self, value: float) -> float:
        """Give the pixel of a value."""
        return self.pixels * math.log(value / self.first) / math.log(self.last / self.first)

    def ticks(self) -> list[float]:
        """Give what is written beside it: every 1, 2 and 5, or only the tens when these would be many."""
        few = math.log10(self.last / self.first) <= 2.5
        tens = range(math.floor(math.log10(self.first)), math.ceil(math.log10(self.last)) + 1)
        known = [digit * 10.0**ten for ten in tens for digit in ((1, 2, 5) if few else (1,))]
        return [tick for tick in known if self.first * 0.999 <= tick <= self.last * 1.001]


def _steps(value: float) -> list[float]:
    """Give the 1s, 2s and 5s about a value."""
    ten = math.floor(math.log10(value))
    return [digit * 10.0**power for power in (ten - 1, ten, ten + 1) for digit in (1, 2, 5)]


def label(value: float) -> str:
    """Write a number shortly: 0.5, 20, 10k, 1M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def picture(sweep: dict[str, Any]) -> str:
    """Draw a sweep: the processor time of a request, and its 99th latency of a hundred."""
    servers = list(sweep["servers"])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<style>{STYLE}</style>",
        f"<title>{html.escape(sweep['title'])}</title>",
        f'<text x="{LEFT}" y="20" style="font-size:15px">{html.escape(sweep["title"])}</text>',
    ]
    for place, (figure, says) in enumerate((("cpu_us", "processor time, µs per request"), ("p99_ms", "p99, ms"))):
        lines = {name: _points(sweep["servers"][name], figure) for name in servers}
        parts += _panel(LEFT + place * (PANEL + GAP), lines, says, sweep["axis"])
    for place, name in enumerate(servers):
        left = LEFT + place * 120
        colour = COLOURS[place % len(COLOURS)]
        parts.append(f'<rect x="{left}" y="{HEIGHT - 20}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{left + 18}" y="{HEIGHT - 10}">{html.escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _points(figures: dict[Any, Any], figure: str) -> list[tuple[float, float]]:
    """Give what can be drawn: no value that is missing, and none that a logarithm has not."""
    known = sorted((float(value), one[figure]) for value, one in figures.items())
    return [(value, float(point)) for value, point in known if point]


def _panel(left: float, lines: dict[str, list[tuple[float, float]]], says: str, axis: str) -> list[str]:
    every = [point for points in lines.values() for point in points]
    parts = [f'<text x="{left}" y="{TOP - 8}">{says}</text>']
    if not every:
        return parts
    values = sorted({value for value, _ in every})
    across = Axis(values[0], max(values[-1], values[0] * 2), PANEL)
    up = Axis.around([height for _, height in every], TALL)
    for tick in up.ticks():
        y = TOP + TALL - up.at(tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{left + PANEL}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{label(tick)}</text>')
    for value in values:
        x = left + across.at(value)
        parts.append(f'<text x="{x:.1f}" y="{TOP + TALL + 18}" text-anchor="middle">{label(value)}</text>')
    parts.append(f'<text x="{left + PANEL / 2}" y="{TOP + TALL + 38}" text-anchor="middle">{html.escape(axis)}</text>')
    for place, points in enumerate(lines.values()):
        colour = COLOURS[place % len(COLOURS)]
        places = [(left + across.at(value), TOP + TALL - up.at(height)) for value, height in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="line" stroke="{colour}" points="{path}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
    return parts
