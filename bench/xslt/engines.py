#!/usr/bin/env python3
"""XSLT engines side by side: the cases of tests/xslt, the speed of a feed of 50 kB, memory, a stylesheet without end.

python3 bench/xslt/engines.py --engine libxslt=xsltproc --engine xrust=target/release/candidate-xrust …

An engine is a command that gets a stylesheet and a document and prints the result; one whose name ends in `proc` takes
the options of xsltproc.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "tests" / "system"), str(Path(__file__).resolve().parent)]

from feed import EXAMPLE, feed  # noqa: E402
from stylesheets import GIVEN, Case, cases  # noqa: E402

PATIENCE = 20.0
MEMORY = 1 << 30
TIMES = 20
RECURSION = """<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">
<xsl:template match="/"><xsl:call-template name="a"/></xsl:template>
<xsl:template name="a"><xsl:call-template name="a"/></xsl:template>
</xsl:stylesheet>
"""


@dataclass
class Ran:
    """What came of one run."""

    code: int
    output: bytes
    errors: str
    seconds: float
    # The most memory that was resident, in MiB.
    memory: float


@dataclass
class Engine:
    """One of them, and what was counted."""

    name: str
    command: str
    right: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def is_proc(self) -> bool:
        """Whether it takes xsltproc's options."""
        return self.command.endswith("proc")

    def run(self, folder: Path, *options: str, style: str = "style.xsl") -> Ran:
        """Run it in this folder, with bounds."""

        def bound() -> None:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

        first, last = (options, ()) if self.is_proc else ((), options)
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            begun = time.perf_counter()
            command = [self.command, *first, style, "source.xml", *last]
            process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=errors, preexec_fn=bound)  # noqa: PLW1509
            pid, status, used = 0, 0, resource.getrusage(resource.RUSAGE_SELF)
            while not pid:
                pid, status, used = os.wait4(process.pid, os.WNOHANG)
                if not pid and time.perf_counter() - begun > PATIENCE:
                    process.kill()
                time.sleep(0.001)
            process.returncode = code = os.waitstatus_to_exitcode(status)
            seconds = time.perf_counter() - begun
            output.seek(0)
            errors.seek(0)
            told = errors.read().decode(errors="replace")
            return Ran(code, output.read(), told, seconds, used.ru_maxrss / 1024)


def same(one: bytes, other: bytes) -> bool:
    """Whether two results mean the same: prefixes, quotes and the XML declaration do not count."""

    def form(text: bytes) -> object:
        try:
            bare = re.sub(rb"<\?xml [^>]*\?>|<!DOCTYPE[^>]*>", b"", text).strip()
            root = ElementTree.fromstring(b"<w>" + bare + b"</w>")
        except ElementTree.ParseError:
            return b" ".join(text.split())
        return [(node.tag, node.attrib, node.text or "", node.tail or "") for node in root.iter()]

    return one.strip() == other.strip() or form(one) == form(other)


def judge(engine: Engine, case: Case, folder: Path) -> None:
    """Run one case and count it."""
    options = ("--stringparam", "given", GIVEN) if engine.is_proc else ()
    ran = engine.run(folder, *options)
    right = ran.code > 0 if case.expected is None else ran.code == 0 and same(ran.output, case.expected)
    if right:
        engine.right[case.section] += 1
    else:
        said = ran.errors.strip().splitlines()
        how = f"signal {-ran.code}" if ran.code < 0 else f"exit {ran.code}"
        what = said[-1][:150] if said and ran.code else repr(ran.output[:150])
        engine.wrong.append(f"{case.name} {case.title}: {how}: {what}")


def completeness(engines: list[Engine], folder: Path, verbose: bool) -> None:
    """Print a table of right answers by section."""
    everything = cases()
    asked = Counter(case.section for case in everything)
    for case in everything:
        place = folder / case.name
        place.mkdir()
        case.unpack(place)
        for engine in engines:
            judge(engine, case, place)
    print(f"{'section':16}{'cases':>6}" + "".join(f"{engine.name:>12}" for engine in engines))
    for section, count in asked.items():
        print(f"{section:16}{count:6}" + "".join(f"{engine.right[section]:12}" for engine in engines))
    print(f"{'all':16}{len(everything):6}" + "".join(f"{engine.right.total():12}" for engine in engines))
    if verbose:
        for engine in engines:
            print(f"\n{engine.name}:", *engine.wrong, sep="\n  ")


def milliseconds(engine: Engine, ran: Ran) -> float | None:
    """Give the time of one transformation from what the engine says."""
    if ran.code:
        return None
    if not engine.is_proc:
        return float(ran.output) * 1e3
    found = re.search(r"Applying stylesheet \d+ times took ([\d.]+) ms", ran.errors)
    return float(found[1]) / TIMES if found else None


def speed(engines: list[Engine], folder: Path) -> None:
    """Print time and memory of a feed, alone and again and again, in turns."""
    place = folder / "feed"
    place.mkdir()
    for sheet in EXAMPLE.glob("*.xsl"):
        (place / sheet.name).write_bytes(sheet.read_bytes())
    (place / "source.xml").write_text(feed(50_000))
    (folder / "end").mkdir()
    (folder / "end" / "style.xsl").write_text(RECURSION)
    (folder / "end" / "source.xml").write_text("<doc/>")
    times: dict[str, list[float]] = {engine.name: [] for engine in engines}
    for _ in range(5):
        for engine in engines:
            options = ("--timing", "--repeat") if engine.is_proc else (str(TIMES),)
            found = milliseconds(engine, engine.run(place, *options, style="feed.xsl"))
            times[engine.name] += [] if found is None else [found]
    print(f"\n{'engine':12}{'ms':>8}{'whole run, ms':>16}{'memory, MiB':>14}  result of a feed; recursion without end")
    wanted = engines[0].run(place, style="feed.xsl").output
    for engine in engines:
        alone = engine.run(place, style="feed.xsl")
        time_of = f"{statistics.median(times[engine.name]):.2f}" if times[engine.name] else "-"
        is_same = b"".join(alone.output.split()) == b"".join(wanted.split())
        result = "the same" if is_same else "equal in meaning" if same(alone.output, wanted) else "other"
        if alone.code:
            result = f"exit {alone.code}: {alone.errors.strip()[-100:]}"
        end = engine.run(folder / "end")
        ended = f"exit {end.code}, {end.seconds:.1f} s, {end.memory:.0f} MiB"
        print(f"{engine.name:12}{time_of:>8}{alone.seconds * 1e3:16.1f}{alone.memory:14.1f}  {result}; {ended}")


def main() -> None:
    """Compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", action="append", required=True, metavar="NAME=COMMAND")
    parser.add_argument("--verbose", action="store_true", help="each case that went wrong")
    given = parser.parse_args()
    engines = []
    for text in given.engine:
        name, _, command = text.partition("=")
        engines.append(Engine(name, str(Path(command).resolve()) if "/" in command else command))
    with tempfile.TemporaryDirectory(prefix="daemun-engines-") as folder:
        completeness(engines, Path(folder), given.verbose)
        speed(engines, Path(folder))


if __name__ == "__main__":
    main()
