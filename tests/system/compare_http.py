"""Sends daemun, nginx, Apache, lighttpd and h2o the same bytes, and writes the table of what they make of them.

python tests/system/compare_http.py [FILE]
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from compared import rows, table, write_page
from http_cases import CASES, Asked, recorder
from http_peers import apache, h2o, lighttpd, missing, nginx
from server import DEADLINE, ROOT, Server

PAGE = ROOT / "docs/conformance/http-peers.md"
TEST = "tests/system/test_http_peers.py::test_our_column_is_right_in_every_row"
COLUMNS = ["daemun", "nginx", "Apache", "lighttpd", "h2o"]
# After so much silence a peer counts as one that waits; what we answer is never a matter of time.
PATIENCE = 2.0
HEAD = """\
# HTTP/1.1: what five servers make of the same bytes

`make compare-http` starts daemun, nginx, Apache, lighttpd and h2o, each as Debian has it, as proxies of one server
that reads strictly and answers with what it has read; sends all of them the same bytes, and writes this page. Behind
each message stands another request, `GET /next` of host `a`: *the next* where it was answered, *closed* where the
connection ended before, *waits* where nothing came any more. Other words are what the server behind has read, method,
target, host and length of the body, or a status. Sections are those of [RFC
9112](https://www.rfc-editor.org/rfc/rfc9112), unless another number stands before them.

A cell in *italics* is not ours, and each of them is meant by one rule: what can be read in two ways is refused with
400 and the connection ends; what is well but not spoken here has a status of its own (417, 501, 505); what is taken
is written anew for the server behind. So we refuse what RFC 9112 lets a recipient take without asking it to (bare LF,
white space in a chunk's size, several equal lengths, odd hosts): somebody else on the way may read it differently, as
the row shows. 499 is the word of the server behind for what it could not read: the peer has handed on something that
is no request. TRACE and methods that nobody knows are the application's concern. The first column is tested with
every change.

"""


def serve(folder: Path, behind: int) -> Server:
    """Daemun in front of the recorder, with nothing set."""
    (folder / "daemun.toml").write_text(
        f'[upstream.behind]\nservers = ["http://127.0.0.1:{behind}"]\n[[route]]\npath = "/*"\nupstream = "behind"\n'
    )
    return Server(cwd=folder)


def page() -> str:
    """Start all, ask all; the page."""
    with tempfile.TemporaryDirectory(prefix="daemun-http-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        run = folder / "run"
        run.mkdir(mode=0o777)
        run.chmod(0o777)
        behind = stack.enter_context(recorder())
        asked = [Asked(stack.enter_context(serve(folder, behind)).port, DEADLINE)]
        for start in (nginx, apache, lighttpd, h2o):
            asked.append(Asked(stack.enter_context(start(behind, run)), PATIENCE))
        return table(HEAD, rows(CASES, COLUMNS, asked, TEST))


if __name__ == "__main__":
    raise SystemExit(write_page(PAGE, page, missing(), "http-peers"))
