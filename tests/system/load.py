"""Clients that ask without pause, on connections that they keep, and count what went wrong."""

from __future__ import annotations

import collections
import http.client
import ssl
import threading
import time
from types import TracebackType

from server import DEADLINE


class Load:
    """So many clients, each with a thread and a connection of its own, from `with` to its end."""

    def __init__(
        self,
        port: int,
        path: str,
        clients: int = 8,
        wanted: bytes | None = None,
        keep: bool = True,
        never_closed: bool = False,
        context: ssl.SSLContext | None = None,
    ) -> None:
        # How it speaks TLS, if it does.
        self._context = context
        self._port = port
        self._path = path
        self._wanted = wanted
        self._keep = keep
        # Whether an answer that says `Connection: close` is a failure.
        self._never_closed = never_closed
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self.answered = 0
        # When a request failed, and how: a status, a connection that was hung up on, a wrong body.
        self.failures: list[tuple[float, str]] = []
        self.slowest = 0.0
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE)

    def _run(self) -> None:
        if self._context is None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=DEADLINE)
        else:
            connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=DEADLINE, context=self._context)
        while not self._stop.is_set():
            began = time.monotonic()
            failure = self._ask(connection)
            took = time.monotonic() - began
            if failure or not self._keep:
                connection.close()
            with self._changed:
                self.slowest = max(self.slowest, took)
                if failure is None:
                    self.answered += 1
                else:
                    self.failures.append((began, failure))
                self._changed.notify_all()
            if failure:
                self._stop.wait(0.01)  # A listener that is gone is not to be asked a thousand times a second.
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> str | None:
        try:
            connection.request("GET", self._path)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        if answer.status != 200:
            return str(answer.status)
        if self._never_closed and answer.headers["Connection"] == "close":
            return "closed"
        if self._wanted is not None and body != self._wanted:
            return f"body {body[:40]!r}"
        return None

    def more(self, count: int = 200, within: float = DEADLINE) -> None:
        """Wait until so many more requests were answered."""
        with self._changed:
            goal = self.answered + count
            assert self._changed.wait_for(lambda: self.answered >= goal, within), "nothing is answered any more"

    def flows_for(self, seconds: float) -> None:
        """Let it run so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._stop.wait(left)

    @property
    def summary(self) -> str:
        """Figures for people."""
        kinds = dict(collections.Counter(kind for _, kind in self.failures))
        return f"{self.answered} answered, {len(self.failures)} failed {kinds}, slowest {self.slowest * 1000:.0f} ms"
