"""Holds an application in the middle of a request for as long as a test wants."""

from __future__ import annotations

import socket

from server import DEADLINE


class Gate:
    """Lets a test hold an application in the middle of a request: it comes in, waits, and is let go.

    The application runs `hold()` from the module `gate`, which is written beside it.
    """

    MODULE = """\
import os, socket

def hold():
    with socket.create_connection(("127.0.0.1", int(os.environ["GATE_PORT"])), timeout=60) as gate:
        gate.sendall(b"in")
        gate.recv(2)
"""

    def __init__(self, patience: float = DEADLINE) -> None:
        self._patience = patience
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(patience)
        self._held: list[socket.socket] = []

    @property
    def env(self) -> dict[str, str]:
        """Where the gate stands, for the application."""
        return {"GATE_PORT": str(self._listener.getsockname()[1])}

    def entered(self) -> None:
        """Wait until a request has reached the application."""
        held, _ = self._listener.accept()
        held.settimeout(self._patience)
        assert held.recv(2) == b"in"
        self._held.append(held)

    def open(self) -> None:
        """Let go of everything that waits."""
        for held in self._held:
            held.sendall(b"go")
            held.close()
        self._held.clear()

    def close(self) -> None:
        """Open for good."""
        self.open()
        self._listener.close()
