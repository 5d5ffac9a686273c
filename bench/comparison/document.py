"""The file of the figures: what one run measured, several runs in one, and their tables as Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import report
from .packages import MISSING
from .scenarios import RESTS, SCENARIOS, says

# Between these lines of a file go the tables of the last run.
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
# What must be the same for figures to stand in one table; when and how long may differ.
SAME_MACHINE = ["processor", "memory", "system", "cores", "kernel", "daemun", "python", "packages", "programs"]
SAME_OPTIONS = ["connections", "held", "loops", "workers", "threads", "logs"]
Document = dict[str, Any]


class DocumentError(Exception):
    """A file of figures that cannot be read, or that does not go together with another."""


def new(machine: dict[str, Any], options: dict[str, Any], files: dict[str, int]) -> Document:
    """Give a file without figures."""
    return {"runs": [{"machine": machine, "options": options}], "files": files, "results": {}, "absent": {}}


def read(paths: list[Path]) -> Document:
    """Read the files of several runs; of a scenario that stands in two of them what was measured later counts."""
    documents: list[Document] = []
    for path in paths:
        try:
            documents.append(json.loads(path.read_text("utf-8")))
        except (OSError, ValueError) as error:
            raise DocumentError(f"{path}: {error}") from error
        if "runs" not in documents[-1]:
            raise DocumentError(f"{path}: no figures of compare.py")
    first = documents[0]
    merged = new({}, {}, first["files"]) | {"runs": []}
    for path, document in sorted(zip(paths, documents, strict=True), key=lambda one: _began(one[1])):
        for run in document["runs"]:
            for part, names in (("machine", SAME_MACHINE), ("options", SAME_OPTIONS)):
                for name in names:
                    was, now = first["runs"][0][part][name], run[part][name]
                    if was != now:
                        raise DocumentError(f"{path}: {name} is {now!r}, in {paths[0]} {was!r}: these do not compare")
        merged["runs"] += document["runs"]
        for name, figures in document["results"].items():
            merged["results"][name] = figures
            merged["absent"][name] = document["absent"].get(name, {})
    order = [*SCENARIOS, *RESTS]
    merged["results"] = {name: merged["results"][name] for name in order if name in merged["results"]}
    return merged


def _began(document: Document) -> str:
    return max(str(run["machine"]["date"]) for run in document["runs"])


def write(path: Path, document: Document) -> None:
    """Write the file whole or not at all: a run that is cut off keeps what it had."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    beside.replace(path)


def head(document: Document) -> list[str]:
    """Say when, on what machine, with what and how it was measured."""
    machines = [run["machine"] for run in document["runs"]]
    options = [run["options"] for run in document["runs"]]
    about, asked = machines[0], options[0]
    memory = int(about["memory"].split()[0] or 0) / 2**20 if about["memory"] else 0
    lasting = _each(f"{one['rounds']} rounds of {one['seconds']:g} s" for one in options)
    return [
        f"{dates(document)}; {about['processor']}, {about['cores']} cores, {memory:.0f} GiB, {about['system']}, "
        f"Linux {about['kernel']}; load average before it {max(one['load_at_start'] for one in machines):.1f}",
        f"{asked['connections']} connections, event loops {asked['loops']}, workers {asked['workers']}, "
        f"threads {asked['threads']}, access log {'on' if asked['logs'] else 'off'}, {lasting}",
        *versions(document),
    ]


def dates(document: Document) -> str:
    """Give the days on which it was measured."""
    return _each(sorted(run["machine"]["date"][:10] for run in document["runs"]))


def versions(document: Document) -> list[str]:
    """Name daemun's and its peers' versions; those of the distribution are as old as that is."""
    about = document["runs"][0]["machine"]
    there = [line for line in about["packages"] if not line.endswith(MISSING)]
    system = [line for line in about["programs"] if not line.endswith(MISSING)]
    return [
        f"{about['daemun']}, {about['python']}; from PyPI {', '.join(there) or 'nothing'}",
        f"From {about['system']}, and as old as that is: {', '.join(system) or 'nothing'}",
    ]


def _each(values: Any) -> str:
    return " and ".join(dict.fromkeys(values))


def tables(document: Document) -> str:
    """Write all tables as Markdown, below what must be known to read them."""
    parts = [".\n".join(head(document)) + "."]
    for name, figures in document["results"].items():
        parts.append(f"**{name}**: {says(name)}")
        if figures["table"]:
            parts.append(report.table(name, figures["table"], figures["peer"]).markdown())
        if document["absent"].get(name):
            said = report.lacking(document["absent"][name])
            parts.append(f"{said[0].upper()}{said[1:]}.")
    return "\n\n".join(parts)


def place(file: Path, text: str) -> None:
    """Put the text between the two lines of a file that has them; else the file is the text."""
    old = file.read_text("utf-8") if file.exists() else ""
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}" if begin and end else text + "\n", "utf-8")
