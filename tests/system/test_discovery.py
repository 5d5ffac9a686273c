"""Servers that are followed by their name: what it stands for changes while requests come."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from authority import Authority
from names import NXDOMAIN, SERVFAIL, Names
from server import Server, eventually, run
from test_proxy_tls import secured
from upstreams import Upstream, unused_port
from wire import wire


def configure(folder: Path, names: Names, *servers: str, more: str = "") -> None:
    """Write a file whose upstream is looked up with `names`."""
    listed = ", ".join(f'"{server}"' for server in servers)
    text = f'[upstream.app]\nservers = [{listed}]\n{names.resolver}{more}\n[[route]]\npath = "/*"\nupstream = "app"\n'
    (folder / "daemun.toml").write_text(text)


@contextmanager
def two() -> Iterator[tuple[Upstream, Upstream]]:
    """Give two servers with one port and an address each."""
    with Upstream("a", host="127.0.0.2") as one, Upstream("b", host="127.0.0.3", port=one.port) as other:
        yield one, other


def answers(server: Server, count: int = 4) -> set[str]:
    """Give what some requests in a row were answered."""
    replies = [server.get("/") for _ in range(count)]
    assert {reply.status for reply in replies} == {200}
    return {reply.text for reply in replies}


def status(folder: Path) -> dict[str, str]:
    """Give how each server is."""
    told = json.loads(run("status", "--json", cwd=folder).stdout)
    return {server["url"]: server["state"] for server in told["upstreams"]["app"]}


def test_the_addresses_of_a_name_are_followed_while_it_runs(tmp_path: Path) -> None:
    with Names() as names, two() as (one, _):
        names.point("app.internal", "127.0.0.2")
        configure(tmp_path, names, f"dns+http://app.internal:{one.port}")
        with Server(cwd=tmp_path) as server:
            assert answers(server) == {"a / 0"}
            names.point("app.internal", "127.0.0.2", "127.0.0.3")
            server.wait_for(r"app\.internal is now 127\.0\.0\.2, 127\.0\.0\.3; it was 127\.0\.0\.2\b")
            assert answers(server) == {"a / 0", "b / 0"}
            names.point("app.internal", "127.0.0.3")
            server.wait_for(r"app\.internal is now 127\.0\.0\.3; it was 127\.0\.0\.2, 127\.0\.0\.3")
            assert answers(server) == {"b / 0"}
        assert one.asked[0].all("Host") == [f"127.0.0.1:{server.port}"]


def test_addresses_of_both_families_are_servers(tmp_path: Path) -> None:
    with Names() as names, Upstream("six", host="::1") as six, Upstream("four", port=six.port):
        names.point("app.internal", "127.0.0.1", "::1")
        configure(tmp_path, names, f"dns+http://app.internal:{six.port}")
        with Server(cwd=tmp_path) as server:
            assert answers(server) == {"four / 0", "six / 0"}
            assert set(status(tmp_path)) == {f"http://127.0.0.1:{six.port}", f"http://[::1]:{six.port}"}


def test_a_name_that_stops_resolving_keeps_its_last_servers_and_says_so(tmp_path: Path) -> None:
    with Names() as names, two() as (one, _):
        names.point("app.internal", "127.0.0.2")
        configure(tmp_path, names, f"dns+http://app.internal:{one.port}")
        with Server(cwd=tmp_path) as server:
            assert answers(server) == {"a / 0"}
            moods: list[tuple[str | int, str]] = [
                (NXDOMAIN, "there is no such name"),
                (SERVFAIL, r".*SERVFAIL"),
                ("silent", ".*not answer"),
            ]
            for mood, why in moods:
                names.mood = mood
                server.wait_for(rf"app\.internal cannot be found: {why}.*; its last servers stay: 127\.0\.0\.2")
                assert answers(server) == {"a / 0"}
                names.mood = ""
                server.wait_for(r"app\.internal is found: 127\.0\.0\.2")
                server.errors.lines.clear()


def test_a_service_has_ports_and_those_of_a_higher_priority_wait(tmp_path: Path) -> None:
    with Names() as names, Upstream("first", host="127.0.0.2") as first, Upstream("last", host="127.0.0.3") as last:
        names.point("one.internal", "127.0.0.2")
        names.point("two.internal", "127.0.0.3")
        names.serve("_http._tcp.app.internal", (10, 5, first.port, "one.internal"), (20, 5, last.port, "two.internal"))
        configure(tmp_path, names, "dns+http://_http._tcp.app.internal", more='host = "server"')
        with Server(cwd=tmp_path) as server:
            assert answers(server) == {"first / 0"}
            assert first.asked[0].all("Host") == ["app.internal"]
            with unused_port() as closed:
                names.serve(
                    "_http._tcp.app.internal", (10, 5, closed, "one.internal"), (20, 5, last.port, "two.internal")
                )
                server.wait_for(rf"_http\._tcp\.app\.internal is now 127\.0\.0\.2:{closed}, 127\.0\.0\.3:{last.port}")
                assert answers(server) == {"last / 0"}


def test_weights_of_a_service_are_shares(tmp_path: Path) -> None:
    with Names() as names, two() as (one, _):
        names.point("one.internal", "127.0.0.2")
        names.point("two.internal", "127.0.0.3")
        names.serve("_http._tcp.app.internal", (0, 3, one.port, "one.internal"), (0, 1, one.port, "two.internal"))
        configure(tmp_path, names, "dns+http://_http._tcp.app.internal")
        with Server(cwd=tmp_path) as server:
            replies = [server.get("/").text for _ in range(8)]
            assert (replies.count("a / 0"), replies.count("b / 0")) == (6, 2)


def test_what_is_known_of_a_server_stays_when_others_come(tmp_path: Path) -> None:
    with Names() as names, two() as (one, _):
        names.point("app.internal", "127.0.0.2", "127.0.0.4")
        configure(tmp_path, names, f"dns+http://app.internal:{one.port}", more='failures = 1\neject = "1h"')
        with Server(cwd=tmp_path) as server:
            assert answers(server) == {"a / 0"}
            server.wait_for(r"127\.0\.0\.4:\d+ gets nothing for 3600 s")
            names.point("app.internal", "127.0.0.2", "127.0.0.3", "127.0.0.4")
            server.wait_for(r"app\.internal is now 127\.0\.0\.2, 127\.0\.0\.3, 127\.0\.0\.4")
            assert answers(server) == {"a / 0", "b / 0"}
            assert run("drain", "app", "127.0.0.2", cwd=tmp_path).returncode == 0
            names.point("app.internal", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")
            server.wait_for(r"is now 127\.0\.0\.2, 127\.0\.0\.3, 127\.0\.0\.4, 127\.0\.0\.5")
            states = status(tmp_path)
            assert [states[f"http://127.0.0.{host}:{one.port}"] for host in (2, 3, 4)] == ["drained", "up", "ejected"]


def test_who_comes_before_the_first_answer_waits_for_it(tmp_path: Path) -> None:
    with Names(mood="late") as names, two() as (one, _):
        names.point("app.internal", "127.0.0.2")
        configure(tmp_path, names, f"dns+http://app.internal:{one.port}")
        with Server(cwd=tmp_path) as server, wire(server.port) as client:
            client.send(b"GET /early HTTP/1.1\r\nHost: a\r\n\r\n")
            assert status(tmp_path) == {f"dns+http://app.internal:{one.port}": "unresolved"}
            names.go.set()
            reply = client.reply()
            assert reply is not None
            assert (reply.status, reply.body) == (200, b"a /early 0")


def test_a_name_that_was_never_found_is_a_503(tmp_path: Path) -> None:
    with Names() as names:
        configure(tmp_path, names, "dns+http://app.internal:80")
        with Server(cwd=tmp_path) as server:
            server.wait_for(r"app\.internal cannot be found: there is no such name; it has no server yet")
            reply = server.get("/")
            assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
            assert status(tmp_path) == {"dns+http://app.internal:80": "unresolved"}


def test_an_answer_too_long_for_a_datagram_comes_over_tcp(tmp_path: Path) -> None:
    with Names(most=1) as names, two() as (one, _):
        names.point("app.internal", "127.0.0.2", "127.0.0.3")
        configure(tmp_path, names, f"dns+http://app.internal:{one.port}")
        with Server(cwd=tmp_path) as server:
            assert answers(server) == {"a / 0", "b / 0"}
        assert {way for _, kind, way in names.asked if kind == 1} == {"udp", "tcp"}


def test_a_name_server_may_be_asked_over_tcp_alone(tmp_path: Path) -> None:
    with Names() as names, two() as (one, _):
        names.point("app.internal", "127.0.0.2")
        names.resolver = f'resolver = ["tcp://127.0.0.1:{names.port}"]\n'
        configure(tmp_path, names, f"dns+http://app.internal:{one.port}")
        with Server(cwd=tmp_path) as server:
            assert answers(server) == {"a / 0"}
        assert {way for _, _, way in names.asked} == {"tcp"}


def test_the_hosts_file_and_the_system_are_asked_without_a_resolver(tmp_path: Path) -> None:
    with Upstream() as upstream, Names() as names:
        names.resolver = ""
        configure(tmp_path, names, f"dns+http://localhost:{upstream.port}")
        with Server(cwd=tmp_path) as server:
            assert answers(server) == {"a / 0"}


def test_a_certificate_is_for_the_name_that_is_followed(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.sign("app.internal", "app.internal")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.cert, own.key)
    with Names() as names, secured(context) as upstream:
        for name in ("app.internal", "other.internal"):
            names.point(name, "127.0.0.1")
        trust = f'tls = {{ ca_file = "{authority.cert}" }}'
        configure(tmp_path, names, f"dns+https://app.internal:{upstream.port}", more=trust)
        with Server(cwd=tmp_path) as server:
            assert answers(server) == {"nobody"}
        configure(tmp_path, names, f"dns+https://other.internal:{upstream.port}", more=trust)
        with Server(cwd=tmp_path) as server:
            assert server.get("/").status == 502


def test_a_reload_may_change_the_name_and_what_is_said_of_it(tmp_path: Path) -> None:
    with Names() as names, two() as (one, _):
        names.point("app.internal", "127.0.0.2")
        names.point("new.internal", "127.0.0.3")
        configure(tmp_path, names, f"dns+http://app.internal:{one.port}")
        with Server(cwd=tmp_path) as server:
            assert answers(server) == {"a / 0"}
            configure(tmp_path, names, f"dns+http://new.internal:{one.port}")
            assert run("reload", cwd=tmp_path).returncode == 0
            assert answers(server) == {"b / 0"}
            count = sum(name == "new.internal" for name, _, _ in names.asked)
            eventually(lambda: sum(name == "new.internal" for name, _, _ in names.asked) > count, "looked up again")


def test_what_cannot_be_followed_is_told_with_its_place(tmp_path: Path) -> None:
    for servers, more, words in [
        ("dns+http://10.0.0.5:80", "", "an address needs no look-up"),
        ("dns+http://_http._tcp.app:80", "", "say its ports"),
        ("dns+http://_http", "", "a service is written as"),
        ("http://app:80", "", "no server of this upstream is followed"),
        ("dns+http://app:80", 'resolver = "dns.internal"', "expected the address of a name server"),
    ]:
        names = Names()
        names.resolver = "" if more else 'resolver = "127.0.0.1:53"\n'
        configure(tmp_path, names, servers, more=more)
        told = run("serve", cwd=tmp_path)
        assert (told.returncode, words in told.stderr) == (2, True), told.stderr
