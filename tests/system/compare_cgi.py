"""Asks daemun, Apache, lighttpd and nginx with fcgiwrap the same of the same CGI scripts, and writes the table of it.

python tests/system/compare_cgi.py [FILE]
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from cgi_cases import CASES, Asked, write
from cgi_peers import apache, fcgiwrap, lighttpd, missing
from compared import rows, table, write_page
from server import ROOT, Server

PAGE = ROOT / "docs/conformance/cgi-peers.md"
TEST = "tests/system/test_cgi_peers.py::test_our_column_is_right_in_every_row"
COLUMNS = ["daemun", "Apache mod_cgid", "lighttpd mod_cgi", "nginx + fcgiwrap"]
HEAD = """\
# CGI: what four servers make of the same scripts

`make compare-cgi` serves one folder of scripts with daemun, Apache, lighttpd, and nginx with fcgiwrap, each as Debian
has it, asks them all the same, and writes this page. Sections are those of
[RFC 3875](https://www.rfc-editor.org/rfc/rfc3875). What is wrong, or not what a user would wish for, is in *italics*.
The first column is tested with every change.

"""


def ours(folder: Path, server: Server) -> Asked:
    """Daemun as one to be asked."""
    return Asked(server.port, folder, lambda: server.errors.text)


def serve(folder: Path) -> Server:
    """Daemun over the scripts in `cgi-bin`, with nothing set."""
    (folder / "daemun.toml").write_text('[[route]]\npath = "/cgi-bin/*"\ncgi = { root = "cgi-bin" }\n')
    return Server(cwd=folder)


def page() -> str:
    """Start all, ask all; the page."""
    with tempfile.TemporaryDirectory(prefix="daemun-cgi-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        scripts, run = folder / "cgi-bin", folder / "run"
        write(scripts)
        run.mkdir(mode=0o777)
        run.chmod(0o777)
        server = stack.enter_context(serve(folder))
        asked = [ours(scripts, server)]
        for start in (apache, lighttpd, fcgiwrap):
            peer = stack.enter_context(start(scripts, run))
            asked.append(Asked(peer.port, scripts, peer.said))
        return table(HEAD, rows(CASES, COLUMNS, asked, TEST))


if __name__ == "__main__":
    raise SystemExit(write_page(PAGE, page, missing(), "cgi-peers"))
