"""Asks daemun, gunicorn, waitress, uWSGI, mod_wsgi and Granian the same of one WSGI application; writes the table.

python tests/system/compare_wsgi.py [FILE]
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import count
from pathlib import Path

import misdeeds
import wsgi_peers
from compared import Case, outcome, row, table, write_page
from gate import Gate
from server import ROOT, Server
from wsgi_cases import CASES, NO_ANSWER, SECRET, Asked, Hurt
from wsgi_peers import Setup

PAGE = ROOT / "docs/conformance/wsgi-peers.md"
TEST = "tests/system/test_wsgi_peers.py::test_our_column_is_right_in_every_row"
HERE = Path(__file__).parent
HEAD = """\
# WSGI: what six servers make of the same application

`make compare-wsgi` serves one application of probes with daemun and with {peers}, each from its registry and
set up as its own guide has it (one process with four threads for the rows about PEP 3333, two processes for those about
failures, Granian with `--respawn-failed-workers` left off as it is by default), asks them all the same, and writes this
page. Sections are those of [PEP 3333](https://peps.python.org/pep-3333/). What is wrong, or not what a user would wish
for, is in *italics*. The first column is tested with every change.

"""


def daemun(setup: Setup) -> Server:
    """Daemun over a module, with what is set said in the file."""
    lines = ["[app.asked]", f'wsgi = "{setup.module}:application"', f'directory = "{setup.folder}"']
    lines += [f'python = "{sys.executable}"', f"processes = {setup.processes}", f"threads = {setup.threads}"]
    lines += [f'timeout = "{setup.timeout}s"'] if setup.timeout else []
    lines += [f"max_requests = {setup.max_requests}"] if setup.max_requests else []
    setup.run.mkdir(parents=True)
    (setup.run / "daemun.toml").write_text("\n".join(lines) + "\n")
    return Server(cwd=setup.run, env=setup.env)


@contextmanager
def ours(setup: Setup) -> Iterator[wsgi_peers.Peer]:
    """Daemun as one of them."""
    with daemun(setup) as server:
        yield wsgi_peers.Peer(server.port, server.pid, lambda: server.errors.text, signal.SIGHUP, 0.0)


def theirs(name: str) -> Callable[[Setup], AbstractContextManager[wsgi_peers.Peer]]:
    """Give the way to start one of the others."""
    return lambda setup: wsgi_peers.serving(name, setup)


@contextmanager
def asked(start: Callable[[Setup], AbstractContextManager[wsgi_peers.Peer]], folder: Path) -> Iterator[Asked]:
    """One server over the probes, from which others of its kind can be had over the misdeeds."""
    numbers = count()

    @contextmanager
    def hurt(processes: int = 2, timeout: int = 0, max_requests: int = 0) -> Iterator[Hurt]:
        place = folder / f"hurt{next(numbers)}"
        place.mkdir(parents=True)
        place.chmod(0o777)
        shutil.copy(misdeeds.__file__, place / "bad.py")
        with start(Setup("bad", place, place / "run", processes, 4, timeout, max_requests)) as peer:
            yield Hurt(peer.port, peer.pid, peer.reload, peer.lingers)

    gate = Gate(NO_ANSWER)
    try:
        with start(Setup("probes", HERE, folder / "run", env={**gate.env, SECRET: "1"})) as peer:
            yield Asked(peer.port, gate, peer.said, hurt)
    finally:
        gate.close()


def outcomes(cases: Sequence[Case[Asked]], names: Sequence[str], folder: Path) -> Iterator[list[str]]:
    """Start all, ask all; what came of each question at each."""
    with ExitStack() as stack:
        starts = [ours, *map(theirs, names)]
        all_asked = [
            stack.enter_context(asked(start, folder / name))
            for start, name in zip(starts, ["daemun", *names], strict=True)
        ]
        for case in cases:
            found = [outcome(case, one) for one in all_asked]
            print(f"{case.says}: {found}", file=sys.stderr, flush=True)
            yield found


def page() -> str:
    """Every row."""
    names = list(wsgi_peers.COMMANDS)
    with tempfile.TemporaryDirectory(prefix="daemun-wsgi-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        columns = ["daemun", *names]
        lines = [
            row(case, columns, found, TEST) for case, found in zip(CASES, outcomes(CASES, names, folder), strict=True)
        ]
    versions = [f"{name} {wsgi_peers.version(name)}" for name in names]
    return table(HEAD.format(peers=", ".join(versions[:-1]) + " and " + versions[-1]), lines)


if __name__ == "__main__":
    raise SystemExit(write_page(PAGE, page, wsgi_peers.missing(), "wsgi-peers"))
