"""CGI in numbers: ten thousand runs, a thousand requests at once, two hundred for sixteen places."""

from __future__ import annotations

import concurrent.futures
import http.client
import resource
import selectors
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import DEADLINE, Server, children, eventually, resident
from test_cgi import script
from test_cgi_limits import role

CONFIGURATION = """
[[route]]
path = "/cgi-bin/*"
cgi = { root = "cgi-bin", max_processes = 16 }

[[route]]
path = "/quick"
respond = { body = "quick" }
"""


@pytest.fixture(name="server")
def fixture_server(tmp_path: Path) -> Iterator[Server]:
    """Serve scripts of every sort, sixteen at a time."""
    script(tmp_path, "ok.cgi", "printf 'Status: 200\\n\\nok'")
    script(tmp_path, "crash.cgi", "kill -9 $$")
    script(tmp_path, "left.cgi", "sleep 1000 & printf 'Status: 200\\n\\nok'")
    script(tmp_path, "loud.cgi", "echo complaint >&2; printf 'Status: 200\\n\\nok'")
    script(tmp_path, "slow.cgi", "sleep 0.1; printf 'Status: 200\\n\\nok'")
    (tmp_path / "daemun.toml").write_text(CONFIGURATION)
    with Server(cwd=tmp_path) as server:
        yield server


def opened(server: Server) -> list[int]:
    """How many descriptors front and launcher hold."""
    return [len(list(Path(f"/proc/{role(server, name)}/fd").iterdir())) for name in ("front", "launcher")]


def ask_many(server: Server, paths: list[str]) -> list[int]:
    """Ask one after another on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)
    statuses = []
    for path in paths:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)
    connection.close()
    return statuses


def test_ten_thousand_runs_leave_no_zombie_and_no_descriptor(server: Server) -> None:
    paths = ["/cgi-bin/ok.cgi"] * 7 + ["/cgi-bin/crash.cgi", "/cgi-bin/loud.cgi", "/cgi-bin/nothing"]
    ask_many(server, [*paths, "/cgi-bin/left.cgi"])
    before, memory = opened(server), resident(role(server, "launcher"))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(ask_many, server, paths * 125 + ["/cgi-bin/left.cgi"]) for _ in range(9)]
        statuses = [status for run in runs for status in run.result()]
    assert len(statuses) > 11_000
    assert {status: statuses.count(status) for status in set(statuses)} == {200: 9 * 1001, 500: 1125, 404: 1125}
    eventually(lambda: children(role(server, "launcher")) == [], "no zombie, nothing left behind")
    eventually(lambda: all(now <= then for now, then in zip(opened(server), before, strict=True)), "no descriptor")
    print(f"launcher: {memory} bytes before, {resident(role(server, 'launcher'))} after; descriptors {before}")


def test_a_thousand_at_once_are_never_a_thousand_processes(server: Server) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    waiting = selectors.DefaultSelector()
    statuses: list[bytes] = []
    most = 0
    try:
        for _ in range(1000):
            client = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE)
            client.sendall(b"GET /cgi-bin/ok.cgi HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            waiting.register(client, selectors.EVENT_READ, client)
        end = time.monotonic() + DEADLINE
        launcher = role(server, "launcher")
        while len(statuses) < 1000:
            assert time.monotonic() < end, f"{len(statuses)} answers"
            most = max(most, len(children(launcher)))
            for key, _ in waiting.select(0.01):
                statuses.append(key.data.recv(65536)[9:12])
                waiting.unregister(key.data)
                key.data.close()
    finally:
        waiting.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    print(f"at most {most} processes at a time; answered with 200: {statuses.count(b'200')}")
    assert set(statuses) <= {b"200", b"503"}
    # The queue holds a thousand.
    assert statuses.count(b"200") == 1000
    assert most <= 16


def test_two_hundred_for_sixteen_places_are_answered_beside_other_traffic(server: Server) -> None:
    taken: list[float] = []
    with concurrent.futures.ThreadPoolExecutor(200) as pool:
        asked = [pool.submit(server.get, "/cgi-bin/slow.cgi") for _ in range(200)]
        connection = server.connection()
        while not all(one.done() for one in asked):
            began = time.monotonic()
            connection.request("GET", "/quick")
            assert connection.getresponse().read() == b"quick"
            taken.append(time.monotonic() - began)
            time.sleep(0.005)
        connection.close()
        assert {one.result().status for one in asked} == {200}
    middle, most = statistics.median(taken) * 1e3, max(taken) * 1e3
    print(f"other traffic, {len(taken)} requests: median {middle:.1f} ms, longest {most:.1f} ms")
