"""A crowd that asks through a proxy for what three servers answer: one healthy, one slow, one that dies on the way."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from server import DEADLINE
from upstreams import Peer, Upstream, answer, plain

CLIENTS = 12
REQUESTS = 1200
# How long the slow server takes, and after how many answers the dying one resets whatever it is asked.
SLOW = 0.2
DIES_AFTER = 50


def slow(upstream: Upstream, peer: Peer) -> None:
    """Answer late."""
    while (asked := peer.request()) is not None:
        time.sleep(SLOW)
        peer.send(answer(f"{upstream.name} {asked.line.split(' ')[1]}".encode()))


def dying(upstream: Upstream, peer: Peer) -> None:
    """Answer some requests, and reset the connection of all others."""
    while (asked := peer.request()) is not None:
        upstream.asked.append(asked)
        if len(upstream.asked) > DIES_AFTER:
            peer.reset()
            return
        peer.send(answer(f"{upstream.name} {asked.line.split(' ')[1]}".encode()))


@contextmanager
def servers() -> Iterator[list[int]]:
    """Run the three; give their ports."""
    with ExitStack() as stack:
        all_three = [Upstream("healthy", plain), Upstream("slow", slow), Upstream("dying", dying)]
        yield [stack.enter_context(one).port for one in all_three]


@dataclass
class Crowd:
    """What a crowd got."""

    wrong: list[str] = field(default_factory=list)
    rounds: list[list[float]] = field(default_factory=list)

    def ask(self, port: int, requests: int = REQUESTS) -> Crowd:
        """Ask so many times, by several at once over connections that they keep."""
        numbers = itertools.count()
        seconds: list[float] = []

        def one() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
            while (number := next(numbers)) < requests:
                begun = time.monotonic()
                try:
                    connection.request("GET", f"/{number}")
                    reply = connection.getresponse()
                    said = f"{reply.status} {reply.read().decode()}"
                except (OSError, http.client.HTTPException) as error:
                    said = type(error).__name__
                    connection.close()
                if not said.startswith("200 ") or said.split(" ")[2] != f"/{number}":
                    self.wrong.append(said)
                seconds.append(time.monotonic() - begun)
            connection.close()

        threads = [threading.Thread(target=one) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.rounds.append(sorted(seconds))
        return self

    def told(self) -> str:
        """Errors and times in words."""
        p99 = min(times[len(times) * 99 // 100] for times in self.rounds)
        return f"{100 * len(self.wrong) / sum(map(len, self.rounds)):.1f} % errors, p99 {1000 * p99:.0f} ms"
