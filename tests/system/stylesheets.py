"""The published cases of XSLT 1.0 in `tests/xslt/cases`: reading them, and unpacking them into files.

A file of cases holds blocks. `=== SECTION what it is about` begins one; parts of it follow:

--- document            the document; `<doc/>` without it
--- stylesheet [ATTRS]  a whole stylesheet, or what goes into one; ATTRS are namespaces of its `xsl:stylesheet`
--- file PATH           another file beside the stylesheet
--- expected [ENCODING] the result
--- libxslt             what libxslt makes of it where it departs from the specification
--- fails [TEXT]        there is no result, and TEXT is told
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from server import ROOT

CASES = ROOT / "tests" / "xslt" / "cases"
XSL = "http://www.w3.org/1999/XSL/Transform"

# What `xsl:param name="given"` gets.
GIVEN = "it's given"


@dataclass
class Case:
    """One of them."""

    name: str
    title: str
    document: str = "<doc/>\n"
    stylesheet: str = ""
    files: dict[str, str] = field(default_factory=dict)
    expected: bytes | None = None
    departs: bytes | None = None
    told: str = ""

    @property
    def section(self) -> str:
        """The section of the specification, or the module of EXSLT."""
        return self.title.split(":")[0] if self.title.startswith("EXSLT") else self.title.split()[0]

    def unpack(self, folder: Path) -> None:
        """Write `style.xsl`, `source.xml` and the other files below this folder."""
        for path, text in {"style.xsl": self.stylesheet, "source.xml": self.document, **self.files}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)


def whole(text: str, attributes: str) -> str:
    """Give a stylesheet with what the case leaves out."""
    if re.match(r"<[^>]*XSL/Transform", text):
        return text
    output = "" if "<xsl:output" in text else '<xsl:output omit-xml-declaration="yes"/>\n'
    head = f'<xsl:stylesheet version="1.0" xmlns:xsl="{XSL}" {attributes}'.rstrip()
    return f"{head}>\n{text}{output}</xsl:stylesheet>\n"


def part(case: Case, kind: str, rest: str, text: str) -> None:
    """Add what stands under one line of dashes."""
    if kind == "document":
        case.document = text
    elif kind == "stylesheet":
        case.stylesheet = whole(text, rest)
    elif kind == "file":
        case.files[rest] = text
    elif kind == "expected":
        case.expected = text.strip().encode(rest or "utf-8")
    elif kind == "libxslt":
        case.departs = text.strip().encode()
    elif kind == "fails":
        case.told = rest
    else:
        raise ValueError(f"{case.title}: no such part: {kind}")


def cases() -> list[Case]:
    """Give all of them, in order."""
    found = []
    for file in sorted(CASES.glob("*.txt")):
        blocks = re.split(r"^=== (.*)\n", file.read_text(), flags=re.MULTILINE)
        for number, (title, body) in enumerate(zip(blocks[1::2], blocks[2::2], strict=True), 1):
            case = Case(f"{file.stem}-{number:02}", title)
            parts = re.split(r"^--- (\w+) ?(.*)\n", body, flags=re.MULTILINE)
            for kind, rest, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
                part(case, kind, rest, text.rstrip("\n") + "\n")
            found.append(case)
    return found
