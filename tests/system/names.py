"""A name server of the test's own: its records change as the test says, and so does whether it answers at all."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType

A, AAAA, SRV = 1, 28, 33
SERVFAIL, NXDOMAIN = 2, 3
RESPONSE, TRUNCATED = 0x8180, 0x0200


@dataclass
class Names:
    """A server for names over UDP and TCP at one port."""

    # Name and kind to records: addresses, or (priority, weight, port, target).
    records: dict[tuple[str, int], list[str | tuple[int, int, int, str]]] = field(default_factory=dict)
    ttl: int = 1
    # What it says in place of an answer; "silent" for nothing, "late" until `go` is set.
    mood: str | int = ""
    # Datagrams tell no more than this.
    most: int = 100
    # What it was asked, and how.
    asked: list[tuple[str, int, str]] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)

    def point(self, name: str, *addresses: str) -> None:
        """Have a name stand for these addresses."""
        fours = [address for address in addresses if ":" not in address]
        sixes = [address for address in addresses if ":" in address]
        self.records = {**self.records, (name, A): [*fours], (name, AAAA): [*sixes]}

    def serve(self, name: str, *services: tuple[int, int, int, str]) -> None:
        """Have a service stand for these priorities, weights, ports and hosts."""
        self.records = {**self.records, (name, SRV): [*services]}

    def reply(self, message: bytes, way: str) -> bytes:
        """Answer one question."""
        number, at, labels = struct.unpack("!H", message[:2])[0], 12, []
        while message[at]:
            labels.append(message[at + 1 : at + 1 + message[at]].decode())
            at += 1 + message[at]
        name, kind = ".".join(labels).lower(), struct.unpack("!H", message[at + 1 : at + 3])[0]
        self.asked.append((name, kind, way))
        question = message[12 : at + 5]
        if isinstance(self.mood, int):
            return struct.pack("!6H", number, RESPONSE | self.mood, 1, 0, 0, 0) + question
        known = [key for key in self.records if key[0] == name]
        found = self.records.get((name, kind), [])
        flags = RESPONSE if known else RESPONSE | NXDOMAIN
        if way == "udp" and len(found) > self.most:
            return struct.pack("!6H", number, flags | TRUNCATED, 1, 0, 0, 0) + question
        records = [record(one, kind, self.ttl) for one in found]
        return struct.pack("!6H", number, flags, 1, len(records), 0, 0) + question + b"".join(records)

    def __enter__(self) -> Names:
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.streams = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.streams.bind(("127.0.0.1", 0))
        self.streams.listen()
        self.port = self.streams.getsockname()[1]
        self.datagrams.bind(("127.0.0.1", self.port))
        self.resolver = f'resolver = "127.0.0.1:{self.port}"\n'
        for target in (self._datagrams, self._streams):
            threading.Thread(target=target, daemon=True).start()
        return self

    def _datagrams(self) -> None:
        with suppress(OSError):
            # The end of the test looks like an empty datagram.
            while (got := self.datagrams.recvfrom(4096))[0]:
                message, peer = got
                threading.Thread(target=self._datagram, args=(message, peer), daemon=True).start()

    def _datagram(self, message: bytes, peer: tuple[str, int]) -> None:
        if self.mood == "late":
            self.go.wait()
        if self.mood != "silent":
            with suppress(OSError):
                self.datagrams.sendto(self.reply(message, "udp"), peer)

    def _streams(self) -> None:
        with suppress(OSError):
            while True:
                stream, _ = self.streams.accept()
                with stream, suppress(OSError):
                    length = struct.unpack("!H", stream.recv(2, socket.MSG_WAITALL))[0]
                    reply = self.reply(stream.recv(length, socket.MSG_WAITALL), "tcp")
                    stream.sendall(struct.pack("!H", len(reply)) + reply)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.go.set()
        for sock in (self.datagrams, self.streams):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


def record(value: str | tuple[int, int, int, str], kind: int, ttl: int) -> bytes:
    """Write one record of the name that was asked for."""
    if isinstance(value, str):
        data = ipaddress.ip_address(value).packed
    else:
        labels = b"".join(bytes([len(label)]) + label.encode() for label in value[3].split(".") if label)
        data = struct.pack("!3H", *value[:3]) + labels + b"\0"
    return b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data
