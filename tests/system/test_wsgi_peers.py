"""The column of daemun in docs/conformance/wsgi-peers.md; `make compare-wsgi` writes the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from compare_wsgi import PAGE, asked, ours
from compared import Case, outcome
from wsgi_cases import CASES, Asked


def test_our_column_is_right_in_every_row(tmp_path: Path) -> None:
    with asked(ours, tmp_path) as daemun:
        found = {case.says: outcome(case, daemun) for case in CASES}
    assert found == {case.says: case.right for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
def test_every_row_stands_in_the_table(case: Case[Asked]) -> None:
    assert f"| {case.says}. daemun: {case.right}. gunicorn" in PAGE.read_text()
