"""gRPC through the proxy, with its own client and server: how a call went stands in the trailers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from server import DEADLINE, Server
from test_proxy import configure
from test_traces import ENVIRONMENT

WANT = """\
unary True OK 0
unary True OK 3
unary True OK 2048000
refused NOT_FOUND nobody has heard of it
each M0 M1 M2 M3 M4 5
"""
PROGRAM = [ENVIRONMENT / "bin" / "python", Path(__file__).with_name("grpc_calls.py")]


@contextmanager
def called() -> Iterator[int]:
    """Run the server; give its port."""
    process = subprocess.Popen([*PROGRAM, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.communicate(timeout=DEADLINE)


@pytest.mark.parametrize("hops", [1, 2])
def test_grpc_calls_go_through(tmp_path: Path, hops: int) -> None:
    """Single ones, refused ones, and conversations; also through a second gate."""
    with called() as port:
        configure(tmp_path, f"h2c://127.0.0.1:{port}", route="request_buffering = false")
        with Server(cwd=tmp_path) as server:
            if hops == 2:
                second = tmp_path / "second"
                second.mkdir()
                configure(second, f"h2c://127.0.0.1:{server.port}", route="request_buffering = false")
                with Server(cwd=second) as other:
                    assert calls(other.port) == WANT
            else:
                assert calls(server.port) == WANT


def calls(port: int) -> str:
    """Call through this port; give what came of it."""
    ran = subprocess.run(
        [*PROGRAM, "call", str(port)], capture_output=True, text=True, timeout=4 * DEADLINE, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
