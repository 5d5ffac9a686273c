"""FastCGI connections that requests share: whose bytes are whose, who waits for whom, and who is left alone."""

from __future__ import annotations

import http.client
import os
import socket
import struct
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from gateways import GET_VALUES, STDOUT, UNKNOWN, VALUES, record
from peers import free_port, program, started
from server import DEADLINE, Answer, Server, eventually, run
from sharing import SHARES, Application, Call, gate, together, until_shared
from upstreams import Upstream


def in_turn(waiting: list[Call]) -> None:
    """Answer one after another."""
    for call in waiting:
        call.answer()


def mixed(waiting: list[Call]) -> None:
    """Answer the last first, and all of them in turns."""
    for call in reversed(waiting):
        call.peer.send(call.head())
    for part in range(50):
        for call in waiting:
            call.peer.send(call.text(f"{call.path}-{part};"))
    for call in reversed(waiting):
        call.peer.send(call.end())


def keep(count: int, then: Callable[[list[Call]], None] = in_turn) -> Callable[[Application, Call], None]:
    """Keep requests until so many have come, but for the first ones; then have them answered."""

    def arrived(application: Application, call: Call) -> None:
        if call.path == "/first":
            call.answer()
            return
        application.waiting.append(call)
        if len(application.waiting) == count:
            waiting, application.waiting = application.waiting, []
            then(waiting)

    return arrived


def test_requests_share_a_connection_and_each_gets_its_own_answer(tmp_path: Path) -> None:
    application = Application(SHARES, keep(20, mixed))
    with Upstream(behaviour=application) as upstream, gate(tmp_path, upstream) as server:
        until_shared(server, application)
        paths = [f"/{at}" for at in range(20)]
        for path, reply in zip(paths, together(server, paths), strict=True):
            assert reply.text == "".join(f"{path}-{part};" for part in range(50))
        assert len({call.peer.number for call in application.calls[-20:]}) == 1
        assert application.questions == 1


def test_a_server_gets_no_more_requests_at_a_time_than_it_says(tmp_path: Path) -> None:
    most = 0

    def arrived(application: Application, call: Call) -> None:
        nonlocal most
        keep(3)(application, call)
        most = max(most, len(application.waiting))

    application = Application({**SHARES, "FCGI_MAX_REQS": "3"}, arrived)
    with Upstream(behaviour=application) as upstream, gate(tmp_path, upstream) as server:
        until_shared(server, application)
        paths = [f"/{at}" for at in range(12)]
        assert [reply.text for reply in together(server, paths)] == [f"{path} 0" for path in paths]
        # The third is answered as it comes: a fourth beside it would be among those that wait.
        assert most <= 2


@pytest.mark.parametrize(
    "says",
    [
        None,
        {"FCGI_MPXS_CONNS": "0", "FCGI_MAX_REQS": "1", "FCGI_MAX_CONNS": "1"},
        {},
        record(UNKNOWN, bytes([GET_VALUES]) + bytes(7), 0),
        record(VALUES, b"\x0f\x7fFCGI_MPXS_CONNS1", 0),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
    ],
    ids=["closes", "says no", "says nothing of it", "does not know", "cut pair", "no FastCGI", "silent"],
)
def test_a_server_that_does_not_say_so_has_a_connection_for_each(
    tmp_path: Path, says: dict[str, str] | bytes | None
) -> None:
    application = Application(says, keep(2))
    with Upstream(behaviour=application) as upstream, gate(tmp_path, upstream) as server:
        eventually(lambda: application.questions == 1, "the server was asked what it can do")
        for _ in range(5):
            assert [reply.text for reply in together(server, ["/a", "/b"])] == ["/a 0", "/b 0"]
            one, two = application.calls[-2:]
            assert one.peer.number != two.peer.number
        assert {call.number for call in application.calls} == {1}
        assert len({call.peer.number for call in application.calls}) == 2, "they are kept"
        assert application.questions == 1


def test_a_request_that_its_client_left_is_aborted_and_the_others_go_on(tmp_path: Path) -> None:
    application = Application(SHARES, keep(100))
    with Upstream(behaviour=application) as upstream, gate(tmp_path, upstream) as server:
        until_shared(server, application)
        with ThreadPoolExecutor(1) as pool:
            with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as leaves:
                leaves.sendall(b"GET /leaves HTTP/1.1\r\nHost: localhost\r\n\r\n")
                eventually(lambda: len(application.waiting) == 1, "the first is there")
                stays = pool.submit(server.get, "/stays")
                eventually(lambda: len(application.waiting) == 2, "the second is there")
                left, other = application.waiting
                left.peer.send(left.head())
                assert leaves.recv(1)
                leaves.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

            def is_aborted() -> bool:
                left.peer.send(left.text("for nobody"))
                return bool(application.aborted)

            eventually(is_aborted, "the first is aborted")
            assert application.aborted == [(left.peer.number, left.number)]
            assert left.peer.number == other.peer.number
            # What an application says until it has seen that.
            left.peer.send(left.text("still for nobody") + left.end())
            other.answer()
            assert stays.result().text == "/stays 0"
        until_shared(server, application)
        assert application.calls[-1].peer.number == left.peer.number


def test_a_request_that_is_answered_too_late_is_aborted(tmp_path: Path) -> None:
    application = Application(SHARES, keep(100))
    more = 'read_timeout = "200ms"\nretries = 0'
    with Upstream(behaviour=application) as upstream, gate(tmp_path, upstream, more) as server:
        until_shared(server, application)
        assert server.get("/late").status == 504
        eventually(lambda: bool(application.aborted), "it is aborted")
        (late,) = application.waiting
        assert application.aborted == [(late.peer.number, late.number)]
        late.answer("too late")
        until_shared(server, application)
        assert application.calls[-1].peer.number == late.peer.number


GARBAGE: dict[str, Callable[[Call], bytes]] = {
    "a request that was not sent": lambda _: record(STDOUT, b"X: y\r\n\r\nnobody's", 60_000),
    "a number that is free again": lambda _: record(STDOUT, b"X: y\r\n\r\nlate", 1),
    "no FastCGI": lambda _: b"HTTP/1.1 200 OK\r\n\r\nfor everybody",
    "an end of the wrong length": lambda call: record(3, b"\0", call.number),
    "an end that does not exist": lambda call: record(3, b"\0\0\0\0\x09\0\0\0", call.number),
    "a record that only we send": lambda call: record(1, struct.pack(">HB5x", 1, 1), call.number),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_bytes_that_are_nobodys_reach_nobody(tmp_path: Path, what: str) -> None:
    spoilt: set[int] = set()

    def arrived(application: Application, call: Call) -> None:
        if call.path == "/first" or spoilt:
            return call.answer()
        application.waiting.append(call)
        if len(application.waiting) == 4:
            spoilt.add(call.peer.number)
            call.peer.send(GARBAGE[what](call))
            for waiting in application.waiting:
                waiting.answer("not any more")
        return None

    application = Application(SHARES, arrived)
    with Upstream(behaviour=application) as upstream, gate(tmp_path, upstream) as server:
        until_shared(server, application)
        paths = [f"/{at}" for at in range(4)]
        # What may be asked again is, over connections that are not broken.
        assert [reply.text for reply in together(server, paths)] == [f"{path} 0" for path in paths]
        eventually(lambda: application.questions == 2, "it is asked anew what it can do")
        until_shared(server, application)
        assert application.calls[-1].peer.number not in spoilt


def test_answers_that_had_begun_when_their_connection_broke_never_look_whole(tmp_path: Path) -> None:
    def arrived(application: Application, call: Call) -> None:
        if call.path == "/first":
            return call.answer()
        application.waiting.append(call)
        if len(application.waiting) == 3:
            for waiting in application.waiting:
                waiting.peer.send(waiting.head(100 if waiting.path == "/sized" else None) + waiting.text("begun"))
            call.peer.send(record(STDOUT, b"nobody's", 60_000))
        return None

    def ask(path: str) -> Answer | None:
        with suppress(http.client.IncompleteRead):
            return server.get(path)
        return None

    application = Application(SHARES, arrived)
    with Upstream(behaviour=application) as upstream, gate(tmp_path, upstream) as server:
        until_shared(server, application)
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(ask, ["/a", "/sized", "/b"])) == [None] * 3
        server.wait_for("it answers a request that was not sent")


def test_a_server_that_takes_one_at_a_time_after_all_is_asked_so(tmp_path: Path) -> None:
    refused: list[str] = []

    def arrived(_: Application, call: Call) -> None:
        if call.number == 1:
            return call.answer()
        refused.append(call.path)
        return call.peer.send(call.end(1))

    application = Application(SHARES, arrived)
    with Upstream(behaviour=application) as upstream, gate(tmp_path, upstream, "retries = 0") as server:

        def is_refused() -> bool:
            assert server.get("/x").text == "/x 0"
            return bool(refused)

        eventually(is_refused, "a request on a shared connection was refused")
        for _ in range(5):
            assert server.get("/y").text == "/y 0"
        assert refused == ["/x"]


def test_a_connection_that_ends_takes_no_request_with_it_that_may_be_repeated(tmp_path: Path) -> None:
    is_broken = False

    def arrived(application: Application, call: Call) -> None:
        nonlocal is_broken
        if call.path == "/first" or is_broken:
            return call.answer()
        application.waiting.append(call)
        if len(application.waiting) == 6:
            is_broken = True
            call.peer.reset()
        return None

    # One connection: bodies share it as well.
    application = Application({**SHARES, "FCGI_MAX_CONNS": "1"}, arrived)
    with Upstream(behaviour=application) as upstream, gate(tmp_path, upstream) as server:
        until_shared(server, application)
        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(server.ask, f"/{at}", "GET" if at else "POST", b"" if at else b"x") for at in range(6)]
            replies = [one.result() for one in asked]
        assert [reply.status for reply in replies] == [502] + [200] * 5
        assert [reply.text for reply in replies[1:]] == [f"/{at} 0" for at in range(1, 6)]
        assert sum(call.path == "/0" for call in application.calls) == 1, "it was not asked twice"


def test_a_body_has_a_connection_of_its_own_where_the_server_has_one_to_spare(tmp_path: Path) -> None:
    for most, number in (("100", 1), ("1", 2)):
        application = Application({**SHARES, "FCGI_MAX_CONNS": most})
        with Upstream(behaviour=application) as upstream, gate(tmp_path, upstream) as server:
            until_shared(server, application)
            before = application.calls[-1].peer.number
            with ThreadPoolExecutor(3) as pool:
                sizes = [300_000, 70_000, 1]
                replies = pool.map(lambda size: server.ask("/b", "POST", b"x" * size), sizes)
                assert [reply.text for reply in replies] == [f"/b {size}" for size in sizes]
            calls = application.calls[-3:]
            assert all((call.peer.number == before) == (most == "1") for call in calls)
            assert all((call.number == 1) == (most != "1") for call in calls), number


def test_a_client_that_takes_nothing_holds_nobody_up(tmp_path: Path) -> None:
    def arrived(application: Application, call: Call) -> None:
        if call.path == "/first":
            return call.answer()
        application.waiting.append(call)
        if len(application.waiting) == 2:
            slow, quick = sorted(application.waiting, key=lambda call: call.path, reverse=True)
            slow.peer.send(slow.head())
            part = "x" * 60_000
            for _ in range(300):
                slow.peer.send(slow.text(part))
            quick.answer()
        return None

    application = Application({**SHARES, "FCGI_MAX_CONNS": "1"}, arrived)
    buffering = 'response_buffering = { memory = "64KiB", disk = 0 }'
    with Upstream(behaviour=application) as upstream, gate(tmp_path, upstream, buffering) as server:
        until_shared(server, application)
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.settimeout(DEADLINE)
            slow.connect(("127.0.0.1", server.port))
            slow.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
            eventually(lambda: len(application.waiting) == 1, "the slow one is there")
            assert server.get("/quick").text == "/quick 0"
            eventually(lambda: bool(application.aborted), "the slow one is given up")
            call = application.waiting[0]
            assert application.aborted == [(call.peer.number, call.number)]
            got = b""
            with suppress(ConnectionResetError):
                while more := slow.recv(65536):
                    got += more
            assert got.startswith(b"HTTP/1.1 200")
            assert not got.endswith(b"0\r\n\r\n"), "it looks whole"
        # Not the server's fault: it is asked as before.
        assert server.get("/first").text == "/first 0"
        assert "gets nothing" not in server.errors.text


def test_a_drained_server_finishes_what_it_has_and_its_connection_ends(tmp_path: Path) -> None:
    application = Application(SHARES, keep(100))
    with Upstream(behaviour=application) as upstream, gate(tmp_path, upstream) as server:
        until_shared(server, application)
        with ThreadPoolExecutor(1) as pool:
            busy = pool.submit(server.get, "/busy")
            eventually(lambda: len(application.waiting) == 1, "it is there")
            assert run("drain", "app", "127.0.0.1", cwd=tmp_path).returncode == 0
            (call,) = application.waiting
            assert call.peer.number not in application.closed
            call.answer()
            assert busy.result().text == "/busy 0"
        assert server.stop() == 0
        eventually(lambda: call.peer.number in application.closed, "its connection ended")


BEHIND = """
import os
from pathlib import Path
HERE = Path(__file__).parent
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"].startswith("/wait"):
        with open(HERE / "entered", "ab", 0) as entered:
            entered.write(b".")
        with open(HERE / "gate", "rb", 0) as gate:
            gate.read(1)
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    return [f"{environ['PATH_INFO']} {len(body)} ".encode(), b"x" * 100_000]
"""
GO = """
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/fcgi"
	"os"
	"strings"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		panic(err)
	}
	panic(fcgi.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/wait") {
			entered, _ := os.OpenFile(os.Args[2]+"/entered", os.O_APPEND|os.O_WRONLY, 0)
			entered.Write([]byte("."))
			entered.Close()
			gate, _ := os.Open(os.Args[2] + "/gate")
			gate.Read(make([]byte, 1))
			gate.Close()
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %d %s", r.URL.Path, len(body), strings.Repeat("x", 100000))
	})))
}
"""


def connections_to(port: int) -> int:
    """Count the established connections that this port has."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def many_come_over_one_connection(folder: Path, port: int) -> None:
    """Ask the application on that port for much at once."""
    os.mkfifo(folder / "gate")
    doors = os.open(folder / "gate", os.O_RDWR)
    (folder / "front").mkdir()
    with gate(folder / "front", Upstream(port=port), "keep_alive = { max = 1 }") as server:
        paths = [f"/wait{at}" for at in range(20)]

        def connections(paths: list[str]) -> int:
            """Have these wait in the application, and see how many connections they came over."""
            (folder / "entered").write_bytes(b"")
            with ThreadPoolExecutor(len(paths)) as pool:
                asked = [pool.submit(server.get, path) for path in paths]
                eventually(lambda: (folder / "entered").stat().st_size == len(paths), "all are in the application")
                found = connections_to(port)
                os.write(doors, b"." * len(paths))
                for path, one in zip(paths, asked, strict=True):
                    assert one.result().body == f"{path} 0 ".encode() + b"x" * 100_000
            return found

        # Until it has said that it can, each has its own, of which one is kept.
        eventually(lambda: connections(paths[:4]) <= 2, "they share a connection")
        assert connections(paths) <= 2
        assert server.ask("/body", "POST", b"y" * 200_000).text.startswith("/body 200000 ")
    os.close(doors)


def test_a_program_in_go_answers_many_requests_over_one_connection(tmp_path: Path) -> None:
    (tmp_path / "serve.go").write_text(GO)
    serve, port = tmp_path / "serve", free_port()
    subprocess.run([program("go"), "build", "-o", serve, tmp_path / "serve.go"], check=True, timeout=300)
    with started([str(serve), str(port), str(tmp_path)], port, tmp_path / "log"):
        many_come_over_one_connection(tmp_path, port)


def test_one_daemun_asks_another_many_things_over_one_connection(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(BEHIND)
    port = free_port()
    (tmp_path / "daemun.toml").write_text(
        f'[server]\nlisten = ["127.0.0.1:0", {{ address = "127.0.0.1:{port}", protocol = "fastcgi" }}]\n'
        f'trusted_proxies = ["127.0.0.1"]\n'
        f'[app.app]\nwsgi = "app:application"\nprocesses = 1\nthreads = 25\n'
    )
    with Server(cwd=tmp_path, listen=""):
        many_come_over_one_connection(tmp_path, port)
