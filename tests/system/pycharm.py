"""PyCharm's side of its debugger: it listens, and each process that is debugged connects to it.

A message is a line: the command's number, a sequence number and the text, with tabs between them. What the
debugger says is quoted as in a URL; what is said to it is not.
"""

from __future__ import annotations

import queue
import socket
import threading
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import unquote

from server import DEADLINE

RUN, SUSPENDED, RESUME, SET_BREAK, CHANGE, VERSION, RETURN = 101, 105, 106, 111, 117, 501, 502


class Process:
    """The connection of one process."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._number = -1
        self._stops: queue.Queue[str] = queue.Queue()
        self._changed: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with suppress(OSError), self._connection.makefile(encoding="utf-8") as lines:
            for line in lines:
                number, _, text = line.rstrip("\n").split("\t", 2)
                if int(number) == SUSPENDED:
                    self._stops.put(unquote(text))
                elif int(number) == RETURN:
                    self._changed.put(unquote(text))

    def say(self, command: int, *words: str) -> None:
        """Send a command."""
        self._number += 2
        self._connection.sendall("\t".join([str(command), str(self._number), *words]).encode() + b"\n")

    def begin(self, breakpoints: Mapping[str, list[int]]) -> None:
        """Say who is there, set the breakpoints and let it run."""
        self.say(VERSION, "263", "UNIX")
        for path, lines in breakpoints.items():
            for line in lines:
                self.say(SET_BREAK, "python-line", path, str(line), "None", "NONE", "None", "None")
        self.say(RUN, "")

    def stopped(self) -> tuple[str, str, int]:
        """Wait until it stops: the thread, the frame, the line."""
        thread = ET.fromstring(self._stops.get(timeout=DEADLINE)).find("thread")
        assert thread is not None
        assert thread.get("stop_reason") == str(SET_BREAK)
        frame = thread.find("frame")
        assert frame is not None
        return str(thread.get("id")), str(frame.get("id")), int(str(frame.get("line")))

    def change(self, thread: str, frame: str, name: str, value: str) -> None:
        """Change a local variable."""
        self.say(CHANGE, thread, frame, "FRAME", name, value)
        assert value.strip("'") in self._changed.get(timeout=DEADLINE)

    def resume(self, thread: str) -> None:
        """Let a thread go on."""
        self.say(RESUME, thread)

    def close(self) -> None:
        """Hang up."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


class Ide:
    """What listens."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(DEADLINE)
        self.port: int = self._listener.getsockname()[1]
        self._processes: list[Process] = []

    def process(self, breakpoints: Mapping[str, list[int]]) -> Process:
        """Take the next process, with these breakpoints."""
        connection, _ = self._listener.accept()
        connection.settimeout(None)
        process = Process(connection)
        self._processes.append(process)
        process.begin(breakpoints)
        return process

    def close(self) -> None:
        """Hang up on all."""
        self._listener.close()
        for process in self._processes:
            process.close()
