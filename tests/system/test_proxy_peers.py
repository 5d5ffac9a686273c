"""The column of daemun in docs/conformance/proxy-peers.md; `make compare-proxy` writes the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from compare_proxy import PAGE, WATCHED
from compared import outcome
from proxy_cases import CASES, Asked, misbehave
from proxy_load import Crowd, servers
from proxy_peers import daemun
from server import DEADLINE
from upstreams import Upstream


def test_our_column_is_right_in_every_row(tmp_path: Path) -> None:
    with Upstream(behaviour=misbehave) as behind, daemun([behind.port], tmp_path, "failures = 1000") as server:
        asked = Asked(server.port, DEADLINE)
        found = {case.says: outcome(case, asked) for case in CASES}
    assert found == {case.says: case.right for case in CASES}


def test_no_request_fails_for_a_dying_server(tmp_path: Path) -> None:
    with servers() as behind, daemun(behind, tmp_path, WATCHED) as server:
        assert Crowd().ask(server.port, 300).wrong == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
def test_every_row_stands_in_the_table(case) -> None:  # type: ignore[no-untyped-def]
    assert f"| {case.says}. daemun: {case.right}. nginx" in PAGE.read_text()
