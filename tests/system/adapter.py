"""A small client of the Debug Adapter Protocol: what an editor says to debugpy."""

from __future__ import annotations

import json
import queue
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any

from server import DEADLINE

Message = dict[str, Any]


class Session:
    """A conversation with an adapter, over any two streams."""

    def __init__(self, reading: IO[bytes], writing: IO[bytes], connection: socket.socket | None = None) -> None:
        self._reading = reading
        self._writing = writing
        self._connection = connection
        self._number = 0
        self._kept: list[Message] = []
        self._arrived: queue.Queue[Message] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hang up; an adapter that is spoken with over its own input and output has been ended before."""
        if self._connection is not None:
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
            self._connection.close()
        self._thread.join(DEADLINE)
        for stream in (self._reading, self._writing):
            with suppress(OSError):
                stream.close()

    def _read(self) -> None:
        # An adapter that is gone may reset the connection: that is its end as well.
        with suppress(ConnectionResetError):
            while line := self._reading.readline():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
                    self._reading.readline()
                    message = json.loads(self._reading.read(length))
                    self._arrived.put(message)

    def request(self, command: str, **arguments: object) -> int:
        """Ask for something, and do not wait."""
        self._number += 1
        self._send({"seq": self._number, "type": "request", "command": command, "arguments": arguments})
        return self._number

    def _send(self, message: Mapping[str, object]) -> None:
        data = json.dumps(message).encode()
        self._writing.write(b"Content-Length: %d\r\n\r\n" % len(data) + data)
        self._writing.flush()

    def answer(self, number: int) -> Message:
        """Wait for the answer to a request, which must be a good one."""
        found = self._wait(lambda one: one["type"] == "response" and one["request_seq"] == number)
        assert found["success"], found
        return dict(found.get("body") or {})

    def event(self, name: str) -> Message:
        """Wait for an event."""
        found = self._wait(lambda one: one["type"] == "event" and one["event"] == name)
        return dict(found.get("body") or {})

    def _wait(self, wanted: Any) -> Message:
        end = time.monotonic() + DEADLINE
        while True:
            for index, message in enumerate(self._kept):
                if wanted(message):
                    return self._kept.pop(index)
            left = end - time.monotonic()
            assert left > 0, f"only {self._kept}"
            try:
                self._kept.append(self._arrived.get(timeout=min(left, 1.0)))
            except queue.Empty:
                continue

    def begin(self, way: str, breakpoints: Mapping[str, list[int]], **arguments: object) -> None:
        """Launch or attach, with these lines to stop at."""
        self.answer(self.request("initialize", adapterID="python", pathFormat="path", linesStartAt1=True))
        begun = self.request(way, **arguments)
        self.event("initialized")
        for path, lines in breakpoints.items():
            lines_of = [{"line": line} for line in lines]
            self.answer(self.request("setBreakpoints", source={"path": path}, breakpoints=lines_of))
        self.answer(self.request("configurationDone"))
        self.answer(begun)


def over(process: subprocess.Popen[bytes]) -> Session:
    """Speak with an adapter over its standard input and output."""
    assert process.stdin is not None
    assert process.stdout is not None
    return Session(process.stdout, process.stdin)


def at(host: str, port: int) -> Session:
    """Speak with an adapter that listens there."""
    connection = socket.create_connection((host, port), DEADLINE)
    connection.settimeout(None)
    return Session(connection.makefile("rb"), connection.makefile("wb"), connection)
