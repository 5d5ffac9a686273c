"""Puts daemun, nginx, HAProxy and Caddy before servers that misbehave, and writes the table of what clients get.

python tests/system/compare_proxy.py [FILE]
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from compared import rows, table, write_page
from proxy_cases import CASES, Asked, misbehave
from proxy_load import CLIENTS, DIES_AFTER, REQUESTS, SLOW, Crowd, servers
from proxy_peers import caddy, daemun, haproxy, missing, nginx
from server import DEADLINE, ROOT
from upstreams import Upstream

PAGE = ROOT / "docs/conformance/proxy-peers.md"
TEST = "tests/system/test_proxy_peers.py::test_our_column_is_right_in_every_row"
LOAD = "tests/system/test_proxy_peers.py::test_no_request_fails_for_a_dying_server"
COLUMNS = ["daemun", "nginx", "HAProxy", "Caddy"]
# After so much silence a peer counts as one that waits; what we answer is never a matter of time.
PATIENCE = 5.0
# What daemun is told of a group that has one that dies.
WATCHED = 'failures = 3\neject = "10s"'
ROUNDS = 3
HEAD = f"""\
# Servers that fail: what clients of four proxies get

`make compare-proxy` starts daemun, nginx, HAProxy and Caddy, each as Debian has it, in front of the same servers, and
writes this page. The first row is a crowd: {CLIENTS} clients ask {REQUESTS} times for pages of three servers, one
healthy, one that takes {SLOW * 1000:.0f} ms, and one that answers {DIES_AFTER} requests and then resets the
connection of each further one. All four balance by least connections, may ask another server, and leave alone who
failed three times for 10 s, as their manuals have it. Each has {ROUNDS} rounds, in turn; the p99 of its best one stands
here, with the errors of all. What is slow is slow behind each of them, so that the p99 is that server's, and what the
proxy and the client add on a busy machine; the errors are what counts.

In the other rows one server does what the row says, and six requests follow on the same connection, or on new ones
where that was closed. *An error* is a 500, 502 or 503, or an answer that visibly breaks off: never one that looks
whole. Where one of the six got anything but its own answer the cell says so. A cell in *italics* is not ours. The
first column is tested with every change.

"""


def page() -> str:
    """Start all, ask all; the page."""
    starts = [nginx, haproxy, caddy]
    with tempfile.TemporaryDirectory(prefix="daemun-proxy-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        crowds = [Crowd() for _ in COLUMNS]
        for number in range(ROUNDS * len(COLUMNS)):
            one = number % len(COLUMNS)
            run = folder / f"crowd-{number}"
            run.mkdir()
            with servers() as behind:
                if one == 0:
                    with daemun(behind, run, WATCHED) as server:
                        crowds[one].ask(server.port)
                else:
                    with starts[one - 1](behind, run) as port:
                        crowds[one].ask(port)
            print(COLUMNS[one], crowds[one].told(), file=sys.stderr)
        figures = ". ".join(
            f"{column}: {told}" for column, told in zip(COLUMNS, (crowd.told() for crowd in crowds), strict=True)
        )
        lines = [f"| Three servers, one dying, one slow. {figures} | measured | `{LOAD}` |"]
        behind_all = [stack.enter_context(Upstream(behaviour=misbehave)).port]
        asked = [Asked(stack.enter_context(daemun(behind_all, folder, "failures = 1000")).port, DEADLINE)]
        asked += [Asked(stack.enter_context(start(behind_all, folder)), PATIENCE) for start in starts]
        return table(HEAD, [*lines, *rows(CASES, COLUMNS, asked, TEST)])


if __name__ == "__main__":
    raise SystemExit(write_page(PAGE, page, missing(), "proxy-peers"))
