"""XSLT 1.0, section by section: the published cases through the server, beside xsltproc and what the text demands."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import DEADLINE, Server
from stylesheets import GIVEN, Case, cases

CASES = cases()
CONFIG = f"""
[[route]]
static = {{ root = "public" }}
xslt = {{ params = {{ given = "{GIVEN}" }} }}
"""
# The sections that say how a stylesheet is to be carried out.
SECTIONS = (
    "2.1 2.2 2.3 2.4 2.5 2.6.1 2.6.2 3 3.1 3.2 3.3 3.4 4 5.1 5.2 5.3 5.4 5.5 5.6 5.7 5.8 6 7.1.1 7.1.2 7.1.3 7.1.4 "
    "7.2 7.3 7.4 7.5 7.6.1 7.6.2 7.7 7.7.1 8 9.1 9.2 10 11.1 11.2 11.3 11.4 11.5 11.6 12.1 12.2 12.3 12.4 13 14.1 "
    "14.2 15 16 16.1 16.2 16.3 16.4"
)
MODULES = ["common", "math", "sets", "strings", "date", "functions", "dynamic"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site in which each case is a folder."""
    folder = tmp_path_factory.mktemp("cases")
    for case in CASES:
        case.unpack(folder / "public" / case.name)
        # What the document itself would say to a browser.
        document = folder / "public" / case.name / "page.xml"
        document.write_text('<?xml-stylesheet type="text/xsl" href="style.xsl"?>\n' + case.document)
    (folder / "daemun.toml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """One server for all of them: each stylesheet is one more for the same few processes."""
    with Server(cwd=folder) as server:
        yield server


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case(server: Server, folder: Path, case: Case) -> None:
    page = server.get(f"/{case.name}/page.xml")
    beside = subprocess.run(
        ["xsltproc", "--stringparam", "given", GIVEN, "style.xsl", "source.xml"],
        cwd=folder / "public" / case.name,
        capture_output=True,
        timeout=DEADLINE,
    )
    if case.expected is None:
        assert (page.status, beside.returncode != 0) == (500, True), case.title
        server.wait_for(rf"xslt: /{case.name}/page\.xml by .*{re.escape(case.told)}")
        return
    assert page.status == 200, server.errors.text
    wanted = case.expected if case.departs is None else case.departs
    assert page.body.strip() == wanted, case.title
    assert beside.stdout.strip() == wanted, case.title


def test_each_section_has_cases() -> None:
    assert {case.section for case in CASES} == {*SECTIONS.split(), *(f"EXSLT {module}" for module in MODULES)}
    assert len(CASES) >= 160
    assert len({case.title for case in CASES}) == len(CASES)


def test_departures_from_the_text_are_few_and_told(folder: Path) -> None:
    table = (Path(__file__).parents[2] / "docs" / "conformance" / "xslt.md").read_text()
    for case in CASES:
        if case.departs is not None:
            assert f"`{case.name}`" in table, case.title
