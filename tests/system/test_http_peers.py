"""The column of daemun in docs/conformance/http-peers.md; `make compare-http` writes the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from compare_http import PAGE, serve
from compared import outcome
from http_cases import CASES, Asked, recorder
from server import DEADLINE


def test_our_column_is_right_in_every_row(tmp_path: Path) -> None:
    with recorder() as behind, serve(tmp_path, behind) as server:
        asked = Asked(server.port, DEADLINE)
        found = {case.says: outcome(case, asked) for case in CASES}
    assert found == {case.says: case.right for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
def test_every_row_stands_in_the_table(case) -> None:  # type: ignore[no-untyped-def]
    assert f"| {case.says}. daemun: {case.right}. nginx" in PAGE.read_text()
