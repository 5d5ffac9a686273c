"""The column of daemun in docs/conformance/cgi-peers.md; `make compare-cgi` writes the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from cgi_cases import CASES, write
from compare_cgi import PAGE, ours, serve
from compared import outcome


def test_our_column_is_right_in_every_row(tmp_path: Path) -> None:
    write(tmp_path / "cgi-bin")
    with serve(tmp_path) as server:
        asked = ours(tmp_path / "cgi-bin", server)
        found = {case.says: outcome(case, asked) for case in CASES}
    assert found == {case.says: case.right for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
def test_every_row_stands_in_the_table(case) -> None:  # type: ignore[no-untyped-def]
    assert f"| {case.says}. daemun: {case.right}. Apache" in PAGE.read_text()
