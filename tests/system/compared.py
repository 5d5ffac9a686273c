"""A comparison of servers as a page: one row for each question, with what came of it at each server."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

Asked = TypeVar("Asked")


@dataclass(frozen=True)
class Case(Generic[Asked]):
    """What is asked, where it is said what is right, and what that is."""

    says: str
    source: str
    ask: Callable[[Asked], str]
    right: str


def outcome(case: Case[Asked], asked: Asked) -> str:
    """What came of a question; a server that does not answer at all, or not what can be read, is an outcome too."""
    try:
        return case.ask(asked)
    except TimeoutError:
        return "no answer"
    except (ConnectionError, http.client.RemoteDisconnected):
        return "hung up"
    except AssertionError as error:
        return str(error).partition("\n")[0]
    except (OSError, http.client.HTTPException, ValueError) as error:
        return type(error).__name__


def row(case: Case[Asked], columns: Sequence[str], outcomes: Sequence[str], test: str) -> str:
    """One line of the table; what is not right is in italics."""
    cells = [found if found == case.right else f"*{found}*" for found in outcomes]
    requirement = ". ".join([case.says, *(f"{name}: {cell}" for name, cell in zip(columns, cells, strict=True))])
    return f"| {requirement} | {case.source} | `{test}` |"


def rows(cases: Sequence[Case[Asked]], columns: Sequence[str], all_asked: Sequence[Asked], test: str) -> list[str]:
    """Ask each server each question: the lines of the table. What came of it is told as well."""
    lines = []
    for case in cases:
        found = [outcome(case, one) for one in all_asked]
        print(f"{case.says}: {found}", file=sys.stderr)
        lines.append(row(case, columns, found, test))
    return lines


def table(head: str, lines: Sequence[str]) -> str:
    """The page."""
    return head + "| requirement | source | test |\n| --- | --- | --- |\n" + "\n".join(lines) + "\n"


def write_page(page: Path, text: Callable[[], str], lacking: Sequence[str], part: str) -> int:
    """Write the page, or the one that the command line names; 1 where our column is not right, 2 where a peer lacks."""
    if lacking:
        print(f"not there: {', '.join(lacking)}; run:  scripts/require {part}", file=sys.stderr)
        return 2
    page = Path(sys.argv[1]) if len(sys.argv) > 1 else page
    written = text()
    page.write_text(written)
    wrong = [line for line in written.splitlines() if "daemun: *" in line]
    print("\n".join([f"wrote {page}", *wrong]))
    return 1 if wrong else 0
